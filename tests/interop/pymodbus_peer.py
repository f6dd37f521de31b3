"""A server or a client of pymodbus, in its asyncio form.

.venv-pymodbus/bin/python -m tests.interop.pymodbus_peer serve FRAMING
.venv-pymodbus/bin/python -m tests.interop.pymodbus_peer ask FRAMING PORT

FRAMING is one of tcp, udp, rtu-over-tcp, ascii. A server prints where it listens; a client asks a fixed list of
questions of unit 1 and prints a JSON document.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import Any

from pymodbus import FramerType, ModbusDeviceIdentification
from pymodbus.client import AsyncModbusTcpClient, AsyncModbusUdpClient
from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.server import ModbusTcpServer, ModbusUdpServer

FRAMERS = {
    "tcp": FramerType.SOCKET,
    "udp": FramerType.SOCKET,
    "rtu-over-tcp": FramerType.RTU,
    "ascii": FramerType.ASCII,
}


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def serve(framing: str) -> None:
    """Registers whose values are their addresses, until this process is ended."""
    # The blocks count from 1, the wire from 0.
    device = ModbusDeviceContext(
        co=ModbusSequentialDataBlock(1, [address % 3 == 0 for address in range(2100)]),
        di=ModbusSequentialDataBlock(1, [address % 5 == 0 for address in range(2100)]),
        hr=ModbusSequentialDataBlock(1, list(range(500))),
        ir=ModbusSequentialDataBlock(1, [10_000 + address for address in range(500)]),
    )
    identity = ModbusDeviceIdentification(
        info_name={"VendorName": "other", "ProductCode": "people", "MajorMinorRevision": "3.16"}
    )
    kind = socket.SOCK_DGRAM if framing == "udp" else socket.SOCK_STREAM
    address = ("127.0.0.1", free_port(kind))
    server_type = ModbusUdpServer if framing == "udp" else ModbusTcpServer
    context = ModbusServerContext(devices=device, single=True)
    server = server_type(context, framer=FRAMERS[framing], identity=identity, address=address)
    await server.serve_forever(background=True)
    print(f"listening {address[0]}:{address[1]}", flush=True)
    await asyncio.Event().wait()


async def ask(framing: str, port: int) -> dict[str, Any]:
    client_type = AsyncModbusUdpClient if framing == "udp" else AsyncModbusTcpClient
    client = client_type("127.0.0.1", port=port, framer=FRAMERS[framing], timeout=5, retries=0)
    if not await client.connect():
        raise SystemExit(f"no connection to port {port}")
    answers: dict[str, Any] = {}
    answers["coils"] = [int(bit) for bit in (await client.read_coils(0, count=10)).bits[:10]]
    answers["inputs"] = [int(bit) for bit in (await client.read_discrete_inputs(5, count=6)).bits[:6]]
    answers["holding"] = (await client.read_holding_registers(100, count=3)).registers
    answers["most"] = (await client.read_holding_registers(0, count=125)).registers
    answers["input"] = (await client.read_input_registers(8, count=2)).registers
    for write in (
        client.write_coil(1, True),
        client.write_register(1, 99),
        client.write_coils(3, [True, False, True]),
        client.write_registers(2, [7, 8, 9]),
        client.mask_write_register(address=2, and_mask=0xF2, or_mask=0x25),
    ):
        answer = await write
        if answer.isError():
            raise SystemExit(f"a write was refused: {answer}")
    both = await client.readwrite_registers(read_address=9, read_count=4, write_address=10, values=[7, 8, 9])
    answers["write-and-read"] = both.registers
    answers["written-coils"] = [int(bit) for bit in (await client.read_coils(0, count=7)).bits[:7]]
    answers["written"] = (await client.read_holding_registers(0, count=5)).registers
    if framing != "rtu-over-tcp":  # asked where the frame itself tells its length
        answers["fifo"] = (await client.read_fifo_queue(address=0)).values
    answers["diagnostics"] = (await client.diag_query_data(b"\xa5\x37")).message.hex()
    identification = await client.read_device_information(read_code=1, object_id=0)
    answers["identification"] = {str(number): text.decode() for number, text in identification.information.items()}
    answers["missing"] = (await client.read_holding_registers(60_000, count=1)).exception_code
    client.close()
    return answers


def main(words: list[str]) -> int:
    match words:
        case ["serve", framing] if framing in FRAMERS:
            asyncio.run(serve(framing))
        case ["ask", framing, port] if framing in FRAMERS:
            print(json.dumps(asyncio.run(ask(framing, int(port)))))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
