"""Readings handed to a plugin's process and back as columns in shared memory, and validation on one core.

    python -m benches.plugins [--quick]

The plugin is `validate`, installed with the head-end. Three figures, each of the same 100,000 intervals of 100 series:
columns laid into shared memory; handed to the plugin's process, looked at there by a hook that reads every column (as a
plugin with Arrow or polars would) and answered; and validated in one process, by CPU time. Nothing is lost: a hand-over
that fails, or flags that are not those of the validation in this process, end the bench. A fourth figure is
`sales`, which puts days of 200 meters in the place of others, by CPU time.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import trio
from benches.harness import keep, summary

from ipss_headend.config import LogConfig
from ipss_headend.log import configure
from ipss_headend.metrics import Figures
from ipss_headend.plugins.billing.sales import billing_intervals
from ipss_headend.plugins.billing.validate import billing_validate_batch
from ipss_headend.plugins.columns import Buffer, local, share
from ipss_headend.plugins.context import Context
from ipss_headend.plugins.manager import Manager
from ipss_headend.plugins.selftest import batch

TARGETS = {"handed over": 5e6, "validated": 20e6}
HOOK = "billing_validate_batch"
METERS = 200
DAY_US = 86_400_000_000
READER = """
import numpy as np
from ipss_headend.plugins import hook

@hook
def billing_validate_batch(batch):
    flags = batch.numpy_flags()
    if len(flags):
        flags[batch.numpy("values") < 0] |= np.uint32(4)
        flags[batch.numpy("known") == 0] |= np.uint32(1)
"""


def shared(columns: Mapping[str, Buffer], rows: int, seconds: float) -> float:
    """Readings a second of wall-clock time laid into shared memory."""
    return rows * _per_second(lambda: share(columns, rows).close(), seconds, time.perf_counter)


def validated(columns: Mapping[str, Buffer], rows: int, seconds: float) -> float:
    """Intervals a second of CPU time validated in this process."""
    context = Context("validate", HOOK, 1, 0, 1.0)
    views = dict(local(columns, rows).items())
    return rows * _per_second(lambda: billing_validate_batch(context, local(views, rows)), seconds, time.process_time)


def counted(seconds: float) -> float:
    """Intervals a second of CPU time that `sales` puts in the place of others: quarter hours of 200 meters' days."""
    days = [[_day(meter, first) for meter in range(METERS)] for first in (0, 1)]
    context = Context("sales", "billing_intervals", 1, DAY_US, 1.0)
    turn = itertools.cycle(days)
    per_second = _per_second(lambda: billing_intervals(context, {}, next(turn), ""), seconds, time.process_time)
    context.effects.clear()
    if billing_intervals(context, {}, days[0], "") or billing_intervals(context, {}, days[0], "compare")["differs"]:
        sys.exit("what was counted is not what was given")
    return METERS * 96 * per_second


def _day(meter: int, first: int) -> dict[str, Any]:
    hour_us = DAY_US // 24
    one = {
        "source": "1.0.99.1.0.255", "item": "1.0.1.8.0.255", "scaler": 0, "step_us": hour_us // 4, "first_us": 0,
        "values": [first + (meter + place) % 300 for place in range(96)], "flags": [0] * 96,
    }  # fmt: skip
    hours = [[hour * hour_us, hour] for hour in range(24)]
    return {
        "account": f"meter-{meter}", "day": "1970-01-01", "start_us": 0, "end_us": DAY_US, "hours": hours,
        "series": [one],
    }  # fmt: skip


def handed_over(name: str, columns: Mapping[str, Buffer], rows: int, seconds: float) -> float:
    """Readings a second of wall-clock time to a plugin's process and back."""

    async def run() -> float:
        figures = Figures()
        manager = Manager([name], figures, patience=100)
        async with trio.open_nursery() as nursery:
            await nursery.start(manager.run)
            await manager.batch(HOOK, columns, rows)  # the first one maps and imports
            began, done = time.perf_counter(), 0
            while time.perf_counter() - began < seconds:
                found = await manager.batch(HOOK, columns, rows)
                done += 1
            took = time.perf_counter() - began
            nursery.cancel_scope.cancel()
        if figures.plugin(name).calls[HOOK, "done"] != done + 1:
            sys.exit(f"the plugin {name} is not installed, or failed: {dict(figures.plugin(name).calls)}")
        if name == "validate" and found != _expected(columns, rows):
            sys.exit("the plugin's process and this one give other flags")
        return done * rows / took

    return trio.run(run)


def _expected(columns: Mapping[str, Buffer], rows: int) -> array[int]:
    one = local(columns, rows)
    billing_validate_batch(Context("validate", HOOK, 1, 0, 1.0), one)
    return array("I", one.flags)


def _per_second(work: Callable[[], object], seconds: float, clock: Callable[[], float]) -> float:
    work()
    began, done = clock(), 0
    while clock() - began < seconds:
        work()
        done += 1
    return done / (clock() - began)


def _install_reader(directory: Path) -> None:
    information = directory / "bench_reader-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-reader\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[ipss_headend.plugins]\nbench_reader = bench_reader\n")
    (directory / "bench_reader.py").write_text(READER)
    sys.path.insert(0, str(directory))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two short rounds, nothing kept")
    given = parser.parse_args()
    configure(LogConfig(level="critical"))
    rounds, seconds = (2, 0.5) if given.quick else (5, 3.0)
    columns, rows = batch("huge")
    names = ("shared", "handed over", "handed over, validated", "validated", "counted as sales")
    figures: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as directory:
        _install_reader(Path(directory))
        for _ in range(rounds):
            figures["shared"].append(shared(columns, rows, seconds))
            figures["handed over"].append(handed_over("bench_reader", columns, rows, seconds))
            figures["handed over, validated"].append(handed_over("validate", columns, rows, seconds))
            figures["validated"].append(validated(columns, rows, seconds))
            figures["counted as sales"].append(counted(seconds))
    results = {name: summary(each) for name, each in figures.items()}
    for name, result in results.items():
        target = f" (at least {TARGETS[name] / 1e6:g} million is asked for)" if name in TARGETS else ""
        print(f"{name:24} {result['median'] / 1e6:8.2f} million/s spread {result['spread_percent']:.0f}%{target}")
    if not given.quick:
        versions = {"numpy": importlib.metadata.version("numpy")}
        keep("plugins", {"rows": rows, "per_second": results, "targets": TARGETS, "versions": versions, "lost": 0})
    return 0


if __name__ == "__main__":
    sys.exit(main())
