"""The store as trio sees it: one writer at a time, in a thread, and readers beside it."""

import math
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

import trio
from sqlalchemy import Connection

from ipss_headend.errors import StoreUnavailable, StoreUncertain
from ipss_headend.store import counters, journal
from ipss_headend.store.counters import CounterBlock
from ipss_headend.store.database import READERS, Database, now_us
from ipss_headend.store.journal import WriteBatch, Written

T = TypeVar("T")

AGAIN_S = 0.5
"""Between two tries while the database does not answer."""


class Store:
    """Every `await` that writes has been synced to the disk when it returns.

    A write that has begun is not cancelled: a cancelled caller waits for it, and then hears of its cancellation.
    The limiters are the queues: writers wait in order for the one thread, readers for one of a few.

    A database that does not answer is waited for: those who deliver readings are told at once (`write`), so that the
    meters are held back; all others wait as long as the store's patience is.
    """

    def __init__(self, database: Database, patience_s: float = math.inf) -> None:
        self.database = database
        self.patience_s = patience_s
        self._writers = trio.CapacityLimiter(1)
        self._readers = trio.CapacityLimiter(READERS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.database.close()

    def within(self, patience_s: float) -> "Store":
        """The same store for callers who would rather hear that the database does not answer."""
        other = Store(self.database, patience_s)
        other._writers, other._readers = self._writers, self._readers
        return other

    async def write(self, batch: WriteBatch) -> Written:
        """Make one batch durable: lines, events, ends, the meters' counters, the marks, what is quarantined.

        Raises:
            StoreFull, StoreUnavailable: nothing was written; the batch may be offered again.
            StoreFailed, StaleOwner: nothing may be acknowledged any more; end the process.
        """
        epoch = self.database.epoch or 0
        return await self._written(lambda connection: journal.write(connection, batch, now_us(), epoch))

    async def reserve(self, meter_ids: Sequence[int], size: int) -> list[CounterBlock]:
        """Invocation counters for each meter, in the order given, durably theirs before this returns (R7).

        Raises:
            StoreFailed, StaleOwner: none were granted; end the process.
        """
        return await self.change(lambda connection: counters.reserve(connection, meter_ids, size), spend_reserve=True)

    async def change(self, work: Callable[[Connection], T], *, spend_reserve: bool = False) -> T:
        """Run `work` in one durable transaction on the writer's thread.

        It runs again when the transaction broke with its connection, so it must change nothing but the store.

        Raises:
            StoreUnavailable: the database did not answer for longer than the store's patience. Nothing was written.
        """
        return await self._patiently(lambda: self._written(work, spend_reserve=spend_reserve))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one consistent view. It must not hand out iterators that still read.

        Raises:
            StoreUnavailable: the database did not answer for longer than the store's patience.
        """

        def view() -> T:
            with self.database.reading() as connection:
                return work(connection)

        return await self._patiently(lambda: trio.to_thread.run_sync(view, limiter=self._readers))

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        ends = trio.current_time() + self.patience_s
        while True:
            try:
                return await attempt()
            except StoreUnavailable:
                if trio.current_time() + AGAIN_S > ends:
                    raise
            await trio.sleep(AGAIN_S)

    async def _written(self, work: Callable[[Connection], T], *, spend_reserve: bool = False) -> T:
        found: list[T] = []

        def transaction() -> None:
            found.clear()
            with self.database.writing(spend_reserve=spend_reserve) as connection:
                found.append(work(connection))

        while True:
            try:
                await trio.to_thread.run_sync(transaction, limiter=self._writers)
            except StoreUncertain as uncertain:
                if not await self._took_place(uncertain):
                    continue
            return found[0]

    async def _took_place(self, uncertain: StoreUncertain) -> bool:
        # The database knows it: nothing is written twice, and nothing is acknowledged on a guess.
        committed: bool | None = None
        while committed is None:
            await trio.sleep(AGAIN_S)
            try:
                committed = await trio.to_thread.run_sync(self.database.settle, uncertain, limiter=self._writers)
            except StoreUnavailable:
                continue
        return committed
