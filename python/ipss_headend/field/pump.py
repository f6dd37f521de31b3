"""The one task that takes batches from the reactor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import trio

from ipss_headend.field.reactor import Reactor

if TYPE_CHECKING:
    from ipss_headend._core import Batch

Deliver = Callable[[Sequence["Batch"]], Awaitable[None]]
"""Makes batches durable and tells whoever waits for them."""

LARGEST_DELIVERY = 5_000
"""Rows that are delivered together: beyond it a durable transaction costs by the row, and what waits is memory."""


async def pump(reactor: Reactor, deliver: Deliver, *, largest: int = LARGEST_DELIVERY) -> None:
    """Take batches from the reactor until it is closed, in order, and deliver them.

    What is there at one moment is delivered together, since a transaction for each hundred rows would spend its time
    in fsync. A delivery is whole before the next batch is taken: when the store is slow the reactor stops reading, and
    TCP holds the meters back.
    """
    while True:
        batches = _take(reactor, largest)
        if batches:
            await deliver(batches)
            await trio.lowlevel.checkpoint()  # a delivery with nothing to store does not wait
        elif reactor.finished():
            return
        else:
            await trio.lowlevel.wait_readable(reactor.fileno())


def _take(reactor: Reactor, largest: int) -> list[Batch]:
    batches: list[Batch] = []
    rows = 0
    while rows < largest:
        batch = reactor.take()
        if batch is None:
            break
        batches.append(batch)
        rows += len(batch)
    return batches
