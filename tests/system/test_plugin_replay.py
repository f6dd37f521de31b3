"""Recorded history handed to plugins once more: as it was, by other versions, and without a trace in the store."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import trio
from sqlalchemy import select, update
from tests.system.fleet import fleet, head_end, opened
from tests.system.test_control import FAST, name, world
from tests.system.test_plugin_hooks import CODES, EVERY_DAY, written
from tests.system.test_rpc import address
from tests.system.test_serve import BILLING, serving, until
from tests.unit.plugins.installed import installed
from typer.testing import CliRunner

from ipss_headend import config
from ipss_headend.cli.app import app, load_commands
from ipss_headend.client import AsyncClient
from ipss_headend.errors import PARTLY_DONE
from ipss_headend.server import HeadEnd
from ipss_headend.store import Layout, LayoutColumn, log, plugins, schema

ITEM, STEP_US = "1.0.1.8.0.255", 900_000_000
TABLES = (
    schema.reading_flags,
    schema.estimates,
    schema.plugin_effects,
    schema.plugin_cursors,
    schema.plugin_states,
    schema.incidents,
    schema.event_classes,
)


def replayed(path: Path, *words: str, status: int = 0) -> dict[str, Any]:
    """What `plugin replay --json` says; the store is the same before and after."""
    load_commands()
    before = kept(path)
    done = CliRunner().invoke(app, ["plugin", "replay", *words, "--config", str(path), "--json"])
    assert done.exit_code == status, done.output
    assert kept(path) == before, "a replay writes nothing"
    return dict(json.loads(done.stdout))


def kept(path: Path) -> list[list[tuple[Any, ...]]]:
    with opened(config.load(path)) as database, database.reading() as connection:
        return [[tuple(row) for row in connection.execute(select(table))] for table in TABLES]


def items(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(one["change"], one["stored"], one["replayed"]) for one in report["items"]]


STRICT = """
from ipss_headend.plugins import Estimate, hook

@hook
def billing_validate_batch(batch):
    for place, known in enumerate(batch["known"]):
        batch.flags[place] |= 128 if known and batch["values"][place] == 4000 else 0 if known else 1

@hook
def billing_estimate(missing):
    return Estimate([7] * missing, "seven")
"""


def test_validation_replayed_is_what_is_stored_and_another_version_differs(tmp_path: Path) -> None:
    first_us = (time.time_ns() // 1000 - 3 * 86_400_000_000) // STEP_US * STEP_US
    layout = Layout(7, "1.0.99.1.0.255", 2, (LayoutColumn(3, ITEM, 2, 0, 0, "Wh", "import"),))
    totals: list[int | None] = []
    for place in range(192):
        totals.append((totals[-1] or 0 if totals else 0) + (4000 if place == 150 else 100 + 3 * (place % 7)))
    holed = [None if 100 <= place < 104 else value for place, value in enumerate(totals)]

    async def use(started: HeadEnd) -> None:
        await until(lambda: started.figures.plugins["validate"].behind.get("billing_validate_batch") == 0)
        await until(lambda: started.figures.estimated_intervals >= 5)

    source = tmp_path / "strict.py"
    source.write_text(STRICT)
    with fleet(2, "127.96.0.1") as running:
        path = head_end(tmp_path, '[plugins]\nenabled = ["validate"]\npatience = 50\nestimate_after = "1s"\n', running)
        written(path, {1: totals, 2: holed}, layout, first_us, STEP_US)
        serving(path, use, limit_s=90)

    same = replayed(path, "validate", "--all")
    assert same["differences"] == 0, same
    assert same["whole"]
    assert same["notes"] == []
    assert same["kinds"]["flags"]["same"] == 1 + 4 + 1, "a spike each, and a gap"
    assert same["kinds"]["estimate"]["same"] == 5

    other = replayed(path, "validate", "--source", str(source))
    assert other["kinds"]["flags"] == {"same": 4, "added": 0, "gone": 0, "changed": 2}
    assert other["kinds"]["estimate"] == {"same": 0, "added": 0, "gone": 0, "changed": 5}
    assert ("changed", "spike", "stuck") in items(other)
    [spike] = [one for one in other["items"] if one["kind"] == "flags" and one["meter"] == name(1)]
    assert (spike["object"], spike["source"]) == (ITEM, "1.0.99.1.0.255")
    assert replayed(path, "validate", "--to-cursor", "1")["entries"] == 1


SEEN = """
import os
from ipss_headend.plugins import hook

