"""Lines of load profiles as series of intervals, the columns that `billing_validate_batch` gets. Pure.

A column that counts from the start of measurement (value group D of its logical name is 8: "time integral 1") gives
the difference of neighbours; one that counts its own interval (D is 29: "time integral 5") gives its value (Blue Book,
"Value group D"). An interval is named by the capture time at its end. Where a line is missing, or two of a register,
the interval has no value.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ipss_headend.plugins.columns import Buffer
from ipss_headend.store.readings import Line
from ipss_headend.store.records import Quality
from ipss_headend.store.registry import Layout

PROFILE_CLASS = 7
UNITS = frozenset({"Wh", "varh", "VAh"})
REGISTER, INTERVAL = 8, 29
"""Value group D."""
LEAST_LINES = 12
"""Fewer say nothing of what is usual in a series: they are looked at when more have come."""
LONGEST = 20_000
"""Intervals of one series: half a year of quarter hours."""
WIDTHS: tuple[int, ...] = (*[int(10**digits) for digits in range(5, 13)], 2**32)
"""Where registers begin again."""
EDGE = 10
"""A register that begins again was in its last tenth, and is in its first."""
NO_TIME = Quality.RECEIPT_TIME | Quality.CLOCK_WRONG
NEIGHBOURS = 4
LIKE_DAYS = 7
DAY_US = 86_400_000_000


@dataclass(slots=True)
class Series:
    """The intervals of one column of one meter's profile."""

    meter_id: int
    layout_id: int
    place: int
    step_us: int
    ends_us: list[int]
    """The capture time at the end of each interval."""
    values: list[int]
    """0 where it is not known."""
    known: list[bool]
    lines: list[bool]
    """Whether the line at the end of the interval is there."""
    register: list[int | None]
    """The register at the end of each interval, where there is one; the one before the first stands in `begin`."""
    begin: int | None = None
    modulus: int = 0
    parent: int = -1
    """The place, among the series of this meter and layout, of the whole that this is a part of."""
    clock_s: int = 0


def series_of(
    meter_id: int, layout_id: int, layout: Layout, lines: Sequence[Line], clock_s: int = 0, *, least: int = LEAST_LINES
) -> list[Series]:
    """The series of a profile's energy columns; none where the lines are too few or have no common step."""
    columns = _energy(layout)
    if layout.class_id != PROFILE_CLASS or not columns:
        return []
    # Of two lines of one moment the one that was received later stands.
    ordered = sorted(lines, key=lambda line: (line.capture_time_us, line.received_us))
    by_time = {line.capture_time_us: line for line in ordered if not line.quality & NO_TIME}
    if len(by_time) < least:
        return []
    times = sorted(by_time)
    steps = Counter(after - before for before, after in pairwise(times))
    step_us = min(step for step, count in steps.items() if count == max(steps.values()))
    phase = Counter(time % step_us for time in times).most_common(1)[0][0]
    grid_first = next(time for time in times if time % step_us == phase)
    grid_last = next(time for time in reversed(times) if time % step_us == phase)
    grid = list(range(grid_first, grid_last + 1, step_us))[-LONGEST:]
    doubtful = any(line.quality & Quality.CLOCK_DOUBTFUL for line in lines)
    found = []
    for place, name in columns.items():
        cells = [_cell(by_time.get(time), place) for time in grid]
        registers = cells if name[3] == REGISTER else _register_beside(columns, name, by_time, grid)
        one = Series(meter_id, layout_id, place, step_us, grid[1:], [], [], [time in by_time for time in grid[1:]], [])
        one.begin, one.register = registers[0], registers[1:]
        one.clock_s = 2**31 if doubtful else clock_s
        if name[3] == REGISTER:
            differences = [
                None if before is None or after is None else after - before for before, after in pairwise(cells)
            ]
            one.modulus = _modulus(cells)
        else:
            differences = cells[1:]
        one.values = [value or 0 for value in differences]
        one.known = [value is not None for value in differences]
        found.append(one)
    _parents(columns, found)
    return found


def _energy(layout: Layout) -> dict[int, tuple[int, ...]]:
    """Logical names of the columns that are energy, by their places."""
    found = {}
    for place, column in enumerate(layout.columns):
        name = tuple(int(part) for part in column.logical_name.split("."))
        if column.unit in UNITS and column.scaler is not None and name[3] in {REGISTER, INTERVAL}:
            found[place] = name
    return found


def _cell(line: Line | None, place: int) -> int | None:
    if line is None or place >= len(line.cells):
        return None
    cell = line.cells[place]
    return cell if isinstance(cell, int) else None


