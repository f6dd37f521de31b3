"""`der.*`: set points of inverters and storage.

A set point is a wish with an end, a priority and a source; several compete, and an answer tells who won. A device goes
back by itself when it is not renewed in time: the head-end renews while somebody wants it.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec
import trio

from ipss_headend.field.der.setpoints import SECOND_US, Function, SetPoint
from ipss_headend.field.der.text import function_of, shown, value_of
from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import Change, Params, Result, method
from ipss_headend.rpc.faults import Fault
from ipss_headend.security.permission import Right
from ipss_headend.store.database import now_us

if TYPE_CHECKING:
    from ipss_headend.field.der.arbitration import Decision
    from ipss_headend.field.der.desk import Kept
    from ipss_headend.field.fleet import FleetMeter

SETTLE_S = 20.0
"""How long a set point may take to be written and read back before the call answers without its outcome."""

LONGEST_S = 7 * 86_400
MOST_PRIORITY = 100

READ = {
    "power_w": ((701, "W"), (103, "W"), (203, "W"), (102, "W"), (101, "W"), (201, "W")),
    "limit_percent": ((704, "WMaxLimPct"), (123, "WMaxLimPct")),
    "limit_enabled": ((704, "WMaxLimPctEna"), (123, "WMaxLim_Ena")),
    "revert_left_s": ((704, "WMaxLimPctRvrtRem"),),
    "connected": ((123, "Conn"),),
    "charge_percent": ((713, "SoC"),),
}


class Wish(msgspec.Struct, frozen=True):
    """A set point that somebody wants."""

    function: str
    value: str
    source: str
    priority: int
    until_ms: int
    revert_s: int
    exclusive: bool


class Decided(msgspec.Struct, frozen=True):
    """What a device is made to do for one function."""

    function: str
    value: str
    source: str
    """Whose wish it is."""
    outcome: str
    """`done`: read back; `refused`, `not-held`, `unknown`; `pending`: not written yet."""
    renewed_ms: int | None
    """When it is renewed, or tried again."""
    reverts_ms: int | None
    """When the device has gone back by itself at the latest, if nothing more reaches it."""


class DerState(msgspec.Struct, frozen=True):
    """A device, what is wanted of it, and what it was made to do."""

    device: str
    model: str
    wishes: list[Wish]
    decided: list[Decided]


class Ders(Result, frozen=True):
    """Devices by name."""

    devices: list[DerState]


class Named(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A device."""

    device: str


class ReadState(Result, frozen=True):
    """What a device says of itself now. A value that it does not have is None."""

    device: str
    values: dict[str, str | None]


