"""How `capacity` reckons, and that nothing of it stays behind."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.support import FLEET, Run

from ipss_headend.cli import capacity
from ipss_headend.cli.reckoning import Demand, Machine, Measured, demand, limits, machine
from ipss_headend.cli.scratch import scratch
from ipss_headend.config import load, parse

CONFIG = parse(
    """
[keystore]
key_file = "k"
[reactor]
connections_per_second = 10
[[plans]]
name = "load profile"
profile = "1.0.99.1.0.255"
every = "1h"
[[plans]]
name = "billing"
objects = ["1.0.1.8.0.255", "1.0.2.8.0.255"]
every = "1d"
""",
    Path("/nowhere/head_end.toml"),
)
MEASURED = Measured(500, 500.0, 100.0, 5.0, 50_000.0, 200.0, 10_240)
MACHINE = Machine(2, 4 << 30, 20_256, 10**12)


def found(measured: Measured = MEASURED, here: Machine = MACHINE) -> dict[str, int]:
    return {one.what: one.meters for one in limits(CONFIG, demand(CONFIG), measured, here)}


def test_demand_is_that_of_the_plans() -> None:
    assert demand(CONFIG) == Demand(25.0, 2.0, 96.0, 98.0, 3600, 365)


def test_each_limit_is_what_there_is_over_what_a_meter_takes() -> None:
    assert found() == {
        "processor time": int(0.5 * 86400e6 / (25 * 100 + 96 * 5)),
        "associations after an outage": 36_000,
        "lines a second": int(25_000 / (98 / 86400)),
        "file descriptors": 20_000,
        "memory": (2 << 30) // 10_240,
        "disk": int(10**12 / (98 * 200 * 365)),
    }


def test_a_machine_with_nothing_left_has_no_meters() -> None:
    assert set(found(here=Machine(1, 0, 100, 0)).values()) >= {0}
    assert found(here=Machine(1, 0, 100, 0))["file descriptors"] == 0


def test_slow_associations_count_against_the_shortest_plan() -> None:
    assert found(replace(MEASURED, association_cpu_us=1e6))["associations after an outage"] == 1800


def test_plan_of_a_group_weighs_as_much_as_it_has_meters(run: Run, native: Any, head_end: Path, tmp_path: Path) -> None:
    (tmp_path / "fleet.csv").write_text(FLEET)
    plan = '[[plans]]\nname = "x"\nprofile = "1.0.99.1.0.255"\nevery = "1h"\ngroups = ["east"]\n'
    head_end.write_text(head_end.read_text().partition("[[plans]]")[0] + plan)
    assert run("meters", "import", tmp_path / "fleet.csv", "--config", head_end).status == 0

    assert demand(load(head_end)).requests_per_day == 12.0


def test_machine_is_this_one() -> None:
    here = machine(CONFIG)

    assert here.processors == len(os.sched_getaffinity(0))
    assert here.memory_octets > 0
    assert here.disk_octets > 0


def test_what_it_says_is_the_least(run: Run, native: Any, head_end: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "measure", lambda *_: MEASURED)
    monkeypatch.setattr(capacity, "machine", lambda _: MACHINE)

    shown = json.loads(run("capacity", "--config", head_end, "--json").out)
    table = run("capacity", "--config", head_end)

    assert shown["meters"] == min(one["meters"] for one in shown["limits"])
    assert shown["first"] == "file descriptors"
    assert shown["measured"]["request_cpu_us"] == 100.0
    assert table.out.startswith("20,000 meters; file descriptors runs out first")
    assert [one.name for one in (head_end.parent / "data").iterdir() if one.name.startswith(".")] == []


def test_data_directory_that_is_not_there_is_not_made(
    run: Run, native: Any, head_end: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "measure", lambda *_: MEASURED)
    head_end.write_text(head_end.read_text().replace('data_directory = "data"', 'data_directory = "later/data"'))

    assert run("capacity", "--config", head_end).status == 0

    assert {path.name for path in head_end.parent.iterdir()} == {"head_end.toml", "key_encryption.key", "data"}


def test_without_plans_nothing_can_be_said(run: Run, native: Any, head_end: Path) -> None:
    head_end.write_text(head_end.read_text().partition("[[plans]]")[0])

    assert run("capacity", "--config", head_end).status == 2


def test_what_a_killed_process_left_goes_and_what_another_uses_stays(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from ipss_headend.cli.scratch import scratch\n"
    code += "with scratch(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    [left] = tmp_path.iterdir()

    with scratch(tmp_path) as first:
        (first / "file").touch()
        assert not left.exists()
        with scratch(tmp_path) as second:
            assert first.exists()
            assert second != first
    assert list(tmp_path.iterdir()) == []
