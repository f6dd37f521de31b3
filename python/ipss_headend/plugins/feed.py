"""Plugins that read on: each is fed the log of readings, events and commands from cursors of its own.

A cursor is the head-end's and durable. It moves when the plugin has said that it is done, in the transaction that
keeps what it emitted: a plugin that was down, or whose head-end was, goes on where it stopped, loses nothing, and has
each effect once. An entry that a plugin fails at is offered again, later and later. `consume` skips nothing;
`control_after_command` goes on without the plugin when it has failed at an entry `OFFERS` times while it ran.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio
from sqlalchemy import Connection

from ipss_headend.errors import PluginError, StoreDamaged, StoreFull
from ipss_headend.field.control.machine import State
from ipss_headend.field.control.orders import Order
from ipss_headend.log import Logger, logger
from ipss_headend.plugins.context import Effect
from ipss_headend.plugins.manager import Keep, Kept, Manager
from ipss_headend.plugins.process import PluginProcess
from ipss_headend.plugins.specs import HOOKS
from ipss_headend.store import Store, commands, log, plugins
from ipss_headend.store.log import Entry

if TYPE_CHECKING:
    from ipss_headend.plugins.accounts import Accounts
    from ipss_headend.plugins.vee import Validation

Rows = Callable[[Entry], Awaitable[list[dict[str, Any]]]]

CONSUME, AFTER, VALIDATE, INTERVALS = (
    "consume",
    "control_after_command",
    "billing_validate_batch",
    "billing_intervals",
)
BATCHES = frozenset({VALIDATE, INTERVALS})
"""These are asked about several entries at once."""
ENTRIES = 20
"""Read from the store at a time."""
IDLE_S = 5.0
"""How long to wait for news before looking again."""
RETRY_S = (0.2, 30.0)
OFFERS = 5
ENDS = frozenset({State.CONFIRMED.value, State.FAILED.value, State.UNKNOWN.value})
"""The states of a command that `control_after_command` is told of."""


@dataclass(frozen=True, slots=True)
class Fed:
    """How a hook is fed."""

    hook: str
    topics: Sequence[str]
    from_oldest: bool
    """A plugin that is new begins with the oldest entry that is kept; otherwise with what comes now."""
    skips: bool
    """It goes on behind what it failed at `OFFERS` times."""

    def cursor(self, plugin: str) -> str:
        """The name of a plugin's cursor."""
        return plugin if self.hook == CONSUME else f"{plugin}/{self.hook}"


FED = (
    Fed(CONSUME, log.TOPICS, from_oldest=True, skips=False),
    Fed(AFTER, (log.COMMANDS,), from_oldest=False, skips=True),
    Fed(VALIDATE, (log.READINGS, log.EVENTS), from_oldest=True, skips=True),
    Fed(INTERVALS, (log.READINGS, log.INTERVALS), from_oldest=True, skips=False),
)


