"""Readings by month of their capture time in PostgreSQL: an old month goes as a table, not row by row.

A month has its partition before its first line comes: made ahead for the months to come, and in the transaction of the
first line of an older one. A line that no calendar expects (a wrong clock) goes into the default partition, and so does
one whose partition could not be made because a reader holds the table: partitions are never a condition for a write.
What the default partition holds of a month moves when that month's partition is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.exc import OperationalError

from ipss_headend.errors import RequestError
from ipss_headend.store.records import FUTURE_LIMIT_US, PAST_LIMIT_US
from ipss_headend.store.schema import ledger, readings
from ipss_headend.store.statements import run

AHEAD = 3
"""Months made before their time."""

WAIT_MS = 250
"""How long a write waits to make a partition; without it the lines go into the default one."""

DAY_US = 86_400_000_000
DEFAULT = "readings_default"

_KNOWN = "months of readings"


class Month(NamedTuple):
    """A month of UTC."""

    year: int
    month: int

    @property
    def table(self) -> str:
        """Its partition."""
        return f"readings_{self.year:04}_{self.month:02}"

    @property
    def from_us(self) -> int:
        """Its first microsecond."""
        return int(datetime(self.year, self.month, 1, tzinfo=UTC).timestamp()) * 1_000_000

    def after(self, months: int = 1) -> Month:
        """A later month."""
        years, month = divmod(self.year * 12 + self.month - 1 + months, 12)
        return Month(years, month + 1)

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}"


def month_of(moment_us: int) -> Month:
    """The month of a moment."""
    moment = datetime.fromtimestamp(moment_us // 1_000_000, tz=UTC)
    return Month(moment.year, moment.month)


def prepare(connection: Connection, capture_times_us: Iterable[int], now_us: int) -> None:
    """Have the partitions of these capture times and of the months to come, as far as can be without waiting."""
    known: set[Month] = connection.info.setdefault(_KNOWN, set())
    days = {time_us // DAY_US for time_us in capture_times_us if PAST_LIMIT_US <= time_us <= now_us + FUTURE_LIMIT_US}
    this = month_of(now_us)
    wanted = {month_of(day * DAY_US) for day in days} | {this.after(ahead) for ahead in range(AHEAD + 1)}
    if wanted <= known:
        return
    known.update(existing(connection))  # what is committed: one that is made here is known from the next time on
    for month in sorted(wanted - known):
        try:
            with connection.begin_nested():
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {WAIT_MS}")
                _make(connection, month)
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", "") != "55P03":
                raise
            return


def existing(connection: Connection) -> list[Month]:
    """The months that have a partition, the oldest first."""
    names = connection.exec_driver_sql(
        "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
        "WHERE inhparent = 'readings'::regclass"
    ).scalars()
    found = []
    for name in names:
        if name != DEFAULT:
            _, year, month = name.split("_")
            found.append(Month(int(year), int(month)))
    return sorted(found)


def detach(connection: Connection, before: Month) -> list[tuple[str, int]]:
    """Take the months before this one out of the readings: (table, lines) of each. The tables stay, to be archived.

    Raises:
        RequestError: the month has not ended, so its lines may still come.
    """
    if before > month_of(_now(connection)):
        raise RequestError(f"{before}: a month that is not over yet is not retired")
    gone = []
    for month in existing(connection):
        if month >= before:
            break
        lines = (
            connection.scalar(
                select(func.count())
                .select_from(readings)
                .where(readings.c.capture_time_us >= month.from_us, readings.c.capture_time_us < month.after().from_us)
            )
            or 0
        )
        connection.exec_driver_sql(f"ALTER TABLE readings DETACH PARTITION {month.table}")
        retired = _free_name(connection, f"retired_{month.table}")
        connection.exec_driver_sql(f"ALTER TABLE {month.table} RENAME TO {retired}")
        # The ledger says how many lines there must be.
        connection.execute(insert(ledger).values(written_us=_now(connection), epoch=0, readings=-lines))
        gone.append((retired, lines))
    return gone


def _free_name(connection: Connection, name: str) -> str:
    # Lines of a month may come after it was retired, and go with the next time.
    found, number = name, 1
    while connection.exec_driver_sql("SELECT to_regclass(%s)", (found,)).scalar() is not None:
        number += 1
        found = f"{name}_{number}"
    return found


def _make(connection: Connection, month: Month) -> None:
    first, last = month.from_us, month.after().from_us
    # Attached, not made in place: that would wait for every reader of the whole table.
    connection.exec_driver_sql(f"CREATE TABLE {month.table} (LIKE readings INCLUDING ALL)")
    run(
        connection,
        f"WITH moved AS (DELETE FROM {DEFAULT} WHERE capture_time_us >= ? AND capture_time_us < ? RETURNING *) "  # noqa: S608 - constants
        f"INSERT INTO {month.table} SELECT * FROM moved",
        (first, last),
    )
    connection.exec_driver_sql(
        f"ALTER TABLE readings ATTACH PARTITION {month.table} FOR VALUES FROM ({first}) TO ({last})"
    )


def _now(connection: Connection) -> int:
    found: int = connection.exec_driver_sql("SELECT (extract(epoch FROM now()) * 1000000)::bigint").scalar_one()
    return found


def default_lines(connection: Connection) -> int:
    """How many lines no month's partition has: wrong clocks, and what waits for one."""
    found: int = connection.exec_driver_sql(f"SELECT count(*) FROM {DEFAULT}").scalar_one()  # noqa: S608 - a constant
    return found


def begin(connection: Connection, now_us: int) -> None:
    """The default partition of a new store, and the first months."""
    connection.exec_driver_sql(f"CREATE TABLE {DEFAULT} PARTITION OF readings DEFAULT")
    prepare(connection, (), now_us)
