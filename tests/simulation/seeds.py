"""Many seeds of the whole head-end over its reactor and virtual meters, over several processes (R43).

    python -m tests.simulation.seeds 100000              seeds 0 to 99,999 on every core
    python -m tests.simulation.seeds 1000 --first 7000   1,000 others
    python -m tests.simulation.seeds --replay 15         one, with all that happened

The first seed that fails ends it; it says how to replay that one.
"""

from __future__ import annotations

from collections import Counter

from tests.simulation.world import Ground, digest, simulate
from tests.unit.control import seeds as many

from ipss_headend import log
from ipss_headend.config import LogConfig

AGAIN = "python -m tests.simulation.seeds --replay"


def part(seeds: list[int]) -> Counter[str]:
    """These, in this process; what was seen in them."""
    global _ground
    if _ground is None:
        log.configure(LogConfig(level="critical"))
        _ground = Ground()
    seen: Counter[str] = Counter()
    for seed in seeds:
        world = many.run(seed, lambda seed: simulate(seed, _ground), AGAIN)
        seen += world.seen
        seen["seeds"] += 1
        seen["executed"] += world.executed.total()
        seen["acknowledged"] += world.acknowledged.total()
        seen["lives"] += world.lives
    return seen


_ground: Ground | None = None
"""This process's own."""


def main() -> None:
    """The command."""

    def replay(seed: int) -> None:
        with Ground() as ground:
            world = many.run(seed, lambda seed: simulate(seed, ground), AGAIN)
        print(*world.trace, f"digest {digest(world)}", sep="\n")

    many.command("Seeds of the simulated whole (R43).", part, replay)


if __name__ == "__main__":
    main()
