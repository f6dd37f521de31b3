"""What arrived in time is what counting by hand finds, over SQLite and PostgreSQL."""

from __future__ import annotations

import random
from bisect import bisect_right

import pytest

from ipss_headend.store import Database, WriteBatch, journal, reading_row, timeliness
from ipss_headend.store.records import ReadingRow
from ipss_headend.store.timeliness import DAY_US, Series, Span, Tally

FROM_US = 1_767_225_600_000_000
HOUR_US = 3_600_000_000
QUARTER_US = HOUR_US // 4
PROFILE = Series("load profile", "1.0.99.1.0.255", (1, 4), QUARTER_US)
HOURLY = Series("clock", "0.0.1.0.0.255", (2,), HOUR_US, by_turn=True)
TURNS = tuple(FROM_US + day * DAY_US + (23 if day > 1 else 0) * HOUR_US for day in range(4))
DAILY = Series("billing", "1.0.1.8.0.255", (3,), DAY_US, by_turn=True, turns=TURNS)
SPAN = Span(FROM_US, FROM_US + 3 * DAY_US, FROM_US + 3 * DAY_US, (HOUR_US, 6 * HOUR_US, DAY_US))


def line(meter: int, layout: int, captured_us: int, late_us: int, value: int = 1) -> ReadingRow:
    return reading_row(meter, layout, captured_us, [value], received_us=captured_us + late_us)


def write(database: Database, *lines: ReadingRow) -> None:
    with database.writing() as connection:
        journal.write(connection, WriteBatch(lines), 0, database.epoch or 0)


def test_interval_is_in_time_by_each_limit_that_has_passed(database: Database) -> None:
    young = SPAN.until_us - 2 * HOUR_US
    write(
        database,
        line(1, 1, FROM_US, HOUR_US),
        line(1, 1, FROM_US + QUARTER_US, HOUR_US + 1),
        line(1, 1, FROM_US + 2 * QUARTER_US, 2 * DAY_US),
        line(1, 1, young, 5),
    )

    tally = timeliness.tallies(database, PROFILE, {1: 0}, SPAN)[1]

    assert (tally.expected, tally.found) == (3 * 96, 4)
    assert tally.due == [3 * 96 - 4, 3 * 96 - 24, 2 * 96]
    assert tally.within == [2, 2, 2]  # the young one is judged by the hour alone


def test_meter_is_judged_from_when_it_was_registered(database: Database) -> None:
    write(database, *(line(1, 1, FROM_US + place * QUARTER_US, 0) for place in range(3 * 96)))

    tally = timeliness.tallies(database, PROFILE, {1: FROM_US + DAY_US + 1, 2: SPAN.until_us + 5}, SPAN)

    assert (tally[1].expected, tally[1].found) == (2 * 96 - 1, 2 * 96 - 1)
    assert tally[2] == Tally(0, 0, [0, 0, 0], [0, 0, 0])


def test_second_line_of_an_interval_makes_it_neither_two_nor_later(database: Database) -> None:
    write(database, line(1, 1, FROM_US, 0), line(1, 1, FROM_US, 2 * DAY_US, 7), line(1, 4, FROM_US + 5, 9 * DAY_US))

    tally = timeliness.tallies(database, PROFILE, {1: 0}, SPAN)[1]

    assert (tally.found, tally.within) == (1, [1, 1, 1])


def test_register_is_due_at_its_turn(database: Database) -> None:
    write(
        database,
        line(1, 2, FROM_US + HOUR_US - 1, 0),
        line(1, 2, FROM_US + HOUR_US, 1),
        line(1, 3, TURNS[1] + 7 * HOUR_US, 0),
        line(1, 3, TURNS[2] - 1, 0),
        line(1, 3, TURNS[2] + 1, 0),
    )

    hourly = timeliness.tallies(database, HOURLY, {1: 0}, SPAN)[1]
    daily = timeliness.tallies(database, DAILY, {1: 0}, SPAN)[1]

    assert (hourly.expected, hourly.found, hourly.within) == (72, 2, [2, 2, 2])
    assert (daily.expected, daily.found) == (3, 2)
    assert daily.due == [2, 2, 2]
    assert daily.within == [0, 0, 1]


def test_gaps_are_the_intervals_without_a_line(database: Database) -> None:
    there = [*range(10), *range(12, 3 * 96 - 1)]
    write(database, *(line(1, 1, FROM_US + place * QUARTER_US, 0) for place in there))

    with database.reading() as connection:
        found = timeliness.gaps(connection, PROFILE, 1, SPAN, 0)
        daily = timeliness.gaps(connection, DAILY, 1, SPAN, 0)

    assert found == [
        (FROM_US + 10 * QUARTER_US, FROM_US + 12 * QUARTER_US),
        (SPAN.until_us - QUARTER_US, SPAN.until_us),
    ]
    assert daily == [(TURNS[0], SPAN.until_us)]


def test_days_add_up_to_the_whole(database: Database) -> None:
    write(database, *(line(meter, 1, FROM_US + place * QUARTER_US, 0) for meter in (1, 2) for place in range(100)))

    found = timeliness.days(database, PROFILE, {1: 0, 2: 0}, SPAN)

    assert found == [(FROM_US, 192, 192), (FROM_US + DAY_US, 192, 8), (FROM_US + 2 * DAY_US, 192, 0)]


@pytest.mark.parametrize("series", [PROFILE, HOURLY, DAILY], ids=lambda one: one.plan)
def test_any_lines_are_counted_as_by_hand(database: Database, series: Series) -> None:
    """Late, early, drifting, doubled, of two layouts, before and behind the span, of meters that came later."""
    dice = random.Random(series.plan)
    lines: dict[tuple[int, int, int], ReadingRow] = {}
    for number in range(3000):
        meter = dice.randrange(1, 8)
        captured = FROM_US + dice.randrange(-5, 3 * 96 + 5) * QUARTER_US
        captured += dice.choice([0, 0, 0, 17_000_000, -3_000_000]) if meter > 3 else 0
        layout = dice.choice(series.layouts)
        late = dice.choice([0, HOUR_US, HOUR_US + 1, 5 * HOUR_US, DAY_US, 3 * DAY_US])
        lines.setdefault((meter, layout, captured), line(meter, layout, captured, late, number % 2))
    added = {meter: FROM_US + max(0, meter - 5) * 9 * HOUR_US + 1 - (meter < 6) for meter in range(1, 9)}
    write(database, *lines.values())

    found = timeliness.tallies(database, series, added, SPAN)

    for meter, since in added.items():
        if series.turns:
            due = [turn for turn in series.turns if since <= turn < SPAN.until_us]
        else:
            due = [time for time in range(FROM_US, SPAN.until_us, series.period_us) if time >= since]
        first: dict[int, int] = {}
        for _, _, captured, *_, received, _, _, _ in (row for row in lines.values() if row[0] == meter):
            place = bisect_right(due, captured) - 1
            if place < 0 or captured >= SPAN.until_us:
                continue
            late = received - (due[place] if series.by_turn else captured)
            first[due[place]] = min(late, first.get(due[place], late))
        assert (found[meter].expected, found[meter].found) == (len(due), len(first)), meter
        for place, horizon in enumerate(SPAN.horizons_us):
            judged = [moment for moment in due if moment < SPAN.now_us - horizon]
            assert found[meter].due[place] == len(judged)
            assert found[meter].within[place] == sum(first.get(moment, 1 << 62) <= horizon for moment in judged)
