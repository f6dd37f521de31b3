"""`anomaly.*`: incidents of a network, as far as a caller's groups go."""

from __future__ import annotations

from tests.unit.rpc.conftest import World
from tests.unit.rpc.test_topology import EAST, meters

from ipss_headend.store import Database, incidents
from ipss_headend.store.incidents import Area, Filed, Signal

FEEDER, T1, T2 = Area("feeder", "F1"), Area("transformer", "T1"), Area("transformer", "T2")


def happened(database: Database) -> None:
    """Two transformers that are parts of a feeder's incident, and one of a group of meters."""
    with database.writing() as connection:
        for meter, area in (("m1", T1), ("m2", T2)):
            signal = Signal(meter, "meter-gone", 1_000_000, "")
            incidents.take(connection, [Filed(signal, opens=True, areas=(area, FEEDER))], 1)
        incidents.unite(connection, FEEDER, [1, 2])
        incidents.take(
            connection, [Filed(Signal("m2", "bypass", 5, ""), opens=True, areas=(Area("group", "west"),))], 1
        )
        [one] = incidents.open_below(connection)
        evidence = ["F1", "T1", "m1", "m2"]
        incidents.classify(
            connection, one, [{"name": "outage", "probability": 0.9, "severity": 4, "evidence": evidence}]
        )


async def test_incidents_tell_their_area_and_what_they_are_part_of(world: World, database: Database) -> None:
    meters(world, database)
    happened(database)
    async with world.client() as client:
        told = (await client.call("anomaly.list"))["incidents"]
        page = await client.call("anomaly.list", limit=1)
        rest = await client.call("anomaly.list", limit=2, cursor=page["cursor"])
        whole = await client.call("anomaly.get", incident=1)

    assert [(one["area_kind"], one["area"], one["open"], one["part_of"], one["meters"]) for one in told] == [
        ("feeder", "F1", True, None, 2),
        ("transformer", "T2", False, 1, 1),
        ("group", "west", True, None, 1),
    ]
    assert [one["incident"] for one in (*page["incidents"], *rest["incidents"])] == [1, 2, 3]
    assert rest["cursor"] is None
    assert whole["incident"]["classes"][0]["evidence"] == ["F1", "T1", "m1", "m2"]


async def test_who_has_a_scope_sees_what_its_meters_say(world: World, database: Database) -> None:
    meters(world, database)
    happened(database)
    async with world.client(EAST) as client:
        told = (await client.call("anomaly.list"))["incidents"]
        whole = await client.call("anomaly.get", incident=1)
        hidden = [await client.call("anomaly.get", incident=number) for number in (2, 3)]

    assert [(one["incident"], one["meters"], one["signals"]) for one in told] == [(1, 1, 1)]
    assert [one["point"] for one in whole["signals"]] == ["m1"]
    assert whole["incident"]["classes"][0]["evidence"] == ["F1", "T1", "m1"]
    assert [one.partition(":")[0] for one in hidden] == ["E_UNKNOWN", "E_UNKNOWN"]
