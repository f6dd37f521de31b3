"""Head-ends that die on the way of a command: as `kill_me.py`, with points in `field/control`."""

import functools
from typing import Any

import trio
from tests.system.kill_me import Bomb, be_head_end, obey

from ipss_headend.field.control.readback import ReadBack
from ipss_headend.field.control.sending import Sending
from ipss_headend.field.control.task import Control
from ipss_headend.security import audit

POINTS = (
    "prepared",
    "before-release",
    "torn-release",
    "released",
    "before-sent",
    "torn-sent",
    "sent",
    "given",
    "on-wire",
    "answered",
    "read-back",
    "before-end",
    "torn-end",
    "ended",
)
"""The trail was taken over; before, in and behind the transactions that release, send and end a command; the reactor
has it; its octets are on the way; it was answered; the meter was read."""


def arm(bomb: Bomb) -> None:
    """Put the points into the code."""

    def around(owner: type, name: str, before: str = "", behind: str = "") -> None:
        whole = getattr(owner, name)

        @functools.wraps(whole)
        async def patched(self: object, *arguments: Any, **named: Any) -> Any:
            bomb.passes(before)
            done = await whole(self, *arguments, **named)
            bomb.passes(behind)
            return done

        setattr(owner, name, patched)

    around(Control, "prepare", behind="prepared")
    around(Control, "_release", "before-release", "released")
    around(Sending, "_mark_sent", "before-sent", "sent")
    around(Sending, "end", "before-end", "ended")
    await_end, look, append = Sending._await_end, ReadBack.look, audit.append

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

    @functools.wraps(look)
    async def looking(self: ReadBack, *arguments: Any) -> Any:
        seen = await look(self, *arguments)
        bomb.passes("read-back")
        return seen

    @functools.wraps(append)
    def appending(connection: Any, kind: str, *arguments: Any) -> int:
        points = {"sent": "torn-sent", "release": "torn-release", "confirmed": "torn-end", "failed": "torn-end"}
        bomb.passes(points.get(kind, ""))
        return append(connection, kind, *arguments)

    Sending._await_end = awaiting  # type: ignore[method-assign]
    ReadBack.look = looking  # type: ignore[method-assign, assignment]
    audit.append = appending  # type: ignore[assignment]


if __name__ == "__main__":
    obey(functools.partial(be_head_end, arm))
