"""Who is given up on: the invocation in work, not those behind it; and a new process is asked at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from tests.unit.plugins.installed import installed
from tests.unit.plugins.test_manager import running

from ipss_headend.errors import PluginError
from ipss_headend.plugins.manager import Manager
from ipss_headend.plugins.process import BREAK_S, FAILURES, GRACE_S, Breaker
from ipss_headend.plugins.specs import HOOKS

BUSY = """
import time
from ipss_headend.plugins import hook

@hook
def consume(rows):
    time.sleep(2.5)

@hook
def plugin_health():
    return {}
"""


def test_a_plugin_is_not_killed_for_what_waits_behind_its_work(tmp_path: Path) -> None:
    """`consume` may take 30 s; that the plugin's health was asked meanwhile is no reason to kill it."""
    heard: list[str] = []

    async def use(manager: Manager) -> None:
        (plugin,) = manager.plugins
        process = plugin.process_id

        async def ask_health() -> None:
            # A tenth of a second, and the grace, are over long before the work is.
            with pytest.raises(PluginError, match=r"plugin_health: gave no answer within 0\.1 s"):
                await plugin.ask("plugin_health", {}, limit_s=0.1)
            heard.append("late")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_health)
            assert 0.1 + GRACE_S < 2.5
            await plugin.ask("consume", {"topic": "", "sequence": 1, "rows": []}, limit_s=HOOKS["consume"].limit_s)
            heard.append("done")
        assert await manager.health(plugin) == {}
        assert plugin.process_id == process

    with installed(tmp_path, busy=BUSY):
        figures = running(["busy"], use)
    assert heard == ["late", "done"]
    assert figures.plugin("busy").kills == 0


def test_a_breaker_gives_a_new_process_one_try_at_once() -> None:
    breaker = Breaker()
    for second in range(FAILURES):
        assert breaker.allows(second)
        breaker.note(well=False, now=second)
    assert not breaker.allows(FAILURES)

    breaker.renew()

    assert breaker.allows(FAILURES)
    assert not breaker.allows(FAILURES), "one"
    assert breaker.allows(FAILURES + BREAK_S + 1)
    breaker.note(well=True, now=FAILURES + BREAK_S + 1)
    assert breaker.allows(FAILURES + BREAK_S + 1)
