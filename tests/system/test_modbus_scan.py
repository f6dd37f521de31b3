"""`modbus scan` against virtual devices on real sockets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.test_modbus_registry import serial_devices, tls_device
from tests.system.test_transports import TLS, answer, tcp_device

from ipss_headend import _core

SCAN_TIMEOUT_S = 60


@pytest.fixture
def devices() -> Iterator[_core.VirtualDevices]:
    running = _core.VirtualDevices(inverters=1, storage=1, submeters=1, first_address="127.2.9.1", port=0)
    yield running
    running.stop()


def scan(*arguments: str) -> tuple[int, list[dict[str, object]]]:
    command = [sys.executable, "-m", "ipss_headend.cli", "modbus", "scan", *arguments, "--json"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=SCAN_TIMEOUT_S, check=False)
    return run.returncode, json.loads(run.stdout)["units"]


def test_a_network_is_scanned_and_each_device_told(devices: _core.VirtualDevices) -> None:
    status, units = scan(f"127.2.9.0/29:{devices.port}", "--units", "1", "--wait", "1")

    assert status == 0
    assert [unit["product"] for unit in units] == ["virtual inverter", "virtual storage", "virtual sub-meter"]
    assert {unit["vendor"] for unit in units} == {"ipss-headend"}
    assert units[0]["sunspec"] == [1, 103, 120, 121, 123, 701, 704, 705, 706, 711]
    assert units[2]["serial_number"] == "V0000003"


def test_units_that_are_silent_are_passed_over(devices: _core.VirtualDevices) -> None:
    url, _ = devices.devices()[0]
    status, units = scan(url.removesuffix("/1"), "--units", "1-3", "--wait", "0.5")

    assert status == 0
    assert [unit["unit"] for unit in units] == [1]


def test_nobody_is_unreachable(devices: _core.VirtualDevices) -> None:
    assert scan(f"modbus+tcp://127.2.9.7:{devices.port}/1", "--wait", "0.2") == (4, [])


def test_units_on_a_serial_line_are_found(tmp_path: Path) -> None:
    line = tmp_path / "ttyUSB0"
    with serial_devices() as terminal:
        line.symlink_to(terminal)
        status, units = scan(f"modbus+rtu://{line}?baud=115200", "--units", "3,4", "--wait", "2")

    assert status == 0
    assert [(unit["url"], unit["vendor"]) for unit in units] == [
        (f"modbus+rtu://{line}/{unit}?baud=115200", "Acme") for unit in (3, 4)
    ]


def test_a_device_behind_tls_is_found_by_who_may() -> None:
    proof = [f"--{name}={TLS / file}" for name, file in PROOF.items()]
    with tls_device() as port:
        status, units = scan(f"modbus+tls://127.0.0.1:{port}/1", *proof, "--wait", "2")

    assert status == 0
    assert [(unit["vendor"], unit["product"]) for unit in units] == [("Acme", "X-1")]


PROOF = {"ca": "authority.pem", "certificate": "operator.pem", "private-key": "operator.key"}


def test_a_device_without_identification_is_known_by_its_server_id() -> None:
    said = b"\x07Meter M-3\x00\xff"

    def respond(request: bytes) -> bytes:
        pdu = request[7:]
        if pdu[0] == 0x2B:
            told = bytes((0xAB, 1))
        elif pdu[0] == 0x11:
            told = bytes((0x11, len(said))) + said
        else:
            told = answer(pdu)
        return request[:4] + (len(told) + 1).to_bytes(2, "big") + request[6:7] + told

    with tcp_device(respond) as port:
        status, [unit] = scan(f"modbus+tcp://127.0.0.1:{port}/1", "--wait", "2")

    assert status == 0
    assert (unit["product"], unit["server_id"]) == ("Meter M-3", said.hex())


def test_plain_modbus_is_not_scanned_outside_the_named_networks() -> None:
    command = [sys.executable, "-m", "ipss_headend.cli", "modbus", "scan", "192.0.2.0/30", "--units", "1"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=SCAN_TIMEOUT_S, check=False)

    assert run.returncode == 5
    assert "in none of the networks" in run.stderr
