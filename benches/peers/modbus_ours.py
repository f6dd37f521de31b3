"""Our head-end in the Modbus bench: the reactor on one thread, trio taking its batches. In the project's `.venv`."""

from __future__ import annotations

import array
import sys
import time

import trio
from benches.peers import asking

from ipss_headend import _core

REGISTERS = 10


class Fleet:
    """The reactor, and when each device is asked."""

    def __init__(self) -> None:
        self.given = given = asking.options()
        self.meter = asking.Meter("ours", given)
        points = [("holding", address, 1, "unsigned") for address in range(REGISTERS)]
        self.plan = _core.ModbusPlan([_core.ModbusItem.read(1, points)])
        self.reactor = _core.Reactor(
            threads=1, connects_per_second=1_000_000, connect_burst=1024, connections=given.meters, queue=2
        )
        self.paced = given.mode == "paced"
        self.idle = array.array("I")
        self.asking = False
        self.out = 0
        self.quiet = trio.Event()

    def submit(self, devices: bytes, count: int) -> None:
        self.out += count
        self.reactor.submit(self.plan, devices, timeout_s=30.0, attempts=1)

    async def pump(self) -> None:
        """Take batches and ask again those that answered."""
        reactor, meter = self.reactor, self.meter
        while True:
            await trio.lowlevel.wait_readable(reactor.fileno())
            while (batch := reactor.take()) is not None:
                done = batch.done_meters()
                count = len(done) // 4
                ended = len(batch.ended_requests()) // 8
                self.out -= ended
                if ended and not self.out:
                    self.quiet.set()
                meter.lost += ended - count
                meter.exchanges += count
                if not count:
                    continue
                if self.asking and not self.paced:
                    self.submit(done, count)
                else:
                    self.idle.frombytes(done)

    async def pace(self) -> None:
        """Ask `rate` devices a second, those that have waited longest first."""
        began, issued = time.monotonic(), 0
        while self.asking:
            due = int((time.monotonic() - began) * self.given.rate)
            wanted, issued = due - issued, due
            now = self.idle[:wanted]
            del self.idle[:wanted]
            self.meter.late += wanted - len(now)
            if now:
                self.submit(now.tobytes(), len(now))
            await trio.sleep(self.given.tick_ms / 1000)

    async def run(self) -> int:
        given, meter, reactor = self.given, self.meter, self.reactor
        everybody = array.array("I", range(1, given.meters + 1)).tobytes()
        profile = _core.ModbusProfile("tcp")
        address = f"127.0.0.1:{given.port}"
        reactor.add([_core.Meter.modbus(1 + index, address, profile, 1) for index in range(given.meters)])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.pump)
            self.submit(everybody, given.meters)
            with trio.fail_after(60):
                await self.quiet.wait()
            meter.associated = meter.exchanges
            self.asking = True
            meter.begin()
            if self.paced:
                nursery.start_soon(self.pace)
            else:
                self.idle = array.array("I")
                self.submit(everybody, given.meters)
            await trio.sleep(given.warm_up)
            meter.count_from_now()
            await trio.sleep(given.seconds)
            meter.count_until_now()
            self.asking = False
            with trio.move_on_after(3):
                if self.out:
                    self.quiet = trio.Event()
                    await self.quiet.wait()
            meter.lost += self.out
            nursery.cancel_scope.cancel()
        reactor.stop()
        return meter.report()


if __name__ == "__main__":
    sys.exit(trio.run(Fleet().run))
