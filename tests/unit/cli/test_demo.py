"""How the demo tells the story of an inverter that is limited and goes back by itself: live, in lines, in figures."""

from __future__ import annotations

import io
import re
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from rich.console import Console
from trio.testing import MockClock

from ipss_headend.cli import demo_der, demo_view
from ipss_headend.cli.demo_der import Device, Moment, Show, State
from ipss_headend.cli.demo_result import Goal
from ipss_headend.cli.output import Output
from ipss_headend.errors import MeterTimeout
from ipss_headend.field.der.setpoints import Function, SetPoint

NOW = demo_view.Now(2.5, 5, 5, 10, 10, 10, 10, 40, 0, 1.0, 2.0, 0.1)
GOAL = Goal(1, 1, 0)


class Desk:
    """Two devices: one that is limited as long as its timer runs, one that only measures."""

    def __init__(self) -> None:
        self.wanted: dict[Function, SetPoint] = {}
        self.renewed_s = -100.0
        self.asked: list[str] = []
        self.silent = False

    def devices(self) -> list[Any]:
        return [SimpleNamespace(name="inverter-1"), SimpleNamespace(name="sub-meter-1")]

    def held(self, _: Any) -> dict[Function, Any]:
        return {function: SimpleNamespace(decision=wish) for function, wish in self.wanted.items()}

    async def set(self, meter: Any, wish: SetPoint) -> Any:
        self.asked.append(f"{meter.name} {wish.function} {wish.value}")
        self.wanted[wish.function] = wish
        return SimpleNamespace()

    async def abandon(self, _: Any) -> None:
        self.wanted.clear()

    async def read(self, meter: Any, _: Any) -> dict[tuple[int, str], Decimal]:
        if self.silent:
            raise MeterTimeout(f"{meter.name}: no answer")
        if meter.name == "sub-meter-1":
            return {(203, "W"): Decimal(171)}
        if Function.ACTIVE_POWER_LIMIT in self.wanted:
            self.renewed_s = trio.current_time()
        left_s = self.renewed_s + demo_der.REVERT_S - trio.current_time()
        if left_s <= 0:
            return {(701, "W"): Decimal(9000), demo_der.ENABLED: Decimal(0)}
        said = {demo_der.ENABLED: Decimal(1), demo_der.LIMIT: Decimal("40.0"), demo_der.REMAINING: Decimal(int(left_s))}
        return {(701, "W"): Decimal(4000)} | said


def inverter(state: State, limit: float | None, left_s: int | None) -> Device:
    whose = None if limit is None else "demo"
    return Device("inverter-1", "inverter", 4000.0 if limit else 9000.0, limit, whose, left_s, state)


def story(desk: Any) -> tuple[list[Device], float]:
    """The devices after their story, and how long it was."""

    async def main() -> tuple[list[Device], float]:
        show, started_s = Show(desk), trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(show.run)
            await show.over.wait()
            show.end()
        return show.devices, trio.current_time() - started_s

    return trio.run(main, clock=MockClock(autojump_threshold=0))


def test_device_is_free_then_limited_then_let_go_then_back_by_itself() -> None:
    desk = Desk()

    (device, meter), _ = story(desk)

    assert desk.asked == ["inverter-1 active-power-limit 40"]
    said = device.document()
    states = [one["state"] for one in said["history"]]
    assert list(dict.fromkeys(states)) == ["free", "limited", "let-go", "reverted"]
    let_go = [one["reverts_in_s"] for one in said["history"] if one["state"] == "let-go"]
    assert let_go == sorted(let_go, reverse=True)
    assert len(let_go) > 1
    assert all((one["limit_percent"], one["set_by"]) == (40, "demo") for one in said["history"] if one["reverts_in_s"])
    assert said["reverted_after_s"] == pytest.approx(demo_der.REVERT_S, abs=0.5)
    short = {key: said[key] for key in ("state", "power_w", "limit_percent", "set_by", "power_limited_w")}
    assert short == {
        "state": "reverted",
        "power_w": 9000,
        "limit_percent": 40,
        "set_by": "demo",
        "power_limited_w": 4000,
    }
    assert meter.document()["power_w"] == 171
    assert [one["state"] for one in meter.document()["history"]] == ["measures"]


def test_device_without_a_word_ends_the_show_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    desk = Desk()
    desk.silent = True

    (device, meter), lasted_s = story(desk)

    assert lasted_s <= demo_der.LONGEST_S + 1
    assert (device.state, device.history, meter.state) == (State.ASKED, [], State.ASKED)
    assert capsys.readouterr().err.count("inverter-1: no answer") == 1


@pytest.mark.parametrize(
    ("device", "row"),
    [
        (inverter(State.FREE, None, None), ["inverter-1", "9,000 W", "-", "-", "-", "free"]),
        (inverter(State.LIMITED, 40.0, 3), ["inverter-1", "4,000 W", "40 %", "demo", "3 s", "limited"]),
        (inverter(State.LET_GO, 40.0, 1), ["inverter-1", "4,000 W", "40 %", "demo", "1 s", "let go"]),
        (inverter(State.REVERTED, None, None), ["inverter-1", "9,000 W", "-", "-", "-", "went back by itself"]),
    ],
)
def test_terminal_shows_each_state_of_a_device_beside_the_fleet(device: Device, row: list[str]) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, legacy_windows=False, color_system=None)

    with demo_view.View(Output(), GOAL, [device], console) as view:
        view.show(NOW)

    lines = screen.getvalue().splitlines()
    assert any("associations" in line for line in lines)
    assert any(all(word in line for word in ("device", "power", "limit", "set by", "goes back in")) for line in lines)
    assert re.search(" +".join(map(re.escape, row)), screen.getvalue())


def test_plain_lines_show_each_device_every_few_seconds_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    device = inverter(State.LIMITED, 40.0, 3)

    with demo_view.View(Output(json_output=True), GOAL, [device]) as view:
        view.show(NOW)
        device.state, device.reverts_in_s = State.LET_GO, 1
        view.show(NOW)
        device.state, device.limit_percent, device.set_by, device.reverts_in_s = State.REVERTED, None, None, None
        view.show(NOW, last=True)

    told = [line.split("  ") for line in capsys.readouterr().err.splitlines() if "inverter-1" in line]
    assert [line[-5:] for line in told] == [
        ["power 4,000 W", "limit 40 %", "set by demo", "goes back in 3 s", "limited"],
        ["power 4,000 W", "limit -", "set by -", "goes back in -", "went back by itself"],
    ]


def test_moment_of_which_only_the_power_is_new_is_kept_once() -> None:
    device = inverter(State.FREE, None, None)
    device.note(0.1)
    device.power_w = 9001.0
    device.note(0.2)

    assert device.history == [Moment(0.1, State.FREE, 9000.0, None, None, None)]
