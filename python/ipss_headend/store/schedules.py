"""Read plans that were made by the RPC."""

from collections.abc import Mapping
from typing import Any

import msgpack
from sqlalchemy import Connection, delete, insert, select

from ipss_headend.store.database import now_us
from ipss_headend.store.schema import read_schedules


def all_schedules(connection: Connection) -> dict[str, dict[str, Any]]:
    """What each plan says, by name."""
    chosen = select(read_schedules.c.name, read_schedules.c.content).order_by(read_schedules.c.name)
    return {name: msgpack.unpackb(content) for name, content in connection.execute(chosen)}


def put(connection: Connection, name: str, values: Mapping[str, Any], principal: str) -> None:
    """Keep a plan, in the place of the one of this name."""
    remove(connection, name)
    content = msgpack.packb(dict(values))
    connection.execute(
        insert(read_schedules).values(name=name, content=content, principal=principal, changed_us=now_us())
    )


def remove(connection: Connection, name: str) -> None:
    """Forget a plan."""
    connection.execute(delete(read_schedules).where(read_schedules.c.name == name))
