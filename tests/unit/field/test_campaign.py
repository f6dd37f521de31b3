from dataclasses import replace

import pytest
import trio
from structlog.testing import capture_logs
from tests.unit.field.fakes import FakeReactor, by_number, fleet, meter
from tests.unit.field.world import ENERGY, NOW, PROFILE, QUARTER_US, World
from trio.testing import MockClock

from ipss_headend.config import PlanConfig
from ipss_headend.errors import StoreFailed
from ipss_headend.field import delivery
from ipss_headend.field.campaign import Campaign
from ipss_headend.field.windows import DAY_US
from ipss_headend.names import ObjectName
from ipss_headend.schedule import SECOND_US, Every
from ipss_headend.store import Store, WriteBatch
from ipss_headend.store.journal import Written
from ipss_headend.store.marks import coverage

BILLING = PlanConfig("billing", Every(86_400, 600), objects=(ObjectName(ENERGY),))
LOAD_PROFILE = PlanConfig("load profile", Every(900), profile=PROFILE, backfill_days=3)
CLOCKS = PlanConfig("clocks", Every(3600), objects=(ObjectName("0.0.1.0.0.255", 8),), clock_limit_s=30)
TURN = NOW // DAY_US * DAY_US + 600 * SECOND_US


@pytest.fixture
def world(store: Store, reactor: FakeReactor) -> World:
    return World(store, reactor, fleet(3))


def progress(world: World, plan: PlanConfig) -> tuple[int, int, int]:
    figures = world.figures.plans[plan.name]
    return figures.asked, figures.done, figures.failed


def test_registers_are_read_once_a_turn_also_after_a_restart(world: World, store: Store, reactor: FakeReactor) -> None:
    world.turn(world.campaign(BILLING), TURN)
    first = progress(world, BILLING)
    world.turn(world.campaign(BILLING), TURN)
    second = progress(world, BILLING)
    world.turn(world.campaign(BILLING), TURN + DAY_US)

    assert (first, second, progress(world, BILLING)) == ((3, 3, 0), (0, 0, 0), (3, 3, 0))
    assert world.count("readings") == 6


def test_two_plans_read_one_register_each_at_its_own_time(world: World) -> None:
    hourly = replace(BILLING, name="hourly", every=Every(3600))
    world.turn(world.campaign(BILLING), TURN)
    world.turn(world.campaign(hourly), NOW)

    assert progress(world, hourly) == (3, 3, 0)


def test_meter_that_failed_is_asked_again_at_the_next_turn_of_the_same_day(world: World) -> None:
    campaign = world.campaign(BILLING)
    world.fleet.silent = {2}
    world.turn(campaign, TURN)
    failed = progress(world, BILLING)
    world.fleet.silent = set()
    world.asked("attributes")

    world.turn(campaign, TURN)

    assert failed == (3, 2, 1)
    assert [asked.meters for asked in world.asked("attributes")] == [[2]]


def test_plan_asks_its_groups_only(store: Store, reactor: FakeReactor) -> None:
    world = World(store, reactor, by_number([meter(1, group="east"), meter(2, group="west")]))

    world.turn(world.campaign(replace(BILLING, groups=("west",))), TURN)

    assert progress(world, BILLING) == (1, 1, 0)


def test_first_turn_reads_the_last_day_with_one_submission(world: World) -> None:
    world.turn(world.campaign(LOAD_PROFILE), NOW)

    [asked] = world.asked("buffer")
    assert asked.meters == [1, 2, 3]
    assert (asked.options["from_us"], asked.options["to_us"]) == (NOW + SECOND_US - DAY_US, NOW + SECOND_US - 1)
    assert world.count("readings") == 3 * 96


def test_next_turn_asks_from_the_mark_on(world: World) -> None:
    campaign = world.campaign(LOAD_PROFILE)
    world.turn(campaign, NOW)
    world.asked("buffer")
    world.fleet.now_us = NOW + QUARTER_US

    world.turn(campaign, NOW + QUARTER_US)

    [asked] = world.asked("buffer")
    assert asked.options["from_us"] == NOW + SECOND_US
    assert world.count("readings") == 3 * 97
    assert world.figures.duplicate_lines == 0


def test_mark_reaches_only_as_far_as_a_slow_meter_has_captured(world: World, store: Store) -> None:
    world.fleet.captured_until_us[2] = NOW - QUARTER_US
    campaign = world.campaign(LOAD_PROFILE)
    world.turn(campaign, NOW)
    world.asked("buffer")
    world.fleet.captured_until_us.clear()

    world.turn(campaign, NOW)

    [asked] = world.asked("buffer")
    assert (asked.meters, asked.options["from_us"]) == ([2], NOW - QUARTER_US + SECOND_US)
    assert world.count("readings") == 3 * 96


def test_failed_profile_leaves_no_mark(world: World, store: Store) -> None:
    campaign = world.campaign(LOAD_PROFILE)
    world.turn(campaign, NOW)
    world.fleet.silent = {2}
    world.fleet.now_us = NOW + QUARTER_US
    world.turn(campaign, NOW + QUARTER_US)

    with store.database.reading() as connection:
        ends = [coverage(connection, number, 1).contiguous_until_us for number in (1, 2)]

    assert ends == [NOW + QUARTER_US + SECOND_US, NOW + SECOND_US]
    assert progress(world, LOAD_PROFILE) == (3, 2, 1)


def test_meter_that_does_not_say_what_it_captures_counts_as_failed(world: World) -> None:
    world.fleet.silent = {2}

    world.turn(world.campaign(LOAD_PROFILE), NOW)

    assert progress(world, LOAD_PROFILE) == (3, 2, 1)


def test_backfill_asks_a_day_at_a_time_the_newest_first(world: World) -> None:
    campaign = world.campaign(LOAD_PROFILE)
    world.turn(campaign, NOW)
    world.asked("buffer")

    world.backfill(campaign)
    asked = world.asked("buffer")
    world.backfill(campaign)

    edge = NOW + SECOND_US
    assert [(one.meters, one.options["from_us"], one.options["priority"]) for one in asked] == [
        ([1, 2, 3], edge - 2 * DAY_US, "backfill"),
        ([1, 2, 3], edge - 3 * DAY_US, "backfill"),
    ]
    assert world.asked("buffer") == []
    assert world.count("readings") == 3 * 3 * 96
    assert world.figures.plans["load profile"].backfilled == 6


def test_backfill_leaves_a_meter_that_fails_until_the_next_time(world: World) -> None:
    campaign = world.campaign(LOAD_PROFILE)
    world.turn(campaign, NOW)
    world.asked("buffer")
    world.fleet.silent = {2}

    world.backfill(campaign)

    assert [one.meters for one in world.asked("buffer")] == [[1, 2, 3], [1, 3]]


def test_clocks_beyond_the_limit_are_told_stored_and_never_set(world: World, store: Store) -> None:
    world.fleet.clock_ahead_s = {1: 31, 2: -31, 3: 29}
    campaign = world.campaign(CLOCKS)

    with capture_logs() as logs:
        world.turn(campaign, NOW)
        world.turn(campaign, NOW + 3600 * SECOND_US)

    assert [line["meter"] for line in logs if line["event"] == "clock deviates"] == ["meter-1", "meter-2"]
    assert (world.figures.clock_checks, world.figures.clocks_deviating) == (6, 2)
    with store.database.reading() as connection:
        found = connection.exec_driver_sql("SELECT meter_id, kind, number FROM events ORDER BY event_id").all()
    assert found == [(1, 1001, 31_000), (2, 1001, -31_000)] * 2


def test_a_store_that_held_answers_up_makes_no_clock_wrong(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = world.campaign(CLOCKS)
    deliver = world.delivery._write

    async def slowly(batch: WriteBatch) -> Written:
        world.fleet.now_us += 60 * SECOND_US
        return await deliver(batch)

    async def main() -> int:
        async with world.pumping():
            with monkeypatch.context() as slow:
                slow.setattr(world.delivery, "_write", slowly)
                slow.setattr(delivery, "STALL_S", -1.0)
                await campaign.turn(NOW)
            held_up = world.figures.clock_checks
            world.fleet.clock_ahead_s = {1: 31}
            await campaign.turn(NOW + 3600 * SECOND_US)
            return held_up

    world.fleet.now_us = NOW + 3600 * SECOND_US
    held_up = trio.run(main)

    assert (held_up, world.figures.clock_checks, world.figures.clocks_deviating) == (0, 3, 1)


def run_until(campaign: Campaign, turns: list[int], enough: int, world: World) -> None:
    """Let a plan run on a clock that jumps, with `turn` replaced by a note of it."""

    async def main() -> None:
        start = trio.current_time()
        origin = world.fleet.now_us

        with trio.CancelScope() as scope:

            async def turn(turn_us: int) -> None:
                turns.append(turn_us)
                if len(turns) >= enough:
                    scope.cancel()
                await trio.lowlevel.checkpoint()

            campaign.turn = turn  # type: ignore[method-assign]
            async with trio.open_nursery() as nursery:

                async def tick() -> None:
                    while True:
                        await trio.sleep(1)
                        world.fleet.now_us = origin + int((trio.current_time() - start) * SECOND_US)

                nursery.start_soon(tick)
                await campaign.run()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_plan_takes_the_current_turn_first_and_then_each_as_it_comes(world: World) -> None:
    world.fleet.now_us = NOW + 100 * SECOND_US
    turns: list[int] = []

    run_until(world.campaign(replace(LOAD_PROFILE, backfill_days=0)), turns, 4, world)

    assert turns == [NOW + place * QUARTER_US for place in range(4)]


def test_turns_that_passed_unnoticed_are_one(world: World) -> None:
    campaign = world.campaign(LOAD_PROFILE)
    world.fleet.now_us = NOW + 10 * QUARTER_US + 5 * SECOND_US

    assert trio.run(campaign._next_turn, NOW) == NOW + 10 * QUARTER_US


def test_wall_clock_set_back_a_year_does_not_stop_the_plan(world: World) -> None:
    campaign = world.campaign(LOAD_PROFILE)
    world.fleet.now_us = NOW

    async def main() -> int:
        async with trio.open_nursery() as nursery:

            async def tick() -> None:
                await trio.sleep(20)
                world.fleet.now_us = NOW + QUARTER_US

            nursery.start_soon(tick)
            return await campaign._next_turn(NOW + 365 * DAY_US)

    with capture_logs() as logs:
        turn = trio.run(main, clock=MockClock(autojump_threshold=0))

    assert turn == NOW + QUARTER_US
    assert [line["event"] for line in logs] == ["wall clock was set back"]


def test_fault_of_ours_ends_a_turn_and_not_the_plan(world: World) -> None:
    campaign = world.campaign(BILLING)

    async def broken() -> None:
        raise ExceptionGroup("nursery", [RuntimeError("a bug")])

    with capture_logs() as logs:
        trio.run(campaign._guarded, broken)

    assert world.figures.plan_faults == {"billing": 1}
    assert [line["log_level"] for line in logs] == ["error"]


def test_failed_store_ends_the_plan(world: World) -> None:
    campaign = world.campaign(BILLING)

    async def broken() -> None:
        raise ExceptionGroup("nursery", [StoreFailed("EIO")])

    with pytest.raises(ExceptionGroup) as caught:
        trio.run(campaign._guarded, broken)

    assert caught.value.subgroup(StoreFailed) is not None
