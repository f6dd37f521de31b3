from collections.abc import Callable
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from tests.unit.field.fakes import FakeReactor

from ipss_headend.errors import StoreFull
from ipss_headend.field import counters as field_counters
from ipss_headend.field.counters import LARGEST_RAISE, Counters
from ipss_headend.metrics import Figures
from ipss_headend.store import Store
from ipss_headend.store.counters import LIMIT, granted_until, raise_to


def run(counters: Counters, *steps: Callable[[], None]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(counters.run)
            for step in steps:
                step()
                await quiet(counters)
            nursery.cancel_scope.cancel()

    trio.run(main)


async def quiet(counters: Counters) -> None:
    """Until nothing is wanted and no transaction runs."""
    store = counters._store
    with trio.fail_after(30):
        while True:
            await trio.testing.wait_all_tasks_blocked(0.02)
            if not (store._writers.borrowed_tokens or store._readers.borrowed_tokens or counters._wanted.is_set()):
                return


def test_meters_that_run_low_together_share_one_transaction(store: Store, reactor: FakeReactor) -> None:
    counters = Counters(store, reactor, Figures(), 100)

    def low() -> None:
        counters.low(2)
        counters.low(1)
        counters.low(2)

    run(counters, low)

    assert reactor.granted == [(1, 1, 101), (2, 1, 101)]
    with store.database.reading() as connection:
        assert granted_until(connection, [1, 2]) == {1: 101, 2: 101}


def test_r5_a_full_disk_is_waited_for(store: Store, reactor: FakeReactor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(field_counters, "AGAIN_S", 0.01)
    counters = Counters(store, reactor, Figures(), 100)
    reserve, full, granted = store.reserve, [True, True], trio.Event()

    async def tried(*arguments: Any) -> Any:
        if full:
            full.pop()
            raise StoreFull("no room")
        found = await reserve(*arguments)
        granted.set()
        return found

    monkeypatch.setattr(store, "reserve", tried)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(counters.run)
            counters.low(1)
            with trio.fail_after(30):
                await granted.wait()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert reactor.granted == [(1, 1, 101)]


def test_first_blocks_are_never_granted_again(store: Store, reactor: FakeReactor) -> None:
    counters = Counters(store, reactor, Figures(), 100)

    first = trio.run(counters.first_blocks, [1])
    second = trio.run(counters.first_blocks, [1])

    assert (first[1].next, first[1].end) == (1, 101)
    assert (second[1].next, second[1].end) == (101, 201)


def test_unproven_word_raises_the_counter_once_and_within_limits(store: Store, reactor: FakeReactor) -> None:
    counters = Counters(store, reactor, Figures(), 100)

    run(
        counters,
        lambda: counters.behind(1, 5_000),
        lambda: counters.behind(1, 900_000),
        lambda: counters.proven(1),
        lambda: counters.behind(1, 6_000),
    )

    assert reactor.granted == [(1, 5_000, 5_100), (1, 6_000, 6_100)]


def test_absurd_word_raises_nothing(store: Store, reactor: FakeReactor) -> None:
    counters = Counters(store, reactor, Figures(), 100)

    with capture_logs() as logs:
        run(counters, lambda: counters.behind(1, LARGEST_RAISE + 2))

    assert reactor.granted == []
    assert [line["event"] for line in logs] == ["counter not believed"]


def test_used_up_key_gets_no_block_and_somebody_is_told(store: Store, reactor: FakeReactor) -> None:
    with store.database.writing() as connection:
        raise_to(connection, [(1, LIMIT)])
    counters = Counters(store, reactor, Figures(), 100)

    with capture_logs() as logs:
        run(counters, lambda: counters.low(1))

    assert reactor.granted == []
    assert [line["log_level"] for line in logs] == ["error"]
