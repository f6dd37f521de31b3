"""`weather.*`: who may say what of which area, and what is refused."""

from __future__ import annotations

import time
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest
from tests.unit.rpc.conftest import World
from tests.unit.rpc.test_topology import EAST, NODES, meters

from ipss_headend.plugins.judge import Judge
from ipss_headend.store import Database

HOUR_MS = 3_600_000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def with_judge(world: World) -> None:
    services = world.services
    known = cast("Any", {meter.meter_id: meter for meter in services.names.values()})
    services.judge = Judge(
        cast("Any", None), zone=ZoneInfo("UTC"), meters=known, network=services.topology, store=services.store
    )


async def test_weather_is_put_and_told_by_area_and_meter(world: World, database: Database) -> None:
    meters(world, database)
    with_judge(world)
    now = now_ms()
    seen = [{"at_ms": now - 1000, "temperature_c": "-7.5", "warning": "black ice"}]
    ahead = [{"at_ms": now + HOUR_MS, "wind_m_s": "12", "gust_m_s": "2.5e1"}]
    async with world.client() as client:
        await client.call("topology.put", nodes=NODES, key="1")
        await client.call("device.place", places=[{"device": "m1", "node": "T1"}], key="2")
        kept = await client.call("weather.put", node="F1", source="met", observations=seen, forecasts=ahead, key="3")
        again = await client.call("weather.put", node="F1", source="met", observations=seen, forecasts=ahead, key="3")
        node = await client.call("weather.get", node="F1")
        meter = await client.call("weather.get", point="m1")
        other = await client.call("weather.get", point="m2")
        await client.call("weather.put", source="met", observations=[{"at_ms": now, "snow_cm": "3"}], key="4")
        everywhere = await client.call("weather.get", point="m2")
        empty = await client.call("weather.get", group="west")

    assert kept == again == {"observations": 1, "forecasts": 1}
    assert node == meter
    assert (node["area_kind"], node["area"]) == ("node", "F1")
    assert node["observations"] == [
        {"at_ms": now - 1000, "values": {"temperature_c": "-7.5", "warning": "black ice"}, "source": "met"}
    ]
    assert node["forecasts"][0]["values"] == {"wind_m_s": "12", "gust_m_s": "25"}
    assert (other["area_kind"], other["observations"]) == (None, [])
    assert (everywhere["area_kind"], everywhere["observations"][0]["values"]) == ("everywhere", {"snow_cm": "3"})
    assert (empty["area_kind"], empty["observations"], empty["forecasts"]) == ("group", [], [])


async def test_who_has_a_scope_says_the_weather_of_its_groups(world: World, database: Database) -> None:
    meters(world, database)
    with_judge(world)
    seen = [{"at_ms": now_ms(), "temperature_c": "1"}]
    async with world.client() as client:
        await client.call("topology.put", nodes=NODES, key="1")
    async with world.client(EAST) as client:
        own = await client.call("weather.put", group="east", source="met", observations=seen, key="2")
        others = [
            await client.call("weather.put", source="met", observations=seen, key=f"3{area}", **area)
            for area in ({"group": "west"}, {"node": "F1"}, {})
        ]
        hidden = await client.call("weather.get", group="west")

    assert own["observations"] == 1
    assert [one.partition(":")[0] for one in others] == ["E_DENIED"] * 3
    assert hidden.startswith("E_UNKNOWN")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"observations": [{"at_ms": 0, "temperature_c": "1"}]}, "observations: 1: at_ms 0 is too long ago"),
        ({"observations": [{"temperature_c": "71"}]}, 'temperature_c: "71" is no number from -100 to 70'),
        ({"observations": [{"temperature_c": "warm"}]}, 'temperature_c: "warm" is no number'),
        ({"observations": [{"temperature_c": "NaN"}]}, 'temperature_c: "NaN" is no number'),
        ({"observations": [{}]}, "observations: 1: it says nothing"),
        ({"observations": [{"warning": "a\nb"}]}, "observations: 1: warning"),
        ({"forecasts": [{"snow_cm": "1"}] * 401}, "forecasts: 401; at most 400"),
        ({"node": "F9"}, 'E_UNKNOWN: node: "F9" is not in the network'),
        ({"node": "F9", "group": "a"}, "name a node or a group"),
        ({"source": ""}, "source: say who says so"),
    ],
)
async def test_mistakes_are_told_and_nothing_is_kept(
    world: World, database: Database, given: dict[str, Any], words: str
) -> None:
    now = now_ms()
    for name in ("observations", "forecasts"):
        if name in given:
            given = {**given, name: [{"at_ms": now, **one} for one in given[name]]}
    async with world.client() as client:
        said = await client.call("weather.put", **{"source": "met", "key": "1", **given})
        known = await client.call("weather.get")

    assert words in said
    assert (known["observations"], known["forecasts"]) == ([], [])
