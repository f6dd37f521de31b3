"""Moments and windows of capture times: when a turn is, up to when to ask, and what an answer has proved."""

from array import array
from collections.abc import Iterable
from zoneinfo import ZoneInfo

from ipss_headend.schedule import DAY_S, SECOND_US, Every
from ipss_headend.store.marks import DueWindow, MarkRow, Window

DAY_US = DAY_S * SECOND_US

SETTLED_US = 23 * 3600 * SECOND_US
"""A window this old was read whole when its request was done, lines or not. In a younger one the meter, with a clock
that is slow, may not have captured yet what it is asked for: only what it gave counts."""


def latest_turn(every: Every, now_us: int, zone: ZoneInfo) -> int:
    """The last recurrence that is not later than now."""
    period_us = every.period_s * SECOND_US
    if every.at_s is None:
        return now_us // period_us * period_us
    turn_us = every.next_after(now_us - period_us - 2 * DAY_US, zone)
    while (following_us := every.next_after(turn_us, zone)) <= now_us:
        turn_us = following_us
    return turn_us


def leading_edge_us(now_us: int, period_s: int, zone: ZoneInfo) -> int:
    """Up to when a profile is asked now: a second behind the newest moment at which meters capture.

    The second keeps that moment inside the half-open window, and outside the next one. Equal for all meters between
    two captures, so that they share a request. What is captured by the day is captured at midnight, of UTC or of the
    place: the later of the two counts, or a day's entry would be asked for a day late wherever midnight comes first.
    """
    step_us = max(period_s, 1) * SECOND_US
    newest_us = now_us // step_us * step_us
    if period_s and period_s % DAY_S == 0:
        newest_us = max(newest_us, latest_turn(Every(DAY_S, 0), now_us, zone))
    return newest_us + SECOND_US


def mark_of(meter: int, layout: int, window: Window, newest_us: int | None, asked_us: int) -> list[MarkRow]:
    """What is marked as read whole when a window's request is done; `newest_us` is the newest line that came."""
    reached_us = asked_us - SETTLED_US
    if newest_us is not None:
        reached_us = max(reached_us, newest_us + SECOND_US)
    until_us = min(window.until_us, reached_us)
    return [(meter, layout, window.from_us, until_us)] if window.from_us < until_us else []


def by_window(due: Iterable[DueWindow]) -> dict[Window, "array[int]"]:
    """The meters that share a window, which one submission asks."""
    found: dict[Window, array[int]] = {}
    for meter, _, from_us, until_us in due:
        found.setdefault(Window(from_us, until_us), array("I")).append(meter)
    return found
