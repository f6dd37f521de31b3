"""Many seeds of the simulated core, over several processes (R43).

    python -m tests.unit.control.seeds 100000              seeds 0 to 99,999 on every core
    python -m tests.unit.control.seeds 1000 --first 7000   1,000 others
    python -m tests.unit.control.seeds --replay 6          one, with all that happened

The first seed that fails ends it; it says how to replay that one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tests.unit.control.simulation import Ground, digest, simulate

from ipss_headend import log
from ipss_headend.config import LogConfig

W = TypeVar("W")

Part = Callable[[list[int]], Counter[str]]
"""Some seeds of a simulation, in this process; what was seen in them."""

PART = 25
"""Seeds that a process takes at a time."""

AGAIN = "python -m tests.unit.control.seeds --replay"


class Failed(AssertionError):
    """A seed did what must not be."""


def run(seed: int, simulate: Callable[[int], W], again: str = AGAIN) -> W:
    """One seed.

    Raises:
        Failed: with the way to replay it.
    """
    try:
        return simulate(seed)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise Failed(f"seed {seed}: {_told(error)}; replay it with `{again} {seed}`") from error


def part(seeds: list[int]) -> Counter[str]:
    """These, in this process; what was seen in them."""
    global _ground
    if _ground is None:
        log.configure(LogConfig(level="critical"))
        _ground = Ground()
    seen: Counter[str] = Counter()
    for seed in seeds:
        world = run(seed, lambda seed: simulate(seed, _ground))
        seen += world.seen
        seen["seeds"] += 1
        seen["executed"] += world.executed.total()
        seen["lives"] += world.lives
    return seen


_ground: Ground | None = None
"""This process's own."""


def run_all(seeds: Iterable[int], processes: int = 1, part: Part = part) -> Counter[str]:
    """All of these; what was seen in them.

    Raises:
        Failed: the first that failed.
    """
    seen: Counter[str] = Counter()
    parts = list(_parts(seeds))
    if processes <= 1 or len(parts) <= 1:
        for some in parts:
            seen += part(some)
        return seen
    # Processes of their own, not forked: trio and SQLite are theirs from the beginning.
    with multiprocessing.get_context("spawn").Pool(min(processes, len(parts))) as pool:
        for found in pool.imap_unordered(part, parts):
            seen += found
    return seen


def _parts(seeds: Iterable[int]) -> Iterator[list[int]]:
    part: list[int] = []
    for seed in seeds:
        part.append(seed)
        if len(part) == PART:
            yield part
            part = []
    if part:
        yield part


def _told(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def main() -> None:
    """The command."""

    def replay(seed: int) -> None:
        with Ground() as ground:
            world = run(seed, lambda seed: simulate(seed, ground))
        print(*world.trace, f"digest {digest(world)}", sep="\n")

    command("Seeds of the simulated core (R43).", part, replay)


def command(what: str, part: Part, replay: Callable[[int], None]) -> None:
    """What the command line asks for, of a simulation."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("count", type=int, nargs="?", default=2_000, help="how many (2,000)")
    parser.add_argument("--first", type=int, default=0, help="the first one (0)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="how many at a time (all cores)")
    parser.add_argument("--replay", type=int, metavar="SEED", help="one, with all that happened in it")
    asked = parser.parse_args()
    log.configure(LogConfig(level="critical"))
    if asked.replay is not None:
        replay(asked.replay)
        return
    began = time.monotonic()
    seen = run_all(range(asked.first, asked.first + asked.count), asked.processes, part)
    taken_s = time.monotonic() - began
    print(*(f"{what}: {count}" for what, count in sorted(seen.items())), sep="\n")
    print(f"0 of {asked.count} failed, {taken_s:.0f} s")


if __name__ == "__main__":
    main()
