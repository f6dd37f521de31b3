"""R22: kill -9 on every side of every step of a key change: no meter is locked out, and its old key goes last."""

import os
import signal
import time
from pathlib import Path

import pytest
from tests.system.orders import forking
from tests.system.people import Office
from tests.system.rotation_kill_me import MASTER_POINTS, POINTS
from tests.system.test_control import BUDGETS, FAST, name, world
from tests.system.test_rotation import QUICK, doubt, keys_of, reads
from tests.system.test_serve import serving, until

from ipss_headend.field.control import machine
from ipss_headend.field.control.machine import State
from ipss_headend.security import rotation
from ipss_headend.server import HeadEnd
from ipss_headend.store import commands as rows

KILLS = int(os.environ.get("IPSS_ROTATIONS", str(len(POINTS))))
MASTERS = int(os.environ.get("IPSS_MASTER_ROTATIONS", str(len(MASTER_POINTS))))
SETTLED_S = 60.0
LIVELY = "changes_per_minute = 100000\nchanges_per_hour = 100000\nchanges_per_day_least = 100000\n"


def unsent(office: Office) -> int:
    """Commands that wait to be sent."""
    with office.open() as database, database.reading() as connection:
        return sum(rows.counts(connection, machine.BEFORE_SENT).values())


@pytest.mark.timeout(600 + 4 * KILLS)
def test_r22_killed_at_every_step_no_meter_is_locked_out(tmp_path: Path) -> None:
    """Each life changes the keys of a meter of its own, and settles what earlier lives left; it dies at its point."""
    given: list[bytes] = []
    names = [name(kill + 1) for kill in range(KILLS)]
    budgets = BUDGETS + LIVELY
    with (
        world(tmp_path, KILLS, "127.49.0.1", control=FAST + budgets + QUICK) as (running, office, path),
        forking("tests.system.rotation_kill_me") as orders,
    ):
        before = keys_of(office, *names)
        for kill in range(KILLS):
            point = POINTS[kill % len(POINTS)]
            given.append(office.rekey([names[kill]]))

            orders.start(path, point)

            status = orders.wait()
            assert status == -signal.SIGKILL, f"kill {kill}: it did not come to {point}"
        process = orders.start(path)
        give_up = time.monotonic() + SETTLED_S
        while (doubt(office) or not all(map(office.over, given))) and time.monotonic() < give_up:
            time.sleep(0.5)
        os.kill(process, signal.SIGKILL)
        orders.wait()
        after = keys_of(office, *names)
        answers: list[bool] = []

        async def use(head_end: HeadEnd) -> None:
            answers.extend([await reads(head_end, number + 1) for number in range(KILLS)])

        serving(path, use, limit_s=30 + KILLS)
        assert running.reused() == []

    assert answers == [True] * KILLS
    for number, order_id in enumerate(given):
        [command] = office.commands(order_id)
        assert command.state in machine.FINAL, (number, command)
        changed = before[number].encryption_key != after[number].encryption_key
        assert changed == (command.state == State.CONFIRMED), (number, command)


@pytest.mark.timeout(600 + 4 * MASTERS)
def test_r22_killed_at_every_step_of_a_change_of_its_master_key_every_meter_takes_new_keys_afterwards(
    tmp_path: Path,
) -> None:
    """What a life left in doubt is found out by the next order; and new keys under the master key prove it whole."""
    names = [name(kill + 1) for kill in range(MASTERS)]
    with (
        world(tmp_path, MASTERS, "127.79.0.1", control=FAST + BUDGETS + LIVELY + QUICK) as (running, office, path),
        forking("tests.system.rotation_kill_me") as orders,
    ):
        before = keys_of(office, *names)
        for kill in range(MASTERS):
            point = MASTER_POINTS[kill % len(MASTER_POINTS)]
            office.rekey([names[kill]], master=True)

            orders.start(path, point)

            status = orders.wait()
            assert status == -signal.SIGKILL, f"kill {kill}: it did not come to {point}"
        answers: list[bool] = []
        ended: list[list[State]] = []

        async def use(head_end: HeadEnd) -> None:
            answers.extend([await reads(head_end, number + 1) for number in range(MASTERS)])
            with office.open() as database, database.reading() as connection:
                doubted.extend(rotation.masters_in_doubt(connection))
            # What was not sent goes now, what is in doubt is asked for again.
            for which, master in ((doubted, True), (range(1, MASTERS + 1), False)):
                await until(lambda: unsent(office) == 0)
                for meter in which:
                    asked = office.rekey([name(meter)], master=master)
                    await until(lambda order_id=asked: office.over(order_id))  # type: ignore[misc]
                    ended.append(office.states(asked))

        doubted: list[int] = []
        serving(path, use, limit_s=120 + 4 * MASTERS)
        after = keys_of(office, *names)
        assert running.reused() == []

    assert answers == [True] * MASTERS, "in doubt or not, they are talked to"
    assert doubted, "some points leave a doubt"
    assert ended == [[State.CONFIRMED]] * (len(doubted) + MASTERS)
    assert all(old.master_key != new.master_key for old, new in zip(before, after, strict=True))
    assert all(old.encryption_key != new.encryption_key for old, new in zip(before, after, strict=True))
