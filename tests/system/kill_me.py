"""Head-ends to be killed: a process that imports everything once and forks one for each order that it reads.

An order is a line of JSON: the configuration's path, the point at which to die, and at the how manieth pass. Answers
are lines too: the child's process number, then its wait status. A child writes down whose readings it has told others
about before it goes on, so what is written down is never more than the world relies on by one delivery.
"""

import functools
import json
import os
import signal
import sys
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import trio

from ipss_headend import config, log
from ipss_headend.config import LogConfig
from ipss_headend.field.delivery import Delivery
from ipss_headend.server import serve
from ipss_headend.store import Store, marks
from ipss_headend.store.journal import WriteBatch

POINTS = ("reserved", "before-write", "torn", "written", "told")
"""A counter block is durable and not granted; lines are about to be written; they are in the transaction and their
marks are not; they are durable and nobody knows; somebody was told."""


class Bomb:
    """Kills this process at the `nth` pass of its point."""

    def __init__(self, point: str, nth: int) -> None:
        self._point = point
        self._left = nth

    def passes(self, point: str) -> None:
        """The process is at this point now."""
        if point == self._point:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


def arm(bomb: Bomb, acknowledged: Path) -> None:
    """Put the points into the code, and the record behind each acknowledgement."""
    reserve, write, advance, told = Store.reserve, Store.write, marks.advance, Delivery.__call__
    record = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    written: list[Sequence[Any]] = []

    @functools.wraps(reserve)
    async def reserving(self: Store, meter_ids: Sequence[int], size: int) -> Any:
        blocks = await reserve(self, meter_ids, size)
        bomb.passes("reserved")
        return blocks

    @functools.wraps(write)
    async def writing(self: Store, batch: WriteBatch) -> Any:
        if batch.readings:
            bomb.passes("before-write")
        done = await write(self, batch)
        if batch.readings:
            bomb.passes("written")
        written.extend(batch.readings)
        return done

    @functools.wraps(advance)
    def advancing(connection: Any, rows: Any) -> None:
        bomb.passes("torn")
        advance(connection, rows)

    @functools.wraps(told)
    async def telling(self: Delivery, batches: Sequence[Any]) -> None:
        await told(self, batches)
        if written:
            os.write(record, array("q", (part for row in written for part in row[:4])).tobytes())
            written.clear()
            bomb.passes("told")

    Store.reserve = reserving  # type: ignore[method-assign]
    Store.write = writing  # type: ignore[method-assign]
    Delivery.__call__ = telling  # type: ignore[method-assign]
    marks.advance = advancing


def be_head_end(arm: Callable[[Bomb], None], order: dict[str, Any]) -> None:
    """Put the points into the code, and serve until the bomb or a signal."""
    log.configure(LogConfig(level="error"))
    arm(Bomb(order["point"], order["nth"]))
    trio.run(serve, config.load(Path(order["config"])))


def be_recorded(order: dict[str, Any]) -> None:
    """The same with the record of what is acknowledged beside the configuration."""
    be_head_end(functools.partial(arm, acknowledged=Path(order["config"]).with_name("acknowledged")), order)


def obey(be: Callable[[dict[str, Any]], None]) -> None:
    """A child for each order."""
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            status = 99
            try:
                be(json.loads(line))
                status = 0
            finally:
                os._exit(status)
        print(process, flush=True)
        print(os.waitpid(process, 0)[1], flush=True)


if __name__ == "__main__":
    obey(be_recorded)
