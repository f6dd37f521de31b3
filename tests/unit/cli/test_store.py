"""`ipss-headend store`: old months, backups, and what is there."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.support import FLEET, Run

from ipss_headend.config import load
from ipss_headend.store import Database, WriteBatch, journal, reading_row
from ipss_headend.store.partitions import Month
from ipss_headend.store.registry import Layout, LayoutColumn, intern_layouts

JANUARY = Month(2024, 1)
DAY_US = 86_400_000_000


@pytest.fixture
def filled(run: Run, native: Any, head_end: Path, tmp_path: Path) -> Path:
    """A head-end with two meters that were read from January to March 2024."""
    fleet = tmp_path / "fleet.csv"
    fleet.write_text(FLEET)
    assert run("meters", "import", fleet, "--config", head_end).status == 0
    layout = Layout(7, "1.0.99.1.0.255", 2, (LayoutColumn(3, "1.0.1.8.0.255", 2, scaler=0, unit="Wh"),))
    with (
        Database(load(head_end).database.address, own=True, reserve_bytes=0) as database,
        database.writing() as connection,
    ):
        [number] = intern_layouts(connection, [layout])
        rows = [
            reading_row(meter, number, JANUARY.from_us + day * DAY_US, [day], received_us=JANUARY.from_us)
            for meter in (1, 2)
            for day in range(80)
        ]
        journal.write(connection, WriteBatch(rows), 1, database.epoch or 0)
    return head_end


def test_retired_month_is_gone_from_the_store_and_read_from_its_archive(run: Run, filled: Path) -> None:
    retired = run("store", "retire", "--before", "2024-02", "--config", filled, "--json")

    [one] = json.loads(retired.out)["retired"]
    assert (retired.status, one["month"], one["lines"], one["deleted"]) == (0, "2024-01", 62, 62)
    assert one["archive"] == str(filled.parent / "data" / "archive" / "readings-2024-01.sqlite")
    asked = ("readings", "query", "oak street 1", "--from", "2024-01-01", "--to", "2024-03-01", "--json")
    there = json.loads(run(*asked, "--config", filled).out)["readings"]
    archived = json.loads(run(*asked, "--archive", one["archive"]).out)["readings"]
    assert [int(found["value"]) for found in archived] == list(range(31))
    assert [int(found["value"]) for found in there] == list(range(31, 60))
    exported = run(
        "readings", "export", "--archive", one["archive"], "--meter", "oak street 2", filled.parent / "x.csv"
    )
    assert exported.status == 0
    assert len((filled.parent / "x.csv").read_text().splitlines()) == 1 + 31
    assert run("store", "verify", "--config", filled).status == 0
    assert json.loads(run("store", "status", "--config", filled, "--json").out)["lines"] == 98
    assert run("audit", "verify", "--config", filled).status == 0
    archive = run("store", "verify", one["archive"], "--json")
    assert (archive.status, json.loads(archive.out)["digest"]) == (0, one["digest"])


def test_damaged_line_stays_and_the_command_says_so(run: Run, filled: Path) -> None:
    with Database(load(filled).database.address, reserve_bytes=0) as database, database.writing() as connection:
        connection.exec_driver_sql(
            "UPDATE readings SET crc = 1 WHERE meter_id = 1 AND capture_time_us = ?", (JANUARY.from_us,)
        )

    retired = run("store", "retire", "--before", "2024-02", "--config", filled)

    assert retired.status == 8
    assert "does not match its checksum" in retired.err
    verified = run("store", "verify", "--config", filled, "--json")
    assert verified.status == 1
    assert (json.loads(verified.out)["lines"], json.loads(verified.out)["missing"]) == (99, 0)


@pytest.mark.parametrize("month", ["2024", "2024-13", "January", "0000-01"])
def test_what_is_no_month_is_told(run: Run, head_end: Path, month: str) -> None:
    ran = run("store", "retire", "--before", month, "--config", head_end)

    assert ran.status == 2
    assert "no month" in ran.err


def test_file_that_is_no_archive_is_told(run: Run, filled: Path) -> None:
    for file in (filled, filled.parent / "data" / "head_end.sqlite", filled.parent / "none"):
        for command in (("store", "verify", file), ("readings", "query", "oak street 1", "--archive", file)):
            assert run(*command).status == 3


def test_compact_gives_the_room_back(run: Run, filled: Path) -> None:
    with Database(load(filled).database.address, own=True, reserve_bytes=0) as database:
        with database.writing() as connection:
            rows = [reading_row(1, 1, place, [bytes(500)], received_us=0) for place in range(5000)]
            journal.write(connection, WriteBatch(rows), 1, database.epoch or 0)
        with database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM readings WHERE capture_time_us < 5000")
            connection.exec_driver_sql("DELETE FROM log")
            connection.exec_driver_sql("INSERT INTO ledger (written_us, epoch, readings) VALUES (0, 0, -5000)")
        assert run("store", "compact", "--config", filled).status == 3  # it runs
    free = json.loads(run("store", "status", "--config", filled, "--json").out)["octets_free_within"]

    compacted = json.loads(run("store", "compact", "--config", filled, "--json").out)

    assert free > 2_000_000
    assert compacted["after"] < compacted["before"] - free * 0.9
    assert run("store", "verify", "--config", filled).status == 0
    assert "copied back" not in run("keys", "status", "--config", filled).out


def test_backup_is_made_kept_so_many_times_and_restored(run: Run, filled: Path, tmp_path: Path) -> None:
    directory = tmp_path / "mount"
    directory.mkdir()
    for _ in range(3):
        made = json.loads(run("store", "backup", directory, "--keep", "2", "--config", filled, "--json").out)
        assert made["lines"] == 160
    assert len(list(directory.iterdir())) == 2
    assert len(made["removed"]) == 1
    run("store", "retire", "--before", "2024-02", "--config", filled)

    restored = run("store", "restore", made["path"], "--config", filled)

    assert restored.status == 0
    assert "accept-restore" in restored.err
    assert json.loads(run("store", "status", "--config", filled, "--json").out)["lines"] == 160
    assert run("keys", "accept-restore", "--config", filled).status == 0
    assert run("store", "verify", "--config", filled).status == 0


def test_backup_without_a_place_goes_into_the_data_directory(run: Run, filled: Path) -> None:
    made = json.loads(run("store", "backup", "--config", filled, "--json").out)

    assert Path(made["path"]).parent == filled.parent / "data" / "backups"
    assert run("store", "backup", filled.parent / "one.sqlite", "--keep", "1", "--config", filled).status == 2
