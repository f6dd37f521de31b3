"""R14: kill -9 on every side of every durable step of a command: executed at most once, never late, always resolved."""

import os
import signal
import time
from pathlib import Path

import pytest
from tests.system.control_kill_me import POINTS
from tests.system.orders import forking
from tests.system.test_control import BUDGETS, FAST, actions, name, world

from ipss_headend.field.control import machine
from ipss_headend.field.control.machine import State

KILLS = int(os.environ.get("IPSS_CONTROL_KILLS", str(len(POINTS))))
POSTGRESQL_KILLS = int(os.environ.get("IPSS_CONTROL_POSTGRESQL_KILLS", "5"))
RESOLVED_S = 60.0

STEP = 5
"""From point to point: a few kills are spread over all of them."""


@pytest.mark.timeout(600 + 4 * KILLS + 4 * POSTGRESQL_KILLS)
def test_r14_killed_at_every_point_each_command_is_executed_at_most_once_and_ends(tmp_path: Path, stored: str) -> None:
    """Each life gets one command for a meter of its own, and what earlier lives left; it dies at its point."""
    kills = POSTGRESQL_KILLS if stored else KILLS
    given: list[bytes] = []
    short: set[int] = set()
    with (
        world(tmp_path, kills, "127.41.0.1", control=FAST + BUDGETS, database=stored) as (running, office, path),
        forking("tests.system.control_kill_me") as orders,
    ):
        for kill in range(kills):
            point = POINTS[kill * STEP % len(POINTS)]
            if kill % 7 == 4:
                short.add(kill)
            given.append(office.switch("off", [name(kill + 1)], life_s=3.0 if kill in short else 900))

            orders.start(path, point)

            status = orders.wait()
            assert status == -signal.SIGKILL, f"kill {kill}: it did not come to {point}"
            assert set(actions(running).values()) <= {1}
        process = orders.start(path)
        give_up = time.monotonic() + RESOLVED_S
        while not all(map(office.over, given)) and time.monotonic() < give_up:
            time.sleep(0.5)
        os.kill(process, signal.SIGKILL)
        orders.wait()
        done = actions(running)
        assert running.reused() == []

    for number, order_id in enumerate(given):
        [command] = office.commands(order_id)
        state = State(command.state)
        assert state in machine.FINAL or (state is State.UNKNOWN and command.alarmed), (number, command)
        executed = done.get(number, 0)
        assert executed <= 1, (number, command)
        if state is State.CONFIRMED:
            assert executed == 1, (number, command)
        if state in {State.EXPIRED, State.CANCELLED} or "not sent" in command.detail:
            assert executed == 0, (number, command)
    assert sum(done.values()) >= kills // 2
