"""What plugins leave: how far each has read the log, what it emitted, flags of readings and estimates for gaps."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgpack
from sqlalchemy import Connection, delete, func, insert, select

from ipss_headend.store.database import now_us
from ipss_headend.store.schema import estimates, plugin_cursors, plugin_effects, plugin_states, reading_flags
from ipss_headend.store.statements import run

KEPT = "kept"
"""The kind of effects that stand in the place of the one before."""


class FlagRow(NamedTuple):
    """Flags of one column of a line."""

    meter_id: int
    layout_id: int
    place: int
    capture_time_us: int
    flags: int


class EstimateRow(NamedTuple):
    """An interval that is missing, and what was estimated for it; no value yet: it may still be read."""

    meter_id: int
    layout_id: int
    place: int
    capture_time_us: int
    noted_us: int
    value: int | None
    method: str


class StateRow(NamedTuple):
    """What was said of a plugin while the head-end ran. None: as configured."""

    enabled: bool | None
    settings: Mapping[str, Any] | None


def cursor(connection: Connection, plugin: str) -> int | None:
    """The last entry of the log that the plugin has dealt with; None: it has never read."""
    return connection.scalar(select(plugin_cursors.c.sequence).where(plugin_cursors.c.plugin == plugin))


def advance(connection: Connection, plugin: str, sequence: int, effects: Iterable[tuple[str, str, Any]] = ()) -> int:
    """Move the cursor and keep what was emitted (key, kind, content) with it, all or nothing.

    Returns how many of the effects are new: a key that is there stays as it is.
    """
    added = keep(connection, plugin, effects)
    run(connection, _ADVANCE, (plugin, sequence, now_us()))
    return added


def keep(connection: Connection, plugin: str, effects: Iterable[tuple[str, str, Any]]) -> int:
    """Keep effects once for each key, and of the kind `kept` the newest. Returns how many effects are new."""
    added, state = 0, {}
    for key, kind, content in effects:
        if kind == KEPT:
            state[key] = content
        else:
            added += run(connection, _KEEP, (plugin, key, kind, msgpack.packb(content), now_us())).rowcount
    owner = _owner(plugin)
    for key, content in state.items():
        if content is None:
            run(connection, _DROP, (owner, key))
        else:
            run(connection, _REPLACE, (owner, key, KEPT, msgpack.packb(content), now_us()))
    return added


def kept(connection: Connection, plugin: str, after: str = "", limit: int = 1000) -> dict[str, Any]:
    """What a plugin keeps, by key, the keys behind `after` first."""
    chosen = select(plugin_effects.c.key, plugin_effects.c.content).where(
        plugin_effects.c.plugin == _owner(plugin), plugin_effects.c.key > after
    )
    rows = connection.execute(chosen.order_by(plugin_effects.c.key).limit(limit))
    return {key: msgpack.unpackb(content) for key, content in rows}


def _owner(plugin: str) -> str:
    """Whose what is kept is in the table of effects: no entry point has such a name."""
    return f"{plugin}/{KEPT}"


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
        run(connection, _FLAG, [(*row, at_us) for row in rows])


def flags(connection: Connection, meter_id: int, from_us: int, until_us: int) -> list[FlagRow]:
    """The flags of a meter's readings within [from, until)."""
    table = reading_flags.c
    chosen = select(table.meter_id, table.layout_id, table.place, table.capture_time_us, table.flags).where(
        table.meter_id == meter_id, table.capture_time_us >= from_us, table.capture_time_us < until_us
    )
    ordered = chosen.order_by(table.layout_id, table.place, table.capture_time_us)
    return [FlagRow(*row) for row in connection.execute(ordered)]


def want(connection: Connection, rows: Iterable[tuple[int, int, int, int]], noted_us: int) -> None:
    """Note intervals that are missing: (meter, layout, place, capture time). One that is known stays as it is."""
    for row in rows:
        run(connection, _WANT, (*row, noted_us))


def wanted(connection: Connection, noted_before_us: int, limit: int) -> list[EstimateRow]:
    """Intervals that are missing since before then and have no estimate, by meter, layout, place and time."""
    chosen = select(estimates).where(estimates.c.value.is_(None), estimates.c.noted_us < noted_before_us)
    keys = (estimates.c.meter_id, estimates.c.layout_id, estimates.c.place, estimates.c.capture_time_us)
    return [EstimateRow(*row) for row in connection.execute(chosen.order_by(*keys).limit(limit))]


def estimate(connection: Connection, rows: Iterable[EstimateRow]) -> None:
    """Give missing intervals their values."""
    for row in rows:
        run(connection, _ESTIMATE, (row.value, row.method, *_key(row)))