def _register_beside(
    columns: Mapping[int, tuple[int, ...]], name: tuple[int, ...], by_time: Mapping[int, Line], grid: Sequence[int]
) -> list[int | None]:
    """The register that counts the same as this column of intervals, if the profile captures it."""
    wanted = (*name[:3], REGISTER, *name[4:])
    place = next((place for place, other in columns.items() if other == wanted), None)
    return [None] * len(grid) if place is None else [_cell(by_time.get(time), place) for time in grid]


def _modulus(cells: Sequence[int | None]) -> int:
    """Where this register begins again: known once it was seen to. 0: it was not."""
    for before, after in pairwise(cell for cell in cells if cell is not None):
        if after < before:
            for width in WIDTHS:
                if width - width // EDGE <= before < width and after <= width // EDGE:
                    return width
    return 0


def _parents(columns: Mapping[int, tuple[int, ...]], found: Sequence[Series]) -> None:
    """Rates (value group E from 1) are parts of their total (E is 0), where the profile captures two or more."""
    names = list(columns.values())
    for whole, name in enumerate(names):
        if name[4] != 0:
            continue
        parts = [
            place
            for place, other in enumerate(names)
            if other[:4] == name[:4] and other[4] != 0 and other[5] == name[5]
        ]
        if len(parts) >= 2:
            for place in parts:
                found[place].parent = whole


@dataclass(slots=True)
class Table:
    """Series beside each other, as a batch hook gets them."""

    series: list[Series] = field(default_factory=list)
    rows: int = 0
    _columns: dict[str, array[int]] = field(default_factory=dict)

    def add(self, of_one: Sequence[Series]) -> None:
        """Add the series of one meter and layout."""
        base = len(self.series)
        columns = self._columns
        if not columns:
            for name in _OF_SERIES:
                columns[name] = array("q")
            columns |= {"first": array("q", [0]), "values": array("q"), "known": array("B")}
        for one in of_one:
            columns["series"].append(len(self.series))
            columns["start_us"].append(one.ends_us[0] - one.step_us)
            columns["step_us"].append(one.step_us)
            last = one.register[-1]
            both = one.begin is not None and last is not None
            columns["register_first"].append(one.begin if both and one.begin is not None else -1)
            columns["register_last"].append(last if both and last is not None else -1)
            columns["modulus"].append(one.modulus)
            columns["parent"].append(-1 if one.parent < 0 else base + one.parent)
            columns["clock_s"].append(one.clock_s)
            columns["limit"].append(0)
            columns["values"].extend(one.values)
            columns["known"].extend(one.known)
            self.rows += len(one.values)
            columns["first"].append(self.rows)
            self.series.append(one)

    def columns(self) -> Mapping[str, Buffer]:
        """The columns."""
        return dict(self._columns)


_OF_SERIES = (
    "series",
    "start_us",
    "step_us",
    "register_first",
    "register_last",
    "modulus",
    "parent",
    "clock_s",
    "limit",
)


@dataclass(frozen=True, slots=True)
class Gap:
    """Missing intervals of one series, one behind the other, and what is known around them."""

    series: Series
    first: int
    count: int

    def arguments(self) -> dict[str, object]:
        """What `billing_estimate` is asked."""
        one, first, behind = self.series, self.first, self.first + self.count
        return {
            "before": _known(one, range(first - 1, first - 1 - NEIGHBOURS, -1))[::-1],
            "missing": self.count,
            "after": _known(one, range(behind, behind + NEIGHBOURS)),
            "like_days": self._like_days(),
            "total": self._total(),
        }

    def _like_days(self) -> list[list[int]]:
        one, a_day = self.series, DAY_US // self.series.step_us
        found = []
        if one.step_us * a_day != DAY_US:
            return []
        for day in range(1, LIKE_DAYS + 1):
            start = self.first - day * a_day
            if start >= 0 and all(one.known[start : start + self.count]):
                found.append(one.values[start : start + self.count])
        return found

    def _total(self) -> int | None:
        one = self.series
        before = one.begin if self.first == 0 else one.register[self.first - 1]
        after = one.register[self.first + self.count - 1]
        if before is None or after is None:
            return None
        moved = after - before
        return moved if moved >= 0 else moved + one.modulus if one.modulus else None


def _known(one: Series, places: range) -> list[int]:
    """The values at these places, up to the first that is not known."""
    found: list[int] = []
    for place in places:
        if not 0 <= place < len(one.values) or not one.known[place]:
            break
        found.append(one.values[place])
    return found
