"""Modbus devices of the registry over every transport, read by poll class into the store; several requests at once."""

from __future__ import annotations

import io
import random
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from tests.system.fleet import opened
from tests.system.serial_line import answering
from tests.system.test_serve import serving, until
from tests.system.test_transports import TLS, ascii_frame, ascii_line, mbap, rtu, tcp_device

from ipss_headend import _core, config
from ipss_headend.field.fleet import import_meters
from ipss_headend.security.keystore import Keystore, create_key_file
from ipss_headend.server import HeadEnd
from ipss_headend.store import registry
from ipss_headend.store.readings import latest

MAP = """
[map]
name = "bench-device"
title = "Bench device"
manufacturer = "Tests"
source = "tests/system/test_transports.py"
most = 8
in_flight = 4

[points]
five = { address = 5, type = "uint16", unit = "V" }
far = { address = 150, type = "uint16", unit = "W" }
energy = { address = 20, type = "uint32", unit = "Wh", poll = "slow" }
rating = { address = 30, type = "uint16", unit = "W", poll = "once" }
"""
SAID = {"five": 35, "far": 1050, "energy": (140 << 16) + 147, "rating": 210}


def each(requests: bytes) -> bytes:
    """Answers to all reads that came together."""
    return b"".join(mbap(requests[at : at + 12]) for at in range(0, len(requests), 12))


@contextmanager
def udp_device() -> Iterator[int]:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as device:
        device.bind(("127.0.0.1", 0))
        threading.Thread(target=serve_datagrams, args=(device,), daemon=True).start()
        yield device.getsockname()[1]


def serve_datagrams(device: socket.socket) -> None:
    while True:
        try:
            request, peer = device.recvfrom(300)
            device.sendto(mbap(request), peer)
        except OSError:
            return


