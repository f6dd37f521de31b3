"""R39: plugins that hang, crash, leak, flood, fork or answer without end. The head-end goes on, and so do the others.

Each does its evil in every mode of hook, once; `EVIL_ROUNDS` sets how often. That the core loses nothing is asserted.
How soon an ended plugin is back (5 s are claimed) and what the core's p99 is beside that at rest (20 % more are
claimed) is measured and printed: it is the machine's as much as ours, and says something where nothing else runs.
"""

from __future__ import annotations

import os
from array import array
from contextlib import nullcontext
from pathlib import Path

import pytest
import trio
from tests.figures import figure
from tests.system.fleet import fleet, head_end
from tests.system.test_rpc import address
from tests.system.test_serve import BILLING, until
from tests.unit.plugins.installed import installed

from ipss_headend import config
from ipss_headend.client import AsyncClient
from ipss_headend.plugins.manager import Manager
from ipss_headend.plugins.specs import Classified
from ipss_headend.server import HeadEnd, Stop, run
from ipss_headend.store.readings import line_count

ROUNDS = int(os.environ.get("EVIL_ROUNDS", "1"))
BACK_S = 5.0
SLOWER = 1.2
"""What R39 claims: an ended plugin is back within this time, and the core's p99 at most so many times that at rest."""
PACE_S = 0.005
AT_REST = 200 if ROUNDS == 1 else 2000
"""Calls at rest, before and behind the evil."""
GUARD_S = 120.0
"""What takes so long hangs, on any machine."""

HEAD = """
import os, sys, socket, time
from ipss_headend.plugins import hook

def pipe():
    return socket.socket(fileno=os.dup(int(sys.argv[2])))

def evil():
    {body}
"""
EVIL = {
    "hang": "while True: pass",
    "crash": "os._exit(139)",
    "leak": "kept = []\n    while True: kept.append(bytearray(1 << 24))",
    "flood": 'stream = pipe()\n    while True: stream.sendall(b"\\x93\\x02\\xa5noise\\x90" * 1000)',
    "fork": "while True: os.fork()",
    "huge": 'return {"x": "y" * (1 << 26)}',
}
HOOKS = """

@hook
def control_before_command(reason):
    if reason == "evil":
        return evil()

@hook
def billing_sales_dimension(account):
    if account["name"] == "evil":
        return evil()
    return {"well": "1"}

@hook(tryfirst=True)
def control_event_decode(code):
    if code == 666:
        return evil()

@hook(tryfirst=True)
def dispatch_classify(classes, incident):
    if incident["id"] == "evil":
        return evil()
    return classes

@hook(tryfirst=True)
def billing_validate_batch(batch):
    if batch["values"][0] == 666:
        evil()
        raise ValueError("whatever it gave, it was evil")
    batch.flags[0] |= 64
"""


def evil(name: str) -> str:
    return HEAD.format(body=EVIL[name]) + HOOKS


GOOD = """
from ipss_headend.plugins import Classified, IncidentClass, hook

@hook
def billing_sales_dimension(account):
    return {"good": "1"}

@hook
def control_event_decode(code):
    return Classified("good", 1)

@hook
def dispatch_classify(classes):
    return [*classes, IncidentClass("good", 1.0)]

@hook
def billing_validate_batch(batch):
    batch.flags[0] |= 2
"""


async def veto(manager: Manager) -> None:
    refusals = await manager.veto("control_before_command", command={}, device_state={}, reason="evil")
    assert [one.code for one in refusals] == ["plugin-failed"], "it fails closed"


async def all_(manager: Manager) -> None:
    answers = await manager.all("billing_sales_dimension", account={"name": "evil"})
    assert answers == [("good", {"good": "1"})], "it fails open, and the other one goes on"


async def first(manager: Manager) -> None:
    found = await manager.first("control_event_decode", device="m", code=666, payload=b"")
    assert found == Classified("good", 1)


async def pipe(manager: Manager) -> None:
    found = await manager.pipe("dispatch_classify", [], incident={"id": "evil"}, signals=[])
    assert [one.name for one in found] == ["good"]


