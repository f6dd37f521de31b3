"""A fleet of fake meters with a load profile and registers, behind everything between plan and store."""

from array import array
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

import trio
from tests.unit.field.fakes import Asked, FakeBatch, FakeNative, FakeReactor, capture_objects, scaler_unit

from ipss_headend.config import PlanConfig, ReactorConfig
from ipss_headend.field.campaign import Campaign
from ipss_headend.field.clock import ClockCheck
from ipss_headend.field.context import Field
from ipss_headend.field.counters import Counters
from ipss_headend.field.delivery import Delivery, Newest
from ipss_headend.field.fleet import FleetMeter
from ipss_headend.field.layouts import LayoutBook
from ipss_headend.field.pump import pump
from ipss_headend.field.pushes import Pushes
from ipss_headend.field.quarantine import Quarantine
from ipss_headend.field.reactor import Outcome
from ipss_headend.field.requests import Requests
from ipss_headend.field.watch import Watch
from ipss_headend.metrics import Figures
from ipss_headend.schedule import SECOND_US
from ipss_headend.store import Store

NOW = 1_767_268_800 * SECOND_US
"""2026-01-01T12:00Z."""

QUARTER_US = 900 * SECOND_US
ENERGY = "1.0.1.8.0.255"
PROFILE = "1.0.99.1.0.255"

COLUMNS = capture_objects((8, "0.0.1.0.0.255", 2, 0), (1, "0.0.96.10.1.255", 2, 0), (3, ENERGY, 2, 0))
OTHER_COLUMNS = capture_objects((8, "0.0.1.0.0.255", 2, 0), (3, ENERGY, 2, 0))


@dataclass
class FakeFleet:
    """Answers as meters do, at once. What it says can be changed between turns."""

    now_us: int = NOW
    silent: set[int] = field(default_factory=set)
    hanging: set[int] = field(default_factory=set)
    """Neither answer nor end comes."""
    columns: dict[int, bytes] = field(default_factory=dict)
    scalers: dict[int, bytes] = field(default_factory=dict)
    refusing_scalers: dict[int, int] = field(default_factory=dict)
    """The meters that refuse to say a scaler, and with which result."""
    captured_until_us: dict[int, int] = field(default_factory=dict)
    """A meter captured nothing later than this."""
    clock_ahead_s: dict[int, int] = field(default_factory=dict)

    def answer(self, asked: Asked) -> FakeBatch:
        batch = FakeBatch()
        for request, meter in enumerate(asked.meters, asked.first):
            if meter in self.hanging:
                continue
            if meter in self.silent:
                batch.ended.append((request, meter, Outcome.TIMED_OUT, 0, 300_000_000, ""))
                continue
            for item, question in enumerate(asked.plan):
                self._answer(batch, request, meter, item, question, asked.options)
            batch.ended.append((request, meter, Outcome.DONE, len(asked.plan), 40_000, ""))
        return batch

    def _answer(
        self, batch: FakeBatch, request: int, meter: int, item: int, question: Any, options: dict[str, int]
    ) -> None:
        if question[0] == "buffer":
            _, layout, _, columns, _ = question
            last_us = min(options["to_us"], self.captured_until_us.get(meter, self.now_us))
            time_us = -(-options["from_us"] // QUARTER_US) * QUARTER_US
            while time_us <= last_us:
                batch.readings.append((meter, layout, time_us, [0, time_us // QUARTER_US][: columns - 1]))
                time_us += QUARTER_US
            return
        _, layout, attributes, _ = question
        class_id, _, attribute = attributes[0]
        if class_id == 7:
            batch.said.append((meter, request, item, None, -32768, 255, [self.columns.get(meter, b"cols"), b"900"]))
        elif class_id == 8:
            clock_us = self.now_us + self.clock_ahead_s.get(meter, 0) * SECOND_US
            batch.said.append((meter, request, item, clock_us, -60, 0, []))
        elif attribute == 3 and meter in self.refusing_scalers:
            batch.refused.append((meter, request, item, self.refusing_scalers[meter]))
        elif attribute == 3:
            batch.said.append((meter, request, item, None, -32768, 255, [self.scalers.get(meter, b"scaler")]))
        else:
            batch.readings.append((meter, layout, -(2**63), [meter * 1000]))


class World:
    """Plans over a fake fleet and a real store."""

    def __init__(self, store: Store, reactor: FakeReactor, meters: Mapping[int, FleetMeter]) -> None:
        self.store = store
        self.reactor = reactor
        self.fleet = FakeFleet()
        self.figures = Figures()
        reactor.answering = self.fleet.answer
        native = FakeNative()
        native.values = {
            b"cols": COLUMNS,
            b"other": OTHER_COLUMNS,
            b"900": ["double-long-unsigned", 900],
            b"scaler": scaler_unit(-3, 30),
        }
        self.native = native
        self.requests = Requests(reactor, native)
        newest = Newest()
        names = {number: meter.name for number, meter in meters.items()}
        self.watch = Watch(names, Counters(store, reactor, self.figures, 100), self.figures)
        self.delivery = Delivery(
            store=store,
            requests=self.requests,
            reactor=reactor,
            pushes=Pushes(store=store, native=native, models={}, figures=self.figures),
            quarantine=Quarantine(store=store, reactor=reactor, native=native, figures=self.figures),
            watch=self.watch,
            newest=newest,
            figures=self.figures,
        )
        self.layouts = LayoutBook(
            store=store, requests=self.requests, native=native, meters=meters, figures=self.figures, timeout_s=60
        )
        self.field = Field(
            store=store,
            requests=self.requests,
            layouts=self.layouts,
            newest=newest,
            clocks=ClockCheck(names, self.figures, lambda: self.fleet.now_us),
            figures=self.figures,
            meters=meters,
            zone=ZoneInfo("UTC"),
            limits=ReactorConfig(),
            wall_us=lambda: self.fleet.now_us,
        )

    def campaign(self, plan: PlanConfig) -> Campaign:
        return Campaign(plan, self.field)

    @asynccontextmanager
    async def pumping(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, self.reactor, self.delivery)
            with trio.fail_after(10):
                yield
            nursery.cancel_scope.cancel()

    def turn(self, campaign: Campaign, turn_us: int) -> None:
        """One turn of a plan, to its end."""
        self.fleet.now_us = max(self.fleet.now_us, turn_us)

        async def main() -> None:
            async with self.pumping():
                await campaign.turn(turn_us)

        trio.run(main)

    def backfill(self, campaign: Campaign) -> None:
        async def main() -> None:
            async with self.pumping():
                await campaign.backfill()

        trio.run(main)

    def asked(self, kind: str) -> list[Asked]:
        """What was asked since the last call, whose first question is of this kind: buffer, attributes."""
        found = [asked for asked in self.reactor.asked if asked.plan[0][0] == kind]
        self.reactor.asked.clear()
        return found

    def count(self, table: str) -> int:
        with self.store.database.reading() as connection:
            return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


def numbers(*meters: int) -> "array[int]":
    return array("I", meters)
