"""Which of many set points a device gets. A pure function of the set points and the moment.

The SunSpec models leave open what competes with what. Here: bounds (connected, limit) are all obeyed at once, so the
tightest counts, unless one of higher priority is exclusive; what excludes each other goes by priority, then to the
newest. What is not wanted any more does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from ipss_headend.field.der.setpoints import BOUNDS, SECOND_US, Curve, Function, SetPoint


@dataclass(frozen=True, slots=True)
class Decision:
    """What a device gets for one function."""

    function: Function
    value: Decimal | Curve
    source: str
    """Whose wish it is."""
    revert_s: int
    """What the device's own timer is set to."""
    until_us: int
    """When the wish ends, or another one would be decided on."""


def arbitrate(setpoints: Iterable[SetPoint], now_us: int) -> Mapping[Function, Decision]:
    """Decide each function for which somebody wants something now."""
    newest: dict[tuple[Function, str], SetPoint] = {}
    for setpoint in setpoints:
        known = newest.get((setpoint.function, setpoint.source))
        if setpoint.asked_us <= now_us and (known is None or _age(known) < _age(setpoint)):
            newest[setpoint.function, setpoint.source] = setpoint
    wanted: dict[Function, list[SetPoint]] = {}
    for setpoint in newest.values():
        if setpoint.holds(now_us):
            wanted.setdefault(setpoint.function, []).append(setpoint)
    return {function: _decide(function, found, now_us) for function, found in sorted(wanted.items())}


def _decide(function: Function, wanted: list[SetPoint], now_us: int) -> Decision:
    if function in BOUNDS:
        first = max((setpoint.priority for setpoint in wanted if setpoint.exclusive), default=None)
        counting = [setpoint for setpoint in wanted if first is None or setpoint.priority >= first]
        winner = min(counting, key=lambda setpoint: (setpoint.value, -setpoint.until_us, setpoint.source))
    else:
        winner = max(wanted, key=lambda setpoint: (setpoint.priority, _age(setpoint), setpoint.source))
    left_s = -(-(winner.until_us - now_us) // SECOND_US)
    return Decision(function, winner.value, winner.source, min(winner.revert_s, left_s), winner.until_us)


def _age(setpoint: SetPoint) -> tuple[int, int, str]:
    """What makes one wish newer than another, whatever order they are told in."""
    return setpoint.asked_us, setpoint.until_us, repr((setpoint.value, setpoint.priority, setpoint.revert_s))