class Feed:
    """Feeds the plugins of one head-end."""

    def __init__(
        self,
        manager: Manager,
        store: Store,
        rows: Rows,
        happened: Callable[[], trio.Event],
        validation: Validation | None = None,
        accounts: Accounts | None = None,
    ) -> None:
        self._manager = manager
        self._validation = validation
        self._accounts = accounts
        self._store = store
        self._rows = rows
        self._happened = happened
        self._running: set[tuple[int, str]] = set()

    async def run(self) -> None:
        """Feed each on its own, so that a slow one holds nobody up, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                changed = self._manager.changed
                for plugin in self._manager.plugins:
                    for fed in FED:
                        if self._fits(plugin, fed) and (id(plugin), fed.hook) not in self._running:
                            self._running.add((id(plugin), fed.hook))
                            nursery.start_soon(self._feed, plugin, fed)
                await changed.wait()

    def _fits(self, plugin: PluginProcess, fed: Fed) -> bool:
        if (fed.hook == VALIDATE and self._validation is None) or (fed.hook == INTERVALS and self._accounts is None):
            return False
        return plugin in self._manager.plugins and plugin.hooks is not None and fed.hook in plugin.hooks

    async def _feed(self, plugin: PluginProcess, fed: Fed) -> None:
        try:
            await self._feed_while(plugin, fed)
        finally:
            self._running.discard((id(plugin), fed.hook))
            plugin.figures.behind.pop(fed.hook, None)

    async def _feed_while(self, plugin: PluginProcess, fed: Fed) -> None:
        said: Logger = logger("plugin").bind(plugin=plugin.name, hook=fed.hook)
        delay_s, offers = RETRY_S[0], 0
        name = fed.cursor(plugin.name)
        if not fed.from_oldest:
            await self._begin(name)
        while self._fits(plugin, fed):
            happened, changed = self._happened(), self._manager.changed
            found: list[Entry] = []
            if plugin.figures.up and not plugin.restored:
                await changed.wait()
                continue
            try:
                if fed.hook == INTERVALS and self._accounts is not None:
                    await self._accounts.tell(plugin)
                found, behind = await self._store.read(lambda connection: _next(connection, name, fed.topics))
                plugin.figures.behind[fed.hook] = behind
                if fed.hook in BATCHES and found:
                    await self._batch(plugin, fed, found)
                    delay_s, offers = RETRY_S[0], 0
                    continue
                for entry in found:
                    await self._offer(plugin, fed, entry)
                    delay_s, offers = RETRY_S[0], 0
            except (PluginError, StoreFull) as error:
                offers += isinstance(error, PluginError) and plugin.figures.up
                if fed.skips and offers >= OFFERS:
                    # A batch is passed over whole; of the others, the one that it failed at is the first that is left.
                    await self._pass_over(plugin, fed, found[-1].sequence if fed.hook in BATCHES and found else None)
                    said.error("plugin failed at an entry; it is passed over", why=str(error), offers=offers)
                    offers = 0
                    continue
                said.warning("plugin did not deal with an entry; it is offered again", why=str(error), in_s=delay_s)
                with trio.move_on_after(delay_s):
                    await changed.wait()
                delay_s = min(delay_s * 2, RETRY_S[1])
                continue
            except StoreDamaged as error:
                said.error("an entry of the log is damaged; it is passed over", why=str(error))
                await self._pass_over(plugin, fed)
                continue
            if not found:
                with trio.move_on_after(IDLE_S):
                    await happened.wait()

    async def _begin(self, name: str) -> None:
        def begin(connection: Connection) -> None:
            if plugins.cursor(connection, name) is None:
                plugins.advance(connection, name, log.ends(connection)[1])

        await self._store.change(begin)

    async def _pass_over(self, plugin: PluginProcess, fed: Fed, to: int | None = None) -> None:
        """Go on behind the entry `to`; None: the next one, which cannot be read."""
        plugin.figures.passed_over += 1
        name = fed.cursor(plugin.name)

        def skip(connection: Connection) -> None:
            number = to or log.first_after(connection, _place(connection, name), fed.topics)
            if number is not None:
                plugins.advance(connection, name, number)

        await self._store.change(skip)

    async def _batch(self, plugin: PluginProcess, fed: Fed, found: Sequence[Entry]) -> None:
        room = self._validation if fed.hook == VALIDATE else self._accounts
        assert room is not None
        keep = await room.deal(plugin, found)

        def done(connection: Connection) -> None:
            keep(connection)
            plugins.advance(connection, fed.cursor(plugin.name), found[-1].sequence)

        await self._store.change(done)

    async def _offer(self, plugin: PluginProcess, fed: Fed, entry: Entry) -> None:
        effects: list[Effect] = []
        for arguments in await self._arguments(fed, entry):
            limit_s = HOOKS[fed.hook].limit_s * self._manager.patience
            effects += (await plugin.ask(fed.hook, arguments, limit_s=limit_s)).effects
        emitted = [(effect.key, effect.kind, effect.content) for effect in effects]

        def done(connection: Connection) -> None:
            plugins.keep(connection, plugin.name, emitted)
            plugins.advance(connection, fed.cursor(plugin.name), entry.sequence)

        await self._store.change(done)

    async def _arguments(self, fed: Fed, entry: Entry) -> list[dict[str, Any]]:
        """What the hook is asked for an entry: once, or once for each command that came to its end."""
        rows = await self._rows(entry)
        if fed.hook == CONSUME:
            return [consumed(entry, rows)]
        return [outcome_of(row, order) for row, order in await ended(self._store, entry, rows)]


def consumed(entry: Entry, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What `consume` is asked for an entry."""
    return {"topic": entry.topic, "sequence": entry.sequence, "rows": rows}


async def ended(store: Store, entry: Entry, rows: list[dict[str, Any]]) -> list[tuple[Mapping[str, Any], Order | None]]:
    """The commands that came to their end in an entry, as told, with their orders."""
    found = [(row, bytes(told[3])) for row, told in zip(rows, entry.rows, strict=True) if row["state"] in ENDS]
    known = await store.read(lambda connection: {number: commands.order_of(connection, number) for _, number in found})
    return [(row, None if (one := known[number]) is None else Order.decode(one.octets)) for row, number in found]


def outcome_of(row: Mapping[str, Any], order: Order | None) -> dict[str, Any]:
    """What `control_after_command` is asked for a command's end."""
    command = {
        "id": row["command"],
        "order": row["order"],
        "point": row["point"],
        "kind": "" if order is None else order.kind,
        "requester": "" if order is None else order.requester,
        "reason": "" if order is None else order.reason,
    }
    confirmed = row["state"] == State.CONFIRMED
    readback = {
        "expected": "" if order is None else order.expected,
        "as_expected": True if confirmed else None if row["state"] == State.UNKNOWN else False,
        "detail": row["detail"],
        "at_ms": row["at_ms"],
    }
    return {"command": command, "outcome": "verified" if confirmed else row["state"], "readback": readback}


def store_effects(store: Store) -> Keep:
    """What keeps the effects of the other hooks."""

    async def keep(plugin: str, effects: Sequence[Effect]) -> None:
        rows = [(effect.key, effect.kind, effect.content) for effect in effects]
        await store.change(lambda connection: plugins.keep(connection, plugin, rows))

    return keep


def store_kept(store: Store) -> Kept:
    """What gives plugins back what they keep."""

    async def kept(plugin: str, after: str) -> dict[str, Any]:
        return await store.read(lambda connection: plugins.kept(connection, plugin, after))

    return kept


def _place(connection: Connection, name: str) -> int:
    return max(log.ends(connection)[0], plugins.cursor(connection, name) or 0)


def _next(connection: Connection, name: str, topics: Sequence[str]) -> tuple[list[Entry], int]:
    """The next entries, and how many numbers there are behind the cursor."""
    place = _place(connection, name)
    found = list(log.after(connection, place, topics, limit=ENTRIES))
    return found, log.newest(connection) - place if found else 0
