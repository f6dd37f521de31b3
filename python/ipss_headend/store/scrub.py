"""Damage is looked for when nobody asks (R3): all that is stored is compared with its checksums, in pieces.

A turn walks through the readings, then through the log, in the order of their keys, some 64 KiB a piece, each in a view
of its own; what it keeps between two pieces is a `Place`. At its end it counts: as many lines as the ledger knows must
be there, in one view, and SQLite's own pages must be sound. Nothing here waits, and nothing but `note` writes: that is
`scrubber.py`'s.

What is found is remembered in the table `damage` until a turn does not find it any more, so that it is told once.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgpack
from sqlalchemy import Connection

from ipss_headend.errors import StoreDamaged, StoreError
from ipss_headend.store import journal, log, partitions, readings
from ipss_headend.store.journal import WriteBatch
from ipss_headend.store.records import READING_COLUMNS, check
from ipss_headend.store.statements import is_postgresql, last_number, rows, run

STORE_DAMAGED = 1004
"""The kind of the event about what is damaged or missing; `field/reactor.py` has all kinds."""

PIECE_ROWS = 500
PIECE_OCTETS = 64 << 10
"""A piece ends at the first of the two: some milliseconds."""

LOG_ROWS = 16
"""Entries of the log have up to 40 KiB each."""

REMEMBERED = 1000
"""What is damaged is remembered one by one up to here, and counted beyond."""

SINGLY = 16
"""Meters that are tried one by one where nothing can be read; then twice as many are left out each time."""

ROW_OCTETS = 48
"""Of a line beside its cells."""

DETAIL_CHARS = 300


class Found(NamedTuple):
    """Something that is damaged or missing."""

    what: str
    """The same for the same thing in each turn."""
    detail: str
    """For people; never what the damaged octets are."""
    records: int = 1
    """How many records."""


class Place(NamedTuple):
    """Where a turn stands."""

    subject: str = "readings"
    """`readings`, `log`, or `whole`: what can only be seen of all at once."""
    after: tuple[int, ...] = (-(2**31), 0, 0, 0)
    """The key of the last record that was looked at."""
    tries: int = 0
    """How many places before this one were not readable."""

    def packed(self) -> bytes:
        """As it is stored."""
        packed: bytes = msgpack.packb(tuple(self))
        return packed


class Piece(NamedTuple):
    """What looking at one piece gave."""

    found: Sequence[Found]
    records: int
    octets: int
    next: Place | None
    """None: the turn is over."""


class Noted(NamedTuple):
    """What `note` made of a piece."""

    new: Sequence[Found]
    """What was not known."""
    events: int
    """As many were written."""
    gone: Sequence[str]
    """What was known, and a whole turn has not found any more."""
    beyond: int
    """Damaged records of this turn that are only counted."""
    damaged: int
    """All that is known to be damaged or missing now."""


class State(NamedTuple):
    """How far the store has been looked at."""

    began_us: int
    """When the turn in work, or the last one, began."""
    records: int
    """Looked at since."""
    beyond: int
    """Damaged ones among them that are only counted."""
    place: Place | None
    """None: no turn is in work."""
    ended_us: int
    """When the last whole turn was over; 0: none ever was."""
    ended_records: int


class Damage(NamedTuple):
    """Something found, as it is remembered."""

    what: str
    detail: str
    found_us: int


def look(connection: Connection, place: Place, interrupted: Callable[[], bool] = lambda: False) -> Piece:
    """Look at the next piece, in the caller's view. `interrupted` is asked now and then where a piece may be long.

    Raises:
        StoreDamaged, StoreError: the place cannot be read; `unreadable` says how to go on.
    """
    if place.subject == "readings":
        return _readings(connection, place)
    if place.subject == "log":
        return _log(connection, place.after[0])
    return Piece(_whole(connection, interrupted), 0, 0, None)


def unreadable(place: Place, error: StoreError) -> Piece:
    """What stands for a piece that the database cannot even read: the turn goes on behind it."""
    where = f"{place.subject} after {place.after[0]}" if place.after else place.subject
    found = [Found(where, f"{where}: {error}"[:DETAIL_CHARS])]
    if place.subject == "readings":
        # The next meter's lines are on another page, or some meters on: few tries, however much is gone.
        meter = max(0, place.after[0] + (1 << max(0, place.tries - SINGLY)))
        if meter < 2**31:
            return Piece(found, 0, PIECE_OCTETS, Place("readings", (meter, -1, 0, 0), place.tries + 1))
        return Piece(found, 0, PIECE_OCTETS, Place("log", (0,)))
    if place.subject == "log":
        skipped = place.after[0] + LOG_ROWS
        return Piece(found, 0, PIECE_OCTETS, Place("log", (skipped,)))
    return Piece(found, 0, 0, None)


def note(connection: Connection, piece: Piece, state: State, now_us: int, epoch: int) -> Noted:
    """Remember what a piece gave, in the caller's transaction: an event for each thing that is new.

    `state` is as it is after the piece. At the end of a turn, what it has not found any more is forgotten.
    """
    known = {what for (what,) in rows(connection, "SELECT what FROM damage")}
    seen = [(state.began_us, one.what) for one in piece.found if one.what in known]
    if seen:
        run(connection, _SEEN, seen)
    new = list({one.what: one for one in piece.found if one.what not in known}.values())
    kept = new[: max(0, REMEMBERED - len(known))]
    if kept:
        run(connection, _FOUND, [(one.what, journal.plain(one.detail), now_us, state.began_us) for one in kept])
    events = [(journal.NOBODY, now_us, STORE_DAMAGED, one.records, one.detail) for one in kept]
    rest = sum(one.records for one in new[len(kept) :])
    if rest:
        events.append((journal.NOBODY, now_us, STORE_DAMAGED, rest, f"{rest} more records are damaged or missing"))
    if events:
        journal.write(connection, WriteBatch(events=events), now_us, epoch)
    gone: list[str] = []
    if state.place is None:
        gone = [what for (what,) in rows(connection, _GONE, (state.began_us,))]
    beyond = state.beyond + rest
    place = b"" if state.place is None else state.place.packed()
    run(connection, "DELETE FROM scrub")
    run(connection, _STATE, (*state[:2], beyond, place, *state[4:]))
    return Noted(new, len(events), gone, beyond, len(damage(connection)) + beyond)


def state(connection: Connection) -> State:
    """How far the store has been looked at; a store that never was has no times."""
    found = rows(connection, "SELECT began_us, records, beyond, place, ended_us, ended_records FROM scrub")
    if not found:
        return State(0, 0, 0, None, 0, 0)
    began_us, records, beyond, octets, ended_us, ended_records = found[0]
    return State(began_us, records, beyond, _unpacked(octets), ended_us, ended_records)


def damage(connection: Connection) -> list[Damage]:
    """What is damaged or missing, the first found first."""
    return [Damage(*row) for row in rows(connection, "SELECT what, detail, found_us FROM damage ORDER BY 3, 1")]


def _unpacked(octets: bytes) -> Place | None:
    # The scrubber's own row may be what is damaged: then the turn begins again.
    if not octets:
        return None
    try:
        subject, after, tries = msgpack.unpackb(octets)
        return Place(str(subject), tuple(map(int, after)), int(tries))
    except (ValueError, TypeError, msgpack.exceptions.UnpackException):
        return Place()


def _readings(connection: Connection, place: Place) -> Piece:
    found: list[Found] = []
    octets = records = 0
    after: tuple[int, ...] | None = None
    taken = rows(connection, _AFTER, (*place.after, PIECE_ROWS))
    for number, row in enumerate(taken, 1):
        try:
            check(row)
        except StoreDamaged as damaged:
            # A key that may be wrong is no place to go on from: the next piece begins behind the last intact line.
            found.append(Found(f"reading {row[:4]!r}"[:DETAIL_CHARS], str(damaged)[:DETAIL_CHARS]))
            continue
        after, records = row[:4], number
        octets += ROW_OCTETS + len(row[8])
        if octets >= PIECE_OCTETS:
            return Piece(found, records, octets, Place("readings", after))
    if len(taken) < PIECE_ROWS:
        return Piece(found, len(taken), octets, Place("log", (0,)))
    if after is None or after <= place.after:
        behind = unreadable(place, StoreDamaged(f"no reading after {place.after} is intact"))
        return behind._replace(found=[*found, *behind.found], records=len(taken))
    return Piece(found, records, octets, Place("readings", after))


def _log(connection: Connection, after: int) -> Piece:
    kept, _ = log.ends(connection)
    last = last_number(connection, "log")
    after = max(after, kept)  # what is kept no longer is not missing
    until = min(after + LOG_ROWS, last)
    seen, octets = set(), 0
    found = []
    for sequence, content, crc in rows(connection, _ENTRIES, (after, until)):
        seen.add(sequence)
        octets += len(content)
        if zlib.crc32(content) != crc:
            found.append(Found(f"log {sequence}", f"entry {sequence} of the log does not match its checksum"))
    found += [
        Found(f"log {sequence}", f"entry {sequence} of the log is missing")
        for sequence in range(after + 1, until + 1)
        if sequence not in seen
    ]
    following = Place("log", (until,)) if until < last else Place("whole", ())
    return Piece(found, len(seen), octets, following)


def _whole(connection: Connection, interrupted: Callable[[], bool]) -> list[Found]:
    """What is seen of all at once: SQLite's pages, and whether as many lines are there as were written."""
    found: list[Found] = []
    if is_postgresql(connection):  # which looks at its pages' checksums whenever it reads them
        counted = 0
        for table in (partitions.DEFAULT, *(month.table for month in partitions.existing(connection))):
            if interrupted():
                return []
            counted += run(connection, f"SELECT count(*) FROM {table}").scalar_one()  # noqa: S608 - our own names
    else:
        raw: Any = connection.connection.dbapi_connection
        raw.set_progress_handler(interrupted, 100_000)
        try:
            for (text,) in run(connection, "PRAGMA integrity_check(20)"):
                if text != "ok":
                    found.append(Found(f"structure: {text}"[:DETAIL_CHARS], f"the file's pages: {text}"[:DETAIL_CHARS]))
            counted = run(connection, "SELECT count(*) FROM readings").scalar_one()
        finally:
            raw.set_progress_handler(None, 0)
    missing = readings.line_count(connection) - counted
    if missing > 0:
        found.append(Found(f"readings {missing}", f"{missing} lines that were written are not there", missing))
    elif missing < 0:
        found.append(Found(f"readings {missing}", f"{-missing} lines are there that were never written", -missing))
    return found


_AFTER = (
    f"SELECT {', '.join(READING_COLUMNS)} FROM readings "  # noqa: S608 - constants
    "WHERE (meter_id, layout_id, capture_time_us, entry_hash) > (?, ?, ?, ?) "
    "ORDER BY meter_id, layout_id, capture_time_us, entry_hash LIMIT ?"
)
_ENTRIES = "SELECT sequence, content, crc FROM log WHERE sequence > ? AND sequence <= ? ORDER BY sequence"
_FOUND = "INSERT INTO damage (what, detail, found_us, seen_us) VALUES (?, ?, ?, ?)"
_SEEN = "UPDATE damage SET seen_us = ? WHERE what = ?"
_GONE = "DELETE FROM damage WHERE seen_us < ? RETURNING what"
_STATE = (
    "INSERT INTO scrub (id, began_us, records, beyond, place, ended_us, ended_records) VALUES (1, ?, ?, ?, ?, ?, ?)"
)
