"""Set points as text: in the store, in calls, on the command line. A curve is `92:30 98:0 102:0 108:-30`."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from ipss_headend.errors import RequestError
from ipss_headend.field.der.setpoints import CURVES, Curve, Function, SetPoint
from ipss_headend.store.setpoints import SetPointRow


def function_of(text: str) -> Function:
    """The function of this name.

    Raises:
        RequestError: there is none.
    """
    try:
        return Function(text)
    except ValueError:
        raise RequestError(f'function: "{text}" is none of {", ".join(Function)}') from None


def value_of(function: Function, text: str) -> Decimal | Curve:
    """The value of a function: a number, or the points of a curve.

    Raises:
        RequestError: it is none.
    """
    try:
        if function in CURVES:
            points = [part.split(":") for part in text.replace(",", " ").split()]
            return tuple((Decimal(place), Decimal(value)) for place, value in points)
        return Decimal(text)
    except (ValueError, InvalidOperation):
        form = "points such as 92:30 98:0" if function in CURVES else "a number"
        raise RequestError(f'{function}: "{text}" is not {form}') from None


def shown(value: Decimal | Curve) -> str:
    """A value as `value_of` reads it."""
    if isinstance(value, tuple):
        return " ".join(f"{place:f}:{part:f}" for place, part in value)
    return f"{value:f}"


def row_of(meter_id: int, wish: SetPoint) -> SetPointRow:
    """A wish as the store keeps it."""
    return SetPointRow(
        meter_id,
        wish.function.value,
        wish.source,
        shown(wish.value),
        wish.priority,
        wish.asked_us,
        wish.until_us,
        wish.revert_s,
        int(wish.exclusive),
    )


def wish_of(row: SetPointRow) -> SetPoint:
    """A wish from the store.

    Raises:
        RequestError: it is none that could have been asked for.
    """
    function = function_of(row.function)
    return SetPoint(
        function=function,
        value=value_of(function, row.value),
        source=row.source,
        priority=row.priority,
        asked_us=row.asked_us,
        until_us=row.until_us,
        revert_s=row.revert_s,
        exclusive=bool(row.exclusive),
    )
