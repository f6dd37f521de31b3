"""Head-ends that die in the middle of a firmware transfer: as `kill_me.py`, with points in `firmware.py`."""

import functools
from typing import Any

import trio
from tests.system.kill_me import Bomb, be_head_end, obey

from ipss_headend.field.control.firmware import Firmware

POINTS = ("begun", "given", "taken")
"""Blocks are about to be sent; they are with the reactor; the meter has answered them."""


def arm(bomb: Bomb) -> None:
    """Put the points into the code."""
    blocks, ask = Firmware._blocks, Firmware._ask

    @functools.wraps(blocks)
    async def sending(self: Firmware, *arguments: Any) -> None:
        bomb.passes("begun")
        self.sending = True  # type: ignore[attr-defined]
        await blocks(self, *arguments)
        self.sending = False  # type: ignore[attr-defined]
        bomb.passes("taken")

    @functools.wraps(ask)
    async def asking(self: Firmware, *arguments: Any) -> Any:
        async with trio.open_nursery() as nursery:
            if getattr(self, "sending", False):
                nursery.start_soon(later)
            return await ask(self, *arguments)

    async def later() -> None:
        await trio.sleep(0.002)
        bomb.passes("given")

    Firmware._blocks = sending  # type: ignore[method-assign,assignment]
    Firmware._ask = asking  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    obey(functools.partial(be_head_end, arm))
