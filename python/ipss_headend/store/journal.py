"""What the reactor hands over becomes durable here: one batch, one transaction, all or nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection

from ipss_headend.store import counters, log, marks
from ipss_headend.store.marks import MarkRow
from ipss_headend.store.records import READING_COLUMNS, ReadingRow

EventRow = tuple[int, int, int, int, str]
"""(meter_id, at_us, kind, number, detail); kinds are the session's EventKind."""

RefusalRow = tuple[int, int, int, int]
"""(meter_id, request_id, item, code)."""

EndRow = tuple[int, int, int, int, int, str]
"""(request_id, meter_id, outcome, exchanges, duration_us, detail); outcomes are the session's Outcome."""

PeerCounterRow = tuple[int, int]
"""(meter_id, counter)."""


@dataclass(frozen=True, slots=True)
class WriteBatch:
    """Rows of any number of the reactor's batches, in order, and the marks that they justify."""

    readings: Sequence[ReadingRow] = ()
    events: Sequence[EventRow] = ()
    refusals: Sequence[RefusalRow] = ()
    ends: Sequence[EndRow] = ()
    peer_counters: Sequence[PeerCounterRow] = ()
    marks: Sequence[MarkRow] = ()


class Written(NamedTuple):
    """What a batch added. A reading that was there already is no error: it is the same reading."""

    readings: int
    duplicates: int


def write(connection: Connection, batch: WriteBatch, received_us: int, epoch: int) -> Written:
    """Store a batch inside the caller's transaction; it is acknowledged when that has ended."""
    added = 0
    if batch.readings:
        added = connection.exec_driver_sql(_READINGS, list(batch.readings)).rowcount
        connection.exec_driver_sql(_LEDGER, (received_us, epoch, added))
    if batch.events:
        connection.exec_driver_sql(_EVENTS, list(batch.events))
    if batch.refusals:
        connection.exec_driver_sql(_REFUSALS, [(*row, received_us, epoch) for row in batch.refusals])
    if batch.ends:
        connection.exec_driver_sql(_ENDS, [(*row, received_us, epoch) for row in batch.ends])
    log.append(connection, received_us, {log.READINGS: batch.readings, log.EVENTS: batch.events})
    counters.raise_peer(connection, batch.peer_counters)
    marks.advance(connection, batch.marks)
    return Written(added, len(batch.readings) - added)


_READINGS = (
    f"INSERT INTO readings ({', '.join(READING_COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608 - constants
    "ON CONFLICT DO NOTHING"
)
_LEDGER = "INSERT INTO ledger (written_us, epoch, readings) VALUES (?, ?, ?)"
_EVENTS = "INSERT INTO events (meter_id, at_us, kind, number, detail) VALUES (?, ?, ?, ?, ?)"
_REFUSALS = "INSERT INTO refusals (meter_id, request_id, item, code, received_us, epoch) VALUES (?, ?, ?, ?, ?, ?)"
_ENDS = (
    "INSERT INTO ends (request_id, meter_id, outcome, exchanges, duration_us, detail, received_us, epoch) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
