"""One owner, one schema, and what a failing disk leaves behind."""

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from ipss_headend.errors import (
    StaleOwner,
    StoreDamaged,
    StoreError,
    StoreFailed,
    StoreFull,
    StoreInUse,
    StoreTooNew,
    StoreUnavailable,
)
from ipss_headend.store import Address, Database, Store, WriteBatch, counters, journal, reading_row
from ipss_headend.store import sqlite as sqlite_file
from ipss_headend.store.schema import SCHEMA_VERSION


def test_store_is_for_its_owner_only(path: Path) -> None:
    Database(path).close()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_writes_are_synced(path: Path) -> None:
    with Database(path, reserve_bytes=0) as database, database.writing() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_second_head_end_is_refused_with_the_first_ones_process(address: Address, database: Database) -> None:
    with pytest.raises(StoreInUse, match=rf"{os.getpid()} .*is the head-end of this store; stop it first"):
        Database(address, own=True)


def test_guest_sees_whether_a_head_end_runs(address: Address, database: Database) -> None:
    with Database(address) as guest:
        assert guest.owned_by_another()
        database.close()
        assert not guest.owned_by_another()


def test_head_end_waits_for_a_guest_that_writes_for_long(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A big import beside it: what would not wait ended the head-end, counters and the lease among it."""
    monkeypatch.setattr(sqlite_file, "BUSY_MS", 20)
    tries: list[StoreUnavailable] = []
    with Database(path, own=True, reserve_bytes=0) as database:
        store = Store(database)
        guest = sqlite3.connect(path, isolation_level=None)
        guest.execute("BEGIN IMMEDIATE")
        written = store._written

        async def noted(*arguments: Any, **options: Any) -> Any:
            try:
                return await written(*arguments, **options)
            except StoreUnavailable as error:
                tries.append(error)
                if len(tries) == 2:
                    guest.execute("COMMIT")
                raise

        monkeypatch.setattr(store, "_written", noted)

        assert trio.run(store.reserve, [1], 10) == [(1, 1, 11)]
        assert len(tries) >= 2
        guest.close()


def test_guest_reads_and_writes_beside_the_owner(address: Address, database: Database) -> None:
    with Database(address, reserve_bytes=0) as guest, guest.writing() as connection:
        counters.raise_to(connection, [(1, 500)])

    with database.reading() as connection:
        assert counters.granted_until(connection, [1]) == {1: 500}


def test_a_guest_of_the_owners_process_leaves_its_locks_on_the_file_alone(path: Path) -> None:
    """Without them a process that comes and goes takes itself for the last one, and the log from under the owner."""
    come_and_go = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM owner').fetchone()"
    with Database(path, own=True, reserve_bytes=0) as database:
        Database(path).close()
        with database.writing() as connection:
            counters.raise_to(connection, [(1, 500)])
        subprocess.run([sys.executable, "-c", come_and_go, str(path)], check=True, timeout=60)
        log = path.with_name(path.name + "-wal")
        kept = log.exists() and log.stat().st_size > 0

        with database.reading() as connection:
            assert counters.granted_until(connection, [1]) == {1: 500}

    assert kept


def test_each_owner_has_a_higher_epoch(address: Address) -> None:
    epochs = []
    for _ in range(3):
        with Database(address, own=True) as database:
            epochs.append(database.epoch)

    assert epochs == [1, 2, 3]


def test_stale_owner_gets_no_counter_and_writes_nothing(address: Address, database: Database) -> None:
    with Database(address, reserve_bytes=0) as another, another.writing() as connection:
        connection.exec_driver_sql("UPDATE owner SET epoch = epoch + 1")

    with pytest.raises(StaleOwner, match=r"owned by epoch 2 now, this process has epoch 1"), database.writing() as one:
        counters.reserve(one, [1], 10)
    with pytest.raises(StaleOwner), database.writing() as one:
        journal.write(one, WriteBatch(), 0, 1)

    with database.reading() as connection:
        assert counters.granted_until(connection, [1]) == {}


def test_newer_schema_is_refused_and_left_alone(address: Address) -> None:
    with Database(address, reserve_bytes=0) as newer:
        with newer.writing() as connection:
            connection.exec_driver_sql("UPDATE schema_info SET schema_version = 99")

        with pytest.raises(
            StoreTooNew, match=rf"written by a newer head-end \(schema 99, this one knows {SCHEMA_VERSION}\)"
        ):
            Database(address, own=True)

        with newer.reading() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM owner").scalar() == 0


def test_file_that_is_no_store_is_said_so(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database, but it is long enough to look at" * 20)

    with pytest.raises(StoreDamaged, match="not a database"):
        Database(path)


def test_damage_that_cannot_even_be_quoted_is_damage(path: Path) -> None:
    Database(path).close()
    octets = path.read_bytes()
    path.write_bytes(octets.replace(b"CREATE TABLE readings", b"CREATE \xf2ABLE readings"))

    with pytest.raises(StoreDamaged, match="restore a backup"):
        Database(path)


def test_failed_open_gives_the_ownership_back(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database, but it is long enough to look at" * 20)
    with pytest.raises(StoreDamaged):
        Database(path, own=True)
    path.unlink()

    Database(path, own=True).close()


def test_readings_stop_at_the_reserve_and_counters_go_on(path: Path) -> None:
    room = [10 << 20]
    with Database(path, own=True, reserve_bytes=64 << 20, free=lambda _: room[0]) as database:
        with pytest.raises(StoreFull, match=r"10 MiB free of the 64 MiB"), database.writing():
            pass
        with database.writing(spend_reserve=True) as connection:
            assert counters.reserve(connection, [1], 10)[0].end == 11

        room[0] = 65 << 20

        with database.writing() as connection:
            connection.execute(text("SELECT 1"))


def test_full_disk_loses_nothing_acknowledged_and_needs_no_restart(path: Path) -> None:
    with Database(path, own=True, reserve_bytes=0) as database:
        fill(database)


def fill(database: Database) -> None:
    rows = [reading_row(1, 1, n, [b"x" * 200], received_us=0) for n in range(2000)]
    with database.writing() as connection:
        journal.write(connection, WriteBatch(rows[:10]), 0, 1)
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 5}")

    with pytest.raises(StoreFull), database.writing() as connection:
        journal.write(connection, WriteBatch(rows), 0, 1)

    with database.writing() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM readings").scalar() == 10
        connection.exec_driver_sql("PRAGMA max_page_count = 100000")
        assert journal.write(connection, WriteBatch(rows), 0, 1)[:2] == (1990, 10)


def test_after_a_failed_write_nothing_is_acknowledged_any_more(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(path, own=True, reserve_bytes=0)

    def fail(*_: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
        raise error

    monkeypatch.setattr(database._writer.dialect, "do_commit", fail)
    with pytest.raises(StoreFailed, match="SQLITE_IOERR_FSYNC"), database.writing():
        pass
    monkeypatch.undo()

    with pytest.raises(StoreFailed, match="an earlier write failed"), database.writing(spend_reserve=True):
        pass
    database.close()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("SQLITE_CORRUPT_INDEX", StoreDamaged),
        ("SQLITE_FULL", StoreFull),
        ("SQLITE_BUSY", StoreUnavailable),
        ("SQLITE_IOERR_WRITE", StoreFailed),
        ("SQLITE_READONLY", StoreFailed),
        ("", StoreFailed),
    ],
)
def test_sqlite_errors_become_ours(path: Path, name: str, kind: type[StoreError]) -> None:
    error = sqlite3.OperationalError("words")
    if name:
        error.sqlite_errorname = name

    with Database(path) as database:
        assert type(database._backend.translated(OperationalError("", {}, error))) is kind


def test_block_that_raises_leaves_nothing(database: Database) -> None:
    def give_up() -> None:
        with database.writing() as connection:
            counters.raise_to(connection, [(1, 5)])
            raise KeyError

    with pytest.raises(KeyError):
        give_up()

    with database.reading() as connection:
        assert counters.granted_until(connection, [1]) == {}


def test_reader_cannot_write(database: Database) -> None:
    with pytest.raises(StoreError), database.reading() as connection:
        counters.raise_to(connection, [(1, 5)])
