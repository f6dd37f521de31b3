"""The head-end whole: real sockets, virtual meters, the store, and its end."""

import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from tests.system.fleet import fleet, head_end, opened
from tests.system.orders import forking

from ipss_headend import _core, config
from ipss_headend.errors import StoreInUse
from ipss_headend.field.reactor import EventKind, Outcome
from ipss_headend.schedule import SECOND_US
from ipss_headend.server import HeadEnd, Stop, run
from ipss_headend.store import marks
from ipss_headend.store.registry import all_layouts

DAY_US = 86_400 * SECOND_US

BILLING = """
[[plans]]
name = "billing"
objects = ["1.0.1.8.0.255", "1.0.2.8.0.255", "4/1.0.1.6.0.255"]
every = "1d at 00:10"
"""
LOAD_PROFILE = """
[[plans]]
name = "load profile"
profile = "1.0.99.1.0.255"
every = "15min"
backfill_days = 2
"""
CLOCKS = """
[[plans]]
name = "clocks"
objects = ["8/0.0.1.0.0.255:2"]
every = "1h"
"""


def serving(path: Path, use: Callable[[HeadEnd], Awaitable[None]], *, limit_s: float = 30) -> HeadEnd:
    """Run a head-end in this process, use it, and let it drain; what is left of it."""

    async def main() -> HeadEnd:
        async with trio.open_nursery() as nursery:
            stop = Stop()
            started: HeadEnd = await nursery.start(run, config.load(path), stop)
            with trio.fail_after(limit_s):
                await use(started)
            stop.ask()
        return started

    return trio.run(main)


async def until(condition: Callable[[], bool], every_s: float = 0.02) -> None:
    while True:
        if condition():
            return
        await trio.sleep(every_s)


