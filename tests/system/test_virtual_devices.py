"""Virtual Modbus devices on real sockets: several connections at once, and the sun of their place."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest

from ipss_headend import _core
from ipss_headend.cli.virtual_devices import Place

WAIT_S = 30
MARKER = bytes.fromhex("00010000000601039c400002")
"""Read two registers from 40000 on of unit 1: SunS."""


@contextmanager
def devices(**wanted: int) -> Iterator[_core.VirtualDevices]:
    running = _core.VirtualDevices(first_address="127.2.12.1", port=0, **wanted)
    try:
        yield running
    finally:
        running.stop()


def opened(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((str(parts.hostname), parts.port or 0), timeout=WAIT_S)


def asked(stream: socket.socket) -> bytes:
    """What it answers, nothing if it closed the connection."""
    try:
        stream.sendall(MARKER)
        return stream.recv(300)
    except (ConnectionResetError, BrokenPipeError):
        return b""


@pytest.fixture
def one() -> Iterator[str]:
    with devices(inverters=1, connections=3) as running:
        yield running.devices()[0][0]


def test_a_device_answers_on_as_many_connections_as_it_takes_and_closes_one_more(one: str) -> None:
    with ExitStack() as stack:
        streams = [stack.enter_context(opened(one)) for _ in range(3)]
        for stream in [*streams, *reversed(streams)]:
            assert asked(stream).endswith(b"SunS")
        with opened(one) as another:
            assert asked(another) == b""
        assert all(asked(stream).endswith(b"SunS") for stream in streams)


def test_the_place_of_a_closed_connection_is_free_again(one: str) -> None:
    with ExitStack() as stack:
        first, *_ = [stack.enter_context(opened(one)) for _ in range(3)]
        assert asked(first).endswith(b"SunS")
        first.close()
        # The device hears of it a moment later than we.
        deadline = datetime.now(UTC).timestamp() + WAIT_S
        answer = b""
        while not answer and datetime.now(UTC).timestamp() < deadline:
            with opened(one) as again:
                answer = asked(again)
        assert answer.endswith(b"SunS")


def test_a_write_over_one_connection_is_read_over_another() -> None:
    with devices(storage=1) as running, ExitStack() as stack:
        url = running.devices()[0][0]
        one, other = (stack.enter_context(opened(url)) for _ in range(2))
        device = found(other)
        address, octets = device.write(704, "WMaxLimPct", "25")
        head = b"\x00\x02\x00\x00\x00\x09\x01\x10" + address.to_bytes(2, "big") + b"\x00\x01\x02"
        one.sendall(head + octets)
        assert one.recv(300)[7] == 0x10
        assert read(other, address, 1) == octets


def read(stream: socket.socket, address: int, count: int) -> bytes:
    stream.sendall(b"\x00\x03\x00\x00\x00\x06\x01\x03" + address.to_bytes(2, "big") + count.to_bytes(2, "big"))
    answer = b""
    while len(answer) < 9 or len(answer) < 9 + answer[8]:
        answer += stream.recv(300)
        if answer[7] & 0x80:
            return b""
    return answer[9:]


def found(stream: socket.socket) -> _core.SunSpecDevice:
    device = _core.SunSpecDevice()
    while (wanted := device.ask()) is not None:
        device.answered(read(stream, *wanted) or None)
    return device


def test_inverters_have_sun_at_their_noon_and_none_on_the_other_side_of_the_earth() -> None:
    noon = Place.at_noon(datetime.now(UTC))
    dark = (noon.longitude_deg + 360) % 360 - 180
    for longitude, shines in ((noon.longitude_deg, True), (dark, False)):
        with devices(inverters=2, latitude_deg=0, longitude_deg=longitude) as running:
            for url, _ in running.devices():
                with opened(url) as stream:
                    assert (float(found(stream).value(701, "W") or 0) > 0) is shines


def test_simulate_says_where_its_devices_stand() -> None:
    command = [sys.executable, "-m", "ipss_headend.cli", "simulate", "--meters", "1", "--port", "0", "--inverters", "1"]
    where = ["--modbus-port", "0", "--latitude", "-35", "--longitude", "149", "--modbus-connections", "2"]
    run = subprocess.run(
        [*command, *where, "--seconds", "0", "--json"], capture_output=True, text=True, timeout=60, check=True
    )

    assert "35 degrees south, 149 degrees east" in run.stderr
    assert "each takes 2 connections at once" in run.stderr
    assert json.loads(run.stdout)["connections"] == 0


@pytest.mark.parametrize(
    "wrong", [{"connections": 0}, {"connections": 65}, {"latitude_deg": 91}, {"longitude_deg": 181}]
)
def test_what_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        _core.VirtualDevices(inverters=1, port=0, **wrong)  # type: ignore[arg-type]
