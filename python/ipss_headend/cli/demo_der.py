"""Inverters, storage and sub-meters in the demo: read beside the meters, limited, and let go without a word."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import trio

from ipss_headend.cli import places
from ipss_headend.cli.output import say
from ipss_headend.cli.virtual_devices import Place
from ipss_headend.config import Config
from ipss_headend.errors import ConfigError, HeadEndError
from ipss_headend.field.der.setpoints import SECOND_US, Function, SetPoint
from ipss_headend.field.fleet import import_meters
from ipss_headend.security.keystore import Keystore
from ipss_headend.store.database import now_us

if TYPE_CHECKING:
    from ipss_headend import _core
    from ipss_headend.field.der.desk import SetPoints
    from ipss_headend.field.fleet import FleetMeter

REVERT_S = 3
"""The devices' own timers."""

HELD_S = 2.0
"""How long a limit is kept up: somebody is to see that the timer is renewed."""

LIMIT_PERCENT = 40
DISCHARGE_PERCENT = 80
"""Storage is made to feed first: there is something to limit there, too."""

SOURCE = "demo"
LOOK_S = 0.2
LONGEST_S = 20.0
"""How long the demo waits for them."""

POWER = ((701, "W"), (203, "W"))
ENABLED = (704, "WMaxLimPctEna")
LIMIT = (704, "WMaxLimPct")
REMAINING = (704, "WMaxLimPctRvrtRem")


class State(StrEnum):
    """Where a device is in its story."""

    ASKED = "asked"
    """It has not said anything yet."""
    MEASURES = "measures"
    """It has no limit to set."""
    FREE = "free"
    LIMITED = "limited"
    """A limit is in force, and renewed before the device's timer runs out."""
    LET_GO = "let-go"
    """The limit is in force, and nobody renews it."""
    REVERTED = "reverted"
    """The device ended the limit by itself."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What a device did when something changed."""

    at_s: float
    """Since the demo first looked."""
    state: State
    power_w: float | None
    limit_percent: float | None
    """The limit in force, as the device says it."""
    set_by: str | None
    """Whose set point that is."""
    reverts_in_s: int | None
    """What is left of the device's own timer."""


@dataclass
class Device:
    """One device as the demo shows it."""

    name: str
    kind: str
    power_w: float | None = None
    limit_percent: float | None = None
    set_by: str | None = None
    reverts_in_s: int | None = None
    state: State = State.ASKED
    power_free_w: float | None = None
    """Right before it was limited."""
    reverted_after_s: float | None = None
    """From the last word to the device to the end of its limit."""
    history: list[Moment] = field(default_factory=list)
    changed: trio.Event = field(default_factory=trio.Event)

    def note(self, at_s: float) -> bool:
        """Keep this moment if something but the power is new, and say whether it is."""
        moment = Moment(
            round(at_s, 2),
            self.state,
            self.power_w,
            self.limit_percent,
            self.set_by,
            self.reverts_in_s,
        )
        last = self.history[-1] if self.history else None
        if last is not None and _but_power(last) == _but_power(moment):
            return False
        self.history.append(moment)
        self.changed.set()
        self.changed = trio.Event()
        return True

    async def until(self, *states: State) -> None:
        """Wait until it is in one of these states."""
        while self.state not in states:
            await self.changed.wait()

    def document(self) -> dict[str, Any]:
        """As `--json` gives it: the story in short, and all of it."""
        limited = next((one for one in self.history if one.state is State.LIMITED), None)
        return {
            "device": self.name,
            "kind": self.kind,
            "state": self.state.value,
            "power_w": self.power_w if self.state is State.MEASURES else self.power_free_w,
            "limit_percent": None if limited is None else limited.limit_percent,
            "set_by": None if limited is None else limited.set_by,
            "power_limited_w": None if limited is None else limited.power_w,
            "reverted_after_s": self.reverted_after_s,
            "history": [asdict(one) | {"state": one.state.value} for one in self.history],
        }


def _but_power(moment: Moment) -> tuple[object, ...]:
    return moment.state, moment.limit_percent, moment.set_by, moment.reverts_in_s


@contextmanager
def running(seed: int) -> Iterator[_core.VirtualDevices]:
    """A few virtual devices, until the block ends.

    Raises:
        ConfigError: no port for them.
    """
    from ipss_headend import _core

    now = datetime.now(UTC)
    place = Place.at_noon(now)
    try:
        devices = _core.VirtualDevices(
            inverters=3,
            storage=1,
            submeters=1,
            seed=seed,
            port=0,
            latitude_deg=place.latitude_deg,
            longitude_deg=place.longitude_deg,
        )
    except OSError as error:
        raise ConfigError(f"the virtual inverters did not start: {error}") from error
    say(f"3 virtual inverters, a storage and a sub-meter stand at {place}: sun at {place.clock(now)} there")
    try:
        yield devices
    finally:
        devices.stop()


def enrol(config: Config, devices: _core.VirtualDevices) -> None:
    """Put them into the registry.

    Raises:
        ConfigError: they were refused.
    """
    counts: dict[str, int] = {}
    lines = ["name,address,model\n"]
    for url, kind in devices.devices():
        counts[kind] = counts.get(kind, 0) + 1
        lines.append(f"{kind}-{counts[kind]},{url},sunspec\n")
    with places.open_store(config) as database, database.writing() as connection:
        keystore = Keystore.open(connection, config.keystore)
        report = import_meters(connection, keystore, io.StringIO("".join(lines)), "devices")
    if report.mistakes:
        raise ConfigError(*report.mistakes)


