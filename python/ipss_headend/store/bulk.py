"""Readings in bulk: the one statement that is another for each database, because it is most of what a store does.

PostgreSQL takes them by binary COPY, straight into their table: it writes whole pages. A line that is there already
breaks that off, so the batch goes once more, into a table of the connection's own and from there what is not known yet,
row by row; and so do the next ones, as what comes twice comes often twice. A row is packed here as COPY wants it, in
one `Struct`: psycopg would adapt each of its cells.
"""

from collections.abc import Sequence
from struct import Struct
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError

from ipss_headend.store import partitions
from ipss_headend.store.records import READING_COLUMNS, ReadingRow
from ipss_headend.store.statements import is_postgresql


def add_readings(connection: Connection, rows: Sequence[ReadingRow], received_us: int) -> int:
    """Store lines, each once. Returns how many were new."""
    if not is_postgresql(connection):
        return connection.exec_driver_sql(_SQLITE, list(rows)).rowcount
    partitions.prepare(connection, (row[2] for row in rows), received_us)
    octets = packed(rows)
    if _straight(connection, octets):
        return len(rows)
    connection.exec_driver_sql(_INCOMING)
    _copy(connection, _COPY_INCOMING, octets)
    return connection.exec_driver_sql(_TAKE_IN).rowcount


def _straight(connection: Connection, octets: bytes) -> bool:
    """Store them all, if none is there already; else none."""
    wary: int = connection.info.get(_WARY, 0)
    if wary:
        connection.info[_WARY] = wary - 1
        return False
    try:
        with connection.begin_nested():
            _copy(connection, _COPY, octets)
    except IntegrityError:
        connection.info[_WARY] = WARY
        return False
    return True


def _copy(connection: Connection, statement: str, octets: bytes) -> None:
    raw: Any = connection.connection.dbapi_connection
    driver: Any = connection.dialect.loaded_dbapi
    try:
        with raw.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(octets)
    except driver.Error as error:  # as SQLAlchemy has it: it runs every statement but these
        raise DBAPIError.instance(
            statement, None, error, driver.Error, connection_invalidated=raw.closed, dialect=connection.dialect
        ) from error


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


WARY = 20
"""So many batches go row by row after one that held something known."""

_WARY = "batches that go row by row"
_HEAD = Struct("!hiiiiiqiqihihiqii")
"""How many fields, then the length of each and the field, up to the cells."""
_TAIL = Struct("!iq")
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)

_NAMES = ", ".join(READING_COLUMNS)
_SQLITE = f"INSERT INTO readings ({_NAMES}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"  # noqa: S608
_INCOMING = "CREATE TEMPORARY TABLE IF NOT EXISTS incoming_readings (LIKE readings) ON COMMIT DELETE ROWS"
_COPY_INCOMING = f"COPY incoming_readings ({_NAMES}) FROM STDIN (FORMAT binary)"
_COPY = f"COPY readings ({_NAMES}) FROM STDIN (FORMAT binary)"
_TAKE_IN = f"INSERT INTO readings ({_NAMES}) SELECT {_NAMES} FROM incoming_readings ON CONFLICT DO NOTHING"  # noqa: S608
