"""What the methods of `control.*` share: orders made of params, who signs, what is told of orders."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sqlalchemy import Connection

from ipss_headend.field.control import orders
from ipss_headend.field.control.desk import Desk, Refused, kept
from ipss_headend.field.control.orders import Order, RegisterWrite
from ipss_headend.field.der.critical import Meaning
from ipss_headend.field.der.setpoints import Function
from ipss_headend.rpc.call import Call
from ipss_headend.rpc.faults import Fault
from ipss_headend.rpc.methods.control_shapes import (
    Asking,
    Command,
    OrderTold,
    Preview,
    WantedKeys,
    WantedLimit,
    WantedTariff,
)
from ipss_headend.security import principals
from ipss_headend.security.permission import Right
from ipss_headend.store import commands as rows
from ipss_headend.store.commands import OrderRow
from ipss_headend.store.database import now_us

if TYPE_CHECKING:
    from ipss_headend.field.fleet import FleetMeter

T = TypeVar("T")

LONGEST_PAGE = 1000

MOST_DEVICES = 25
"""Inverters and storage of one order: each is asked how it is laid out."""

FEW = 25
DAY_S = 24 * 3600
"""New keys of a few meters may take a day, of more, which change in rings, a week."""


def desk_of(call: Call) -> Desk:
    """The desk, with the people of the configuration."""
    config = call.services.config
    return Desk(config.control, config.principals, config.rollout)


async def changed(call: Call, work: Callable[[Connection], T]) -> T:
    """Do it in one durable transaction; what is refused aloud stays in the audit trail."""
    found = await call.services.store.change(kept(work), spend_reserve=True)
    call.services.written()
    if isinstance(found, Refused):
        raise found
    return found


def principal_of(call: Call, wanted: str) -> principals.Principal:
    """Who of the configuration signs: the caller, by name.

    By the unix socket come those who could use the command line as well: there the signature alone says who it is.
    """
    own = call.principal.name
    local = call.session.peer == "local" and own.startswith("local:")
    name = wanted or (own.removeprefix("local:") if local else own)
    if name != own and not local:
        raise Fault("E_DENIED", f"you are {own}, and sign as nobody else")
    found = next((one for one in call.services.config.principals if one.name == name), None)
    if found is None:
        raise Fault("E_DENIED", f'the configuration has no [[principals]] called "{name}"')
    return found


async def made(call: Call, params: Asking, requester: str) -> Order:
    """The order that is asked for. The same params make the same order, as long as a device stays as it is.

    Raises:
        Fault: it cannot be made of these.
        MeterError: a device did not answer.
    """
    meters = targets_of(call, params.targets)
    new_keys = isinstance(params, WantedKeys) or bool(getattr(params, "new_keys", False))
    life_s = params.not_after_s
    if life_s is None and new_keys:
        life_s = DAY_S if len(meters) <= FEW else 7 * DAY_S
    elif life_s is None:
        life_s = call.services.config.control.not_after_s
    common: dict[str, Any] = {
        "reason": params.reason,
        "requester": requester,
        "created_us": now_us() // 1000 * 1000 if params.created_ms is None else params.created_ms * 1000,
        "life_s": life_s,
        "order_id": None if params.order is None else uuid_of(params.order),
    }
    to: Literal["on", "off", "arm"] | None = getattr(params, "to", None)
    limit = params if isinstance(params, WantedLimit) else None
    tariff = isinstance(params, WantedTariff) or bool(getattr(params, "tariff", False))
    limits = limit is not None and (limit.release or limit.watts is not None or limit.percent is not None)
    if (to is not None) + limits + tariff + new_keys != 1:
        raise Fault(
            "E_PARAMS", "one thing is asked for: supply (to), a limit (watts, percent, release), tariff, or new_keys"
        )
    chosen = [(meter.meter_id, meter.identity) for meter in meters]
    if not any(meter.protocol.is_modbus for meter in meters):
        if to is not None:
            return orders.switch(to, chosen, **common)
        if tariff:
            return orders.tariff(chosen, **common)
        if new_keys:
            return orders.change_keys(chosen, **common)
        assert limit is not None
        return orders.limit(_threshold(limit), chosen, **common)
    if new_keys:
        raise Fault("E_PARAMS", "targets: an inverter or a storage has no keys of ours")
    if not all(meter.protocol.is_modbus for meter in meters):
        raise Fault("E_PARAMS", "targets: meters, or inverters and storage; not both in one order")
    revert_s = getattr(params, "revert_s", None)
    meaning = _meaning(to, limit, revert_s)
    write = await _write(call, meters, meaning)
    return orders.order(meaning.kind, write, meaning.text(), chosen, **common)


def _threshold(limit: WantedLimit) -> int | None:
    if limit.percent is not None or (limit.watts is not None) == limit.release:
        raise Fault("E_PARAMS", "a meter's limiter takes watts, or release")
    if limit.watts is None:
        return None
    threshold = Decimal(limit.watts).scaleb(-limit.scaler)
    if threshold != int(threshold):
        raise Fault("E_PARAMS", f"watts: {limit.watts} is no whole number of 10^{limit.scaler} W")
    return int(threshold)


def _meaning(to: str | None, limit: WantedLimit | None, revert_s: int | None) -> Meaning:
    """What is asked of an inverter or a storage."""
    if to == "on":
        return Meaning(Function.CONNECT, Decimal(1))
    if limit is not None and limit.release and limit.percent is None and limit.watts is None:
        return Meaning(Function.ACTIVE_POWER_LIMIT, None)
    if to != "off" and (limit is None or limit.percent is None or limit.release or limit.watts is not None):
        raise Fault("E_PARAMS", "an inverter or a storage is switched on or off, or takes percent, or release")
    if revert_s is None:
        raise Fault("E_PARAMS", "revert_s: after how long does it go back by itself? 0: it does not")
    if to == "off":
        return Meaning(Function.CONNECT, Decimal(0), revert_s)
    assert limit is not None
    try:
        percent = Decimal(limit.percent or "")
    except InvalidOperation:
        raise Fault("E_PARAMS", f'percent: "{limit.percent}" is no decimal number') from None
    if not percent.is_finite():
        raise Fault("E_PARAMS", f"percent: {percent} is not in 0 to 100")
    return Meaning(Function.ACTIVE_POWER_LIMIT, percent, revert_s)


async def _write(call: Call, meters: list[FleetMeter], meaning: Meaning) -> RegisterWrite:
    """The one write that means this to all of these."""
    found: dict[RegisterWrite, str] = {}
    for meter in meters[:MOST_DEVICES]:
        write = await call.services.set_points.ordered(meter, meaning)
        found.setdefault(write, meter.name)
    if len(meters) > MOST_DEVICES:
        raise Fault("E_PARAMS", f"targets: an order is for at most {MOST_DEVICES} inverters and storage")
    if len(found) > 1:
        names = ", ".join(found.values())
        raise Fault("E_PARAMS", f"targets: these are laid out differently and take an order each: {names}")
    return next(iter(found))


def targets_of(call: Call, words: list[str]) -> list[FleetMeter]:
    """The meters that these words name, each once."""
    found: dict[int, FleetMeter] = {}
    for word in words:
        if not word.startswith("group:"):
            meter = call.meter(word, Right.PROPOSE)
            found[meter.meter_id] = meter
            continue
        group = word.removeprefix("group:")
        members = [meter for meter in call.services.names.values() if meter.group == group]
        if not members or not call.principal.may(Right.PROPOSE, group):
            raise Fault("E_UNKNOWN", f'no meter is in the group "{group}"')
        found.update((meter.meter_id, meter) for meter in members)
    return list(found.values())


def preview_of(desk: Desk, connection: Connection, made: Order) -> Preview:
    """What an order would do."""
    found = desk.preview(connection, made)
    return Preview(
        kind=found.kind,
        effect=found.effect,
        expected=found.expected,
        meters=found.meters,
        groups=found.groups,
        protected=list(found.protected),
        over_budget=found.over_budget,
        approvers=found.approvers,
        spread_s=int(found.spread_s),
        not_after_ms=found.not_after_us // 1000,
        rings=list(found.rings),
    )


def whole_order(call: Call, connection: Connection, text: str) -> tuple[OrderRow, Order]:
    """An order all of whose meters are in the caller's scope: nobody signs, or stops, what he does not see."""
    row = rows.order_of(connection, uuid_of(text))
    if row is None:
        raise unknown(text)
    made = Order.decode(row.octets)
    names = rows.groups_of(connection, [target.meter_id for target in made.targets])
    if not all(call.reaches(names.get(target.meter_id, ("", ""))[1]) for target in made.targets):
        raise unknown(text)
    return row, made


