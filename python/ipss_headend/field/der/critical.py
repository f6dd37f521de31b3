"""Orders for inverters and storage: what switches supply over Modbus, as one write that two people approve.

An order says in words what it means (`connect 0 for 3600 s`), which is signed with the registers that it writes. The
words are for three: who approves, the read-back afterwards, and a look at the device right before: what is written
must still be what these words mean there, or nothing is sent.

One frame says all of it, the device's own timer and the value together: nothing is half done when the line breaks.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Self

from ipss_headend.errors import MeterTimeout, RequestError
from ipss_headend.field.control.orders import RegisterWrite
from ipss_headend.field.der.setpoints import Function
from ipss_headend.field.questions import Registers

if TYPE_CHECKING:
    from ipss_headend.field.der.line import Place, SunSpecLine

LONGEST_REVERT_S = 0xFFFF_FFFF

WRITE_REGISTERS = 16

_FORM = re.compile(r"(connect|active-power-limit) (off|[0-9.]+)(?: for ([0-9]+) s)?")


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an order does to a device."""

    function: Function
    """`CONNECT` or `ACTIVE_POWER_LIMIT`."""
    value: Decimal | None
    """1 on the grid, 0 off it; percent of the rating, None: the limit ends."""
    revert_s: int = 0
    """After so many seconds the device goes back by itself; 0: it does not."""

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        if not 0 <= self.revert_s <= LONGEST_REVERT_S:
            raise RequestError(f"a device goes back after at most {LONGEST_REVERT_S} s, not after {self.revert_s}")
        if self.function is Function.CONNECT and self.value not in (0, 1):
            raise RequestError(f"connect: {self.value} is neither 0 nor 1")
        if self.value is not None and not 0 <= self.value <= 100:
            raise RequestError(f"{self.function}: {self.value} is not in 0 to 100")

    @property
    def kind(self) -> str:
        """The order's kind."""
        if self.function is Function.CONNECT:
            return "der-reconnect" if self.value == 1 else "der-disconnect"
        return "der-limit"

    @property
    def ends(self) -> bool:
        """Whether it takes back what another one did."""
        return self.value == 1 if self.function is Function.CONNECT else self.value is None

    def text(self) -> str:
        """What stands in the order as `expected`."""
        value = "off" if self.value is None else f"{self.value:f}"
        return f"{self.function} {value}" + (f" for {self.revert_s} s" if self.revert_s else "")

    @classmethod
    def of(cls, text: str) -> Self:
        """The meaning with these words.

        Raises:
            RequestError: they are none.
        """
        found = _FORM.fullmatch(text)
        if found is None:
            raise RequestError(f'"{text[:80]}" is not what an order for a device says')
        function, value, revert_s = found.groups()
        try:
            number = None if value == "off" else Decimal(value)
        except InvalidOperation:
            raise RequestError(f'"{text[:80]}": "{value}" is no number') from None
        return cls(Function(function), number, int(revert_s or 0))

    def held(self, found: Mapping[Place, Decimal], models: Collection[int]) -> bool:
        """Whether a device with these models, and these values, does it."""
        wanted = {place: value for place, value in self._way(models).items() if _tells(place[1])}
        return all(value is None or found.get(place) == value for place, value in wanted.items())

    def places(self, models: Collection[int]) -> list[Place]:
        """The points that tell whether a device does it."""
        return [place for place, value in self._way(models).items() if value is not None and _tells(place[1])]

    def _way(self, models: Collection[int]) -> dict[Place, Decimal | None]:
        """The points that are written, in the order of their registers; None: as it stands there."""
        value, revert = self.value, Decimal(self.revert_s)
        if self.function is Function.CONNECT:
            if 123 not in models:
                raise RequestError("connect: the device has no model 123")
            return {(123, "Conn_RvrtTms"): revert, (123, "Conn"): value}
        if 704 in models:
            if value is None:
                return {(704, "WMaxLimPctEna"): Decimal(0)}
            return {
                (704, "WMaxLimPctEna"): Decimal(1),
                (704, "WMaxLimPct"): value,
                (704, "WMaxLimPctRvrt"): None,
                (704, "WMaxLimPctEnaRvrt"): None,
                (704, "WMaxLimPctRvrtTms"): revert,
            }
        if 123 not in models:
            raise RequestError("active-power-limit: the device has no model 704 or 123")
        if value is None:
            return {(123, "WMaxLim_Ena"): Decimal(0)}
        return {
            (123, "WMaxLimPct"): value,
            (123, "WMaxLimPct_WinTms"): None,
            (123, "WMaxLimPct_RvrtTms"): revert,
            (123, "WMaxLimPct_RmpTms"): None,
            (123, "WMaxLim_Ena"): Decimal(1),
        }

    async def write(self, line: SunSpecLine, unit: int) -> RegisterWrite:
        """The one write that makes a device do it, as the device is laid out now.

        Raises:
            RequestError: the device cannot do it.
            MeterError: it did not answer.
        """
        way = self._way(line.models)
        try:
            places = [line.device.place(*place) for place in way]
        except ValueError as error:
            raise RequestError(f"{line.name}: {error}") from None
        first, end = places[0][0], places[-1][0] + places[-1][1]
        if end - first != sum(count for _, count in places):
            raise RequestError(f"{line.name}: the registers of {self.function} do not stand side by side")
        octets = await registers(line, first, end - first)
        for (model, point), value in way.items():
            address, count = line.device.place(model, point)
            place = 2 * (address - first)
            if value is None:
                continue
            if "Rvrt" in point and set(octets[place : place + 2 * count]) == {0xFF}:
                # The device does not have this timer.
                if value:
                    raise RequestError(f"{line.name}: {model} {point}: it has no timer to go back by; ask for none")
                continue
            try:
                _, written = line.device.write(model, point, f"{value:f}")
            except ValueError as error:
                raise RequestError(f"{line.name}: {error}") from None
            octets = octets[:place] + written + octets[place + 2 * count :]
        return RegisterWrite(unit, first, WRITE_REGISTERS, octets)


async def registers(line: SunSpecLine, first: int, count: int) -> bytes:
    """Holding registers of a device as they are now.

    Raises:
        MeterError: it did not answer.
    """
    answer = await line.ask(Registers((("holding", first, count),)))
    row = answer.line(0)
    cell = row[6][0] if row is not None and row[6] else None
    if not isinstance(cell, bytes) or len(cell) != 2 * count:
        raise MeterTimeout(f"{line.name}: registers {first} to {first + count - 1} were not told")
    return cell


def _tells(point: str) -> bool:
    """Whether a point tells that a device obeys: not the timers, which some devices count down in place."""
    return "Tms" not in point
