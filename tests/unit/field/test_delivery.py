from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from tests.unit.field.fakes import FakeBatch, FakeNative, FakeReactor, meter
from trio.testing import MockClock

from ipss_headend.errors import ConfigError, StoreError, StoreFailed, StoreFull
from ipss_headend.field.counters import Counters
from ipss_headend.field.delivery import Delivery, Newest
from ipss_headend.field.pushes import LAYOUTS_PER_METER, Pushes, load_profiles
from ipss_headend.field.quarantine import Quarantine
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
    def __init__(self, store: Any, reactor: FakeReactor, held: Callable[[int], bool] = lambda _: False) -> None:
        self.figures = Figures()
        self.native = FakeNative()
        self.native.pushes[b"", "kaifa"] = ()
        self.requests = Requests(reactor, self.native)
        self.newest = Newest()
        counters = Counters(store, reactor, self.figures, 100)
        self.quarantine = Quarantine(store=store, reactor=reactor, native=self.native, figures=self.figures, held=held)
        self.delivery = Delivery(
            store=store,
            requests=self.requests,
            reactor=reactor,
            pushes=Pushes(store=store, native=self.native, models={1: "M1", 2: "kaifa"}, figures=self.figures),
            quarantine=self.quarantine,
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


PUSH_SETUP = (40, "0.0.25.9.0.255", 2)
PUSHED_ENERGY = (3, "1.0.1.8.0.255", 2, 0, 0, "Wh", "active energy")


def notification(meter: int, apdu: bytes, time_us: int | None = None) -> Any:
    return (meter, 0, 0, time_us, -32768, 255, [apdu])


def stored(store: Store) -> list[Any]:
    with store.database.reading() as connection:
        found = connection.exec_driver_sql(
            "SELECT meter_id, capture_time_us, deviation_min, quality, cells, logical_name, scaler FROM readings "
            "JOIN layout_columns USING (layout_id) ORDER BY meter_id, capture_time_us"
        )
        return [tuple(row) for row in found]


def kept(store: Store) -> list[Any]:
    with store.database.reading() as connection:
        return [tuple(row) for row in connection.exec_driver_sql("SELECT meter_id, kind, number, detail FROM events")]


def test_notification_is_stored_like_a_line_that_was_read_and_once(store: Store, reactor: FakeReactor) -> None:
    parts = Parts(store, reactor)
    parts.native.pushes[b"push", "generic"] = (T0, -60, 0, PUSH_SETUP, (PUSHED_ENERGY,), [4117])

    parts.deliver(FakeBatch(said=[notification(1, b"push")]))
    parts.deliver(FakeBatch(said=[notification(1, b"push")]))

    assert stored(store) == [(1, T0, -60, 0, b"\x91\xcd\x10\x15", "1.0.1.8.0.255", 0)]
    assert (parts.figures.lines, parts.figures.duplicate_lines, parts.figures.layouts_learnt) == (1, 1, 1)


def test_notification_is_read_under_the_profile_of_the_meters_model(store: Store, reactor: FakeReactor) -> None:
    parts = Parts(store, reactor)
    parts.native.pushes[b"list", "kaifa"] = (None, -32768, 255, PUSH_SETUP, (PUSHED_ENERGY,), [5])
    parts.native.pushes[b"list", "generic"] = (None, -32768, 255, PUSH_SETUP, (), [])

    parts.deliver(FakeBatch(said=[notification(1, b"list", T0), notification(2, b"list", T0)]))

    assert stored(store) == [(2, T0, -32768, 0, b"\x91\x05", "1.0.1.8.0.255", 0)], "captured when it was sent"
    assert kept(store) == [(1, EventKind.PUSH_KEPT, 4, b"list".hex())]


def test_notification_that_nothing_explains_is_kept_whole_and_said_once(store: Store, reactor: FakeReactor) -> None:
    parts = Parts(store, reactor)

    with capture_logs() as logs:
        parts.deliver(FakeBatch(said=[notification(1, b"\x0f\x00"), notification(1, b"\x0f\x01")]))

    assert [row[3] for row in kept(store)] == ["0f00", "0f01"]
    assert len([log for log in logs if log["event"].startswith("push not understood")]) == 1
    assert parts.figures.notifications_kept == 2


def test_a_meter_that_sends_ever_other_lists_fills_no_table(store: Store, reactor: FakeReactor) -> None:
    parts = Parts(store, reactor)
    for number in range(LAYOUTS_PER_METER + 5):
        column = (3, f"1.0.1.8.{number}.255", 2, 0, 0, "Wh", "")
        parts.native.pushes[bytes([number]), "generic"] = (T0, 0, 0, PUSH_SETUP, (column,), [number])

    parts.deliver(FakeBatch(said=[notification(1, bytes([number])) for number in range(LAYOUTS_PER_METER + 5)]))

    assert parts.figures.layouts_learnt == LAYOUTS_PER_METER
    assert len(kept(store)) == 5


def test_confirmed_push_is_confirmed_only_when_it_is_durable(store: Store, reactor: FakeReactor) -> None:
    parts = Parts(store, reactor)
    parts.native.pushes[b"push", "generic"] = (T0, 0, 0, PUSH_SETUP, (PUSHED_ENERGY,), [1])
    durable: list[int] = []
    confirm = reactor.confirm

    def confirmed(pushes: Sequence[tuple[int, int]]) -> None:
        durable.append(len(stored(store)))
        confirm(pushes)

    reactor.confirm = confirmed  # type: ignore[method-assign]
    events: list[tuple[int, int, int, int, str]] = [
        (1, T0, EventKind.NOTIFIED, 7, "confirmed"),
        (1, T0, EventKind.NOTIFIED, 8, ""),
    ]

    parts.deliver(FakeBatch(said=[notification(1, b"push")], noticed=events))

    assert (reactor.confirmed, durable) == ([(1, 7)], [1])


def test_push_is_not_confirmed_when_the_store_failed(reactor: FakeReactor) -> None:
    parts = Parts(ScriptedStore(StoreFailed("broken")), reactor)

    with pytest.raises(StoreFailed):
        parts.deliver(FakeBatch(noticed=[(1, T0, EventKind.NOTIFIED, 7, "confirmed")], counters=[(1, 5)]))

    assert reactor.confirmed == []


def test_profiles_of_the_utility_are_taken_in_whatever_order_they_inherit(tmp_path: Path) -> None:
    native = FakeNative()
    for name, text in {"a": "inherits b", "b": "inherits generic"}.items():
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")

    assert load_profiles(native, tmp_path) == ["a", "b"]
    assert {"a", "b"} <= set(native.profile_names())
    assert load_profiles(native, tmp_path / "none") == []
    (tmp_path / "c.toml").write_text("inherits d", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"c\.toml: no profile is called"):
        load_profiles(native, tmp_path)


def test_push_that_nobody_could_have_is_kept_and_handed_to_its_session_when_that_is_known(
    store: Store, reactor: FakeReactor
) -> None:
    parts = Parts(store, reactor)
    ours = replace(meter(1), system_title=b"TITLE-01")
    brought = FakeBatch(noticed=[(2**32 - 1, T0, EventKind.PUSH_UNCLAIMED, 0, f"10.0.0.7:9 {b'TITLE-01'.hex()}aabb")])

    parts.deliver(brought)
    assert reactor.heard == []
    trio.run(lambda: parts.quarantine.enrolled([ours]))
    assert reactor.heard == [(1, 1, b"TITLE-01\xaa\xbb")]
    parts.deliver(FakeBatch(noticed=[(1, T0, EventKind.PUSH_HEARD, 1, "tag-invalid: no")]))
    trio.run(lambda: parts.quarantine.enrolled([ours]))
    assert reactor.heard[1:] == [(1, 1, b"TITLE-01\xaa\xbb")], "kept until it opens"
    parts.deliver(FakeBatch(noticed=[(1, T0, EventKind.PUSH_HEARD, 1, "")]))
    parts.deliver(brought)

    assert reactor.heard[2:] == [(1, 2, b"TITLE-01\xaa\xbb")], "from now on at once"
    assert parts.figures.pushes_quarantined == 2


def test_push_from_elsewhere_is_never_opened_while_two_have_proved_to_be_its_meter(
    store: Store, reactor: FakeReactor
) -> None:
    held = {1}
    parts = Parts(store, reactor, held=held.__contains__)
    trio.run(lambda: parts.quarantine.enrolled([replace(meter(1), system_title=b"TITLE-01")]))
    brought = FakeBatch(noticed=[(1, T0, EventKind.PUSH_UNCLAIMED, 0, f"10.0.0.7:9 {b'TITLE-01'.hex()}aabb")])

    parts.deliver(brought)
    assert reactor.heard == []
    assert parts.figures.pushes_quarantined == 1
    held.clear()
    parts.deliver(brought)

    assert reactor.heard == [(1, 2, b"TITLE-01\xaa\xbb")]


def test_what_an_unknown_connection_brought_and_is_no_push_is_a_refused_claim(
    store: Store, reactor: FakeReactor
) -> None:
    parts = Parts(store, reactor)

    parts.deliver(FakeBatch(noticed=[(2**32 - 1, T0, EventKind.PUSH_UNCLAIMED, 0, "10.0.0.7:9 0102")]))

    with store.database.reading() as connection:
        events = connection.exec_driver_sql("SELECT kind, detail FROM events").all()
    assert [tuple(event) for event in events] == [(EventKind.CLAIM_REFUSED, "10.0.0.7:9: 2 octets")]
