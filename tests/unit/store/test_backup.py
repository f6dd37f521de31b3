"""Copies of a SQLite store that is in use: whole, of one moment, and noticed when they are put back (R8)."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipss_headend.errors import ConfigError, StoreDamaged, StoreFull, StoreInUse, StoreRestored
from ipss_headend.store import Database, WriteBatch, backup, counters, journal, reading_row, readings, restore
from ipss_headend.store.database import now_us


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with Database(path, own=True, reserve_bytes=0) as opened:
        yield opened


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "backups" / "copy.sqlite"


def write(database: Database, number: int, lines: int = 500) -> None:
    rows = [reading_row(number, 1, time_us, [time_us] * 8, received_us=0) for time_us in range(lines)]
    with database.writing() as connection:
        journal.write(connection, WriteBatch(rows), 0, database.epoch or 0)


def test_copy_made_while_it_is_written_to_is_of_one_moment(
    database: Database, path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "PAGES", 8)
    for number in range(20):
        write(database, number)
    stopped = threading.Event()
    steps: list[int] = []

    def go_on() -> None:
        number = 100
        while not stopped.is_set():
            write(database, number, 50)
            number += 1

    writer = threading.Thread(target=go_on)

    def progress(done: int, whole: int) -> None:
        if not steps:
            writer.start()
        steps.append(done)

    try:
        made = backup.make(path, target, progress=progress)
    finally:
        stopped.set()
        writer.join()

    assert len(steps) > 10
    assert steps == sorted(steps)  # it never began anew
    assert made.lines == 20 * 500
    assert {one.name for one in target.parent.iterdir()} == {target.name}
    assert target.stat().st_mode & 0o777 == 0o600


def test_copy_put_back_grants_no_counter_until_that_is_accepted(path: Path, target: Path) -> None:
    with Database(path, own=True, reserve_bytes=0) as database:
        write(database, 1)
        with database.writing() as connection:
            first = counters.reserve(connection, [1], 100)[0]
        backup.make(path, target)
        write(database, 2)
        with database.writing() as connection:
            later = counters.reserve(connection, [1], 100)[0]
        with pytest.raises(StoreInUse):
            backup.put_back(target, path, 1)

    [aside] = backup.put_back(target, path, 1)

    assert first.next < later.next
    with Database(path, own=True, reserve_bytes=0) as database:
        with pytest.raises(StoreRestored, match="backup"), database.writing() as connection:
            counters.reserve(connection, [1], 100)
        with database.reading() as connection:
            assert readings.line_count(connection) == 500
        with database.writing() as connection:
            restore.accept(connection, database.place(), now_us())
        with database.writing() as connection:
            assert counters.reserve(connection, [1], 100)[0].next > later.next + 100
    assert aside.name == "head_end.sqlite.replaced-1"
    set_aside = sqlite3.connect(aside)
    assert set_aside.execute("SELECT count(*) FROM readings").fetchone() == (1000,)
    set_aside.close()


def test_copy_used_where_it_is_says_that_it_is_one(database: Database, path: Path, target: Path) -> None:
    backup.make(path, target)

    with Database(target, own=True, reserve_bytes=0) as copy, copy.reading() as connection:
        assert restore.state(connection).startswith("it is a backup of 20")


def test_store_whose_rows_are_damaged_gives_no_copy(database: Database, path: Path, target: Path) -> None:
    write(database, 1)
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE readings SET crc = crc + 1 WHERE capture_time_us = 7")

    with pytest.raises(StoreDamaged, match="checksum"):
        backup.make(path, target)

    assert list(target.parent.iterdir()) == []


def test_damaged_copy_is_not_put_back(path: Path, target: Path) -> None:
    with Database(path, own=True, reserve_bytes=0) as database:
        write(database, 1)
        backup.make(path, target)
    octets = target.read_bytes()
    target.write_bytes(octets[:9000] + bytes(5000) + octets[14000:])

    with pytest.raises(StoreDamaged):
        backup.put_back(target, path, 1)

    with Database(path, own=True, reserve_bytes=0) as database, database.reading() as connection:
        assert readings.verify(connection).lines == 500


def test_broken_store_is_set_aside_whole(path: Path, target: Path) -> None:
    with Database(path, own=True, reserve_bytes=0) as database:
        write(database, 1)
        backup.make(path, target)
    path.write_bytes(b"broken" * 1000)
    path.with_name(path.name + "-wal").write_bytes(b"of the broken one")

    aside = backup.put_back(target, path, 7)

    assert {one.name for one in aside} >= {"head_end.sqlite.replaced-7", "head_end.sqlite.replaced-7-wal"}
    with Database(path, own=True, reserve_bytes=0) as database, database.reading() as connection:
        assert readings.verify(connection).lines == 500
        assert restore.state(connection)


def test_what_is_there_is_not_overwritten(database: Database, path: Path, target: Path) -> None:
    backup.make(path, target)

    with pytest.raises(ConfigError, match="already"):
        backup.make(path, target)


def test_no_copy_without_room(database: Database, path: Path, target: Path) -> None:
    with pytest.raises(StoreFull):
        backup.make(path, target, reserve_bytes=1 << 60)

    assert not target.exists()


def test_no_store_is_no_backup(tmp_path: Path, path: Path) -> None:
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE x (y)")
    connection.close()

    with pytest.raises(ConfigError, match="no store"):
        backup.put_back(other, path, 1)
    with pytest.raises(ConfigError, match="no such file"):
        backup.put_back(tmp_path / "none", path, 1)


def test_only_the_oldest_copies_of_ours_are_dropped(tmp_path: Path) -> None:
    store = tmp_path / "head_end.sqlite"
    named = [tmp_path / backup.name(store, number * 10**12) for number in range(5)]
    others = [tmp_path / "head_end-by-hand.sqlite", tmp_path / "other-20260101T000000.000000Z.sqlite"]
    for one in [*named, *others]:
        one.touch()

    assert backup.dropped(tmp_path, store, 2) == named[:3]

    assert set(tmp_path.iterdir()) == {*named[3:], *others}


CHILD = """
import os, signal, sys
from pathlib import Path
from ipss_headend.store import backup

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

