"""R39: plugins that hang, crash, leak, flood, fork or answer without end. The head-end goes on, and so do the others.

Each does its evil in a few rounds; `EVIL_ROUNDS` sets how many.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
from tests.system.fleet import fleet, head_end
from tests.system.test_rpc import address
from tests.system.test_serve import BILLING, until
from tests.unit.plugins.installed import installed

from ipss_headend import config
from ipss_headend.client import AsyncClient
from ipss_headend.plugins.specs import Refusal
from ipss_headend.server import HeadEnd, Stop, run

ROUNDS = int(os.environ.get("EVIL_ROUNDS", "2"))
BACK_S = 5.0
"""R39: an ended plugin is back within this time; twice on a machine that does much else."""

HEAD = """
import os, sys, socket, time
from ipss_headend.plugins import hook

def pipe():
    return socket.socket(fileno=os.dup(int(sys.argv[2])))
"""
EVIL = {
    "hang": "while True: pass",
    "crash": "os._exit(139)",
    "leak": "kept = []\n        while True: kept.append(bytearray(1 << 24))",
    "flood": 'stream = pipe()\n        while True: stream.sendall(b"\\x93\\x02\\xa5noise\\x90" * 1000)',
    "fork": "while True: os.fork()",
    "huge": 'return {"x": "y" * (1 << 26)}',
}
HOOKS = """

@hook
def control_before_command(reason):
    if reason == "evil":
        {body}

@hook
def billing_sales_dimension(account):
    if account["name"] == "evil":
        {body}
    return {{"well": "1"}}
"""


def evil(name: str) -> str:
    return HEAD + HOOKS.format(body=EVIL[name])


GOOD = """
from ipss_headend.plugins import hook

@hook
def billing_sales_dimension(account):
    return {"good": "1"}
"""


async def back(started: HeadEnd) -> None:
    while True:
        if not await started.plugins.veto("control_before_command", command={}, device_state={}, reason=""):
            return
        await trio.sleep(0.05)


async def torment(started: HeadEnd, name: str) -> None:
    manager = started.plugins
    worst_s = 0.0

    async def watch(over: trio.Event) -> None:
        nonlocal worst_s
        async with AsyncClient(address(started)) as client:
            while not over.is_set():
                began = trio.current_time()
                await client.call("read.last", points=["virtual-00001"], items=["1.0.1.8.0.255"])
                worst_s = max(worst_s, trio.current_time() - began)
                await trio.sleep(0.01)

    over = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, over)
        for _ in range(ROUNDS):
            refusals: list[Refusal] = await manager.veto(
                "control_before_command", command={}, device_state={}, reason="evil"
            )
            assert [one.code for one in refusals] == ["plugin-failed"], "it fails closed"
            answers = await manager.all("billing_sales_dimension", account={"name": "evil"})
            assert ("good", {"good": "1"}) in answers, "it fails open, and the other one goes on"
            with trio.fail_after(2 * BACK_S):
                await back(started)
        over.set()
    assert worst_s < 2.0, "the head-end answers all the time"


@pytest.mark.parametrize("name", sorted(EVIL))
def test_head_end_outlives_a_plugin_that_means_harm(name: str, tmp_path: Path) -> None:
    plugins = f'[plugins]\nenabled = ["{name}", "good"]\nmemory_mib = 256\npatience = 20\n'

    async def main() -> HeadEnd:
        async with trio.open_nursery() as nursery:
            stop = Stop()
            started: HeadEnd = await nursery.start(run, config.load(path), stop)
            with trio.fail_after(60):
                await until(lambda: started.figures.plans["billing"].done == 1)
                await torment(started, name)
            stop.ask()
        return started

    place = tmp_path / "plugins"
    place.mkdir()
    with installed(place, **{name: evil(name), "good": GOOD}), fleet(1, "127.93.0.1") as running:
        path = head_end(tmp_path, BILLING + plugins, running)
        started = trio.run(main)

    assert started.figures.plugins["good"].kills == 0
    if name != "fork":
        assert started.figures.plugins[name].restarts + started.figures.plugins[name].kills >= 1
