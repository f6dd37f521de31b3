"""A server or a client of pymodbus, in its asyncio form.

.venv-pymodbus/bin/python -m tests.interop.pymodbus_peer serve FRAMING [LINE]
.venv-pymodbus/bin/python -m tests.interop.pymodbus_peer ask FRAMING PORT-OR-LINE
.venv-pymodbus/bin/python -m tests.interop.pymodbus_peer images

FRAMING is one of tcp, tls, udp, rtu-over-tcp, ascii, and rtu on a serial line. A server prints where it listens; a
client asks a fixed list of questions of unit 1 and prints a JSON document. `images` takes a JSON object on a line of
its input, for each device the registers that it has ({"name": {"holding": {"40000": 21365}, "input": {}, "coils": {},
"discrete": {}}}), serves each on a TCP port of its own, and prints the ports as a JSON object.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

from pymodbus import FramerType, ModbusDeviceIdentification
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient, AsyncModbusTlsClient, AsyncModbusUdpClient
from pymodbus.datastore import (
    ModbusDeviceContext,
    ModbusSequentialDataBlock,
    ModbusServerContext,
    ModbusSparseDataBlock,
)
from pymodbus.pdu.device import ModbusControlBlock
from pymodbus.pdu.file_message import FileRecord
from pymodbus.server import ModbusSerialServer, ModbusTcpServer, ModbusTlsServer, ModbusUdpServer

FRAMERS = {
    "tcp": FramerType.SOCKET,
    "tls": FramerType.TLS,
    "udp": FramerType.SOCKET,
    "rtu-over-tcp": FramerType.RTU,
    "ascii": FramerType.ASCII,
    "rtu": FramerType.RTU,
}
BAUD = 9600
TLS = Path(__file__).parents[2] / "rust" / "tests" / "tls"
COUNTERS = (
    "BusMessage",
    "BusCommunicationError",
    "BusExceptionError",
    "DeviceMessage",
    "DeviceNoResponse",
    "DeviceNAK",
    "DEVICE_BUSY",
    "BusCharacterOverrun",
)
"""Of the diagnostics, sub-functions 11 to 18."""


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def device() -> ModbusDeviceContext:
    """Registers whose values are their addresses."""
    # The blocks count from 1, the wire from 0.
    return ModbusDeviceContext(
        co=ModbusSequentialDataBlock(1, [address % 3 == 0 for address in range(2100)]),
        di=ModbusSequentialDataBlock(1, [address % 5 == 0 for address in range(2100)]),
        hr=ModbusSequentialDataBlock(1, list(range(500))),
        ir=ModbusSequentialDataBlock(1, [10_000 + address for address in range(500)]),
    )


def identity() -> ModbusDeviceIdentification:
    """A name, and counters that can be told apart."""
    counters = ModbusControlBlock().Counter
    for number, name in enumerate(COUNTERS, 101):
        setattr(counters, name, number)
    return ModbusDeviceIdentification(
        info_name={"VendorName": "other", "ProductCode": "people", "MajorMinorRevision": "3.16"}
    )


async def serve(framing: str, line: str = "") -> None:
    """One device, until this process is ended."""
    kind = socket.SOCK_DGRAM if framing == "udp" else socket.SOCK_STREAM
    address = ("127.0.0.1", 0 if line else free_port(kind))
    common: dict[str, Any] = {"framer": FRAMERS[framing], "identity": identity()}
    context = ModbusServerContext(devices=device(), single=True)
    if framing == "rtu":
        server: Any = ModbusSerialServer(context, port=line, baudrate=BAUD, **common)
    elif framing == "udp":
        server = ModbusUdpServer(context, address=address, **common)
    elif framing == "tls":
        proof = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        proof.load_cert_chain(TLS / "device.pem", TLS / "device.key")
        proof.load_verify_locations(TLS / "authority.pem")
        proof.verify_mode = ssl.CERT_REQUIRED
        server = ModbusTlsServer(context, address=address, sslctx=proof, **common)
    else:
        server = ModbusTcpServer(context, address=address, **common)
    await server.serve_forever(background=True)
    print(f"listening {line or f'{address[0]}:{address[1]}'}", flush=True)
    await asyncio.Event().wait()


async def images(devices: dict[str, dict[str, dict[str, int]]]) -> None:
    """Each device at a port of its own, with just these registers, until this process is ended."""
    # Sparse blocks count from 0, unlike sequential ones.
    ports = {}
    for name, tables in devices.items():
        blocks = {}
        for key, table in (("hr", "holding"), ("ir", "input"), ("co", "coils"), ("di", "discrete")):
            registers = {place: tables[table][str(place)] for place in sorted(map(int, tables[table]))}
            blocks[key] = ModbusSparseDataBlock(registers or {0: 0})
        ports[name] = free_port(socket.SOCK_STREAM)
        context = ModbusServerContext(devices=ModbusDeviceContext(**blocks), single=True)
        server = ModbusTcpServer(context, address=("127.0.0.1", ports[name]))
        await server.serve_forever(background=True)
    print(json.dumps(ports), flush=True)
    await asyncio.Event().wait()


def client_of(framing: str, where: str) -> Any:
    """A client that asks once and waits."""
    common: dict[str, Any] = {"framer": FRAMERS[framing], "timeout": 20, "retries": 0}
    match framing:
        case "rtu":
            return AsyncModbusSerialClient(where, baudrate=BAUD, **common)
        case "udp":
            return AsyncModbusUdpClient("127.0.0.1", port=int(where), **common)
        case "tls":
            proof = ssl.create_default_context(cafile=str(TLS / "authority.pem"))
            proof.load_cert_chain(TLS / "operator.pem", TLS / "operator.key")
            return AsyncModbusTlsClient("127.0.0.1", port=int(where), sslctx=proof, **common)
        case _:
            return AsyncModbusTcpClient("127.0.0.1", port=int(where), **common)


async def ask(framing: str, where: str) -> dict[str, Any]:
    """All that the client can ask."""
    client = client_of(framing, where)
    if not await client.connect():
        raise SystemExit(f"no connection to {where}")
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
    if FRAMERS[framing] is not FramerType.RTU:  # see modbus_differences.md
        answers["fifo"] = (await client.read_fifo_queue(address=0)).values
    answers["exception-status"] = (await client.read_exception_status()).status
    answers["diagnostics"] = (await client.diag_query_data(b"\xa5\x37")).message.hex()
    answers["diagnostic-register"] = (await client.diag_read_diagnostic_register()).message
    answers["delimiter"] = (await client.diag_change_ascii_input_delimeter(delimiter=0x0A)).message
    counters = (
        client.diag_read_bus_message_count,
        client.diag_read_bus_comm_error_count,
        client.diag_read_bus_exception_error_count,
        client.diag_read_device_message_count,
        client.diag_read_device_no_response_count,
        client.diag_read_device_nak_count,
        client.diag_read_device_busy_count,
        client.diag_read_bus_char_overrun_count,
    )
    answers["counters"] = [(await count()).message for count in counters]
    await client.diag_clear_overrun_counter()
    answers["overrun-cleared"] = [(await count()).message for count in counters]
    await client.diag_clear_counters()
    answers["cleared"] = [(await count()).message for count in counters]
    answers["restarted"] = (await client.diag_restart_communication(True)).message
    answers["iop-overrun"] = (await client.diag_read_iop_overrun_count()).exception_code
    counter = await client.diag_get_comm_event_counter()
    answers["event-counter"] = [counter.status, counter.count]
    log = await client.diag_get_comm_event_log()
    answers["event-log"] = [log.status, log.event_count, log.message_count, log.events]
    answers["server-id"] = (await client.report_device_id()).identifier.decode()
    records = [FileRecord(4, 7, record_length=12), FileRecord(4, 90, record_length=4)]
    read = await client.read_file_record(records)
    answers["file"] = [record.record_data.hex() for record in read.records]
    written = FileRecord(4, 7, record_data=bytes.fromhex("06af04be100d"))
    if (await client.write_file_record([written])).isError():
        raise SystemExit("a file record was refused")
    read = await client.read_file_record([FileRecord(4, 6, record_length=16)])
    answers["file-written"] = [record.record_data.hex() for record in read.records]
    for code, first in ((1, 0), (2, 0), (3, 0), (4, 1)):
        identification = await client.read_device_information(read_code=code, object_id=first)
        answers[f"identification-{code}"] = {
            str(number): text.decode() for number, text in identification.information.items()
        }
    answers["missing"] = (await client.read_holding_registers(60_000, count=1)).exception_code
    client.close()
    return answers


def main(words: list[str]) -> int:
    match words:
        case ["serve", framing, *line] if framing in FRAMERS:
            asyncio.run(serve(framing, *line))
        case ["ask", framing, where] if framing in FRAMERS:
            print(json.dumps(asyncio.run(ask(framing, where))))
        case ["images"]:
            asyncio.run(images(json.loads(sys.stdin.readline())))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
