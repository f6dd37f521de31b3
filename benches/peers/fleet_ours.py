"""Our head-end in the fleet bench. In the project's `.venv`."""

from __future__ import annotations

import sys

import trio
from benches.peers import asking
from benches.peers.ours import Asker

from ipss_headend import _core

REGISTER = (3, bytes([1, 0, 1, 8, 0, 255]), 2)
# Counters enough for a run; in production blocks come from the store.
COUNTERS = 1 << 24


class Fleet(Asker):
    """Meters with HLS-GMAC, each at an address of its own."""

    def __init__(self) -> None:
        super().__init__(_core.Plan([_core.Item.attributes(1, [REGISTER])]))
        self.profile = _core.Profile(
            client=1,
            server=1,
            authentication="hls-gmac",
            protection="auth+enc",
            client_title=asking.CLIENT_TITLE,
            max_pdu=8192,
        )

    def added(self, index: int) -> _core.Meter:
        number = asking.FIRST + index
        return _core.Meter(
            1 + index,
            f"{asking.address(number)}:{self.given.port}",
            self.profile,
            system_title=asking.title(number),
            encryption_key=asking.key(asking.KEYS[0], number),
            authentication_key=asking.key(asking.KEYS[1], number),
            counters=(asking.counter(), asking.counter() + COUNTERS),
            hold_open=not self.cycle,
            idle_s=0.0 if self.cycle else 600.0,
        )


if __name__ == "__main__":
    sys.exit(trio.run(Fleet().run))