class Show:
    """Limits every device that can be, lets go of it, and looks on as it goes back by itself."""

    def __init__(self, desk: SetPoints) -> None:
        """`desk` is where the running head-end takes set points."""
        self._desk = desk
        self._scope = trio.CancelScope()
        self._started_s = trio.current_time()
        self.devices: list[Device] = []
        self.over = trio.Event()
        """Every device has gone back, or gave up."""
        self.redraw: Callable[[], None] = lambda: None
        """Called when a device does something new."""

    async def run(self) -> None:
        """Until `end`, so that devices are seen after their story too."""
        with self._scope:
            await self._run()

    def end(self) -> None:
        """Ask nothing any more: a head-end that drains waits for what is under way."""
        self._scope.cancel()

    async def _run(self) -> None:
        async with trio.open_nursery() as nursery:
            try:
                async with trio.open_nursery() as stories:
                    for meter in self._desk.devices():
                        device = Device(meter.name, meter.name.rpartition("-")[0])
                        self.devices.append(device)
                        nursery.start_soon(self._look_on, meter, device)
                        stories.start_soon(self._story, meter, device)
            finally:
                self.over.set()

    async def _story(self, meter: FleetMeter, device: Device) -> None:
        try:
            with trio.move_on_after(LONGEST_S):
                await device.until(State.FREE, State.MEASURES)
                if device.state is State.MEASURES:
                    return
                if device.kind == "storage":
                    feeding = await self._desk.set(meter, _wish(Function.STORAGE_POWER, DISCHARGE_PERCENT))
                    await feeding.settled.wait()
                    await trio.sleep(2 * LOOK_S)  # for a look at what it feeds
                device.power_free_w = device.power_w
                await self._desk.set(meter, _wish(Function.ACTIVE_POWER_LIMIT, LIMIT_PERCENT))
                await device.until(State.LIMITED)
                say(
                    f"{device.name}: limited to {device.limit_percent:g} % by {device.set_by}, now {watts(device)}; "
                    f"goes back by itself {REVERT_S} s after the last renewal"
                )
                await trio.sleep(HELD_S)  # for people to see it
                await self._desk.abandon(meter)
                let_go_s = trio.current_time()
                device.state = State.LET_GO
                self._note(device)
                say(f"{device.name}: let go without a word")
                await device.until(State.REVERTED)
                device.reverted_after_s = round(trio.current_time() - let_go_s, 1)
                say(f"{device.name}: went back by itself after {device.reverted_after_s} s, now {watts(device)}")
        except HeadEndError as error:
            say(f"{device.name}: {error}")

    async def _look_on(self, meter: FleetMeter, device: Device) -> None:
        trouble = ""
        while True:
            try:
                said = await self._desk.read(meter, [*POWER, ENABLED, LIMIT, REMAINING])
                self._take(meter, device, said)
            except HeadEndError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    say(f"{device.name}: {error}")
            await trio.sleep(LOOK_S)

    def _take(self, meter: FleetMeter, device: Device, said: dict[tuple[int, str], Decimal]) -> None:
        """What a device said of itself just now."""
        power = next((said[place] for place in POWER if place in said), None)
        device.power_w = None if power is None else float(power)
        in_force = said.get(ENABLED) == 1
        if in_force:
            held = self._desk.held(meter).get(Function.ACTIVE_POWER_LIMIT)
            device.set_by = device.set_by or (None if held is None else held.decision.source)
            device.limit_percent = float(said[LIMIT])
            device.reverts_in_s = int(said[REMAINING]) if REMAINING in said else None
        else:
            device.set_by = device.limit_percent = device.reverts_in_s = None
        if ENABLED not in said:
            device.state = State.MEASURES
        elif device.state in {State.LET_GO, State.REVERTED}:
            device.state = State.LET_GO if in_force else State.REVERTED
        else:
            device.state = State.LIMITED if in_force else State.FREE
        self._note(device)

    def _note(self, device: Device) -> None:
        if device.note(trio.current_time() - self._started_s):
            self.redraw()


def _wish(function: Function, percent: int) -> SetPoint:
    moment_us = now_us()
    return SetPoint(function, Decimal(percent), SOURCE, 10, moment_us, moment_us + 60 * SECOND_US, REVERT_S)


def watts(device: Device) -> str:
    """A device's power, for people."""
    return "-" if device.power_w is None else f"{device.power_w:,.0f} W"


def words(device: Device) -> tuple[str, str, str, str, str, str]:
    """A device in a row, for people: name, power, limit, whose, when it goes back, state."""
    limit = "-" if device.limit_percent is None else f"{device.limit_percent:g} %"
    back = "-" if device.reverts_in_s is None else f"{device.reverts_in_s} s"
    return device.name, watts(device), limit, device.set_by or "-", back, WORDS[device.state]


WORDS = {
    State.ASKED: "asked",
    State.MEASURES: "measures",
    State.FREE: "free",
    State.LIMITED: "limited",
    State.LET_GO: "let go, goes back by itself",
    State.REVERTED: "went back by itself",
}

HEADINGS = ("device", "power", "limit", "set by", "goes back in", "state")
