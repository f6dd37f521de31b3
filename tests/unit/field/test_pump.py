from collections.abc import Sequence
from typing import Any

import trio
from tests.unit.field.fakes import FakeBatch, FakeReactor

from ipss_headend.field.pump import pump


def batch(rows: int) -> FakeBatch:
    return FakeBatch(noticed=[(1, 0, 2, 0, "")] * rows)


def test_what_is_there_together_is_delivered_together_up_to_the_bound(reactor: FakeReactor) -> None:
    delivered: list[int] = []

    async def deliver(batches: Sequence[Any]) -> None:
        delivered.append(len(batches))

    for _ in range(5):
        reactor.put(batch(100))
    reactor.stop()
    trio.run(lambda: pump(reactor, deliver, largest=200))

    assert delivered == [2, 2, 1]


def test_delivery_is_whole_before_the_next_batch_is_taken(reactor: FakeReactor) -> None:
    seen: list[str] = []

    async def main() -> None:
        release = trio.Event()

        async def deliver(_: Sequence[Any]) -> None:
            seen.append("begins")
            if not release.is_set():
                reactor.put(batch(1))
                reactor.stop()
                await release.wait()
            seen.append("ends")

        async with trio.open_nursery() as nursery:
            reactor.put(batch(1))
            nursery.start_soon(pump, reactor, deliver)
            await trio.testing.wait_all_tasks_blocked()
            assert seen == ["begins"]
            release.set()

    trio.run(main)

    assert seen == ["begins", "ends", "begins", "ends"]


def test_pump_wakes_for_a_batch_and_ends_with_the_reactor(reactor: FakeReactor) -> None:
    delivered: list[int] = []

    async def deliver(batches: Sequence[Any]) -> None:
        delivered.append(len(batches))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, reactor, deliver)
            await trio.testing.wait_all_tasks_blocked()
            reactor.put(batch(1))
            with trio.fail_after(1):
                while not delivered:
                    await trio.lowlevel.checkpoint()
            reactor.stop()

    trio.run(main)

    assert delivered == [1]
