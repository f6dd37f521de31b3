"""Bad networks between a whole head-end and its meters, by the proxy: what was lost is found, asked again, and ends.

R28 half-open lines, R31 answers to their questions, R7 counters over broken lines; rows of tests/FAULTS.md.
"""

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio
from tests.system.fleet import Running, fleet, head_end, opened
from tests.system.proxy import Line, Proxy, proxy
from tests.system.test_serve import DAY_US, LOAD_PROFILE, serving, until

from ipss_headend import _core, config
from ipss_headend.field.questions import Attributes
from ipss_headend.field.reactor import EventKind, Outcome
from ipss_headend.schedule import SECOND_US
from ipss_headend.server import HeadEnd
from ipss_headend.store import marks
from ipss_headend.store.registry import all_layouts

SILENT_DROPS = int(os.environ.get("IPSS_SILENT_DROPS", "200"))
"""R28 asks for 10,000."""

HEARTBEAT_S = 3
QUICK = f'heartbeat = "{HEARTBEAT_S}s"\nanswer = "1s"\nassociate = "5s"\nframe = "2s"\nrequest = "60s"'
ENERGY = (3, bytes((1, 0, 1, 8, 0, 255)), 2)


@dataclass
class _Behind:
    """A fleet at other addresses: those of the proxy."""

    running: Running
    address: str
    by: str
    port: int

    @property
    def meters(self) -> "_Behind":
        return self

    def csv(self, *, dials_in: bool = False) -> str:
        text = self.running.meters.csv(dials_in=dials_in)
        there = rf"(?<=[,/]){self.address}\.(\d+\.\d+):{self.running.meters.port},"
        return re.sub(there, rf"{self.by}.\1:{self.port},", text)


@contextmanager
def behind_a_proxy(
    directory: Path, count: int, octets: tuple[int, int], plans: str = "", *, line: Line | None = None, days: int = 3
) -> Iterator[tuple[Running, Proxy, Path]]:
    """A fleet at 127.A.0.1 and on, which its head-end reaches at 127.B.0.1 and on."""
    here, there = (f"127.{number}" for number in octets)
    with (
        fleet(count, f"{here}.0.1", history_days=days) as running,
        proxy(lambda local: (here + local.removeprefix(there), running.meters.port), line=line) as network,
    ):
        behind = _Behind(running, here, there, network.port)
        yield running, network, head_end(directory, plans, behind, reactor=QUICK)  # type: ignore[arg-type]


def answered(started: HeadEnd, asked: int) -> bool:
    """Whether so many questions have ended."""
    return started.figures.ends.total() == asked


def ask_all(started: HeadEnd, *, timeout_s: float = 30) -> int:
    """One register of every meter; how many were asked."""
    plan = _core.Plan([_core.Item.attributes(0, [ENERGY])])
    started.reactor.submit(plan, sorted(started.meters), timeout_s=timeout_s, attempts=5)
    return len(started.meters)


