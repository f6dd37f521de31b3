"""Keeps one device at what was decided: writes, reads back, renews before the device's timer runs out.

The device's own timer is the last word: when nothing reaches it any more, it goes back by itself. So this never has
to write in doubt. A write whose answer was lost is resolved by reading the point: if it holds the value it is done; if
it does not, the same value is written once more; if it cannot be read, the outcome is unknown, and stays so until
somebody can read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

from ipss_headend.field.der.arbitration import Decision, arbitrate
from ipss_headend.field.der.setpoints import SECOND_US, Curve, Function, SetPoint
from ipss_headend.field.der.writes import PointWrite, release, writes


class Outcome(StrEnum):
    """How it ended."""

    DONE = "done"
    REFUSED = "refused"
    """The device, or the command path, said no."""
    NOT_HELD = "not-held"
    """The device answered but shows another value."""
    UNKNOWN = "unknown"
    """Nobody can tell; the device's timer decides."""


class Line(Protocol):
    """The way to one device."""

    async def write(self, write: PointWrite) -> Outcome:
        """Write one point: done, refused, or unknown when no answer came."""

    async def read(self, points: Sequence[tuple[int, str]]) -> Mapping[tuple[int, str], Decimal] | None:
        """Read points, scaled; None when no answer came. What the device does not have is left out."""


Submit = Callable[[Decision], Awaitable[Outcome]]
"""Asks the command path for a critical decision; what is not `done` is not written."""

MOMENTARY = frozenset({"AdptCrvReq", "AdptCtlReq"})
"""Points that a device answers for by something else than by keeping them."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a device was last made to do for one function."""

    decision: Decision
    renew_us: int
    reverted_us: int
    """When the device has gone back by itself at the latest, if nothing more reaches it."""
    outcome: Outcome


@dataclass
class Keeper:
    """One device. `settle` is called whenever set points changed and when `next_us` has come."""

    line: Line
    models: Collection[int]
    submit: Submit
    critical_percent: Decimal = Decimal(0)
    """Limits below this are as good as switching off."""
    held: dict[Function, Held] = field(default_factory=dict)

    async def settle(self, setpoints: Sequence[SetPoint], now_us: int) -> dict[Function, Outcome]:
        """Make the device do what is decided now; what had to be written, and how that ended."""
        decided = arbitrate(setpoints, now_us)
        outcomes: dict[Function, Outcome] = {}
        for function in [function for function in self.held if function not in decided]:
            outcome = await self.apply(release(function, self.models))
            outcomes[function] = outcome
            held = self.held.pop(function)
            if outcome is not Outcome.DONE and now_us < held.reverted_us:
                # The device may still hold it: asked again, until its own timer must have ended it.
                self.held[function] = replace(held, renew_us=now_us + int(RETRY_S * SECOND_US), outcome=outcome)
        for function, decision in decided.items():
            if self._stands(decision, now_us):
                continue
            outcome = await self.submit(decision) if self._is_critical(decision) else Outcome.DONE
            if outcome is Outcome.DONE:
                outcome = await self.apply(writes(decision, self.models))
            # Renewed at half its time, or sooner tried again when it is not known to hold.
            wait_s = decision.revert_s / 2 if outcome is Outcome.DONE else min(decision.revert_s / 2, RETRY_S)
            renew_us, reverted_us = now_us + int(wait_s * SECOND_US), now_us + decision.revert_s * SECOND_US
            if outcome is not Outcome.DONE and (earlier := self.held.get(function)) is not None:
                reverted_us = max(reverted_us, earlier.reverted_us)
            self.held[function] = Held(decision, renew_us, reverted_us, outcome)
            outcomes[function] = outcome
        return outcomes

    def next_us(self, setpoints: Sequence[SetPoint], now_us: int) -> int | None:
        """When `settle` has something to do if nothing else happens before."""
        ends = [setpoint.until_us for setpoint in setpoints if setpoint.until_us > now_us]
        begins = [setpoint.asked_us for setpoint in setpoints if setpoint.asked_us > now_us]
        return min([*ends, *begins, *(held.renew_us for held in self.held.values())], default=None)

    async def apply(self, wanted: Sequence[PointWrite]) -> Outcome:
        """Write in order, then read all back."""
        for write in wanted:
            outcome = await self.line.write(write)
            if outcome is Outcome.UNKNOWN:
                outcome = await self._resolve(write)
            if outcome is not Outcome.DONE:
                return outcome
        return await self._read_back([write for write in wanted if write.point not in MOMENTARY])

    async def _resolve(self, write: PointWrite) -> Outcome:
        """A write without an answer: look, and only then decide."""
        if write.point not in MOMENTARY:
            outcome = await self._read_back([write])
            if outcome is not Outcome.NOT_HELD:
                return outcome
        elif await self.line.read([(write.model, write.point)]) is None:
            return Outcome.UNKNOWN
        # The device answers and does not hold it: the same value once more does no harm.
        return await self.line.write(write)

    async def _read_back(self, wanted: Sequence[PointWrite]) -> Outcome:
        found = await self.line.read([(write.model, write.point) for write in wanted])
        if found is None:
            return Outcome.UNKNOWN
        held = all(found.get((write.model, write.point)) == write.value for write in wanted)
        return Outcome.DONE if held else Outcome.NOT_HELD

    def _stands(self, decision: Decision, now_us: int) -> bool:
        held = self.held.get(decision.function)
        if held is None or held.decision.value != decision.value or now_us >= held.renew_us:
            return False
        # A timer set for a longer wish would hold the device beyond the one that counts now, if the way to it is lost.
        latest_us = now_us + (decision.revert_s + 1) * SECOND_US
        return held.outcome is not Outcome.DONE or held.reverted_us <= latest_us

    def _is_critical(self, decision: Decision) -> bool:
        """Supply is switched, in effect: asked for once, not at each renewal."""
        held = self.held.get(decision.function)
        if held is not None and held.outcome is Outcome.DONE and held.decision.value == decision.value:
            return False
        return is_critical(decision.function, decision.value, self.critical_percent)


def is_critical(function: Function, value: Decimal | Curve, critical_percent: Decimal) -> bool:
    """Whether it takes a device off the grid, puts it there, or limits it so far that it is as good as off."""
    if function is Function.ACTIVE_POWER_LIMIT and isinstance(value, Decimal):
        return value == 0 or value < critical_percent
    return function is Function.CONNECT


RETRY_S = 10.0
"""Between tries of what is not known to hold."""
