"""The way to one SunSpec device over the reactor: what it has, its points read and written.

The device's models are found once, their scale factors with them; after that a point is its registers. Whoever
reads values of a device that changes its scale factors while it runs reads those with them (`devices.py` does).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import TYPE_CHECKING

from ipss_headend.errors import HeadEndError, MeterGone, MeterRefused, MeterTimeout, ProtocolViolation
from ipss_headend.field.der.keeper import Outcome
from ipss_headend.field.der.writes import PointWrite, settable
from ipss_headend.field.questions import Registers, WriteRegisters
from ipss_headend.field.reactor import Outcome as End

if TYPE_CHECKING:
    from ipss_headend import _core
    from ipss_headend.field.requests import Answer, Requests

Place = tuple[int, str]
"""A model's number and the name of a point in it."""

Open = Callable[[int, Sequence[tuple[int, int, int]]], None]
"""Says which registers of a device may be written; see `_core.Reactor.open_registers`."""

ANSWER_S = 8.0
"""For one question to a device, its turn on a shared line included."""

MOST_POINTS = 60
"""Points of one question."""


@dataclass
class SunSpecLine:
    """One device, a `Line` for its `Keeper`."""

    requests: Requests
    meter_id: int
    name: str
    device: _core.SunSpecDevice
    models: frozenset[int] = field(default_factory=frozenset)

    async def discover(self, open_registers: Open | None, critical_percent: Decimal = Decimal(0)) -> None:
        """Find out what the device has, and let set points through to it; limits below this share, or of 0, are none.

        Raises:
            MeterError: it did not answer, or is no SunSpec device.
        """
        while (asked := self.device.ask()) is not None:
            answer = await self.ask(Registers((("holding", *asked),)))
            line = answer.line(0)
            cell = line[6][0] if line is not None and line[6] else None
            self.device.answered(cell if isinstance(cell, bytes) else None)
        self.models = frozenset(model for model, _, _ in self.device.models())
        if not self.models:
            raise MeterRefused(f"{self.name}: no SunSpec device")
        if open_registers is None:
            return
        parts = []
        for place in sorted(settable(self.models)):
            found = self._place(place)
            if found is not None:
                least = self._least(place[0], critical_percent) if place[1] == "WMaxLimPct" else 0
                parts.append((found[0], found[0] + found[1] - 1, least))
        open_registers(self.meter_id, parts)

    def _least(self, model: int, critical_percent: Decimal) -> int:
        """The least register value of a limit that is still a set point."""
        for percent in (critical_percent, critical_percent.to_integral_value(ROUND_CEILING)):
            try:
                _, octets = self.device.write(model, "WMaxLimPct", f"{percent:f}")
            except ValueError:
                continue
            return max(1, int.from_bytes(octets))
        return 0xFFFF

    async def write(self, write: PointWrite) -> Outcome:
        """Write one point; what is lost on the way is unknown."""
        try:
            address, octets = self.device.write(write.model, write.point, f"{write.value:f}")
        except ValueError:
            return Outcome.REFUSED
        try:
            answer = await self.ask(WriteRegisters(address, octets))
        except (MeterTimeout, MeterGone, ProtocolViolation):
            return Outcome.UNKNOWN
        except HeadEndError:
            return Outcome.REFUSED
        return Outcome.DONE if answer.outcome is End.DONE else Outcome.REFUSED

    async def read(self, points: Sequence[Place]) -> Mapping[Place, Decimal] | None:
        """Read points, scaled; None when no answer came. What the device does not have or say now is left out."""
        wanted = [place for place in points if self._place(place) is not None]
        said: list[Place] = []
        for first in range(0, len(wanted), MOST_POINTS):
            part = wanted[first : first + MOST_POINTS]
            try:
                answer = await self.ask(self.question(part))
            except HeadEndError:
                return None
            line = answer.line(0)
            if line is None:
                return None
            said += self.take(part, line[6])
        return self.values(said)

    def question(self, points: Iterable[Place]) -> Registers:
        """The registers of points that the device has."""
        found = (self._place(place) for place in points)
        return Registers(tuple(("holding", *place) for place in found if place is not None))

    def take(self, points: Sequence[Place], cells: Sequence[int | bytes | None]) -> list[Place]:
        """What a question about these points said; those of them that were answered, and not refused."""
        said = []
        for place, cell in zip(points, cells, strict=False):
            found = self._place(place)
            if found is not None and isinstance(cell, bytes) and self.device.update(found[0], cell):
                said.append(place)
        return said

    def values(self, points: Iterable[Place]) -> dict[Place, Decimal]:
        """The numbers of points, as they were read last."""
        found = {}
        for model, point in points:
            try:
                text = self.device.value(model, point)
                if text is not None:
                    found[model, point] = Decimal(text)
            except (ValueError, InvalidOperation):
                continue
        return found

    def has(self, place: Place) -> bool:
        """Whether the device has this point."""
        return self._place(place) is not None

    def _place(self, place: Place) -> tuple[int, int] | None:
        try:
            return self.device.place(*place)
        except ValueError:
            return None

    async def ask(self, question: Registers | WriteRegisters) -> Answer:
        """Ask the device.

        Raises:
            MeterError: it did not answer.
        """
        return await self.requests.ask([question], self.meter_id, timeout_s=ANSWER_S, name=self.name)
