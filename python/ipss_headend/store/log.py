"""The log of everything that happened, for whoever reads on from a cursor (R6).

Entries are numbered without a gap, and an entry is durable in the transaction of what it tells: a reader that keeps the
number of the last entry it has dealt with misses nothing, and sees an entry twice only if it did not keep the number.
A reading's idempotency key is (meter, layout, capture time, entry hash).
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import msgspec
from sqlalchemy import Connection, delete, func, select

from ipss_headend.errors import StoreDamaged
from ipss_headend.store.schema import log
from ipss_headend.store.statements import last_number, run, stream, take_numbers

READINGS, EVENTS, COMMANDS = "readings", "events", "commands"
TOPICS = (READINGS, EVENTS, COMMANDS)
INTERVALS = "intervals"
"""Flags, estimates and edits of intervals. Only for who asks for it: it tells where, not what."""

ENTRY_ROWS = 500
"""Rows of one entry at most: some 40 KiB."""


_encoder = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry.

    A reading is a `ReadingRow`; an event (meter_id, at_us, kind, number, detail); a critical command's step
    (meter_id, at_us, command, order, state, detail); an interval's (meter_id, layout_id, first and last capture time).
    """

    sequence: int
    at_us: int
    topic: str
    rows: list[list[Any]]


def append(connection: Connection, at_us: int, rows: Mapping[str, Sequence[Sequence[object]]]) -> None:
    """Write entries into the caller's transaction."""
    entries: list[tuple[int, str, bytes, int]] = []
    for topic, said in rows.items():
        for start in range(0, len(said), ENTRY_ROWS):
            content = _encoder.encode(said[start : start + ENTRY_ROWS])
            entries.append((at_us, topic, content, zlib.crc32(content)))
    if entries:
        # The numbers are the store's own: a sequence of the database's has a gap for each transaction that failed.
        first = take_numbers(connection, "log", len(entries))
        run(connection, _APPEND, [(first + place, *entry) for place, entry in enumerate(entries)])


def after(connection: Connection, cursor: int, topics: Sequence[str] = TOPICS, limit: int = 100) -> Iterator[Entry]:
    """The entries after `cursor`, in order, of these topics.

    Raises:
        StoreDamaged: an entry is not what was written. It is not served.
    """
    selected = select(log).where(log.c.sequence > cursor, log.c.topic.in_(topics))
    selected = selected.order_by(log.c.sequence).limit(limit)
    for sequence, at_us, topic, content, crc in connection.execute(selected):
        if zlib.crc32(content) != crc:
            raise StoreDamaged(
                f"entry {sequence} of the log does not match its checksum; it is not served. Go on behind it with a "
                "cursor of its own number, and read the readings instead"
            )
        yield Entry(sequence, at_us, topic, msgpack.unpackb(content, raw=False))


def first_after(connection: Connection, cursor: int, topics: Sequence[str] = TOPICS) -> int | None:
    """The number of the first entry after `cursor` of these topics, damaged or not; None: there is none."""
    chosen = select(func.min(log.c.sequence)).where(log.c.sequence > cursor, log.c.topic.in_(topics))
    found: int | None = connection.scalar(chosen)
    return found


def ends(connection: Connection) -> tuple[int, int]:
    """The cursor before the first entry that is kept, and the number of the last."""
    first = connection.scalar(select(func.min(log.c.sequence)))  # asked alone, each is one look into the index
    last = newest(connection)
    if first is None:
        last = last_number(connection, "log")
        return last, last
    return first - 1, last


def newest(connection: Connection) -> int:
    """The number of the newest entry that is kept; 0 without any."""
    return run(connection, "SELECT MAX(sequence) FROM log").scalar() or 0


def forget(connection: Connection, before_us: int, limit: int = 1000) -> int:
    """Drop entries older than this, the first ones, at most so many: some 40 MiB. Returns how many.

    Whoever has not read them has to read the readings instead.
    """
    first = connection.scalar(select(func.min(log.c.sequence)))
    if first is None:
        return 0
    chosen = (log.c.sequence < first + limit) & (log.c.at_us < before_us)
    return connection.execute(delete(log).where(chosen)).rowcount


def damaged(connection: Connection) -> list[str]:
    """A message for each entry that does not match its checksum, the first 100."""
    found = []
    for sequence, content, crc in stream(connection, "SELECT sequence, content, crc FROM log ORDER BY sequence"):
        if zlib.crc32(content) != crc:
            found.append(f"entry {sequence} of the log does not match its checksum")
            if len(found) == 100:
                break
    return found


_APPEND = "INSERT INTO log (sequence, at_us, topic, content, crc) VALUES (?, ?, ?, ?, ?)"
