"""Pushes that no session could have: kept, shown, and opened once their sender is a meter of the registry.

A meter that pushes over a connection of its own while its session has another one is served in the same way: its push
is kept, and its session opens it at once; but not while two have proved to be the meter (R29).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from ipss_headend.field.reactor import EventKind, Native, Reactor
from ipss_headend.log import Logger, logger
from ipss_headend.metrics import Figures
from ipss_headend.store import Store, quarantine
from ipss_headend.store.quarantine import KeptPush, PushRow

if TYPE_CHECKING:
    from ipss_headend.field.fleet import FleetMeter
    from ipss_headend.store.journal import EventRow, Written

TITLE_OCTETS = 8
"""Of a system title. Nobody who says another can ever be adopted."""

OPENED_S = 10.0
"""How long sessions may take to open what was kept; they need no answer of anybody's for it."""


@dataclass(slots=True)
class Sorted:
    """A delivery's events, with what they say of pushes taken out."""

    events: list[EventRow] = field(default_factory=list)
    unclaimed: list[PushRow] = field(default_factory=list)
    heard: list[int] = field(default_factory=list)
    told: bool = False
    """A session said what became of a kept push."""


def adoption_columns(native: Native, latest: KeptPush, given: Mapping[str, str]) -> dict[str, str]:
    """The fleet file's columns for a sender that becomes a meter.

    They are what is given, its title, and the addresses that its latest push bears where none are given.
    """
    columns = {"address": "", **given, "system_title": latest.system_title.hex()}
    for _, source, destination, _ in native.unopened_pushes(latest.wpdu)[:1]:
        for column, number in (("server", source), ("client", destination)):
            if number:
                columns.setdefault(column, str(number))
    return columns


class Quarantine:
    """Between the reactor, which hands over what nobody could open, and the sessions that can later."""

    def __init__(
        self,
        *,
        store: Store,
        reactor: Reactor,
        native: Native,
        figures: Figures,
        held: Callable[[int], bool] = lambda _: False,
    ) -> None:
        """`held` says of which meters nothing is opened that came from elsewhere, as somebody has their keys."""
        self._held = held
        self._store = store
        self._reactor = reactor
        self._native = native
        self._figures = figures
        self._log: Logger = logger("quarantine")
        self._owners: dict[bytes, int] = {}
        self._later: dict[int, list[KeptPush]] = {}
        self._asked: dict[int, str | None] = {}
        self._told = trio.Event()

    def sort(self, events: Iterable[EventRow], received_us: int) -> Sorted:
        """Take out of a delivery's events what is about pushes that came over other connections."""
        found = Sorted()
        for event in events:
            meter, at_us, kind, number, detail = event
            if kind == EventKind.PUSH_UNCLAIMED:
                address, _, octets = detail.rpartition(" ")
                said = self._native.unopened_pushes(bytes.fromhex(octets))
                pushes = [push for push in said if len(push[0]) == TITLE_OCTETS]
                if not pushes:
                    event = (meter, at_us, int(EventKind.CLAIM_REFUSED), 0, f"{address}: {len(octets) // 2} octets")
                found.unclaimed += [(title, address, received_us, wpdu) for title, _, _, wpdu in pushes]
            elif kind == EventKind.PUSH_HEARD:
                # What does not open is kept for when the keys are right; what was opened before never will.
                if not detail or detail.startswith("replay"):
                    found.heard.append(number)
                found.told = True
                if number in self._asked:
                    self._asked[number] = detail
            found.events.append(event)
        return found

    def written(self, written: Written, *, told: bool) -> None:
        """What was sorted is durable: hand on what a session of ours can open."""
        if told:
            self._told.set()
            self._told = trio.Event()
        self._figures.pushes_quarantined += len(written.unclaimed)
        self._figures.quarantine_dropped += written.dropped
        known = [push for push in written.unclaimed if push.system_title in self._owners]
        if len(known) < len(written.unclaimed):
            self._log.warning("push of an unknown sender kept", pushes=len(written.unclaimed) - len(known))
        self._hear(known)

    async def enrolled(self, meters: Iterable[FleetMeter], *, waiting: Iterable[FleetMeter] = ()) -> None:
        """The engine knows these meters now, and will know those `waiting` later (`found`)."""
        later = {meter.system_title: meter.meter_id for meter in waiting if meter.system_title is not None}
        new = {meter.system_title: meter.meter_id for meter in meters if meter.system_title is not None}
        self._owners |= new | later
        kept = await self._store.read(quarantine.titles)
        titles = kept & (new.keys() | later.keys())
        if not titles:
            return
        pushes = await self._store.read(lambda connection: quarantine.pushes_of(connection, titles))
        for push in pushes:
            if push.system_title in later:
                self._later.setdefault(later[push.system_title], []).append(push)
        self._hear([push for push in pushes if push.system_title in new])

    def found(self, meter_id: int) -> None:
        """The engine knows this meter too now."""
        self._hear(self._later.pop(meter_id, []))

    def retired(self, meter: FleetMeter) -> None:
        """The engine has let go of a meter: it is an unknown sender again."""
        if meter.system_title is not None:
            self._owners.pop(meter.system_title, None)
        self._later.pop(meter.meter_id, None)

    @contextmanager
    def watching(self, push_ids: Sequence[int]) -> Iterator[Callable[[], Awaitable[tuple[int, list[str]]]]]:
        """Follow what becomes of these kept pushes.

        The result waits for it, and says how many were opened and stored, and why the others were not.
        """

        async def outcome() -> tuple[int, list[str]]:
            with trio.move_on_after(OPENED_S):
                while any(self._asked[number] is None for number in push_ids):
                    await self._told.wait()
            said = [self._asked[number] for number in push_ids]
            return said.count(""), ["not opened in time" if why is None else why for why in said if why != ""]

        self._asked.update(dict.fromkeys(push_ids))
        try:
            yield outcome
        finally:
            for number in push_ids:
                self._asked.pop(number, None)

    def _hear(self, pushes: Sequence[KeptPush]) -> None:
        words = [(self._owners[push.system_title], push.push_id, push.wpdu) for push in pushes]
        words = [word for word in words if not self._held(word[0])]
        if words:
            with suppress(RuntimeError):  # a reactor that stops; they are kept until the next start
                self._reactor.hear(words)
