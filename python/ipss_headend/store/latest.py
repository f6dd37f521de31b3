"""The newest line of each meter and layout that somebody asked for, kept in memory and true.

What is asked for once is kept and follows every write; what nobody asks for costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from sqlalchemy import Connection

from ipss_headend.errors import StoreDamaged, StoreError
from ipss_headend.store.readings import Line, latest, line_of
from ipss_headend.store.records import ReadingRow

if TYPE_CHECKING:
    from ipss_headend.store.store import Store

Key = tuple[int, int]
"""Meter and layout."""

KEPT = 500_000
"""Lines in memory, some 300 octets each; more begin anew."""
TOGETHER = 5000
"""Lines that are loaded in one question for all who wait."""


@dataclass(slots=True)
class _Wish:
    """What somebody waits for."""

    keys: Sequence[Key]
    failed: StoreError | None = None
    """Why it could not be loaded together with others'."""


class Latest:
    """A cache over `readings.latest` of one process that does all the writing."""

    def __init__(self) -> None:
        self.kept: dict[Key, Line | None] = {}
        """For whoever reads: None where there is no line. What is not in it is to be filled in first."""
        self._wishes: dict[int, _Wish] = {}
        self._noted: dict[Key, Line | None] = {}
        """What is being loaded, and what was noted of it meanwhile."""
        self._loading = trio.Lock()

    async def fill(self, store: Store, wanted: Sequence[Key]) -> None:
        """Load what is not kept yet, in one question with what others wait for.

        Raises:
            StoreError: it cannot be read now, or a line of these is not what was written.
        """
        wish = _Wish(wanted)
        self._wishes[id(wish)] = wish
        try:
            async with self._loading:
                if wish.failed is not None:
                    raise wish.failed.with_traceback(None)
                if not all(key in self.kept for key in wanted):
                    await self._fill_together(store, wish)
        finally:
            self._wishes.pop(id(wish), None)

    async def _fill_together(self, store: Store, own: _Wish) -> None:
        keys = dict.fromkeys(own.keys)
        together = []
        for wish in self._wishes.values():
            if len(keys) >= TOGETHER:
                break
            keys.update(dict.fromkeys(wish.keys))
            together.append(wish)
        try:
            await self._fill(store, list(keys))
        except StoreDamaged:  # of whose meter it may be: one bad line is no other meter's
            await self._fill(store, own.keys)
        except StoreError as error:
            for wish in together:
                wish.failed = error
            raise

    async def _fill(self, store: Store, keys: Sequence[Key]) -> None:
        self._noted = dict.fromkeys(keys)
        try:
            self.keep(await store.read(lambda connection: self.load(connection, keys)))
        finally:
            self._noted = {}

    def load(self, connection: Connection, wanted: Sequence[Key]) -> dict[Key, Line | None]:
        """Read lines from the store, for `keep`. Runs in any thread.

        Raises:
            StoreDamaged: a line is not what was written.
        """
        return {key: next(latest(connection, [key[0]], [key[1]]), None) for key in wanted}

    def keep(self, loaded: dict[Key, Line | None]) -> None:
        """Take what was loaded, unless something newer was noted since."""
        if len(self.kept) + len(loaded) > KEPT:
            self.kept.clear()
        for key, line in loaded.items():
            known = self.kept.get(key) or self._noted.get(key)
            if known is None or (line is not None and line.capture_time_us >= known.capture_time_us):
                self.kept[key] = line
            else:
                self.kept[key] = known

    def note(self, rows: Iterable[ReadingRow]) -> None:
        """These lines are durable."""
        for lines in (self.kept, self._noted):
            if not lines:
                continue
            for row in rows:
                key = (row[0], row[1])
                if key in lines:
                    known = lines[key]
                    if known is None or row[2] >= known.capture_time_us:
                        lines[key] = line_of(row)
