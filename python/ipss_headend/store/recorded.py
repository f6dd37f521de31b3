"""What was recorded of plugins within a stretch of the log, for a replay to be compared with. Reads only."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack
from sqlalchemy import Connection, func, select

from ipss_headend.store.incidents import ClassRow, Incident, incident_of
from ipss_headend.store.log import ends
from ipss_headend.store.plugins import EstimateRow
from ipss_headend.store.schema import (
    estimates,
    event_classes,
    incidents,
    log,
    plugin_cursors,
    plugin_effects,
    reading_flags,
)

_CHUNK = 500


class Stretch(NamedTuple):
    """A part of the log."""

    after: int
    """The cursor before it."""
    last: int
    """The number of its last entry; `after` where it has none."""
    since_us: int
    """When its first entry was written."""
    until_us: int
    """When its last one was."""


def stretch(
    connection: Connection,
    *,
    since_us: int | None = None,
    until_us: int | None = None,
    from_cursor: int | None = None,
    to_cursor: int | None = None,
) -> Stretch:
    """The entries written within [since, until) and numbered behind `from_cursor`, up to `to_cursor`."""
    first, newest = ends(connection)
    after, last = first, newest
    if since_us is not None:
        found = connection.scalar(select(func.min(log.c.sequence)).where(log.c.at_us >= since_us))
        after = newest if found is None else found - 1
    if until_us is not None:
        last = connection.scalar(select(func.max(log.c.sequence)).where(log.c.at_us < until_us)) or first
    after = max(after, from_cursor or 0)
    last = max(after, last if to_cursor is None else min(last, to_cursor))
    within = (log.c.sequence > after) & (log.c.sequence <= last)
    begins, over = connection.execute(select(func.min(log.c.at_us), func.max(log.c.at_us)).where(within)).one()
    return Stretch(after, last, begins or 0, over or 0)


def effects(connection: Connection, plugin: str, keys: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """The effects of a plugin with these keys: kind and content."""
    found: dict[str, tuple[str, Any]] = {}
    chosen = select(plugin_effects.c.key, plugin_effects.c.kind, plugin_effects.c.content)
    for start in range(0, len(keys), _CHUNK):
        part = keys[start : start + _CHUNK]
        of_these = (plugin_effects.c.plugin == plugin) & plugin_effects.c.key.in_(part)
        for key, kind, content in connection.execute(chosen.where(of_these)):
            found[key] = kind, msgpack.unpackb(content)
    return found


def effects_of(connection: Connection, plugin: str, part: Stretch) -> list[tuple[str, str, Any]]:
    """What was kept of a plugin's effects from the first entry of a stretch on, and before an entry came behind it.

    By key: key, kind, content. What the plugin emitted later, as it was behind, is not among them.
    """
    following_us = connection.scalar(select(func.min(log.c.at_us)).where(log.c.sequence > part.last))
    chosen = select(plugin_effects.c.key, plugin_effects.c.kind, plugin_effects.c.content).where(
        plugin_effects.c.plugin == plugin, plugin_effects.c.at_us >= part.since_us
    )
    if following_us is not None:
        chosen = chosen.where(plugin_effects.c.at_us < following_us)
    rows = connection.execute(chosen.order_by(plugin_effects.c.key))
    return [(key, kind, msgpack.unpackb(content)) for key, kind, content in rows]


def flags(
    connection: Connection, meter_id: int, layout_id: int, first_us: int, last_us: int
) -> dict[tuple[int, int], int]:
    """The flags of one profile's lines between these capture times, both within: by place and time."""
    table = reading_flags.c
    chosen = select(table.place, table.capture_time_us, table.flags).where(
        table.meter_id == meter_id, table.layout_id == layout_id,
        table.capture_time_us >= first_us, table.capture_time_us <= last_us,
    )  # fmt: skip
    return {(place, at_us): word for place, at_us, word in connection.execute(chosen)}


def missing(connection: Connection, meter_id: int, layout_id: int, first_us: int, last_us: int) -> list[EstimateRow]:
    """The intervals of one profile that were noted as missing, between these times, with their estimates."""
    table = estimates.c
    chosen = select(estimates).where(
        table.meter_id == meter_id, table.layout_id == layout_id,
        table.capture_time_us >= first_us, table.capture_time_us <= last_us,
    )  # fmt: skip
    return [EstimateRow(*row) for row in connection.execute(chosen.order_by(table.place, table.capture_time_us))]


def event_names(connection: Connection, plugin: str, meter_id: int, first_us: int, last_us: int) -> list[ClassRow]:
    """What a plugin said that a meter's codes between these times mean."""
    table = event_classes.c
    chosen = select(event_classes).where(
        table.meter_id == meter_id, table.at_us >= first_us, table.at_us <= last_us, table.said_by == plugin
    )
    return [ClassRow(*row) for row in connection.execute(chosen)]


def incidents_opened(connection: Connection, since_us: int, until_us: int, after: int, limit: int) -> list[Incident]:
    """Incidents behind a number that opened between these times and were classified, in order."""
    chosen = select(incidents).where(
        incidents.c.opened_us >= since_us, incidents.c.opened_us <= until_us,
        incidents.c.incident_id > after, incidents.c.classes.is_not(None),
    )  # fmt: skip
    rows = connection.execute(chosen.order_by(incidents.c.incident_id).limit(limit))
    return [incident_of(row) for row in rows]


def readers(connection: Connection) -> dict[str, int]:
    """All plugins' cursors by their names."""
    rows = connection.execute(select(plugin_cursors.c.plugin, plugin_cursors.c.sequence))
    return {plugin: sequence for plugin, sequence in rows}  # noqa: C416 - rows are no pairs to a type checker
