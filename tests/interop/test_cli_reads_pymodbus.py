"""`ipss-headend read` asks a pymodbus server, over every network transport that both have."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.interop.environments import ROOT, make


@contextmanager
def server(framing: str) -> Iterator[str]:
    command = [str(make("pymodbus")), "-W", "ignore", "-m", "tests.interop.pymodbus_peer", "serve", framing]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            word, _, address = process.stdout.readline().strip().partition(" ")
            assert word == "listening"
            yield address
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("framing", "scheme"),
    [("tcp", "modbus+tcp"), ("udp", "modbus+udp"), ("rtu-over-tcp", "modbus+rtu+tcp")],
)
def test_every_value_is_the_servers(framing: str, scheme: str) -> None:
    objects = ["holding/40101:3", "input/30009:2", "coil/1:6", "discrete/10006:6", "holding/1:300", "identification"]
    with server(framing) as address:
        url = f"{scheme}://{address}/1"
        command = [sys.executable, "-m", "ipss_headend.cli", "read", url, *objects, "holding/9000", "--json"]
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
