"""What streamed is what a batch gives, bit for bit, and what anybody gets who adds up by hand."""

from __future__ import annotations

import json
import os
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgpack
import pytest

from ipss_headend.plugins import Context, Flag
from ipss_headend.plugins.billing import sales
from ipss_headend.plugins.billing.tariffs import Tariffs
from ipss_headend.plugins.settled import MARGIN_US, day_of, days_touched, settle
from ipss_headend.store import Layout, LayoutColumn
from ipss_headend.store.plugins import EstimateRow
from ipss_headend.store.readings import Line
from ipss_headend.store.records import Quality

ROUNDS = int(os.environ.get("SALES_ROUNDS", "6"))
ZONE = ZoneInfo("Europe/Berlin")
QUARTER_US = 900_000_000
HOUR_US = 4 * QUARTER_US
EDGE = 100_000_000
"""Where the registers begin again."""
REGISTER = Layout(7, "1.0.99.1.0.255", 2, (LayoutColumn(3, "1.0.1.8.0.255", 2, 0, -1, "Wh", "import"),))
INTERVALS = Layout(7, "1.0.99.2.0.255", 2, (LayoutColumn(3, "1.0.1.29.0.255", 2, 0, 0, "Wh", "import"),))
LAYOUTS = {1: REGISTER, 2: INTERVALS}
SETTINGS: dict[str, Any] = {
    "currency": "EUR",
    "default_tariff": "standard",
    "accounts": {"meter-2": "night"},
    "tariffs": [
        {"name": "standard", "price": "0.2875"},
        {"name": "standard", "price": "0.300000000001", "from": "2026-10-25"},
        {"name": "night", "price": "0.31", "periods": [
            {"hours": "22-6", "days": "mon-fri", "price": "0.19"}, {"hours": "2", "price": "0.07"},
        ]},
    ],
}  # fmt: skip
GROUPINGS: tuple[list[str], ...] = ([], ["hour"], ["day", "tariff"], ["tariff", "feeder", "hour"], ["feeder", "class"])


@dataclass
class World:
    """A store, as far as sales depend on it."""

    lines: dict[tuple[int, int], list[Line]] = field(default_factory=lambda: defaultdict(list))
    flags: dict[int, dict[tuple[int, int, int], int]] = field(default_factory=lambda: defaultdict(dict))
    given: dict[int, dict[tuple[int, int, int], EstimateRow]] = field(default_factory=lambda: defaultdict(dict))
    labels: dict[int, dict[str, str]] = field(default_factory=dict)

    def day(self, meter: int, date_: date) -> dict[str, Any]:
        """As the plugin is given it, over the wire."""
        day = day_of(date_, ZONE)
        first, last = day.start_us - MARGIN_US, day.end_us + MARGIN_US
        lines = {
            layout: [line for line in self.lines[meter, layout] if first <= line.capture_time_us < last]
            for layout in LAYOUTS
        }
        inside = {key: row for key, row in self.given[meter].items() if first <= key[2] < last}
        told = {
            "account": f"meter-{meter}", "day": date_.isoformat(), "start_us": day.start_us, "end_us": day.end_us,
            "hours": [list(hour) for hour in day.hours],
            "series": settle(meter, day, LAYOUTS, lines, self.flags[meter], inside),
        }  # fmt: skip
        found: dict[str, Any] = msgpack.unpackb(msgpack.packb(told))
        return found


