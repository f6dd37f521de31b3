"""Set points over real sockets: virtual inverters are limited, kept limited, and go back when the head-end is gone.

A virtual device has one connection at a time, so it is looked at through the head-end while that runs, and by a Modbus
client of the test's own when it is gone.
"""

from __future__ import annotations

import io
import json
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.system.fleet import opened
from tests.system.test_serve import serving, until

from ipss_headend import _core, config
from ipss_headend.client import AsyncClient, CallFailed
from ipss_headend.field.fleet import import_meters
from ipss_headend.security.keystore import Keystore, create_key_file
from ipss_headend.server import HeadEnd
from ipss_headend.store import registry
from ipss_headend.store.readings import latest

REVERT_S = 2


@pytest.fixture
def devices() -> Iterator[_core.VirtualDevices]:
    running = _core.VirtualDevices(inverters=2, storage=1, submeters=1, first_address="127.2.11.1", port=0)
    yield running
    running.stop()


@pytest.fixture
def path(tmp_path: Path, devices: _core.VirtualDevices) -> Path:
    """A head-end's configuration, with the devices in the registry."""
    create_key_file(tmp_path / "key_encryption.key")
    found = tmp_path / "head_end.toml"
    found.write_text(
        '[keystore]\nkey_file = "key_encryption.key"\n[metrics]\nport = 0\n[modbus]\nfast = "1s"\nslow = "1s"\n'
        '[[plans]]\nname = "meters"\nobjects = ["1.0.1.8.0.255"]\nevery = "15min"\n',
        encoding="utf-8",
    )
    loaded = config.load(found)
    lines = [f"der-{number},{url},sunspec\n" for number, (url, _) in enumerate(devices.devices(), 1)]
    with opened(loaded) as database, database.writing() as connection:
        keystore = Keystore.open(connection, loaded.keystore)
        text = io.StringIO("".join(["name,address,model\n", *lines]))
        assert import_meters(connection, keystore, text, "der.csv", strict=True).mistakes == ()
    return found


