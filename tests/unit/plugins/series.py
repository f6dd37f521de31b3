"""Series of households with seeded defects, and their truth."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ipss_headend.plugins import Batch, Flag, columns

DAY = 96
MODULUS = 10_000_000


@dataclass
class Made:
    """Columns, and what is wrong in them: the flags of each interval."""

    columns: dict[str, NDArray[np.int64] | NDArray[np.uint8]]
    truth: NDArray[np.uint32]
    rows: int = field(init=False)

    def __post_init__(self) -> None:
        self.rows = len(self.truth)

    def batch(self) -> Batch:
        """As a plugin gets it."""
        return columns.local({name: memoryview(column.data) for name, column in self.columns.items()}, self.rows)


def households(count: int, days: int, seed: int) -> NDArray[np.int64]:
    """Wh of quarter-hours: a base, a daily course, appliances, noise."""
    random = np.random.default_rng(seed)
    length = days * DAY
    hour = np.arange(length) % DAY / 4
    course = 60 + 40 * np.exp(-((hour - 8) ** 2) / 4) + 110 * np.exp(-((hour - 19) ** 2) / 6)
    size = random.uniform(0.5, 2.5, (count, 1))
    noise = random.gamma(8, 1 / 8, (count, length))
    appliances = (random.random((count, length)) < 0.06) * random.uniform(100, 400, (count, length))
    made: NDArray[np.int64] = (size * (course * noise + appliances)).astype(np.int64)
    return made


KINDS = (Flag.GAP, Flag.SPIKE, Flag.NEGATIVE, Flag.ROLL_OVER, Flag.SUM, Flag.REGISTER, Flag.CLOCK, Flag.STUCK)


def seeded(count: int, days: int, seed: int) -> Made:
    """Series of which each has at most one kind of defect; a third of them are sound."""
    random = np.random.default_rng(seed + 1)
    values = households(count, days, seed)
    length = values.shape[1]
    truth = np.zeros(values.shape, np.uint32)
    known = np.ones(values.shape, np.uint8)
    begins = random.integers(0, MODULUS // 2, count)
    clock_s = random.integers(-20, 20, count)
    parent = np.full(count, -1, np.int64)
    for whole in range(0, count - 2, 12):
        values[whole] = values[whole + 1] + values[whole + 2]
        parent[whole + 1 : whole + 3] = whole
    moved = values.sum(axis=1)
    for one in range(count):
        place = one % 12
        kind = KINDS[place - 3] if 3 <= place < 11 and place - 3 != 4 else Flag.SUM if place == 0 and one % 24 else None
        at = random.choice(np.arange(length), random.integers(1, 4), replace=False)
        if kind is None:
            continue
        if kind is Flag.CLOCK:
            clock_s[one], at = random.choice([-1, 1]) * random.integers(61, 4000), np.arange(length)
        elif kind is Flag.REGISTER:
            moved[one], at = moved[one] * random.uniform(1.02, 1.3), np.arange(length)
        elif kind is Flag.STUCK:
            at = random.integers(0, length - 40) + np.arange(30)
            values[one, at] = values[one].max() // 2 + 11
            moved[one] = values[one].sum()
        elif kind is Flag.SUM:
            values[one, at] += values[one, at] // 5 + 20
            moved[one] = values[one].sum()
        elif kind is Flag.ROLL_OVER:
            at = at[:1]
            values[one, at] -= MODULUS
        elif kind is Flag.GAP:
            known[one, at], values[one, at] = 0, 0
        elif kind is Flag.NEGATIVE:
            values[one, at] = -values[one, at] - 1
        elif kind is Flag.SPIKE:
            values[one, at] = values[one].max() * random.integers(5, 50, len(at))
        truth[one, at] = kind
    ends = begins + moved
    first = np.arange(0, count * length + 1, length, dtype=np.int64)
    nought = np.zeros(count, np.int64)
    return Made(
        {
            "series": np.arange(count, dtype=np.int64),
            "first": first,
            "start_us": nought,
            "step_us": nought + 900_000_000,
            "register_first": begins,
            "register_last": ends % MODULUS,
            "modulus": nought + MODULUS,
            "parent": parent,
            "clock_s": clock_s,
            "limit": nought,
            "values": values.reshape(-1),
            "known": known.reshape(-1),
        },
        truth.reshape(-1),
    )
