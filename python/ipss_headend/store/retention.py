"""Old months of a SQLite store become archives, beside a head-end that runs and goes on.

For each month, the oldest first: its rows are copied into an archive (`archive.py`) in pieces, the archive is made
durable and read back whole, and only then are rows deleted, in pieces, each of them only if it is to the octet what the
archive has. Each transaction that deletes lowers the ledger by what it deleted. What comes of the month in the meantime
is not in the archive and stays; the next run makes another archive of it. Lines whose checksum does not match are
neither archived nor deleted.

Where a process dies is told by the archive's name: `.new` is worth nothing and made again, `.checked` is whole and
its rows may be half deleted, a name without either is done.

`retire` is a generator of steps and knows no thread: a command runs them on its connections, the head-end on trio's.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Connection, Table, insert, select

from ipss_headend.errors import RequestError, StoreDamaged, StoreFull
from ipss_headend.store import archive, records
from ipss_headend.store.archive import MOVED, Contents
from ipss_headend.store.database import Database, now_us
from ipss_headend.store.partitions import Month, month_of
from ipss_headend.store.records import PAST_LIMIT_US
from ipss_headend.store.schema import audit, ledger, readings
from ipss_headend.store.sqlite import free_bytes

PIECE = 2000
"""Rows of one step: some 20 ms of a writer's time."""

LOOKS = 500
"""Looks into the index of one step, where there are few rows."""

RETIRED = "retire"
"""The audit record's kind; its subject is the month."""


class Step(NamedTuple):
    """A piece of work for one connection. It may run again when its transaction broke."""

    work: Callable[[Connection], Any]
    writes: bool


Steps = Generator[Step, Any, "Report"]


@dataclass(frozen=True, slots=True)
class Retired:
    """One archive whose rows are no longer in the store."""

    path: Path
    contents: Contents
    deleted: int
    """Lines that this run deleted; fewer than are in the archive where an earlier run began it."""


@dataclass(slots=True)
class Report:
    """What a run did."""

    archives: list[Retired] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    """A message for each line that stays because it does not match its checksum, the first 100."""


class Note(Protocol):
    """Writes the audit record, in the transaction that deletes first."""

    def __call__(self, connection: Connection, *, path: Path, contents: Contents) -> None:
        """The archive will be at `path`."""


def retire(before: Month, directory: Path, note: Note, *, reserve_bytes: int = 0) -> Steps:
    """The steps that bring the months before this one into archives in `directory`.

    Raises:
        RequestError: the month has not ended, or another process is at it.
        StoreFull: the archives' disk has no more than the reserve.
        StoreDamaged: an archive is not what was written; nothing more is deleted.
    """
    if before > month_of(now_us()):
        raise RequestError(f"{before}: a month that is not over yet is not retired")
    report = Report()
    with _alone(directory):
        for path in sorted(directory.glob("readings-*.sqlite.new")):
            path.unlink()
        for path in sorted(directory.glob("readings-*.sqlite.checked")):
            report.archives.append((yield from _deleted(path, archive.check(path), note)))
        for month in (yield from _months(before)):
            yield from _one(month, directory, note, report, reserve_bytes)
    return report


def kept_from(now: int, months: int) -> Month:
    """The first month that stays where so many whole months are kept beside the one that runs."""
    return month_of(now).after(-months)


def retired_until(connection: Connection) -> int | None:
    """Where the readings begin that may still be in the store: the end of the newest month that was retired."""
    months = connection.scalars(select(audit.c.subject).where(audit.c.kind == RETIRED))
    newest = max((subject for subject in months if re.fullmatch(r"\d{4}-\d{2}", subject)), default=None)
    if newest is None:
        return None
    year, month = map(int, newest.split("-"))
    return Month(year, month).after().from_us


def run(database: Database, steps: Steps, *, pause: float = 1.0) -> Report:
    """Take the steps, each in a transaction of its own, and rest `pause` times as long as each took."""
    found: Any = None
    while True:
        try:
            step = steps.send(found)
        except StopIteration as end:
            report: Report = end.value
            return report
        began = time.monotonic()
        try:
            with database.writing(spend_reserve=True) if step.writes else database.reading() as connection:
                found = step.work(connection)
        except BaseException:
            steps.close()
            raise
        time.sleep(pause * (time.monotonic() - began))


def _one(month: Month, directory: Path, note: Note, report: Report, reserve_bytes: int) -> Steps:
    final = _free_name(directory, month)
    making = final.with_name(final.name + ".new")
    writing: archive.Writing | None = None
    try:
        for table in MOVED:
            place: _Place | None = _Place((), ())
            while place is not None:
                rows, place = yield Step(partial(_rows, table, place, month.from_us, month.after().from_us), False)
                sound = [row for row in rows if table is not readings or _is_sound(row, report)]
                if sound:
                    _check_room(directory, reserve_bytes)
                    writing = writing or archive.Writing(making, str(month))
                    writing.add(table, sound)
        if writing is None:
            return report
        # After the rows: what they refer to is there by now.
        writing.name((yield Step(archive.names, False)))
        contents = writing.finish(now_us())
    except BaseException:
        if writing is not None:
            writing.abandon()
        raise
    checked = final.with_name(final.name + ".checked")
    archive.renamed(making, checked)
    report.archives.append((yield from _deleted(checked, contents, note)))
    return report


