"""A network in a head-end that runs: incidents go by it, and changes beside the head-end are noticed."""

from __future__ import annotations

import io
import time
from pathlib import Path

import trio
from tests.system.fleet import fleet, head_end, opened
from tests.system.test_control import name
from tests.system.test_rpc import address
from tests.system.test_serve import serving

from ipss_headend import config
from ipss_headend.client import AsyncClient
from ipss_headend.field.fleet import place_meters
from ipss_headend.field.network_file import import_network
from ipss_headend.field.reactor import EventKind
from ipss_headend.server import HeadEnd
from ipss_headend.store import WriteBatch, journal

NODES = "name,kind,parent\nF1,feeder,\nT1,transformer,F1\nT2,transformer,F1\n"


def test_outage_is_found_in_the_network_and_changes_are_noticed(tmp_path: Path) -> None:
    first_us = time.time_ns() // 1000 - 60_000_000
    gone = [(meter, first_us + meter, int(EventKind.BACKED_OFF), 60, "") for meter in (1, 2, 3)]

    def beside(meter: int, node: str) -> None:
        """As `meters place` does, in a process of its own."""
        with opened(config.load(path)) as database, database.writing() as connection:
            assert (
                place_meters(connection, [(1, {"name": name(meter), "node": node, "phases": "A"})], "").mistakes == ()
            )

    async def use(started: HeadEnd) -> None:
        async with AsyncClient(address(started)) as client:
            while True:
                [*found] = (await client.call("anomaly.list"))["incidents"]
                if found and found[0]["classes"] is not None and found[0]["meters"] == 3:
                    break
                await trio.sleep(0.05)
            told.extend(found)
            assert (await client.call("device.get", device=name(4)))["node"] == "T2"
            await trio.to_thread.run_sync(beside, 4, "T1")
            while (await client.call("device.get", device=name(4)))["node"] != "T1":  # noqa: ASYNC110 - asked over RPC
                await trio.sleep(0.05)
            columns = {"name": "new", "address": "127.95.9.200:4059", "auth": "none", "node": "T2", "phases": "BN"}
            added = await client.call("device.add", columns=columns)
            assert (added["node"], added["phases"]) == ("T2", "BN")
            await client.call("device.retire", device="new")
            assert (await client.call("topology.trace", node="T2"))["meters"] == []

    told: list[dict[str, object]] = []
    with fleet(4, "127.95.9.1") as running:
        path = head_end(tmp_path, '[plugins]\nenabled = ["classify"]\npatience = 50\n', running)
        with opened(config.load(path)) as database, database.writing() as connection:
            import_network(connection, io.StringIO(NODES), "n.csv")
            rows = [(n, {"name": name(n), "node": "T1" if n < 4 else "T2", "phases": ""}) for n in range(1, 5)]
            place_meters(connection, rows, "")
            journal.write(connection, WriteBatch(events=gone), first_us, 1)
        serving(path, use, limit_s=60)

    assert [(one["area_kind"], one["area"], one["part_of"]) for one in told] == [("transformer", "T1", None)]
    assert [said["name"] for said in told[0]["classes"]] == ["outage"]  # type: ignore[attr-defined]
