"""The file, its connections and its one writer; nothing here knows what is stored.

SQLite in WAL mode with `synchronous=FULL`: when `writing()` has ended without an error, what it wrote has been synced.
A process that dies at any point leaves a store that opens with every ended transaction and nothing of the others.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, insert, select, update
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import QueuePool, StaticPool

from ipss_headend.errors import (
    StaleOwner,
    StoreDamaged,
    StoreError,
    StoreFailed,
    StoreFull,
    StoreInUse,
    StoreTooNew,
)
from ipss_headend.store import restore
from ipss_headend.store.schema import SCHEMA_VERSION, metadata, owner, schema_info

RESERVE_BYTES = 64 << 20
"""R5: readings leave this much of the disk to counters and the audit log."""

BUSY_MS = 10_000
"""How long a transaction waits for another process's (an import beside a running head-end)."""

WRITER_CACHE_KIB = 65_536
READERS = 4


def now_us() -> int:
    """The wall clock, for time stamps; never for timeouts."""
    return time.time_ns() // 1000


def free_bytes(path: Path) -> int:
    """Room on the disk under `path` for an unprivileged process."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


class Database:
    """One open store.

    With `own`, this process is the head-end of the store: no other may be, and an earlier one that still runs
    (on another machine, or after its lock was lost) is fenced: its next write raises `StaleOwner`. Without, the
    process is a guest: a command that reads or imports beside the head-end.

    One thread at a time may be in `writing()`; any number in `reading()`.
    """

    def __init__(
        self,
        path: Path,
        *,
        own: bool = False,
        reserve_bytes: int = RESERVE_BYTES,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        """Open the store at `path`, and make it where there is none.

        Raises:
            StoreInUse: `own`, and another process of this machine owns it.
            StoreTooNew: a newer head-end wrote it.
            StoreDamaged: the file is no store.
        """
        self.path = path
        self.epoch: int | None = None
        self._reserve_bytes = reserve_bytes
        self._free = free
        self._failed: str | None = None
        self._lock: IO[str] | None = None
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # readings tell who is at home
        if own:
            self._lock = _take_lock(path)
        self._writer = _engine(path, "IMMEDIATE", StaticPool)
        self._readers = _engine(path, "DEFERRED", QueuePool, pool_size=READERS)
        try:
            self._prepare(own)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections and give the ownership back."""
        self._readers.dispose()
        self._writer.dispose()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def writing(self, *, spend_reserve: bool = False) -> Iterator[Connection]:
        """One transaction, durable when the block has ended; of a block that raises nothing stays.

        `spend_reserve` lets what must go on (counters, audit) use the disk's last room.

        Raises:
            StaleOwner: another head-end owns the store now.
            StoreFull: no room beyond the reserve. Nothing was written; try again when there is.
            StoreFailed: this or an earlier write failed in a way that leaves its fate unknown (R4). End the process.
            StoreDamaged: SQLite found its own structure broken.
        """
        if self._failed is not None:
            raise StoreFailed(f"{self.path}: an earlier write failed ({self._failed}); start the process again")
        if not spend_reserve:
            free = self._free(self.path.parent)
            if free < self._reserve_bytes:
                raise StoreFull(
                    f"{self.path}: {free >> 20} MiB free of the {self._reserve_bytes >> 20} MiB that are kept for "
                    "counters and the audit log; make room on the disk"
                )
        try:
            with self._writer.begin() as connection:
                restore.begun(connection)
                if self.epoch is not None:
                    self._check_epoch(connection)
                yield connection
                info = connection.info
            self._mark(info)
        except DatabaseError as error:
            translated = _translated(self.path, error)
            if isinstance(translated, StoreFailed):
                self._failed = str(error.orig)
            raise translated from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view, that no writer holds up and that holds up no writer.

        Raises:
            StoreDamaged: SQLite found its own structure broken.
        """
        try:
            with self._readers.begin() as connection:
                yield connection
        except DatabaseError as error:
            raise _translated(self.path, error) from error

    def _prepare(self, own: bool) -> None:
        with self.writing(spend_reserve=True) as connection:
            metadata.create_all(connection)
            version = connection.scalar(select(schema_info.c.schema_version))
            if version is None:
                connection.execute(insert(schema_info).values(schema_version=SCHEMA_VERSION, created_us=now_us()))
            elif version > SCHEMA_VERSION:
                raise StoreTooNew(
                    f"{self.path}: written by a newer head-end (schema {version}, this one knows {SCHEMA_VERSION}); "
                    "start that version, or restore the copy made before the upgrade"
                )
            elif version < SCHEMA_VERSION:
                # What was added since are tables, and they are there now.
                connection.execute(update(schema_info).values(schema_version=SCHEMA_VERSION))
            restore.check(connection, self.path, now_us())
            if own:
                epoch = (connection.scalar(select(func.max(owner.c.epoch))) or 0) + 1
                values = {"epoch": epoch, "since_us": now_us(), "process": os.getpid()}
                connection.execute(update(owner).values(values) if epoch > 1 else insert(owner).values(id=1, **values))
        if own:
            self.epoch = epoch

    def _mark(self, info: MutableMapping[str, Any]) -> None:
        # Outside the transaction: a marker ahead of its store would look like a restore.
        try:
            restore.committed(info, self.path)
        except OSError as error:
            self._failed = str(error)
            raise StoreFailed(
                f"{restore.marker_path(self.path)}: {error.strerror or error}; nothing is acknowledged any more, start "
                "the process again"
            ) from error

    def _check_epoch(self, connection: Connection) -> None:
        found = connection.exec_driver_sql("SELECT epoch FROM owner").scalar()
        if found != self.epoch:
            raise StaleOwner(
                f"{self.path}: owned by epoch {found} now, this process has epoch {self.epoch}; "
                "another head-end took over, so this one must stop"
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


def _take_lock(path: Path) -> IO[str]:
    # A lock of the operating system's: it goes with the process, however that ends.
    lock = path.with_name(path.name + ".owner").open("a+", encoding="ascii")
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


def _translated(path: Path, error: DatabaseError) -> StoreError:
    name = getattr(error.orig, "sqlite_errorname", "")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return StoreDamaged(f"{path}: {error.orig}; restore a backup, the readings since are still in the meters")
    if name == "SQLITE_FULL":
        return StoreFull(f"{path}: the disk is full; make room on it")
    if name.startswith("SQLITE_BUSY"):
        return StoreError(f"{path}: another process held the store for {BUSY_MS // 1000} s; let it finish")
    if name.startswith(("SQLITE_CONSTRAINT", "SQLITE_ERROR", "SQLITE_MISMATCH", "SQLITE_RANGE", "SQLITE_TOOBIG")):
        return StoreError(f"{path}: {error.orig}")  # the transaction is undone and the file is sound
    return StoreFailed(f"{path}: {error.orig} ({name}); nothing is acknowledged any more, start the process again")
