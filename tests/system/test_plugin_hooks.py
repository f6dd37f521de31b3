"""Plugins have a say in a head-end that runs: in commands, in its RPC, and about themselves."""

from __future__ import annotations

import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.system.fleet import fleet, head_end, opened
from tests.system.test_control import FAST, actions, name, world
from tests.system.test_rpc import address
from tests.system.test_rpc_control import draft
from tests.system.test_serve import BILLING, serving, until
from tests.unit.plugins.installed import installed

from ipss_headend import config
from ipss_headend.client import AsyncClient, CallFailed
from ipss_headend.field.control.machine import State
from ipss_headend.field.reactor import EventKind
from ipss_headend.server import HeadEnd
from ipss_headend.store import Layout, LayoutColumn, WriteBatch, journal, plugins, reading_row
from ipss_headend.store.registry import intern_layouts

RULES = """
from ipss_headend.plugins import Refusal, hook

@hook
def control_authorize(actor, action, targets):
    if "virtual-00003" in targets:
        return Refusal(f"{actor} may not {action} a hospital", "hospital")

@hook
def control_before_command(ctx, command, device_state, reason):
    if command["kind"] == "disconnect" and device_state["output"] is not True:
        return Refusal(f'{command["point"]} has no supply to cut')

@hook
def control_disconnect_veto(account, reason, calendar):
    if account == "virtual-00002" and calendar["holiday"]:
        return Refusal("no supply is cut on a holiday")

@hook
def control_after_command(ctx, command, outcome, readback):
    ctx.emit(f'{command["id"]}-{outcome}', "ended", [command["point"], command["kind"], outcome])
"""
DAYS = [date(2024, 1, 1) + timedelta(days=day) for day in range(366)]
EVERY_DAY = "holidays = [" + ", ".join(f'"{day:%m-%d}"' for day in DAYS) + "]"


def test_rules_refuse_orders_and_commands_and_hear_how_they_ended(tmp_path: Path) -> None:
    async def use(started: HeadEnd) -> None:
        switch = office.switch
        refused = await trio.to_thread.run_sync(switch, "off", [name(1), name(3)])
        off = await trio.to_thread.run_sync(switch, "off", [name(1), name(2)])
        await until(lambda: office.over(refused) and office.over(off))
        again = await trio.to_thread.run_sync(switch, "off", [name(1)])
        await until(lambda: office.over(again))
        found.update({"refused": refused, "off": off, "again": again})
        while len(emitted) < 5:
            emitted[:] = await started.store.read(lambda connection: list(plugins.effects(connection, "rules")))
            await trio.sleep(0.05)
        async with AsyncClient(address(started)) as client:
            with pytest.raises(CallFailed, match=r"E_DENIED: .* ada may not disconnect"):
                await client.call(
                    "control.switch", **await draft(client, office.people.files["ada"], targets=[name(3)])
                )

    found: dict[str, bytes] = {}
    emitted: list[tuple[str, str, Any]] = []
    place = tmp_path / "plugins"
    place.mkdir()
    control = f'{FAST}[plugins]\nenabled = ["rules"]\npatience = 50\n{EVERY_DAY}\n'
    with installed(place, rules=RULES), world(tmp_path, 3, "127.95.0.1", control=control) as (running, office, path):
        serving(path, use, limit_s=60)
        done = actions(running)

    assert office.states(found["refused"]) == [State.FAILED, State.FAILED]
    assert {one.detail for one in office.commands(found["refused"])} == {
        "refused: refused by a rule: ada may not disconnect a hospital"
    }
    ends = {one.meter_id: (one.state, one.detail) for one in office.commands(found["off"])}
    assert ends[1] == (State.CONFIRMED, "")
    assert ends[2] == (State.FAILED, "refused by a rule: no supply is cut on a holiday")
    assert office.commands(found["again"])[0].detail == "refused by a rule: virtual-00001 has no supply to cut"
    assert done == {0: 1}, "only what no rule refused left"
    assert sorted(content for _, _, content in emitted) == sorted(
        [
            [name(1), "disconnect", "verified"],
            [name(1), "disconnect", "failed"],
            [name(1), "disconnect", "failed"],
            [name(2), "disconnect", "failed"],
            [name(3), "disconnect", "failed"],
        ]
    )


