"""Time one call, the same way on every side. Imported by each side's own process; needs nothing but Python."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable

# A round lasts about so long; the rounds' spread is reported, their median is the figure.
ROUND_S = 0.15
ROUNDS = 7


def pin(core: int) -> None:
    """Stay on one core."""
    os.sched_setaffinity(0, {core})


def measure(call: Callable[[], object]) -> list[float]:
    """Microseconds of CPU a call, one figure a round."""
    loops = 1
    while True:
        began = time.process_time_ns()
        for _ in range(loops):
            call()
        took = time.process_time_ns() - began
        if took > ROUND_S * 1e9 / 4:
            break
        loops = loops * 4 if took < ROUND_S * 1e8 else loops * 2
    loops = max(1, int(loops * ROUND_S * 1e9 / took))
    gc.collect()
    gc.disable()
    figures = []
    for _ in range(ROUNDS):
        began = time.process_time_ns()
        for _ in range(loops):
            call()
        figures.append((time.process_time_ns() - began) / loops / 1000)
    gc.enable()
    return figures


def report(side: str, version: str, works: dict[str, Callable[[], object]]) -> None:
    """Measure each work and print one JSON line.

    Works are given in the order of the fixtures; one that this side cannot do is left out by its author.
    """
    pin(0)
    # A library that prints does not print into the report, and its prints cost it nothing but the call.
    output = os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    sys.setswitchinterval(1)
    figures = {name: measure(call) for name, call in works.items()}
    output.write(json.dumps({"side": side, "version": version, "figures_us": figures}) + "\n")
    output.flush()
