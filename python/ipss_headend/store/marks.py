"""What has been read whole, and what is missing.

Two questions, kept apart. *Was it asked?* A mark is the set of capture times of one meter and layout for which the
meter has given everything it had: a window is added when its request has ended well, in the transaction that stores
its lines (R1). What no mark covers is due. *Is it there?* A meter has no entry for a time without power, though it was
asked: `gaps` compares the lines with the capture period.

Windows are half open, [from, until), in microseconds of UTC. The asker ends a window no later than the newest capture
time that the meter can have had, or the mark would cover what is not captured yet.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgpack
from sqlalchemy import Connection, bindparam, func, select

from ipss_headend.store.schema import marks, readings
from ipss_headend.store.statements import run

MarkRow = tuple[int, int, int, int]
"""(meter_id, layout_id, from_us, until_us): this window was read whole."""


class Window(NamedTuple):
    """Capture times from `from_us` to before `until_us`."""

    from_us: int
    until_us: int


class DueWindow(NamedTuple):
    """A window to ask one meter for."""

    meter_id: int
    layout_id: int
    from_us: int
    until_us: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """A set of capture times, as windows that neither touch nor overlap, in order."""

    windows: tuple[Window, ...] = ()

    def with_window(self, from_us: int, until_us: int) -> "Coverage":
        """The set with one window more."""
        if from_us >= until_us:
            return self
        kept = []
        for window in self.windows:
            if window.until_us < from_us or window.from_us > until_us:
                kept.append(window)
            else:
                from_us, until_us = min(from_us, window.from_us), max(until_us, window.until_us)
        kept.append(Window(from_us, until_us))
        return Coverage(tuple(sorted(kept)))

    def missing(self, from_us: int, until_us: int) -> list[Window]:
        """The parts of a window that are not in the set, in order."""
        found = []
        for window in self.windows:
            if window.until_us <= from_us:
                continue
            if window.from_us >= until_us:
                break
            if window.from_us > from_us:
                found.append(Window(from_us, window.from_us))
            from_us = window.until_us
        if from_us < until_us:
            found.append(Window(from_us, until_us))
        return found

    @property
    def contiguous_until_us(self) -> int | None:
        """Everything from the first time ever asked for to this one was read: what billing may count on."""
        return self.windows[0].until_us if self.windows else None

    @property
    def gaps(self) -> list[Window]:
        """What lies between the windows."""
        return self.missing(self.windows[0].from_us, self.windows[-1].until_us) if self.windows else []


def advance(connection: Connection, rows: Iterable[MarkRow]) -> None:
    """Add windows to their marks. Belongs into the transaction that stores the windows' lines."""
    added: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for meter, layout, from_us, until_us in rows:
        added.setdefault((meter, layout), []).append((from_us, until_us))
    by_mark = _stored_marks(connection, added)
    for key, windows in added.items():
        mark = by_mark.get(key, Coverage())
        for from_us, until_us in windows:
            mark = mark.with_window(from_us, until_us)
        by_mark[key] = mark
    stored = [
        (meter, layout, mark.windows[0].from_us, mark.windows[-1].until_us, msgpack.packb(mark.gaps))
        for (meter, layout), mark in by_mark.items()
        if mark.windows
    ]
    if stored:
        run(connection, _REPLACE, stored)


def coverage(connection: Connection, meter_id: int, layout_id: int) -> Coverage:
    """The mark of one meter and layout; empty if nothing was ever read whole."""
    mark = _MARKS.where(marks.c.meter_id == meter_id, marks.c.layout_id == layout_id)
    for _, *row in connection.execute(mark):
        return _coverage(*row)
    return Coverage()