def test_a_command_waits_for_a_rule_whose_plugin_crashed(tmp_path: Path) -> None:
    async def use(started: HeadEnd) -> None:
        signature = await trio.to_thread.run_sync(office.switch, "off", [name(1)])
        await until(lambda: started.figures.plugins["crashes"].restarts > 0)
        once.unlink()
        await until(lambda: office.over(signature))
        states.extend(office.states(signature))

    crashes = """
import os, pathlib
from ipss_headend.plugins import hook

@hook
def control_before_command(ctx):
    if pathlib.Path(ctx.settings["once"]).exists():
        os._exit(1)
"""
    states: list[State] = []
    place = tmp_path / "plugins"
    place.mkdir()
    once = tmp_path / "once"
    once.touch()
    settings = f'[plugins.settings.crashes]\nonce = "{once}"\n'
    control = f'{FAST}[plugins]\nenabled = ["crashes"]\npatience = 50\n{settings}'
    with (
        installed(place, crashes=crashes),
        world(tmp_path, 1, "127.95.1.1", control=control) as (_, office, path),
    ):
        serving(path, use, limit_s=60)
    assert states == [State.CONFIRMED]


METHODS = ["x.owing.debt", "x.owing.forgive", "x.owing.total"]
OFFERS = """
from ipss_headend.plugins import MethodOffer, hook

@hook
def rpc_methods():
    return [
        MethodOffer("debt", "view", "What a meter's customer owes.", {"point": "meter", "day": "text?"},
                    {"amount": "text", "of": "text"}, example={"point": "virtual-00001"}),
        MethodOffer("total", "view", "What all owe.", {}, {"amount": "text"}),
        MethodOffer("forgive", "manage", "Forgive a debt.", {"point": "meter"}, {"times": "integer"}, changes=True),
        MethodOffer("Bad name", "view", "No method."),
        MethodOffer("unknown_right", "rule", "No method."),
    ]

forgiven = []

@hook
def rpc_call(ctx, method, params, actor):
    if method == "debt":
        if params["point"] == "virtual-00002":
            raise LookupError("no account")
        return {"amount": ctx.settings.get("amount", "0"), "of": f'{actor} asks for {params["point"]}', "hidden": 1}
    if method == "forgive":
        forgiven.append(params["point"])
        return {"times": len(forgiven)}
    return {"amount": 7}

@hook
def plugin_health(ctx):
    return {"ledger": "not balanced"} if ctx.settings.get("amount") == "13" else {}
"""


def test_methods_of_a_plugin_are_methods_as_others(tmp_path: Path) -> None:
    async def use(started: HeadEnd) -> None:
        async with AsyncClient(address(started)) as client:
            rows = {row["name"]: row for row in (await client.call("rpc.methods"))["methods"]}
            mine = sorted(one for one in rows if one.startswith("x."))
            assert mine == METHODS
            assert (rows["x.owing.debt"]["right"], rows["x.owing.forgive"]["changes"]) == ("view", True)
            schema = await client.call("rpc.schema", method="x.owing.debt")
            assert "point" in str(schema["params"])
            debt = await client.call("x.owing.debt", point=name(1))
            assert debt["amount"] == "12.50"
            assert debt["of"].endswith(f"asks for {name(1)}")
            assert "hidden" not in debt
            for wrong, words in (
                ({"point": "virtual-9"}, "E_UNKNOWN"),
                ({"point": 7}, "E_PARAMS"),
                ({}, "E_PARAMS"),
                ({"point": name(1), "hour": "1"}, "E_PARAMS"),
                ({"point": name(2)}, "E_PLUGIN: .* no account"),
            ):
                with pytest.raises(CallFailed, match=words):
                    await client.call("x.owing.debt", **wrong)
            with pytest.raises(CallFailed, match="E_PLUGIN"):
                await client.call("x.owing.total")
            for key, times in (("a", 1), ("a", 1), ("b", 2)):
                assert await client.call("x.owing.forgive", point=name(1), key=key) == {"times": times}

            status = await client.call("plugin.status", plugin="owing")
            assert (status["running"], status["wrong"], status["methods"]) == (True, {}, mine)
            assert {"hook": "rpc_call", "outcome": "done", "calls": 4} in status["calls"]
            await client.call("plugin.configure", plugin="owing", settings={"amount": "13"})
            assert (await client.call("x.owing.debt", point=name(1)))["amount"] == "13"
            assert (await client.call("plugin.status", plugin="owing"))["wrong"] == {"ledger": "not balanced"}
            assert not started.figures.plugins["owing"].healthy
            assert (await client.call("plugin.disable", plugin="owing"))["running"] is False
            with pytest.raises(CallFailed, match="E_METHOD"):
                await client.call("x.owing.debt", point=name(1))
            listed = {one["plugin"]: one for one in (await client.call("plugin.list"))["plugins"]}
            assert (listed["owing"]["enabled"], listed["owing"]["package"]) == (False, "test-plugins 1")
            tested = (await client.call("plugin.selftest", plugin="owing", patience=50))["job"]
            done = await client.call("job.wait", job=tested)
            assert done["state"] == "done", done["outcomes"]
            records = (await client.call("audit.query", kinds=["plugin"]))["records"]
            assert len(records) == 2

    async def later(started: HeadEnd) -> None:
        async with AsyncClient(address(started)) as client:
            assert started.plugins.get("owing") is None, "it stays disabled"
            status = await client.call("plugin.enable", plugin="owing")
            assert (status["running"], status["methods"]) == (
                True,
                METHODS,
            )
            assert (await client.call("x.owing.debt", point=name(1)))["amount"] == "13", "and stays set"
            before = started.plugins.get("owing")
            assert before is not None
            process = before.process_id
            assert (await client.call("plugin.reload", plugin="owing"))["running"]
            assert before.process_id not in {process, None}
            with pytest.raises(CallFailed, match="E_UNKNOWN"):
                await client.call("plugin.enable", plugin="nobody")

    place = tmp_path / "plugins"
    place.mkdir()
    settings = '[plugins]\nenabled = ["owing"]\npatience = 50\n[plugins.settings.owing]\namount = "12.50"\n'
    with installed(place, owing=OFFERS), fleet(2, "127.95.2.1") as running:
        path = head_end(tmp_path, BILLING + settings, running)
        serving(path, use, limit_s=60)
        serving(path, later, limit_s=60)


