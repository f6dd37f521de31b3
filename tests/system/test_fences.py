"""What keeps critical commands from a meter that two have proved to be (R29), and in a node that slept (R8)."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from sqlalchemy import update
from tests.system.fleet import fleet, head_end
from tests.system.people import Office, People
from tests.system.test_control import FAST, actions, name
from tests.system.test_rpc import address
from tests.system.test_serve import free_port, serving, until

from ipss_headend.client import AsyncClient, CallFailed, sign_order
from ipss_headend.field.control import clones
from ipss_headend.field.control.machine import State
from ipss_headend.field.reactor import EventKind
from ipss_headend.server import HeadEnd
from ipss_headend.store.schema import owner


def test_r29_cloned_meter_gets_no_critical_command_until_a_person_clears_it(tmp_path: Path) -> None:
    """By the gate at once, by the audit trail after a restart; the meter beside it is switched as ever."""
    port = free_port()

    async def first(started: HeadEnd) -> None:
        running.meters.dial(f"127.0.0.1:{port}")
        await until(lambda: started.reactor.stats()["associated"] == 2)
        began = time.time()
        await until(lambda: time.time() > began + 2)  # the copy's counters are of a later second
        with fleet(1, "127.75.0.1", history_days=1) as copy:
            copy.meters.dial(f"127.0.0.1:{port}")
            await until(lambda: started.figures.events[EventKind.CLONE_DETECTED] == 1)
            await until(lambda: "clone" in office.audit_kinds())
        orders.append(await trio.to_thread.run_sync(office.switch, "off", [name(1), name(2)]))
        await until(lambda: office.over(orders[-1]))
        stats.append(started.reactor.stats())

    async def second(started: HeadEnd) -> None:
        running.meters.dial(f"127.0.0.1:{port}")
        await until(lambda: started.reactor.stats()["associated"] == 2)
        orders.append(await trio.to_thread.run_sync(office.switch, "off", [name(1)]))
        await until(lambda: office.over(orders[-1]))
        keys = office.people.files
        async with AsyncClient(address(started)) as caller:
            [held] = (await caller.call("control.held"))["meters"]
            assert (held["point"], "proved from 127.75.0.1" in held["why"]) == (name(1), True)
            wrong = sign_order(
                held["octets"], keys["bob"], signer="bob", purpose="clear", generation=held["generation"] + 1
            )
            said = {"point": name(1), "reason": "found in a shed", "signer": "bob"}
            with pytest.raises(CallFailed, match="E_DENIED"):
                await caller.call("control.clear", **said, signature=wrong)
            right = sign_order(
                held["octets"], keys["bob"], signer="bob", purpose="clear", generation=held["generation"]
            )
            assert await caller.call("control.clear", **said, signature=right) == {"pushes": 0}
            assert (await caller.call("control.held"))["meters"] == []
        orders.append(await trio.to_thread.run_sync(office.switch, "off", [name(1)]))
        await until(lambda: office.over(orders[-1]))

    orders: list[bytes] = []
    stats: list[dict[str, int]] = []
    people = People(tmp_path)
    listener = f'[[listeners]]\nhost = "127.0.0.1"\nport = {port}\n[rpc]\nsocket = "rpc.sock"\n'
    with fleet(2, "127.74.0.1", history_days=1) as running:
        path = head_end(tmp_path, listener + FAST + people.config(), running, dials_in=True)
        office = Office(path, people)
        serving(path, first)
        cut = actions(running)
        serving(path, second)
        assert running.reused() == []

    by_meter = {one.meter_id: (one.state, one.detail.partition(":")[0]) for one in office.commands(orders[0])}
    assert by_meter == {1: (State.FAILED, "held"), 2: (State.CONFIRMED, "")}
    assert cut == {1: 1}
    assert (stats[0]["clones"], stats[0]["associated"]) == (1, 2)
    assert [office.states(order) for order in orders[1:]] == [[State.FAILED], [State.CONFIRMED]]
    kinds = office.audit_kinds()
    assert (kinds.count("clone"), kinds.count("clear")) == (1, 1)
    with office.open() as database, database.reading() as connection:
        assert clones.held(connection, office.config.principals) == {}


@pytest.mark.timeout(120)
def test_r8_node_that_slept_and_was_replaced_sends_nothing_critical_when_it_wakes(tmp_path: Path) -> None:
    """A released command waits for its meter; the process stops, another owns the store, the meter dials in."""
    people = People(tmp_path)
    port = free_port()
    listener = f'[[listeners]]\nhost = "127.0.0.1"\nport = {port}\n'
    control = FAST + 'lease = "1s"\nanswer = "100s"\n'

    def waits(condition: Callable[[], bool]) -> None:
        give_up = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < give_up
            assert process.poll() is None
            time.sleep(0.05)

    with fleet(1, "127.77.0.1", history_days=1) as running:
        path = head_end(tmp_path, listener + control + people.config(), running, dials_in=True)
        office = Office(path, people)
        process = subprocess.Popen(
            [sys.executable, "-m", "ipss_headend.cli", "serve", str(path)], stderr=subprocess.PIPE
        )
        try:
            waits(lambda: "start" in office.audit_kinds())
            off = office.switch("off", [name(1)])
            waits(lambda: office.states(off) == [State.SENT])
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            with office.open() as database, database.writing() as connection:
                connection.execute(update(owner).values(epoch=owner.c.epoch + 1))
            running.meters.dial(f"127.0.0.1:{port}")  # the kernel takes the connection
            waits(lambda: running.meters.stats()["connections"] == 1)
            time.sleep(1.5)  # longer than the lease
            process.send_signal(signal.SIGCONT)
            _, log = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()

    assert process.returncode != 0, log.decode()
    assert b"owned by epoch" in log
    assert not actions(running)
    assert office.states(off) == [State.SENT], "for the new owner to find out"
