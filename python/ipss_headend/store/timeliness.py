"""What arrived in time, from what the store keeps of each line: when it was captured and when it came.

A *series* is what a plan reads of each of its meters: a profile, whose intervals are due at their capture times, or an
object, which is due at each turn of the plan. An interval is *there* if there is a line of its period, and in time if
the first of them came soon enough. It is judged by a horizon once that has passed: the youngest may still come.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import Connection, select

from ipss_headend.store.database import READERS, Database
from ipss_headend.store.marks import Window
from ipss_headend.store.schema import commands, meters, orders
from ipss_headend.store.statements import is_postgresql, rows

DAY_US = 86_400_000_000

TOGETHER = {False: 50, True: 500}
"""Meters of one view; PostgreSQL is asked of all of them at once, SQLite, which is in the process, of one by one."""


@dataclass(frozen=True, slots=True)
class Series:
    """What a plan reads of each of its meters."""

    plan: str
    what: str
    """The logical name of the profile or object."""
    layouts: tuple[int, ...]
    period_us: int
    by_turn: bool = False
    """Due at the plan's turn, not at the capture time."""
    turns: tuple[int, ...] = ()
    """With turns of days, which follow the local calendar: their moments. Empty: every `period_us` of UTC."""


class Span(NamedTuple):
    """What is asked about: due within [from, until), seen from `now`."""

    from_us: int
    until_us: int
    now_us: int
    horizons_us: tuple[int, ...]

    def judged(self, horizon_us: int) -> int:
        """Until when this horizon has passed."""
        return max(min(self.until_us, self.now_us - horizon_us), self.from_us)


@dataclass(slots=True)
class Tally:
    """Intervals of one meter and series, or of many."""

    expected: int = 0
    found: int = 0
    due: list[int] = field(default_factory=list)
    """By horizon: of those expected, whose horizon has passed."""
    within: list[int] = field(default_factory=list)
    """Of these, that came within it."""

    def add(self, other: Tally) -> None:
        """Count another one in."""
        self.expected += other.expected
        self.found += other.found
        zeros = [0] * len(other.due)
        self.due = [a + b for a, b in zip(self.due or zeros, other.due, strict=True)]
        self.within = [a + b for a, b in zip(self.within or zeros, other.within, strict=True)]


class Outcome(NamedTuple):
    """How a critical command of the span stands."""

    kind: str
    state: str
    seconds: float
    """From its order to its last change."""


def tallies(database: Database, series: Series, added: Mapping[int, int], span: Span) -> dict[int, Tally]:
    """What came of a series, by meter. `added`: the meters, and since when each is in the registry."""
    numbers = sorted(added)
    with database.reading() as connection:
        together = TOGETHER[is_postgresql(connection)]
    parts = [numbers[start : start + together] for start in range(0, len(numbers), together)]

    def one(part: Sequence[int]) -> dict[int, Tally]:
        with database.reading() as connection:
            found = (_turned if series.turns else _counted)(connection, series, _since(added, part, span), span)
        return {meter: _tally(series, max(added[meter], span.from_us), span, found.get(meter)) for meter in part}

    whole: dict[int, Tally] = {}
    with ThreadPoolExecutor(READERS) as workers:  # the databases work outside of the interpreter's lock
        for part in workers.map(one, parts):
            whole |= part
    return whole


