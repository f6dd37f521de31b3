"""What a meter's day comes to: intervals as billing takes them, edited before read before estimated. Pure.

A day is one of the head-end's time zone. Its intervals follow from the lines between `MARGIN_US` before it and
`MARGIN_US` behind it, and from nothing else: whoever settles a day again whenever such a line, a flag or an estimate
came has at the end what comes of settling it once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from ipss_headend.plugins.flags import Flag
from ipss_headend.plugins.intervals import INTERVAL, NO_TIME, PROFILE_CLASS, REGISTER, Series, series_of
from ipss_headend.store.plugins import EstimateRow
from ipss_headend.store.readings import Line
from ipss_headend.store.registry import Layout

HOUR_US = 3_600_000_000
MARGIN_US = HOUR_US
LONGEST_STEP_US = HOUR_US
"""Longer intervals belong to no hour: daily and monthly profiles are left out."""
LEAST_LINES = 2
LONGEST_SPAN_DAYS = 1000
EDITED = "edited"
"""How the method of an estimate begins that a person gave."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_US, _LAST_US = 0, 4_102_444_800_000_000
"""1970 to 2100: other capture times are no times."""

Place = tuple[int, int, int]
"""Layout, place, capture time at the end of the interval."""


@dataclass(frozen=True, slots=True)
class Day:
    """One day of a time zone."""

    day: date
    start_us: int
    end_us: int
    hours: tuple[tuple[int, int], ...]
    """When each begins, and what the clock says then: 23 or 25 of them where the clocks change."""

    def hour_of(self, at_us: int) -> int:
        """The place of the hour that this moment is in."""
        return bisect_right(self.hours, (at_us, 24)) - 1


@lru_cache(maxsize=4096)
def day_of(day: date, zone: ZoneInfo) -> Day:
    """When a day begins and ends, and its hours."""
    start_us, end_us = _midnight(day, zone), _midnight(day + timedelta(days=1), zone)
    hours = []
    at_us = start_us
    while at_us < end_us:
        local = _local(at_us, zone)
        hours.append((at_us, local.hour))
        at_us += HOUR_US - (local.minute * 60 + local.second) * 1_000_000
    return Day(day, start_us, end_us, tuple(hours))


def days_touched(first_us: int, last_us: int, zone: ZoneInfo) -> Iterator[date]:
    """The days that follow from lines between these capture times."""
    first_us, last_us = max(first_us, _FIRST_US), min(last_us, _LAST_US)
    if first_us > last_us:
        return
    day = _local(first_us - MARGIN_US, zone).date()
    last = min(_local(last_us + MARGIN_US, zone).date(), day + timedelta(days=LONGEST_SPAN_DAYS))
    while day <= last:
        yield day
        day += timedelta(days=1)


def columns(layout: Layout) -> dict[int, tuple[int, ...]]:
    """The places of a profile that are active energy import in total (value groups A and C are 1, E is 0)."""
    if layout.class_id != PROFILE_CLASS:
        return {}
    found = {}
    for place, column in enumerate(layout.columns):
        name = tuple(int(part) for part in column.logical_name.split("."))
        energy = column.unit == "Wh" and column.scaler is not None and name[3] in {REGISTER, INTERVAL}
        if energy and name[0] == name[2] == 1 and name[4] == 0:
            found[place] = name
    return found


def settle(
    meter_id: int,
    day: Day,
    layouts: Mapping[int, Layout],
    lines: Mapping[int, Sequence[Line]],
    flags: Mapping[Place, int],
    given: Mapping[Place, EstimateRow],
) -> list[dict[str, Any]]:
    """The series of one meter and day, as `billing_intervals` gets them, by layout and place."""
    found = []
    for layout_id in sorted({*lines, *(place[0] for place in given)}):
        layout = layouts.get(layout_id)
        wanted = {} if layout is None else columns(layout)
        if layout is None or not wanted:
            continue
        read = series_of(meter_id, layout_id, layout, lines.get(layout_id, ()), least=LEAST_LINES)
        by_place = {one.place: one for one in read if one.place in wanted}
        for place in sorted(wanted):
            said = {key[2]: row for key, row in given.items() if key[:2] == (layout_id, place)}
            own = _own(lines.get(layout_id, ()), place) if wanted[place][3] == INTERVAL else {}
            told = _settled(by_place.get(place), own, said, day)
            if told is None:
                continue
            step_us, values = told
            first_us = min(values) - step_us
            ends = range(min(values), max(values) + 1, step_us)
            words = [flags.get((layout_id, place, end), 0) & ~(Flag.ESTIMATED | Flag.EDITED) for end in ends]
            found.append(
                {
                    "source": layout.logical_name,
                    "item": layout.columns[place].logical_name,
                    "scaler": layout.columns[place].scaler,
                    "step_us": step_us,
                    "first_us": first_us,
                    "values": [values.get(end, (None, 0))[0] for end in ends],
                    "flags": [word | values.get(end, (None, 0))[1] for end, word in zip(ends, words, strict=True)],
                }
            )
    return found


def _settled(
    one: Series | None, own: Mapping[int, int], given: Mapping[int, EstimateRow], day: Day
) -> tuple[int, dict[int, tuple[int | None, int]]] | None:
    """The length of an interval, and by its end what it comes to; None: nothing of this day."""
    step_us = one.step_us if one is not None else _step(sorted(given))
    if not 0 < step_us <= LONGEST_STEP_US:
        return None
    values: dict[int, tuple[int | None, int]] = {}
    if one is not None:
        for end, value, known in zip(one.ends_us, one.values, one.known, strict=True):
            values[end] = (_whole(value, one.modulus) if known else None), 0
        # The first line of all has no line before it; of a column that counts its own interval it needs none.
        first = one.ends_us[0] - step_us if one.ends_us else 0
        if first in own:
            values = {first: (_whole(own[first], 0), 0)} | values
    phase = next(iter(values), next(iter(sorted(given)), 0)) % step_us
    for end, row in given.items():
        if row.value is None or end % step_us != phase:
            continue
        if row.method.startswith(EDITED):
            values[end] = row.value, Flag.EDITED
        elif values.get(end, (None, 0))[0] is None:
            values[end] = row.value, Flag.ESTIMATED
    values = {end: told for end, told in values.items() if day.start_us <= end - step_us < day.end_us}
    return (step_us, values) if values else None


def _own(lines: Sequence[Line], place: int) -> dict[int, int]:
    """What lines say of the interval that ends with them; of two of one moment, the one that was received later."""
    cells = {}
    for line in sorted(lines, key=lambda line: (line.capture_time_us, line.received_us)):
        cell = line.cells[place] if place < len(line.cells) else None
        if not line.quality & NO_TIME and isinstance(cell, int):
            cells[line.capture_time_us] = cell
    return cells


def _whole(value: int, modulus: int) -> int | None:
    """A difference with its register's roll-over taken back; None: no energy can be that."""
    if value >= 0:
        return value
    # As validation has it: past its end the register begins again.
    return value + modulus if modulus and -modulus < value < -(modulus // 2) else None


def _step(ends: Sequence[int]) -> int:
    steps = Counter(after - before for before, after in pairwise(ends))
    return min((step for step, count in steps.items() if count == max(steps.values())), default=0)


def _midnight(day: date, zone: ZoneInfo) -> int:
    return (datetime(day.year, day.month, day.day, tzinfo=zone) - _EPOCH) // timedelta(microseconds=1)


def _local(at_us: int, zone: ZoneInfo) -> datetime:
    return (_EPOCH + timedelta(microseconds=at_us)).astimezone(zone)
