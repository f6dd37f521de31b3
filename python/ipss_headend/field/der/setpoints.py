"""What somebody wants a device to do, until when, and how soon the device goes back by itself."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from ipss_headend.errors import RequestError

SECOND_US = 1_000_000


class Function(StrEnum):
    """What of a device is set. The first two bound it and are combined; the others exclude each other."""

    CONNECT = "connect"
    """1 on the grid, 0 off it."""
    ACTIVE_POWER_LIMIT = "active-power-limit"
    """Percent of the rating, 0 to 100."""
    POWER_FACTOR = "power-factor"
    """0.01 to 1, negative for absorbing vars."""
    VOLT_VAR = "volt-var"
    """A curve: percent of nominal voltage, percent of the most vars."""
    VOLT_WATT = "volt-watt"
    """A curve: percent of nominal voltage, percent of the rating."""
    FREQUENCY_DROOP = "frequency-droop"
    """A curve of one point: dead band in hertz, droop (0.05 is 5 %)."""
    STORAGE_POWER = "storage-power"
    """Percent of the rating: negative charges, positive discharges."""


BOUNDS = frozenset({Function.CONNECT, Function.ACTIVE_POWER_LIMIT})
CURVES = frozenset({Function.VOLT_VAR, Function.VOLT_WATT, Function.FREQUENCY_DROOP})

Curve = tuple[tuple[Decimal, Decimal], ...]

MOST_CURVE_POINTS = 10
LONGEST_REVERT_S = 65_535
"""Model 123 counts its timers in one register."""

_RANGES = {
    Function.CONNECT: (Decimal(0), Decimal(1)),
    Function.ACTIVE_POWER_LIMIT: (Decimal(0), Decimal(100)),
    Function.POWER_FACTOR: (Decimal(-1), Decimal(1)),
    Function.STORAGE_POWER: (Decimal(-100), Decimal(100)),
}


@dataclass(frozen=True, slots=True)
class SetPoint:
    """One wish. It never changes; a renewal is a new one from the same source."""

    function: Function
    value: Decimal | Curve
    source: str
    """Who wants it; a later wish of the same source for the same function replaces it."""
    priority: int
    """Higher goes first among those that exclude each other."""
    asked_us: int
    until_us: int
    """When nobody wants it any more, in microseconds of UTC."""
    revert_s: int
    """After so many seconds without renewal the device goes back by itself."""
    exclusive: bool = False
    """A bound that shuts out bounds of lower priority instead of being combined with them."""

    def __post_init__(self) -> None:
        """Refuse what no device can do, by name."""
        where = f"{self.source}: {self.function}"
        if not 1 <= self.revert_s <= LONGEST_REVERT_S:
            raise RequestError(f"{where}: revert_s {self.revert_s} is not in 1 to {LONGEST_REVERT_S}")
        if self.until_us <= self.asked_us:
            raise RequestError(f"{where}: ends before it begins")
        if isinstance(self.value, tuple):
            self._check_curve(where, self.value)
            return
        if self.function in CURVES:
            raise RequestError(f"{where}: needs a curve, not {self.value}")
        low, high = _RANGES[self.function]
        if not self.value.is_finite() or not low <= self.value <= high:
            raise RequestError(f"{where}: {self.value} is not in {low} to {high}")
        if self.function is Function.CONNECT and self.value not in (0, 1):
            raise RequestError(f"{where}: {self.value} is neither 0 nor 1")
        if self.function is Function.POWER_FACTOR and abs(self.value) < Decimal("0.01"):
            raise RequestError(f"{where}: {self.value} is no power factor; use 0.01 to 1 or -1 to -0.01")

    def _check_curve(self, where: str, curve: Curve) -> None:
        if self.function not in CURVES:
            raise RequestError(f"{where}: needs a number, not a curve")
        most = 1 if self.function is Function.FREQUENCY_DROOP else MOST_CURVE_POINTS
        if not 1 <= len(curve) <= most:
            raise RequestError(f"{where}: {len(curve)} points; 1 to {most} fit")
        places = [place for place, _ in curve]
        if any(later <= before for before, later in itertools.pairwise(places)):
            raise RequestError(f"{where}: voltages must rise from point to point")

    def holds(self, now_us: int) -> bool:
        """Whether somebody wants it now."""
        return self.asked_us <= now_us < self.until_us
