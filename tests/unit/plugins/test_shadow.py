"""A shadow is asked what its plugin is asked, compared, and never obeyed; one that hangs or dies slows nobody."""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio
from tests.unit.plugins.installed import installed
from tests.unit.plugins.test_manager import until

from ipss_headend.config import ShadowConfig
from ipss_headend.metrics import Figures
from ipss_headend.plugins.manager import Manager
from ipss_headend.plugins.shadow import WAITING, Shadow

LIVE = """
from ipss_headend.plugins import Refusal, hook

@hook
def control_before_command(ctx, command, reason):
    ctx.emit(command["meter"], "asked", [ctx.plugin, ctx.now_us])
    if reason == "crash":
        raise ValueError("no such rule")
    return Refusal("people live on it") if command["meter"] == "hospital" else None

@hook
def billing_validate_batch(batch):
    for place, value in enumerate(batch["values"]):
        batch.flags[place] |= 4 * (value < 0)

@hook
def plugin_health(ctx):
    return {}
"""
NEXT = (
    LIVE.replace('"people live on it"', '"a hospital"')
    .replace("value < 0", "value < 10")
    .replace("{}", '{"next": "x"}')
)
HANGS = """
import time
from ipss_headend.plugins import hook

@hook
def control_before_command(command):
    while True:
        time.sleep(1)
"""
DIES = """
import os
from ipss_headend.plugins import hook

@hook
def control_before_command(command):
    os._exit(1)
"""


def shadowed(
    sources: dict[str, str], use: Callable[[Manager, dict[str, Shadow]], Awaitable[None]], *, patience: float = 200.0
) -> Figures:
    figures = Figures()

    async def main() -> None:
        shadows = {name: ShadowConfig("live", source) for name, source in sources.items()}
        manager = Manager(["live"], figures, patience=patience, shadows=shadows)
        async with trio.open_nursery() as nursery:
            await nursery.start(manager.run)
            with trio.fail_after(60):
                found = {shadow.name: shadow for shadow in manager.shadows}
                for shadow in found.values():
                    await shadow.process.told.wait()
                await use(manager, found)
            nursery.cancel_scope.cancel()

    trio.run(main)
    return figures


async def counted(shadow: Shadow, count: int) -> None:
    """Wait until it has dealt with so many questions."""
    await until(lambda: shadow.counts.total() >= count)


async def failed(shadow: Shadow) -> None:
    """Wait until it has failed at a question."""
    await until(lambda: shadow.counts["control_before_command", "failed"] > 0)


async def asked(manager: Manager, meter: str, reason: str = "unpaid") -> list[str]:
    found = await manager.veto("control_before_command", command={"meter": meter}, device_state={}, reason=reason)
    return [one.reason for one in found]


def test_a_shadow_is_asked_the_same_and_not_obeyed(tmp_path: Path) -> None:
    async def use(manager: Manager, shadows: dict[str, Shadow]) -> None:
        shadow = shadows["next"]
        assert await asked(manager, "m1") == []
        assert await asked(manager, "hospital") == ["people live on it"], "what the shadow says is nobody's answer"
        flags = await manager.batch("billing_validate_batch", {"values": array("q", [5, -1, 70])}, 3)
        assert list(flags) == [0, 4, 0]
        assert await manager.health(manager.plugins[0]) == {}
        await counted(shadow, 3)

        assert shadow.counts == {
            ("control_before_command", "same"): 1,
            ("control_before_command", "different"): 1,
            ("billing_validate_batch", "different"): 1,
        }
        refusal, batch = shadow.examples
        assert '"meter":"hospital"' in refusal.asked
        assert "people live on it" in refusal.live
        assert "a hospital" in refusal.shadow
        assert (batch.asked, batch.live) == ("3 intervals", "interval 0: nothing")
        assert batch.shadow == "interval 0: negative"
        assert set(shadow.durations_s) == {"control_before_command", "billing_validate_batch"}

    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / "plugin_live.py").write_text(NEXT)
    with installed(tmp_path, live=LIVE):
        figures = shadowed({"next": str(place / "plugin_live.py")}, use)
    assert figures.shadow_answers["live", "next", "control_before_command", "same"] == 1
    assert figures.plugins["live"].calls["control_before_command", "done"] == 2


def test_the_same_version_says_the_same_with_the_time_and_name_of_the_question(tmp_path: Path) -> None:
    """`ctx.now_us` and `ctx.plugin` are the other one's, so that what is emitted is the same."""

    async def use(manager: Manager, shadows: dict[str, Shadow]) -> None:
        for meter in ("m1", "m2", "hospital"):
            await asked(manager, meter)
        await asked(manager, "m1", "crash")
        await counted(shadows["again"], 4)
        assert shadows["again"].counts == {("control_before_command", "same"): 4}, list(shadows["again"].examples)

    with installed(tmp_path, live=LIVE):
        shadowed({"again": "live"}, use)


def test_a_shadow_that_hangs_or_dies_slows_nobody(tmp_path: Path) -> None:
    """The plugin answers every question while its shadows hang and die; what they miss is counted."""
    questions = 3 * WAITING

    async def use(manager: Manager, shadows: dict[str, Shadow]) -> None:
        for _ in range(questions):
            assert await asked(manager, "hospital") == ["people live on it"]
        assert shadows["hangs"].counts.total() < questions, "nobody waited for it"
        for shadow in (shadows["dies"], shadows["nowhere"]):
            await failed(shadow)
            assert ("control_before_command", "same") not in shadow.counts
        assert shadows["hangs"].counts["control_before_command", "dropped"] > 0
        assert shadows["nowhere"].process.fault is not None
        assert "no such file" in shadows["nowhere"].process.fault

    with installed(tmp_path, live=LIVE, hangs=HANGS, dies=DIES):
        figures = shadowed({"hangs": "hangs", "dies": "dies", "nowhere": str(tmp_path / "none.py")}, use, patience=5000)
    live = figures.plugins["live"]
    assert {call: count for call, count in live.calls.items() if call[0] != "plugin_health"} == {
        ("control_before_command", "done"): questions
    }
    assert (live.kills, live.restarts) == (0, 0)


def test_a_shadow_that_answers_where_its_plugin_fails_is_told_apart(tmp_path: Path) -> None:
    async def use(manager: Manager, shadows: dict[str, Shadow]) -> None:
        [words] = await asked(manager, "m1", "crash")
        assert "ValueError: no such rule in " in words, "the line is told"
        await counted(shadows["mended"], 1)
        assert shadows["mended"].counts == {("control_before_command", "alone"): 1}

    with installed(tmp_path, live=LIVE, mended=LIVE.replace('reason == "crash"', "False")):
        shadowed({"mended": "mended"}, use)


def test_a_plugin_that_is_disabled_takes_its_shadow_with_it(tmp_path: Path) -> None:
    async def use(manager: Manager, shadows: dict[str, Shadow]) -> None:
        manager.disable("live")
        assert manager.shadows == []
        await until(lambda: shadows["again"].process.process_id is None)
        await manager.enable("live", {})
        (again,) = manager.shadows
        await again.process.told.wait()
        await asked(manager, "m1")
        await counted(again, 1)
        assert again.counts == {("control_before_command", "same"): 1}

    with installed(tmp_path, live=LIVE):
        shadowed({"again": "live"}, use)