def due_windows(
    connection: Connection,
    meter_ids: Sequence[int],
    layout_id: int,
    from_us: int,
    until_us: int,
    longest_us: int,
) -> list[DueWindow]:
    """What is to be asked so that the meters' marks cover [from, until): none longer than `longest_us`.

    The newest first, over all meters: today's readings are worth more than last month's.
    """
    if longest_us <= 0:
        raise ValueError(f"windows of {longest_us} us would never end")
    among = marks.c.meter_id.between(min(meter_ids, default=0), max(meter_ids, default=0))
    known = {
        meter: _coverage(*mark)
        for meter, *mark in connection.execute(_MARKS.where(marks.c.layout_id == layout_id, among))
    }
    due = []
    for meter in meter_ids:
        for window in known.get(meter, Coverage()).missing(from_us, until_us):
            end_us = window.until_us
            while end_us > window.from_us:
                start_us = max(window.from_us, end_us - longest_us)
                due.append(DueWindow(meter, layout_id, start_us, end_us))
                end_us = start_us
    due.sort(key=lambda window: window.until_us, reverse=True)
    return due


def gaps(
    connection: Connection, meter_id: int, layout_id: int, from_us: int, until_us: int, period_us: int
) -> list[Window]:
    """The capture periods of [from, until) without any line, adjoining ones as one window.

    Periods are counted from 1970-01-01T00:00Z, so a local day of 23 or 25 hours has 92 or 100 quarter-hours. A line
    anywhere within a period fills it: clocks drift, and are set.
    """
    first, last = -(-from_us // period_us), -(-until_us // period_us)
    times = connection.scalars(
        select(readings.c.capture_time_us).where(
            readings.c.meter_id == meter_id,
            readings.c.layout_id == layout_id,
            readings.c.capture_time_us >= first * period_us,
            readings.c.capture_time_us < last * period_us,
        )
    )
    there = sorted({time_us // period_us for time_us in times})
    missing = []
    expected = first
    for period in [*there, last]:
        if period > expected:
            missing.append(Window(expected * period_us, period * period_us))
        expected = period + 1
    return missing


class Completeness(NamedTuple):
    """How many capture periods of a time span have a line, of one meter."""

    meter_id: int
    expected: int
    found: int


def completeness(
    connection: Connection,
    meter_ids: Sequence[int],
    layout_ids: Sequence[int],
    from_us: int,
    until_us: int,
    period_us: int,
) -> list[Completeness]:
    """For each meter, the capture periods of [from, until) and how many have a line of any of the layouts.

    A plan's profile has one layout unless its columns changed, then it has each.
    """
    expected = -(-until_us // period_us) - -(-from_us // period_us)
    period = readings.c.capture_time_us.op("/")(period_us)
    counted = select(func.count(period.distinct())).where(
        readings.c.meter_id == bindparam("meter"),
        readings.c.layout_id.in_(layout_ids),
        readings.c.capture_time_us >= -(-from_us // period_us) * period_us,
        readings.c.capture_time_us < -(-until_us // period_us) * period_us,
    )
    return [
        Completeness(meter, expected, connection.execute(counted, {"meter": meter}).scalar_one()) for meter in meter_ids
    ]


def _stored_marks(connection: Connection, keys: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Coverage]:
    # One question for many: asked one by one they cost more than the lines that they stand for.
    by_layout: dict[int, list[int]] = {}
    for meter, layout in keys:
        by_layout.setdefault(layout, []).append(meter)
    found = {}
    for layout, meters in by_layout.items():
        for start in range(0, len(meters), _CHUNK):
            chosen = marks.c.meter_id.in_(meters[start : start + _CHUNK])
            for meter, *mark in connection.execute(_MARKS.where(marks.c.layout_id == layout, chosen)):
                found[meter, layout] = _coverage(*mark)
    return found


def _coverage(from_us: int, until_us: int, packed_gaps: bytes) -> Coverage:
    edges = [from_us]
    for gap_from_us, gap_until_us in msgpack.unpackb(packed_gaps):
        edges += [gap_from_us, gap_until_us]
    edges.append(until_us)
    return Coverage(tuple(Window(*edges[place : place + 2]) for place in range(0, len(edges), 2)))


_CHUNK = 500
_MARKS = select(marks.c.meter_id, marks.c.from_us, marks.c.until_us, marks.c.gaps)
_REPLACE = (
    "INSERT INTO marks (meter_id, layout_id, from_us, until_us, gaps) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (meter_id, layout_id) DO UPDATE "
    "SET from_us = excluded.from_us, until_us = excluded.until_us, gaps = excluded.gaps"
)
