"""The profile of a read plan: what is new each turn, and what is missing of the days before at the lowest priority."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import trio

from ipss_headend.config import PlanConfig
from ipss_headend.field.context import Field
from ipss_headend.field.layouts import ProfileShape, Register
from ipss_headend.field.reactor import Outcome
from ipss_headend.field.requests import Submission
from ipss_headend.field.windows import DAY_US, by_window, leading_edge_us, mark_of
from ipss_headend.metrics import PlanFigures
from ipss_headend.store.journal import EndRow
from ipss_headend.store.marks import DueWindow, MarkRow, Window, due_windows

if TYPE_CHECKING:
    from ipss_headend._core import Priority

CHUNK = 256
"""Meters whose gaps are filled together."""

CHUNKS_AT_ONCE = 4
"""How many such chunks: one silent meter holds up its own chunk only, and the queue of gaps stays short."""


class ProfileReading:
    """The profile of one plan."""

    def __init__(
        self, plan: PlanConfig, logical_name: str, columns: Sequence[Register], priority: Priority, field: Field
    ) -> None:
        self._plan = plan
        self._logical_name = logical_name
        self._columns = tuple(columns)
        self._priority = priority
        self._field = field
        self._figures: PlanFigures = field.figures.plan(plan.name)
        self._filling = False

    async def read(self, meters: array[int]) -> None:
        """Ask for what is not marked of the last day, and wait until all requests have ended."""
        async with trio.open_nursery() as nursery:

            def found(shape: ProfileShape, members: array[int]) -> None:
                nursery.start_soon(self._read, shape, members)

            unknown = await self._field.layouts.profiles(
                self._logical_name, self._columns, meters, self._priority, found
            )
            self._figures.asked += unknown
            self._figures.failed += unknown

    async def backfill(self, meters: array[int]) -> None:
        """Ask for what is not marked of the days before the last, back to the plan's limit. One run at a time."""
        if self._filling:
            return
        self._filling = True
        try:
            async with trio.open_nursery() as nursery:

                def found(shape: ProfileShape, members: array[int]) -> None:
                    nursery.start_soon(self._fill_all, shape, members)

                await self._field.layouts.profiles(self._logical_name, self._columns, meters, "backfill", found)
        finally:
            self._filling = False
            self._figures.backfill_pending = 0

    async def _read(self, shape: ProfileShape, meters: array[int]) -> None:
        until_us = self._leading_edge_us(shape)
        due = await self._due(shape, meters, Window(until_us - DAY_US, until_us))
        submissions: list[Submission] = []
        for window, asked in by_window(due).items():
            self._figures.asked += len(asked)
            submissions += await self._ask(shape, window, asked, self._priority, self._ended)
        await self._field.requests.finish(submissions)

    async def _fill_all(self, shape: ProfileShape, meters: array[int]) -> None:
        until_us = self._leading_edge_us(shape)
        span = Window(until_us - self._plan.backfill_days * DAY_US, until_us - DAY_US)
        chunks = (meters[start : start + CHUNK] for start in range(0, len(meters), CHUNK))
        async with trio.open_nursery() as nursery:
            for _ in range(CHUNKS_AT_ONCE):
                nursery.start_soon(self._fill, shape, span, chunks)

    async def _fill(self, shape: ProfileShape, span: Window, chunks: Iterator[array[int]]) -> None:
        for chunk in chunks:
            due: dict[int, list[DueWindow]] = {}
            for window in await self._due(shape, chunk, span):
                due.setdefault(window.meter_id, []).append(window)
            # A day of each meter at a time, the newest first: a meter that fails keeps its other gaps for later.
            while due:
                failed: set[int] = set()
                await self._fill_one_of_each(shape, [windows.pop(0) for windows in due.values()], failed)
                due = {meter: windows for meter, windows in due.items() if windows and meter not in failed}

    async def _fill_one_of_each(self, shape: ProfileShape, due: Sequence[DueWindow], failed: set[int]) -> None:
        def ended(end: EndRow) -> None:
            self._figures.backfill_pending -= 1
            if end[2] == Outcome.DONE:
                self._figures.backfilled += 1
            else:
                failed.add(end[1])

        submissions: list[Submission] = []
        for window, asked in by_window(due).items():
            self._figures.backfill_pending += len(asked)
            submissions += await self._ask(shape, window, asked, "backfill", ended)
        await self._field.requests.finish(submissions)

    async def _due(self, shape: ProfileShape, meters: array[int], span: Window) -> list[DueWindow]:
        return await self._field.store.read(
            lambda connection: due_windows(connection, meters, shape.layout, span.from_us, span.until_us, DAY_US)
        )

    async def _ask(
        self,
        shape: ProfileShape,
        window: Window,
        meters: array[int],
        priority: Priority,
        on_end: Callable[[EndRow], None],
    ) -> list[Submission]:
        field = self._field
        field.newest.watch(shape.layout)
        asked_us = field.wall_us()

        def marks(meter: int, outcome: Outcome) -> Iterable[MarkRow]:
            newest_us = field.newest.take(meter, shape.layout)
            if outcome is Outcome.DONE:
                return mark_of(meter, shape.layout, window, newest_us, asked_us)
            if outcome is Outcome.VIOLATION:
                field.layouts.forget(meter)
            return []

        return await field.requests.offer(
            [shape.question()],
            meters,
            timeout_s=field.limits.request_s,
            priority=priority,
            attempts=field.limits.attempts,
            from_us=window.from_us,
            to_us=window.until_us - 1,
            on_end=on_end,
            marks=marks,
        )

    def _ended(self, end: EndRow) -> None:
        if end[2] == Outcome.DONE:
            self._figures.done += 1
        else:
            self._figures.failed += 1

    def _leading_edge_us(self, shape: ProfileShape) -> int:
        period_s = shape.period_s or self._plan.period_s
        return leading_edge_us(self._field.wall_us(), period_s, self._field.zone)