class Plugin:
    """The plugin as the head-end has it: what it keeps is kept when the head-end says so."""

    def __init__(self, now_us: int) -> None:
        self.kept: dict[str, Any] = {}
        self.now_us = now_us
        self.restart()

    def context(self, hook: str) -> Context:
        return Context("sales", hook, 1, self.now_us, 1.0, settings=SETTINGS)

    def restart(self) -> None:
        sales._sales.clear()
        keys = sorted(self.kept)
        for start in range(0, len(keys), 7):
            sales.restore(self.context("restore"), {key: self.kept[key] for key in keys[start : start + 7]})
        self.process = list(sales._sales)

    def give(self, world: World, units: set[tuple[int, date]], run: str = "", *, durable: bool = True) -> list[str]:
        sales._sales[:] = self.process
        context = self.context("billing_intervals")
        accounts = {f"meter-{meter}": world.labels[meter] for meter, _ in units}
        days = [world.day(meter, day) for meter, day in sorted(units)]
        found = sales.billing_intervals(context, accounts, days, run)
        self.process = list(sales._sales)
        if durable:
            for effect in context.effects:
                if effect.content is None:
                    self.kept.pop(effect.key, None)
                else:
                    self.kept[effect.key] = msgpack.unpackb(msgpack.packb(effect.content))
        return list(found.get("differs", []))

    def told(self, by: list[str]) -> str:
        sales._sales[:] = self.process
        asked = {"from_ms": 0, "to_ms": 2**45, "by": by}
        return json.dumps(sales.rpc_call(self.context("rpc_call"), "query", asked), sort_keys=True)


def midnight(day: date) -> int:
    return day_of(day, ZONE).start_us


def line(meter: int, layout: int, at_us: int, value: int, received_us: int) -> Line:
    return Line(meter, layout, at_us, None, None, received_us, Quality.GOOD, [value])


def received(one: Line) -> int:
    return one.received_us