@hook
def consume(ctx, topic, sequence, rows):
    for row in rows:
        if topic == "readings":
            {body}
"""
EMITS = 'ctx.emit(f\'{row["point"]}-{row["layout"]}-{row["capture_ms"]}\', "seen", row["values"])'


def test_effects_are_compared_and_a_version_that_fails_is_told(tmp_path: Path) -> None:
    """Beside a head-end that runs: the job of the RPC says the same as the command line."""

    async def use(started: HeadEnd) -> None:
        await until(lambda: started.figures.plans["billing"].done == 3)
        cursor = await started.store.read(log.newest)
        while True:
            place = await started.store.read(lambda connection: plugins.cursor(connection, "seen"))
            if (place or 0) >= cursor:
                break
            await trio.sleep(0.05)
        async with AsyncClient(address(started)) as client:
            for version in ("seen", "other"):
                call = {"plugin": "seen", "version": version, "to_cursor": cursor, "patience": 20}
                job = (await client.call("plugin.replay", **call))["job"]
                done = await client.call("job.wait", job=job, wait_ms=50_000)
                assert done["state"] == "done", done
                told[version] = done["outcomes"]["replay"]
                assert done["outcomes"]["progress"]["done"] == done["outcomes"]["progress"]["total"] > 0
        assert started.figures.plugins["seen"].restarts == 0

    told: dict[str, dict[str, Any]] = {}
    place = tmp_path / "plugins"
    place.mkdir()
    other = SEEN.format(
        body=EMITS.replace('row["values"]', "[]").replace('f\'{row["point"]}', 'f\'{row["point"][:9]}2')
    )
    crashes = SEEN.format(body='os._exit(1) if row["point"].endswith("1") else ' + EMITS)
    with (
        installed(place, seen=SEEN.format(body=EMITS), other=other, crashes=crashes),
        fleet(3, "127.96.1.1") as running,
    ):
        path = head_end(tmp_path, BILLING + '[plugins]\nenabled = ["seen"]\npatience = 20\n', running)
        serving(path, use, limit_s=90)
        lines = told["seen"]["kinds"]["effect"]["same"]
        again = replayed(path, "seen", "--to-cursor", str(told["seen"]["to_cursor"]))
        failing = replayed(
            path, "seen", "--source", "crashes", "--to-cursor", str(told["seen"]["to_cursor"]), status=PARTLY_DONE
        )

    assert lines >= 3
    assert told["seen"]["kinds"]["effect"] == {"same": lines, "added": 0, "gone": 0, "changed": 0}
    assert told["other"]["kinds"]["effect"]["same"] == 0
    assert told["other"]["kinds"]["effect"]["gone"] >= 1
    assert told["other"]["kinds"]["effect"]["added"] >= 1
    assert again["kinds"] == told["seen"]["kinds"]
    assert again["differences"] == 0
    assert failing["failed"] >= 1
    assert "its process ended" in failing["failures"][0]["why"]
    assert failing["kinds"]["effect"]["same"] < lines, "an entry that it fails at gives nothing"


RULES = """
from ipss_headend.plugins import Refusal, hook

@hook
def control_disconnect_veto(ctx, account, reason, calendar):
    if account == "virtual-0000{meter}" and calendar["holiday"]:
        return Refusal("no supply is cut on a holiday")
