"""Invocation counters for the sessions: blocks are made durable, then granted; many meters a transaction (R7)."""

from collections.abc import Iterable
from contextlib import suppress

import trio

from ipss_headend.errors import StoreFull
from ipss_headend.field.reactor import Reactor
from ipss_headend.log import Logger, logger
from ipss_headend.metrics import Figures
from ipss_headend.store import CounterBlock, Store, counters

AGAIN_S = 1.0
"""Between two tries while the disk is full."""

LARGEST_RAISE = 1_000_000
"""R10: how far ahead a meter's unproven word may take our counter, once for each time that it proves who it is."""


class Counters:
    """Grants blocks as sessions ask for them. What a crash leaves of a block is burnt."""

    def __init__(self, store: Store, reactor: Reactor, figures: Figures, block: int) -> None:
        self._store = store
        self._reactor = reactor
        self._figures = figures
        self._block = block
        self._log: Logger = logger("counters")
        self._low: set[int] = set()
        self._behind: dict[int, int] = {}
        self._unproven: set[int] = set()
        self._held: set[int] = set()
        self._due: set[int] = set()
        self._wanted = trio.Event()

    async def first_blocks(self, meters: Iterable[int]) -> dict[int, CounterBlock]:
        """A block for each of the meters, in one transaction: for the start, before any session exists."""
        blocks = await self._store.reserve(list(meters), self._block)
        self._figures.counter_blocks += len(blocks)
        self._complain(blocks)
        return {block.meter_id: block for block in blocks}

    def hold(self, meter: int) -> None:
        """Its keys are in doubt: whoever tries them brings their counters, and nothing else is granted."""
        self._held.add(meter)
        self._low.discard(meter)
        self._behind.pop(meter, None)

    def let_go(self, meter: int) -> None:
        """It has the keys that are in use."""
        self._held.discard(meter)

    def low(self, meter: int) -> None:
        """A session has used most of its block."""
        if meter not in self._held:
            self._low.add(meter)
            self._wanted.set()

    def behind(self, meter: int, expected: int) -> None:
        """A meter says that it expects a higher counter. It has not proved who it is: it is believed within limits."""
        if meter not in self._unproven and meter not in self._held:
            self._behind[meter] = expected
            self._wanted.set()

    def proven(self, meter: int) -> None:
        """The meter has proved who it is, so the counter that it asked for is kept."""
        self._unproven.discard(meter)

    async def run(self) -> None:
        """Reserve and grant, until cancelled. Meters that ask while a transaction runs share the next one."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            if self._behind:
                await self._raise()
            low, self._low = self._low, set()
            if low:
                try:
                    blocks = await self._store.reserve(sorted(low), self._block)
                except StoreFull as error:
                    # They are granted as soon as there is room: nobody is asked to start the process again (R5).
                    self._log.error("no counters can be granted", why=str(error), meters=len(low))
                    self._low |= low - self._held
                    self._wanted.set()
                    await trio.sleep(AGAIN_S)
                    continue
                self._figures.counter_blocks += len(blocks)
                self._complain(blocks)
                granted = [
                    (block.meter_id, block.next, block.end)
                    for block in blocks
                    if block.next < block.end and block.meter_id not in self._held
                ]
                with suppress(RuntimeError):  # a reactor that drains takes nothing; the block is burnt
                    self._reactor.grant(granted)

    async def _raise(self) -> None:
        behind, self._behind = self._behind, {}
        granted = await self._store.read(lambda connection: counters.granted_until(connection, list(behind)))
        raised = []
        for meter, expected in behind.items():
            ours = granted.get(meter, counters.FIRST)
            if ours < expected <= ours + LARGEST_RAISE:
                raised.append((meter, expected))
            elif expected > ours:
                self._log.warning("counter not believed", meter_id=meter, expected=expected, ours=ours)
        if raised:
            await self._store.change(lambda connection: counters.raise_to(connection, raised), spend_reserve=True)
        # One try for each proof: whoever forges the answer cannot walk our counter up to its end. A meter whose word
        # is below what we may use already gets that at once.
        for meter, expected in behind.items():
            if expected <= granted.get(meter, counters.FIRST) + LARGEST_RAISE:
                self._unproven.add(meter)
                self._low.add(meter)

    def _complain(self, blocks: Iterable[CounterBlock]) -> None:
        for block in blocks:
            if block.end > counters.ALARM:
                self._due.add(block.meter_id)
            else:
                self._due.discard(block.meter_id)
            self._figures.keys_due = len(self._due)
            if block.next >= block.end:
                self._log.error(
                    "invocation counters used up: the meter is left alone until its keys are changed",
                    meter_id=block.meter_id,
                    remedy="ipss-headend keys rotate --due",
                )
            elif block.end > counters.ALARM >= block.next:
                self._log.warning(
                    "invocation counters run out: change the meter's keys",
                    meter_id=block.meter_id,
                    remedy="ipss-headend keys rotate --due",
                )
