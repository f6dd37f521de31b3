"""`anomaly.*`: incidents, the signals that they are made of, and what plugins say that they are."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection

from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import Params, Result, method
from ipss_headend.rpc.faults import Fault
from ipss_headend.security.permission import Right
from ipss_headend.store import incidents as rows
from ipss_headend.store.incidents import Incident

LONGEST_PAGE = 1000


class Query(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which incidents."""

    open_only: bool = False
    """Only those that still take signals."""
    cursor: int = 0
    limit: int = 100


class Named(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An incident."""

    incident: int


class Codes(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Event codes of a meter, from `from_ms` to before `to_ms`."""

    device: str
    from_ms: int
    to_ms: int


class Class(msgspec.Struct, frozen=True):
    """What an incident is, with a probability of so many in a million."""

    name: str
    probability_ppm: int
    severity: int
    """0 for information to 4 for danger."""
    evidence: list[str]


class Told(msgspec.Struct, frozen=True):
    """One incident."""

    incident: int
    area: str
    """The node of the network that feeds its meters, the line that they share, or their group."""
    area_kind: str
    """`transformer`, `feeder`, ... (docs/network.md), `line`, or `group`."""
    part_of: int | None
    """The larger incident that took it in."""
    opened_ms: int
    changed_ms: int
    open: bool
    meters: int
    signals: int
    classes: list[Class] | None
    """The most probable first; None: no plugin was asked yet."""


class Incidents(Result, frozen=True):
    """A page; `cursor` gives the next, None: that was the last."""

    incidents: list[Told]
    cursor: int | None


class Signal(msgspec.Struct, frozen=True):
    """What one meter said, or was seen to do."""

    point: str
    kind: str
    at_ms: int
    detail: str


class Whole(Result, frozen=True):
    """An incident with its signals."""

    incident: Told
    signals: list[Signal]
    dropped: int
    """Signals beyond those that are kept."""


class Meaning(msgspec.Struct, frozen=True):
    """What a code means, by a plugin's word."""

    at_ms: int
    code: int
    source: str
    """The event log, or `push`."""
    name: str
    severity: int
    said_by: str


class Meanings(Result, frozen=True):
    """By time."""

    codes: list[Meaning]


@method("anomaly.list", Right.VIEW, example={"open_only": True})
async def list_(call: Call, params: Query) -> Incidents:
    """Incidents with meters that the caller may see, in the order in which they were opened.

    Whoever has a scope sees of an incident what its own meters say.
    """
    limit = min(max(params.limit, 1), LONGEST_PAGE)

    def pages(connection: Connection) -> list[Incident]:
        seen: list[Incident] = []
        after = params.cursor
        while len(seen) <= limit:
            page = rows.page(connection, after, limit + 1, open_only=params.open_only)
            seen += [one for one in (_seen(call, one) for one in page) if one is not None]
            if len(page) <= limit:
                break
            after = page[-1].incident_id
        return seen

    found = await call.services.store.read(pages)
    return Incidents(
        incidents=[_told(one) for one in found[:limit]],
        cursor=found[limit - 1].incident_id if len(found) > limit else None,
    )


@method("anomaly.get", Right.VIEW)
async def get(call: Call, params: Named) -> Whole:
    """One incident with its signals."""
    found = await call.services.store.read(lambda connection: rows.get(connection, params.incident))
    found = None if found is None else _seen(call, found)
    if found is None:
        raise Fault("E_UNKNOWN", f"there is no incident {params.incident}; anomaly.list shows those that you may see")
    return Whole(
        incident=_told(found),
        signals=[Signal(one.meter, one.kind, one.at_us // 1000, one.detail) for one in found.signals],
        dropped=found.dropped,
    )


@method("anomaly.codes", Right.VIEW, example={"device": "virtual-00001", "from_ms": 0, "to_ms": 4102444800000})
async def codes(call: Call, params: Codes) -> Meanings:
    """What plugins said that a meter's own event codes mean."""
    meter = call.meter(params.device, Right.VIEW)
    found = await call.services.store.read(
        lambda connection: rows.names(connection, meter.meter_id, params.from_ms * 1000, params.to_ms * 1000)
    )
    return Meanings(
        codes=[Meaning(one.at_us // 1000, one.code, one.source, one.name, one.severity, one.said_by) for one in found]
    )


def _seen(call: Call, one: Incident) -> Incident | None:
    """An incident as far as the caller may see it; None: not at all."""
    if call.principal.everywhere(Right.VIEW):
        return one
    names = call.services.names
    hidden = {
        signal.meter
        for signal in one.signals
        if (meter := names.get(signal.meter)) is None or not call.reaches(meter.group)
    }
    signals = [signal for signal in one.signals if signal.meter not in hidden]
    if not signals and not (one.area_kind == rows.GROUP and call.reaches(one.area)):
        return None
    classes = one.classes and [
        {**said, "evidence": [words for words in said["evidence"] if words not in hidden]} for said in one.classes
    ]
    return one._replace(signals=signals, dropped=0 if hidden else one.dropped, classes=classes)


def _told(one: Incident) -> Told:
    return Told(
        one.incident_id,
        one.area,
        one.area_kind,
        one.part_of,
        one.opened_us // 1000,
        one.changed_us // 1000,
        not one.closed,
        len({signal.meter for signal in one.signals}),
        len(one.signals) + one.dropped,
        None if one.classes is None else [_class(said) for said in one.classes],
    )


def _class(said: dict[str, Any]) -> Class:
    probability = min(max(float(said["probability"]), 0.0), 1.0)
    return Class(said["name"], round(probability * 1_000_000), said["severity"], said["evidence"])