def seen_of(call: Call, connection: Connection, order_id: bytes) -> list[rows.CommandRow]:
    """An order's commands, those to meters in the caller's scope."""
    found = rows.commands_of(connection, order_id)
    names = rows.groups_of(connection, [one.meter_id for one in found])
    return [one for one in found if call.reaches(names.get(one.meter_id, ("", ""))[1])]


def told(row: OrderRow, made: Order, seen: list[rows.CommandRow]) -> OrderTold:
    """An order, as far as its commands are seen."""
    return OrderTold(
        order=orders.shown(row.order_id),
        kind=row.kind,
        requester=row.requester,
        reason=made.reason,
        created_ms=row.created_us // 1000,
        not_after_ms=row.not_after_us // 1000,
        states=dict(Counter(one.state for one in seen)),
    )


def command_of(call: Call, one: rows.CommandRow) -> Command:
    """A command, for the caller."""
    meter = call.services.field.meters.get(one.meter_id)
    return Command(
        command=orders.shown(one.command_id),
        point=None if meter is None else meter.name,
        state=one.state,
        detail=one.detail,
        changed_ms=one.changed_us // 1000,
        quarantined=bool(one.quarantined),
        alarmed=bool(one.alarmed),
    )


def unknown(text: str) -> Fault:
    """There is no such order or command, as far as the caller may know."""
    return Fault("E_UNKNOWN", f"there is no order or command {text}; control.list shows those that you may see")


def uuid_of(text: str) -> bytes:
    """The number that a UUID writes."""
    try:
        return uuid.UUID(text).bytes
    except ValueError:
        raise Fault("E_PARAMS", f'"{text[:80]}" is no UUID') from None


def octets_of(text: str) -> bytes:
    """A signature."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Fault("E_PARAMS", "signature: not hexadecimal digits") from None
