"""Read plans made over the RPC: taken at once, kept over a restart, ended, and never beyond a caller's scope."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.system.fleet import fleet, head_end
from tests.system.test_rpc import address
from tests.system.test_serve import BILLING, serving, until

from ipss_headend.client import AsyncClient, CallFailed
from ipss_headend.server import HeadEnd


def test_a_plan_is_made_kept_changed_and_ended(tmp_path: Path) -> None:
    async def make(started: HeadEnd) -> None:
        await until(lambda: started.figures.plans["billing"].turns >= 1)
        async with AsyncClient(address(started)) as client:
            for wrong, words in (
                ({"every": "never"}, "E_PARAMS"),
                ({"every": "1h"}, "reads nothing"),
                ({"every": "1h", "objects": ["nonsense"]}, "E_PARAMS"),
                ({"every": "1h", "objects": ["1.0.2.8.0.255"], "priority": "critical"}, "E_PARAMS"),
            ):
                with pytest.raises(CallFailed, match=words):
                    await client.call("read.schedule.set", name="hourly", **wrong)
            with pytest.raises(CallFailed, match="is the configuration's"):
                await client.call("read.schedule.set", name="billing", every="1h", objects=["1.0.2.8.0.255"])
            made = await client.call("read.schedule.set", name="hourly", every="1h", objects=["1.0.2.8.0.255"])
            assert (made["plan"]["every_s"], made["plan"]["configured"]) == (3600, False)
            await until(lambda: started.figures.plans["hourly"].done == 2)
            status = (await client.call("read.schedule.status", name="hourly"))["plan"]
            assert (status["asked"], status["completeness_ppm"]) == (2, 1_000_000)
            changed = await client.call("read.schedule.set", name="hourly", every="30min", objects=["1.0.2.8.0.255"])
            assert changed["plan"]["every_s"] == 1800

    async def end(started: HeadEnd) -> None:
        async with AsyncClient(address(started)) as client:
            listed = (await client.call("read.schedule.list"))["plans"]
            assert [(one["name"], one["every_s"]) for one in listed] == [("billing", 86400), ("hourly", 1800)]
            await until(lambda: started.figures.plans["hourly"].turns >= 1)
            await client.call("read.schedule.remove", name="hourly")
            for gone in ("hourly", "billing"):
                with pytest.raises(CallFailed, match="E_UNKNOWN"):
                    await client.call("read.schedule.remove", name=gone)
            kinds = [one["kind"] for one in (await client.call("audit.query", kinds=["schedule"]))["records"]]
            assert kinds == ["schedule"] * 3

    async def later(started: HeadEnd) -> None:
        async with AsyncClient(address(started)) as client:
            assert len((await client.call("read.schedule.list"))["plans"]) == 1

    with fleet(2, "127.97.0.1") as running:
        path = head_end(tmp_path, BILLING, running)
        serving(path, make)
        serving(path, end)
        serving(path, later)
