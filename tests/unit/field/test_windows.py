from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from ipss_headend.field.campaign import waves
from ipss_headend.field.windows import SETTLED_US, by_window, latest_turn, leading_edge_us, mark_of
from ipss_headend.schedule import SECOND_US, Every
from ipss_headend.store.marks import DueWindow, Window

PRAGUE = ZoneInfo("Europe/Prague")
QUARTER_US = 900 * SECOND_US
NOW = 1_767_225_600 * SECOND_US  # 2026-01-01T00:00Z


def moment(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND_US


@pytest.mark.parametrize(
    ("every", "now", "expected"),
    [
        ("15min", "2026-03-01T10:14:59", "2026-03-01T10:00:00"),
        ("15min", "2026-03-01T10:15:00", "2026-03-01T10:15:00"),
        ("1d at 00:10", "2026-03-01T10:00:00", "2026-02-28T23:10:00"),
        ("1d at 00:10", "2026-02-28T23:10:00", "2026-02-28T23:10:00"),
        ("1d at 00:10", "2026-02-28T23:09:59", "2026-02-27T23:10:00"),
        ("1d at 02:30", "2026-03-29T12:00:00", "2026-03-29T01:30:00"),
    ],
)
def test_latest_turn_is_the_last_that_is_not_later(every: str, now: str, expected: str) -> None:
    assert latest_turn(Every.parse(every), moment(now), PRAGUE) == moment(expected)


@pytest.mark.parametrize("every", ["1min", "15min", "1h", "1d at 02:30", "3d at 00:00"])
@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2026-07-01"])
def test_no_turn_lies_between_the_latest_and_now(every: str, day: str) -> None:
    recurrence = Every.parse(every)
    for hour in range(24):
        now = moment(f"{day}T{hour:02}:17:31")

        turn = latest_turn(recurrence, now, PRAGUE)

        assert turn <= now < recurrence.next_after(turn, PRAGUE)


def test_leading_edge_holds_the_newest_capture_and_is_equal_until_the_next() -> None:
    edges = {leading_edge_us(NOW + offset_s * SECOND_US, 900, PRAGUE) for offset_s in (0, 1, 899)}

    assert edges == {NOW + SECOND_US}
    assert leading_edge_us(NOW + QUARTER_US, 900, PRAGUE) == NOW + QUARTER_US + SECOND_US


@pytest.mark.parametrize(
    ("zone", "now", "captured"),
    [
        ("Europe/Prague", "2026-02-28T23:10:00", "2026-02-28T23:00:00"),
        ("Europe/Prague", "2026-07-01T22:10:00", "2026-07-01T22:00:00"),
        ("Europe/Prague", "2026-03-29T10:00:00", "2026-03-29T00:00:00"),
        ("Asia/Kolkata", "2026-02-28T18:40:00", "2026-02-28T18:30:00"),
        ("America/New_York", "2026-03-08T10:00:00", "2026-03-08T05:00:00"),
        ("America/New_York", "2026-03-08T04:59:59", "2026-03-08T00:00:00"),
        ("UTC", "2026-02-28T23:10:00", "2026-02-28T00:00:00"),
    ],
)
def test_a_days_entry_is_asked_for_once_its_midnight_is_over_there(zone: str, now: str, captured: str) -> None:
    assert leading_edge_us(moment(now), 86_400, ZoneInfo(zone)) == moment(captured) + SECOND_US


def test_fresh_window_is_marked_as_far_as_its_lines_reach() -> None:
    window = Window(NOW - 4 * QUARTER_US, NOW + SECOND_US)

    assert mark_of(1, 3, window, NOW - QUARTER_US, NOW) == [(1, 3, window.from_us, NOW - QUARTER_US + SECOND_US)]


def test_fresh_window_without_lines_is_not_marked() -> None:
    assert mark_of(1, 3, Window(NOW - QUARTER_US, NOW + SECOND_US), None, NOW) == []


def test_old_window_is_marked_whole_whatever_came() -> None:
    window = Window(NOW - SETTLED_US - 4 * QUARTER_US, NOW - SETTLED_US)

    assert mark_of(1, 3, window, None, NOW) == [(1, 3, *window)]


def test_line_beyond_the_window_marks_no_more_than_the_window() -> None:
    window = Window(NOW - QUARTER_US, NOW)

    assert mark_of(1, 3, window, NOW + QUARTER_US, NOW) == [(1, 3, *window)]


def test_meters_with_equal_windows_are_asked_together() -> None:
    due = [DueWindow(1, 3, 0, 10), DueWindow(2, 3, 5, 10), DueWindow(3, 3, 0, 10)]

    assert {window: list(meters) for window, meters in by_window(due).items()} == {
        Window(0, 10): [1, 3],
        Window(5, 10): [2],
    }


def test_meters_are_spread_over_the_window_each_at_its_own_place() -> None:
    meters = [(f"meter-{number}", number) for number in range(1000)]

    spread = waves(meters, 300)

    assert spread == waves(meters, 300)
    assert sum(len(members) for _, members in spread) == 1000
    assert len(spread) == 100
    assert all(0 <= offset_s < 300 for offset_s, _ in spread)
    assert max(len(members) for _, members in spread) < 30


def test_plan_without_window_is_one_wave() -> None:
    assert [(offset_s, list(members)) for offset_s, members in waves([("a", 1), ("b", 2)], 0)] == [(0.0, [1, 2])]