def written(path: Path, lines: dict[int, list[int | None]], layout: Layout, first_us: int, step_us: int) -> int:
    """Put lines into the store as the head-end does, in its log, too; None: no line. Returns the layout's number."""
    with opened(config.load(path)) as database, database.writing() as connection:
        [number] = intern_layouts(connection, [layout])
        found = [
            reading_row(meter, number, first_us + place * step_us, [value], received_us=first_us + place * step_us)
            for meter, values in lines.items()
            for place, value in enumerate(values)
            if value is not None
        ]
        journal.write(connection, WriteBatch(readings=found), first_us, 1)
    return number


def test_stored_intervals_are_validated_and_long_gaps_estimated(tmp_path: Path) -> None:
    """With the plugin that is shipped: what it says stands beside the readings, once, and survives a restart."""
    item, step_us = "1.0.1.8.0.255", 900_000_000
    first_us = (time.time_ns() // 1000 - 3 * 86_400_000_000) // step_us * step_us
    layout = Layout(7, "1.0.99.1.0.255", 2, (LayoutColumn(3, item, 2, 0, 0, "Wh", "import"),))

    def register(start: int, odd: dict[int, int]) -> list[int | None]:
        total, found = start, []
        for place in range(192):
            total += odd.get(place, 100 + 3 * (place % 7))
            found.append(total)
        return list(found)

    spiky, holed, rolling = register(0, {150: 4000}), register(5000, {}), register(99_990_000, {})
    holed[100:104] = [None] * 4
    rolling = [None if value is None else value % 100_000_000 for value in rolling]

    async def use(started: HeadEnd) -> None:
        await until(lambda: started.figures.plugins["validate"].behind.get("billing_validate_batch") == 0)
        await until(lambda: started.figures.estimated_intervals >= 5)
        span = {"from_ms": 0, "to_ms": 2**45}
        async with AsyncClient(address(started)) as client:
            for number in (1, 2, 3):
                found = (await client.call("vee.flags", point=name(number), **span))["flags"]
                told[number] = {(one["capture_ms"] * 1000 - first_us) // step_us: one["flags"] for one in found}
            estimates = (await client.call("vee.estimates", point=name(2), **span))["estimates"]
            given.update({(one["capture_ms"] * 1000 - first_us) // step_us: one for one in estimates})
            series = await client.call("read.series", point=name(1), item=item, **span)
            assert series["values"][150] == str(spiky[150])
            assert [place for place, said in enumerate(series["validation"]) if said] == [150]
            job = (await client.call("vee.run", points=[name(1)], **span))["job"]
            assert (await client.call("job.wait", job=job))["state"] == "done"
            again = (await client.call("vee.flags", point=name(1), **span))["flags"]
            assert len(again) == len(told[1])
        checked.append(started.figures.validated_intervals)

    async def again(started: HeadEnd) -> None:
        await until(lambda: started.figures.plugins["validate"].behind.get("billing_validate_batch") == 0)
        checked.append(started.figures.validated_intervals)

    told: dict[int, dict[int, list[str]]] = {}
    given: dict[int, dict[str, Any]] = {}
    checked: list[int] = []
    plugins_ = '[plugins]\nenabled = ["validate"]\npatience = 50\nestimate_after = "1s"\n'
    with fleet(3, "127.95.3.1") as running:
        path = head_end(tmp_path, plugins_, running)
        written(path, {1: spiky, 2: holed, 3: rolling}, layout, first_us, step_us)
        serving(path, use, limit_s=90)
        serving(path, again, limit_s=60)

    assert told[1] == {150: ["spike"]}
    wraps = next(place for place in range(1, 192) if (rolling[place] or 0) < (rolling[place - 1] or 0))
    assert told[3] == {wraps: ["roll-over"]}
    assert told[2] == {place: ["gap", "estimated"] for place in range(100, 104)} | {104: ["estimated"]}
    assert sorted(given) == [100, 101, 102, 103, 104]
    assert sum(int(one["value"]) for one in given.values()) == (holed[104] or 0) - (holed[99] or 0)
    assert checked[0] > 500
    assert checked[1] == 0, "nothing is handed over twice"


CODES = """
from ipss_headend.plugins import Classified, hook

@hook
def control_event_decode(device, code):
    return Classified("bypass", 3) if code == 201 else None
"""


def test_events_become_incidents_that_plugins_classify(tmp_path: Path) -> None:
    """Codes of a meter's event log, a maker's own among them, and meters that are gone; the log is read on once."""
    first_us = time.time_ns() // 1000 - 60_000_000
    layout = Layout(
        7, "0.0.99.98.1.255", 2,
        (LayoutColumn(1, "0.0.96.11.1.255", 2, 0, None, "", "event code"),),
    )  # fmt: skip
    gone = [(meter, first_us, int(EventKind.BACKED_OFF), 60, "") for meter in (1, 2, 3)]

    async def use(started: HeadEnd) -> None:
        async with AsyncClient(address(started)) as client:
            while True:
                page = (await client.call("anomaly.list"))["incidents"]
                if page and page[-1]["classes"] is not None and page[-1]["signals"] == 7:
                    break
                await trio.sleep(0.05)
            told.append(page)
            whole = await client.call("anomaly.get", incident=page[0]["incident"])
            kinds.extend(sorted(one["kind"] for one in whole["signals"]))
            span = {"from_ms": 0, "to_ms": 2**45}
            codes.extend((await client.call("anomaly.codes", device=name(1), **span))["codes"])
            await until(lambda: started.figures.incidents == 1)

    told: list[list[dict[str, Any]]] = []
    kinds: list[str] = []
    codes: list[dict[str, Any]] = []
    place = tmp_path / "plugins"
    place.mkdir()
    plugins_ = '[plugins]\nenabled = ["codes", "classify"]\npatience = 50\n'
    with installed(place, codes=CODES), fleet(3, "127.95.4.1") as running:
        path = head_end(tmp_path, plugins_, running)
        with opened(config.load(path)) as database, database.writing() as connection:
            journal.write(connection, WriteBatch(events=gone), first_us, 1)
        written(path, {1: [201, 40, 9999], 2: [2], 3: [82]}, layout, first_us, 1_000_000)
        serving(path, use, limit_s=60)
        serving(path, use, limit_s=60)

    assert kinds == sorted(["meter-gone"] * 3 + ["bypass", "cover-opened", "phase-lost", "power-up"]) * 2
    [incident] = told[0]
    classes = {one["name"]: one for one in incident["classes"]}
    assert set(classes) == {"outage", "bypass", "cover", "one-phase-loss"}
    assert classes["bypass"]["evidence"] == [name(1)]
    assert classes["outage"]["severity"] == 4
    assert [(one["code"], one["name"], one["said_by"]) for one in codes] == [(201, "bypass", "codes")] * 2
    assert [one["incident"] for one in told[1]] == [incident["incident"]], "nothing is grouped twice"
