"""Readings in bulk: the one statement that is another for each database, because it is most of what a store does.

PostgreSQL takes them by binary COPY into a table of the connection's own, and from there those that are not known yet.
A row is packed here as COPY wants it, in one `Struct`: psycopg would adapt each of its cells.
"""

from collections.abc import Sequence
from struct import Struct
from typing import Any

from sqlalchemy import Connection

from ipss_headend.store import partitions
from ipss_headend.store.records import READING_COLUMNS, ReadingRow
from ipss_headend.store.statements import is_postgresql


def add_readings(connection: Connection, rows: Sequence[ReadingRow], received_us: int) -> int:
    """Store lines, each once. Returns how many were new."""
    if not is_postgresql(connection):
        return connection.exec_driver_sql(_SQLITE, list(rows)).rowcount
    partitions.prepare(connection, (row[2] for row in rows), received_us)
    connection.exec_driver_sql(_INCOMING)
    raw: Any = connection.connection.dbapi_connection
    with raw.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.write(packed(rows))
    return connection.exec_driver_sql(_TAKE_IN).rowcount


def packed(rows: Sequence[ReadingRow]) -> bytes:
    """Rows as PostgreSQL's binary COPY reads them."""
    parts = [_SIGNATURE]
    head, tail, add = _HEAD.pack, _TAIL.pack, parts.append
    for meter, layout, captured, entry, deviation, status, received, quality, cells, crc in rows:
        add(
            head(10, 4, meter, 4, layout, 8, captured, 8, entry, 2, deviation, 2, status, 8, received, 4, quality)
            + len(cells).to_bytes(4, "big")
        )
        add(cells)
        add(tail(8, crc))
    add(b"\xff\xff")
    return b"".join(parts)


_HEAD = Struct("!hiiiiiqiqihihiqii")
"""How many fields, then the length of each and the field, up to the cells."""
_TAIL = Struct("!iq")
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)

_NAMES = ", ".join(READING_COLUMNS)
_SQLITE = f"INSERT INTO readings ({_NAMES}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"  # noqa: S608
_INCOMING = "CREATE TEMPORARY TABLE IF NOT EXISTS incoming_readings (LIKE readings) ON COMMIT DELETE ROWS"
_COPY = f"COPY incoming_readings ({_NAMES}) FROM STDIN (FORMAT binary)"
_TAKE_IN = f"INSERT INTO readings ({_NAMES}) SELECT {_NAMES} FROM incoming_readings ON CONFLICT DO NOTHING"  # noqa: S608
