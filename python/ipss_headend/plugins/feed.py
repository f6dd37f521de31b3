"""Plugins that read on: each is fed the log of readings, events and commands from a cursor of its own.

The cursor is the head-end's and durable. It moves when the plugin has said that it is done, in the transaction that
keeps what it emitted: a plugin that was down, or whose head-end was, goes on where it stopped, loses nothing, and has
each effect once. An entry that a plugin fails at is offered again, later and later; nothing is skipped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
from sqlalchemy import Connection

from ipss_headend.errors import PluginError, StoreFull
from ipss_headend.log import Logger, logger
from ipss_headend.plugins.context import Effect
from ipss_headend.plugins.manager import Keep, Manager
from ipss_headend.plugins.process import PluginProcess
from ipss_headend.plugins.specs import HOOKS
from ipss_headend.store import Store, log, plugins
from ipss_headend.store.log import Entry

Rows = Callable[[Entry], Awaitable[list[dict[str, Any]]]]

CONSUME = "consume"
ENTRIES = 20
"""Read from the store at a time."""
IDLE_S = 5.0
"""How long to wait for news before looking again."""
RETRY_S = (0.2, 30.0)


class Feed:
    """Feeds the plugins of one head-end that have the hook `consume`."""

    def __init__(self, manager: Manager, store: Store, rows: Rows, happened: Callable[[], trio.Event]) -> None:
        self._manager = manager
        self._store = store
        self._rows = rows
        self._happened = happened

    async def run(self) -> None:
        """Feed each on its own, so that a slow one holds nobody up, until cancelled."""
        async with trio.open_nursery() as nursery:
            for plugin in self._manager.plugins:
                nursery.start_soon(self._feed, plugin)

    async def _feed(self, plugin: PluginProcess) -> None:
        said: Logger = logger("plugin").bind(plugin=plugin.name)
        delay_s = RETRY_S[0]
        while True:
            happened = self._happened()
            if plugin.hooks is None or CONSUME not in plugin.hooks:
                await trio.sleep(1.0)  # it may start later
                continue
            try:
                found = await self._store.read(lambda connection: _next(connection, plugin.name))
                for entry in found:
                    await self._offer(plugin, entry)
                    delay_s = RETRY_S[0]
            except (PluginError, StoreFull) as error:
                said.warning("plugin did not deal with an entry; it is offered again", why=str(error), in_s=delay_s)
                await trio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_S[1])
                continue
            if not found:
                with trio.move_on_after(IDLE_S):
                    await happened.wait()

    async def _offer(self, plugin: PluginProcess, entry: Entry) -> None:
        answer = await plugin.ask(
            CONSUME,
            {"topic": entry.topic, "sequence": entry.sequence, "rows": await self._rows(entry)},
            limit_s=HOOKS[CONSUME].limit_s * self._manager.patience,
        )
        emitted = [(effect.key, effect.kind, effect.content) for effect in answer.effects]

        def done(connection: Connection) -> None:
            plugins.advance(connection, plugin.name, entry.sequence, emitted)

        await self._store.change(done)


def store_effects(store: Store) -> Keep:
    """What keeps the effects of the other hooks."""

    async def keep(plugin: str, effects: Sequence[Effect]) -> None:
        rows = [(effect.key, effect.kind, effect.content) for effect in effects]
        await store.change(lambda connection: plugins.keep(connection, plugin, rows))

    return keep


def _next(connection: Connection, plugin: str) -> list[Entry]:
    oldest = log.ends(connection)[0]
    return list(log.after(connection, max(oldest, plugins.cursor(connection, plugin) or 0), limit=ENTRIES))
