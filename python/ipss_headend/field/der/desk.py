"""Set points while the server runs: kept in the store, decided, and each device kept at what was decided.

One task a device that somebody wants something of. When the head-end ends, nothing is written any more and the devices
go back by their own timers; a restart takes up what is still wanted.

Not through here: taking a device off the grid, and a limit that is as good as that. Both switch supply, which takes
two people: the command path does it (`critical.py`), and while a device is under a command, set points leave that
function alone. The gate itself (`rust/src/control`) lets no other register of a device be written than those that set
points use, and no such limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

import trio

from ipss_headend import errors
from ipss_headend.errors import NotAuthorised, RequestError, StaleOwner, StoreDamaged, StoreFailed
from ipss_headend.field.der.arbitration import Decision, arbitrate
from ipss_headend.field.der.keeper import Held, Keeper, Outcome, is_critical
from ipss_headend.field.der.line import Open, Place, SunSpecLine
from ipss_headend.field.der.mapped import MappedDevice, is_mapped
from ipss_headend.field.der.setpoints import SECOND_US, Function, SetPoint
from ipss_headend.field.der.text import row_of, wish_of
from ipss_headend.field.der.writes import writes
from ipss_headend.log import Logger, logger
from ipss_headend.store import Store
from ipss_headend.store import setpoints as rows
from ipss_headend.store.database import now_us

if TYPE_CHECKING:
    from ipss_headend import _core
    from ipss_headend.field.control.orders import RegisterWrite
    from ipss_headend.field.der.critical import Meaning
    from ipss_headend.field.fleet import FleetMeter
    from ipss_headend.field.requests import Requests

AGAIN_S = 5.0
"""Before a device that did not say what it has is asked again."""

LOOK_S = 30.0
"""A keeper looks at the wall clock so often at least: it may be set."""

MOST_WISHES = 64
"""Of one device: sources times functions."""


@dataclass
class Kept:
    """A device that somebody wants something of, and what became of it."""

    meter: FleetMeter
    wishes: dict[tuple[Function, str], SetPoint] = field(default_factory=dict)
    keeper: Keeper | None = None
    changed: trio.Event = field(default_factory=trio.Event)
    settled: trio.Event = field(default_factory=trio.Event)
    outcomes: dict[Function, Outcome] = field(default_factory=dict)
    trouble: str = ""
    runs: bool = False
    writing: trio.Lock = field(default_factory=trio.Lock)
    """Held while the device is being written."""

    def wake(self) -> None:
        """Its wishes changed."""
        self.settled = trio.Event()
        self.changed.set()


async def refuse_critical(_: Decision) -> Outcome:
    """Nothing that switches supply leaves here."""
    return Outcome.REFUSED


class SetPoints:
    """What is wanted of all devices."""

    def __init__(
        self,
        *,
        store: Store,
        requests: Requests,
        native: type[_core.SunSpecDevice],
        open_registers: Open,
        meters: Mapping[int, FleetMeter],
        load_map: Callable[[str], _core.RegisterMap],
        critical_percent: float = 0.0,
        wall_us: Callable[[], int] = now_us,
    ) -> None:
        """Limits below `critical_percent` take two people; `load_map` gives a register map, or raises ValueError."""
        self._load_map = load_map
        self._maps: dict[str, _core.RegisterMap] = {}
        self.critical_percent = Decimal(str(critical_percent))
        self._commanded: dict[tuple[int, Function], int] = {}
        self._store = store
        self._requests = requests
        self._native = native
        self._open = open_registers
        self._meters = meters
        self._wall_us = wall_us
        self._kept: dict[int, Kept] = {}
        self._lines: dict[int, SunSpecLine] = {}
        self._finding: dict[int, trio.Lock] = {}
        self._nursery: trio.Nursery | None = None
        self._log: Logger = logger("der")

    async def run(self) -> None:
        """Keep every device at what is wanted of it, until cancelled."""
        for row in await self._store.read(rows.all_set_points):
            meter = self._meters.get(row.meter_id)
            try:
                wish = wish_of(row)
            except RequestError as error:
                self._log.warning("set point not understood", meter_id=row.meter_id, why=str(error))
                continue
            if meter is not None and wish.until_us > self._wall_us():
                self._of(meter).wishes[wish.function, wish.source] = wish
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for kept in list(self._kept.values()):
                self._start(kept)
            await trio.sleep_forever()

    async def line(self, meter: FleetMeter) -> SunSpecLine:
        """The way to a device, which is asked what it has the first time.

        Raises:
            RequestError: it is known by a register map, whose devices have no timer that ends a set point.
            MeterError: it did not answer, or is no SunSpec device.
        """
        if is_mapped(meter):
            raise RequestError(
                f"{meter.name}: set points end by a device's own timer, which the register map {meter.model} does not "
                "have; what it can be told takes two people: `control switch`, `control limit`"
            )
        async with self._finding.setdefault(meter.meter_id, trio.Lock()):
            line = self._lines.get(meter.meter_id)
            if line is None:
                line = SunSpecLine(self._requests, meter.meter_id, meter.name, self._native())
                await line.discover(self._open, self.critical_percent)
                self._lines[meter.meter_id] = line
            return line

    async def fresh(self, meter: FleetMeter) -> SunSpecLine:
        """As `line`, and the device is asked what it has again: a new firmware may have moved it.

        Raises:
            MeterError: it did not answer, or is no SunSpec device.
        """
        line = SunSpecLine(self._requests, meter.meter_id, meter.name, self._native())
        await line.discover(None)
        return line

    async def ordered(self, meter: FleetMeter, meaning: Meaning) -> RegisterWrite:
        """The one write that makes a device do this, as the device is now.

        Raises:
            RequestError: the device cannot do it.
            MeterError: it did not answer.
        """
        if not is_mapped(meter):
            return await meaning.write(await self.fresh(meter), meter.server)
        device = self._mapped(meter)
        write = device.write(meaning)
        await device.now(write)
        return write

    async def obeys(self, meter: FleetMeter, meaning: Meaning) -> bool | None:
        """Whether a device does this; None: it was not told.

        Raises:
            RequestError: the device cannot do it.
            MeterError: it did not answer.
        """
        if is_mapped(meter):
            device = self._mapped(meter)
            write = device.write(meaning)
            return await device.now(write) == write.values
        line = await self.line(meter)
        places = meaning.places(line.models)
        found = await line.read(places)
        if found is None or any(line.has(place) and place not in found for place in places):
            return None  # what the device refuses to say now is no word on what it does
        return meaning.held(found, line.models)

    def _mapped(self, meter: FleetMeter) -> MappedDevice:
        try:
            found = self._maps.get(meter.model) or self._load_map(meter.model)
        except ValueError as error:
            raise RequestError(f"{meter.name}: {error}") from None
        self._maps[meter.model] = found
        return MappedDevice(self._requests, meter, found)

    async def command(self, meter: FleetMeter, function: Function, until_us: int) -> None:
        """A device is under a command until then: set points leave this function of it alone.

        Returns when nothing of it is being written any more.
        """
        self._commanded[meter.meter_id, function] = until_us
        kept = self._kept.get(meter.meter_id)
        if kept is not None:
            async with kept.writing:
                pass
            kept.wake()

    def end_command(self, meter: FleetMeter, function: Function) -> None:
        """The command is over: what is wanted of the device holds again."""
        if self._commanded.pop((meter.meter_id, function), None) is not None and meter.meter_id in self._kept:
            self._kept[meter.meter_id].wake()

    def commanded(self, meter: FleetMeter) -> dict[Function, int]:
        """The functions that are under a command now, and until when."""
        moment_us = self._wall_us()
        return {
            function: until_us
            for (meter_id, function), until_us in self._commanded.items()
            if meter_id == meter.meter_id and until_us > moment_us
        }

    async def read(self, meter: FleetMeter, points: list[Place]) -> dict[Place, Decimal]:
        """Ask a device for points now.

        Raises:
            MeterError: no answer.
        """
        line = await self.line(meter)
        found = await line.read(points)
        if found is None:
            raise errors.MeterTimeout(f"{meter.name}: no answer")
        return dict(found)

    async def set(self, meter: FleetMeter, wish: SetPoint) -> Kept:
        """Take a wish: durable, then decided, then on its way. `settled` tells when it was tried.

        Raises:
            RequestError: no device for it, or too many wishes.
            NotAuthorised: it switches supply.
            MeterError: the device did not say what it has.
        """
        if not meter.protocol.is_modbus:
            raise RequestError(f"{meter.name} is no Modbus device; set points are for inverters and storage")
        if is_critical(wish.function, wish.value, self.critical_percent):
            way = "switch" if wish.function is Function.CONNECT else "limit"
            raise NotAuthorised(
                f"{meter.name}: {wish.function} {wish.value} switches supply, which takes two people: `control {way}`"
            )
        line = await self.line(meter)
        writes(Decision(wish.function, wish.value, wish.source, wish.revert_s, wish.until_us), line.models)
        kept = self._of(meter)
        key = (wish.function, wish.source)
        if key not in kept.wishes and len(kept.wishes) >= MOST_WISHES:
            raise RequestError(f"{meter.name}: {MOST_WISHES} set points are wanted of it already; release some")
        await self._store.change(lambda connection: rows.keep(connection, row_of(meter.meter_id, wish)))
        kept.wishes[key] = wish
        self._start(kept)
        kept.wake()
        return kept

    async def release(self, meter: FleetMeter, function: Function, source: str) -> Kept | None:
        """Let go of a wish; None if there was none. The device is told at once if nobody else wants the same."""
        gone = await self._store.change(
            lambda connection: rows.drop(connection, meter.meter_id, function.value, source)
        )
        kept = self._kept.get(meter.meter_id)
        if kept is None or (kept.wishes.pop((function, source), None) is None and not gone):
            return None
        self._start(kept)
        kept.wake()
        return kept

    async def abandon(self, meter: FleetMeter) -> None:
        """Forget all that is wanted of a device without a word to it: it goes back by itself."""
        await self._store.change(lambda connection: rows.forget(connection, [meter.meter_id], 0))
        kept = self._kept.pop(meter.meter_id, None)
        if kept is not None:
            kept.wishes.clear()
            if kept.keeper is not None:
                kept.keeper.held.clear()
            kept.wake()

    def devices(self) -> list[FleetMeter]:
        """The devices of the registry that speak Modbus, by name."""
        return sorted(
            (meter for meter in self._meters.values() if meter.protocol.is_modbus), key=lambda meter: meter.name
        )

    def wishes(self, meter: FleetMeter) -> list[SetPoint]:
        """What is wanted of a device now or later."""
        kept, moment_us = self._kept.get(meter.meter_id), self._wall_us()
        return [] if kept is None else [wish for wish in kept.wishes.values() if wish.until_us > moment_us]

    def held(self, meter: FleetMeter) -> Mapping[Function, Held]:
        """What a device was last made to do."""
        kept = self._kept.get(meter.meter_id)
        return {} if kept is None or kept.keeper is None else kept.keeper.held

    def decided(self, meter: FleetMeter) -> Mapping[Function, Decision]:
        """What a device is to do now."""
        return arbitrate(self.wishes(meter), self._wall_us())

    def _of(self, meter: FleetMeter) -> Kept:
        return self._kept.setdefault(meter.meter_id, Kept(meter))

    def _start(self, kept: Kept) -> None:
        if self._nursery is not None and not kept.runs:
            kept.runs = True
            self._nursery.start_soon(self._keep, kept)

    async def _keep(self, kept: Kept) -> None:
        """Keep one device, until nobody wants anything of it."""
        log = self._log.bind(meter=kept.meter.name)
        try:
            while True:
                kept.changed, settled = trio.Event(), kept.settled
                wait_s = AGAIN_S
                try:
                    wait_s = await self._settle(kept)
                except errors.MeterError as error:
                    if kept.trouble != str(error):
                        log.warning("set points not settled", why=str(error))
                    kept.trouble = str(error)
                settled.set()
                if not kept.wishes and (kept.keeper is None or not kept.keeper.held):
                    return
                with trio.move_on_after(wait_s):
                    await kept.changed.wait()
        except (StoreFailed, StaleOwner, StoreDamaged):
            raise
        except Exception:  # round a subject's task
            log.exception("keeper broken off by a fault of ours; the device reverts by itself")
        finally:
            kept.runs = False

    async def _settle(self, kept: Kept) -> float:
        if kept.meter.meter_id not in self._meters:
            kept.wishes.clear()  # retired: its timers end what it holds
            kept.keeper = None
            await self._store.change(lambda connection: rows.forget(connection, [kept.meter.meter_id], 0))
            return 0.0
        if kept.keeper is None:
            line = await self.line(kept.meter)
            kept.keeper = Keeper(line, line.models, refuse_critical, self.critical_percent)
        moment_us = self._wall_us()
        over = [key for key, wish in kept.wishes.items() if wish.until_us <= moment_us]
        for key in over:
            del kept.wishes[key]
        if over:
            await self._store.change(lambda connection: rows.forget(connection, [], moment_us))
        async with kept.writing:
            under = self.commanded(kept.meter)
            for function in under:
                kept.keeper.held.pop(function, None)  # what it does now is the command's
            wishes = [wish for wish in kept.wishes.values() if wish.function not in under]
            outcomes = await kept.keeper.settle(wishes, moment_us)
        for function, outcome in outcomes.items():
            if kept.outcomes.get(function) is not outcome:
                self._log.info("set point", meter=kept.meter.name, function=function.value, outcome=outcome.value)
        kept.outcomes |= outcomes
        kept.trouble = ""
        moments = [kept.keeper.next_us(wishes, moment_us), *under.values()]
        next_us = min((one for one in moments if one is not None), default=None)
        return LOOK_S if next_us is None else max(0.05, min(LOOK_S, (next_us - self._wall_us()) / SECOND_US))
