"""R16: budgets are exact, whoever asks, however often the process starts again and whatever the wall clock does."""

import os
import random
from collections import deque

from ipss_headend.field.control.budgets import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    BudgetClock,
    Budgets,
    Limits,
    Spend,
    fleet_limit,
)

REQUESTS = int(os.environ.get("IPSS_BUDGET_REQUESTS", "1000000"))


def test_r16_a_million_requests_by_five_principals_over_restarts_are_let_through_exactly_as_a_model_says() -> None:
    """The model keeps every spend in one list a scope and counts it anew."""
    rng = random.Random(16)
    cut, reconnect, change = Limits(60, 500, 2_000), Limits(20, 100, 300), Limits(30, 400, 3_000)
    limits = {"cut": cut, "reconnect": reconnect, "change": change}
    spent: list[tuple[str, Spend]] = []
    scopes: dict[tuple[str, str, str], deque[int]] = {}
    budgets = Budgets(cut, reconnect, change)
    now_us, gone, restarts = 0, 0, 0
    for number in range(REQUESTS):
        now_us += rng.randrange(200_000)
        if number % 10_000 == 9_999:  # kill -9: only what is stored is left
            budgets = Budgets(cut, reconnect, change, [one for one in spent if one[1].at_us > now_us - DAY_US])
            restarts += 1
        kind, pool = rng.choice((("reconnect", "reconnect"), ("disconnect", "cut"), ("limit", "cut"),
                                 ("key-change", "change"), ("firmware", "change"), ("tariff", "change")))  # fmt: skip
        spend = Spend(f"p{rng.randrange(5)}", f"g{rng.randrange(8)}", now_us)

        let_through = budgets.take(kind, spend) is None

        room = True
        wanted = []
        for scope, name in (("all", ""), ("principal", spend.principal), ("group", spend.group)):
            times = scopes.setdefault((pool, scope, name), deque())
            wanted.append(times)
            windows = (
                ((limits[pool].fleet_per_day, DAY_US),)
                if scope == "all"
                else ((limits[pool].per_minute, MINUTE_US), (limits[pool].per_hour, HOUR_US))
            )
            for most, window_us in windows:
                room = room and not (len(times) >= most and times[-most] > now_us - window_us)
        assert let_through == room, number
        if let_through:
            gone += 1
            spent.append((pool, spend))
            for times in wanted:
                times.append(now_us)
    assert restarts == REQUESTS // 10_000
    assert gone > REQUESTS // 500
    for (pool, scope, _), times in scopes.items():
        most, window_us = (limits[pool].fleet_per_day, DAY_US) if scope == "all" else (limits[pool].per_hour, HOUR_US)
        ordered = list(times)
        assert all(late - early >= window_us for early, late in zip(ordered, ordered[most:], strict=False))


def test_r16_a_budget_of_nothing_lets_nothing_through() -> None:
    for limits in (Limits(60, 500, 0), Limits(60, 0, 10), Limits(0, 500, 10)):
        assert Budgets(limits, Limits(), Limits()).take("disconnect", Spend("p", "g", 1)) is not None


def test_r16_budgets_clock_runs_with_the_process_and_not_with_the_wall() -> None:
    seconds = [100.0]
    clock = BudgetClock(5_000_000, lambda: seconds[0])

    seconds[0] = 107.0

    assert clock.now_us() == 12_000_000


def test_r16_share_of_the_fleet_is_never_less_than_what_a_small_fleet_needs() -> None:
    assert fleet_limit(100_000, 0.05, 10) == 50
    assert fleet_limit(20, 0.05, 10) == 10


def test_r16_what_could_not_be_noted_is_given_back_and_no_more() -> None:
    budgets = Budgets(Limits(2, 500, 100), Limits(), Limits())
    first, second = Spend("ada", "east", 1_000), Spend("ada", "east", 2_000)
    assert budgets.take("disconnect", first) is None
    assert budgets.take("disconnect", second) is None
    assert budgets.take("disconnect", Spend("bob", "east", 3_000)) == "group east: 2 a minute"

    budgets.give_back("disconnect", second)

    assert budgets.take("disconnect", Spend("bob", "east", 3_000)) is None
    assert budgets.take("disconnect", Spend("bob", "east", 3_000)) == "group east: 2 a minute"
    assert budgets.pools["cut"].spent_today(3_000) == 2
