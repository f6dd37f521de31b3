"""Incidents: signals of one area that belong together, and what plugins say that it is."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgpack
from sqlalchemy import Connection, Row, insert, select, update

from ipss_headend.store.schema import event_classes, incidents
from ipss_headend.store.statements import run

GROUP, LINE = "group", "line"
"""Kinds of areas beside the kinds of nodes of the network."""
MOST_SIGNALS = 1000
"""Kept of one incident; the rest is counted."""


class Signal(NamedTuple):
    """What one meter said, or was seen to do."""

    meter: str
    kind: str
    at_us: int
    detail: str


class Area(NamedTuple):
    """Where signals belong together."""

    kind: str
    """`group` of meters, shared `line`, or the kind of a node of the network."""
    name: str


class Filed(NamedTuple):
    """A signal on its way into an incident."""

    signal: Signal
    opens: bool
    """It opens an incident where none is near; otherwise it only joins one."""
    areas: tuple[Area, ...]
    """Where it belongs, the nearest first: there it opens one."""


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
    area_kind: str = GROUP
    part_of: int | None = None
    """The larger incident that took it in."""


class ClassRow(NamedTuple):
    """What a plugin said that a maker's event code means."""

    meter_id: int
    at_us: int
    code: int
    source: str
    name: str
    severity: int
    said_by: str


def take(connection: Connection, filed: Sequence[Filed], quiet_us: int) -> None:
    """Add signals to the open incident of their areas that each is near to, or to a new one where it opens one."""
    found: dict[Area, list[Incident]] = {}
    for one in _open_in(connection, {area.name for each in filed for area in each.areas}):
        found.setdefault(_area(one), []).append(one)
    changed: dict[Area, set[int]] = {}
    for signal, opening, areas in filed:
        near = next(
            (
                (area, place)
                for area in areas
                for place, one in enumerate(found.get(area, ()))
                if one.opened_us - quiet_us <= signal.at_us <= one.changed_us + quiet_us
            ),
            None,
        )
        if near is None:
            if not opening:
                continue
            there = found.setdefault(areas[0], [])
            there.append(_new(areas[0], signal.at_us))
            near = areas[0], len(there) - 1
        area, place = near
        one = found[area][place]
        full = len(one.signals) >= MOST_SIGNALS
        if not full:
            one.signals.append(signal)
        found[area][place] = one._replace(
            opened_us=min(one.opened_us, signal.at_us),
            changed_us=max(one.changed_us, signal.at_us),
            dropped=one.dropped + full,
        )
        changed.setdefault(area, set()).add(place)
    for area, places in changed.items():
        for place in sorted(places):
            _write(connection, found[area][place])


def unite(connection: Connection, area: Area, numbers: Sequence[int]) -> None:
    """Make open incidents one, of this area: the first of them. The others are closed as its parts."""
    chosen = select(incidents).where(incidents.c.incident_id.in_(numbers), incidents.c.closed == 0)
    found = [incident_of(row) for row in connection.execute(chosen.order_by(incidents.c.incident_id))]
    if not found:
        return
    first, *parts = found
    signals = sorted((signal for one in found for signal in one.signals), key=lambda one: one.at_us)
    _write(
        connection,
        first._replace(
            area=area.name,
            area_kind=area.kind,
            opened_us=min(one.opened_us for one in found),
            changed_us=max(one.changed_us for one in found),
            signals=signals[:MOST_SIGNALS],
            dropped=sum(one.dropped for one in found) + max(len(signals) - MOST_SIGNALS, 0),
        ),
    )
    for one in parts:
        own = (incidents.c.incident_id == one.incident_id) | (incidents.c.part_of == one.incident_id)
        connection.execute(update(incidents).where(own).values(closed=1, part_of=first.incident_id))


def open_below(connection: Connection) -> list[Incident]:
    """The open incidents whose area is no group."""
    chosen = select(incidents).where(incidents.c.closed == 0, incidents.c.area_kind != GROUP)
    return [incident_of(row) for row in connection.execute(chosen.order_by(incidents.c.incident_id))]


def _open_in(connection: Connection, names: Iterable[str]) -> list[Incident]:
    wanted = sorted(names)
    found = []
    for start in range(0, len(wanted), _CHUNK):
        chosen = select(incidents).where(incidents.c.closed == 0, incidents.c.area.in_(wanted[start : start + _CHUNK]))
        found += [incident_of(row) for row in connection.execute(chosen.order_by(incidents.c.incident_id))]
    return found


def _area(one: Incident) -> Area:
    return Area(one.area_kind, one.area)


def _new(area: Area, at_us: int) -> Incident:
    return Incident(0, area.name, at_us, at_us, closed=False, signals=[], dropped=0, classes=None, area_kind=area.kind)


def _write(connection: Connection, one: Incident) -> None:
    """Keep an incident that changed: plugins are asked about it anew."""
    values = {
        "area": one.area,
        "area_kind": one.area_kind,
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


def page(connection: Connection, after: int, limit: int, *, open_only: bool) -> list[Incident]:
    """Incidents behind this number, in order."""
    chosen = select(incidents).where(incidents.c.incident_id > after)
    if open_only:
        chosen = chosen.where(incidents.c.closed == 0)
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
        row.incident_id, row.area, row.opened_us, row.changed_us, bool(row.closed), signals, row.dropped, classes,
        row.area_kind, row.part_of,
    )  # fmt: skip


_CHUNK = 500
_NAMED = (
    "INSERT INTO event_classes (meter_id, at_us, code, source, name, severity, said_by) VALUES (?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (meter_id, at_us, code, source) DO NOTHING"
)
