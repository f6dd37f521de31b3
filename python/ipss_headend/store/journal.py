"""What the reactor hands over becomes durable here: one batch, one transaction, all or nothing."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, select

from ipss_headend.store import counters, log, marks, quarantine
from ipss_headend.store.bulk import add_readings
from ipss_headend.store.marks import MarkRow
from ipss_headend.store.quarantine import KeptPush, PushRow
from ipss_headend.store.records import ReadingRow
from ipss_headend.store.schema import meters
from ipss_headend.store.statements import run

EventRow = tuple[int, int, int, int, str]
"""(meter_id, at_us, kind, number, detail); kinds are the session's EventKind."""

RefusalRow = tuple[int, int, int, int]
"""(meter_id, request_id, item, code)."""

EndRow = tuple[int, int, int, int, int, str]
"""(request_id, meter_id, outcome, exchanges, duration_us, detail); outcomes are the session's Outcome."""

PeerCounterRow = tuple[int, int]
"""(meter_id, counter)."""


NOBODY = 2**32 - 1
"""Stands for the meter in events about a peer that is not known to be one (the reactor's `NO_METER`)."""

PUSH_UNCLAIMED = 23
"""The kind of the event about an unknown sender; `field/reactor.py` has all kinds."""


@dataclass(frozen=True, slots=True)
class WriteBatch:
    """Rows of any number of the reactor's batches, in order, and the marks that they justify."""

    readings: Sequence[ReadingRow] = ()
    events: Sequence[EventRow] = ()
    refusals: Sequence[RefusalRow] = ()
    ends: Sequence[EndRow] = ()
    peer_counters: Sequence[PeerCounterRow] = ()
    marks: Sequence[MarkRow] = ()
    unclaimed: Sequence[PushRow] = ()
    """Pushes whose sender has no session that could take them."""
    heard: Sequence[int] = ()
    """The numbers of kept pushes that a session has opened or refused: they are kept no longer."""


class Written(NamedTuple):
    """What a batch added. A reading that was there already is no error: it is the same reading."""

    readings: int
    duplicates: int
    unclaimed: Sequence[KeptPush] = ()
    """The pushes that are kept now."""
    dropped: int = 0
    """Kept pushes that gave way to these."""


def write(connection: Connection, batch: WriteBatch, received_us: int, epoch: int) -> Written:
    """Store a batch inside the caller's transaction; it is acknowledged when that has ended."""
    added = 0
    if batch.readings:
        added = add_readings(connection, batch.readings, received_us)
        run(connection, _LEDGER, (received_us, epoch, added))
    kept = quarantine.keep(connection, batch.unclaimed, received_us) if batch.unclaimed else quarantine.Kept([], 0, [])
    events = [*batch.events, *_noticed(connection, kept.new)]
    if events:
        run(connection, _EVENTS, [(*row[:4], plain(row[4])) for row in events])
    if batch.refusals:
        run(connection, _REFUSALS, [(*row, received_us, epoch) for row in batch.refusals])
    if batch.ends:
        run(connection, _ENDS, [(*row[:5], plain(row[5]), received_us, epoch) for row in batch.ends])
    log.append(connection, received_us, {log.READINGS: batch.readings, log.EVENTS: events})
    counters.raise_peer(connection, batch.peer_counters)
    marks.advance(connection, batch.marks)
    quarantine.release(connection, batch.heard)
    return Written(added, len(batch.readings) - added, kept.pushes, kept.dropped)


def _noticed(connection: Connection, pushes: Iterable[PushRow]) -> Iterator[EventRow]:
    """The events of senders that nobody knows and that were not kept before; later pushes are counted only."""
    for title, address, received_us, wpdu in pushes:
        if connection.scalar(select(meters.c.meter_id).where(meters.c.system_title == title)) is None:
            yield (NOBODY, received_us, PUSH_UNCLAIMED, len(wpdu), f"{title.hex()} from {address}")


def plain(text: str) -> str:
    """Text as both databases take it: what a meter says may hold a NUL, which PostgreSQL's text cannot."""
    return text.replace("\0", "\ufffd")


_LEDGER = "INSERT INTO ledger (written_us, epoch, readings) VALUES (?, ?, ?)"
_EVENTS = "INSERT INTO events (meter_id, at_us, kind, number, detail) VALUES (?, ?, ?, ?, ?)"
_REFUSALS = "INSERT INTO refusals (meter_id, request_id, item, code, received_us, epoch) VALUES (?, ?, ?, ?, ?, ?)"
_ENDS = (
    "INSERT INTO ends (request_id, meter_id, outcome, exchanges, duration_us, detail, received_us, epoch) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
