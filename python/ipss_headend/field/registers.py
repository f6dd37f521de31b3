"""The registers of a read plan: asked once a turn of every meter, and the meters' clocks with them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import trio

from ipss_headend.config import PlanConfig
from ipss_headend.field.context import Field
from ipss_headend.field.layouts import Register
from ipss_headend.field.reactor import AnswerRow, Outcome
from ipss_headend.field.requests import Submission
from ipss_headend.field.windows import DAY_US
from ipss_headend.metrics import PlanFigures
from ipss_headend.store import Layout, WriteBatch
from ipss_headend.store.journal import EndRow
from ipss_headend.store.marks import MarkRow, due_windows
from ipss_headend.store.registry import intern_layouts

if TYPE_CHECKING:
    from ipss_headend._core import Priority

_ANSWERED = frozenset({Outcome.DONE, Outcome.REFUSED})


class RegisterReading:
    """The registers of one plan."""

    def __init__(self, plan: PlanConfig, registers: Sequence[Register], priority: Priority, field: Field) -> None:
        self._plan = plan
        self._registers = tuple(registers)
        self._priority = priority
        self._field = field
        self._figures: PlanFigures = field.figures.plan(plan.name)
        self._mark: int | None = None

    async def read(self, meters: array[int], turn_us: int, next_turn_us: int) -> None:
        """Ask the meters that have not answered in this turn yet, and wait until all have ended."""
        field, figures = self._field, self._figures
        mark = await self._turn_mark()
        due = await field.store.read(
            lambda connection: due_windows(connection, meters, mark, turn_us, turn_us + 1, DAY_US)
        )
        asked = sorted(window.meter_id for window in due)
        figures.asked += len(asked)
        known = await field.layouts.registers(self._registers, asked, self._priority)
        figures.failed += len(asked) - sum(map(len, known.values()))

        def marks(meter: int, outcome: Outcome) -> Iterable[MarkRow]:
            # What a meter refuses it refuses in a minute too: its turn is over.
            return [(meter, mark, turn_us, next_turn_us)] if outcome in _ANSWERED else []

        asked_s = trio.current_time()

        def hear(answer: AnswerRow) -> None:
            if field.requests.stalled_s < asked_s:  # or the store's delay would be the clock's; the next turn looks
                field.clocks.hear(answer, self._plan.clock_limit_s)

        submissions: list[Submission] = []
        for layouts, members in known.items():
            submissions += await field.requests.offer(
                [register.question(layout) for register, layout in zip(self._registers, layouts, strict=True)],
                members,
                timeout_s=field.limits.request_s,
                priority=self._priority,
                attempts=field.limits.attempts,
                on_answer=hear,
                on_end=self._ended,
                marks=marks,
            )
        await field.requests.finish(submissions)
        events = field.clocks.events()
        if events:
            await field.store.write(WriteBatch(events=events))

    def _ended(self, end: EndRow) -> None:
        if end[2] in _ANSWERED:
            self._figures.done += 1
        else:
            self._figures.failed += 1

    async def _turn_mark(self) -> int:
        """The number under which the plan's turns are marked.

        Two plans may read one register at their own times, so a turn is marked under the plan and not under the
        register: a layout without columns, of a class that no object has.
        """
        if self._mark is None:
            turns = Layout(0, f"plan {self._plan.name}", 0, ())
            [self._mark] = await self._field.store.change(lambda connection: intern_layouts(connection, [turns]))
        return self._mark
