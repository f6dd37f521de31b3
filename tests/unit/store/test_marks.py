"""What was read whole, what is due, and what is missing: checked against plain sets of moments."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipss_headend.store import Database, WriteBatch, journal, marks, reading_row
from ipss_headend.store.marks import Coverage, DueWindow, Window

QUARTER_US = 900_000_000

windows = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)))


@given(windows, st.integers(0, 40), st.integers(0, 40))
def test_coverage_is_a_set_of_moments(added: list[tuple[int, int]], start: int, end: int) -> None:
    mark = Coverage()
    moments: set[int] = set()
    for from_us, until_us in added:
        mark = mark.with_window(from_us, until_us)
        moments |= set(range(from_us, until_us))

    missing = mark.missing(start, end)

    assert {moment for window in mark.windows for moment in range(*window)} == moments
    assert {moment for window in missing for moment in range(*window)} == set(range(start, end)) - moments
    for one, following in zip(mark.windows, mark.windows[1:], strict=False):
        assert one.until_us < following.from_us


@given(st.permutations([(0, 10), (10, 20), (20, 30), (40, 50)]))
def test_order_of_reading_does_not_matter(order: list[tuple[int, int]]) -> None:
    mark = Coverage()
    for window in order:
        mark = mark.with_window(*window)

    assert mark.windows == ((0, 30), (40, 50))
    assert mark.contiguous_until_us == 30
    assert mark.gaps == [(30, 40)]


def test_mark_comes_back_as_it_was_stored(database: Database) -> None:
    with database.writing() as connection:
        marks.advance(connection, [(1, 1, 0, 10), (1, 1, 20, 30), (2, 1, 5, 6), (1, 1, 50, 60), (1, 2, 7, 7)])
        marks.advance(connection, [(1, 1, 8, 22)])

    with database.reading() as connection:
        assert marks.coverage(connection, 1, 1).windows == ((0, 30), (50, 60))
        assert marks.coverage(connection, 2, 1).windows == ((5, 6),)
        assert marks.coverage(connection, 1, 2) == Coverage()


def test_due_windows_are_what_no_mark_covers_newest_first(database: Database) -> None:
    with database.writing() as connection:
        marks.advance(connection, [(1, 7, 0, 40), (1, 7, 60, 70), (2, 7, 0, 100), (1, 8, 0, 100)])

    with database.reading() as connection:
        due = marks.due_windows(connection, [1, 2, 3], 7, 20, 100, longest_us=25)

    assert due == [
        DueWindow(1, 7, 75, 100),
        DueWindow(3, 7, 75, 100),
        DueWindow(1, 7, 70, 75),
        DueWindow(3, 7, 50, 75),
        DueWindow(1, 7, 40, 60),
        DueWindow(3, 7, 25, 50),
        DueWindow(3, 7, 20, 25),
    ]


def test_windows_without_length_are_refused(database: Database) -> None:
    with database.reading() as connection, pytest.raises(ValueError, match="never end"):
        marks.due_windows(connection, [1], 1, 0, 10, longest_us=0)


@pytest.mark.parametrize(("day", "quarters"), [("2026-03-29", 92), ("2026-10-25", 100), ("2026-07-01", 96)])
def test_gaps_of_a_local_day_count_its_own_quarter_hours(database: Database, day: str, quarters: int) -> None:
    start = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo("Europe/Prague"))
    from_us = int(start.timestamp()) * 1_000_000
    until_us = int((start + timedelta(days=1)).timestamp()) * 1_000_000
    captured = [from_us + n * QUARTER_US for n in range(quarters) if n not in (0, 10, 11, quarters - 1)]
    with database.writing() as connection:
        rows = [reading_row(1, 1, time_us, [1], received_us=until_us) for time_us in captured]
        journal.write(connection, WriteBatch(rows), 0, 1)

    with database.reading() as connection:
        missing = marks.gaps(connection, 1, 1, from_us, until_us, QUARTER_US)
        [complete] = marks.completeness(connection, [1], [1], from_us, until_us, QUARTER_US)

    assert missing == [
        Window(from_us, from_us + QUARTER_US),
        Window(from_us + 10 * QUARTER_US, from_us + 12 * QUARTER_US),
        Window(until_us - QUARTER_US, until_us),
    ]
    assert (complete.expected, complete.found) == (quarters, quarters - 4)


def test_line_off_the_quarter_hour_fills_its_period(database: Database) -> None:
    with database.writing() as connection:
        rows = [reading_row(1, 1, time_us, [1], received_us=0) for time_us in (7, QUARTER_US + 1, QUARTER_US + 2)]
        journal.write(connection, WriteBatch(rows), 0, 1)

    with database.reading() as connection:
        assert marks.gaps(connection, 1, 1, 0, 3 * QUARTER_US, QUARTER_US) == [(2 * QUARTER_US, 3 * QUARTER_US)]


def test_meter_that_never_answered_is_one_gap(database: Database) -> None:
    with database.reading() as connection:
        assert marks.gaps(connection, 9, 1, 0, 3 * QUARTER_US, QUARTER_US) == [(0, 3 * QUARTER_US)]
        assert marks.gaps(connection, 9, 1, 0, 0, QUARTER_US) == []
