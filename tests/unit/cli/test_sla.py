"""`ipss-headend sla`: what was read in time, and an honest end."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from tests.unit.cli.support import FLEET, Run

from ipss_headend.cli.sla import percent
from ipss_headend.config import load
from ipss_headend.store import Database, WriteBatch, journal, reading_row, schema
from ipss_headend.store.registry import Layout, LayoutColumn, intern_layouts

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
QUARTER_US = HOUR_US // 4
FROM_US = 1_767_225_600_000_000
"""2026-01-01."""

PLANS = """
[[plans]]
name = "load profile"
profile = "1.0.99.1.0.255"
every = "15min"

[[plans]]
name = "billing"
objects = ["1.0.1.8.0.255", "4/1.0.1.6.0.255"]
every = "1d at 00:10"
groups = ["east"]
"""
SPAN = ("--from", "2026-01-01", "--to", "2026-01-03")


@pytest.fixture
def served(run: Run, native: Any, head_end: Path, tmp_path: Path) -> Path:
    """Two meters for two days: of the first all came at once, of the second an hour is missing and half is late."""
    fleet = tmp_path / "fleet.csv"
    fleet.write_text(FLEET)
    head_end.write_text(head_end.read_text().partition("[[plans]]")[0] + PLANS)
    assert run("meters", "import", fleet, "--config", head_end).status == 0
    energy = LayoutColumn(3, "1.0.1.8.0.255", 2, scaler=0, unit="Wh")
    layouts = [
        Layout(7, "1.0.99.1.0.255", 2, (energy,)),
        Layout(3, "1.0.1.8.0.255", 2, (energy,)),
        Layout(4, "1.0.1.6.0.255", 2, (energy,)),
    ]

    def lines(profile: int, register: int) -> Iterable[tuple[Any, ...]]:
        for place in range(2 * 96):
            time_us = FROM_US + place * QUARTER_US
            yield reading_row(1, profile, time_us, [place], received_us=time_us)
            if not 40 <= place < 44:
                late_us = 30 * HOUR_US if place % 2 else 2 * HOUR_US
                yield reading_row(2, profile, time_us, [place], received_us=time_us + late_us)
        turn_us = FROM_US + 10 * 60_000_000
        yield reading_row(1, register, turn_us + 5, [1], received_us=turn_us + 5)

    with (
        Database(load(head_end).database.address, own=True, reserve_bytes=0) as database,
        database.writing() as connection,
    ):
        profile, register, _ = intern_layouts(connection, layouts)
        connection.exec_driver_sql("UPDATE meters SET added_us = 0")
        journal.write(connection, WriteBatch(list(lines(profile, register))), 1, database.epoch or 0)
        for number, (state, took_us) in enumerate(
            (("confirmed", 3), ("confirmed", 5), ("failed", 60), ("proposed", 0))
        ):
            times = {"created_us": FROM_US + 7, "not_after_us": 0}
            connection.execute(
                insert(schema.orders).values(
                    order_id=bytes([number]), octets=b"", kind="switch-off", requester="ada", targets=1, **times
                )
            )
            connection.execute(
                insert(schema.commands).values(
                    command_id=bytes([number]),
                    order_id=bytes([number]),
                    meter_id=1,
                    state=state,
                    quarantined=0,
                    due_us=0,
                    changed_us=FROM_US + 7 + took_us * 1_000_000,
                    alarmed=0,
                    detail="",
                )
            )
    return head_end


def test_plans_groups_worst_meters_and_commands(run: Run, served: Path) -> None:
    ran = run("sla", *SPAN, "--config", served, "--json")

    assert ran.status == 0
    found = json.loads(ran.out)
    profile, billing = found["plans"]
    assert (profile["meters"], profile["expected"], profile["found"]) == (2, 384, 380)
    assert profile["completeness_percent"] == 98.958
    assert profile["in_time"] == {
        "1h": {"due": 384, "in_time": 192, "percent": 50.0},
        "6h": {"due": 384, "in_time": 192 + 94, "percent": 74.479},
        "24h": {"due": 384, "in_time": 192 + 94, "percent": 74.479},
    }
    assert [(one["group"], one["found"]) for one in profile["groups"]] == [("east", 192), ("west", 188)]
    assert (billing["meters"], billing["expected"], billing["found"]) == (1, 2, 1)
    assert found["not_judged"] == [
        "plan billing: 1.0.1.6.0.255 is not judged: its lines have the moment of its own last capture"
    ]
    worst = found["worst"]
    assert [(one["meter"], one["plan"]) for one in worst] == [
        ("oak street 2", "load profile"),
        ("oak street 1", "billing"),
    ]
    assert worst[0]["gaps"] == [{"from": "2026-01-01T10:00:00Z", "to": "2026-01-01T11:00:00Z"}]
    assert (worst[0]["gap_count"], worst[0]["longest_gap_s"]) == (1, 3600)
    assert found["commands"] == [
        {"kind": "switch-off", "state": "confirmed", "count": 2, "p50_s": 3.0, "p95_s": 5.0, "longest_s": 5.0},
        {"kind": "switch-off", "state": "failed", "count": 1, "p50_s": 60.0, "p95_s": 60.0, "longest_s": 60.0},
        {"kind": "switch-off", "state": "proposed", "count": 1, "p50_s": None, "p95_s": None, "longest_s": None},
    ]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (("--at-least", "99.5"), 8),
        (("--at-least", "74.4"), 8),  # the billing plan has half
        (("--at-least", "74.4", "--plan", "load profile"), 0),
        (("--at-least", "74.5", "--plan", "load profile"), 8),
        (("--at-least", "100", "--meter", "oak street 1", "--plan", "load profile"), 0),
        (("--at-least", "97", "--within", "31h", "--group", "west"), 0),
        (("--at-least", "98", "--within", "31h", "--group", "west"), 8),
        (("--at-least", "1", "--from", "1h", "--to", "0s"), 8),  # nothing was due that long ago
        (("--plan", "none"), 2),
        (("--group", "north"), 2),
        (("--within", "soon"), 2),
        (("--from", "2026-02-01"), 2),
        (("--meter", "oak street"), 2),
    ],
)
def test_end_is_honest(run: Run, served: Path, options: tuple[str, ...], status: int) -> None:
    ran = run("sla", *SPAN, *options, "--config", served)

    assert ran.status == status, ran.err
    assert bool(ran.err) == bool(status) or "not judged" in ran.err


def test_table_and_days(run: Run, served: Path) -> None:
    ran = run("sla", *SPAN, "--by-day", "--config", served)

    assert "load profile\t1.0.99.1.0.255\t\t2\t384\t4\t98.958\t50\t74.479\t74.479" in ran.out
    assert "\t\twest\t1\t192\t4\t97.916\t0\t48.958\t48.958" in ran.out
    assert "2026-01-01\t193\t97.927" in ran.out


def test_what_was_retired_is_not_judged(run: Run, served: Path) -> None:
    assert run("store", "retire", "--before", "2026-02", "--config", served).status == 0

    ran = run("sla", "--from", "2026-01-01", "--to", "2026-02-02", "--config", served, "--json")

    assert json.loads(ran.out)["from"] == "2026-02-01T00:00:00Z"
    assert "retired" in ran.err


def test_share_is_never_more_than_it_is() -> None:
    assert percent(999_999, 1_000_000) == 99.999
    assert percent(1_000_000, 1_000_000) == 100.0
    assert percent(0, 0) is None