async def batch(manager: Manager) -> None:
    found = await manager.batch("billing_validate_batch", {"values": array("q", [666])}, 1)
    assert list(found) == [2]


MODES = {"veto": veto, "all": all_, "first": first, "pipe": pipe, "batch": batch}


async def back(started: HeadEnd) -> None:
    while True:
        if not await started.plugins.veto("control_before_command", command={}, device_state={}, reason=""):
            return
        await trio.sleep(0.05)


async def measure(started: HeadEnd, taken: list[float], over: trio.Event) -> None:
    """How long small calls take, at a steady pace."""
    async with AsyncClient(address(started)) as client:
        while not over.is_set():
            began = trio.current_time()
            await client.call("read.last", points=["virtual-00001"], items=["1.0.1.8.0.255"])
            taken.append(trio.current_time() - began)
            await trio.sleep(PACE_S)


def p99(taken: list[float]) -> float:
    return sorted(taken)[len(taken) * 99 // 100]


async def at_rest(started: HeadEnd, taken: list[float]) -> None:
    wanted = len(taken) + AT_REST
    over = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(measure, started, taken, over)
        await until(lambda: len(taken) >= wanted)
        over.set()


async def torment(started: HeadEnd, name: str) -> str:
    """Have it do its evil; what was measured, in words. Every call of the core is answered, or this raises."""
    rest: list[float] = []
    meanwhile: list[float] = []
    returns: list[float] = []
    await at_rest(started, rest)
    over = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(measure, started, meanwhile, over)
        for _ in range(ROUNDS):
            for ask in MODES.values():
                with trio.fail_after(GUARD_S):
                    await ask(started.plugins)
                    began = trio.current_time()
                    await back(started)
                    returns.append(trio.current_time() - began)
        over.set()
    await at_rest(started, rest)
    rest_s, evil_s, longest_s = p99(rest), p99(meanwhile), max(returns)
    return (
        f"{name}: {len(returns)} times ({ROUNDS} x {len(MODES)} modes), the core answered {len(meanwhile)} of "
        f"{len(meanwhile)} calls; back in {sorted(returns)[len(returns) // 2]:.2f} s, at most {longest_s:.2f} s "
        f"({held(longest_s <= BACK_S)}: {BACK_S:g} s); core p99 {rest_s * 1000:.2f} ms at rest, {evil_s * 1000:.2f} ms "
        f"meanwhile, {100 * (evil_s / rest_s - 1):+.0f} % ({held(evil_s <= SLOWER * rest_s)}: +20 %), at most "
        f"{max(meanwhile) * 1000:.0f} ms"
    )


def held(well: bool) -> str:
    return "holds" if well else "DOES NOT HOLD"


@pytest.mark.parametrize("name", sorted(EVIL))
@pytest.mark.timeout(120 + 20 * ROUNDS * 5)
def test_head_end_outlives_a_plugin_that_means_harm(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins = f'[plugins]\nenabled = ["{name}", "good"]\nmemory_mib = 256\npatience = 20\n'

    async def main() -> HeadEnd:
        async with trio.open_nursery() as nursery:
            stop = Stop()
            started: HeadEnd = await nursery.start(run, config.load(path), stop)
            with trio.fail_after(60):
                await until(lambda: started.figures.plans["billing"].done == 1)
            measured.append(await torment(started, name))
            with trio.fail_after(60):
                turns = started.figures.plans["billing"].turns
                lines = await started.store.read(line_count)
            assert (turns, lines) >= (1, 3), "what was read is there"
            stop.ask()
        return started

    measured: list[str] = []
    place = tmp_path / "plugins"
    place.mkdir()
    with installed(place, **{name: evil(name), "good": GOOD}), fleet(1, "127.93.0.1") as running:
        path = head_end(tmp_path, BILLING + plugins, running)
        started = trio.run(main)

    with capsys.disabled() if ROUNDS > 1 else nullcontext():
        figure(f"evil {measured[0]}")
    assert (started.figures.plugins["good"].kills, started.figures.plugins["good"].restarts) == (0, 0)
    if name not in {"fork", "huge"}:
        assert started.figures.plugins[name].restarts >= ROUNDS * len(MODES)