"""


def test_commands_are_judged_once_more(tmp_path: Path) -> None:
    """What a changed rule would have let go, and what it would have kept."""

    async def use(started: HeadEnd) -> None:
        order = await trio.to_thread.run_sync(office.switch, "off", [name(1), name(2), name(3)])
        await until(lambda: office.over(order))

    place = tmp_path / "plugins"
    place.mkdir()
    control = f'{FAST}[plugins]\nenabled = ["rules"]\npatience = 50\n{EVERY_DAY}\n'
    with (
        installed(place, rules=RULES.format(meter=2), newer=RULES.format(meter=3)),
        world(tmp_path, 3, "127.96.2.1", control=control) as (_, office, path),
    ):
        serving(path, use, limit_s=60)
        same = replayed(path, "rules")
        newer = replayed(path, "rules", "--source", "newer")

    words = "no supply is cut on a holiday"
    assert same["kinds"]["refusal"] == {"same": 1, "added": 0, "gone": 0, "changed": 0}
    assert sorted(items(newer)) == [("added", "", words), ("gone", words, "")]
    assert {one["change"]: one["meter"] for one in newer["items"]} == {"gone": name(2), "added": name(3)}


def test_codes_and_incidents_are_classified_once_more(tmp_path: Path) -> None:
    first_us = time.time_ns() // 1000 - 60_000_000
    layout = Layout(
        7, "0.0.99.98.1.255", 2,
        (LayoutColumn(1, "0.0.96.11.1.255", 2, 0, None, "", "event code"),),
    )  # fmt: skip

    async def use(started: HeadEnd) -> None:
        async with AsyncClient(address(started)) as client:
            while True:
                page = (await client.call("anomaly.list"))["incidents"]
                if page and page[-1]["classes"] is not None and page[-1]["signals"] == 3:
                    return
                await trio.sleep(0.05)

    place = tmp_path / "plugins"
    place.mkdir()
    newer = CODES.replace('"bypass", 3) if code == 201', '"magnet", 4) if code == 201')
    nothing = "from ipss_headend.plugins import hook\n\n@hook\ndef dispatch_classify(classes): return []\n"
    with installed(place, codes=CODES, newer=newer, nothing=nothing), fleet(2, "127.96.3.1") as running:
        path = head_end(tmp_path, '[plugins]\nenabled = ["codes", "classify"]\npatience = 50\n', running)
        written(path, {1: [201, 40], 2: [2]}, layout, first_us, 1_000_000)
        serving(path, use, limit_s=60)
        codes = replayed(path, "codes")
        named = replayed(path, "codes", "--source", "newer")
        same = replayed(path, "classify")
        other = replayed(path, "classify", "--source", "nothing")

    assert codes["kinds"]["event"] == {"same": 1, "added": 0, "gone": 0, "changed": 0}
    assert items(named) == [("changed", "bypass, severity 3", "magnet, severity 4")]
    assert same["kinds"]["incident"] == {"same": 1, "added": 0, "gone": 0, "changed": 0}
    assert [(change, now) for change, _, now in items(other)] == [("changed", "no class")]


def test_damaged_entries_are_passed_over_and_a_plugin_that_always_fails_is_given_up(tmp_path: Path) -> None:
    layout = Layout(3, ITEM, 2, (LayoutColumn(3, ITEM, 2, 0, 0, "Wh", ""),))
    place = tmp_path / "plugins"
    place.mkdir()
    raises = "from ipss_headend.plugins import hook\n\n@hook\ndef consume(rows): raise ValueError('never')\n"
    with installed(place, seen=SEEN.format(body=EMITS), raises=raises), fleet(1, "127.96.6.1") as running:
        path = head_end(tmp_path, "[plugins]\npatience = 50\n", running)
        for number in range(130):
            written(path, {1: [number]}, layout, 1_000_000 * (number + 1), 1)
        with opened(config.load(path)) as database, database.writing() as connection:
            connection.execute(update(schema.log).where(schema.log.c.sequence.in_([2, 50])).values(crc=0))
        seen = replayed(path, "seen", "--limit", "0", status=PARTLY_DONE)
        given_up = replayed(path, "raises", status=PARTLY_DONE)
        part = replayed(path, "seen", "--since", "1970-01-01T00:00:04", "--until", "1970-01-01T00:00:11")

    assert (seen["entries"], seen["whole"]) == (128, False)
    assert seen["kinds"]["effect"]["added"] == 128
    assert [note for note in seen["notes"] if "entry 2 of the log does not match its checksum" in note]
    assert [note for note in seen["notes"] if "entry 50 of the log does not match its checksum" in note]
    assert given_up["failed"] < 130
    assert any(note.startswith("given up behind entry") for note in given_up["notes"])
    assert (part["from_cursor"], part["to_cursor"], part["entries"]) == (3, 10, 7)


def test_what_cannot_be_replayed_is_told_with_a_remedy(tmp_path: Path) -> None:
    place = tmp_path / "plugins"
    place.mkdir()
    methods = "from ipss_headend.plugins import hook\n\n@hook\ndef rpc_methods(): return []\n"
    load_commands()
    with installed(place, methods=methods), fleet(1, "127.96.4.1") as running:
        path = head_end(tmp_path, "", running)
        written(path, {1: [1]}, Layout(3, ITEM, 2, (LayoutColumn(3, ITEM, 2, 0, 0, "Wh", ""),)), 1, 1)
        for words, told in (
            (["methods"], "it has rpc_methods, and a replay asks none of these, but billing_validate_batch, "),
            (["valdate"], "did you mean validate?"),
            (["validate", "--source", "./nowhere"], "nowhere: no such directory"),
            (["validate", "--from-cursor", "99"], "the log has no entry there"),
            (["validate", "--since", "yesterday"], "is no moment"),
        ):
            done = CliRunner().invoke(app, ["plugin", "replay", *words, "--config", str(path)])
            assert done.exit_code != 0
            assert told in done.output, done.output


SHADOW = """
from ipss_headend.plugins import MethodOffer, hook