class Look:
    """What a device says to somebody else than the head-end."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("modbus+tcp://").removesuffix("/1").partition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=5)
        self._device = _core.SunSpecDevice()
        while (asked := self._device.ask()) is not None:
            self._device.answered(self._read(*asked))

    def value(self, point: str, model: int = 704) -> float:
        address, count = self._device.place(model, point)
        octets = self._read(address, count)
        assert octets is not None
        assert self._device.update(address, octets)
        return float(self._device.value(model, point) or "nan")

    @property
    def limit(self) -> float | None:
        """Percent; None while no limit holds."""
        return self.value("WMaxLimPct") if self.value("WMaxLimPctEna") == 1 else None

    def _read(self, address: int, count: int) -> bytes | None:
        self._socket.sendall(struct.pack(">HHHBBHH", 7, 0, 6, 1, 3, address, count))
        head = self._exactly(8)
        body = self._exactly(int.from_bytes(head[4:6], "big") - 2)
        return body[1:] if head[7] == 3 else None

    def _exactly(self, count: int) -> bytes:
        octets = b""
        while len(octets) < count:
            part = self._socket.recv(count - len(octets))
            assert part
            octets += part
        return octets

    def close(self) -> None:
        self._socket.close()


async def held(head_end: AsyncClient) -> float | None:
    """Percent that the device says it is limited to; None while no limit holds."""
    said = (await head_end.call("der.read", device="der-1"))["values"]
    return float(said["limit_percent"]) if said["limit_enabled"] == "1" else None


async def limit(head_end: AsyncClient, value: str, key: str, **more: Any) -> Any:
    wish = {"function": "active-power-limit", "value": value, "for_s": 60, "revert_s": REVERT_S}
    return await head_end.call("der.set", device="der-1", key=key, **(wish | more))


def test_a_limit_is_read_back_renewed_bid_for_and_let_go(path: Path) -> None:
    async def talk(started: HeadEnd) -> None:
        async with AsyncClient(f"unix:{started.config.rpc.socket}") as head_end:
            answer = await limit(head_end, "40", "1")

            assert answer["accepted"]
            assert [(one["value"], one["outcome"]) for one in answer["arbitration"]] == [("40", "done")]
            assert await held(head_end) == 40

            # Renewed: it holds beyond the device's own timer.
            deadline = time.monotonic() + 2.5 * REVERT_S
            while time.monotonic() < deadline:
                assert await held(head_end) == 40
                await trio.sleep(0.1)

            # The tightest bound counts; when it goes, the other one holds again.
            answer = await limit(head_end, "25", "2", source="feeder")
            assert [(one["value"], one["outcome"]) for one in answer["arbitration"]] == [("25", "done")]
            assert await held(head_end) == 25
            await head_end.call("der.release", device="der-1", function="active-power-limit", source="feeder", key="3")
            assert await held(head_end) == 40
            state = next(one for one in (await head_end.call("der.list"))["devices"] if one["device"] == "der-1")
            assert [wish["value"] for wish in state["wishes"]] == ["40"]
            said = (await head_end.call("der.read", device="der-1"))["values"]
            assert (float(said["limit_percent"]), said["limit_enabled"], said["connected"]) == (40, "1", "1")

            await head_end.call("der.release", device="der-1", function="active-power-limit", key="4")
            assert await held(head_end) is None
            with pytest.raises(CallFailed, match=r"E_UNKNOWN"):
                await head_end.call("der.release", device="der-1", function="active-power-limit", key="5")

    serving(path, talk)


def test_what_switches_supply_is_refused_and_never_written(path: Path) -> None:
    async def talk(started: HeadEnd) -> None:
        async with AsyncClient(f"unix:{started.config.rpc.socket}") as head_end:
            with pytest.raises(CallFailed, match=r"E_DENIED.*two people"):
                await limit(head_end, "0", "1", function="connect")
            with pytest.raises(CallFailed, match=r"E_DENIED.*two people"):
                await limit(head_end, "0", "2")
            with pytest.raises(CallFailed, match=r"E_PARAMS.*not in 0 to 100"):
                await limit(head_end, "101", "3")
            with pytest.raises(CallFailed, match=r"E_PARAMS.*no model 705"):
                await head_end.call("der.set", device="der-4", function="volt-var", value="92:30", key="4")
            # The gate lets no other register be written, whoever asks for it.
            meter = next(one for one in started.meters.values() if one.name == "der-1")
            line = await started.set_points.line(meter)
            address, octets = line.device.write(123, "Conn", "0")
            plan = _core.ModbusPlan([_core.ModbusItem.ask(struct.pack(">BHHB", 16, address, 1, 2) + octets)])
            before = started.figures.ends[impossible()]
            started.reactor.submit(plan, [meter.meter_id], timeout_s=5.0)
            await until(lambda: started.figures.ends[impossible()] == before + 1)
            said = (await head_end.call("der.read", device="der-1"))["values"]
            assert (said["connected"], said["limit_enabled"]) == ("1", "0")

    serving(path, talk)


def impossible() -> int:
    return _core.OUTCOMES.index("impossible")


def test_devices_are_read_into_the_same_store(path: Path) -> None:
    async def talk(started: HeadEnd) -> None:
        await until(lambda: started.figures.lines >= 12)

    started = serving(path, talk)
    with opened(started.config) as database, database.reading() as connection:
        layouts = registry.all_layouts(connection)
        meters = registry.all_meters(connection)
        found = {
            meter.name: {
                (column.name, column.unit)
                for line in latest(connection, [meter.meter_id], list(layouts))
                for column, cell in zip(layouts[line.layout_id].columns, line.cells, strict=True)
                if isinstance(cell, int)
            }
            for meter in meters
        }
    assert {("701 W", "W"), ("701 TotWhInj", "Wh"), ("704 WMaxLimPct", "%")} <= found["der-1"]
    assert ("713 SoC", "%") in found["der-3"]
    assert {("203 W", "W"), ("203 TotWhImp", "Wh")} <= found["der-4"]
    assert started.figures.ends[impossible()] == 0, "no plan of objects asks a Modbus device"


def test_the_device_goes_back_by_itself_when_the_head_end_is_killed(path: Path, devices: _core.VirtualDevices) -> None:
    cli = [sys.executable, "-m", "ipss_headend.cli"]
    serve = [*cli, "serve", str(path)]
    settings = config.load(path)
    with subprocess.Popen(serve, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(settings.rpc.socket)
            wish = ["der", "set", "der-1", "active-power-limit", "30", "--revert", f"{REVERT_S}s", "--for", "5min"]
            run = subprocess.run(
                [*cli, *wish, "--json", "--config", str(path)], capture_output=True, text=True, timeout=60, check=False
            )
            assert run.returncode == 0, run.stderr
            assert json.loads(run.stdout)["arbitration"][0]["outcome"] == "done"
            time.sleep(REVERT_S + 1)
            status = [*cli, "der", "status", "der-1", "--json", "--config", str(path)]
            run = subprocess.run(status, capture_output=True, text=True, timeout=60, check=False)
            assert json.loads(run.stdout)["values"]["limit_enabled"] == "1", run.stderr
        finally:
            process.send_signal(signal.SIGKILL)
    killed = time.monotonic()

    look = Look(devices.devices()[0][0])
    assert look.limit == 30, "it still obeys"
    while look.limit is not None:
        assert time.monotonic() - killed < REVERT_S + 1.5
        time.sleep(0.05)
    look.close()

    # What was wanted is durable: the next head-end takes it up.
    async def talk(started: HeadEnd) -> None:
        async with AsyncClient(f"unix:{started.config.rpc.socket}") as head_end:
            await until(lambda: bool(started.set_points.devices()))
            for _ in range(100):
                if await held(head_end) == 30:
                    return
                await trio.sleep(0.1)
            raise AssertionError("not taken up")

    serving(path, talk)


def _wait_for(where: Path | None) -> None:
    assert where is not None
    deadline = time.monotonic() + 30
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(where))
            except OSError:
                assert time.monotonic() < deadline
            else:
                return
        time.sleep(0.05)
