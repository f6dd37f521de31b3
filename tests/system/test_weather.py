"""The rule of docs/plugins.md for heat, frost and holidays has its say in a head-end that runs."""

from __future__ import annotations

import re
import time
from datetime import date, timedelta
from pathlib import Path

import trio
from tests.system.test_control import FAST, name, world
from tests.system.test_rpc import address
from tests.system.test_serve import serving, until
from tests.unit.plugins.installed import installed

from ipss_headend.client import AsyncClient
from ipss_headend.server import HeadEnd

DOCUMENT = Path(__file__).parents[2] / "docs" / "plugins.md"
BLOCKS = re.findall(r"^```py\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
[RULE] = [body for body in BLOCKS if "degrees" in body]
HOUR_MS = 3_600_000
DAYS = [date(2024, 1, 1) + timedelta(days=day) for day in range(366)]
EVERY_DAY = ", ".join(f'"{day:%m-%d}"' for day in DAYS)


def test_rule_of_the_documentation_refuses_by_weather_and_holiday(tmp_path: Path) -> None:
    async def use(started: HeadEnd) -> None:
        async def cut() -> str:
            order = await trio.to_thread.run_sync(office.switch, "off", [name(1)])
            await until(lambda: office.over(order))
            return office.commands(order)[0].detail

        async with AsyncClient(address(started)) as client:
            now = time.time_ns() // 1_000_000
            nodes = [{"name": "F1", "kind": "feeder"}, {"name": "T1", "kind": "transformer", "parent": "F1"}]
            await client.call("topology.put", nodes=nodes)
            await client.call("device.place", places=[{"device": name(1), "node": "T1"}])
            said.append(await cut())
            mild = [{"at_ms": now, "temperature_c": "15"}]
            await client.call("weather.put", node="T1", source="met", observations=mild)
            await client.call("weather.put", source="met", observations=[{"at_ms": now, "temperature_c": "-20"}])
            frost = [
                {"at_ms": now + hours * HOUR_MS, "temperature_c": degrees}
                for hours, degrees in ((5, "-3"), (40, "-30"))
            ]
            await client.call("weather.put", node="F1", source="met", forecasts=frost)
            said.append(await cut())
            later = [{"at_ms": now + 40 * HOUR_MS, "temperature_c": "-30"}]
            await client.call("weather.put", node="F1", source="met", forecasts=later)
            said.append(await cut())

    said: list[str] = []
    place = tmp_path / "plugins"
    place.mkdir()
    rules = f'[plugins]\nenabled = ["weather_rule"]\npatience = 50\n[plugins.regional_holidays]\nF1 = [{EVERY_DAY}]\n'
    with (
        installed(place, weather_rule=RULE),
        world(tmp_path, 2, "127.95.8.1", control=f"{FAST}{rules}") as (_, office, path),
    ):
        serving(path, use, limit_s=90)

    assert said == [
        "refused by a rule: the weather is not known",
        "refused by a rule: -3 to 15 degrees within a day",
        "refused by a rule: nobody would switch it on again tomorrow",
    ]
