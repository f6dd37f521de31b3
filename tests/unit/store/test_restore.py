"""A store that was copied back grants nothing that may have been used since (R8)."""

import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from ipss_headend.errors import SECURITY, ConfigError, StoreFailed, StoreRestored
from ipss_headend.store import Database, counters, restore
from ipss_headend.store.schema import invocation_counters, meter_keys, restore_guard

HOUR_S = 3600
METERS = (1, 2, 3)

RESTORES = int(os.environ.get("IPSS_RESTORES", "12"))
"""R8 asks for 100."""


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "data"
    yield directory / "head_end.sqlite"
    shutil.rmtree(directory, ignore_errors=True)


def opened(path: Path, *, own: bool = False) -> Database:
    return Database(path, reserve_bytes=0, own=own)


def grant(path: Path, size: int = 100, *, times: int = 1) -> list[counters.CounterBlock]:
    with opened(path) as database:
        for _ in range(times):
            with database.writing() as connection:
                blocks = counters.reserve(connection, METERS, size)
        return blocks


def copy(path: Path, to: Path) -> None:
    """A consistent copy of the store alone, as a backup makes it."""
    source, target = sqlite3.connect(path), sqlite3.connect(to)
    source.backup(target)
    source.close()
    target.close()


def put_back(path: Path, backup: Path) -> None:
    for one in path.parent.glob(path.name + "*"):
        if one != restore.marker_path(path):
            one.unlink()
    shutil.copyfile(backup, path)


def accept(path: Path, **options: int) -> restore.Accepted:
    with opened(path) as database, database.writing() as connection:
        now_us = connection.scalar(select(restore_guard.c.at_us)) or 0
        return restore.accept(connection, database.place(), now_us + 1_000_000, **options)


def test_a_store_that_was_not_copied_goes_on(path: Path) -> None:
    for _ in range(3):
        grant(path, times=2)

    with opened(path, own=True) as database, database.reading() as connection:
        assert restore.state(connection) == ""
        marker = restore.load(restore.marker_path(path))
        assert marker is not None
        assert marker.grants == connection.scalar(select(restore_guard.c.grants)) == 7


def test_r8_of_many_restored_copies_none_grants_a_used_counter(path: Path, tmp_path: Path) -> None:
    seeded = random.Random(8)
    backup = tmp_path / "backup"
    used = dict.fromkeys(METERS, 0)
    for _ in range(RESTORES):
        grant(path, seeded.randint(1, 5000))
        backup.unlink(missing_ok=True)
        copy(path, backup)
        # An hour at up to 10 frames a second and meter goes by, and then the copy comes back.
        left = 10 * HOUR_S
        while left == 10 * HOUR_S or (left > 0 and seeded.random() < 0.7):
            size = seeded.randint(1, left)
            left -= size
            used.update({block.meter_id: block.end - 1 for block in grant(path, size)})
        put_back(path, backup)

        with pytest.raises(StoreRestored, match="copied back") as caught:
            grant(path)
        assert caught.value.exit_status == SECURITY
        accept(path, age_s=HOUR_S, frames_per_second=10)

        for block in grant(path, 10):
            assert block.next > used[block.meter_id]
            used[block.meter_id] = block.end - 1


@pytest.mark.parametrize("what", ["store alone", "without marker", "in place", "whole directory", "another machine"])
def test_each_way_to_copy_a_store_back_is_noticed(
    what: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant(path)
    backup = tmp_path / "backup"
    copy(path, backup)
    kept = restore.marker_path(path).read_bytes()
    grant(path)
    if what == "in place":
        for one in (path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
            one.unlink(missing_ok=True)
        path.write_bytes(backup.read_bytes())
    elif what == "another machine":
        (tmp_path / "id").write_text("another\n")
        monkeypatch.setattr(restore, "_MACHINE", tmp_path / "id")
    else:
        put_back(path, backup)
        if what == "without marker":
            restore.marker_path(path).unlink()
        elif what == "whole directory":
            path.rename(path.with_name("held"))  # keeps the old inode in use, as the original directory would
            shutil.copyfile(path.with_name("held"), path)
            restore.marker_path(path).write_bytes(kept)

    with pytest.raises(StoreRestored):
        grant(path)
    with pytest.raises(StoreRestored):  # and after any number of starts
        grant(path)


def test_a_new_store_beside_an_old_marker_may_not_send(path: Path) -> None:
    grant(path)
    for one in path.parent.glob(path.name + "*"):
        if one != restore.marker_path(path):
            one.unlink()

    with pytest.raises(StoreRestored, match="knows an older one"):
        grant(path)


def test_accepting_names_an_age_that_is_too_small(path: Path, tmp_path: Path) -> None:
    grant(path)
    copy(path, tmp_path / "backup")
    marker = restore.load(restore.marker_path(path))
    assert marker is not None
    later = marker._replace(grants=marker.grants + 1, at_us=marker.at_us + 7200 * 1_000_000)
    put_back(path, tmp_path / "backup")
    restore._save(restore.marker_path(path), later)
    with pytest.raises(StoreRestored):
        grant(path)

    with pytest.raises(ConfigError, match=r"--age 3600s is less than the 7200 s that the marker shows"):
        accept(path, age_s=HOUR_S)
    assert accept(path, age_s=7200).margin == 7200 * restore.FRAMES_PER_SECOND + 1


def test_accepting_what_was_not_copied_is_refused(path: Path) -> None:
    grant(path)

    with pytest.raises(ConfigError, match="was not copied back"):
        accept(path)


def test_meters_without_a_counter_are_raised_too_and_none_beyond_the_limit(path: Path) -> None:
    grant(path)
    with opened(path) as database, database.writing() as connection:
        connection.execute(insert(meter_keys).values(meter_id=9, wrapped=b""))
        counters.raise_to(connection, [(1, counters.LIMIT - 5)])
    restore.marker_path(path).unlink()
    with pytest.raises(StoreRestored):
        grant(path)

    accept(path, age_s=100, frames_per_second=10)

    with opened(path) as database, database.reading() as connection:
        found: dict[int, int] = dict(connection.execute(select(invocation_counters)).all())
    assert found == {1: counters.LIMIT, 2: 101 + 1001, 3: 101 + 1001, 9: 1 + 1001}


def test_a_torn_slot_leaves_the_other(path: Path) -> None:
    grant(path, times=4)
    marker = restore.load(restore.marker_path(path))
    assert marker is not None
    octets = bytearray(restore.marker_path(path).read_bytes())
    place = 4096 * (marker.grants % 2)
    octets[place + 12] ^= 1
    restore.marker_path(path).write_bytes(octets)

    before = restore.load(restore.marker_path(path))

    assert before is not None
    assert before.grants == marker.grants - 1
    grant(path)  # a crash between the commit and the marker looks like this, and is none of anybody's business


def test_a_marker_that_cannot_be_written_grants_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grant(path)

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with opened(path) as database:
        monkeypatch.setattr(restore, "_save", broken)
        with pytest.raises(StoreFailed, match=r"\.marker: Input/output error"), database.writing() as connection:
            counters.reserve(connection, METERS, 10)
        with pytest.raises(StoreFailed, match="an earlier write failed"), database.writing() as connection:
            counters.reserve(connection, METERS, 10)
