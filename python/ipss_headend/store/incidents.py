"""Incidents: signals of one area that belong together, and what plugins say that it is."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgpack
from sqlalchemy import Connection, Row, insert, select, update

from ipss_headend.store.schema import event_classes, incidents
from ipss_headend.store.statements import run

MOST_SIGNALS = 1000
"""Kept of one incident; the rest is counted."""


class Signal(NamedTuple):
    """What one meter said, or was seen to do."""

    meter: str
    kind: str
    at_us: int
    detail: str


class Incident(NamedTuple):
    """One incident."""

    incident_id: int
    area: str
    opened_us: int
    changed_us: int
    """The moment of its latest signal."""
    closed: bool
    signals: list[Signal]
    dropped: int
    """Signals beyond those that are kept."""
    classes: list[dict[str, Any]] | None
    """None: no plugin was asked since it changed."""


class ClassRow(NamedTuple):
    """What a plugin said that a maker's event code means."""

    meter_id: int
    at_us: int
    code: int
    source: str
    name: str
    severity: int
    said_by: str


def take(connection: Connection, area: str, signals: Sequence[Signal], quiet_us: int, *, opens: Sequence[bool]) -> None:
    """Add signals of an area to the open incident that each is near to, or to a new one where a signal `opens` one."""
    chosen = select(incidents).where(incidents.c.closed == 0, incidents.c.area == area)
    found = [incident_of(row) for row in connection.execute(chosen)]
    changed: set[int] = set()
    for signal, opening in zip(signals, opens, strict=True):
        near = next(
            (
                place
                for place, one in enumerate(found)
                if one.opened_us - quiet_us <= signal.at_us <= one.changed_us + quiet_us
            ),
            None,
        )
        if near is None:
            if not opening:
                continue
            found.append(
                Incident(0, area, signal.at_us, signal.at_us, closed=False, signals=[], dropped=0, classes=None)
            )
            near = len(found) - 1
        one = found[near]
        full = len(one.signals) >= MOST_SIGNALS
        if not full:
            one.signals.append(signal)
        found[near] = one._replace(
            opened_us=min(one.opened_us, signal.at_us),
            changed_us=max(one.changed_us, signal.at_us),
            dropped=one.dropped + full,
        )
        changed.add(near)
    for near in changed:
        one = found[near]
        values = {
            "area": area,
            "opened_us": one.opened_us,
            "changed_us": one.changed_us,
            "closed": 0,
            "signals": msgpack.packb([list(signal) for signal in one.signals]),
            "dropped": one.dropped,
            "classes": None,
        }
        if one.incident_id:
            connection.execute(update(incidents).where(incidents.c.incident_id == one.incident_id).values(values))
        else:
            connection.execute(insert(incidents).values(values))


def close(connection: Connection, before_us: int) -> int:
    """Close the incidents without a signal since then. Returns how many are open still."""
    quiet = (incidents.c.closed == 0) & (incidents.c.changed_us < before_us) & incidents.c.classes.is_not(None)
    connection.execute(update(incidents).where(quiet).values(closed=1))
    return len(connection.execute(select(incidents.c.incident_id).where(incidents.c.closed == 0)).all())


def unclassified(connection: Connection, limit: int) -> list[Incident]:
    """Incidents that changed since plugins were asked."""
    chosen = select(incidents).where(incidents.c.closed == 0, incidents.c.classes.is_(None))
    return [incident_of(row) for row in connection.execute(chosen.order_by(incidents.c.incident_id).limit(limit))]


def classify(connection: Connection, incident: Incident, classes: Sequence[dict[str, Any]]) -> None:
    """Keep what plugins said, unless the incident changed meanwhile."""
    same = (incidents.c.incident_id == incident.incident_id) & (incidents.c.changed_us == incident.changed_us)
    connection.execute(update(incidents).where(same).values(classes=msgpack.packb(list(classes))))


def named(connection: Connection, rows: Iterable[ClassRow]) -> None:
    """Keep what codes mean; the first word on a code of a meter and moment stands."""
    for row in rows:
        run(connection, _NAMED, tuple(row))


def names(connection: Connection, meter_id: int, from_us: int, until_us: int) -> list[ClassRow]:
    """What a meter's event codes within [from, until) mean."""
    chosen = select(event_classes).where(
        event_classes.c.meter_id == meter_id, event_classes.c.at_us >= from_us, event_classes.c.at_us < until_us
    )
    return [ClassRow(*row) for row in connection.execute(chosen.order_by(event_classes.c.at_us))]


def page(
    connection: Connection, after: int, limit: int, *, open_only: bool, areas: Sequence[str] | None
) -> list[Incident]:
    """Incidents behind this number, in order; None: of all areas."""
    chosen = select(incidents).where(incidents.c.incident_id > after)
    if open_only:
        chosen = chosen.where(incidents.c.closed == 0)
    if areas is not None:
        chosen = chosen.where(incidents.c.area.in_(areas))
    return [incident_of(row) for row in connection.execute(chosen.order_by(incidents.c.incident_id).limit(limit))]


def get(connection: Connection, incident_id: int) -> Incident | None:
    """The incident of this number."""
    row = connection.execute(select(incidents).where(incidents.c.incident_id == incident_id)).one_or_none()
    return None if row is None else incident_of(row)


def incident_of(row: Row[Any]) -> Incident:
    """A row of the table."""
    signals = [Signal(*signal) for signal in msgpack.unpackb(row.signals)]
    classes = None if row.classes is None else msgpack.unpackb(row.classes)
    return Incident(
        row.incident_id, row.area, row.opened_us, row.changed_us, bool(row.closed), signals, row.dropped, classes
    )


_NAMED = (
    "INSERT INTO event_classes (meter_id, at_us, code, source, name, severity, said_by) VALUES (?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (meter_id, at_us, code, source) DO NOTHING"
)
