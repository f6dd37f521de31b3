"""`ipss-headend read` asks a pymodbus server, over every transport that both have, TLS and a serial line among them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.interop.environments import ROOT, make
from tests.interop.tls_relay import TLS
from tests.system.serial_line import joined


@contextmanager
def server(framing: str, *line: str) -> Iterator[str]:
    command = [str(make("pymodbus")), "-W", "ignore", "-m", "tests.interop.pymodbus_peer", "serve", framing, *line]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            word, _, address = process.stdout.readline().strip().partition(" ")
            assert word == "listening"
            yield address
        finally:
            process.kill()


OBJECTS = ("holding/40101:3", "input/30009:2", "coil/1:6", "discrete/10006:6", "holding/1:300", "identification")
OPERATOR = ("--ca", TLS / "authority.pem", "--certificate", TLS / "operator.pem", "--private-key", TLS / "operator.key")


def check(url: str, *options: object) -> None:
    """Read all of it; every value is the server's."""
    words = ["read", url, *OBJECTS, "holding/9000", "--json", *options]
    command = [sys.executable, "-m", "ipss_headend.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 8, done.stderr
    found = json.loads(done.stdout)["items"]
    assert [one.get("value") for one in found] == [
        [100, 101, 102],
        [10_008, 10_009],
        [1, 0, 0, 1, 0, 0],
        [1, 0, 0, 0, 0, 1],
        list(range(300)),
        {"vendor_name": "other", "product_code": "people", "revision": "3.16"},
        None,
    ]
    assert found[-1]["error"]["code"] == "illegal-data-address"


@pytest.mark.parametrize(
    ("framing", "scheme", "options"),
    [
        ("tcp", "modbus+tcp", ()),
        ("tls", "modbus+tls", OPERATOR),
        ("udp", "modbus+udp", ()),
        ("rtu-over-tcp", "modbus+rtu+tcp", ()),
    ],
)
def test_every_value_is_the_servers(framing: str, scheme: str, options: tuple[object, ...]) -> None:
    with server(framing) as address:
        check(f"{scheme}://{address}/1", *options)


def test_every_value_is_the_servers_on_a_serial_line() -> None:
    with joined() as (theirs, ours), server("rtu", theirs):
        check(f"modbus+rtu://{ours}/1?baud=9600")
