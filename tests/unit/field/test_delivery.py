from array import array
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from tests.unit.field.fakes import FakeBatch, FakeNative, FakeReactor
from trio.testing import MockClock

from ipss_headend.errors import StoreError, StoreFailed, StoreFull
from ipss_headend.field.counters import Counters
from ipss_headend.field.delivery import Delivery, Newest
from ipss_headend.field.questions import Attributes
from ipss_headend.field.reactor import EventKind, Outcome
from ipss_headend.field.requests import Requests
from ipss_headend.field.watch import Watch
from ipss_headend.metrics import Figures
from ipss_headend.store import Store, WriteBatch, Written
from ipss_headend.store.counters import peer_high_water

T0 = 1_767_225_600_000_000
ENERGY = Attributes(3, ((3, b"\x01\x00\x01\x08\x00\xff", 2),))


class Parts:
    def __init__(self, store: Any, reactor: FakeReactor) -> None:
        self.figures = Figures()
        self.requests = Requests(reactor, FakeNative())
        self.newest = Newest()
        counters = Counters(store, reactor, self.figures, 100)
        self.delivery = Delivery(
            store=store,
            requests=self.requests,
            watch=Watch({1: "meter-1"}, counters, self.figures),
            newest=self.newest,
            figures=self.figures,
        )

    def deliver(self, *batches: Any) -> None:
        trio.run(lambda: self.delivery(batches), clock=MockClock(autojump_threshold=0.05))


class ScriptedStore:
    """Fails as it is told, then writes."""

    def __init__(self, *failures: StoreError) -> None:
        self.failures: Iterator[StoreError] = iter(failures)
        self.written: list[WriteBatch] = []

    async def write(self, batch: WriteBatch) -> Written:
        await trio.lowlevel.checkpoint()
        failure = next(self.failures, None)
        if failure is not None:
            raise failure
        self.written.append(batch)
        return Written(len(batch.readings), 0)


def test_lines_counters_and_marks_are_durable_before_anybody_is_told(store: Store, reactor: FakeReactor) -> None:
    parts = Parts(store, reactor)
    found: list[tuple[int, int, dict[int, int]]] = []

    def told(_: object) -> None:
        with store.database.reading() as connection:
            lines = connection.exec_driver_sql("SELECT count(*) FROM readings").scalar_one()
            marks = connection.exec_driver_sql("SELECT count(*) FROM marks").scalar_one()
            found.append((lines, marks, peer_high_water(connection, [1])))

    parts.requests.submit(
        [ENERGY], array("I", [1]), timeout_s=1, on_end=told, marks=lambda meter, _: [(meter, 3, T0, T0 + 900)]
    )

    parts.deliver(
        FakeBatch(readings=[(1, 3, T0, [12345])]),
        FakeBatch(ended=[(1, 1, Outcome.DONE, 1, 1000, "")], counters=[(1, 77)]),
    )

    assert found == [(1, 1, {1: 77})]
    assert (parts.figures.lines, parts.figures.values, parts.figures.exchanges) == (1, 1, 1)


def test_ends_that_are_done_are_counted_and_others_stored(reactor: FakeReactor) -> None:
    store = ScriptedStore()
    parts = Parts(store, reactor)

    parts.deliver(FakeBatch(ended=[(1, 1, Outcome.DONE, 1, 10, ""), (2, 1, Outcome.TIMED_OUT, 0, 10, "")]))

    assert [list(batch.ends) for batch in store.written] == [[(2, 1, Outcome.TIMED_OUT, 0, 10, "")]]
    assert parts.figures.ends == {Outcome.DONE: 1, Outcome.TIMED_OUT: 1}


def test_connections_that_come_and_go_are_not_stored(reactor: FakeReactor) -> None:
    store = ScriptedStore()
    parts = Parts(store, reactor)
    replay = (1, T0, int(EventKind.REPLAY_REFUSED), 41, "")

    parts.deliver(FakeBatch(noticed=[(1, T0, int(EventKind.CONNECTED), 0, ""), replay]))

    assert [list(batch.events) for batch in store.written] == [[replay]]


def test_delivery_waits_while_the_disk_is_full_and_loses_nothing(reactor: FakeReactor) -> None:
    store = ScriptedStore(StoreFull("no room"), StoreFull("no room"))
    parts = Parts(store, reactor)
    told: list[int] = []
    parts.requests.submit([ENERGY], array("I", [1]), timeout_s=1, on_end=lambda end: told.append(len(store.written)))

    with capture_logs() as logs:
        parts.deliver(FakeBatch(readings=[(1, 3, T0, [1])], ended=[(1, 1, Outcome.DONE, 1, 10, "")]))

    assert told == [1]
    assert len(store.written[0].readings) == 1
    assert [line["event"] for line in logs] == ["store takes no readings", "store takes readings again"]
    assert parts.figures.store_trouble is None


def test_nothing_is_told_after_a_failed_write(reactor: FakeReactor) -> None:
    parts = Parts(ScriptedStore(StoreFailed("EIO")), reactor)
    told: list[object] = []
    parts.requests.submit([ENERGY], array("I", [1]), timeout_s=1, on_end=told.append)

    with pytest.raises(StoreFailed):
        parts.deliver(FakeBatch(readings=[(1, 3, T0, [1])], ended=[(1, 1, Outcome.DONE, 1, 10, "")]))

    assert told == []
    assert parts.figures.store_trouble == "failed"


def test_newest_line_of_a_watched_layout_is_known_once() -> None:
    newest = Newest()
    newest.watch(3)
    rows = [
        (1, 3, T0 + 900, 0, 0, 0, 0, 0, b"", 0),
        (1, 3, T0, 0, 0, 0, 0, 0, b"", 0),
        (1, 4, T0, 0, 0, 0, 0, 0, b"", 0),
    ]

    newest.note(rows)

    assert newest.take(1, 3) == T0 + 900
    assert newest.take(1, 3) is None
    assert newest.take(1, 4) is None
