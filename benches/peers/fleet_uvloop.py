"""The strongest Python rival in the fleet bench: uvloop's Protocol callbacks over the bare C codec, no time-outs.

Runs in `.venv-uvloop`; the codec is `benches/c/bare_codec.c`, found on PYTHONPATH.
"""

from __future__ import annotations

import asyncio
import collections
import sys
import time

import bare_codec
import uvloop
from benches.peers import asking


class Session(asyncio.Protocol):
    """One meter's connection. Answers are taken whole: a WPDU of this bench never spans two reads on loopback."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        self.fleet = fleet
        self.meter = bare_codec.Meter(number, asking.counter())
        self.state = 0
        # One meter in 64 is timed, so that the clock costs the others nothing.
        self.timed = number & 63 == 0
        self.asked = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self.meter.associate())  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if self.state == 3:
            self.meter.take(data)
            fleet = self.fleet
            fleet.meter.exchanges += 1
            if self.timed:
                fleet.meter.latencies.append(time.monotonic() - self.asked)
            fleet.answered(self)
        elif self.state == 0:
            self.transport.write(self.meter.proof(data))  # type: ignore[attr-defined]
            self.state = 1
        elif self.state == 1:
            self.meter.verify(data)
            self.state = 2
            self.fleet.associated(self)
        else:
            self.transport.close()
            self.fleet.released()

    def ask(self) -> None:
        self.state = 3
        if self.timed:
            self.asked = time.monotonic()
        self.transport.write(self.meter.get())  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None or self.state != 4:
            self.fleet.meter.lost += self.fleet.running


class Fleet:
    """All sessions, and when each is asked."""

    def __init__(self) -> None:
        self.given = asking.options()
        self.meter = asking.Meter("uvloop", self.given)
        self.paced = self.given.mode == "paced"
        self.cycle = self.given.mode == "cycle"
        self.idle: collections.deque[Session] = collections.deque()
        self.running = True
        self.asking = False
        self.next = 0

    def associated(self, session: Session) -> None:
        self.meter.associated += 1
        if self.cycle:
            session.ask()
        else:
            self.idle.append(session)

    def answered(self, session: Session) -> None:
        if self.cycle:
            session.state = 4
            session.transport.write(bare_codec.release())  # type: ignore[attr-defined]
        elif self.asking and not self.paced:
            session.ask()
        else:
            self.idle.append(session)

    def released(self) -> None:
        if self.asking:
            self.connect()

    def connect(self) -> None:
        number = asking.FIRST + self.next
        self.next = (self.next + 1) % self.given.meters
        loop = asyncio.get_running_loop()
        task = loop.create_task(
            loop.create_connection(lambda: Session(self, number), asking.address(number), self.given.port)
        )
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def run(self) -> int:
        given, meter = self.given, self.meter
        self.tasks: set[asyncio.Task[object]] = set()
        before = asking.resident_kib()
        if not self.cycle:
            opened = 0
            deadline = time.monotonic() + 60
            while meter.associated < given.meters and time.monotonic() < deadline:
                while opened < given.meters and opened - meter.associated < 256:
                    self.connect()
                    opened += 1
                await asyncio.sleep(0.005)
            meter.kib_a_connection = (asking.resident_kib() - before) / given.meters
        self.asking = True
        meter.begin()
        loop = asyncio.get_running_loop()
        loop.call_later(given.warm_up, meter.count_from_now)
        if self.cycle:
            for _ in range(given.concurrency):
                self.connect()
        elif self.paced:
            self.issued, self.began = 0, time.monotonic()
            self.tick()
        elif given.mode == "saturated":
            while self.idle:
                self.idle.popleft().ask()
        await asyncio.sleep(given.warm_up + given.seconds)
        meter.count_until_now()
        self.asking = False
        if not self.cycle:
            await asyncio.sleep(0.5)
            meter.lost += given.meters - len(self.idle)
        self.running = False
        return meter.report()

    def tick(self) -> None:
        due = int((time.monotonic() - self.began) * self.given.rate)
        while self.issued < due:
            self.issued += 1
            if self.idle:
                self.idle.popleft().ask()
            else:
                self.meter.late += 1
        if self.asking:
            asyncio.get_running_loop().call_later(self.given.tick_ms / 1000, self.tick)


if __name__ == "__main__":
    sys.exit(uvloop.run(Fleet().run()))