def days(database: Database, series: Series, added: Mapping[int, int], span: Span) -> list[tuple[int, int, int]]:
    """By day of UTC: (its beginning, intervals expected, of them there), all meters together."""
    numbers = sorted(added)
    with database.reading() as connection:
        together = TOGETHER[is_postgresql(connection)]
    parts = [numbers[start : start + together] for start in range(0, len(numbers), together)]

    def one(part: Sequence[int]) -> Counter[int]:
        with database.reading() as connection:
            return _daily(connection, series, _since(added, part, span), span)

    found: Counter[int] = Counter()
    with ThreadPoolExecutor(READERS) as workers:
        for counted in workers.map(one, parts):
            found.update(counted)
    shown = []
    for day in range(span.from_us // DAY_US, -(-span.until_us // DAY_US)):
        from_us, until_us = max(day * DAY_US, span.from_us), min((day + 1) * DAY_US, span.until_us)
        expected = sum(_expected(series, max(since, from_us), until_us) for since in added.values())
        shown.append((day * DAY_US, expected, found[day]))
    return shown


def gaps(connection: Connection, series: Series, meter_id: int, span: Span, added_us: int) -> list[Window]:
    """The intervals that are not there, adjoining ones as one window."""
    from_us = max(span.from_us, added_us)
    lines = _lines(connection, series, {meter_id: from_us}, span)[meter_id]
    there = {_index(series, time_us) for time_us, _ in lines}
    moments = _moments(series, from_us, span.until_us)
    missing: list[Window] = []
    for place, moment in enumerate(moments):
        if _index(series, moment) in there:
            continue
        end = moments[place + 1] if place + 1 < len(moments) else span.until_us
        if missing and missing[-1].until_us == moment:
            missing[-1] = Window(missing[-1].from_us, end)
        else:
            missing.append(Window(moment, end))
    return missing


def registered(connection: Connection) -> dict[int, tuple[str, str, int]]:
    """The registry: name, group, and since when, by meter."""
    chosen = select(meters.c.meter_id, meters.c.name, meters.c.group_name, meters.c.added_us)
    return {number: (name, group, added) for number, name, group, added in connection.execute(chosen)}


def outcomes(connection: Connection, span: Span) -> list[Outcome]:
    """The critical commands that were asked for in the span."""
    chosen = (
        select(orders.c.kind, commands.c.state, commands.c.changed_us - orders.c.created_us)
        .join(orders, orders.c.order_id == commands.c.order_id)
        .where(orders.c.created_us >= span.from_us, orders.c.created_us < span.until_us)
    )
    return [Outcome(kind, state, max(took_us, 0) / 1e6) for kind, state, took_us in connection.execute(chosen)]


_Since = dict[int, int]
"""From when on each meter's intervals are looked at."""


class _Found(NamedTuple):
    intervals: int
    within: tuple[int, ...]


def _since(added: Mapping[int, int], part: Sequence[int], span: Span) -> _Since:
    return {meter: max(added[meter], span.from_us) for meter in part}


def _tally(series: Series, from_us: int, span: Span, found: _Found | None) -> Tally:
    within = found.within if found else (0,) * len(span.horizons_us)
    due = [_expected(series, from_us, span.judged(horizon)) for horizon in span.horizons_us]
    expected = _expected(series, from_us, span.until_us)
    return Tally(expected, found.intervals if found else 0, due, list(within))


def _counted(connection: Connection, series: Series, part: _Since, span: Span) -> dict[int, _Found]:
    """Counted by the database; a meter with several lines of an interval is counted once more, by interval."""
    period = series.period_us
    into = f"(capture_time_us - capture_time_us / {period} * {period})"
    late = "received_us - capture_time_us" + (f" + {into}" if series.by_turn else "")
    in_time = ", ".join(
        f"count(*) FILTER (WHERE {late} <= {horizon} AND capture_time_us < {_ceiling(span.judged(horizon), period)})"
        for horizon in span.horizons_us
    )
    chosen = f"SELECT meter_id, count(*), count(DISTINCT capture_time_us), sum({into}), {in_time} "
    found: dict[int, _Found] = {}
    odd = set()
    for meter, lines, times, off, *within in _of_meters(connection, chosen, series, part, span, apart=True):
        if lines != times or off or meter in found:
            odd.add(meter)
        found[meter] = _Found(lines, tuple(within))
    for meter in odd:
        found[meter] = _by_interval(connection, series, meter, part[meter], span)
    return found


def _by_interval(connection: Connection, series: Series, meter: int, since_us: int, span: Span) -> _Found:
    first: dict[int, int] = {}
    for time_us, received_us in _lines(connection, series, {meter: since_us}, span)[meter]:
        place = _index(series, time_us)
        due_us = _due(series, time_us)
        first[place] = min(first.get(place, received_us - due_us), received_us - due_us)
    moments = {_index(series, moment): moment for moment in _moments(series, since_us, span.until_us)}
    within = [
        sum(
            late <= horizon and moments.get(place, span.until_us) < span.judged(horizon)
            for place, late in first.items()
        )
        for horizon in span.horizons_us
    ]
    return _Found(len(first), tuple(within))


def _turned(connection: Connection, series: Series, part: _Since, span: Span) -> dict[int, _Found]:
    return {meter: _by_interval(connection, series, meter, since_us, span) for meter, since_us in part.items()}


def _daily(connection: Connection, series: Series, part: _Since, span: Span) -> Counter[int]:
    found: Counter[int] = Counter()
    if series.turns:
        for lines in _lines(connection, series, part, span).values():
            found.update(_due(series, place) // DAY_US for place in {_due(series, time_us) for time_us, _ in lines})
        return found
    day = f"capture_time_us / {DAY_US}"
    chosen = f"SELECT {day}, count(DISTINCT capture_time_us / {series.period_us}) "
    for number, intervals in _of_meters(connection, chosen, series, part, span, group=f"meter_id, {day}"):
        found[number] += intervals
    return found


def _lines(connection: Connection, series: Series, part: _Since, span: Span) -> dict[int, list[tuple[int, int]]]:
    found: dict[int, list[tuple[int, int]]] = {meter: [] for meter in part}
    for meter, *line in _of_meters(
        connection, "SELECT meter_id, capture_time_us, received_us ", series, part, span, group=""
    ):
        found[meter].append((line[0], line[1]))
    return found


def _of_meters(
    connection: Connection,
    chosen: str,
    series: Series,
    part: _Since,
    span: Span,
    group: str | None = None,
    *,
    apart: bool = False,
) -> Iterable[tuple[int, ...]]:
    if not series.layouts:
        return
    layouts = ", ".join(map(str, series.layouts))
    until_us = span.until_us if series.turns else _ceiling(span.until_us, series.period_us)
    times = "capture_time_us >= ? AND capture_time_us < ?"
    by = "GROUP BY meter_id" if group is None else f"GROUP BY {group}" if group else ""
    alone = dict(part)
    if is_postgresql(connection):
        together = [meter for meter, since_us in part.items() if since_us <= span.from_us]
        where = f"FROM readings WHERE meter_id = ANY(?) AND layout_id IN ({layouts}) AND {times} {by}"
        yield from rows(connection, chosen + where, (together, _first(series, span.from_us), until_us))
        alone = {meter: since_us for meter, since_us in part.items() if since_us > span.from_us}
    # One layout at a time, SQLite walks its index in order and need not sort. A meter seldom has lines of two.
    for of in series.layouts if apart else (layouts,):
        where = f"FROM readings WHERE meter_id = ? AND layout_id IN ({of}) AND {times} {by}"
        for meter, since_us in alone.items():
            yield from rows(connection, chosen + where, (meter, _first(series, since_us), until_us))


def _first(series: Series, from_us: int) -> int:
    """The first moment from which on lines count."""
    if series.turns:
        return next((turn for turn in series.turns if turn >= from_us), 2**62)
    return _ceiling(from_us, series.period_us)


def _expected(series: Series, from_us: int, until_us: int) -> int:
    if until_us <= from_us:
        return 0
    if series.turns:
        return sum(from_us <= turn < until_us for turn in series.turns)
    return -(-until_us // series.period_us) - -(-from_us // series.period_us)


def _moments(series: Series, from_us: int, until_us: int) -> list[int]:
    if series.turns:
        return [turn for turn in series.turns if from_us <= turn < until_us]
    return list(range(_ceiling(from_us, series.period_us), until_us, series.period_us))


def _due(series: Series, time_us: int) -> int:
    """When what was captured then was due."""
    if series.turns:
        return series.turns[max(bisect_right(series.turns, time_us) - 1, 0)]
    return time_us - time_us % series.period_us if series.by_turn else time_us


def _index(series: Series, time_us: int) -> int:
    """Which interval a moment belongs to."""
    return _due(series, time_us) if series.turns else time_us // series.period_us


def _ceiling(moment_us: int, period_us: int) -> int:
    return -(-moment_us // period_us) * period_us
