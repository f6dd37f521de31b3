"""What goes out in rings reaches few first, halts by itself and goes on after a restart where it was."""

import random

import pytest

from ipss_headend.rings import (
    FIRST,
    Counts,
    Done,
    Go,
    Halt,
    Open,
    Rings,
    Size,
    Standing,
    Wait,
    halted,
    look,
    parse_size,
    place,
    resumed,
)

RINGS = Rings(rest_s=10)


def counts(total: int, started: int, ended: int, failed: int = 0, newest_us: int = 0) -> Counts:
    return Counts(total, started, ended, failed, newest_us)


@pytest.mark.parametrize(
    ("total", "ends"),
    [(100_000, (10, 100, 1_000, 10_000, 100_000)), (5_000, (10, 50, 100, 500, 5_000)), (7, (1, 7)), (1, (1,)), (0, ())],
)
def test_rings_reach_further_each_and_the_last_reaches_all(total: int, ends: tuple[int, ...]) -> None:
    assert RINGS.ends(total) == ends


def test_canary_goes_first_and_nothing_else_before_it_has_ended_and_rested() -> None:
    assert look(RINGS, FIRST, counts(1_000, 0, 0), 0) == Go(10)
    assert look(RINGS, FIRST, counts(1_000, 10, 9), 0) == Wait()
    assert look(RINGS, FIRST, counts(1_000, 10, 10, newest_us=5_000_000), 14_999_999) == Wait()
    assert look(RINGS, FIRST, counts(1_000, 10, 10, newest_us=5_000_000), 15_000_000) == Open(Standing(1, 0))
    assert look(RINGS, Standing(1, 0), counts(1_000, 10, 10), 15_000_000) == Go(100)


def test_clock_that_went_back_makes_a_rest_longer_and_never_shorter() -> None:
    assert look(RINGS, FIRST, counts(1_000, 10, 10, newest_us=90_000_000), 1) == Wait()


def test_too_many_failures_of_a_ring_halt_it_while_it_runs() -> None:
    canary = look(RINGS, FIRST, counts(1_000, 10, 1, failed=1), 0)
    assert isinstance(canary, Halt)
    assert "1 of the 10 of ring 1" in canary.why
    second = Standing(1, 0)
    assert look(RINGS, second, counts(1_000, 60, 50, failed=4), 0) == Go(100)
    assert isinstance(look(RINGS, second, counts(1_000, 60, 50, failed=5), 0), Halt)


def test_failures_of_earlier_rings_do_not_halt_a_later_one() -> None:
    assert look(RINGS, Standing(1, 4), counts(1_000, 60, 50, failed=8), 0) == Go(100)


def test_halted_spread_goes_on_only_after_people_have_looked_and_then_in_its_ring() -> None:
    stood = halted(Standing(1, 0), "too many")
    assert look(RINGS, stood, counts(1_000, 60, 60, failed=9), 0) == Halt("too many")

    assert look(RINGS, resumed(stood, 9), counts(1_000, 60, 60, failed=9), 0) == Go(100)
    assert isinstance(look(RINGS, resumed(stood, 9), counts(1_000, 90, 90, failed=15), 0), Halt)


def test_last_ring_ends_it() -> None:
    assert look(RINGS, Standing(4, 0), counts(1_000, 1_000, 1_000), 0) == Done()


def test_no_more_than_a_ring_fails_whatever_happens_and_whenever_it_starts_again() -> None:
    """A model: members end in any order, fail at a rate; only the stored standing survives each step."""
    rng = random.Random(22)
    for _ in range(300):
        total, rate = rng.randrange(1, 3_000), rng.choice((0.0, 0.0, 0.02, 0.3))
        standing, started, ended, failed, now_us = FIRST, 0, 0, 0, 0
        while True:
            now_us += 11_000_000
            verdict = look(RINGS, standing, counts(total, started, ended, failed, now_us - 11_000_000), now_us)
            reach = RINGS.ends(total)[min(standing.ring, len(RINGS.ends(total)) - 1)]
            assert started <= reach
            if isinstance(verdict, Go):
                started = min(verdict.until, started + rng.randrange(1, 200))
            elif isinstance(verdict, Open):
                standing = verdict.standing
            elif isinstance(verdict, Halt | Done):
                break
            ends = rng.randrange(started - ended + 1)
            ended += ends
            failed += sum(rng.random() < rate for _ in range(ends))
        if isinstance(verdict, Done):
            assert started == ended == total
        else:
            assert failed > 0


def test_members_are_mixed_the_same_way_each_time() -> None:
    mixed = sorted(range(1_000), key=lambda member: place(b"order", member))

    assert mixed == sorted(range(1_000), key=lambda member: place(b"order", member))
    assert max(mixed[:10]) - min(mixed[:10]) > 300
    assert mixed[:10] != sorted(range(1_000), key=lambda member: place(b"other", member))[:10]


def test_sizes_are_numbers_or_shares() -> None:
    assert parse_size("10") == Size(10, percent=False)
    assert parse_size("0.5%") == Size(0.5, percent=True)
    for wrong in ("", "ten", "0", "-1", "101%", "1.5"):
        with pytest.raises(ValueError, match="is no ring"):
            parse_size(wrong)