async def turns(head_end: HeadEnd) -> None:
    """Every plan has taken its first turn, and no gap of older days is open."""
    plans = head_end.figures.plans.values()
    await until(lambda: all(plan.turns for plan in plans))
    await trio.sleep(0.1)
    await until(lambda: not len(head_end.requests))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def page(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_fleet_is_read_stored_and_shown_and_a_restart_finds_no_gap(tmp_path: Path) -> None:
    port = free_port()
    shown: dict[str, tuple[int, str]] = {}
    again: list[int] = []

    async def first(head_end: HeadEnd) -> None:
        await turns(head_end)
        for name in ("metrics", "healthz"):
            shown[name] = await trio.to_thread.run_sync(page, f"http://127.0.0.1:{port}/{name}")

    async def second(head_end: HeadEnd) -> None:
        await turns(head_end)
        again.extend((head_end.figures.lines, head_end.figures.duplicate_lines))

    with fleet(50, "127.22.0.1") as running:
        path = head_end(tmp_path, BILLING + LOAD_PROFILE + CLOCKS, running, metrics_port=port)
        released = [serving(path, use).figures.events[EventKind.RELEASED] for use in (first, second)]

        assert running.reused() == []

    assert released == [50, 50]
    assert shown["healthz"] == (200, "ok\n")
    assert "head_end_associations 50.0" in shown["metrics"][1]
    assert 'head_end_plan_completeness{plan="billing"} 1.0' in shown["metrics"][1]
    assert "head_end_clock_checks_total 50.0" in shown["metrics"][1]
    assert again in ([0, 0], [50, 0])  # a quarter of an hour may have passed
    with opened(config.load(path)) as database, database.reading() as connection:
        layouts = all_layouts(connection)
        [profile] = [number for number, layout in layouts.items() if layout.class_id == 7]
        until_us = int(time.time()) * SECOND_US // DAY_US * DAY_US
        for meter in range(1, 51):
            assert marks.gaps(connection, meter, profile, until_us - DAY_US, until_us, 900 * SECOND_US) == []
        energy = next(layout for layout in layouts.values() if layout.logical_name == "1.0.1.8.0.255")
        assert (energy.columns[0].scaler, energy.columns[0].unit) == (0, "Wh")


def test_meters_at_fault_are_told_and_harm_no_other(tmp_path: Path) -> None:
    faults = "wrong-tag=#0,replay=#1,plaintext=#2,garbage=#3,silent=#4,truncated-block=#5,reset=#6"
    reactor = 'request = "3s"\nassociate = "1s"\nanswer = "1s"\nframe = "1s"'

    async def read(head_end: HeadEnd) -> None:
        await turns(head_end)

    with fleet(20, "127.23.0.1", faults=faults) as running:
        path = head_end(tmp_path, LOAD_PROFILE, running, reactor=reactor)
        serving(path, read)

    with opened(config.load(path)) as database, database.reading() as connection:
        complete = connection.exec_driver_sql(
            "SELECT meter_id FROM readings GROUP BY meter_id HAVING count(*) >= 2 * 96"
        ).scalars()
        kinds = set(map(tuple, connection.exec_driver_sql("SELECT meter_id, kind FROM events").all()))
        assert set(range(8, 21)) <= set(complete)
    assert (1, EventKind.TAG_INVALID) in kinds
    assert (2, EventKind.REPLAY_REFUSED) in kinds
    assert (3, EventKind.WEAKER_SECURITY) in kinds
    assert (4, EventKind.PROTOCOL_VIOLATION) in kinds
    assert not {kind for meter, kind in kinds if meter > 7} & set(EventKind)


def test_meters_that_dial_in_are_read(tmp_path: Path) -> None:
    port = free_port()
    listener = f'[[listeners]]\nhost = "127.0.0.1"\nport = {port}\n'

    with fleet(5, "127.24.0.1") as running:
        path = head_end(tmp_path, BILLING + listener, running, dials_in=True)

        async def read(started: HeadEnd) -> None:
            running.meters.dial(f"127.0.0.1:{port}")
            await until(lambda: started.figures.plans["billing"].done == 5)

        serving(path, read)


def test_store_has_one_head_end(tmp_path: Path) -> None:
    async def read(head_end: HeadEnd) -> None:
        with pytest.raises(StoreInUse):
            await run(head_end.config, Stop())

    with fleet(1, "127.25.0.1") as running:
        serving(head_end(tmp_path, BILLING, running), read)


def lines(path: Path) -> int:
    with opened(config.load(path)) as database, database.reading() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM readings").scalar_one())


def wait_for(condition: Callable[[], bool]) -> None:
    over = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < over, "it did not come to that in 20 s"
        time.sleep(0.02)


def ends(path: Path) -> set[int]:
    with opened(config.load(path)) as database, database.reading() as connection:
        return set(connection.exec_driver_sql("SELECT outcome FROM ends").scalars())


def test_sigterm_finishes_what_is_under_way(tmp_path: Path) -> None:
    with fleet(20, "127.26.0.1", faults="slow=#3") as running, forking() as orders:
        path = head_end(tmp_path, LOAD_PROFILE.replace("backfill_days = 2", "backfill_days = 0"), running)
        process = orders.start(path)
        wait_for(lambda: lines(path) == 19 * 96)
        time.sleep(0.2)

        os.kill(process, signal.SIGTERM)

        assert orders.wait() == 0
    # The slow meter was being asked either what it captures or for its profile: that was finished.
    assert lines(path) in {19 * 96, 20 * 96}
    assert ends(path) == set()


def test_second_sigterm_stops_at_once(tmp_path: Path) -> None:
    with fleet(5, "127.27.0.1", faults="slow=100%") as running, forking() as orders:
        path = head_end(tmp_path, BILLING, running)
        process = orders.start(path)
        wait_for(lambda: len(running.seen.get(EventKind.ASSOCIATED, [])) == 5)

        os.kill(process, signal.SIGTERM)
        time.sleep(0.1)
        os.kill(process, signal.SIGTERM)

        assert orders.wait() == 0
    assert ends(path) == {Outcome.CANCELLED}


def test_numbers_of_outcomes_and_events_are_the_modules_own() -> None:
    assert tuple(outcome.label for outcome in Outcome) == _core.OUTCOMES
    assert {kind.value: kind.label for kind in EventKind if kind < 1000} == _core.EVENT_KINDS


def test_push_of_a_meter_is_stored_like_what_is_read(tmp_path: Path) -> None:
    """The meter's push is brought about by its push setup's method; what comes is nobody's answer."""
    push = _core.Plan([_core.Item.action((40, bytes((0, 0, 25, 9, 0, 255)), 1), b"\x0f\x00")])

    async def use(head_end: HeadEnd) -> None:
        for _ in range(2):
            head_end.reactor.submit(push, sorted(head_end.meters), timeout_s=10)
        await until(lambda: head_end.figures.notifications == 6)
        await until(lambda: head_end.figures.lines + head_end.figures.duplicate_lines == 6)

    with fleet(3, "127.22.0.9") as running:
        path = head_end(tmp_path, "", running)
        head_end_after = serving(path, use)

    assert head_end_after.figures.notifications_kept == 0
    with opened(config.load(path)) as database, database.reading() as connection:
        rows = connection.exec_driver_sql(
            "SELECT DISTINCT meter_id, quality FROM readings JOIN layouts USING (layout_id) WHERE class_id = 40"
        )
        assert [tuple(row) for row in rows] == [(1, 0), (2, 0), (3, 0)]
        [layout] = all_layouts(connection).values()
    names = [(column.logical_name, column.scaler, column.unit) for column in layout.columns]
    assert names == [("0.0.42.0.0.255", None, ""), ("1.0.1.8.0.255", 0, "Wh"), ("1.0.2.8.0.255", 0, "Wh")]
