"""The network as a head-end that runs knows it: what the store has, whoever changed it."""

from __future__ import annotations

import trio

from ipss_headend.errors import StoreError, StoreFailed
from ipss_headend.log import Logger, logger
from ipss_headend.network import EMPTY, Network
from ipss_headend.store import Store, network

LOOK_S = 5.0
"""How often it is looked for a change by a command beside the head-end."""


class Topology:
    """Holds the newest network that was read."""

    def __init__(self, store: Store) -> None:
        self.now: Network = EMPTY
        self._store = store
        self._log: Logger = logger("topology")

    def __call__(self) -> Network:
        """The network at this moment."""
        return self.now

    async def refresh(self) -> Network:
        """Read it, if it is another one than is known here."""
        if await self._store.read(network.version) != self.now.version:
            self.now = await self._store.read(network.load)
            self._log.info("network", version=self.now.version, nodes=len(self.now.nodes))
        return self.now

    async def run(self) -> None:
        """Look for changes until cancelled."""
        while True:
            await trio.sleep(LOOK_S)
            try:
                await self.refresh()
            except StoreFailed:
                raise
            except StoreError as error:
                self._log.warning("the network is as it was", why=str(error))
