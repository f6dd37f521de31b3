"""Read plans: what is due from which meters, asked when it is due.

One task a plan. A *turn* is one recurrence of a plan; its meters have their places in the plan's window, each always
the same. What a turn asks follows from the marks in the store, so a restart neither forgets nor repeats one. A meter
that fails is asked again at the next turn; the reactor has retried it by then.
"""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, cast

import trio

from ipss_headend.config import PlanConfig
from ipss_headend.errors import StaleOwner, StoreDamaged, StoreFailed
from ipss_headend.field.context import Field
from ipss_headend.field.profiles import ProfileReading
from ipss_headend.field.registers import RegisterReading
from ipss_headend.field.windows import latest_turn
from ipss_headend.log import Logger, logger
from ipss_headend.metrics import PlanFigures
from ipss_headend.schedule import SECOND_US, spread_s

if TYPE_CHECKING:
    from ipss_headend._core import Priority

WAVES = 100
"""A window is cut into at most so many waves: a wave asks many meters at once."""

LOOK_S = 30.0
"""How often a plan that waits looks at the wall clock: that may be set, and a turn must not be missed by it."""

CLOCK_SET_US = 3600 * SECOND_US
"""A wall clock further behind the last turn than this was set back; a smaller step is waited out."""


class Campaign:
    """One read plan, for ever."""

    def __init__(self, plan: PlanConfig, field: Field) -> None:
        """Take the plan.

        Raises:
            UnknownLogicalName: an object without a class that the catalogue does not know.
        """
        self.plan = plan
        self._field = field
        self._figures: PlanFigures = field.figures.plan(plan.name)
        self._log: Logger = logger("plan").bind(plan=plan.name)
        priority = cast("Priority", plan.priority)
        registers = [field.layouts.register(name) for name in plan.objects]
        columns = [field.layouts.register(name) for name in plan.columns]
        self._registers = RegisterReading(plan, registers, priority, field) if registers else None
        self._profile = (
            ProfileReading(plan, plan.profile, columns, priority, field) if plan.profile is not None else None
        )
        self._known: frozenset[int] = frozenset()
        self._members = array("I")
        self._waves: list[tuple[float, array[int]]] = []
        self._take_members()

    async def run(self) -> None:
        """Take every turn, the current one first, until cancelled.

        Raises:
            StoreFailed, StaleOwner, StoreDamaged: nothing may be stored any more.
        """
        turn_us = latest_turn(self.plan.every, self._field.wall_us(), self._field.zone)
        async with trio.open_nursery() as backfills:
            while True:
                await self._guarded(lambda turn_us=turn_us: self.turn(turn_us))  # type: ignore[misc]
                if self._profile is not None and self.plan.backfill_days > 1:
                    backfills.start_soon(self._guarded, self.backfill)
                turn_us = await self._next_turn(turn_us)

    async def turn(self, turn_us: int) -> None:
        """Ask what is due of every meter, wave after wave, and wait until all have ended."""
        self._take_members()
        figures = self._figures
        figures.turn_us = turn_us
        figures.asked = figures.done = figures.failed = 0
        next_turn_us = self.plan.every.next_after(turn_us, self._field.zone)
        async with trio.open_nursery() as nursery:
            for offset_s, meters in self._waves:
                await self._until(turn_us + int(offset_s * SECOND_US))
                if self._registers is not None:
                    nursery.start_soon(self._registers.read, meters, turn_us, next_turn_us)
                if self._profile is not None:
                    nursery.start_soon(self._profile.read, meters)
        figures.turns += 1
        self._log.info("turn over", asked=figures.asked, done=figures.done, failed=figures.failed)

    def _take_members(self) -> None:
        """Who is in the plan now: meters come and go."""
        if self._known == self._field.meters.keys():
            return
        self._known = frozenset(self._field.meters)
        members = [
            meter
            for meter in self._field.meters.values()
            if self.plan.selects(meter.group) and not meter.protocol.is_modbus
        ]
        self._members = array("I", sorted(meter.meter_id for meter in members))
        self._waves = waves(((meter.name, meter.meter_id) for meter in members), self.plan.window_s)

    async def backfill(self) -> None:
        """Ask what is missing of older days, unless that goes on already."""
        if self._profile is not None:
            await self._profile.backfill(self._members)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except* (StoreFailed, StaleOwner, StoreDamaged):
            raise
        except* Exception:  # noqa: BLE001 - round a subject's task
            # The plan's next turn and the other plans are not harmed by this one's fault.
            self._field.figures.plan_faults[self.plan.name] += 1
            self._log.exception("turn broken off by a fault of ours")

    async def _next_turn(self, turn_us: int) -> int:
        """Wait for the turn after `turn_us`. Turns that passed meanwhile are one: the marks know what is missing."""
        every, zone = self.plan.every, self._field.zone
        while True:
            now_us = self._field.wall_us()
            if now_us < turn_us - CLOCK_SET_US:
                self._log.warning("wall clock was set back", seconds=(turn_us - now_us) // SECOND_US)
                turn_us = now_us
            due_us = every.next_after(turn_us, zone)
            if now_us >= due_us:
                return latest_turn(every, now_us, zone)
            await trio.sleep(min((due_us - now_us) / SECOND_US, LOOK_S))

    async def _until(self, moment_us: int) -> None:
        while True:
            left_us = moment_us - self._field.wall_us()
            if left_us <= 0:
                return
            await trio.sleep(min(left_us / SECOND_US, LOOK_S))


def waves(meters: Iterable[tuple[str, int]], window_s: int) -> list[tuple[float, array[int]]]:
    """Meters, given as name and number, by the time after a turn's beginning at which they are asked."""
    step_s = max(1.0, window_s / WAVES)
    found: dict[int, array[int]] = {}
    for name, meter in meters:
        found.setdefault(int(spread_s(name, window_s) / step_s), array("I")).append(meter)
    return [(place * step_s, members) for place, members in sorted(found.items())]
