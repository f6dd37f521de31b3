"""Crowds on real sockets.

Storms (R26), slow senders (R27), impostors and clones (R29), bad meters (R32), no descriptors.
"""

import multiprocessing
import os
import random
import resource
import selectors
import socket
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import trio
from tests.figures import figure
from tests.system.fleet import fleet, fleet_elsewhere, head_end, opened
from tests.system.test_lines import QUICK, ask_all
from tests.system.test_rpc import address
from tests.system.test_serve import BILLING, free_port, page, serving, until

from ipss_headend import _core, config
from ipss_headend.client import AsyncClient
from ipss_headend.field.reactor import EventKind, Outcome
from ipss_headend.server import HeadEnd

STORM = int(os.environ.get("IPSS_STORM", "500"))
"""R26 asks for 18,000."""

SLOW = int(os.environ.get("IPSS_SLOW", "300"))
"""R27 asks for 10,000; they come in waves of at most 4,000."""

CLAIMS = int(os.environ.get("IPSS_CLAIMS", "200"))
"""R29 asks for 10,000."""

POISON = int(os.environ.get("IPSS_POISON", "300"))
"""R32 asks for 5,000 meters of which 1 % are bad."""


@pytest.mark.timeout(180 + STORM // 10)
def test_r26_a_fleet_that_comes_back_at_once_is_admitted_at_the_rate_and_all_of_it(tmp_path: Path) -> None:
    """Every meter dials in at the same moment, twice; what is asked meanwhile is answered, and so are callers."""
    port = free_port()
    rate = max(100, STORM // 4)
    listener = f'[[listeners]]\nhost = "127.0.0.1"\nport = {port}\n[rpc]\nsocket = "rpc.sock"\n'
    times_s: list[float] = []
    most_kib: list[int] = []

    async def call(started: HeadEnd) -> None:
        async with AsyncClient(address(started)) as caller:
            while True:
                began = trio.current_time()
                await caller.call("control.status")
                calls_s.append(trio.current_time() - began)
                await trio.sleep(0.02)

    async def use(started: HeadEnd) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, started)
            for _ in range(2):
                began = trio.current_time()
                running.meters.dial(f"127.0.0.1:{port}")
                await until(lambda: started.reactor.stats()["associated"] < STORM)
                await until(lambda: started.reactor.stats()["associated"] == STORM)
                times_s.append(trio.current_time() - began)
                most_kib.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
                asked.append(ask_all(started))
                await until(lambda: started.figures.ends.total() == sum(asked))
            lag.append(started.figures.loop_lag_s)
            await until(lambda: len(calls_s) > 0)
            nursery.cancel_scope.cancel()

    asked: list[int] = []
    calls_s: list[float] = []
    lag: list[float] = []
    with fleet_elsewhere(STORM, "127.58.0.1", history_days=1) as running:
        reactor = 'associate = "30s"\nheartbeat = "60s"'
        path = head_end(tmp_path, listener, running, reactor=reactor, dials_in=True)
        text = path.read_text(encoding="utf-8").replace("second = 5000", f"second = {rate}")
        path.write_text(text, encoding="utf-8")
        over = serving(path, use, limit_s=150 + STORM / 10)
        assert running.reused() == []

    p99_s = sorted(calls_s)[len(calls_s) * 99 // 100]
    figure(
        f"R26: {STORM} meters back in {max(times_s):.1f} s at {rate} a second; meanwhile {len(calls_s)} calls, "
        f"p99 {p99_s * 1000:.0f} ms"
    )
    assert over.figures.ends == {Outcome.DONE: 2 * STORM}
    assert all(taken_s <= 600 for taken_s in times_s), times_s
    assert most_kib[1] <= most_kib[0] * 1.5 + 20_000, most_kib
    assert max(lag) < 1.0


@pytest.mark.timeout(180 + SLOW // 20)
def test_r27_slow_senders_are_cut_at_the_deadline_and_good_meters_are_read(tmp_path: Path) -> None:
    """Each sends the beginning of a frame and then an octet now and then, for ever."""
    port = free_port()
    listener = f'[[listeners]]\nhost = "127.0.0.1"\nport = {port}\n'
    frame_s = 4
    cut: list[float] = []

    async def read(started: HeadEnd, times_s: list[float]) -> None:
        """Ask every good meter once; how long that took."""
        began = trio.current_time()
        asked.append(ask_all(started, timeout_s=10))
        await until(lambda: started.figures.ends.total() == sum(asked), every_s=0.001)
        times_s.append(trio.current_time() - began)
        await trio.sleep(0.02)

    async def use(started: HeadEnd) -> None:
        running.meters.dial(f"127.0.0.1:{port}")
        await until(lambda: started.reactor.stats()["associated"] == 10)
        for _ in range(100):
            await read(started, rest_s)
        for wave in range(0, SLOW, 4_000):
            count = min(4_000, SLOW - wave)
            over = trio.Event()

            async def crawl(count: int = count, over: trio.Event = over) -> None:
                slow = pool.submit(dribble, port, count, 3 * frame_s)
                cut.extend(await trio.to_thread.run_sync(slow.result))
                over.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(crawl)
                while not over.is_set():
                    await read(started, meanwhile_s)

    asked: list[int] = []
    rest_s: list[float] = []
    meanwhile_s: list[float] = []
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    with pool, fleet(10, "127.59.0.1", history_days=1) as running:
        reactor = f'frame = "{frame_s}s"\nheartbeat = "60s"'
        path = head_end(tmp_path, listener, running, reactor=reactor, dials_in=True)
        over = serving(path, use, limit_s=100 + SLOW / 20)

    rest_ms, meanwhile_ms = (1000 * sorted(times)[len(times) * 99 // 100] for times in (rest_s, meanwhile_s))
    figure(
        f"R27: {SLOW} slow senders; all good meters read in {rest_ms:.1f} ms (p99) before and {meanwhile_ms:.1f} ms "
        f"meanwhile, {100 * meanwhile_ms / rest_ms - 100:+.0f} %"
    )
    assert len(cut) == SLOW
    assert set(over.figures.ends) == {Outcome.DONE}
    assert frame_s - 1 <= min(cut)
    assert max(cut) <= frame_s + 1.5, max(cut)


def dribble(port: int, count: int, most_s: float) -> list[float]:
    """Begin a frame on so many connections, send an octet a second; after how long each was cut."""
    lived: list[float] = []
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(count):
            line = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            line.sendall(b"\x00")
            line.setblocking(False)
            selector.register(line, selectors.EVENT_READ, time.monotonic())
        begun, next_octet = time.monotonic(), time.monotonic() + 1
        while selector.get_map() and time.monotonic() < begun + most_s:
            for key, _ in selector.select(0.05):
                assert isinstance(key.fileobj, socket.socket)
                try:
                    gone = key.fileobj.recv(1000) == b""
                except ConnectionError:
                    gone = True
                if gone:
                    lived.append(time.monotonic() - key.data)
                    selector.unregister(key.fileobj)
            if time.monotonic() >= next_octet:
                next_octet += 1
                for key in list(selector.get_map().values()):
                    assert isinstance(key.fileobj, socket.socket)
                    with suppress(BrokenPipeError, ConnectionResetError):
                        key.fileobj.send(b"\x01")
    return lived


@pytest.mark.timeout(180 + CLAIMS // 10)
def test_r29_impostors_and_clones_displace_nobody_and_each_is_told(tmp_path: Path) -> None:
    """First others say that they are the fleet's meters, without their keys; then clones come, with them."""
    meters = 20
    port = free_port()
    listener = f'[[listeners]]\nhost = "127.0.0.1"\nport = {port}\n'
    told_s: list[float] = []
    alarmed_s: list[float] = []
    lost: list[int] = []

    async def use(started: HeadEnd) -> None:
        events = started.figures.events
        running.meters.dial(f"127.0.0.1:{port}")
        await until(lambda: started.reactor.stats()["associated"] == meters)
        before = events[EventKind.DISCONNECTED]
        for seed, claims in ((77, CLAIMS), (1, 2 * meters)):
            others = _core.VirtualFleet(count=meters, seed=seed, first_address="127.62.0.1", port=0, history_days=1)
            try:
                told, began = events[EventKind.CLAIM_REFUSED], trio.current_time()
                others.dial(f"127.0.0.1:{port}")
                await until(lambda told=told: events[EventKind.CLAIM_REFUSED] > told)  # type: ignore[misc]
                told_s.append(trio.current_time() - began)
                asked = 0
                while events[EventKind.CLAIM_REFUSED] < told + claims:
                    asked = ask_all(started)
                    done.append(asked)
                    await until(lambda: started.figures.ends.total() == sum(done))
                    if seed == 77:
                        others.dial(f"127.0.0.1:{port}")  # at once, not after the pause of who is refused
                    await trio.sleep(0.1)
                if seed == 1:
                    await until(lambda: events[EventKind.CLONE_DETECTED] == meters)
                    alarmed_s.append(trio.current_time() - began)
            finally:
                others.stop()
        lost.append(events[EventKind.DISCONNECTED] - before)

    done: list[int] = []
    with fleet(meters, "127.61.0.1", history_days=1) as running:
        path = head_end(tmp_path, listener, running, reactor='heartbeat = "60s"', dials_in=True)
        over = serving(path, use, limit_s=120 + CLAIMS / 10)
        assert running.reused() == []

    assert lost == [0]
    assert over.figures.ends == {Outcome.DONE: sum(done)}
    assert over.figures.events[EventKind.CLAIM_REFUSED] >= CLAIMS + 2 * meters
    assert max(told_s) <= 5
    assert over.figures.events[EventKind.CLONE_DETECTED] == meters
    figure(f"R29: all {meters} clones told {max(alarmed_s):.2f} s after they began to dial, among their claims")
    with opened(config.load(path)) as database, database.reading() as connection:
        kept = connection.exec_driver_sql(
            "SELECT count(*) FROM events WHERE kind = ?", (int(EventKind.CLAIM_REFUSED),)
        ).scalar_one()
    assert kept >= CLAIMS + 2 * meters


@pytest.mark.timeout(180 + POISON // 10)
def test_r32_one_bad_meter_in_a_hundred_harms_no_other(tmp_path: Path) -> None:
    rng = random.Random(32)
    kinds = ["wrong-tag", "replay", "plaintext", "garbage", "silent", "truncated-block", "reset", "slow"]
    bad = sorted(rng.sample(range(POISON), max(POISON // 100, len(kinds))))
    named = ",".join(f"{kinds[place % len(kinds)]}=#{meter}" for place, meter in enumerate(bad))
    good = [meter + 1 for meter in range(POISON) if meter not in bad]
    wanted = 3

    async def use(started: HeadEnd) -> None:
        await until(lambda: started.reactor.stats()["associated"] >= len(good))
        plan = _core.Plan([_core.Item.attributes(0, [(3, bytes((1, 0, 1, 8, 0, 255)), 2)])])
        for turn in range(1, wanted + 1):
            started.reactor.submit(plan, [meter + 1 for meter in bad], timeout_s=5)
            started.reactor.submit(plan, good, timeout_s=30)
            await until(lambda turn=turn: started.figures.ends[Outcome.DONE] >= turn * len(good))  # type: ignore[misc]
        panics.append(started.reactor.stats()["panics"])
        await until(lambda: started.figures.ends.total() == wanted * POISON)

    panics: list[int] = []
    with fleet(POISON, "127.63.0.1", faults=named, history_days=1) as running:
        path = head_end(tmp_path, "", running, reactor=QUICK.replace('"3s"', '"60s"'))
        over = serving(path, use, limit_s=120 + POISON / 10)
        assert running.reused() == []

    assert panics == [0]
    assert over.figures.ends[Outcome.DONE] >= wanted * len(good)


def test_without_descriptors_some_wait_and_those_that_live_go_on(tmp_path: Path) -> None:
    """A head-end that may open 140 files and has 150 meters: whom it holds are read again and again, and it is well."""
    port = free_port()
    plan = BILLING.replace("1d at 00:10", "1s")
    with fleet(150, "127.64.0.1", history_days=1) as running:
        path = head_end(tmp_path, plan, running, metrics_port=port, reactor='request = "5s"')
        process = subprocess.Popen(
            [sys.executable, "-m", "ipss_headend.cli", "serve", str(path)],
            stderr=subprocess.PIPE,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (140, 140)),
        )
        try:
            give_up = time.monotonic() + 60
            while stored(path) < 200 and time.monotonic() < give_up:
                time.sleep(0.2)
                assert process.poll() is None
            assert stored(path) >= 200
            held = running.meters.stats()["connections"]
            status, said = page(f"http://127.0.0.1:{port}/healthz")
        finally:
            process.terminate()
            _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log.decode()
    assert (status, said) == (200, "ok\n")
    assert 20 <= held <= 140 - 64
    assert b"Too many open files" not in log


def stored(path: Path) -> int:
    """Lines in the store."""
    with opened(config.load(path)) as database, database.reading() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM readings").scalar_one())
