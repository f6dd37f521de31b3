"""`plugin status`, `flags` and `incidents` ask a head-end that runs, and say it in lines and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.system.fleet import fleet, head_end, opened
from tests.system.test_control import name
from tests.system.test_plugin_hooks import written
from tests.system.test_rpc import address
from tests.system.test_serve import serving, until

from ipss_headend import config
from ipss_headend.client import AsyncClient
from ipss_headend.errors import FAULT, RequestError
from ipss_headend.field.reactor import EventKind
from ipss_headend.server import HeadEnd
from ipss_headend.store import Layout, LayoutColumn, WriteBatch, journal

ITEM, STEP_US = "1.0.1.8.0.255", 900_000_000
LAYOUT = Layout(7, "1.0.99.1.0.255", 2, (LayoutColumn(3, ITEM, 2, 0, 0, "Wh", "import"),))
PLUGINS = '[plugins]\nenabled = ["validate", "classify"]\npatience = 50\n'


@pytest.mark.timeout(600)
def test_flags_incidents_and_plugins_are_shown(tmp_path: Path) -> None:
    first_us = (time.time_ns() // 1000 - 2 * 86_400_000_000) // STEP_US * STEP_US
    spiky: list[int | None] = []
    total = 0
    for place in range(150):
        total += 4000 if place == 120 else 100 + 3 * (place % 7)
        spiky.append(total)
    gone = [(meter, time.time_ns() // 1000 - 60_000_000, int(EventKind.BACKED_OFF), 60, "") for meter in (1, 2)]

    async def ipss(*words: str, ends: int = 0) -> str:
        command = [sys.executable, "-m", "ipss_headend.cli", *words, "--config", str(path)]
        ran = await trio.to_thread.run_sync(_run, command)
        assert ran.returncode == ends, ran.stderr
        return ran.stdout

    async def document(*words: str) -> Any:
        return json.loads(await ipss(*words, "--json"))

    async def use(started: HeadEnd) -> None:
        await until(lambda: started.figures.plugins["validate"].behind.get("billing_validate_batch") == 0)
        lines = (await ipss("flags", "list", name(1), "--object", ITEM, "--flag", "spike")).splitlines()
        assert lines[0] == "capture time\tprofile\tobject\tflags"
        assert lines[1].split("\t")[1:] == ["1.0.99.1.0.255", ITEM, "spike"]
        at, *_ = lines[1].split("\t")
        edit = ("flags", "edit", name(1), ITEM, "--at", at, "--reason", "a test of the relay", "--value")
        assert (await document(*edit, "104"))["value"] == "104"
        await ipss(*edit, "10.5", ends=RequestError.exit_status)
        [estimate] = (await ipss("flags", "estimates", name(1))).splitlines()[1:]
        assert estimate.split("\t")[:5] == [at, "1.0.99.1.0.255", ITEM, "104", "Wh"]
        found = (await document("flags", "list", name(1)))["flags"]
        assert [(one["item"], one["flags"]) for one in found] == [(ITEM, ["spike", "edited"])]

        async with AsyncClient(address(started)) as client:
            while not (await client.call("anomaly.list"))["incidents"][0]["classes"]:  # noqa: ASYNC110 - asked over RPC
                await trio.sleep(0.05)
        [one] = (await document("incidents", "list", "--open"))["incidents"]
        number = str(one["incident"])
        assert (one["meters"], one["open"]) == (2, True)
        [row] = (await ipss("incidents", "list", "--group", one["area"], "--last", "1")).splitlines()[1:]
        assert row.split("\t")[0] == number
        assert row.split("\t")[7] == one["classes"][0]["name"]
        assert f"{name(2)}\tmeter-gone" in await ipss("incidents", "show", number)

        states = {one["plugin"]: one for one in (await document("plugin", "status"))["plugins"]}
        assert set(states) == {"validate", "classify"}
        assert states["validate"]["running"]
        started.plugins.disable("classify")
        [line] = (await ipss("plugin", "status", "classify", ends=FAULT)).splitlines()[1:]
        assert line.split("\t")[:2] == ["classify", "not running"]

    with fleet(3, "127.95.6.1") as running:
        path = head_end(tmp_path, PLUGINS, running)
        with opened(config.load(path)) as database, database.writing() as connection:
            journal.write(connection, WriteBatch(events=gone), first_us, 1)
        written(path, {1: spiky}, LAYOUT, first_us, STEP_US)
        serving(path, use, limit_s=400)


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
