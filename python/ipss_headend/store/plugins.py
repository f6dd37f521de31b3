"""What plugins leave: how far each has read the log, what it emitted, and the flags of readings."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgpack
from sqlalchemy import Connection, select

from ipss_headend.store.database import now_us
from ipss_headend.store.schema import plugin_cursors, plugin_effects, reading_flags


class FlagRow(NamedTuple):
    """Flags of one column of a line."""

    meter_id: int
    layout_id: int
    place: int
    capture_time_us: int
    flags: int


def cursor(connection: Connection, plugin: str) -> int | None:
    """The last entry of the log that the plugin has dealt with; None: it has never read."""
    return connection.scalar(select(plugin_cursors.c.sequence).where(plugin_cursors.c.plugin == plugin))


def advance(connection: Connection, plugin: str, sequence: int, effects: Iterable[tuple[str, str, Any]] = ()) -> int:
    """Move the cursor and keep what was emitted (key, kind, content) with it, all or nothing.

    Returns how many of the effects are new: a key that is there stays as it is.
    """
    added = keep(connection, plugin, effects)
    connection.exec_driver_sql(_ADVANCE, (plugin, sequence, now_us()))
    return added


def keep(connection: Connection, plugin: str, effects: Iterable[tuple[str, str, Any]]) -> int:
    """Keep effects once for each key. Returns how many are new."""
    rows = [(plugin, key, kind, msgpack.packb(content), now_us()) for key, kind, content in effects]
    return sum(connection.exec_driver_sql(_KEEP, row).rowcount for row in rows)


def effects(connection: Connection, plugin: str) -> Iterator[tuple[str, str, Any]]:
    """What a plugin emitted, by key: (key, kind, content)."""
    chosen = select(plugin_effects.c.key, plugin_effects.c.kind, plugin_effects.c.content)
    for key, kind, content in connection.execute(
        chosen.where(plugin_effects.c.plugin == plugin).order_by(plugin_effects.c.key)
    ):
        yield key, kind, msgpack.unpackb(content)


def flag(connection: Connection, rows: Sequence[FlagRow]) -> None:
    """Add flags to readings."""
    if rows:
        at_us = now_us()
        connection.exec_driver_sql(_FLAG, [(*row, at_us) for row in rows])


def flags(connection: Connection, meter_id: int, from_us: int, until_us: int) -> list[FlagRow]:
    """The flags of a meter's readings within [from, until)."""
    table = reading_flags.c
    chosen = select(table.meter_id, table.layout_id, table.place, table.capture_time_us, table.flags).where(
        table.meter_id == meter_id, table.capture_time_us >= from_us, table.capture_time_us < until_us
    )
    return [FlagRow(*row) for row in connection.execute(chosen)]


_ADVANCE = (
    "INSERT INTO plugin_cursors (plugin, sequence, changed_us) VALUES (?, ?, ?) "
    "ON CONFLICT (plugin) DO UPDATE SET sequence = max(sequence, excluded.sequence), changed_us = excluded.changed_us"
)
_KEEP = (
    "INSERT INTO plugin_effects (plugin, key, kind, content, at_us) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (plugin, key) DO NOTHING"
)
_FLAG = (
    "INSERT INTO reading_flags (meter_id, layout_id, place, capture_time_us, flags, changed_us) "
    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (meter_id, layout_id, place, capture_time_us) "
    "DO UPDATE SET flags = flags | excluded.flags, changed_us = excluded.changed_us"
)
