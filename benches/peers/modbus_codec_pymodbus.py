"""pymodbus' side of the decoding of 125 registers. Runs in `.venv-pymodbus`: prints one JSON line."""

from __future__ import annotations

import importlib.metadata
import struct
from collections.abc import Callable

from benches.timing import report
from pymodbus.framer import FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU

VALUES = list(range(125))
PDU = bytes([3, 250]) + struct.pack(">125H", *VALUES)
OVER_TCP = struct.pack(">HHHB", 1, 0, len(PDU) + 1, 1) + PDU
OVER_RTU = b"\x01" + PDU + FramerRTU.compute_CRC(b"\x01" + PDU).to_bytes(2, "big")


def decoder(framer: FramerSocket | FramerRTU, frame: bytes) -> Callable[[], object]:
    def decode() -> object:
        _, pdu = framer.handleFrame(frame, 1, 1)
        return pdu.registers

    return decode


WORKS: dict[str, Callable[[], object]] = {
    "TCP answer of 125 registers, decode": decoder(FramerSocket(DecodePDU(False)), OVER_TCP),
    "RTU answer of 125 registers, decode": decoder(FramerRTU(DecodePDU(False)), OVER_RTU),
}

if __name__ == "__main__":
    for work, call in WORKS.items():
        if call() != VALUES:
            raise SystemExit(f"{work}: decoded wrong")
    report("pymodbus", importlib.metadata.version("pymodbus"), WORKS)