@pytest.mark.timeout(120 + SILENT_DROPS)
def test_r28_lines_that_a_network_forgot_are_found_in_two_heartbeats_and_no_request_is_lost(tmp_path: Path) -> None:
    """Every second time requests are on their way; each is answered over the next connection."""
    meters = min(SILENT_DROPS, 500)
    rounds = max(2, SILENT_DROPS // meters)
    found_s: list[float] = []
    asked: list[int] = []

    async def use(started: HeadEnd) -> None:
        ends = started.figures.ends
        for number in range(rounds):
            await until(lambda: started.reactor.stats()["associated"] == meters)
            assert network.forget() >= meters
            began = trio.current_time()
            if number % 2:
                asked.append(ask_all(started))
            await until(lambda: network.unnoticed == 0)
            found_s.append(trio.current_time() - began)
            await until(lambda: ends.total() == sum(asked))

    with behind_a_proxy(tmp_path, meters, (51, 52)) as (running, network, path):
        over = serving(path, use, limit_s=60 + 10 * rounds)
        assert running.reused() == []

    assert max(found_s) <= 2 * HEARTBEAT_S
    assert sum(asked) >= meters
    assert over.figures.ends == {Outcome.DONE: sum(asked)}
    assert over.figures.events[EventKind.DISCONNECTED] <= over.figures.events[EventKind.CONNECTED], "each is told once"
    assert network.seen.swallowed > 0


def test_resets_in_mid_frame_lose_nothing_and_reuse_no_counter(tmp_path: Path) -> None:
    """The line breaks inside frames; the load profile becomes whole nevertheless."""

    async def use(started: HeadEnd) -> None:
        await until(lambda: network.seen.resets > 5)
        network.line = Line()
        await until(lambda: whole(path, 6))

    plan, bad = LOAD_PROFILE.replace("15min", "5s"), Line(reset=0.05, jitter_s=0.002)
    with behind_a_proxy(tmp_path, 6, (53, 54), plan, line=bad) as (running, network, path):
        serving(path, use, limit_s=90)
        assert running.reused() == []
        assert EventKind.REPLAY_REFUSED not in running.seen


def test_a_flipped_bit_on_the_line_gives_no_value_and_what_was_asked_is_asked_again(tmp_path: Path) -> None:
    """One bit at a time, in either direction; the answer to another question is the same every time."""
    serial = (1, bytes((0, 0, 42, 0, 0, 255)), 2)
    rounds = 15

    async def use(started: HeadEnd) -> None:
        for number in range(1, rounds + 1):
            await until(lambda: started.reactor.stats()["associated"] == 1)
            network.line = Line(corrupt=1.0, corrupt_until=number)
            answer = await started.requests.ask([Attributes(0, (serial,))], 1, timeout_s=60, attempts=5)
            values.append([row[-1] for row in answer.lines])
            assert network.seen.corrupted == number

    values: list[object] = []
    with behind_a_proxy(tmp_path, 1, (67, 68)) as (running, network, path):
        over = serving(path, use, limit_s=100)
        assert running.reused() == []

    assert all(value == values[0] for value in values)
    kinds = (EventKind.TAG_INVALID, EventKind.PROTOCOL_VIOLATION, EventKind.DISCONNECTED, EventKind.WEAKER_SECURITY)
    assert sum(over.figures.events[kind] for kind in kinds) >= rounds / 2


def whole(path: Path, meters: int) -> bool:
    """Whether yesterday's load profile of every meter is there, without a gap."""
    with opened(config.load(path)) as database, database.reading() as connection:
        found = [number for number, layout in all_layouts(connection).items() if layout.class_id == 7]
        until_us = int(time.time()) * SECOND_US // DAY_US * DAY_US
        window = (until_us - DAY_US, until_us, 900 * SECOND_US)
        return bool(found) and all(
            any(marks.gaps(connection, meter, layout, *window) == [] for layout in found)
            for meter in range(1, meters + 1)
        )


def test_a_meter_that_starts_again_is_associated_anew_and_read(tmp_path: Path) -> None:
    """The fleet ends and comes back at the same addresses, as after a power cut; its counters are ahead."""

    async def use(started: HeadEnd) -> None:
        events = started.figures.events
        await until(lambda: events[EventKind.ASSOCIATED] == 5)
        asked = ask_all(started)
        await until(lambda: started.figures.ends.total() == asked)
        port = running.meters.port
        await trio.to_thread.run_sync(running.meters.stop)
        asked += ask_all(started)
        await until(lambda: events[EventKind.DISCONNECTED] >= 5)
        # A virtual meter's counters begin at a number of the second it is switched on in: within the same second they
        # would be the same again, refused as a replay.
        await trio.sleep(1.1)
        again = _core.VirtualFleet(count=5, first_address="127.55.0.1", port=port, history_days=5)
        try:
            # Those asked while nobody answered may have been given up, and their meters wait before the next try.
            while events[EventKind.ASSOCIATED] < 10:
                asked += ask_all(started)
                await until(partial(answered, started, asked))
                await trio.sleep(0.5)
        finally:
            again.stop()
        outcomes.update(started.figures.ends)
        refused.append(events[EventKind.REPLAY_REFUSED])

    outcomes: dict[int, int] = {}
    refused: list[int] = []
    with fleet(5, "127.55.0.1") as running:
        path = head_end(tmp_path, "", running, reactor=QUICK)
        serving(path, use, limit_s=110)

    assert outcomes[Outcome.DONE] >= 10
    assert set(outcomes) <= {Outcome.DONE, Outcome.UNREACHABLE, Outcome.INTERRUPTED, Outcome.TIMED_OUT}
    assert refused == [0]


def test_a_slow_and_jittery_line_is_waited_for(tmp_path: Path) -> None:
    async def use(started: HeadEnd) -> None:
        asked = ask_all(started)
        await until(lambda: started.figures.ends.total() == asked)

    line = Line(delay_s=0.1, jitter_s=0.1, octets_per_s=9600 / 8)
    with behind_a_proxy(tmp_path, 10, (56, 57), line=line) as (running, _, path):
        over = serving(path, use, limit_s=60)
        assert running.reused() == []

    assert over.figures.ends == {Outcome.DONE: 10}
    assert over.figures.events[EventKind.DISCONNECTED] <= 10


def test_datagrams_that_vanish_or_come_late_delay_reads_and_mix_up_none(tmp_path: Path) -> None:
    """R31 over UDP. Doubled ones: `protocols/dlms/tests/datagram.rs`."""
    reads = 40

    async def use(started: HeadEnd) -> None:
        for number in range(1, reads + 1):
            ask_all(started, timeout_s=60)
            await until(lambda number=number: started.figures.ends.total() == number)  # type: ignore[misc]

    meters = _core.VirtualFleet(
        count=1, first_address="127.65.0.1", port=0, history_days=1, transport="udp", log_nonces=True
    )
    running = Running(meters)
    listener = threading.Thread(target=running.listen)
    listener.start()
    try:
        bad = Line(drop=0.1, reorder=0.2, jitter_s=0.005)
        with proxy(lambda _: ("127.65.0.1", meters.port), udp="127.66.0.1", line=bad) as network:
            behind = _Behind(running, "127.65", "127.66", network.port)
            over = serving(head_end(tmp_path, "", behind, reactor=QUICK), use, limit_s=100)  # type: ignore[arg-type]
        assert running.reused() == []
    finally:
        running.stop()
        listener.join()
        meters.stop()

    assert over.figures.ends[Outcome.DONE] >= reads * 0.9
    assert set(over.figures.ends) <= {Outcome.DONE, Outcome.TIMED_OUT, Outcome.UNREACHABLE}
    assert min(network.seen.dropped, network.seen.reordered) > 0
