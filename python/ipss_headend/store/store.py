"""The store as trio sees it: one writer at a time, in a thread, and readers beside it."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

import trio
from sqlalchemy import Connection

from ipss_headend.store import counters, journal
from ipss_headend.store.counters import CounterBlock
from ipss_headend.store.database import READERS, Database, now_us
from ipss_headend.store.journal import WriteBatch, Written

T = TypeVar("T")


class Store:
    """Every `await` that writes has been synced to the disk when it returns.

    A write that has begun is not cancelled: a cancelled caller waits for it, and then hears of its cancellation.
    The limiters are the queues: writers wait in order for the one thread, readers for one of a few.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._writers = trio.CapacityLimiter(1)
        self._readers = trio.CapacityLimiter(READERS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.database.close()

    async def write(self, batch: WriteBatch) -> Written:
        """Make one batch durable: lines, events, ends, the meters' counters, the marks, what is quarantined.

        Raises:
            StoreFull: nothing was written; the batch may be offered again.
            StoreFailed, StaleOwner: nothing may be acknowledged any more; end the process.
        """
        epoch = self.database.epoch or 0

        def transaction() -> Written:
            with self.database.writing() as connection:
                return journal.write(connection, batch, now_us(), epoch)

        return await trio.to_thread.run_sync(transaction, limiter=self._writers)

    async def reserve(self, meter_ids: Sequence[int], size: int) -> list[CounterBlock]:
        """Invocation counters for each meter, in the order given, durably theirs before this returns (R7).

        Raises:
            StoreFailed, StaleOwner: none were granted; end the process.
        """
        return await self.change(lambda connection: counters.reserve(connection, meter_ids, size), spend_reserve=True)

    async def change(self, work: Callable[[Connection], T], *, spend_reserve: bool = False) -> T:
        """Run `work` in one durable transaction on the writer's thread."""

        def transaction() -> T:
            with self.database.writing(spend_reserve=spend_reserve) as connection:
                return work(connection)

        return await trio.to_thread.run_sync(transaction, limiter=self._writers)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one consistent view. It must not hand out iterators that still read."""

        def view() -> T:
            with self.database.reading() as connection:
                return work(connection)

        return await trio.to_thread.run_sync(view, limiter=self._readers)
