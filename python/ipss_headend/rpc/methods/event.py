"""`event.*`: what sessions and the head-end noticed."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, select

from ipss_headend.errors import RequestError
from ipss_headend.field.reactor import EventKind
from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import Change, Params, Result, method
from ipss_headend.security.permission import Right
from ipss_headend.store.database import now_us
from ipss_headend.store.schema import event_acknowledgements, events
from ipss_headend.store.statements import run

LONGEST_PAGE = 1000
MOST_LOOKED_AT = 20_000
"""Rows of one page, seen by the caller or not: a page may be short, and go on at its cursor."""


class Query(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which events."""

    device: str | None = None
    kinds: list[str] = []  # noqa: RUF012 - msgspec copies it
    """Names such as `tag-invalid`; none: all."""
    from_ms: int | None = None
    to_ms: int | None = None
    open_only: bool = False
    """Only those that nobody has acknowledged."""
    cursor: int = 0
    limit: int = 100


class Event(msgspec.Struct, frozen=True):
    """One event."""

    event: int
    device: str | None
    """None: of no meter that is known."""
    at_ms: int
    kind: str
    number: int
    detail: str
    acknowledged_by: str | None
    acknowledged_ms: int | None


class Events(Result, frozen=True):
    """A page; `cursor` gives the next, None: that was the last."""

    events: list[Event]
    cursor: int | None


class Acknowledge(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Events that somebody has seen to."""

    events: list[int]


class Acknowledged(Result, frozen=True):
    """How many were not acknowledged before."""

    acknowledged: int


@method("event.query", Right.VIEW, example={"kinds": ["tag-invalid"], "limit": 10})
async def query(call: Call, params: Query) -> Events:
    """Events in the order in which they were stored, of the meters that the caller may see."""
    services = call.services
    limit = min(max(params.limit, 1), LONGEST_PAGE)
    selected = (
        select(events, event_acknowledgements.c.principal, event_acknowledgements.c.at_us)
        .join(event_acknowledgements, events.c.event_id == event_acknowledgements.c.event_id, isouter=True)
        .where(events.c.event_id > params.cursor)
        .order_by(events.c.event_id)
        .limit(MOST_LOOKED_AT)
    )
    if params.device is not None:
        selected = selected.where(events.c.meter_id == call.meter(params.device, Right.VIEW).meter_id)
    if params.kinds:
        selected = selected.where(events.c.kind.in_([_number(name) for name in params.kinds]))
    if params.from_ms is not None:
        selected = selected.where(events.c.at_us >= params.from_ms * 1000)
    if params.to_ms is not None:
        selected = selected.where(events.c.at_us < params.to_ms * 1000)
    if params.open_only:
        selected = selected.where(event_acknowledgements.c.event_id.is_(None))
    meters, who = services.field.meters, call.principal

    def read(connection: Connection) -> Events:
        found: list[Event] = []
        looked = event_id = 0
        for event_id, meter_id, at_us, kind, number, detail, principal, acknowledged_us in connection.execute(selected):
            looked += 1
            meter = meters.get(meter_id)
            if not who.may(Right.VIEW, "" if meter is None else meter.group):
                continue
            if len(found) == limit:
                return Events(events=found, cursor=found[-1].event)
            found.append(
                Event(
                    event_id,
                    None if meter is None else meter.name,
                    at_us // 1000,
                    EventKind(kind).label,
                    number,
                    detail,
                    principal,
                    None if acknowledged_us is None else acknowledged_us // 1000,
                )
            )
        return Events(events=found, cursor=event_id if looked == MOST_LOOKED_AT else None)

    return await services.store.read(read)


@method("event.ack", Right.OPERATE, example={"events": [1, 2], "key": "shift-17-ack-1"})
async def ack(call: Call, params: Acknowledge) -> Acknowledged:
    """Write down that somebody has seen to these events; those of meters outside the caller's scope are passed over."""
    rows = [
        {"event_id": event, "principal": call.principal.name, "at_us": now_us()}
        for event in dict.fromkeys(params.events[:LONGEST_PAGE])
    ]
    if not rows:
        return Acknowledged(acknowledged=0)

    meters, who = call.services.field.meters, call.principal

    def write(connection: Connection) -> int:
        stored = connection.execute(
            select(events.c.event_id, events.c.meter_id).where(events.c.event_id.in_([row["event_id"] for row in rows]))
        )
        known = {
            event_id
            for event_id, meter_id in stored
            if who.may(Right.OPERATE, meters[meter_id].group if meter_id in meters else "")
        }
        found = [row for row in rows if row["event_id"] in known]
        if not found:
            return 0
        return run(connection, _ACKNOWLEDGE, [tuple(row.values()) for row in found]).rowcount

    return Acknowledged(acknowledged=await call.services.store.change(write))


_ACKNOWLEDGE = "INSERT INTO event_acknowledgements (event_id, principal, at_us) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"


def _number(name: str) -> int:
    for kind in EventKind:
        if kind.label == name:
            return int(kind)
    raise RequestError(f'kinds: no event is called "{name}"; there are {", ".join(kind.label for kind in EventKind)}')
