"""How many commands may go: per principal, per group and for the fleet, in sliding windows (R16). Pure.

The windows lie on the budgets' own clock, which runs while the head-end does: neither a wall clock that jumps nor a
restart makes room. What is spent stays spent, whether the command then arrives or not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US


@dataclass(frozen=True, slots=True)
class Limits:
    """One pool's limits. Only the configuration file says them."""

    per_minute: int = 60
    """For each principal, and for each group of meters."""
    per_hour: int = 500
    fleet_per_day: int = 10
    """For all together."""


class Spend(NamedTuple):
    """One command that was let through."""

    principal: str
    group: str
    at_us: int
    """On the budgets' clock."""


@dataclass(slots=True)
class Budget:
    """One pool: what was spent within a day, and whether there is room."""

    limits: Limits
    _day: deque[int] = field(default_factory=deque)
    _scopes: dict[tuple[str, str], deque[int]] = field(default_factory=dict)

    def room(self, principal: str, group: str, now_us: int) -> str | None:
        """None if one more may go now; else whose budget is spent, in words."""
        _forget(self._day, now_us - DAY_US)
        if len(self._day) >= self.limits.fleet_per_day:
            return f"the fleet's {self.limits.fleet_per_day} a day"
        for scope, name in (("principal", principal), ("group", group)):
            spent = self._scopes.setdefault((scope, name), deque())
            _forget(spent, now_us - HOUR_US)
            if len(spent) >= self.limits.per_hour:
                return f"{scope} {name}: {self.limits.per_hour} an hour"
            if _within(spent, now_us - MINUTE_US, self.limits.per_minute):
                return f"{scope} {name}: {self.limits.per_minute} a minute"
        return None

    def spend(self, spend: Spend) -> None:
        """One goes. In the order of time."""
        self._day.append(spend.at_us)
        for scope in (("principal", spend.principal), ("group", spend.group)):
            self._scopes.setdefault(scope, deque()).append(spend.at_us)

    def give_back(self, spend: Spend) -> None:
        """One of these does not go after all."""
        self._day.remove(spend.at_us)
        for scope in (("principal", spend.principal), ("group", spend.group)):
            self._scopes[scope].remove(spend.at_us)

    def spent_today(self, now_us: int) -> int:
        """How many of the fleet's went within a day."""
        _forget(self._day, now_us - DAY_US)
        return len(self._day)

    def ages_us(self, now_us: int) -> list[int]:
        """How long ago each of a day's went, the oldest first."""
        _forget(self._day, now_us - DAY_US)
        return [now_us - at_us for at_us in self._day]


CHANGES = frozenset({"key-change", "firmware", "tariff"})
"""Kinds that change the meter and cut nobody: their own pool, and in rings (`ipss_headend.rings`)."""


class Budgets:
    """The pools: `reconnect` for what gives supply back (R19), `change` for `CHANGES`, `cut` for everything else."""

    def __init__(self, cut: Limits, reconnect: Limits, change: Limits, spent: Iterable[tuple[str, Spend]] = ()) -> None:
        """Take the limits and, in the order of time, what was spent within the last day: pool and spend."""
        self.pools = {"cut": Budget(cut), "reconnect": Budget(reconnect), "change": Budget(change)}
        for pool, spend in spent:
            self.pools[pool].spend(spend)

    def take(self, kind: str, spend: Spend) -> str | None:
        """Spend one if there is room; else say whose budget is spent."""
        budget = self.pools[pool_of(kind)]
        why = budget.room(spend.principal, spend.group, spend.at_us)
        if why is None:
            budget.spend(spend)
        return why

    def give_back(self, kind: str, spend: Spend) -> None:
        """What was taken and could not be noted, so that nothing leaves by it."""
        self.pools[pool_of(kind)].give_back(spend)


class BudgetClock:
    """Microseconds that this head-end has run, all its lives together."""

    def __init__(self, base_us: int, monotonic_s: Callable[[], float]) -> None:
        self._base_us = base_us
        self._monotonic_s = monotonic_s
        self._since_s = monotonic_s()

    def now_us(self) -> int:
        """Now. What was not stored of it before a crash is lost, which only makes it slower."""
        return self._base_us + int((self._monotonic_s() - self._since_s) * 1e6)


def pool_of(kind: str) -> str:
    """The pool that a kind of order spends from."""
    if kind in CHANGES:
        return "change"
    return "reconnect" if kind == "reconnect" else "cut"


def fleet_limit(meters: int, percent: float, least: int) -> int:
    """A share of the fleet in commands a day, and never less than `least`, or a small fleet could not be served."""
    return max(least, int(meters * percent / 100))


def _forget(spent: deque[int], until_us: int) -> None:
    while spent and spent[0] <= until_us:
        spent.popleft()


def _within(spent: deque[int], since_us: int, most: int) -> bool:
    return most <= 0 or (len(spent) >= most and spent[-most] > since_us)
