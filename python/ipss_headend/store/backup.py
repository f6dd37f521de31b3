"""Copies of a SQLite store that is in use, and their way back.

A copy is one moment of the store, made while it is written to, read back whole before it has its name, and says of
itself that it is a copy: put back by whatever means, it grants no invocation counter until that is accepted (R8).
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool

from ipss_headend.errors import ConfigError, StoreDamaged, StoreError, StoreFull, StoreTooNew
from ipss_headend.store import formats, readings
from ipss_headend.store.files import sync
from ipss_headend.store.readings import Verification
from ipss_headend.store.sqlite import free_bytes, take_lock

PAGES = 2048
"""Of one step: 8 MiB."""

DIRECTORY = "backups"
"""Where copies go that are told no place, in the data directory."""

Progress = Callable[[int, int], None]
"""Told how many octets are copied, of how many."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy that was read back."""

    path: Path
    octets: int
    lines: int


def name(store: Path, moment_us: int) -> str:
    """What a copy made at this moment is called; names are in the order of their moments."""
    moment = datetime.fromtimestamp(moment_us / 1e6, UTC)
    return f"{store.stem}-{moment:%Y%m%dT%H%M%S.%f}Z.sqlite"


def make(
    store: Path, target: Path, *, reserve_bytes: int = 0, pause: float = 0.0, progress: Progress | None = None
) -> Copy:
    """Copy the store to `target`, and rest `pause` times as long as each piece took.

    Readers and the writer go on; the store's log (`-wal`) grows by what is written meanwhile.

    Raises:
        ConfigError: there is something at `target`.
        StoreFull: its disk has no room for it and the reserve.
        StoreDamaged: the store, or what the disk made of the copy, is not what was written. No copy is left.
        StoreError: it could not be written.
    """
    if target.exists():
        raise ConfigError(f"{target}: is there already; name another file, or a directory")
    making = target.with_name(target.name + ".new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_room(target.parent, store.stat().st_size + reserve_bytes)
        making.unlink(missing_ok=True)
        os.close(os.open(making, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))  # readings tell who is at home
        moment = datetime.now(UTC)
        _copied(store, making, pause, progress)
        _marked(making, f"it is a backup of {moment:%Y-%m-%dT%H:%M:%SZ}")
        sync(making)
        lines = _sound(making).lines
        making.rename(target)
        sync(target.parent)
    except sqlite3.Error as error:
        raise StoreError(f"{target}: {error}; no backup was made") from error
    except OSError as error:
        raise StoreError(f"{target}: {error.strerror or error}; no backup was made") from error
    finally:
        with suppress(OSError):
            making.unlink(missing_ok=True)
    return Copy(target, target.stat().st_size, lines)


def dropped(directory: Path, store: Path, keep: int) -> list[Path]:
    """Remove all copies that `name` named but the newest so many; returns them."""
    copies = sorted(directory.glob(f"{store.stem}-????????T??????.??????Z.sqlite"))
    gone = copies[: max(len(copies) - keep, 0)]
    for path in gone:
        path.unlink()
    return gone


def put_back(copy: Path, store: Path, moment_us: int) -> list[Path]:
    """Put a copy where the store is. The head-end must be stopped. Returns what was there, under its new names.

    Raises:
        ConfigError: no such copy.
        StoreInUse: the head-end runs.
        StoreDamaged: the copy is not what was written. Nothing was changed.
        StoreTooNew: a newer head-end made it.
        StoreFull: no room beside what is there.
    """
    if not copy.is_file():
        raise ConfigError(f"{copy}: no such file; `ipss-headend store backup` makes backups")
    store.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with take_lock(store):
        _sound(copy)
        _check_room(store.parent, copy.stat().st_size)
        making, aside = store.with_name(store.name + ".new"), store.with_name(f"{store.name}.replaced-{moment_us}")
        making.unlink(missing_ok=True)
        os.close(os.open(making, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        shutil.copyfile(copy, making)
        _marked(making, "it was put back from a backup")
        sync(making)
        # SQLite would take another file's log for the new one's, so it goes first: into the store that it belongs to,
        # or with a store too broken for that.
        log, log_aside = store.with_name(store.name + "-wal"), aside.with_name(aside.name + "-wal")
        if log.exists():
            os.link(log, log_aside)
        if _log_written_back(store):
            log_aside.unlink(missing_ok=True)
        for suffix in ("-wal", "-shm"):
            store.with_name(store.name + suffix).unlink(missing_ok=True)
        replaced = [log_aside] if log_aside.exists() else []
        if store.exists():
            os.link(store, aside)
            replaced.append(aside)
        making.replace(store)
        sync(store.parent)
    return replaced


def _copied(store: Path, target: Path, pause: float, progress: Progress | None) -> None:
    with (
        closing(sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as source,
        closing(sqlite3.connect(target)) as copy,
    ):
        size: int = source.execute("PRAGMA page_size").fetchone()[0]
        # One view for all steps: without it, each write of somebody else's has the copy begin anew.
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM schema_info").fetchone()
        began = time.monotonic()

        def step(_: int, remaining: int, total: int) -> None:
            nonlocal began
            if progress is not None:
                progress((total - remaining) * size, total * size)
            time.sleep(pause * (time.monotonic() - began))
            began = time.monotonic()

        source.backup(copy, pages=PAGES, progress=step)
        source.execute("ROLLBACK")


def _marked(path: Path, why: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")  # one file, and nothing beside it
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("UPDATE restore_guard SET restored = ? WHERE restored = ''", (why,))


def _sound(path: Path) -> Verification:
    def opened() -> sqlite3.Connection:
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)

    engine = create_engine("sqlite://", creator=opened, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            form = formats.form_of(connection)
            if form is None:
                raise ConfigError(f"{path}: no store of this program's")
            if form > formats.NEWEST:
                raise StoreTooNew(f"{path}: of form {form}, and this program knows {formats.NEWEST}; use the newer one")
            found = readings.verify(connection)
    except DatabaseError as error:
        raise StoreDamaged(f"{path}: {error.orig}") from error
    finally:
        engine.dispose()
    if not found.sound:
        first = next(iter((*found.structure, *found.damaged)), f"{found.missing} lines are missing")
        raise StoreDamaged(
            f"{path}: not what was written: {first}; `ipss-headend store verify` shows the store's state"
        )
    return found


def _log_written_back(store: Path) -> bool:
    if not store.exists():
        return False
    try:
        with closing(sqlite3.connect(store)) as connection:
            return bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0))
    except sqlite3.Error:
        return False


def _check_room(directory: Path, needed: int) -> None:
    free = free_bytes(directory)
    if free < needed:
        raise StoreFull(f"{directory}: {free >> 20} MiB free, and {needed >> 20} MiB are needed; name another disk")
