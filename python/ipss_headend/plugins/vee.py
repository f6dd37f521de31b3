"""Stored intervals go to the plugins that validate them; what they say is kept beside the readings, which never change.

Each plugin with `billing_validate_batch` reads the log from a cursor of its own (`feed.py`): lines of load profiles,
with a day of neighbours, become one table of series in shared memory. Its flags are stored in the transaction that
moves its cursor. An interval that is missing for `[plugins] estimate_after` is estimated by `billing_estimate`; one
that is read after all stands, and its estimate is kept with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

import trio
from sqlalchemy import Connection

from ipss_headend.errors import StoreDamaged, StoreError, StoreFailed, StoreFull
from ipss_headend.field.reactor import EventKind
from ipss_headend.log import Logger, logger
from ipss_headend.metrics import Figures
from ipss_headend.plugins.flags import Flag, flag_names
from ipss_headend.plugins.intervals import DAY_US, LIKE_DAYS, PROFILE_CLASS, Gap, Series, Table, series_of
from ipss_headend.plugins.manager import Manager
from ipss_headend.plugins.process import PluginProcess
from ipss_headend.plugins.specs import HOOKS, Estimate
from ipss_headend.store import Store, log, plugins, registry
from ipss_headend.store.database import now_us
from ipss_headend.store.log import Entry
from ipss_headend.store.plugins import EstimateRow, FlagRow
from ipss_headend.store.readings import Line, series
from ipss_headend.store.registry import Layout

VALIDATE, ESTIMATE = "billing_validate_batch", "billing_estimate"
Span = tuple[int, int]
Done = Callable[[Connection], None]

PART = 200
"""Meters' profiles read from the store, and asked about, at a time."""
LOOK_S = 30.0
"""How often what is missing for long is looked for."""
ESTIMATES = 2_000
"""Missing intervals looked at in one turn."""


