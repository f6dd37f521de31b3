"""Meters behind one connection: a data concentrator with many logical devices, some of them bad."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.system.fleet import Running, head_end, opened
from tests.system.test_serve import serving, until

from ipss_headend import _core, config
from ipss_headend.server import HeadEnd

COMMAND = (sys.executable, "-m", "ipss_headend.cli")
METERS = 24
SILENT, LYING = 3, 7

NAMES = """
[[plans]]
name = "names"
objects = ["1/0.0.42.0.0.255:2"]
every = "1d at 00:10"
"""


@contextmanager
def concentrator(first_address: str, **options: Any) -> Iterator[Running]:
    meters = _core.VirtualFleet(count=METERS, first_address=first_address, port=0, behind=METERS, **options)
    try:
        yield Running(meters)
    finally:
        meters.stop()


def test_all_meters_of_a_concentrator_are_read_over_one_connection_and_bad_ones_stop_nobody(tmp_path: Path) -> None:
    seen: dict[str, int] = {}

    async def use(started: HeadEnd) -> None:
        plan = started.figures.plans
        await until(lambda: "names" in plan and plan["names"].done == METERS - 2)
        seen.update(started.reactor.stats())

    with concentrator("127.61.0.1", faults=f"silent=#{SILENT},impostor=#{LYING}") as running:
        path = head_end(tmp_path, NAMES, running, reactor='answer = "1s"\nassociate = "2s"')
        serving(path, use, limit_s=60)
        accepted = running.meters.stats()["accepts"]

    # A silent meter may cost the line a connection, never one each.
    assert seen["connections"] <= 1
    assert accepted < METERS / 2
    with opened(config.load(path)) as database, database.reading() as connection:
        rows = connection.exec_driver_sql("SELECT meter_id, cells FROM readings").all()
        meters = connection.exec_driver_sql("SELECT meter_id, name, logical_device_name FROM meters").all()
        given = {int(row[0]): bytes(row[1]) for row in rows}
    assert {name for meter, name, _ in meters if meter not in given} == {
        f"virtual-{number + 1:05}" for number in (SILENT, LYING)
    }
    mistaken = [name for meter, name, device in meters if meter in given and device not in given[meter]]
    assert mistaken == [], "each value is its own meter's"


def test_one_meter_of_a_concentrator_is_read_by_name(tmp_path: Path) -> None:
    with concentrator("127.61.1.1") as running:
        path = head_end(tmp_path, "", running)
        found = subprocess.run(
            [*COMMAND, "read", "virtual-00009", "1/0.0.42.0.0.255:2", "--json", "--config", str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert found.returncode == 0, found.stderr
    [item] = json.loads(found.stdout)["items"]
    with opened(config.load(path)) as database, database.reading() as connection:
        name = connection.exec_driver_sql("SELECT logical_device_name FROM meters WHERE meter_id = 9").scalar_one()
    assert bytes(name).hex() in json.dumps(item).lower() or bytes(name).decode() in json.dumps(item)


def test_a_second_meter_of_an_address_makes_the_first_one_share_it(tmp_path: Path) -> None:
    """The first is served alone; the others come while the head-end runs."""

    async def use(started: HeadEnd) -> None:
        from ipss_headend.client import AsyncClient

        lines = running.meters.csv().splitlines()
        async with AsyncClient(f"unix:{started.config.rpc.socket}") as client:
            for number in (1, 2, 3):
                await client.call("device.import", csv=f"{lines[0]}\n{lines[number]}\n", key=f"k{number}")
                for meter in range(1, number + 1):
                    values = await client.call("read.now", device=f"virtual-{meter:05}", items=["1.0.1.8.0.255"])
                    assert values["values"][0]["unit"] == "Wh"
            assert started.reactor.stats()["connections"] == 1

    with concentrator("127.61.2.1") as running:
        empty = _Empty()
        serving(head_end(tmp_path, "", empty), use)  # type: ignore[arg-type]


class _Empty:
    """A fleet without meters, for a registry that is to be filled later."""

    class meters:  # noqa: N801 - as `Running` has it
        @staticmethod
        def csv(*, dials_in: bool) -> str:
            return "name,address\n"
