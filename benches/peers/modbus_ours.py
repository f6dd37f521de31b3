"""Our head-end in the Modbus bench. In the project's `.venv`."""

from __future__ import annotations

import sys

import trio
from benches.peers.ours import Asker

from ipss_headend import _core

REGISTERS = 10


class Devices(Asker):
    """Devices of one address, each with a connection of its own."""

    def __init__(self) -> None:
        points = [("holding", address, 1, "unsigned") for address in range(REGISTERS)]
        super().__init__(_core.ModbusPlan([_core.ModbusItem.read(1, points)]))
        self.profile = _core.ModbusProfile("tcp")

    def added(self, index: int) -> _core.Meter:
        return _core.Meter.modbus(1 + index, f"127.0.0.1:{self.given.port}", self.profile, 1)


if __name__ == "__main__":
    sys.exit(trio.run(Devices().run))
