"""Incidents grow over a network, through log, store and plugin: what is dark is one, a lost line is told from it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
import trio
from tests.unit.networks import network

from ipss_headend.field.reactor import EventKind
from ipss_headend.metrics import Figures
from ipss_headend.network import EMPTY, Network
from ipss_headend.plugins import Context
from ipss_headend.plugins.areas import Areas
from ipss_headend.plugins.dispatch.classify import dispatch_classify
from ipss_headend.plugins.incidents import QUIET_US, Incidents
from ipss_headend.store import Database, Layout, LayoutColumn, Store, WriteBatch, incidents, journal, reading_row
from ipss_headend.store.incidents import Incident
from ipss_headend.store.registry import Meter, intern_layouts

SEEDS = range(int(os.environ.get("AREA_SEEDS", "4")))
T0 = 1_767_225_600_000_000
SECOND = 1_000_000
CONTEXT = Context("classify", "dispatch_classify", 1, 0, 1.0)
REGISTER = Layout(3, "1.0.1.8.0.255", 2, (LayoutColumn(3, "1.0.1.8.0.255", 2, 0, 0, "Wh", ""),))


class Manager:
    """Asks the shipped plugin, in this process."""

    plugins: tuple[object, ...] = ()

    def asked(self, hook: str) -> list[object]:
        return [SimpleNamespace(figures=SimpleNamespace(up=True))] if hook == "dispatch_classify" else []

    async def pipe(self, _: str, value: Any, **arguments: Any) -> Any:
        # As it travels to a process.
        given = msgspec.msgpack.decode(msgspec.msgpack.encode(arguments))
        return dispatch_classify(CONTEXT, value, **given)


class World:
    """A fleet in a network, and what happens to it."""

    def __init__(self, database: Database, known: Network, seed: int, hosts: dict[str, str] | None = None) -> None:
        self.database = database
        self.known = known
        self.source = random.Random(seed)
        names = sorted(name for there in known.meters.values() for name in there) or ["a", "b", "c"]
        self.ids = {name: number for number, name in enumerate(names, 1)}
        hosts = hosts or {}
        self.meters = {
            number: Meter(
                number,
                name,
                hosts.get(name, f"10.0.{number // 250}.{number % 250}"),
                4059,
                1,
                None,
                None,
                "",
                "all",
                {},
            )
            for name, number in self.ids.items()
        }
        self.now_us = T0
        self.incidents = Incidents(
            cast("Any", Manager()),
            Store(database),
            self.meters,
            Figures(),
            trio.Event,
            lambda: known,
            lambda: self.now_us,
        )
        with database.writing() as connection:
            [self.layout] = intern_layouts(connection, [REGISTER])

    def below(self, node: str) -> list[str]:
        return [name for name in self.ids if node in self.known.path_of(name)]

    def gone(self, meters: Iterable[str], at_s: float = 0, within_s: float = 90) -> list[tuple[float, str, str]]:
        return [(at_s + self.source.random() * within_s, "gone", meter) for meter in meters]

    def read(self, meters: Iterable[str], at_s: float = 0, within_s: float = 90) -> list[tuple[float, str, str]]:
        return [(at_s + self.source.random() * within_s, "read", meter) for meter in meters]

    def happens(self, *events: list[tuple[float, str, str]], part: int = 7) -> list[Incident]:
        """All of it comes in some parts; the incidents that are not parts of others."""
        told = sorted(one for some in events for one in some)
        for start in range(0, len(told), part):
            self.write(told[start : start + part])
            self.now_us = T0 + int(told[min(start + part, len(told)) - 1][0] * SECOND)
            trio.run(self.dealt_with)
        with self.database.reading() as connection:
            return [one for one in incidents.page(connection, 0, 1000, open_only=False) if one.part_of is None]

    def write(self, told: list[tuple[float, str, str]]) -> None:
        moments = [(T0 + int(at_s * SECOND), kind, self.ids[meter]) for at_s, kind, meter in told]
        kinds = {"gone": EventKind.BACKED_OFF, "back": EventKind.ASSOCIATED}
        events = [(number, at_us, int(kinds[kind]), 0, "") for at_us, kind, number in moments if kind in kinds]
        rows = [
            reading_row(number, self.layout, at_us, [self.source.randrange(10**6)], received_us=at_us)
            for at_us, kind, number in moments
            if kind == "read"
        ]
        with self.database.writing() as connection:
            journal.write(connection, WriteBatch(rows, events=events), T0, self.database.epoch or 0)

    async def dealt_with(self) -> None:
        while await self.incidents._read_on():
            pass
        await self.incidents._ask()


def classes(one: Incident) -> dict[str, list[str]]:
    return {said["name"]: said["evidence"] for said in one.classes or []}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "s.sqlite"


@contextmanager
def world(place: Path, seed: int, **shape: Any) -> Any:
    hosts = shape.pop("hosts", None)
    known = shape.pop("known", None) or network(
        seed=seed, **{"substations": 2, "feeders": 3, "transformers": 5, **shape}
    )
    with Database(place, own=True, reserve_bytes=0) as database:
        yield World(database, known, seed, hosts(known) if hosts else None)


@pytest.mark.parametrize("seed", SEEDS)
def test_transformer_without_power_is_one_outage(place: Path, seed: int) -> None:
    with world(place, seed) as there:
        silent = there.below("S0F1T2")[:9]
        [one] = there.happens(there.gone(silent), there.read(there.below("S0F1T3")), there.gone(["S1F0T0M1"], 30, 1))[
            :1
        ]

        assert (one.area_kind, one.area) == ("transformer", "S0F1T2"), "one of ten is always away"
        assert classes(one) == {"outage": ["S0F1T2"]}


@pytest.mark.parametrize("seed", SEEDS)
def test_feeder_without_power_is_one_outage_of_all_its_transformers(place: Path, seed: int) -> None:
    with world(place, seed) as there:
        [one] = there.happens(there.gone(there.below("S0F1")), there.read(there.below("S0F2")))

        root = there.known.common([f"S0F1T{t}" for t in range(5)])
        assert (one.area_kind, one.area) == (there.known.nodes[root].kind, root)
        assert classes(one) == {"outage": [root, *sorted({f"S0F1T{t}" for t in range(5)} - {root})]}
        with there.database.reading() as connection:
            parts = [each for each in incidents.page(connection, 0, 1000, open_only=False) if each.part_of]
        assert {each.part_of for each in parts} == {one.incident_id}
        assert all(each.closed for each in parts)


@pytest.mark.parametrize("seed", SEEDS)
def test_some_transformers_of_a_feeder_are_one_outage_below_what_feeds_them(place: Path, seed: int) -> None:
    with world(place, seed) as there:
        [one] = there.happens(
            there.gone(there.below("S0F1T0")), there.gone(there.below("S0F1T4")), there.read(there.below("S0F1T2"))
        )

        root = there.known.common(["S0F1T0", "S0F1T4"])
        assert "S0F1" in there.known.path(root)
        assert one.area == root
        assert set(classes(one)) == {"outage"}


@pytest.mark.parametrize("seed", SEEDS)
def test_substation_without_power_is_one_outage(place: Path, seed: int) -> None:
    with world(place, seed) as there:
        [one] = there.happens(there.gone(there.below("S1")), there.read(there.below("S0")), part=11)

        assert (one.area_kind, one.area) == ("busbar", "S1/B")
        assert classes(one)["outage"][0] == "S1/B"
        assert list(classes(one)) == ["outage"]


def concentrator(known: Network) -> dict[str, str]:
    """One for four meters of ten below each of five transformers on three feeders."""
    chosen = [f"S0F{t % 3}T{t}M{m}" for t in range(5) for m in range(4)]
    return dict.fromkeys(chosen, "10.9.9.9")


@pytest.mark.parametrize("seed", SEEDS)
def test_lost_concentrator_across_feeders_is_one_lost_line(place: Path, seed: int) -> None:
    with world(place, seed, hosts=concentrator) as there:
        behind = [name for name in there.ids if there.meters[there.ids[name]].host == "10.9.9.9"]
        others = [name for t in range(5) for name in there.below(f"S0F{t % 3}T{t}") if name not in behind]
        [one] = there.happens(there.gone(behind), there.read(others))

        assert (one.area_kind, one.area) == ("line", "10.9.9.9:4059")
        assert classes(one) == {"comms-loss": ["10.9.9.9:4059"]}


@pytest.mark.parametrize("seed", SEEDS)
def test_lost_concentrator_of_whole_transformers_on_several_feeders_is_hardly_an_outage(place: Path, seed: int) -> None:
    whole = ("S0F0T1", "S0F2T3")

    def hosts(known: Network) -> dict[str, str]:
        return {f"{area}M{m}": "10.9.9.9" for area in whole for m in range(10)}

    with world(place, seed, hosts=hosts) as there:
        [one] = there.happens(there.gone([name for area in whole for name in there.below(area)]))

        assert one.area == "10.9.9.9:4059"
        assert [(said["name"], said["probability"]) for said in one.classes or []] == [
            ("comms-loss", 0.8), ("outage", 0.2),
        ]  # fmt: skip


def test_transformer_whose_meters_are_all_behind_one_concentrator_is_either(place: Path) -> None:
    with world(place, 1, hosts=lambda _: {f"S0F1T2M{m}": "10.9.9.9" for m in range(10)}) as there:
        [one] = there.happens(there.gone(there.below("S0F1T2")))

        assert one.area == "S0F1T2"
        assert [(said["name"], said["probability"]) for said in one.classes or []] == [
            ("outage", 0.6), ("comms-loss", 0.4),
        ]  # fmt: skip


def test_single_meter_is_a_lost_line(place: Path) -> None:
    with world(place, 1) as there:
        [one] = there.happens(there.gone(["S0F1T2M3"]), there.read(there.below("S0F1T2")[:2]))

        assert (one.area, classes(one)) == ("S0F1T2", {"comms-loss": ["S0F1T2M3"]})


def test_neighbour_that_was_read_has_power(place: Path) -> None:
    """Nine of ten would be all; the tenth was read after the first of them was gone, and one that came back is none."""
    with world(place, 1) as there:
        meters = there.below("S0F1T2")
        [one] = there.happens(there.gone(meters[:9], 10, 1), there.read(meters[9:], 30), [(60.0, "back", meters[0])])

        assert classes(one) == {"comms-loss": meters[:9]}


def test_outage_that_is_over_was_one(place: Path) -> None:
    with world(place, 1) as there:
        meters = there.below("S0F1T2")
        back = [(200.0 + place, "back", meter) for place, meter in enumerate(meters)]
        [one] = there.happens(there.gone(meters), back, there.read(meters, 230))

        assert classes(one) == {"outage": ["S0F1T2"]}


def test_outages_that_are_not_together_are_two(place: Path) -> None:
    with world(place, 1) as there:
        found = there.happens(there.gone(there.below("S0F1T2")), there.gone(there.below("S0F1T3"), 400))

        assert [one.area for one in found] == ["S0F1T2", "S0F1T3"]


def test_outage_and_a_lost_line_elsewhere_are_two(place: Path) -> None:
    with world(place, 1) as there:
        found = there.happens(there.gone(there.below("S0F1T2")), there.gone(["S0F1T3M1"]))

        assert {one.area: list(classes(one)) for one in found} == {"S0F1T2": ["outage"], "S0F1T3": ["comms-loss"]}


def test_feeder_of_single_customers_is_dark_where_nearly_all_are_silent(place: Path) -> None:
    with world(place, 3, transformers=8, meters=1) as there:
        [one] = there.happens(there.gone(there.below("S0F1")))
        assert set(classes(one)) == {"outage"}
    with world(place.with_name("t.sqlite"), 3, transformers=8, meters=1) as there:
        found = there.happens(there.gone(there.below("S0F1")[:2]))
        assert [set(classes(one)) for one in found] == [{"comms-loss"}] * 2


def test_late_signals_join_what_has_grown(place: Path) -> None:
    with world(place, 1) as there:
        meters = there.below("S0F1")
        there.happens(there.gone(meters[:-3]))
        [one] = there.happens(there.gone(meters[-3:], 100, 10))

        assert {signal.meter for signal in one.signals} == set(meters)


def test_without_a_network_the_group_is_the_area(place: Path) -> None:
    with world(place, 1, known=EMPTY) as there:
        [one] = there.happens(there.gone(["a", "b", "c"]))

        assert (one.area_kind, one.area, classes(one)) == ("group", "all", {"outage": ["all"]})


def test_signals_carry_the_path(place: Path) -> None:
    with world(place, 1) as there:
        [one] = there.happens(there.gone(["S0F1T2M3"]))
        areas = Areas(there.known, there.meters.values())

        [signal] = areas.signals(one)
        told = areas.told(one)

        assert signal["path"] == there.known.path_of("S0F1T2M3")
        assert signal["path"][-4:] == ["S0F1", "S0/B", "S0/T", "S0"]
        assert told["parents"] == {"S0F1T2M3": "S0F1T2"}
        assert told["sizes"] == {"S0F1T2": 10}
        assert told["feeders"] == {"S0F1T2": "S0F1"}
        assert told["fed"]["S0F1"] == 5


def test_silences_are_forgotten_when_incidents_are_over(place: Path) -> None:
    with world(place, 1) as there:
        there.happens(there.gone(["S0F1T2M3"]), there.read(["S0F1T2M4"], 100))
        assert there.incidents._heard == {("S0F1T2", "S0F1T2M4")}

        there.now_us += 2 * QUIET_US
        trio.run(there.dealt_with)

        assert (there.incidents._heard, there.incidents._silent) == (set(), {})
