"""The shipped plugin `sales` in a head-end that runs: crashes, late and edited readings, labels, and the batch."""

from __future__ import annotations

import os
import signal
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import trio
from tests.system.fleet import fleet, head_end
from tests.system.test_control import name
from tests.system.test_plugin_hooks import written
from tests.system.test_rpc import address
from tests.system.test_serve import serving, until
from tests.unit.plugins.installed import installed

from ipss_headend import config
from ipss_headend.client import AsyncClient
from ipss_headend.server import HeadEnd
from ipss_headend.store import Database, Layout, LayoutColumn, plugins

CUSTOMERS = """
from ipss_headend.plugins import hook

@hook
def billing_sales_dimension(ctx, account):
    classes = ctx.settings.get("classes", {})
    return {"class": classes.get(account["name"], "household"), "tariff": "day"}
"""
SALES = "from ipss_headend.plugins.billing.sales import *\n"
ITEM, STEP_US = "1.0.1.8.0.255", 900_000_000
LAYOUT = Layout(7, "1.0.99.1.0.255", 2, (LayoutColumn(3, ITEM, 2, 0, 0, "Wh", "import"),))
SETTINGS = """
[plugins]
enabled = ["customers", "sales"]
patience = 50
[plugins.settings.customers.classes]
"virtual-00002" = "shop"
[plugins.settings.sales]
currency = "EUR"
[[plugins.settings.sales.tariffs]]
name = "day"
price = "0.2875"
periods = [{ hours = "6-18", price = "0.31" }]
"""
SPAN = {"from_ms": 0, "to_ms": 2**45}


def kwh(wh: int) -> str:
    return f"{(Decimal(wh) / 1000).normalize():f}"


def test_sales_follow_the_readings_and_equal_the_batch(tmp_path: Path) -> None:
    day_us = 86_400_000_000
    first_us = (time.time_ns() // 1000 // day_us - 3) * day_us
    registers: dict[int, list[int | None]] = {
        meter: [meter * 1000 + place * (40 + meter) for place in range(193)] for meter in (1, 2, 3)
    }
    late: dict[int, list[int | None]] = {3: [*[None] * 100, *registers[3][100:110]]}
    first = {**registers, 3: [None if 100 <= place < 110 else one for place, one in enumerate(registers[3])]}

    async def told(started: HeadEnd, **params: Any) -> dict[str, Any]:
        async with AsyncClient(address(started)) as client:
            found: dict[str, Any] = await client.call("x.sales.query", **SPAN, **params)
        return found

    async def read_on(started: HeadEnd) -> None:
        await until(lambda: started.figures.plugins["sales"].behind.get("billing_intervals") == 0)

    async def crashes(started: HeadEnd) -> None:
        await read_on(started)
        rows = (await told(started, by=["class"]))["rows"]
        assert {row["class"]: row["kwh"] for row in rows} == {
            "household": kwh(41 * 192 + 43 * 181),
            "shop": kwh(42 * 192),
        }
        plugin = started.plugins.get("sales")
        assert plugin is not None
        assert plugin.process_id is not None
        os.kill(plugin.process_id, signal.SIGKILL)
        await until(lambda: started.figures.plugins["sales"].restarts == 1 and plugin.restored)
        assert (await told(started, by=["class"]))["rows"] == rows, "it has back what it kept"
        async with AsyncClient(address(started)) as client:
            edited = await client.call(
                "vee.edit", point=name(1), item=ITEM, capture_ms=(first_us + 5 * STEP_US) // 1000, value="1041",
                reason="the meter was bypassed",
            )  # fmt: skip
            assert edited["edited"]["method"].startswith("edited by ")
            await same(client)
            [flagged] = (await client.call("vee.flags", point=name(1), **SPAN))["flags"]
            assert flagged["flags"] == ["edited"]

    async def later(started: HeadEnd) -> None:
        await read_on(started)
        result = await told(started, by=["hour"])
        assert result["currency"] == "EUR"
        rows = result["rows"]
        assert all(row["complete"] == row["expected"] == 3 for row in rows[:48])
        assert sum(row["edited"] for row in rows) == 1
        total = [Decimal((41 + 42 + 43) * 4) / 1000] * 48
        total[1] += 1  # the edit
        prices = [Decimal("0.31") if 6 <= hour % 24 < 18 else Decimal("0.2875") for hour in range(48)]
        assert [Decimal(row["kwh"]) for row in rows[:48]] == total
        assert [Decimal(row["amount"]) for row in rows[:48]] == [
            one * two for one, two in zip(total, prices, strict=True)
        ]
        async with AsyncClient(address(started)) as client:
            await same(client)
            await client.call("plugin.configure", plugin="customers", settings={"classes": {name(1): "shop"}})
            with trio.fail_after(60):
                while True:
                    one = (await client.call("x.sales.query", **SPAN, by=["class"], only={"class": "shop"}))["rows"]
                    if one and Decimal(one[0]["kwh"]) == Decimal(41 * 192) / 1000 + 1:
                        break
                    await trio.sleep(0.05)
            status = await client.call("x.sales.status")
            assert (status["accounts"], status["wrong"]) == (3, "")
            assert status["labels"] == ["class", "feeder", "tariff"]
            again = await client.call("sales.recompute", points=[name(1)], **until_now(), keep=True)
            assert (await client.call("job.wait", job=again["job"]))["state"] == "done"
            await same(client)

    def until_now() -> dict[str, int]:
        return {"from_ms": first_us // 1000, "to_ms": time.time_ns() // 1_000_000}

    async def same(client: AsyncClient) -> None:
        job = await client.call("sales.recompute", points=[name(1), name(2), name(3)], **until_now())
        done = await client.call("job.wait", job=job["job"])
        assert done["state"] == "done", done["outcomes"]

    place = tmp_path / "plugins"
    place.mkdir()
    with installed(place, customers=CUSTOMERS, sales=SALES), fleet(3, "127.95.5.1") as running:
        path = head_end(tmp_path, SETTINGS, running)
        written(path, first, LAYOUT, first_us, STEP_US)
        serving(path, crashes, limit_s=90)
        written(path, late, LAYOUT, first_us, STEP_US)
        written(path, late, LAYOUT, first_us, STEP_US)  # and once more
        serving(path, later, limit_s=90)
        with Database(config.load(path).database.address) as database, database.reading() as connection:
            assert list(plugins.effects(connection, "sales")) == []
            assert len(plugins.kept(connection, "sales")) >= 3 * 3
