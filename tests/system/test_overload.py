"""R30: three times as much is asked as the meters can answer, for a while.

What is urgent is answered, what is not gives way, nothing is lost and no queue grows; afterwards all is as before. The
meters are the bound, behind a network with a delay, so that the test does not measure how busy the machine is.
"""

import os
import random
import resource
from array import array
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from tests.figures import figure
from tests.system.proxy import Line
from tests.system.test_lines import ENERGY, behind_a_proxy
from tests.system.test_serve import serving, until

from ipss_headend.field.questions import Attributes
from ipss_headend.field.reactor import Outcome
from ipss_headend.server import HeadEnd

if TYPE_CHECKING:
    from ipss_headend._core import Priority

OVERLOAD_S = float(os.environ.get("IPSS_OVERLOAD_S", "6"))
"""R30 asks for half an hour; with the variable the figures are judged, too."""

JUDGED = "IPSS_OVERLOAD_S" in os.environ
METERS = 40
QUEUE = 16
"""Requests that may wait for one meter."""

MIX: "dict[Priority, float]" = {"critical": 0.1, "on-demand": 0.4, "scheduled": 1.2, "backfill": 1.3}
"""What is asked, in what the meters can answer: 3 in all."""

ORDER: "tuple[Priority, ...]" = ("critical", "on-demand", "scheduled", "backfill")
QUESTION = [Attributes(0, (ENERGY,))]


def memory_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() // 1024


class Load:
    """What was asked of one priority, and how it ended."""

    def __init__(self, priority: "Priority", timeout_s: float) -> None:
        self.priority, self.timeout_s = priority, timeout_s
        self.asked = 0
        self.ends: Counter[Outcome] = Counter()
        self.durations_us: list[int] = []

    def ask(self, started: HeadEnd, meters: list[int]) -> None:
        self.asked += len(meters)
        started.requests.submit(
            QUESTION,
            array("I", meters),
            timeout_s=self.timeout_s,
            priority=self.priority,
            attempts=1,
            on_end=lambda end: self.over(Outcome(end[2]), end[4]),
        )

    def over(self, outcome: Outcome, duration_us: int) -> None:
        self.ends[outcome] += 1
        if outcome is Outcome.DONE:
            self.durations_us.append(duration_us)

    @property
    def done(self) -> float:
        """The share that was answered."""
        return self.ends[Outcome.DONE] / self.asked

    def p99_s(self) -> float:
        """How long all but the slowest hundredth of the answers took."""
        return sorted(self.durations_us)[len(self.durations_us) * 99 // 100] / 1e6


@pytest.mark.timeout(180 + 2 * int(OVERLOAD_S))
def test_r30_three_times_too_much_is_shed_in_order_and_no_answer_fewer_comes(tmp_path: Path) -> None:
    rng = random.Random(30)
    everyone = list(range(1, METERS + 1))
    loads = {priority: Load(priority, 20.0) for priority in ORDER}
    most_queued = most_pending = 0
    memory: list[int] = []
    rates: list[float] = []

    async def use(started: HeadEnd) -> None:
        nonlocal most_queued, most_pending
        await until(lambda: started.reactor.stats()["associated"] == METERS)
        # The most that they answer: each always has two more to come.
        peak = Load("scheduled", 60.0)
        for _ in range(3):
            peak.ask(started, everyone)
        await until(lambda: peak.ends.total() >= METERS)
        began, before = trio.current_time(), peak.ends[Outcome.DONE]
        while trio.current_time() - began < min(OVERLOAD_S, 20.0) / 2:
            for _ in range((peak.ends.total() + 3 * METERS - peak.asked) // METERS):
                peak.ask(started, everyone)
            await trio.sleep(0.02)
        rates.append((peak.ends[Outcome.DONE] - before) / (trio.current_time() - began))
        await until(lambda: peak.ends.total() == peak.asked)
        assert set(peak.ends) == {Outcome.DONE}

        began, due = trio.current_time(), dict.fromkeys(ORDER, 0.0)
        settled_s, settled = 0.0, 0
        while (gone := trio.current_time() - began) < OVERLOAD_S:
            for priority, load in loads.items():
                due[priority] = MIX[priority] * rates[0] * gone
                count = int(due[priority]) - load.asked
                if count > 0:
                    load.ask(started, rng.choices(everyone, k=count))
            if not settled_s and gone >= OVERLOAD_S / 3:  # the queues are full by now
                settled_s, settled = gone, sum(load.ends[Outcome.DONE] for load in loads.values())
                memory.append(memory_kib())
            stats = started.reactor.stats()
            most_queued = max(most_queued, stats["queued"])
            most_pending = max(most_pending, len(started.requests))
            await trio.sleep(0.05)
        memory.append(memory_kib())
        answers = sum(load.ends[Outcome.DONE] for load in loads.values()) - settled
        rates.append(answers / (gone - settled_s))
        await until(lambda: all(load.ends.total() == load.asked for load in loads.values()))
        after = Load("backfill", 60.0)
        after.ask(started, everyone)
        await until(lambda: after.ends.total() == METERS)
        assert after.ends == {Outcome.DONE: METERS}
        ended.append(started.figures.ends.total())
        asked.append(sum(load.asked for load in (peak, after, *loads.values())))

    ended: list[int] = []
    asked: list[int] = []
    with behind_a_proxy(tmp_path, METERS, (78, 79), line=Line(delay_s=0.1)) as (running, _, path):
        serving(path, use, limit_s=120 + 2 * OVERLOAD_S)
        assert running.reused() == []

    shares = [loads[priority].done for priority in ORDER]
    grown = memory[1] / memory[0] - 1
    answered = ", ".join(f"{name} {share:.1%}" for name, share in zip(ORDER, shares, strict=True))
    figure(
        f"R30: {rates[1] / rates[0]:.0%} of the peak's {rates[0]:.0f} answers/s at 3 times that load for "
        f"{OVERLOAD_S:.0f} s; answered {answered}; critical p99 {loads['critical'].p99_s():.2f} s; memory {grown:+.1%}"
    )
    assert ended == asked, "each ends once"
    assert shares[:2] == [1.0, 1.0]
    assert shares[2] > shares[3]
    assert all(set(load.ends) <= {Outcome.DONE, Outcome.OVERLOADED, Outcome.TIMED_OUT} for load in loads.values())
    assert sum(load.ends[Outcome.OVERLOADED] for load in loads.values()) > 0
    assert most_queued <= METERS * QUEUE
    assert most_pending <= METERS * (QUEUE + 1) * 2
    assert rates[1] >= rates[0] * (0.9 if JUDGED else 0.5)
    if JUDGED:
        assert grown <= 0.05
        assert loads["critical"].p99_s() <= 2.0