def by_hand(world: World, days: list[date]) -> dict[str, tuple[Decimal, Decimal]]:
    """Energy and money of each account: one quarter hour after the other, from the newest line of each moment."""
    tariffs = Tariffs.of(SETTINGS)
    found = {}
    for meter in world.labels:
        energy = money = Decimal(0)
        newest = {
            layout: {one.capture_time_us: one for one in sorted(world.lines[meter, layout], key=received)}
            for layout in LAYOUTS
        }
        for day in days:
            for start in range(midnight(day), midnight(day + timedelta(days=1)), HOUR_US):
                clock = datetime.fromtimestamp(start // 1_000_000, UTC).astimezone(ZONE)
                ends = range(start + QUARTER_US, start + HOUR_US + 1, QUARTER_US)
                ranked = []
                for layout in (2, 1):
                    quarters = [_quarter(world, meter, layout, newest[layout], end) for end in ends]
                    chosen = [one for one, _ in quarters if one is not None]
                    spikes = sum(
                        was_read and world.flags[meter].get((layout, 0, end)) == Flag.SPIKE
                        for end, (_, was_read) in zip(ends, quarters, strict=True)
                    )
                    # Who says most of the hour; then who is not suspect; then who counts intervals.
                    ranked.append((-len(chosen), spikes, -layout, chosen))
                *_, chosen = min(ranked)
                taken = sum(chosen, Decimal(0)) / 1000
                price = tariffs.price(tariffs.name_of(f"meter-{meter}", world.labels[meter]), day, clock.hour)
                assert price is not None
                energy += taken
                money += taken * Decimal(price).scaleb(-12)
        found[f"meter-{meter}"] = energy, money
    return found


def _quarter(world: World, meter: int, layout: int, newest: dict[int, Line], end: int) -> tuple[Decimal | None, bool]:
    """What a quarter hour comes to, and whether that was read."""
    given = world.given[meter].get((layout, 0, end))
    scale = Decimal("0.1") if layout == 1 else Decimal(1)
    if given is not None and given.method.startswith("edited"):
        return Decimal(given.value or 0) * scale, False
    if layout == 1 and end in newest and end - QUARTER_US in newest:
        before, after = newest[end - QUARTER_US].cells[0], newest[end].cells[0]
        assert isinstance(before, int)
        assert isinstance(after, int)
        return Decimal(after - before if after >= before else after - before + EDGE) * scale, True
    if layout == 2 and end in newest:
        value = newest[end].cells[0]
        assert isinstance(value, int)
        return Decimal(value), True
    return (None if given is None else Decimal(given.value or 0) * scale), False


def happenings(world: World, rng: random.Random, days: list[date]) -> Iterator[tuple[int, int, int]]:
    """What happens to the store, in any order: meter, and the capture times that it is about."""
    made: list[tuple[str, int, int, int, int]] = []
    for meter in world.labels:
        register = EDGE - rng.randrange(20_000)
        end = midnight(days[-1] + timedelta(days=1))
        for at_us in range(midnight(days[0]), end + 1, QUARTER_US):
            taken = rng.randrange(0, 900)
            register = (register + taken) % EDGE
            if rng.random() < 0.97:
                made.append(("line", meter, 1, at_us, register))
            if meter == 3 and rng.random() < 0.8:
                made.append(("line", meter, 2, at_us, taken // 10))
    rng.shuffle(made)
    late = made[: len(made) // 50]
    for kind in [*made, *late]:  # some come twice
        _, meter, layout, at_us, value = kind
        received = at_us + rng.randrange(10**9)
        world.lines[meter, layout].append(line(meter, layout, at_us, value, received))
        yield meter, at_us, at_us
        if layout == 2 and rng.random() < 0.05:  # a correction: the same moment, received later
            world.lines[meter, layout].append(line(meter, layout, at_us, value + 7, received + 1))
            yield meter, at_us, at_us
        if rng.random() < 0.05:
            at = at_us + rng.randrange(-8, 8) * QUARTER_US
            edited = rng.random() < 0.3
            row = EstimateRow(meter, layout, 0, at, 0, rng.randrange(900), "edited by ada" if edited else "like-days")
            world.given[meter].setdefault((layout, 0, at), row)
            world.flags[meter][layout, 0, at] = Flag.EDITED if edited else Flag.GAP | Flag.ESTIMATED
            yield meter, at, at
        if rng.random() < 0.02:
            world.flags[meter][layout, 0, at_us] = Flag.SPIKE
            yield meter, at_us, at_us


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_streaming_is_the_batch_bit_for_bit(seed: int) -> None:
    """Any order, twice, corrected, estimated, edited, late, over the days of 23 and 25 hours, through restarts."""
    rng = random.Random(seed)
    first = [date(2026, 3, 28), date(2026, 10, 24), date(2026, 7, 1)][seed % 3]
    days = [first + timedelta(days=place) for place in range(3)]
    world = World(labels={meter: {"feeder": "north", "class": f"c{meter % 2}"} for meter in (1, 2, 3)})
    now_us = midnight(days[-1]) + 20 * 24 * HOUR_US
    streaming = Plugin(now_us)
    waiting: set[tuple[int, date]] = set()

    for meter, from_us, to_us in happenings(world, rng, days):
        waiting |= {(meter, day) for day in days_touched(from_us, to_us, ZONE)}
        chance = rng.random()
        if chance < 0.02:
            streaming.give(world, waiting)
            waiting.clear()
        elif chance < 0.023:  # it dealt with it, and crashed before that was durable: it comes again
            streaming.give(world, waiting, durable=False)
            streaming.restart()
        elif chance < 0.026:
            streaming.restart()
        elif chance < 0.03:
            world.labels[meter] = {"feeder": rng.choice(["north", "south"]), "class": f"c{rng.randrange(3)}"}
            waiting |= {(meter, day) for day in days}
    streaming.give(world, waiting)

    around = [first - timedelta(days=1), *days, first + timedelta(days=3)]
    everything = {(meter, day) for meter in world.labels for day in around}
    batch = Plugin(now_us)
    batch.give(world, everything)
    for by in GROUPINGS:
        assert streaming.told(by) == batch.told(by), by
    assert streaming.kept == batch.kept
    assert streaming.give(world, everything, "compare") == []
    assert streaming.give(world, set(), "compare") == []
    streaming.restart()
    assert streaming.told(["hour", "feeder"]) == batch.told(["hour", "feeder"])

    by_day = [one for one in json.loads(batch.told(["day"]))["rows"] if one["day"] in {str(day) for day in days}]
    hand = by_hand(world, days).values()
    assert sum(Decimal(one["kwh"]) for one in by_day) == sum(energy for energy, _ in hand)
    assert sum(Decimal(one["amount"]) for one in by_day) == sum(money for _, money in hand)
