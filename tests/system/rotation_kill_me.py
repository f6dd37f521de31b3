"""Head-ends that die on the way of a key change: as `kill_me.py`, with the points of `field/rekeying.py`."""

import functools
from typing import Any

import trio
from tests.system.kill_me import Bomb, be_head_end, obey

from ipss_headend.field import rekeying
from ipss_headend.field.control.sending import Sending
from ipss_headend.field.rekeying import Rekeying
from ipss_headend.security import rotation

POINTS = (
    "before-stored",
    "torn-stored",
    "stored",
    "before-sent",
    "torn-sent",
    "sent",
    "given",
    "on-wire",
    "answered",
    "taken",
    "before-try",
    "tried",
    "torn-proven",
    "proven",
    "ended",
)
"""Before, in and behind the transactions that store NEW, note that it is sent, and make it the key in use; the reactor
has the transfer; it is on the way; it was answered; a try was taken, is made, was made; the command is at its end."""

MASTER_POINTS = (
    "before-stored",
    "torn-stored",
    "stored",
    "before-sent",
    "torn-sent",
    "sent",
    "given",
    "on-wire",
    "answered",
    "torn-proven",
    "proven",
    "ended",
)
"""The same of a master key, where the answer is the proof and nothing is tried."""


def arm(bomb: Bomb) -> None:
    """Put the points into the code."""

    def around(owner: type, name: str, before: str = "", behind: str = "") -> None:
        whole = getattr(owner, name)

        @functools.wraps(whole)
        async def patched(self: Any, *arguments: Any, **named: Any) -> Any:
            bomb.passes(before)
            done = await whole(self, *arguments, **named)
            bomb.passes(behind)
            return done

        setattr(owner, name, patched)

    def within(name: str, point: str) -> None:
        whole = getattr(rotation, name)

        @functools.wraps(whole)
        def patched(*arguments: Any, **named: Any) -> Any:
            done = whole(*arguments, **named)
            bomb.passes(point)
            return done

        setattr(rotation, name, patched)

    around(Rekeying, "prepare", "before-stored", "stored")
    around(Rekeying, "prepare_master", "before-stored", "stored")
    around(Rekeying, "master_answered", behind="proven")
    around(Rekeying, "_proves", "before-try", "tried")
    around(Rekeying, "_try_all", behind="proven")
    around(Sending, "_mark_sent", "before-sent", "sent")
    around(Sending, "end", behind="ended")
    within("begin", "torn-stored")
    within("begin_master", "torn-stored")
    within("sending_master", "torn-sent")
    within("proven_master", "torn-proven")
    within("sending", "torn-sent")
    within("block", "taken")
    within("proven", "torn-proven")
    await_end = Sending._await_end

    @functools.wraps(await_end)
    async def awaiting(self: Sending, request: int, meter: int) -> Any:
        bomb.passes("given")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(later)
            done = await await_end(self, request, meter)
            nursery.cancel_scope.cancel()
        bomb.passes("answered")
        return done

    async def later() -> None:
        await trio.sleep(0.002)
        bomb.passes("on-wire")

    Sending._await_end = awaiting  # type: ignore[method-assign]


def be_quick(order: dict[str, Any]) -> None:
    """Serve until the bomb or a signal. Only the last life, which no bomb ends, need not wait for 15 minutes."""
    if order["point"] == "never":
        rotation.TRY_WINDOW_US = 200_000
    rekeying.AGAIN_S = rekeying.SLOWEST_S = 0.5
    rekeying.PAUSE_S = 0.2
    be_head_end(arm, order)


if __name__ == "__main__":
    obey(be_quick)
