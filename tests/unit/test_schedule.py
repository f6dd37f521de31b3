"""Recurrences over clock changes, and names as people write them."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipss_headend.errors import UnknownLogicalName
from ipss_headend.names import ObjectName, logical_name
from ipss_headend.schedule import SECOND_US, Every, spread_s

ZONES = ["Europe/Prague", "America/New_York", "Australia/Lord_Howe", "Asia/Shanghai", "America/St_Johns"]


def _us(moment: datetime) -> int:
    return int(moment.timestamp()) * SECOND_US


def _turns(every: Every, zone: ZoneInfo, start: datetime, end: datetime) -> list[int]:
    turns = []
    moment = _us(start) - 1
    while (moment := every.next_after(moment, zone)) < _us(end):
        turns.append(moment)
    return turns


@pytest.mark.parametrize(("day", "quarters"), [("2026-03-29", 92), ("2026-10-25", 100), ("2026-07-01", 96)])
def test_a_local_day_has_its_quarter_hours(day: str, quarters: int) -> None:
    zone = ZoneInfo("Europe/Prague")
    start = datetime.fromisoformat(day).replace(tzinfo=zone)

    turns = _turns(Every.parse("15min"), zone, start, start + timedelta(days=1))

    assert len(turns) == quarters


@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize("text", ["1d at 00:10", "1d at 02:30"])
def test_daily_turn_comes_once_each_local_day_from_2000_to_2040(name: str, text: str) -> None:
    zone = ZoneInfo(name)
    every = Every.parse(text)

    turns = _turns(every, zone, datetime(2000, 1, 1, tzinfo=zone), datetime(2040, 1, 1, tzinfo=zone))

    days = [datetime.fromtimestamp(turn / SECOND_US, zone).date() for turn in turns]
    assert days == [date(2000, 1, 1) + timedelta(days=n) for n in range(len(days))]
    assert days[-1] == date(2039, 12, 31)


@given(st.integers(0, 4_000_000_000 * SECOND_US), st.sampled_from(["15min", "1h", "1d", "2d at 23:59", "1d at 02:30"]))
def test_next_turn_is_later_and_within_reach(moment: int, text: str) -> None:
    every = Every.parse(text)

    following = every.next_after(moment, ZoneInfo("Europe/Prague"))

    assert moment < following <= moment + (every.period_s + 7200) * SECOND_US


def test_spread_is_stable_and_even() -> None:
    places = [spread_s(f"meter-{n}", 300) for n in range(3000)]

    assert places == [spread_s(f"meter-{n}", 300) for n in range(3000)]
    assert all(0 <= place < 300 for place in places)
    per_minute = [sum(minute * 60 <= place < minute * 60 + 60 for place in places) for minute in range(5)]
    assert max(per_minute) < 1.2 * min(per_minute)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.0.1.8.0.255", ObjectName("1.0.1.8.0.255")),
        ("1-0:1.8.0*255", ObjectName("1.0.1.8.0.255")),
        ("1-0:1.8.0", ObjectName("1.0.1.8.0.255")),
        ("3/1.0.1.8.0.255:2", ObjectName("1.0.1.8.0.255", 3, 2)),
        ("3/1-0:1.8.0*255:3", ObjectName("1.0.1.8.0.255", 3, 3)),
        ("1.0.1.8.0.255:2", ObjectName("1.0.1.8.0.255", None, 2)),
        ("7/1.0.99.1.0.255", ObjectName("1.0.99.1.0.255", 7)),
        (" 01.00.1.8.0.255 ", ObjectName("1.0.1.8.0.255")),
    ],
)
def test_object_names_as_people_write_them(text: str, expected: ObjectName) -> None:
    assert ObjectName.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "1", "1.0.1.8.0.256", "x/1.0.1.8.0.255", "3/", "1.0.1.8.0.255:", "-1.0.1.8.0.255"]
)
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(UnknownLogicalName):
        ObjectName.parse(text)


@given(st.lists(st.integers(0, 255), min_size=6, max_size=6))
def test_both_ways_of_writing_mean_the_same(numbers: list[int]) -> None:
    a, b, c, d, e, f = numbers

    assert logical_name(f"{a}-{b}:{c}.{d}.{e}*{f}") == logical_name(".".join(map(str, numbers)))


@given(st.text(max_size=30))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        assert ObjectName.parse(str(ObjectName.parse(text))) == ObjectName.parse(text)
    except UnknownLogicalName as refused:
        assert text.strip() in str(refused)  # noqa: PT017


def test_utc_alignment_does_not_depend_on_the_zone() -> None:
    moment = _us(datetime(2026, 10, 25, 0, 59, 59, tzinfo=UTC))

    turns = {Every.parse("15min").next_after(moment, ZoneInfo(name)) for name in ZONES}

    assert turns == {_us(datetime(2026, 10, 25, 1, 0, tzinfo=UTC))}
