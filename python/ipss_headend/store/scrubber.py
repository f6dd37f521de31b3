"""The head-end's watch over what it has stored (R3): turns of `scrub.py` at a bounded pace, beside everything else.

A piece is read by one of the store's readers, so no writer waits for it, and then there is a pause as long as the pace
asks for. How far it got is written once a minute, with what was found, and at the end: a restart goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio

from ipss_headend.config import DatabaseConfig
from ipss_headend.errors import StoreDamaged, StoreError, StoreFailed, StoreUnavailable
from ipss_headend.log import Logger, logger
from ipss_headend.metrics import Figures
from ipss_headend.store import scrub
from ipss_headend.store.database import now_us
from ipss_headend.store.scrub import Noted, Piece, Place, State
from ipss_headend.store.store import Store

FIRST_S = 60.0
"""After a start there is other work."""

KEEP_S = 60.0
"""How often it is written where a turn stands: what a restart may repeat."""

AGAIN_S = 10.0
"""After a view that could not be had, such as one of a month that was just retired."""

TOLD = 10
"""Damaged records of one piece that are logged one by one."""


class Scrubber:
    """Looks through the store again and again."""

    def __init__(self, store: Store, figures: Figures, rules: DatabaseConfig, written: Callable[[], None]) -> None:
        """`rules` say how quickly and how often; `written` is called after an event was stored."""
        self._store = store
        self._figures = figures
        self._octets_per_s = rules.scrub_kib_per_second << 10
        self._every_s = rules.scrub_every_s
        self._written = written
        self._log: Logger = logger("store")
        self._kept_at = 0.0

    async def run(self) -> None:
        """Until cancelled; a pace of nothing ends it at once."""
        state = await self._store.read(scrub.state)
        known = len(await self._store.read(scrub.damage)) + state.beyond
        self._figures.scrub_ended_us = state.ended_us
        self._figures.damaged_records = known
        if known:
            self._log.error("what is stored is damaged", records=known, remedy="ipss-headend store status")
        if not self._octets_per_s:
            return
        await trio.sleep(min(FIRST_S, self._every_s))
        self._kept_at = trio.current_time()
        while True:
            if state.place is None:
                due_s = (state.began_us - now_us()) / 1e6 + self._every_s
                await trio.sleep(min(max(due_s, 0), self._every_s))  # also where the wall clock was set back
                state = State(now_us(), 0, 0, Place(), state.ended_us, state.ended_records)
            state = await self._piece(state)

    async def _piece(self, state: State) -> State:
        assert state.place is not None
        try:
            piece = await self._store.read(partial(scrub.look, place=state.place, interrupted=_cancelled))
        except (StoreDamaged, StoreFailed) as error:
            piece = scrub.unreadable(state.place, error)
        except StoreUnavailable:
            raise
        except StoreError as error:
            self._log.warning("the store could not be looked at", why=str(error))
            await trio.sleep(AGAIN_S)
            return state
        after = state._replace(records=state.records + piece.records, place=piece.next)
        if piece.next is None:
            after = after._replace(ended_us=now_us(), ended_records=after.records)
        if piece.found or piece.next is None or trio.current_time() >= self._kept_at + KEEP_S:
            noted = await self._noted(piece, after)
            after = after._replace(beyond=noted.beyond)
        self._figures.scrubbed_records += piece.records
        self._figures.scrub_ended_us = after.ended_us
        await trio.sleep(piece.octets / self._octets_per_s)
        return after

    async def _noted(self, piece: Piece, state: State) -> Noted:
        epoch = self._store.database.epoch or 0
        noted = await self._store.change(
            lambda connection: scrub.note(connection, piece, state, now_us(), epoch), spend_reserve=True
        )
        self._kept_at = trio.current_time()
        self._figures.damaged_records = noted.damaged
        for one in noted.new[:TOLD]:
            self._log.error("what is stored is damaged", found=one.detail, records=one.records)
        if noted.new[TOLD:]:
            self._log.error("what is stored is damaged", records=sum(one.records for one in noted.new[TOLD:]))
        if noted.events:
            self._figures.events[scrub.STORE_DAMAGED] += noted.events
            self._written()
        for what in noted.gone:
            self._log.info("what was damaged is no more", what=what)
        return noted


def _cancelled() -> bool:
    # In the reader's thread: a look at all of a large store must not hold up the end. What it returns is not used:
    # whoever awaits the thread hears of the cancellation.
    try:
        trio.from_thread.check_cancelled()
    except trio.Cancelled:
        return True
    return False