class Want(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A set point."""

    device: str
    function: str
    """active-power-limit, power-factor, volt-var, volt-watt, frequency-droop, storage-power."""
    value: str
    """A number, or the points of a curve: `92:30 98:0 102:0 108:-30`."""
    for_s: int = 3600
    """How long it is wanted."""
    revert_s: int = 300
    """After so long without renewal the device goes back by itself."""
    priority: int = 10
    exclusive: bool = False
    source: str = ""
    """Who wants it, for several wishes of one caller; empty: the caller."""


class LetGo(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A set point that is not wanted any more."""

    device: str
    function: str
    source: str = ""


class Taken(Result, frozen=True):
    """What came of it. `accepted`: the wish is kept. `arbitration` tells what the device gets for each function."""

    accepted: bool
    arbitration: list[Decided]


@method("der.list", Right.VIEW, example={})
def list_(call: Call, params: Params) -> Ders:
    """The Modbus devices of the registry, what is wanted of each, and what it was made to do."""
    desk, who = call.services.set_points, call.principal
    return Ders(devices=[_state(call, meter) for meter in desk.devices() if who.may(Right.VIEW, meter.group)])


@method("der.read", Right.READ)
async def read(call: Call, params: Named) -> ReadState:
    """Ask a device now: its power, its limit, how long until it goes back by itself."""
    meter = call.meter(params.device, Right.READ)
    if not meter.protocol.is_modbus:
        raise Fault("E_PARAMS", f"{meter.name} is no Modbus device")
    found = await call.services.set_points.read(meter, [place for places in READ.values() for place in places])
    values: dict[str, str | None] = {}
    for name, places in READ.items():
        said = next((found[place] for place in places if place in found), None)
        values[name] = None if said is None else f"{said:f}"
    return ReadState(device=meter.name, values=values)


@method("der.set", Right.PROPOSE)
async def set_(call: Call, params: Want) -> Taken:
    """Want something of a device until then. It competes with what others want; a renewal is the same wish again.

    Taking a device off the grid, and a limit of next to nothing, take two people: control.switch, control.limit.
    """
    meter = call.meter(params.device, Right.PROPOSE)
    function = function_of(params.function)
    if not 1 <= params.for_s <= LONGEST_S:
        raise Fault("E_PARAMS", f"for_s: {params.for_s} is not in 1 to {LONGEST_S}")
    if not 0 <= params.priority <= MOST_PRIORITY:
        raise Fault("E_PARAMS", f"priority: {params.priority} is not in 0 to {MOST_PRIORITY}")
    moment_us = now_us()
    wish = SetPoint(
        function=function,
        value=value_of(function, params.value),
        source=_source(call, params.source),
        priority=params.priority,
        asked_us=moment_us,
        until_us=moment_us + params.for_s * SECOND_US,
        revert_s=params.revert_s,
        exclusive=params.exclusive,
    )
    if (why := await call.services.judge.asked(call.principal.name, "set-point", [meter.name])) is not None:
        raise Fault("E_DENIED", f"der.set: {why}")
    kept = await call.services.set_points.set(meter, wish)
    return await _taken(call, meter, kept)


@method("der.release", Right.PROPOSE)
async def release(call: Call, params: LetGo) -> Taken:
    """Let go of what the caller wanted. The device is told at once, unless somebody else wants the same function."""
    meter = call.meter(params.device, Right.PROPOSE)
    function = function_of(params.function)
    kept = await call.services.set_points.release(meter, function, _source(call, params.source))
    if kept is None:
        raise Fault(
            "E_UNKNOWN", f"{meter.name}: {call.principal.name} wants no {function} of it; der.list shows wishes"
        )
    return await _taken(call, meter, kept)


def _source(call: Call, text: str) -> str:
    if len(text) > 100 or not text.isprintable():
        raise Fault("E_PARAMS", "source: at most 100 characters that can be printed")
    return f"{call.principal.name}/{text}" if text else call.principal.name


async def _taken(call: Call, meter: FleetMeter, kept: Kept) -> Taken:
    with trio.move_on_after(SETTLE_S):
        await kept.settled.wait()
    return Taken(accepted=True, arbitration=_decided(call, meter))


def _state(call: Call, meter: FleetMeter) -> DerState:
    wishes = [
        Wish(
            wish.function.value,
            shown(wish.value),
            wish.source,
            wish.priority,
            wish.until_us // 1000,
            wish.revert_s,
            wish.exclusive,
        )
        for wish in call.services.set_points.wishes(meter)
    ]
    return DerState(meter.name, meter.model, wishes, _decided(call, meter))


def _decided(call: Call, meter: FleetMeter) -> list[Decided]:
    desk = call.services.set_points
    decisions: Mapping[Function, Decision] = desk.decided(meter)
    held = desk.held(meter)
    found = []
    for function, decision in decisions.items():
        one = held.get(function)
        value: Decimal | object = decision.value
        if one is None or one.decision.value != value:
            found.append(Decided(function.value, shown(decision.value), decision.source, "pending", None, None))
            continue
        found.append(
            Decided(
                function.value,
                shown(decision.value),
                decision.source,
                one.outcome.value,
                one.renew_us // 1000,
                one.reverted_us // 1000,
            )
        )
    return found
