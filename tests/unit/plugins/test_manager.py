"""Plugins in their processes: each mode, failure open and closed, fences, and what a process may not do."""

from __future__ import annotations

import errno
import fcntl
import os
from array import array
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from tests.unit.plugins.installed import installed

from ipss_headend.errors import PluginError
from ipss_headend.metrics import Figures
from ipss_headend.plugins.columns import attach, share
from ipss_headend.plugins.manager import Manager
from ipss_headend.plugins.specs import Refusal

CAREFUL = """
from ipss_headend.plugins import Refusal, hook

@hook
def control_before_command(ctx, command, reason):
    if reason == "crash":
        raise ValueError("no such rule")
    if reason == "odd":
        return 7
    if command["meter"] == "hospital":
        return Refusal("people live on it", "protected")

@hook
def billing_sales_dimension(account):
    return {"kind": account["name"].upper()}

@hook(tryfirst=True)
def control_event_decode(code):
    return {"name": "cover-opened", "severity": 3} if code == 7 else None

@hook
def billing_validate_batch(batch):
    for place, value in enumerate(batch["values"]):
        if value < 0:
            batch.flags[place] |= 4
"""
SLOW = """
import time
from ipss_headend.plugins import hook

@hook
def control_before_command(reason):
    if reason == "slow":
        time.sleep(0.5)
    if reason == "hang":
        time.sleep(1000)

@hook
def billing_validate_batch(batch):
    batch.flags[0] |= 1
"""


def running(enabled: list[str], use: Callable[[Manager], Awaitable[None]], *, patience: float = 200.0) -> Figures:
    figures = Figures()

    async def main() -> None:
        manager = Manager(enabled, figures, patience=patience)
        async with trio.open_nursery() as nursery:
            await nursery.start(manager.run)
            with trio.fail_after(60):
                await use(manager)
            nursery.cancel_scope.cancel()

    trio.run(main)
    return figures


async def until(condition: Callable[[], bool]) -> None:
    while True:
        if condition():
            return
        await trio.sleep(0.02)


def before(manager: Manager, meter: str, reason: str) -> Awaitable[list[Refusal]]:
    return manager.veto("control_before_command", command={"meter": meter}, device_state={}, reason=reason)


def test_every_mode_asks_the_plugins_that_have_the_hook(tmp_path: Path) -> None:
    async def use(manager: Manager) -> None:
        assert await before(manager, "m1", "unpaid") == []
        assert await before(manager, "hospital", "unpaid") == [Refusal("people live on it", "protected")]
        labels = await manager.all("billing_sales_dimension", account={"name": "shop"})
        assert labels == [("careful", {"kind": "SHOP"})]
        decoded = await manager.first("control_event_decode", device="m1", code=7, payload=b"\1")
        assert (decoded.name, decoded.severity) == ("cover-opened", 3)
        assert await manager.first("control_event_decode", device="m1", code=8, payload=b"") is None
        flags = await manager.batch("billing_validate_batch", {"values": array("q", [5, -1, 7])}, 3)
        assert list(flags) == [1, 4, 0]

    with installed(tmp_path, careful=CAREFUL, slow=SLOW):
        figures = running(["careful", "slow"], use)
    assert figures.plugin("careful").calls["control_before_command", "done"] == 2


def test_a_failure_refuses_where_the_hook_fails_closed_and_only_there(tmp_path: Path) -> None:
    async def use(manager: Manager) -> None:
        for reason, words in (
            ("crash", "ValueError: no such rule"),
            ("odd", "an answer of type int, expected Refusal"),
        ):
            (refusal,) = await before(manager, "m1", reason)
            assert refusal.code == "plugin-failed"
            assert words in refusal.reason
        assert await manager.all("billing_sales_dimension", account={}) == [], "fails open"
        assert await before(manager, "m1", "unpaid") == []

    with installed(tmp_path, careful=CAREFUL):
        running(["careful"], use)


def test_a_plugin_that_cannot_be_loaded_refuses_what_it_might_have_a_say_in(tmp_path: Path) -> None:
    async def use(manager: Manager) -> None:
        assert [one.code for one in await before(manager, "m1", "unpaid")] == ["plugin-failed"]
        assert await manager.all("billing_sales_dimension", account={"name": "x"}) == []

    with installed(tmp_path, broken="import nowhere"):
        running(["broken"], use)


