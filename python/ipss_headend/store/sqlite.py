"""The store in one SQLite file: WAL with `synchronous=FULL`, a lock beside it, room on its own disk."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import QueuePool, StaticPool

from ipss_headend.errors import StoreDamaged, StoreError, StoreFailed, StoreFull, StoreInUse, StoreUnavailable
from ipss_headend.store import restore

BUSY_MS = 10_000
"""How long a transaction waits for another process's (an import beside a running head-end)."""

WRITER_CACHE_KIB = 65_536


def free_bytes(path: Path) -> int:
    """Room on the disk under `path` for an unprivileged process."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def free_octets(connection: Connection) -> int:
    """How much of the file holds nothing: what is written next goes there, and `compact` gives it back."""
    pages: int = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
    size: int = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
    return pages * size


def vacuum(path: Path, kept: int) -> None:
    """Write the file anew without what holds nothing, where it is; for whoever owns the store. `kept`: its octets then.

    Raises:
        StoreFull: the disk has no room for the new file beside the old one.
        StoreError: SQLite says why not; the file is as it was.
    """
    free = free_bytes(path.parent)
    if free < 2 * kept:  # a copy, and the log that brings it into the file
        raise StoreFull(f"{path}: {free >> 20} MiB free, and {2 * kept >> 20} MiB are needed meanwhile")
    connection = sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}; nothing was changed") from error
    finally:
        connection.close()


class SqliteFile:
    """One file, as `Database` needs it."""

    def __init__(self, path: Path, readers: int, reserve_bytes: int, free: Callable[[Path], int]) -> None:
        self.path = path
        self.name = str(path)
        self._reserve_bytes = reserve_bytes
        self._free = free
        self._lock: IO[str] | None = None
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Readings tell who is at home. A file that is there is not opened beside SQLite: the close would end all locks
        # that this process has on it (POSIX), and a process that comes and goes would take the log from under us.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        self.writer = _engine(path, "IMMEDIATE", StaticPool)
        self.readers = _engine(path, "DEFERRED", QueuePool, pool_size=readers)

    def own(self) -> None:
        """Be the one head-end of this machine that has the file.

        Raises:
            StoreInUse: another process is.
        """
        self._lock = take_lock(self.path)

    def owned_by_another(self) -> bool:
        """Whether a head-end runs with this store. For a guest."""
        try:
            with _lock_path(self.path).open(encoding="ascii") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        """Give the ownership back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def check_room(self) -> None:
        """Whether readings may be written (R5).

        Raises:
            StoreFull: no room beyond the reserve.
        """
        free = self._free(self.path.parent)
        if free < self._reserve_bytes:
            raise StoreFull(
                f"{self.path}: {free >> 20} MiB free of the {self._reserve_bytes >> 20} MiB that are kept for "
                "counters and the audit log; make room on the disk"
            )

    def begun(self, connection: Connection) -> None:
        """A writing transaction: BEGIN IMMEDIATE has made it the only one."""

    def ticket(self, connection: Connection) -> str | None:
        """A commit's fate is always known here, or the process ends."""
        return None

    def fate(self, ticket: str) -> bool | None:
        """No commit was ever uncertain."""
        raise StoreFailed(f"{self.path}: no commit {ticket}")

    def place(self, connection: Connection | None = None) -> restore.Place:
        """What tells this store from a copy of it."""
        return restore.Place(restore.marker_path(self.path), self.path.stat().st_ino, restore.machine())

    def octets(self) -> int:
        """How much of the disk the store takes."""
        parts = (self.path, self.path.with_name(self.path.name + "-wal"))
        return sum(part.stat().st_size for part in parts if part.exists())

    def overwrite(self, connection: Connection) -> None:
        """Rows that this connection replaces from now on are zeroed in their pages."""
        connection.exec_driver_sql("PRAGMA secure_delete=ON")

    def sweep(self, tables: Sequence[str]) -> None:
        """Empty the log of changes, which has the pages as they were."""
        raw = self.writer.raw_connection()
        try:
            raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            raw.close()

    def translated(self, error: DatabaseError) -> StoreError:
        """What SQLite's error means."""
        name = getattr(error.orig, "sqlite_errorname", "")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return StoreDamaged(
                f"{self.path}: {error.orig}; restore a backup, the readings since are still in the meters"
            )
        if name == "SQLITE_FULL":
            return StoreFull(f"{self.path}: the disk is full; make room on it")
        if name.startswith("SQLITE_BUSY"):
            # As with PostgreSQL: whoever can wait tries again.
            return StoreUnavailable(
                f"{self.path}: another process held the store for {BUSY_MS / 1000:g} s; let it finish"
            )
        if name.startswith(("SQLITE_CONSTRAINT", "SQLITE_ERROR", "SQLITE_MISMATCH", "SQLITE_RANGE", "SQLITE_TOOBIG")):
            return StoreError(f"{self.path}: {error.orig}")  # the transaction is undone and the file is sound
        return StoreFailed(
            f"{self.path}: {error.orig} ({name}); nothing is acknowledged any more, start the process again"
        )


def _engine(path: Path, begin: str, pool: type[StaticPool] | type[QueuePool], **options: int) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=pool,
        connect_args={"timeout": BUSY_MS / 1000, "check_same_thread": False, "isolation_level": None},
        **options,
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA cell_size_check=ON")  # a damaged page is an error, not a guess
        if begin == "DEFERRED":
            connection.execute("PRAGMA query_only=ON")
        else:
            connection.execute(f"PRAGMA cache_size=-{WRITER_CACHE_KIB}")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(f"BEGIN {begin}")

    return engine


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".owner")


def take_lock(path: Path) -> IO[str]:
    """Be the one process of this machine that has the file, until what is returned is closed, or the process ends.

    Raises:
        StoreInUse: another is.
    """
    lock = _lock_path(path).open("a+", encoding="ascii")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        process = lock.read().strip() or "unknown"
        lock.close()
        raise StoreInUse(
            f"{path}: process {process} is the head-end of this store; stop it first, or give this one its own data "
            "directory"
        ) from None
    lock.seek(0)
    lock.truncate()
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock
