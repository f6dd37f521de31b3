"""Set points that compete, and the device that is kept at what was decided."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from random import Random

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from ipss_headend.errors import RequestError
from ipss_headend.field.der.arbitration import arbitrate
from ipss_headend.field.der.keeper import Keeper, Outcome
from ipss_headend.field.der.setpoints import SECOND_US, Curve, Function, SetPoint
from ipss_headend.field.der.writes import PointWrite, release, writes

MODELS = (1, 103, 120, 121, 123, 701, 704, 705, 706, 711)


def in_trio(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run a test that waits."""

    @functools.wraps(test)
    def run() -> None:
        trio.run(test)

    return run


def limit(value: int | Decimal | Curve, *, source: str = "grid", until_s: int = 3_600, **changes: object) -> SetPoint:
    setpoint = SetPoint(
        function=Function.ACTIVE_POWER_LIMIT,
        value=Decimal(50),
        source=source,
        priority=5,
        asked_us=0,
        until_us=until_s * SECOND_US,
        revert_s=300,
    )
    changes["value"] = Decimal(value) if isinstance(value, int) else value
    return replace(setpoint, **changes)  # type: ignore[arg-type]


def number(value: Decimal | Curve) -> Decimal:
    assert isinstance(value, Decimal)
    return value


@st.composite
def setpoint(draw: st.DrawFn) -> SetPoint:
    function = draw(st.sampled_from([Function.CONNECT, Function.ACTIVE_POWER_LIMIT, Function.STORAGE_POWER]))
    asked = draw(st.integers(0, 50))
    return SetPoint(
        function=function,
        value=Decimal(draw(st.integers(0, 1 if function is Function.CONNECT else 100))),
        source=draw(st.sampled_from("abcd")),
        priority=draw(st.integers(0, 3)),
        asked_us=asked,
        until_us=asked + draw(st.integers(1, 50)),
        revert_s=draw(st.integers(1, 60)),
        exclusive=draw(st.booleans()),
    )


@given(st.lists(setpoint(), max_size=12), st.integers(0, 100), st.randoms())
def test_the_order_in_which_wishes_are_told_does_not_matter(wishes: list[SetPoint], now: int, dice: Random) -> None:
    shuffled = list(wishes)
    dice.shuffle(shuffled)

    assert arbitrate(wishes, now) == arbitrate(shuffled, now)
    assert arbitrate(wishes, now) == arbitrate(wishes + wishes, now)


@given(st.lists(setpoint(), max_size=12), st.integers(0, 100))
def test_a_decision_is_somebodys_wish_of_now_and_ends_with_it(wishes: list[SetPoint], now: int) -> None:
    for function, decision in arbitrate(wishes, now).items():
        assert any(
            (wish.function, wish.value, wish.source, wish.until_us)
            == (function, decision.value, decision.source, decision.until_us)
            and wish.holds(now)
            for wish in wishes
        )
        assert decision.revert_s >= 1
        assert decision.until_us > now


@given(st.lists(setpoint(), max_size=12), st.integers(0, 100))
def test_a_bound_is_never_looser_than_a_standing_one_of_the_highest_priority(wishes: list[SetPoint], now: int) -> None:
    latest: dict[tuple[Function, str], list[SetPoint]] = {}
    for wish in sorted(wishes, key=lambda wish: (wish.asked_us, wish.until_us)):
        if wish.asked_us <= now:
            latest.setdefault((wish.function, wish.source), []).append(wish)
    for function, decision in arbitrate(wishes, now).items():
        if function is Function.STORAGE_POWER:
            continue
        # Only sources with a single wish: which of two made in one microsecond is newer is told elsewhere.
        single = [found[0] for (of, _), found in latest.items() if of is function and len(found) == 1]
        standing = [wish for wish in single if wish.holds(now)]
        highest = max((wish.priority for wish in wishes), default=0)
        assert all(number(decision.value) <= number(wish.value) for wish in standing if wish.priority == highest)


def test_an_exclusive_bound_shuts_out_those_of_lower_priority() -> None:
    market = limit(10, source="market", priority=1)
    grid = limit(80, source="grid", priority=9)

    assert arbitrate([market, grid], 0)[Function.ACTIVE_POWER_LIMIT].value == 10
    assert arbitrate([market, replace(grid, exclusive=True)], 0)[Function.ACTIVE_POWER_LIMIT].value == 80


def test_a_newer_wish_of_a_source_replaces_its_older_one_even_after_it_ended() -> None:
    older, newer = limit(10), limit(60, asked_us=5, until_us=6)

    assert arbitrate([older, newer], 5)[Function.ACTIVE_POWER_LIMIT].value == 60
    assert arbitrate([older, newer], 6) == {}


@pytest.mark.parametrize(
    ("value", "changes", "message"),
    [
        (101, {}, "101 is not in 0 to 100"),
        (Decimal("NaN"), {}, "NaN is not in"),
        (50, {"revert_s": 0}, "revert_s 0 is not in 1 to 65535"),
        (50, {"until_us": 0}, "ends before it begins"),
        (Decimal("0.5"), {"function": Function.CONNECT}, "neither 0 nor 1"),
        (0, {"function": Function.POWER_FACTOR}, "is no power factor"),
        (50, {"function": Function.VOLT_VAR}, "needs a curve"),
        (((Decimal(1), Decimal(1)),), {}, "needs a number"),
        (((Decimal(2), Decimal(1)), (Decimal(1), Decimal(1))), {"function": Function.VOLT_VAR}, "must rise"),
    ],
)
def test_what_no_device_can_do_is_refused_by_name(
    value: int | Decimal | Curve, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        limit(value, **changes)  # type: ignore[arg-type]


def test_the_timer_is_written_before_the_value_and_the_switch_last() -> None:
    decision = arbitrate([limit(30, until_s=100)], 0)[Function.ACTIVE_POWER_LIMIT]

    assert [write.point for write in writes(decision, MODELS)] == ["WMaxLimPctRvrtTms", "WMaxLimPct", "WMaxLimPctEna"]
    assert writes(decision, (123,))[0] == PointWrite(123, "WMaxLimPct_RvrtTms", Decimal(100))
    assert release(Function.ACTIVE_POWER_LIMIT, MODELS) == [PointWrite(704, "WMaxLimPctEna", Decimal(0))]
    with pytest.raises(RequestError, match="no model 704 or 123"):
        writes(decision, (1, 103))


@dataclass
class FakeDevice:
    """Keeps what is written; loses questions or answers when told to."""

    points: dict[tuple[int, str], Decimal] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    lose_answers: int = 0
    lose_questions: int = 0
    silent: bool = False
    refuses: bool = False

    async def write(self, write: PointWrite) -> Outcome:
        self.log.append(f"{write.point}={write.value}")
        if self.refuses:
            return Outcome.REFUSED
        if self.silent or self.lose_questions > 0:
            self.lose_questions -= 1
            return Outcome.UNKNOWN
        self.points[write.model, write.point] = write.value
        if self.lose_answers > 0:
            self.lose_answers -= 1
            return Outcome.UNKNOWN
        return Outcome.DONE

    async def read(self, points: Sequence[tuple[int, str]]) -> Mapping[tuple[int, str], Decimal] | None:
        self.log.append("read")
        if self.silent:
            return None
        return {point: self.points[point] for point in points if point in self.points}


async def allow(_: object) -> Outcome:
    return Outcome.DONE


def keeper(device: FakeDevice) -> Keeper:
    return Keeper(device, MODELS, allow)


@in_trio
async def test_a_write_with_a_lost_answer_is_read_back_and_not_repeated() -> None:
    device = FakeDevice(lose_answers=1)

    outcomes = await keeper(device).settle([limit(30)], 0)

    assert outcomes == {Function.ACTIVE_POWER_LIMIT: Outcome.DONE}
    assert device.log == ["WMaxLimPctRvrtTms=300", "read", "WMaxLimPct=30", "WMaxLimPctEna=1", "read"]


@in_trio
async def test_a_write_that_never_arrived_is_written_once_more_after_looking() -> None:
    device = FakeDevice(lose_questions=1)

    outcomes = await keeper(device).settle([limit(30)], 0)

    assert outcomes == {Function.ACTIVE_POWER_LIMIT: Outcome.DONE}
    assert device.log[:3] == ["WMaxLimPctRvrtTms=300", "read", "WMaxLimPctRvrtTms=300"]


@in_trio
async def test_a_device_that_cannot_be_read_is_left_unknown_and_not_written_again() -> None:
    device = FakeDevice(silent=True)

    outcomes = await keeper(device).settle([limit(30)], 0)

    assert outcomes == {Function.ACTIVE_POWER_LIMIT: Outcome.UNKNOWN}
    assert device.log == ["WMaxLimPctRvrtTms=300", "read"]


@in_trio
async def test_a_limit_is_renewed_at_half_its_time_and_released_at_its_end() -> None:
    device = FakeDevice()
    kept = keeper(device)
    wishes = [limit(30, until_s=400)]
    await kept.settle(wishes, 0)
    device.log.clear()

    assert kept.next_us(wishes, 0) == 150 * SECOND_US
    assert await kept.settle(wishes, 149 * SECOND_US) == {}
    assert device.log == []
    await kept.settle(wishes, 150 * SECOND_US)
    assert device.points[704, "WMaxLimPctRvrtTms"] == 250
    await kept.settle(wishes, 400 * SECOND_US)
    assert device.points[704, "WMaxLimPctEna"] == 0
    assert kept.held == {}


@in_trio
async def test_a_shorter_wish_of_the_same_value_shortens_the_devices_timer() -> None:
    device = FakeDevice()
    kept = keeper(device)
    await kept.settle([limit(30, until_s=40_000, revert_s=36_000)], 0)
    device.log.clear()

    shorter = limit(30, asked_us=10 * SECOND_US, until_s=70, revert_s=36_000)
    outcomes = await kept.settle([shorter], 10 * SECOND_US)
    settled_again = await kept.settle([shorter], 11 * SECOND_US)

    assert outcomes == {Function.ACTIVE_POWER_LIMIT: Outcome.DONE}
    assert device.log[0] == "WMaxLimPctRvrtTms=60"
    assert settled_again == {}


@in_trio
async def test_the_release_of_a_lost_device_is_given_up_once_it_has_gone_back_by_itself() -> None:
    device = FakeDevice()
    kept = keeper(device)
    await kept.settle([limit(30, revert_s=60)], 0)
    device.silent = True

    await kept.settle([], 20 * SECOND_US)
    assert kept.next_us([], 20 * SECOND_US) == 30 * SECOND_US
    await kept.settle([], 60 * SECOND_US)
    assert kept.held == {}


@in_trio
async def test_switching_supply_is_asked_of_the_command_path_once_and_not_at_renewals() -> None:
    device, asked = FakeDevice(), []

    async def submit(decision: object) -> Outcome:
        asked.append(decision)
        return Outcome.DONE

    kept = Keeper(device, MODELS, submit)
    wishes = [limit(0, until_s=3_600)]
    await kept.settle(wishes, 0)
    await kept.settle(wishes, 200 * SECOND_US)
    await kept.settle([limit(50, asked_us=201 * SECOND_US)], 201 * SECOND_US)

    assert len(asked) == 1


@in_trio
async def test_what_the_command_path_refuses_is_not_written() -> None:
    device = FakeDevice()

    async def refuse(_: object) -> Outcome:
        return Outcome.REFUSED

    outcomes = await Keeper(device, MODELS, refuse).settle([limit(0)], 0)

    assert outcomes == {Function.ACTIVE_POWER_LIMIT: Outcome.REFUSED}
    assert device.log == []


@in_trio
async def test_a_value_that_the_device_does_not_keep_is_told() -> None:
    device = FakeDevice()
    kept = keeper(device)

    async def forgetful(write: PointWrite) -> Outcome:
        return Outcome.DONE

    device.write = forgetful  # type: ignore[method-assign]

    assert await kept.settle([limit(30)], 0) == {Function.ACTIVE_POWER_LIMIT: Outcome.NOT_HELD}
    assert kept.next_us([limit(30)], 0) == 10 * SECOND_US


@in_trio
async def test_curves_and_droop_are_written_beside_those_in_use_and_adopted() -> None:
    device = FakeDevice()
    curve = ((Decimal(92), Decimal(44)), (Decimal(98), Decimal(0)))
    wishes = [
        limit(curve, function=Function.VOLT_VAR),
        limit(((Decimal("0.036"), Decimal("0.05")),), function=Function.FREQUENCY_DROOP),
        limit(Decimal("-0.95"), function=Function.POWER_FACTOR),
        limit(-40, function=Function.STORAGE_POWER),
    ]

    outcomes = await keeper(device).settle(wishes, 0)

    assert set(outcomes.values()) == {Outcome.DONE}
    assert device.points[705, "Crv[2].Pt[2].Var"] == 0
    assert device.points[705, "AdptCrvReq"] == 2
    assert device.points[711, "Ctl[2].KOf"] == Decimal("0.05")
    assert (device.points[704, "PFWInj.PF"], device.points[704, "PFWInj.Ext"]) == (Decimal("0.95"), Decimal(1))
    assert device.points[704, "WSetPct"] == -40
