"""Our head-end in the benches of loads: the reactor on one thread, trio taking its batches. In the project's `.venv`.

`fleet_ours.py` asks meters with it, `modbus_ours.py` devices.
"""

from __future__ import annotations

import array
import time
from typing import Any

import trio
from benches.peers import asking

from ipss_headend import _core

DISCONNECTED = next(number for number, name in _core.EVENT_KINDS.items() if name == "disconnected")


class Asker:
    """The reactor, and when each meter is asked."""

    def __init__(self, plan: Any) -> None:
        """`plan` is what is asked."""
        self.given = given = asking.options()
        self.cycle = given.mode == "cycle"
        self.paced = given.mode == "paced"
        self.meter = asking.Meter("ours", given)
        self.plan = plan
        self.reactor = _core.Reactor(
            threads=1,
            # A few meters that are all asked again at once would wait for a batch that they cannot fill.
            batch_rows=max(1, given.meters // 1) if given.meters < 1000 else 1000,
            connects_per_second=1_000_000,
            connect_burst=1024,
            connections=given.meters,
            queue=2,
        )
        self.idle = array.array("I")
        self.asking = False
        self.out = 0
        # Set when no request is out.
        self.quiet = trio.Event()

    def added(self, index: int) -> _core.Meter:
        """Meter `index` of the fleet, from 0; its number is one more."""
        raise NotImplementedError

    def submit(self, meters: bytes, count: int) -> None:
        self.out += count
        self.reactor.submit(self.plan, meters, timeout_s=30.0, attempts=1)

    async def pump(self) -> None:
        """Take batches and ask again those that answered."""
        reactor, meter, sampled = self.reactor, self.meter, 0
        while True:
            await trio.lowlevel.wait_readable(reactor.fileno())
            while (batch := reactor.take()) is not None:
                if self.cycle:
                    self.again(batch)
                done = batch.done_meters()
                count = len(done) // 4
                ended = len(batch.ended_requests()) // 8
                if not ended:
                    continue
                self.out -= ended
                if not self.out:
                    self.quiet.set()
                meter.lost += ended - count
                sampled += 1
                if sampled & 63 == 0:
                    meter.latencies.extend(end[4] / 1e6 for end in batch.ends())
                if self.cycle:
                    continue
                meter.exchanges += count
                if self.asking and not self.paced:
                    self.submit(done, count)
                else:
                    self.idle.frombytes(done)

    def again(self, batch: Any) -> None:
        """A cycle is over when its connection is released and closed; only then the meter is asked again."""
        gone = batch.event_meters(DISCONNECTED)
        self.meter.exchanges += len(gone) // 4
        if gone and self.asking:
            self.submit(gone, len(gone) // 4)

    async def pace(self) -> None:
        """Ask `rate` meters a second, those that have waited longest first."""
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
        """Connect, ask for the measured time, and print the line; the exit status."""
        given, meter, reactor = self.given, self.meter, self.reactor
        everybody = array.array("I", range(1, given.meters + 1))
        reactor.add([])
        before = asking.resident_kib()
        reactor.add([self.added(index) for index in range(given.meters)])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.pump)
            if not self.cycle:
                # One answer from each: all are associated.
                self.submit(everybody.tobytes(), given.meters)
                with trio.move_on_after(60):
                    await self.quiet.wait()
                meter.associated = meter.exchanges
                await trio.sleep(0.2)
                meter.kib_a_connection = (asking.resident_kib() - before) / given.meters
            self.asking = True
            meter.begin()
            if self.paced:
                nursery.start_soon(self.pace)
            elif given.mode == "saturated":
                self.idle = array.array("I")
                self.submit(everybody.tobytes(), given.meters)
            elif self.cycle:
                self.submit(everybody[: given.concurrency].tobytes(), given.concurrency)
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
