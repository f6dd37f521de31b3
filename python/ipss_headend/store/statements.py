"""Statements in plain SQL that both databases run, and what only their numbers differ in.

A statement is written once, with `?` for each value. SQLite takes it so; psycopg writes `%s`.
"""

from collections.abc import Generator, Sequence
from contextlib import closing
from functools import cache
from typing import Any

from sqlalchemy import Connection, CursorResult

from ipss_headend.store.schema import NUMBERED

Values = Sequence[object]

CHUNK = 5_000
"""Rows of an answer that are in memory at once."""


def run(connection: Connection, statement: str, values: Values | Sequence[Values] = ()) -> CursorResult[Any]:
    """Run a statement with one row of values (a tuple) or with each of a list of rows."""
    if is_postgresql(connection):
        statement = _for_psycopg(statement)
    return connection.exec_driver_sql(statement, values)


def rows(connection: Connection, statement: str, values: Values = ()) -> list[tuple[Any, ...]]:
    """The rows of a short answer."""
    return list(map(tuple, run(connection, statement, values)))


def stream(connection: Connection, statement: str, values: Values = ()) -> Generator[tuple[Any, ...], None, None]:
    """The rows of an answer that may be longer than the memory: they come as they are taken."""
    if is_postgresql(connection):
        statement = _for_psycopg(statement)
    options = {"stream_results": True, "max_row_buffer": CHUNK}
    with closing(connection.exec_driver_sql(statement, values, execution_options=options)) as rows:
        for part in rows.partitions(CHUNK):
            yield from map(tuple, part)


def is_postgresql(connection: Connection) -> bool:
    """Which database this is: there are two."""
    return connection.dialect.name == "postgresql"


def take_numbers(connection: Connection, of: str, count: int) -> int:
    """The first of `count` numbers that follow each other without a gap and were never given. For a transaction."""
    last: int = run(connection, _TAKE, (count, of)).scalar_one()
    return last - count + 1


def last_number(connection: Connection, of: str) -> int:
    """The highest number ever given."""
    found: int = run(connection, _LAST, (of,)).scalar_one()
    return found


def given_numbers(connection: Connection, of: str, highest: int) -> None:
    """Numbers up to this one are given away."""
    run(connection, _GIVEN, (highest, of, highest))


def make_numbers(connection: Connection) -> None:
    """The rows of a new store."""
    run(connection, "INSERT INTO numbers (name, last) VALUES (?, 0)", [(name,) for name in NUMBERED])


@cache
def _for_psycopg(statement: str) -> str:
    return statement.replace("?", "%s")


_TAKE = "UPDATE numbers SET last = last + ? WHERE name = ? RETURNING last"
_LAST = "SELECT last FROM numbers WHERE name = ?"
_GIVEN = "UPDATE numbers SET last = ? WHERE name = ? AND last < ?"
