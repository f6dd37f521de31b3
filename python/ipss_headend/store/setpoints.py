"""What is wanted of inverters and storage, kept over a restart. Values are texts; `field/der` knows what they mean."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Connection, delete, select

from ipss_headend.store.schema import set_points
from ipss_headend.store.statements import run


class SetPointRow(NamedTuple):
    """One wish."""

    meter_id: int
    function: str
    source: str
    value: str
    priority: int
    asked_us: int
    until_us: int
    revert_s: int
    exclusive: int


def keep(connection: Connection, row: SetPointRow) -> None:
    """Keep a wish instead of what the same source wanted of the same function before. Needs a writing transaction."""
    run(connection, _KEEP, tuple(row))


def drop(connection: Connection, meter_id: int, function: str, source: str) -> bool:
    """Forget a wish. Whether there was one."""
    own = (set_points.c.meter_id == meter_id) & (set_points.c.function == function) & (set_points.c.source == source)
    return connection.execute(delete(set_points).where(own)).rowcount > 0


def forget(connection: Connection, meters: Iterable[int], until_us: int) -> None:
    """Forget what ended by then, and what is wanted of these meters."""
    connection.execute(delete(set_points).where(set_points.c.until_us <= until_us))
    for meter_id in meters:
        connection.execute(delete(set_points).where(set_points.c.meter_id == meter_id))


def all_set_points(connection: Connection) -> list[SetPointRow]:
    """Every wish."""
    ordered = select(set_points).order_by(set_points.c.meter_id, set_points.c.function, set_points.c.source)
    return [SetPointRow(*row) for row in connection.execute(ordered)]


_KEEP = (
    f"INSERT INTO set_points ({', '.join(SetPointRow._fields)}) "  # noqa: S608 - constants
    f"VALUES ({', '.join('?' * len(SetPointRow._fields))}) ON CONFLICT (meter_id, function, source) DO UPDATE SET "
    f"{', '.join(f'{name} = excluded.{name}' for name in SetPointRow._fields[3:])}"
)
