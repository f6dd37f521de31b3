"""A month of readings in a file of its own: what retention takes out of a SQLite store, to be read again later.

The file is SQLite and has the store's own tables: the month's lines, row by row as they were stored with their
checksums, what validation and estimation said of them, and the meters and layouts that give them their names. One row
of the table `archive` says how much must be there, with a digest over all of it. No key and no counter is in it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import msgpack
from sqlalchemy import BigInteger, Column, Connection, Integer, MetaData, Table, create_engine, insert, select
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool, StaticPool

from ipss_headend.errors import ConfigError, StoreDamaged
from ipss_headend.store import records
from ipss_headend.store.files import sync
from ipss_headend.store.schema import (
    Text,
    estimates,
    layout_columns,
    layouts,
    metadata,
    meters,
    reading_flags,
    readings,
)
from ipss_headend.store.statements import stream

FORM = 1

MOVED = (readings, reading_flags, estimates)
"""What is of one capture time, and goes with its month."""

NAMES = (meters, layouts, layout_columns)
"""What makes it readable, and stays in the store too."""

_about = MetaData()

archive = Table(
    "archive",
    _about,
    Column("form", Integer, nullable=False),
    Column("month", Text, nullable=False),
    Column("made_us", BigInteger, nullable=False),
    Column("readings", BigInteger, nullable=False),
    Column("reading_flags", BigInteger, nullable=False),
    Column("estimates", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive says that it has, and `check` has found."""

    month: str
    made_us: int
    readings: int
    reading_flags: int
    estimates: int
    digest: str
    """SHA-256 over the rows, in hexadecimal."""


class Writing:
    """An archive that is being made. It is nothing until `finish` has returned."""

    def __init__(self, path: Path, month: str) -> None:
        self.path = path
        self._month = month
        self._digest = sha256()
        self._counts = dict.fromkeys((table.name for table in MOVED), 0)
        path.unlink(missing_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))  # readings tell who is at home
        self._engine = create_engine(
            f"sqlite:///{path}", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        self._connection = self._engine.connect()
        # Whatever ends this process leaves a file that nobody takes for an archive.
        self._connection.exec_driver_sql("PRAGMA journal_mode=OFF")
        self._connection.exec_driver_sql("PRAGMA synchronous=OFF")
        metadata.create_all(self._connection, tables=[*MOVED, *NAMES])
        _about.create_all(self._connection)

    def add(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Take rows of one of the tables that move, in the order of their keys."""
        if rows:
            self._put(table, rows)
            self._counts[table.name] += len(rows)
            for row in rows:
                self._digest.update(msgpack.packb(row))

    def name(self, rows: dict[str, Sequence[tuple[Any, ...]]]) -> None:
        """Take the meters and layouts."""
        for table in NAMES:
            self._put(table, rows[table.name])

    def finish(self, made_us: int) -> Contents:
        """Make it durable where it is, and compare all of it with what was given.

        Raises:
            StoreDamaged: the disk gives back something else.
        """
        contents = Contents(self._month, made_us, **self._counts, digest=self._digest.hexdigest())
        values = {name: getattr(contents, name) for name in Contents.__slots__}
        self._connection.execute(insert(archive).values(form=FORM, **values))
        self._connection.commit()
        self.close()
        sync(self.path)
        return check(self.path)

    def abandon(self) -> None:
        """Leave nothing behind."""
        self.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.abandon()

    def _put(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            places = ", ".join("?" * len(table.columns))
            self._connection.exec_driver_sql(f"INSERT INTO {table.name} VALUES ({places})", list(rows))  # noqa: S608


@contextmanager
def reading(path: Path) -> Iterator[Connection]:
    """An archive, for whatever asks a store's readings.

    Raises:
        ConfigError: the file is no archive of this program's.
        StoreDamaged: SQLite found its structure broken.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; `ipss-headend store retire` says where it puts archives")

    def opened() -> sqlite3.Connection:
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)

    engine = create_engine("sqlite://", creator=opened, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            try:
                form = connection.scalar(select(archive.c.form))
            except DatabaseError as error:
                name = getattr(error.orig, "sqlite_errorname", "")
                if name.startswith("SQLITE_CORRUPT"):
                    raise StoreDamaged(f"{path}: {error.orig}") from error
                raise ConfigError(f"{path}: no archive of readings ({error.orig})") from error
            if form != FORM:
                raise ConfigError(f"{path}: an archive of form {form}; this program reads form {FORM}")
            _completed(connection)
            yield connection
    except DatabaseError as error:
        raise StoreDamaged(f"{path}: {error.orig}; take another copy of it") from error
    finally:
        engine.dispose()


def _completed(connection: Connection) -> None:
    # What tables have got since the archive was made stands in views in their place, which no file has.
    for table in (*MOVED, *NAMES):
        there = {row[1] for row in connection.exec_driver_sql(f"PRAGMA main.table_info({table.name})")}
        if missing := [column for column in table.columns if column.name not in there]:
            empty = {column.name: "NULL" if column.nullable else _EMPTY[column.type.python_type] for column in missing}
            names = [column.name for column in table.columns]
            chosen = ", ".join(f"{empty[name]} AS {name}" if name in empty else name for name in names)
            connection.exec_driver_sql(f"CREATE TEMP VIEW {table.name} AS SELECT {chosen} FROM main.{table.name}")  # noqa: S608


_EMPTY = {int: "0", str: "''", bytes: "x''"}


def check(path: Path) -> Contents:
    """Read all of an archive and compare it with its checksums, its digest and SQLite's own rules.

    Raises:
        ConfigError: the file is no archive.
        StoreDamaged: it is not what was written.
    """
    with reading(path) as connection:
        for (said,) in connection.exec_driver_sql("PRAGMA integrity_check(1)"):
            if said != "ok":
                raise StoreDamaged(f"{path}: {said}")
        digest, counts = sha256(), dict.fromkeys((table.name for table in MOVED), 0)
        for table in MOVED:
            for row in rows_of(connection, table):
                if table is readings:
                    records.check(row)
                digest.update(msgpack.packb(row))
                counts[table.name] += 1
        said = connection.execute(select(archive)).one()._mapping
        found = Contents(said["month"], said["made_us"], **counts, digest=digest.hexdigest())
        for name in Contents.__slots__:
            if getattr(found, name) != said[name]:
                raise StoreDamaged(f"{path}: {name} is {getattr(found, name)}, and {said[name]} was written")
        return found


def rows_of(connection: Connection, table: Table) -> Iterator[tuple[Any, ...]]:
    """The rows of an archive's table, in the order of their keys."""
    order = ", ".join(column.name for column in table.primary_key.columns)
    yield from stream(connection, f"SELECT * FROM main.{table.name} ORDER BY {order}")  # noqa: S608 - constants


def names(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """The meters and layouts of a store."""
    return {table.name: [tuple(row) for row in connection.execute(select(table))] for table in NAMES}


def renamed(path: Path, target: Path) -> None:
    """Give a file its name, durably."""
    path.rename(target)
    sync(target.parent)
