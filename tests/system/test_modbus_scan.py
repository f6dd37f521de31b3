"""`modbus scan` against virtual devices on real sockets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

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