def test_a_late_answer_is_dropped_and_a_hang_costs_the_process_its_life(tmp_path: Path) -> None:
    async def use(manager: Manager) -> None:
        (plugin,) = manager.plugins
        (late,) = await before(manager, "m1", "slow")
        assert "no answer within" in late.reason
        first = plugin.process_id
        await trio.sleep(0.6)
        assert await before(manager, "m1", "well") == [], "the late answer is nobody else's"
        assert plugin.process_id == first
        assert len(await before(manager, "m1", "hang")) == 1
        await until(lambda: plugin.process_id not in (first, None) and plugin.figures.up == 1)
        assert await before(manager, "m1", "well") == []

    with installed(tmp_path, slow=SLOW):
        figures = running(["slow"], use, patience=10)
    assert figures.plugin("slow").kills == 1


CURIOUS = """
import os, signal, socket, subprocess, threading
from ipss_headend.plugins import hook

def fork(): os.fork()
def start(): subprocess.run(["/bin/true"])
def connect(): socket.create_connection(("127.0.0.1", 9))
def kill(): os.kill(os.getppid(), signal.SIGTERM)
def session(): os.setsid()
def write(): batch["values"][0] = 1
def thread():
    one = threading.Thread(target=lambda: None)
    one.start()
    one.join()
def secret(): return os.environ["SECRET"]
def create(): open(PLACE + "/new", "x")
def append(): open(PLACE + "/store", "a")
def truncate(): os.truncate(PLACE + "/store", 0)
def remove(): os.unlink(PLACE + "/store")
def move(): os.rename(PLACE + "/store", PLACE + "/other")
def directory(): os.mkdir(PLACE + "/directory")
def mode(): os.chmod(PLACE + "/store", 0o777)
def nowhere(): open(os.devnull, "w").write("x")
def read(): open(PLACE + "/store").read()
FILES = (create, append, truncate, remove, move, directory, mode, nowhere, read)

@hook
def plugin_health(ctx):
    found = {}
    for try_ in (fork, start, connect, kill, session, thread, secret, *FILES):
        try:
            try_()
            found[try_.__name__] = "done"
        except (OSError, KeyError) as error:
            found[try_.__name__] = type(error).__name__
    return found
"""


def test_a_process_may_start_threads_and_read_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "key")
    place = tmp_path / "data"
    place.mkdir()
    (place / "store").write_text("readings")

    async def use(manager: Manager) -> None:
        ((_, found),) = await manager.all("plugin_health")
        changes = ("create", "append", "truncate", "remove", "move", "directory", "mode")
        refused = dict.fromkeys(("fork", "start", "connect", "kill", "session", *changes), "PermissionError")
        done = dict.fromkeys(("thread", "nowhere", "read"), "done")
        assert found == refused | done | {"secret": "KeyError"}

    with installed(tmp_path, curious=f"PLACE = {str(place)!r}\n" + CURIOUS):
        running(["curious"], use)


def test_columns_are_read_where_they_lie_by_numpy_and_arrow_alike() -> None:
    shared = share({"values": array("q", range(1000)), "known": array("B", bytes(1000))}, 1000)
    batch = attach(os.dup(shared.descriptor), os.dup(shared.answer), shared.layout)

    numbers, column = batch.numpy("values"), batch.arrow("values")

    assert column.buffers()[1].address == numbers.__array_interface__["data"][0], "one memory"
    assert column.to_pylist() == list(range(1000))
    assert str(batch.arrow("known").type) == "uint8"
    with pytest.raises(TypeError):
        batch["values"][0] = 1
    batch.numpy_flags()[7] |= 2
    assert shared.flags()[7] == 2, "and what is written is heard"
    shared.close()


@pytest.mark.parametrize(("busy", "sealed"), [(3, True), (10_000, False)])
def test_memory_that_the_system_holds_is_sealed_a_little_later(
    monkeypatch: pytest.MonkeyPatch, busy: int, sealed: bool
) -> None:
    tries = iter(range(busy))
    really = fcntl.fcntl

    def held(descriptor: int, what: int, how: int) -> int:
        if how & fcntl.F_SEAL_WRITE and next(tries, None) is not None:
            raise OSError(errno.EBUSY, "Device or resource busy")
        return really(descriptor, what, how)

    monkeypatch.setattr(fcntl, "fcntl", held)
    before = len(os.listdir("/proc/self/fd"))
    if not sealed:
        with pytest.raises(PluginError, match="held shared memory back"):
            share({"values": array("q", range(1000))}, 1000)
        assert len(os.listdir("/proc/self/fd")) == before, "no descriptor is left behind"
        return
    shared = share({"values": array("q", range(1000))}, 1000)
    with pytest.raises(PermissionError):
        os.pwrite(shared.descriptor, b"other", 0)
    shared.close()