@contextmanager
def tls_device() -> Iterator[int]:
    """A device that wants a certificate of ours."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "device.pem", TLS / "device.key")
    context.load_verify_locations(TLS / "authority.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    plain, _ = server.accept()
                    with context.wrap_socket(plain, server_side=True) as stream:
                        while request := stream.recv(300):
                            stream.sendall(each(request))
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def serial_devices() -> AbstractContextManager[str]:
    """A line with every unit on it; the path of our end."""
    return answering(rtu, lambda held: 7 if held[1:2] == b"\x2b" else 8)  # device identification, reads


def test_devices_over_every_transport_are_read_into_the_store(tmp_path: Path) -> None:
    create_key_file(tmp_path / "key_encryption.key")
    path = tmp_path / "head_end.toml"
    path.write_text(
        '[keystore]\nkey_file = "key_encryption.key"\n[metrics]\nport = 0\n'
        f'[modbus]\nfast = "1s"\nslow = "1s"\nauthorities = "{TLS}/authority.pem"\n'
        f'certificate = "{TLS}/operator.pem"\nkey = "{TLS}/operator.key"\n'
        '[[plans]]\nname = "meters"\nobjects = ["1.0.1.8.0.255"]\nevery = "15min"\n',
        encoding="utf-8",
    )
    loaded = config.load(path)
    maps = loaded.data_directory / "maps"
    maps.mkdir(parents=True)
    (maps / "bench-device.toml").write_text(MAP, encoding="utf-8")
    with ExitStack() as stack:
        enter = stack.enter_context
        line, ascii_end = enter(serial_devices()), enter(ascii_line())
        urls = {
            "tcp": f"modbus+tcp://127.0.0.1:{enter(tcp_device(each))}/9",
            "tls": f"modbus+tls://127.0.0.1:{enter(tls_device())}/1",
            "udp": f"modbus+udp://127.0.0.1:{enter(udp_device())}/1",
            "rtu-tcp": f"modbus+rtu+tcp://127.0.0.1:{enter(tcp_device(rtu))}/7",
            "ascii-tcp": f"modbus+ascii+tcp://127.0.0.1:{enter(tcp_device(ascii_frame))}/7",
            "ascii-5": f"modbus+ascii://{ascii_end}/5?baud=115200",
            "ascii-6": f"modbus+ascii://{ascii_end}/6?baud=115200",
            "rtu-3": f"modbus+rtu://{line}/3?baud=115200",
            "rtu-4": f"modbus+rtu://{line}/4?baud=115200",
        }
        with opened(loaded) as database, database.writing() as connection:
            text = "name,address,model\n" + "".join(f"{name},{url},bench-device\n" for name, url in urls.items())
            keystore = Keystore.open(connection, loaded.keystore)
            assert import_meters(connection, keystore, io.StringIO(text), "f.csv", strict=True).mistakes == ()

        async def talk(started: HeadEnd) -> None:
            await until(lambda: len(read(started)) == len(urls))

        started = serving(path, talk)
        assert read(started) == dict.fromkeys(urls, SAID)


def read(started: HeadEnd) -> dict[str, dict[str, int]]:
    """What the store has of each device that was read in full."""
    found = {}
    with opened(started.config) as database, database.reading() as connection:
        layouts = registry.all_layouts(connection)
        for meter in registry.all_meters(connection):
            said = {
                column.name: cell * 10 ** (column.scaler or 0)
                for line in latest(connection, [meter.meter_id], list(layouts))
                for column, cell in zip(layouts[line.layout_id].columns, line.cells, strict=True)
                if isinstance(cell, int)
            }
            if said.keys() == SAID.keys():
                found[meter.name] = said
    return found


@contextmanager
def muddler(together: int) -> Iterator[int]:
    """A device that answers only when so many wait (or nothing comes any more): the last first, and each twice."""
    dice = random.Random(31)

    def serve(stream: socket.socket) -> None:
        held, pool = b"", []
        stream.settimeout(0.5)
        while True:
            try:
                octets = stream.recv(4096)
                if not octets:
                    return
                held += octets
            except TimeoutError:
                together_now = 1
            else:
                together_now = together
            while len(held) >= 12:
                question, held = held[:12], held[12:]
                # The register's own address is its value, so that an answer tells whose it is.
                pool.append(question[:4] + struct.pack(">HBBB", 5, question[6], 3, 2) + question[8:10])
            if len(pool) >= together_now:
                dice.shuffle(pool)
                stream.sendall(b"".join(one for answer in pool for one in (answer, answer)))
                pool.clear()

    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            try:
                stream, _ = server.accept()
                with stream:
                    serve(stream)
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]


@pytest.mark.parametrize("in_flight", [4, 16])
def test_several_requests_at_once_get_their_own_answers(in_flight: int) -> None:
    count = 512
    with muddler(in_flight) as port:
        reactor = _core.Reactor(threads=1, queue=count)
        try:
            profile = _core.ModbusProfile("tcp", answer_s=3.0, retries=0, in_flight=in_flight)
            reactor.add([_core.Meter.modbus(1, f"127.0.0.1:{port}", profile, 1)])
            wanted = {}
            for address in range(count):
                plan = _core.ModbusPlan([_core.ModbusItem.read(0, [("holding", address, 1, "unsigned")])])
                wanted[reactor.submit(plan, [1], timeout_s=30.0, attempts=1)] = address
            answers: dict[int, list[int | bytes | None]] = {}
            ends: dict[int, int] = {}
            deadline = time.monotonic() + 20
            while len(ends) < count and time.monotonic() < deadline:
                select.select([reactor.fileno()], [], [], 1.0)
                while (batch := reactor.take()) is not None:
                    answers.update({one[1]: one[6] for one in batch.answers()})
                    ends.update({one[0]: one[2] for one in batch.ends()})
        finally:
            reactor.stop()

    assert set(ends.values()) == {_core.OUTCOMES.index("done")}
    assert answers == {request: [address] for request, address in wanted.items()}