def edit(connection: Connection, row: EstimateRow) -> None:
    """Give an interval the value that a person says, in the place of an estimate or of an edit before."""
    run(connection, _EDIT, row)


def put_off(connection: Connection, rows: Iterable[EstimateRow], noted_us: int) -> None:
    """Nobody could say a value: ask again later."""
    for row in rows:
        run(connection, _PUT_OFF, (noted_us, *_key(row)))


def unwant(connection: Connection, rows: Iterable[EstimateRow]) -> None:
    """Forget missing intervals that were read after all and have no estimate."""
    for row in rows:
        run(connection, _UNWANT, _key(row))


def _key(row: EstimateRow) -> tuple[int, int, int, int]:
    return row.meter_id, row.layout_id, row.place, row.capture_time_us


def estimated(connection: Connection, meter_id: int, from_us: int, until_us: int) -> list[EstimateRow]:
    """The estimates for a meter within [from, until), the intervals that still wait among them."""
    chosen = select(estimates).where(
        estimates.c.meter_id == meter_id, estimates.c.capture_time_us >= from_us, estimates.c.capture_time_us < until_us
    )
    return [EstimateRow(*row) for row in connection.execute(chosen.order_by(estimates.c.capture_time_us))]


def states(connection: Connection) -> dict[str, StateRow]:
    """What was said of plugins, by name."""
    return {
        row.plugin: StateRow(
            None if row.enabled is None else bool(row.enabled),
            None if row.settings is None else msgpack.unpackb(row.settings),
        )
        for row in connection.execute(select(plugin_states))
    }


def set_state(connection: Connection, plugin: str, state: StateRow, principal: str) -> None:
    """Say it."""
    connection.execute(delete(plugin_states).where(plugin_states.c.plugin == plugin))
    connection.execute(
        insert(plugin_states).values(
            plugin=plugin,
            enabled=None if state.enabled is None else int(state.enabled),
            settings=None if state.settings is None else msgpack.packb(dict(state.settings)),
            principal=principal,
            changed_us=now_us(),
        )
    )


def effect_count(connection: Connection, plugin: str) -> int:
    """How many effects are kept of a plugin."""
    return connection.scalar(select(func.count()).where(plugin_effects.c.plugin == plugin)) or 0


_WANT = (
    "INSERT INTO estimates (meter_id, layout_id, place, capture_time_us, noted_us, value, method) "
    "VALUES (?, ?, ?, ?, ?, NULL, '') ON CONFLICT (meter_id, layout_id, place, capture_time_us) DO NOTHING"
)
_OF_ONE = "WHERE meter_id = ? AND layout_id = ? AND place = ? AND capture_time_us = ? AND value IS NULL"
_ESTIMATE = f"UPDATE estimates SET value = ?, method = ? {_OF_ONE}"  # noqa: S608 - constants
_EDIT = (
    "INSERT INTO estimates (meter_id, layout_id, place, capture_time_us, noted_us, value, method) "
    "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (meter_id, layout_id, place, capture_time_us) "
    "DO UPDATE SET noted_us = excluded.noted_us, value = excluded.value, method = excluded.method"
)
_PUT_OFF = f"UPDATE estimates SET noted_us = ? {_OF_ONE}"  # noqa: S608
_UNWANT = f"DELETE FROM estimates {_OF_ONE}"  # noqa: S608
_ADVANCE = (
    "INSERT INTO plugin_cursors (plugin, sequence, changed_us) VALUES (?, ?, ?) "
    "ON CONFLICT (plugin) DO UPDATE SET changed_us = excluded.changed_us, sequence = "
    "CASE WHEN excluded.sequence > plugin_cursors.sequence THEN excluded.sequence ELSE plugin_cursors.sequence END"
)
_KEEP = (
    "INSERT INTO plugin_effects (plugin, key, kind, content, at_us) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (plugin, key) DO NOTHING"
)
_REPLACE = (
    "INSERT INTO plugin_effects (plugin, key, kind, content, at_us) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (plugin, key) DO UPDATE SET content = excluded.content, at_us = excluded.at_us"
)
_DROP = "DELETE FROM plugin_effects WHERE plugin = ? AND key = ?"
_FLAG = (
    "INSERT INTO reading_flags (meter_id, layout_id, place, capture_time_us, flags, changed_us) "
    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (meter_id, layout_id, place, capture_time_us) "
    "DO UPDATE SET flags = reading_flags.flags | excluded.flags, changed_us = excluded.changed_us"
)