what, one, other, point = sys.argv[1:]
if point == "replace":
    Path.replace = die
else:
    setattr(backup, point, die)
if what == "make":
    backup.make(Path(one), Path(other))
else:
    backup.put_back(Path(one), Path(other), 1)
"""


@pytest.mark.parametrize("point", ["_marked", "sync", "_sound"])
def test_killed_while_copying_leaves_no_copy_and_the_store(path: Path, target: Path, point: str) -> None:
    with Database(path, own=True, reserve_bytes=0) as database:
        write(database, 1)
        child = subprocess.run([sys.executable, "-c", CHILD, "make", path, target, point], check=False)

        assert child.returncode == -signal.SIGKILL
        assert not target.exists()
        assert backup.make(path, target).lines == 500


@pytest.mark.parametrize("point", ["_marked", "_log_written_back", "replace"])
def test_killed_while_putting_back_leaves_one_store_or_the_other(path: Path, target: Path, point: str) -> None:
    with Database(path, own=True, reserve_bytes=0) as database:
        write(database, 1)
        backup.make(path, target)
        write(database, 2)

    child = subprocess.run([sys.executable, "-c", CHILD, "put back", target, path, point], check=False)

    assert child.returncode == -signal.SIGKILL
    with Database(path, own=True, reserve_bytes=0) as database, database.reading() as connection:
        assert readings.verify(connection).lines == 1000
    assert len(backup.put_back(target, path, 2)) == 1
    with Database(path, own=True, reserve_bytes=0) as database, database.reading() as connection:
        assert readings.verify(connection).lines == 500
