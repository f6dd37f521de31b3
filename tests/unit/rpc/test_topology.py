"""`topology.*` and `device.place`: what feeds what, and who may see and say it."""

from __future__ import annotations

from typing import Any, cast

from tests.unit.rpc.conftest import OPERATOR, World

from ipss_headend.field.fleet import FleetMeter
from ipss_headend.field.fleet_file import Protocol
from ipss_headend.security.keystore import MeterKeys
from ipss_headend.security.permission import Principal, Role
from ipss_headend.store import Database
from ipss_headend.store.registry import Meter, add_meters

NODES = [
    {"name": "T1", "kind": "transformer", "parent": "F1"},
    {"name": "T2", "kind": "transformer", "parent": "F1"},
    {"name": "F1", "kind": "feeder"},
]
EAST = Principal("e", frozenset({Role.ENGINEER}), frozenset({"east"}))


def meters(world: World, database: Database) -> None:
    """Two meters of two groups."""
    with database.writing() as connection:
        add_meters(
            connection,
            [Meter(n, f"m{n}", f"10.0.0.{n}", 4059, 1, None, None, "", g, {}) for n, g in ((1, "east"), (2, "west"))],
        )
    world.services.names.update(
        {
            f"m{n}": FleetMeter(n, f"m{n}", f"10.0.0.{n}", 4059, 1, None, None, "", g, Protocol(), MeterKeys())
            for n, g in ((1, "east"), (2, "west"))
        }
    )


async def test_network_is_put_told_and_traced(world: World, database: Database) -> None:
    meters(world, database)
    async with world.client() as client:
        put = await client.call(
            "topology.put", nodes=[*NODES, {"name": "T3", "kind": "transformer", "parent": "X"}], key="1"
        )
        places = [{"device": "m1", "node": "T1", "phases": "A"}, {"device": "m2", "node": "T2"}]
        placed = await client.call("device.place", places=[*places, {"device": "m2", "node": "T1"}], key="2")
        listed = await client.call("topology.get", kind="transformer", limit=1)
        after = await client.call("topology.get", kind="transformer", cursor=listed["cursor"])
        traced = await client.call("topology.trace", node="F1")
        meter = await client.call("topology.trace", point="m2")
        part = await client.call("topology.trace", node="F1", limit=2)
        rest = await client.call("topology.trace", node="F1", limit=2, cursor=part["cursor"])
        device = await client.call("device.get", device="m1")
        below = await client.call("device.list", below="F1")
        none = await client.call("device.list", below="T2")

    assert (put["version"], put["taken"]) == (1, 3)
    assert put["mistakes"] == [
        'nodes: 4: parent: "X" is not in the network; leave it empty for a node that nothing feeds'
    ]
    assert placed == {
        "placed": 2,
        "mistakes": ['places: 3: "m2" is number 2 too; a meter has one place'],
        "version": 2,
    }
    assert listed["nodes"] == [{"name": "T1", "kind": "transformer", "parent": "F1", "meters": 1}]
    assert ([one["name"] for one in after["nodes"]], after["cursor"]) == (["T2"], None)
    assert [one["name"] for one in traced["down"]] == ["F1", "T1", "T2"]
    assert traced["meters"] == [
        {"point": "m1", "node": "T1", "phases": "A"},
        {"point": "m2", "node": "T2", "phases": ""},
    ]
    assert [one["name"] for one in meter["up"]] == ["T2", "F1"]
    assert [one["name"] for one in (*part["down"], *rest["down"])] == ["F1", "T1", "T2"]
    assert rest["cursor"] is None
    assert (device["node"], device["phases"]) == ("T1", "A")
    assert [[one["device"] for one in page["devices"]] for page in (below, none)] == [["m1", "m2"], ["m2"]]


async def test_who_has_a_scope_sees_its_meters_alone_and_changes_no_network(world: World, database: Database) -> None:
    meters(world, database)
    async with world.client() as client:
        await client.call("topology.put", nodes=NODES, key="1")
        places = [{"device": "m1", "node": "T1"}, {"device": "m2", "node": "T2"}]
        await client.call("device.place", places=places, key="2")
    async with world.client(EAST) as client:
        refused = await client.call("topology.put", nodes=NODES, key="3")
        other = await client.call("device.place", places=[{"device": "m2", "node": "T1"}], key="4")
        traced = await client.call("topology.trace", node="F1")
        hidden = await client.call("topology.trace", point="m2")
        own = await client.call("device.place", places=[{"device": "m1", "node": "T2"}], key="5")

    assert refused.startswith("E_DENIED")
    assert other.startswith("E_UNKNOWN")
    assert hidden.startswith("E_UNKNOWN")
    assert own["placed"] == 1
    assert [one["point"] for one in traced["meters"]] == ["m1"]
    assert {one["name"]: one["meters"] for one in traced["down"]} == {"F1": 1, "T1": 1, "T2": 0}


async def test_whole_network_is_replaced_or_kept(world: World, database: Database) -> None:
    meters(world, database)
    async with world.client(cast("Any", OPERATOR)) as client:
        await client.call("topology.put", nodes=NODES, key="1")
        await client.call("device.place", places=[{"device": "m1", "node": "T1"}], key="2")
        kept = await client.call("topology.put", nodes=[{"name": "F1", "kind": "feeder"}], replace=True, key="3")
        done = await client.call("topology.put", nodes=[{"name": "T1", "kind": "transformer"}], replace=True, key="4")
        wrong = [await client.call("topology.trace"), await client.call("topology.trace", node="F1")]
        kind = await client.call("topology.get", kind="house")

    assert (kept["taken"], kept["mistakes"]) == (
        0,
        ['"T1" would go, but 1 meters stand there; `meters place` says where'],
    )
    assert (done["taken"], done["removed"], done["mistakes"]) == (1, 2, [])
    assert [one.partition(":")[0] for one in (*wrong, kind)] == ["E_PARAMS", "E_UNKNOWN", "E_PARAMS"]
