"""kill -9 in the middle of a firmware transfer: the next life goes on behind the blocks that the meter has."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.system.firmware_kill_me import POINTS
from tests.system.orders import forking
from tests.system.test_control import actions, name, world
from tests.system.test_firmware import FAST, OCTETS, over, propose
from tests.system.test_serve import serving

from ipss_headend.field.control.firmware import AT_ONCE
from ipss_headend.field.control.machine import State
from ipss_headend.server import HeadEnd

BLOCK = 128
"""Octets of a virtual meter's image block."""
IMAGE = OCTETS * 4
KILLS = int(os.environ.get("IPSS_FIRMWARE_KILLS", "2"))


@pytest.mark.parametrize("point", POINTS)
def test_killed_in_the_middle_of_a_transfer_it_goes_on_where_the_meter_stands(tmp_path: Path, point: str) -> None:
    """Each life dies at its second or third request of blocks, each with more blocks done than the one before."""

    async def use(head_end: HeadEnd) -> None:
        await over(office, given[0])
        done.extend(office.commands(given[0]))

    given: list[bytes] = []
    done: list[Any] = []
    with (
        world(tmp_path, 1, f"127.5{5 + POINTS.index(point)}.0.1", control=FAST) as (running, office, path),
        forking("tests.system.firmware_kill_me") as orders,
    ):
        given.append(propose(office, path, IMAGE, [name(1)]))
        for kill in range(KILLS):
            orders.start(path, point, 2 + kill % 2)
            assert orders.wait() == -signal.SIGKILL, f"kill {kill}: it did not come to {point}"
        assert office.states(given[0]) == [State.RELEASED]
        assert "sent" not in office.audit_kinds()
        serving(path, use, limit_s=60)
        told = actions(running)[0]
        assert running.reused() == []

    assert [one.state for one in done] == [State.CONFIRMED]
    blocks = -(-len(IMAGE) // BLOCK)
    # Of each life at most the blocks of one request come twice; beside them: proofs, initiation, verifying, activation.
    proofs = 3 * (KILLS + 1)
    assert blocks < told <= blocks + KILLS * AT_ONCE + 3 + proofs
