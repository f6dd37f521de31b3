"""Parameters of meters over the RPC: planned, written and read back; what is critical by two people's order alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from tests.system.test_control import name, world
from tests.system.test_rpc import address
from tests.system.test_serve import serving

from ipss_headend.client import AsyncClient, CallFailed, sign_order
from ipss_headend.server import HeadEnd

CLOCK, TITLE, LIMITER = "8/0.0.1.0.0.255:2", "1/0.0.42.0.0.255:2", "71/0.0.17.0.0.255:4"
NOON = ["octet-string", "07ea0c1903" + "0c000000" + "800000"]


def test_ordinary_parameters_are_written_and_critical_ones_ordered(tmp_path: Path) -> None:
    async def use(started: HeadEnd) -> None:
        keys = office.people.files
        async with AsyncClient(address(started)) as client:

            async def planned(*parameters: dict[str, Any]) -> dict[str, Any]:
                given = {"targets": [name(1), name(2)], "reason": "summer", "signer": "ada"}
                return dict(await client.call("param.plan", **given, parameters=list(parameters)))

            limit = {"object": LIMITER, "value": ["double-long-unsigned", 5000]}
            other = {"object": TITLE, "value": ["octet-string", "31323334"]}
            plan = await planned(limit, other)
            assert sorted({(one["point"], one["object"]) for one in plan["differences"]}) == [
                (name(number), item) for number in (1, 2) for item in sorted((LIMITER, TITLE))
            ]
            [order] = plan["orders"]
            assert (order["object"], order["kind"], order["signer"]) == (LIMITER, "limit", "ada")

            applied = await client.call("param.apply", plan=plan["plan"])
            done = await client.call("job.wait", job=applied["job"]["job"])
            assert (done["state"], applied["orders"]) == ("failed", [])
            assert "refused: read-write-denied" in done["outcomes"][name(1)]["error"]

            with pytest.raises(CallFailed, match="E_DENIED"):
                await client.call("param.apply", plan=plan["plan"], signatures={order["order"]: "00" * 64})
            signature = sign_order(order["octets"], keys["ada"], signer="ada", purpose="propose")
            applied = await client.call("param.apply", plan=plan["plan"], signatures={order["order"]: signature})
            assert applied["orders"] == [order["order"]]
            shown = await client.call("control.order", order=order["order"])
            assert shown["kind"] == "limit"
            approval = sign_order(
                shown["octets"], keys["bob"], signer="bob", purpose="approve", generation=shown["generation"]
            )
            await client.call("control.approve", order=order["order"], signer="bob", signature=approval)

            async def states() -> dict[str, int]:
                return dict((await client.call("control.get", order=order["order"]))["order"]["states"])

            for _ in range(300):
                if await states() == {"confirmed": 2}:
                    break
                await trio.sleep(0.1)
            drift = await client.call("param.verify", plan=plan["plan"])
            assert (drift["compared"], {one["object"] for one in drift["differences"]}) == (4, {TITLE})

            clock = await planned({"object": CLOCK, "value": NOON})
            assert clock["orders"] == []
            applied = await client.call("param.apply", plan=clock["plan"])
            done = await client.call("job.wait", job=applied["job"]["job"])
            assert done["outcomes"][name(1)]["outcomes"] in ({CLOCK: "written"}, {CLOCK: "refused: read-write-denied"})

            for wrong, words in (
                ({"object": "0.0.1.0.0.255", "value": NOON}, "name its class and its attribute"),
                ({"object": "64/0.0.43.0.0.255:2", "value": ["enum", 1]}, "E_DENIED"),
                ({"object": CLOCK, "value": ["no-type", 1]}, "E_PARAMS"),
            ):
                with pytest.raises(CallFailed, match=words):
                    await planned(wrong)
            with pytest.raises(CallFailed, match="E_UNKNOWN"):
                await client.call("param.verify", plan="none")

    with world(tmp_path, 2, "127.98.0.1") as (_, office, path):
        serving(path, use, limit_s=60)
