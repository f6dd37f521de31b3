"""The newest lines in memory: loaded once for all who want them, and never older than what was written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
import trio
import trio.testing

from ipss_headend.errors import StoreDamaged, StoreUnavailable
from ipss_headend.store import Store
from ipss_headend.store.latest import Key, Latest
from ipss_headend.store.readings import Line, line_of
from ipss_headend.store.records import ReadingRow, reading_row


def row(meter: int, captured_us: int, value: int) -> ReadingRow:
    return reading_row(meter, 1, captured_us, [value], received_us=10)


class Slow(Latest):
    """What it loads is what was stored when the question was asked, and comes when `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: dict[Key, Line] = {}
        self.asked: list[list[Key]] = []
        self.go = trio.Event()
        self.fails: Callable[[Sequence[Key]], Exception | None] = lambda keys: None

    async def read(self, work: Callable[[Any], dict[Key, Line | None]]) -> dict[Key, Line | None]:
        """As the store's."""
        found = work(None)
        await self.go.wait()
        failure = self.fails(self.asked[-1])
        if failure is not None:
            raise failure
        return found

    def load(self, connection: object, wanted: Sequence[Key]) -> dict[Key, Line | None]:
        self.asked.append(list(wanted))
        return {key: self.stored.get(key) for key in wanted}

    async def want(self, *keys: Key) -> None:
        await self.fill(cast("Store", self), keys)


def run(test: Callable[[Slow], Any]) -> None:
    async def main() -> None:
        with trio.fail_after(60):
            await test(Slow())

    trio.run(main)


def test_many_callers_are_one_question() -> None:
    async def test(latest: Slow) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(latest.want, (1, 1))
            await trio.testing.wait_all_tasks_blocked()
            for meter in range(1, 101):
                nursery.start_soon(latest.want, (meter, 1))
                nursery.start_soon(latest.want, (meter, 1), (meter, 2))
            await trio.testing.wait_all_tasks_blocked()
            latest.go.set()

        assert [len(keys) for keys in latest.asked] == [1, 200]
        assert latest.kept == {(meter, layout): None for meter in range(1, 101) for layout in (1, 2)}

    run(test)


def test_line_that_is_written_while_the_older_one_is_loaded_stays() -> None:
    async def test(latest: Slow) -> None:
        latest.stored[1, 1] = line_of(row(1, 5, 50))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(latest.want, (1, 1))
            nursery.start_soon(latest.want, (2, 1))
            await trio.testing.wait_all_tasks_blocked()
            latest.note([row(1, 6, 60), row(3, 6, 60)])
            latest.go.set()

        assert latest.kept[1, 1] == line_of(row(1, 6, 60))
        assert latest.kept[2, 1] is None
        assert (3, 1) not in latest.kept
        latest.note([row(1, 4, 40), row(2, 1, 10)])
        assert latest.kept[1, 1] == line_of(row(1, 6, 60))
        assert latest.kept[2, 1] == line_of(row(2, 1, 10))

    run(test)


def test_store_that_does_not_answer_is_told_to_all_who_wait() -> None:
    async def test(latest: Slow) -> None:
        latest.fails = lambda keys: StoreUnavailable("no answer")
        failed = []

        async def want(meter: int) -> None:
            with pytest.raises(StoreUnavailable):
                await latest.want((meter, 1))
            failed.append(meter)

        async with trio.open_nursery() as nursery:
            for meter in range(50):
                nursery.start_soon(want, meter)
            await trio.testing.wait_all_tasks_blocked()
            latest.go.set()

        assert sorted(failed) == list(range(50))
        assert len(latest.asked) <= 2
        latest.fails = lambda keys: None
        await latest.want((1, 1))
        assert (1, 1) in latest.kept

    run(test)


def test_damaged_line_is_trouble_of_who_wants_it_alone() -> None:
    async def test(latest: Slow) -> None:
        latest.fails = lambda keys: StoreDamaged("meter 7") if (7, 1) in keys else None
        latest.go.set()
        failed = []

        async def want(meter: int) -> None:
            try:
                await latest.want((meter, 1))
            except StoreDamaged:
                failed.append(meter)

        async with trio.open_nursery() as nursery:
            for meter in range(20):
                nursery.start_soon(want, meter)

        assert failed == [7]
        assert set(latest.kept) == {(meter, 1) for meter in range(20) if meter != 7}

    run(test)


def test_caller_that_gives_up_holds_nobody() -> None:
    async def test(latest: Slow) -> None:
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def give_up() -> None:
                with scope:
                    await latest.want((1, 1))

            nursery.start_soon(give_up)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(latest.want, (1, 1), (2, 1))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            latest.go.set()

        assert set(latest.kept) == {(1, 1), (2, 1)}

    run(test)