@hook
def rpc_methods():
    return [MethodOffer("twice", "view", "Twice.", {"number": "integer"}, {"twice": "integer"})]

@hook
def rpc_call(ctx, method, params, actor):
    return {"twice": TIMES * params["number"]}
"""


def test_a_shadow_beside_a_running_head_end_is_told_of_by_rpc_command_line_and_metrics(tmp_path: Path) -> None:
    async def use(started: HeadEnd) -> None:
        async with AsyncClient(address(started)) as client:
            for number in (0, 1, 2):
                assert (await client.call("x.live.twice", number=number)) == {"twice": 2 * number}
            while True:
                [shadow] = (await client.call("plugin.shadow", plugin="live"))["shadows"]
                if shadow["same"] + shadow["different"] == 3:
                    break
                await trio.sleep(0.05)
            told.append(shadow)
            assert (await client.call("plugin.status", plugin="live"))["shadows"] == ["next"]
            assert "next" not in {one["plugin"] for one in (await client.call("plugin.list"))["plugins"]}
            assert (await client.call("plugin.reload", plugin="next"))["running"]
            page.append((await client.call("admin.metrics"))["text"])

        def shown() -> None:
            done = CliRunner().invoke(app, ["plugin", "shadow", "--config", str(path)])
            assert done.exit_code == 0, done.output
            page.append(done.output)
            gone = CliRunner().invoke(app, ["plugin", "shadow", "nobody", "--config", str(path)])
            assert gone.exit_code != 0
            assert "has no shadow and is none" in gone.output

        await trio.to_thread.run_sync(shown)

    load_commands()
    told: list[dict[str, Any]] = []
    page: list[str] = []
    place = tmp_path / "plugins"
    place.mkdir()
    source = tmp_path / "versions" / "live.py"
    source.parent.mkdir()
    source.write_text(SHADOW.replace("TIMES", "3"))
    shadows = (
        '[plugins]\nenabled = ["live"]\npatience = 50\n'
        '[plugins.shadows.next]\nshadow_of = "live"\nsource = "./versions/live.py"\n'
    )
    with installed(place, live=SHADOW.replace("TIMES", "2")), fleet(1, "127.96.5.1") as running:
        path = head_end(tmp_path, shadows, running)
        serving(path, use, limit_s=60)

    [shadow] = told
    assert (shadow["shadow"], shadow["shadow_of"], shadow["running"], shadow["fault"]) == ("next", "live", True, None)
    assert shadow["source"] == str(source)
    assert (shadow["same"], shadow["different"], shadow["failed"], shadow["dropped"]) == (1, 2, 0, 0)
    assert [(one["live"], one["shadow"]) for one in shadow["examples"]] == [
        ('{"twice":4}', '{"twice":6}'),
        ('{"twice":2}', '{"twice":3}'),
    ]
    sample = 'head_end_plugin_shadow_answers_total{hook="rpc_call",plugin="live",shadow="next",verdict="different"} 2.0'
    assert sample in page[0]
    assert "next\tlive\tyes\t1\t2\t0\t0\t0" in page[1]