class Validation:
    """Hands stored intervals to plugins."""

    def __init__(self, manager: Manager, store: Store, figures: Figures, wall_us: Callable[[], int] = now_us) -> None:
        self._manager = manager
        self._store = store
        self._figures = figures
        self._wall_us = wall_us
        self._layouts: dict[int, Layout] = {}
        self._clocks: dict[int, tuple[int, int]] = {}
        """How far meters' clocks are off, in seconds, and when that was said."""
        self._log: Logger = logger("validation")

    async def deal(self, plugin: PluginProcess, entries: Sequence[Entry]) -> Done:
        """What a plugin says of the intervals that these entries of the log are about, for the store.

        Raises:
            PluginError: it failed.
        """
        return await self.check(plugin, self.touched(entries))

    def touched(self, entries: Sequence[Entry]) -> dict[tuple[int, int], Span]:
        """The profiles (meter, layout) that entries are about, and their capture times; hears of clocks by the way."""
        touched: dict[tuple[int, int], Span] = {}
        for entry in entries:
            if entry.topic == log.EVENTS:
                self._hear(entry)
            if entry.topic != log.READINGS:
                continue
            for row in entry.rows:
                first, last = touched.get((row[0], row[1]), (row[2], row[2]))
                touched[row[0], row[1]] = min(first, row[2]), max(last, row[2])
        return touched

    async def check(self, plugin: PluginProcess, spans: dict[tuple[int, int], Span]) -> Done:
        """What a plugin says of these profiles (meter, layout) between these capture times, for the store.

        Raises:
            PluginError: it failed.
        """
        flags, missing = await self.judge(plugin, spans)
        now = self._wall_us()

        def done(connection: Connection) -> None:
            plugins.flag(connection, flags)
            plugins.want(connection, missing, now)
            log.append(connection, now, {log.INTERVALS: _spans(flags)})

        for row in flags:
            self._figures.flagged_intervals.update(flag_names(row.flags))
        return done

    async def judge(
        self, plugin: PluginProcess, spans: dict[tuple[int, int], Span], as_of_us: int | None = None
    ) -> tuple[list[FlagRow], list[tuple[int, int, int, int]]]:
        """The flags that a plugin gives, and the intervals that are missing; by the readings received until `as_of_us`.

        Raises:
            PluginError: it failed.
        """
        flags: list[FlagRow] = []
        missing: list[tuple[int, int, int, int]] = []
        wanted = list(spans.items())
        for start in range(0, len(wanted), PART):
            part = wanted[start : start + PART]
            lines = await self._store.read(lambda connection, part=part: self._lines(connection, part))  # type: ignore[misc]
            table = Table()
            for (meter_id, layout_id), found in lines:
                known = found if as_of_us is None else [line for line in found if line.received_us <= as_of_us]
                table.add(series_of(meter_id, layout_id, self._layouts[layout_id], known, self._clock(meter_id, known)))
            if not table.rows:
                continue
            said = await self._manager.ask_batch(plugin, HOOKS[VALIDATE], table.columns(), table.rows)
            self._figures.validated_intervals += table.rows
            place = 0
            for one in table.series:
                span = said[place : place + len(one.values)]
                place += len(one.values)
                flags += _flagged(one, span)
                missing += _missing(one)
        return flags, missing

    def _lines(
        self, connection: Connection, part: Sequence[tuple[tuple[int, int], Span]]
    ) -> list[tuple[tuple[int, int], list[Line]]]:
        """The lines of these profiles with a day of neighbours on both sides."""
        found = []
        for (meter_id, layout_id), (first_us, last_us) in part:
            if layout_id not in self._layouts:
                self._layouts = registry.all_layouts(connection)
            layout = self._layouts.get(layout_id)
            if layout is None or layout.class_id != PROFILE_CLASS:
                continue
            damaged: list[StoreDamaged] = []
            lines = list(
                series(connection, [meter_id], [layout_id], first_us - DAY_US, last_us + DAY_US, damaged.append)
            )
            found.append(((meter_id, layout_id), lines))
        return found

    def _hear(self, entry: Entry) -> None:
        for meter_id, at_us, kind, number, _ in entry.rows:
            if kind == EventKind.CLOCK_DEVIATES:
                self._clocks[meter_id] = number // 1000 or 2**31, at_us

    def _clock(self, meter_id: int, lines: Sequence[Line]) -> int:
        """How far the clock was off while these lines were captured, as far as it was said within the day."""
        off, at_us = self._clocks.get(meter_id, (0, 0))
        return off if lines and lines[0].capture_time_us <= at_us + DAY_US and at_us <= self._wall_us() else 0

    # What is missing for long

    async def estimate(self, after_s: float) -> None:
        """Have values estimated for intervals that are missing for so long, until cancelled."""
        while True:
            if self._manager.asked(ESTIMATE):
                try:
                    while await self._estimate_some(int(after_s * 1e6)):
                        await trio.lowlevel.checkpoint()
                except StoreFailed:
                    raise
                except (StoreFull, StoreError) as error:
                    self._log.warning("nothing can be estimated", why=str(error))
            await trio.sleep(min(LOOK_S, max(1.0, after_s / 2)))

    async def _estimate_some(self, after_us: int) -> bool:
        """One turn; whether there may be more."""
        now = self._wall_us()
        wanted = await self._store.read(lambda connection: plugins.wanted(connection, now - after_us, ESTIMATES))
        given: list[EstimateRow] = []
        later: list[EstimateRow] = []
        found: list[EstimateRow] = []
        for (meter_id, layout_id, place), rows in groupby(wanted, lambda row: row[:3]):
            asked = list(rows)
            one = await self._series(meter_id, layout_id, place, asked[0].capture_time_us, asked[-1].capture_time_us)
            open_rows = {row.capture_time_us: row for row in asked}
            for gap in [] if one is None else _gaps(one, set(open_rows)):
                estimate = await self.ask(gap)
                for offset in range(gap.count):
                    row = open_rows.pop(gap.series.ends_us[gap.first + offset], None)
                    if row is not None and estimate is not None:
                        given.append(row._replace(value=estimate.values[offset], method=estimate.method[:100]))
                    elif row is not None:
                        later.append(row)
            known = {} if one is None else dict(zip(one.ends_us, one.known, strict=True))
            for at_us, row in open_rows.items():
                (found if known.get(at_us) else later).append(row)
        if not wanted:
            return False

        def write(connection: Connection) -> None:
            plugins.estimate(connection, given)
            plugins.flag(connection, [FlagRow(*row[:4], Flag.ESTIMATED) for row in given])
            plugins.unwant(connection, found)
            plugins.put_off(connection, later, now)
            log.append(connection, now, {log.INTERVALS: _spans(given)})

        await self._store.change(write)
        self._figures.estimated_intervals += len(given)
        return len(wanted) == ESTIMATES

    async def gaps(self, meter_id: int, layout_id: int, place: int, wanted: set[int]) -> list[Gap]:
        """The runs of unknown intervals of one series that have one of these times among them, as they are now."""
        one = await self._series(meter_id, layout_id, place, min(wanted), max(wanted))
        return [] if one is None else _gaps(one, wanted)

    async def ask(self, gap: Gap) -> Estimate | None:
        """What plugins estimate for a gap; None: nothing that fits."""
        estimate: Estimate | None = await self._manager.first(ESTIMATE, **gap.arguments())
        if estimate is not None and len(estimate.values) != gap.count:
            self._log.warning("an estimate of another length is left out", asked=gap.count, got=len(estimate.values))
            return None
        return estimate

    async def _series(self, meter_id: int, layout_id: int, place: int, first_us: int, last_us: int) -> Series | None:
        span = (first_us - (LIKE_DAYS + 1) * DAY_US, last_us + DAY_US)
        lines = await self._store.read(lambda connection: self._lines(connection, [((meter_id, layout_id), span)]))
        for (_, _), found in lines:
            for one in series_of(meter_id, layout_id, self._layouts[layout_id], found):
                if one.place == place:
                    return one
        return None


def _spans(rows: Sequence[FlagRow] | Sequence[EstimateRow]) -> list[tuple[int, int, int, int]]:
    """Meter, layout, first and last capture time: for who follows the log."""
    spans: dict[tuple[int, int], Span] = {}
    for row in rows:
        first, last = spans.get(row[:2], (row.capture_time_us, row.capture_time_us))
        spans[row[:2]] = min(first, row.capture_time_us), max(last, row.capture_time_us)
    return [(*key, *span) for key, span in spans.items()]


def _flagged(one: Series, said: Iterable[int]) -> list[FlagRow]:
    return [
        FlagRow(one.meter_id, one.layout_id, one.place, at_us, word & ~Flag.GAP if line else word)
        for at_us, word, line in zip(one.ends_us, said, one.lines, strict=True)
        if (word & ~Flag.GAP if line else word)
    ]


def _missing(one: Series) -> list[tuple[int, int, int, int]]:
    return [
        (one.meter_id, one.layout_id, one.place, at_us)
        for at_us, known in zip(one.ends_us, one.known, strict=True)
        if not known
    ]


def _gaps(one: Series, wanted: set[int]) -> list[Gap]:
    """The runs of unknown intervals that have one of these times among them."""
    found = []
    place = 0
    while place < len(one.known):
        first = place
        while place < len(one.known) and not one.known[place]:
            place += 1
        if place > first and wanted & set(one.ends_us[first:place]):
            found.append(Gap(one, first, place - first))
        place += 1
    return found
