"""`read` and `simulate` over each transport beside plain TCP: real sockets, and pseudo-terminals for serial lines."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
from tests.system.serial_line import answering, carried

from ipss_headend import _core

TLS = Path(__file__).parents[2] / "rust" / "tests" / "tls"
REGISTERS = [(address * 7) & 0xFFFF for address in range(200)]


def headend(*arguments: object, expect: int = 0) -> str:
    command = [sys.executable, "-m", "ipss_headend.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout if expect == 0 else done.stderr


def items(*arguments: object) -> list[dict[str, object]]:
    document = json.loads(headend("read", *arguments, "--json"))
    assert isinstance(document["items"], list)
    return document["items"]


def answer(pdu: bytes) -> bytes:
    """A device with 200 registers in both tables, all coils off, and a name."""
    function = pdu[0]
    if function in {3, 4}:
        address, count = struct.unpack(">HH", pdu[1:5])
        if address + count > len(REGISTERS):
            return bytes((function | 0x80, 2))
        values = struct.pack(f">{count}H", *REGISTERS[address : address + count])
        return bytes((function, len(values))) + values
    if function == 1:
        return bytes((1, 1, 0b101))
    if function == 16:
        address, count = struct.unpack(">HH", pdu[1:5])
        REGISTERS[address : address + count] = struct.unpack(f">{count}H", pdu[6:])
        return pdu[:5]
    if function == 0x2B:
        return bytes((0x2B, 0x0E, pdu[2], 0x01, 0, 0, 2, 0, 4)) + b"Acme" + bytes((1, 3)) + b"X-1"
    return bytes((function | 0x80, 1))


def mbap(request: bytes) -> bytes:
    pdu = answer(request[7:])
    return request[:4] + struct.pack(">HB", len(pdu) + 1, request[6]) + pdu


def crc(octets: bytes) -> bytes:
    value = 0xFFFF
    for octet in octets:
        value ^= octet
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
    return struct.pack("<H", value)


def rtu(request: bytes) -> bytes:
    assert crc(request[:-2]) == request[-2:]
    frame = request[:1] + answer(request[1:-2])
    return frame + crc(frame)


def ascii_frame(request: bytes) -> bytes:
    assert (request[:1], request[-2:]) == (b":", b"\r\n")
    octets = bytes.fromhex(request[1:-2].decode())
    assert sum(octets) & 0xFF == 0, "the check makes the sum zero"
    frame = octets[:1] + answer(octets[1:-1])
    return b":" + (frame + bytes((-sum(frame) & 0xFF,))).hex().upper().encode() + b"\r\n"


def ascii_line() -> AbstractContextManager[str]:
    """A serial line on which every unit answers in ASCII; the path of our end."""
    return answering(ascii_frame, lambda held: held.find(b"\n") + 1 or len(held) + 1)


@contextmanager
def tcp_device(respond: Callable[[bytes], bytes]) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    stream, _ = server.accept()
                except OSError:
                    return
                with stream:
                    while request := stream.recv(300):
                        stream.sendall(respond(request))

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("scheme", "respond"), [("modbus+tcp", mbap), ("modbus+rtu+tcp", rtu), ("modbus+ascii+tcp", ascii_frame)]
)
def test_read_asks_registers_of_a_modbus_device(scheme: str, respond: Callable[[bytes], bytes]) -> None:
    with tcp_device(respond) as port:
        url = f"{scheme}://127.0.0.1:{port}/9"

        found = items(url, "holding/40002:2", "input/1:3", "holding/@5", "coil/1:3", "identification")

    assert [one["value"] for one in found[:4]] == [[7, 14], [0, 7, 14], [35], [1, 0, 1]]
    assert found[0]["raw"] == "0007000e"
    assert found[4]["value"] == {"vendor_name": "Acme", "product_code": "X-1"}


def test_device_says_no_to_what_it_has_not_and_the_rest_is_read() -> None:
    with tcp_device(mbap) as port:
        url = f"modbus+tcp://127.0.0.1:{port}/1"
        command = [sys.executable, "-m", "ipss_headend.cli", "read", url, "holding/1", "holding/9000", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 8, done.stderr
    good, bad = json.loads(done.stdout)["items"]
    assert (good["ok"], bad["ok"]) == (True, False)
    assert bad["error"]["number"] == 2


def test_points_of_a_register_map_are_read_by_their_names() -> None:
    def answer(request: bytes) -> bytes:
        if request[1] == 4 and request[2:4] == b"\x00\x00":
            return bytes((request[0], 4, 4)) + struct.pack(">f", 230.5)
        return bytes((request[0], request[1] | 0x80, 2))

    with tcp_device(lambda frame: frame[:4] + len(told := answer(frame[6:])).to_bytes(2) + told) as port:
        url = f"modbus+tcp://127.0.0.1:{port}/1"
        [volts] = items(url, "voltage_l1", "--map", "eastron-sdm120")
        unknown = headend("read", url, "volts", "--map", "eastron-sdm120", expect=2)
        nameless = headend("read", url, "voltage_l1", expect=2)

    assert (volts["value"], volts["unit"]) == ("230.5", "V")
    assert "has no point volts; it has" in unknown
    assert "only with --map NAME" in nameless


def test_write_of_a_register_is_done_and_of_a_coil_is_refused() -> None:
    with tcp_device(mbap) as port:
        url = f"modbus+tcp://127.0.0.1:{port}/1"

        headend("read", url, "holding/101:2", "--set", "4660, 22136", "--yes", "--by-hand")
        [read] = items(url, "holding/101:2")
        refused = headend("read", url, "coil/1", "--set", "1", "--yes", "--by-hand", expect=2)

    assert read["raw"] == "12345678"
    assert "holding" in refused


def test_modbus_over_udp() -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as device:
        device.bind(("127.0.0.1", 0))

        def serve() -> None:
            device.recvfrom(300)  # the first answer is lost: the question is repeated
            for _ in range(2):
                request, peer = device.recvfrom(300)
                device.sendto(mbap(request), peer)

        threading.Thread(target=serve, daemon=True).start()

        [found] = items(f"modbus+udp://127.0.0.1:{device.getsockname()[1]}/1", "holding/3", "--timeout", 20)

    assert found["value"] == [14]


def test_modbus_rtu_on_a_serial_line() -> None:
    with answering(rtu, lambda _: 8) as path:
        [found] = items(f"modbus+rtu://{path}/3?baud=19200", "holding/40003:4")

    assert found["value"] == [14, 21, 28, 35]


def test_dlms_over_hdlc_on_a_serial_line() -> None:
    fleet = _core.VirtualFleet(
        count=1, port=0, authentication="none", protection="none", link=_core.Link("hdlc"), first_address="127.1.7.1"
    )
    meter = socket.create_connection(("127.1.7.1", fleet.port))
    with carried(lambda: meter.recv(500), meter.sendall) as path:
        try:
            [found] = items(f"dlms+hdlc+serial://{path}?baud=115200", "8/0.0.1.0.0.255:2", "--timeout", 20)
        finally:
            meter.close()
            fleet.stop()

    assert found["ok"]


def test_plain_modbus_outside_the_named_networks_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "head_end.toml"
    config.write_text('[keystore]\nkey_file = "kek.key"\n[modbus]\nplain_networks = ["10.20.0.0/16"]\n')

    for url in ("modbus+tcp://127.0.0.1:1/1", "modbus+udp://127.0.0.1:1/1", "modbus+rtu+tcp://127.0.0.1:1/1"):
        said = headend("read", url, "holding/1", "--config", config, expect=5)
        assert "127.0.0.1 is in none of the networks" in said
    # Without a configuration there is this machine alone.
    said = headend("read", "modbus+tcp://192.0.2.1/1", "holding/1", "--config", tmp_path / "none.toml", expect=5)
    assert "modbus+tls://" in said


def test_modbus_security_wants_a_role_in_our_certificate() -> None:
    files = ["--ca", TLS / "authority.pem", "--certificate", TLS / "nobody.pem", "--private-key", TLS / "nobody.key"]

    said = headend("read", "modbus+tls://127.0.0.1:1/1", "holding/1", *files, expect=5)

    assert "names no role" in said


@pytest.mark.parametrize("transport", ["udp", "tls"])
def test_virtual_meters_are_reached_over(transport: str) -> None:
    tls = _core.TlsServer(TLS / "device.pem", TLS / "device.key") if transport == "tls" else None
    fleet = _core.VirtualFleet(count=3, port=0, authentication="none", protection="none", transport=transport, tls=tls)  # type: ignore[arg-type]
    try:
        assert ("dlms+udp://" in fleet.csv()) == (transport == "udp")
        if transport == "udp":
            [found] = items(f"dlms+udp://127.1.0.2:{fleet.port}", "8/0.0.1.0.0.255:2")
            assert found["ok"]
        else:
            assert fleet.stats()["connections"] == 0
    finally:
        fleet.stop()
