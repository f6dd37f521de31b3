"""What is written to a device for a decision, by the SunSpec models that it has.

The timer goes first, the value next, the switch last: the device never runs a value without the timer that ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from decimal import Decimal

from ipss_headend.errors import RequestError
from ipss_headend.field.der.arbitration import Decision
from ipss_headend.field.der.setpoints import CURVES, MOST_CURVE_POINTS, Curve, Function


@dataclass(frozen=True, slots=True)
class PointWrite:
    """One point of one model, and the scaled value that it gets."""

    model: int
    point: str
    value: Decimal


def writes(decision: Decision, models: Collection[int]) -> list[PointWrite]:
    """What makes a device with these models obey.

    Raises RequestError if it has no model for the function.
    """
    for model, make in _WAYS[decision.function]:
        if model in models:
            return [PointWrite(model, point, Decimal(value)) for point, value in make(decision)]
    needed = " or ".join(str(model) for model, _ in _WAYS[decision.function])
    raise RequestError(f"{decision.function}: the device has no model {needed}")


def release(function: Function, models: Collection[int]) -> list[PointWrite]:
    """What ends a function at once, without waiting for the timer."""
    for model, _ in _WAYS[function]:
        if model in models:
            point, value = _SWITCHES[function, model]
            return [PointWrite(model, point, Decimal(value))]
    return []


def settable(models: Collection[int]) -> set[tuple[int, str]]:
    """The points of these models that set points may write, but those that switch supply: model and name."""
    found = {place for place in _SWITCHES.items() if place[0][1] in models and place[0][0] is not Function.CONNECT}
    points = {(model, point) for (_, model), (point, _) in found}
    number, curve = Decimal(1), tuple((Decimal(place), Decimal(1)) for place in range(MOST_CURVE_POINTS))
    for function, ways in _WAYS.items():
        if function is not Function.CONNECT:
            value = curve[:1] if function is Function.FREQUENCY_DROOP else curve if function in CURVES else number
            decision = Decision(function, value, "", 1, 0)
            points |= {(model, point) for model, make in ways if model in models for point, _ in make(decision)}
    return points


def _number(decision: Decision) -> Decimal:
    assert isinstance(decision.value, Decimal)
    return decision.value


def _curve(decision: Decision) -> Curve:
    assert isinstance(decision.value, tuple)
    return decision.value


_Points = list[tuple[str, Decimal | int]]


def _connect_123(decision: Decision) -> _Points:
    return [("Conn_RvrtTms", decision.revert_s), ("Conn", _number(decision))]


def _limit_704(decision: Decision) -> _Points:
    value = _number(decision)
    return [("WMaxLimPctRvrtTms", decision.revert_s), ("WMaxLimPct", value), ("WMaxLimPctEna", 1)]


def _limit_123(decision: Decision) -> _Points:
    return [("WMaxLimPct_RvrtTms", decision.revert_s), ("WMaxLimPct", _number(decision)), ("WMaxLim_Ena", 1)]


def _factor_704(decision: Decision) -> _Points:
    value = _number(decision)
    excitation = 1 if value < 0 else 0
    return [
        ("PFWInjRvrtTms", decision.revert_s),
        ("PFWInj.PF", abs(value)),
        ("PFWInj.Ext", excitation),
        ("PFWInjEna", 1),
    ]


def _factor_123(decision: Decision) -> _Points:
    return [("OutPFSet_RvrtTms", decision.revert_s), ("OutPFSet", _number(decision)), ("OutPFSet_Ena", 1)]


def _storage_704(decision: Decision) -> _Points:
    value = _number(decision)
    return [("WSetRvrtTms", decision.revert_s), ("WSetMod", 0), ("WSetPct", value), ("WSetEna", 1)]


def _curve_of(point: str) -> Callable[[Decision], _Points]:
    def make(decision: Decision) -> _Points:
        curve = _curve(decision)
        points: _Points = [("RvrtTms", decision.revert_s), ("Crv[2].ActPt", len(curve))]
        for index, (voltage, value) in enumerate(curve, start=1):
            points += [(f"Crv[2].Pt[{index}].V", voltage), (f"Crv[2].Pt[{index}].{point}", value)]
        return [*points, ("AdptCrvReq", 2), ("Ena", 1)]

    return make


def _droop_711(decision: Decision) -> _Points:
    ((band, droop),) = _curve(decision)
    points: _Points = [("RvrtTms", decision.revert_s)]
    points += [(f"Ctl[2].Db{side}", band) for side in ("Of", "Uf")]
    points += [(f"Ctl[2].K{side}", droop) for side in ("Of", "Uf")]
    return [*points, ("AdptCtlReq", 2), ("Ena", 1)]


_WAYS: dict[Function, list[tuple[int, Callable[[Decision], _Points]]]] = {
    Function.CONNECT: [(123, _connect_123)],
    Function.ACTIVE_POWER_LIMIT: [(704, _limit_704), (123, _limit_123)],
    Function.POWER_FACTOR: [(704, _factor_704), (123, _factor_123)],
    Function.VOLT_VAR: [(705, _curve_of("Var"))],
    Function.VOLT_WATT: [(706, _curve_of("W"))],
    Function.FREQUENCY_DROOP: [(711, _droop_711)],
    Function.STORAGE_POWER: [(704, _storage_704)],
}

_SWITCHES = {
    (Function.CONNECT, 123): ("Conn", 1),
    (Function.ACTIVE_POWER_LIMIT, 704): ("WMaxLimPctEna", 0),
    (Function.ACTIVE_POWER_LIMIT, 123): ("WMaxLim_Ena", 0),
    (Function.POWER_FACTOR, 704): ("PFWInjEna", 0),
    (Function.POWER_FACTOR, 123): ("OutPFSet_Ena", 0),
    (Function.VOLT_VAR, 705): ("Ena", 0),
    (Function.VOLT_WATT, 706): ("Ena", 0),
    (Function.FREQUENCY_DROOP, 711): ("Ena", 0),
    (Function.STORAGE_POWER, 704): ("WSetEna", 0),
}
