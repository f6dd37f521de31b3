"""Inverters that are known by a register map: two people switch and limit them by what the map declares."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.system.der_wire import frame, prepared
from tests.system.people import Office
from tests.system.test_der_commands import by_two, decided
from tests.system.test_rpc import address
from tests.system.test_serve import serving, until

from ipss_headend.client import AsyncClient, CallFailed
from ipss_headend.field.control.machine import State
from ipss_headend.server import HeadEnd

QUICK = """
[map]
name = "quick-growatt"
title = "An inverter that wants no pause between requests"
manufacturer = "Growatt"
source = "tests/system/test_der_mapped.py"
inherits = "growatt-inverter"
table = "input"
gap_ms = 0
"""
"""A utility's own map, which inherits what switches and limits."""


class Inverter:
    """A device that is nothing but registers: those that are not given hold 0."""

    def __init__(self, registers: dict[int, int]) -> None:
        self.registers = registers
        self.writes: list[tuple[int, list[int]]] = []
        self.gone: set[int] = set()
        """Holding registers that it has no more."""
        self.deaf = False
        """It says that it wrote, and does not."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"modbus+tcp://127.0.0.1:{self._listener.getsockname()[1]}/1"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """No more."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                stream, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(stream,), daemon=True).start()

    def _serve(self, stream: socket.socket) -> None:
        with stream, suppress(OSError):
            while (request := frame(stream)) is not None:
                answer = self._answer(request[7:])
                stream.sendall(request[:4] + (len(answer) + 1).to_bytes(2) + request[6:7] + answer)

    def _answer(self, pdu: bytes) -> bytes:
        first, count = int.from_bytes(pdu[1:3]), int.from_bytes(pdu[3:5])
        places = range(first, first + count)
        if pdu[0] == 4:
            return bytes((4, 2 * count)) + bytes(2 * count)
        if pdu[0] not in (3, 16) or not self.gone.isdisjoint(places):
            return bytes((pdu[0] | 0x80, 2))
        if pdu[0] == 3:
            return bytes((3, 2 * count)) + b"".join(self.registers.get(place, 0).to_bytes(2) for place in places)
        values = [int.from_bytes(pdu[at : at + 2]) for at in range(6, len(pdu), 2)]
        self.writes.append((first, values))
        if not self.deaf:
            self.registers.update(zip(places, values, strict=True))
        return pdu[:5]


async def polled(started: HeadEnd, devices: int) -> None:
    """The devices' first polls are over: a slow one wants most of a second between two requests."""
    await until(lambda: started.devices.lines >= 2 * devices and len(started.requests) == 0)


async def done(head_end: AsyncClient, office: Office, method: str, **wanted: Any) -> list[State]:
    """Asked for, approved, and waited for."""
    states: list[State] = []
    await decided(office, await by_two(head_end, office, method, **wanted), states)
    return states


def test_r44_two_people_switch_and_limit_by_what_register_maps_declare(tmp_path: Path) -> None:
    sungrow = Inverter({5005: 207, 5006: 85, 5007: 1000})
    growatt = Inverter({0: 1, 3: 100})
    huawei = Inverter({40_125: 1000})
    meter = Inverter({0: 0})
    states: list[State] = []

    async def talk(started: HeadEnd) -> None:
        await polled(started, 4)
        async with AsyncClient(address(started)) as head_end:
            for device in ("sungrow", "growatt"):
                to = {"targets": [device]}
                states.extend(await done(head_end, office, "control.switch", to="off", revert_s=0, **to))
                states.extend(await done(head_end, office, "control.switch", to="on", **to))
            for device, percent in (("sungrow", "0"), ("growatt", "40"), ("huawei", "12.5")):
                to = {"targets": [device]}
                states.extend(await done(head_end, office, "control.limit", percent=percent, revert_s=0, **to))
                states.extend(await done(head_end, office, "control.limit", release=True, **to))

            for why, targets, wanted in (
                ("no timer to go back by", ["growatt"], {"percent": "0", "revert_s": 600}),
                ("2.5 cannot be said in steps of 1", ["growatt"], {"percent": "2.5", "revert_s": 0}),
                ("does not say how to limit it", ["meter"], {"percent": "0", "revert_s": 0}),
                ("does not say how to disconnect it", ["huawei"], {"to": "off", "revert_s": 0}),
                ("laid out differently", ["sungrow", "growatt"], {"percent": "0", "revert_s": 0}),
            ):
                with pytest.raises(CallFailed, match=why):
                    await head_end.call("control.preview", targets=targets, reason="test", signer="ada", **wanted)
            wish = {"function": "active-power-limit", "value": "40", "for_s": 60, "revert_s": 60}
            with pytest.raises(CallFailed, match="two people"):
                await head_end.call("der.set", device="growatt", key="1", **wish)

    devices = f"sungrow,{sungrow.url},sungrow-sg\ngrowatt,{growatt.url},quick-growatt\n"
    devices += f"huawei,{huawei.url},huawei-sun2000\nmeter,{meter.url},eastron-sdm120\n"
    office, path = prepared(tmp_path, devices)
    maps = office.config.data_directory / "maps"
    maps.mkdir()
    (maps / "quick-growatt.toml").write_text(QUICK)
    serving(path, talk, limit_s=180)

    assert states == [State.CONFIRMED] * 10
    assert sungrow.writes == [(5005, [206]), (5005, [207]), (5006, [170, 0]), (5006, [85])]
    assert growatt.writes == [(0, [0]), (0, [1]), (3, [40]), (3, [100])]
    assert huawei.writes == [(40_125, [125]), (40_125, [1000])]
    assert not meter.writes


def test_r20_r44_mapped_device_that_does_not_hold_it_or_has_it_no_more_is_told(tmp_path: Path) -> None:
    inverter = Inverter({5005: 207, 5006: 85, 5007: 1000})
    inverter.deaf = True
    states: list[State] = []

    async def talk(started: HeadEnd) -> None:
        await polled(started, 1)
        async with AsyncClient(address(started)) as head_end:
            to: dict[str, Any] = {"targets": ["der-1"], "percent": "0", "revert_s": 0}
            states.extend(await done(head_end, office, "control.limit", **to))
            inverter.gone = {5007}
            with pytest.raises(CallFailed, match="der-1"):
                await by_two(head_end, office, "control.limit", **to)

    office, path = prepared(tmp_path, f"der-1,{inverter.url},sungrow-sg\n")
    serving(path, talk, limit_s=60)

    assert states == [State.FAILED]
    assert inverter.writes == [(5006, [170, 0])]