def _deleted(path: Path, contents: Contents, note: Note) -> Generator[Step, Any, Retired]:
    final = path.with_name(path.name.removesuffix(".checked"))
    gone, noted = 0, False
    with archive.reading(path) as connection:
        for table in MOVED:
            rows = archive.rows_of(connection, table)
            while piece := list(islice(rows, PIECE)):
                told = None if noted else partial(note, path=final, contents=contents)
                deleted = yield Step(partial(_delete, table, piece, told), True)
                noted = noted or bool(deleted)
                gone += deleted if table is readings else 0
    archive.renamed(path, final)
    return Retired(final, contents, gone)


def _delete(
    table: Table, rows: list[tuple[Any, ...]], note: Callable[[Connection], None] | None, connection: Connection
) -> int:
    same = " AND ".join(f"{column.name} {'=' if column.primary_key else 'IS'} ?" for column in table.columns)
    deleted = connection.exec_driver_sql(f"DELETE FROM {table.name} WHERE {same}", rows).rowcount  # noqa: S608
    if deleted and note is not None:
        note(connection)
    if deleted and table is readings:
        # The ledger says how many lines there must be.
        connection.execute(insert(ledger).values(written_us=now_us(), epoch=0, readings=-deleted))
    return deleted


class _Place(NamedTuple):
    # How far a table was walked: the key's columns before the capture time, and those from it on.
    lead: tuple[int, ...]
    rest: tuple[int, ...]


def _rows(
    table: Table, place: _Place, from_us: int, until_us: int, connection: Connection
) -> tuple[list[tuple[Any, ...]], _Place | None]:
    """Rows of a span of capture times behind a place, and where to go on; None: there are no more."""
    lead, rest = _key(table)
    at_lead, at_rest = place
    behind = f"({', '.join(rest)}) > ({', '.join('?' * len(rest))})"
    order = ", ".join(lead + rest)
    within = " AND ".join(f"{name} = ?" for name in lead) + " AND capture_time_us >= ? AND capture_time_us < ?"
    found: list[tuple[Any, ...]] = []
    for _ in range(LOOKS):
        if not at_rest:
            following = _next_lead(table, at_lead, connection)
            if following is None:
                return found, None
            at_lead = following
        room = PIECE - len(found)
        chosen, values = within, (*at_lead, from_us, until_us)
        if at_rest:
            chosen, values = f"{within} AND {behind}", (*values, *at_rest)
        statement = f"SELECT * FROM {table.name} WHERE {chosen} ORDER BY {order} LIMIT {room}"  # noqa: S608
        rows = [tuple(row) for row in connection.exec_driver_sql(statement, values)]
        found += rows
        if len(rows) == room:
            names = table.columns.keys()
            return found, _Place(at_lead, tuple(rows[-1][names.index(name)] for name in rest))
        at_rest = ()
    return found, _Place(at_lead, ())


def _months(before: Month) -> Generator[Step, Any, list[Month]]:
    """The months before this one that anything is of. Capture times before 2000 are wrong clocks' and stay."""
    found: set[int] = set()
    for table in MOVED:
        lead: tuple[int, ...] | None = ()
        while lead is not None:
            months, lead = yield Step(partial(_months_of, table, lead, before), False)
            found |= months
    return [Month(number // 12, number % 12 + 1) for number in sorted(found)]


def _months_of(
    table: Table, lead: tuple[int, ...], before: Month, connection: Connection
) -> tuple[set[int], tuple[int, ...] | None]:
    same = " AND ".join(f"{name} = ?" for name in _key(table)[0])
    next_time = (
        f"SELECT min(capture_time_us) FROM {table.name} "  # noqa: S608 - constants
        f"WHERE {same} AND capture_time_us >= ? AND capture_time_us < ?"
    )
    found: set[int] = set()
    looks = 0
    while looks < LOOKS:
        following = _next_lead(table, lead, connection)
        if following is None:
            return found, None
        lead = following
        from_us: int = PAST_LIMIT_US
        while True:
            looks += 1
            values = (*lead, from_us, before.from_us)
            first = connection.exec_driver_sql(next_time, values).scalar()
            if first is None:
                break
            month = month_of(first)
            found.add(month.year * 12 + month.month - 1)
            from_us = month.after().from_us
    return found, lead


def _next_lead(table: Table, lead: tuple[int, ...], connection: Connection) -> tuple[int, ...] | None:
    columns = ", ".join(_key(table)[0])
    behind = f"WHERE ({columns}) > ({', '.join('?' * len(lead))})" if lead else ""
    statement = f"SELECT {columns} FROM {table.name} {behind} ORDER BY {columns} LIMIT 1"  # noqa: S608 - constants
    row = connection.exec_driver_sql(statement, lead).one_or_none()
    return None if row is None else tuple(row)


def _key(table: Table) -> tuple[list[str], list[str]]:
    names = [column.name for column in table.primary_key.columns]
    place = names.index("capture_time_us")
    return names[:place], names[place:]


def _is_sound(row: tuple[Any, ...], report: Report) -> bool:
    try:
        records.check(row)
    except StoreDamaged as damage:
        if len(report.damaged) < 100:
            report.damaged.append(str(damage))
        return False
    return True


def _free_name(directory: Path, month: Month) -> Path:
    path, number = directory / f"readings-{month}.sqlite", 1
    while path.exists() or path.with_name(path.name + ".checked").exists():
        number += 1
        path = directory / f"readings-{month}-{number}.sqlite"
    return path


def _check_room(directory: Path, reserve_bytes: int) -> None:
    free = free_bytes(directory)
    if free < reserve_bytes:
        raise StoreFull(
            f"{directory}: {free >> 20} MiB free of the {reserve_bytes >> 20} MiB that are kept; nothing was deleted. "
            "Move older archives to another place, or name another disk in [retention] archive"
        )


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RequestError(f"{directory}: another process retires readings there now") from None
        yield
    finally:
        os.close(descriptor)
