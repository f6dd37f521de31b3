"""From the reactor to the store: what a delivery holds becomes durable in one transaction, then it is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import trio

from ipss_headend.errors import StaleOwner, StoreDamaged, StoreError, StoreFailed, StoreFull
from ipss_headend.field.pushes import Kept, Pushes
from ipss_headend.field.quarantine import Quarantine
from ipss_headend.field.reactor import CONFIRMED, AnswerRow, EventKind, Outcome, Reactor
from ipss_headend.field.requests import Requests
from ipss_headend.field.watch import STORED, Watch
from ipss_headend.log import Logger, logger
from ipss_headend.metrics import Figures
from ipss_headend.store import Store, WriteBatch
from ipss_headend.store.database import now_us
from ipss_headend.store.journal import EndRow, EventRow, PeerCounterRow, RefusalRow, Written
from ipss_headend.store.latest import Latest
from ipss_headend.store.records import ReadingRow

if TYPE_CHECKING:
    from ipss_headend._core import Batch

_T = TypeVar("_T")

OFFER_AGAIN_S = 1.0
"""How long a delivery waits when the disk is full or somebody else holds the store; the meters are held meanwhile."""

STALL_S = 5.0
"""A delivery that takes longer holds up what meters say by more than may count as their clocks' deviation."""


class Newest:
    """The newest capture time of each meter's profile lines since its last request ended, per layout.

    A mark must not cover what a meter has not captured yet; this says how far a meter's answer reached.
    """

    def __init__(self) -> None:
        self._layouts: set[int] = set()
        self._times: dict[tuple[int, int], int] = {}

    def watch(self, layout: int) -> None:
        """Note the lines of this layout from now on."""
        self._layouts.add(layout)

    def note(self, rows: Sequence[ReadingRow]) -> None:
        """Lines that are about to be stored."""
        if not self._layouts:
            return
        for row in rows:
            if row[1] in self._layouts:
                key = (row[0], row[1])
                if row[2] > self._times.get(key, -1):
                    self._times[key] = row[2]

    def take(self, meter: int, layout: int) -> int | None:
        """The newest capture time, which is forgotten; None if no line came."""
        return self._times.pop((meter, layout), None)


class Delivery:
    """What the pump delivers to."""

    def __init__(
        self,
        *,
        store: Store,
        requests: Requests,
        reactor: Reactor,
        pushes: Pushes,
        quarantine: Quarantine,
        watch: Watch,
        newest: Newest,
        figures: Figures,
        latest: Latest | None = None,
        written: Callable[[], None] = lambda: None,
    ) -> None:
        """`latest` follows what is stored; `written` is called after each durable write."""
        self._store = store
        self._reactor = reactor
        self._pushes = pushes
        self._quarantine = quarantine
        self._requests = requests
        self._watch = watch
        self._newest = newest
        self._figures = figures
        self._latest = latest or Latest()
        self._written = written
        self._log: Logger = logger("store")

    async def __call__(self, batches: Sequence[Batch]) -> None:
        """Make these batches durable, then tell whoever waits.

        Raises:
            StoreFailed, StaleOwner, StoreDamaged: nothing may be acknowledged any more.
        """
        received_us, begun_s = now_us(), trio.current_time()
        rows: list[ReadingRow] = []
        answers: list[AnswerRow] = []
        events: list[EventRow] = []
        refusals: list[RefusalRow] = []
        ends: list[EndRow] = []
        peer_counters: list[PeerCounterRow] = []
        for batch in batches:
            if batch.lines:
                lines = batch.rows(received_us)
                rows += lines
                if len(lines) < batch.lines:
                    answers += batch.answers()
            events += batch.events()
            refusals += batch.refusals()
            ends += batch.ends()
            peer_counters += batch.peer_counters()
            self._figures.values += batch.values
        self._newest.note(rows)
        unasked = [answer for answer in answers if answer[1] == 0]
        kept = await self._until_taken(lambda: self._pushes.take(unasked, received_us)) if unasked else Kept()
        rows += kept.rows
        found = self._quarantine.sort(events, received_us)
        written = await self._write(
            WriteBatch(
                readings=rows,
                events=[*(event for event in found.events if event[2] in STORED), *kept.events],
                unclaimed=found.unclaimed,
                heard=found.heard,
                refusals=refusals,
                # What a mark or a line proves needs no row of its own.
                ends=[end for end in ends if end[2] != Outcome.DONE],
                peer_counters=peer_counters,
                marks=self._requests.marks(ends),
            )
        )
        self._quarantine.written(written, told=found.told)
        self._confirm(events)
        self._latest.note(rows)
        self._written()
        if trio.current_time() - begun_s > STALL_S:
            self._requests.stalled_s = trio.current_time()
        self._requests.route(answers, refusals, ends)
        self._watch.events(found.events)
        self._watch.ends(ends)

    def _confirm(self, events: Sequence[EventRow]) -> None:
        """Confirm what asked for it, now that it is durable (R1). A meter that hears nothing pushes again."""
        waiting = [
            (meter, number)
            for meter, _, kind, number, detail in events
            if kind == EventKind.NOTIFIED and detail == CONFIRMED
        ]
        if waiting:
            with suppress(RuntimeError):  # a reactor that has stopped; the same push is stored once
                self._reactor.confirm(waiting)

    async def _write(self, batch: WriteBatch) -> Written:
        if not any(getattr(batch, rows) for rows in WriteBatch.__slots__):
            return Written(0, 0)
        started = trio.current_time()
        written = await self._until_taken(lambda: self._store.write(batch))
        self._figures.write_durations.add(int((trio.current_time() - started) * 1e6))
        self._figures.lines += written.readings
        self._figures.duplicate_lines += written.duplicates
        return written

    async def _until_taken(self, write: Callable[[], Awaitable[_T]]) -> _T:
        """Offer it to the store until it is taken; a store that failed takes nothing any more."""
        while True:
            try:
                taken = await write()
            except (StoreFailed, StaleOwner, StoreDamaged):
                self._figures.store_trouble = "failed"
                raise
            except StoreError as error:
                # Nothing was written, and nothing is lost: the batch waits, and behind it the meters do.
                trouble = "full" if isinstance(error, StoreFull) else "held"
                if self._figures.store_trouble != trouble:
                    self._log.error("store takes no readings", why=str(error))
                self._figures.store_trouble = trouble
                await trio.sleep(OFFER_AGAIN_S)
            else:
                break
        if self._figures.store_trouble is not None:
            self._figures.store_trouble = None
            self._log.info("store takes readings again")
        return taken
