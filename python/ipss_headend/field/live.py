"""Asking meters now, without a head-end that serves: for commands. The reactor lives as long as the `async with`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from ipss_headend import _core
from ipss_headend.config import ReactorConfig
from ipss_headend.field.connect import make_reactor
from ipss_headend.field.pump import pump
from ipss_headend.field.requests import Requests
from ipss_headend.store.journal import EventRow, PeerCounterRow

if TYPE_CHECKING:
    from ipss_headend._core import Batch, Meter, Reactor

RELEASE_S = 2.0
"""How long the end waits for meters to confirm the release of their associations."""

KeepCounters = Callable[[Sequence[PeerCounterRow]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Live:
    """Meters that can be asked."""

    requests: Requests
    """`await live.requests.ask(questions, meter, timeout_s=...)`."""
    reactor: Reactor
    events: list[EventRow] = field(default_factory=list)
    """What the sessions noticed so far, in order: says why, where an outcome says only that."""


@asynccontextmanager
async def line_to(
    meters: Sequence[Meter], *, limits: ReactorConfig | None = None, keep_counters: KeepCounters | None = None
) -> AsyncIterator[Live]:
    """Connect to these meters while the block runs, and release them behind it.

    Their invocation counters must have been reserved durably before. `keep_counters` makes the meters' own counters
    durable; an answer is told after it has returned (R9).
    """
    reactor = make_reactor(limits or ReactorConfig(threads=1))
    live = Live(Requests(reactor, _core), reactor)

    async def deliver(batches: Sequence[Batch]) -> None:
        counters = [row for batch in batches for row in batch.peer_counters()]
        if counters and keep_counters is not None:
            await keep_counters(counters)
        for batch in batches:
            live.events.extend(batch.events())
            live.requests.route(batch.answers(), batch.refusals(), batch.ends())

    failure: Exception | None = None
    try:
        reactor.add(meters)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, reactor, deliver)
            try:
                yield live
            except Exception as error:  # noqa: BLE001 - raised again below, as itself and not in the nursery's group
                failure = error
            reactor.drain(RELEASE_S)
    finally:
        reactor.stop()
    if failure is not None:
        raise failure
