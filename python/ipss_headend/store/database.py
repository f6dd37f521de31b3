"""One store, in SQLite or in PostgreSQL: its connections and its one writer. Nothing here knows what is stored.

When `writing()` has ended without an error, what it wrote has been synced. A process that dies at any point leaves a
store that opens with every ended transaction and nothing of the others.
"""

import os
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from sqlalchemy import Connection, Engine, func, insert, select, update
from sqlalchemy.exc import DatabaseError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ipss_headend.address import Address, Server
from ipss_headend.errors import StaleOwner, StoreDamaged, StoreError, StoreFailed, StoreUnavailable, StoreUncertain
from ipss_headend.store import formats, restore
from ipss_headend.store.postgres import PostgresServer
from ipss_headend.store.schema import owner
from ipss_headend.store.sqlite import SqliteFile, free_bytes

RESERVE_BYTES = 64 << 20
"""R5: readings leave this much of the disk to counters and the audit log."""

READERS = 4


def now_us() -> int:
    """The wall clock, for time stamps; never for timeouts."""
    return time.time_ns() // 1000


class _Backend(Protocol):
    # What differs between the two.
    name: str
    writer: Engine
    readers: Engine

    def own(self) -> None: ...
    def owned_by_another(self) -> bool: ...
    def close(self) -> None: ...
    def check_room(self) -> None: ...
    def begun(self, connection: Connection) -> None: ...
    def ticket(self, connection: Connection) -> str | None: ...
    def fate(self, ticket: str) -> bool | None: ...
    def place(self, connection: Connection | None = None) -> restore.Place: ...
    def octets(self) -> int: ...
    def overwrite(self, connection: Connection) -> None: ...
    def sweep(self, tables: Sequence[str]) -> None: ...
    def translated(self, error: DatabaseError) -> StoreError: ...


class Database:
    """One open store.

    With `own`, this process is the head-end of the store: no other may be, and an earlier one that still runs
    (on another machine, or after its lock was lost) is fenced: its next write raises `StaleOwner`. Without, the
    process is a guest: a command that reads or imports beside the head-end.

    One thread at a time may be in `writing()`; any number in `reading()`.
    """

    def __init__(
        self,
        address: Address,
        *,
        own: bool = False,
        reserve_bytes: int = RESERVE_BYTES,
        free: Callable[[Path], int] = free_bytes,
        upgrade: bool = True,
    ) -> None:
        """Open the store at `address`, and make it where there is none.

        A new store is made in the newest form. One of an older form is brought up to date by its owner, if `upgrade`.

        Raises:
            StoreInUse: `own`, and another process owns it.
            StoreTooNew: a newer head-end wrote it.
            StoreTooOld: an older one did, and this is a guest.
            StoreUnavailable: the database does not answer.
            StoreDamaged: the file is no store.
        """
        self.epoch: int | None = None
        self._failed: str | None = None
        self._place: restore.Place | None = None
        self._backend = _backend(address, reserve_bytes, free)
        self.address = address
        self.name = self._backend.name
        """For messages."""
        self._writer = self._backend.writer
        self._readers = self._backend.readers
        try:
            if own:
                self._backend.own()
            self._prepare(own, upgrade)
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> Path:
        """SQLite's file."""
        if isinstance(self.address, Server):
            raise TypeError(f"{self.name} is no file")
        return self.address

    def close(self) -> None:
        """Close all connections and give the ownership back."""
        self._readers.dispose()
        self._writer.dispose()
        self._backend.close()

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
            StoreUnavailable: the database does not answer. Nothing was written; try again.
            StoreUncertain: the connection broke in the commit; see `settle`.
            StoreFailed: this or an earlier write failed in a way that leaves its fate unknown (R4). End the process.
            StoreDamaged: the database found its own structure broken.
        """
        if self._failed is not None:
            raise StoreFailed(f"{self.name}: an earlier write failed ({self._failed}); start the process again")
        if not spend_reserve:
            self._backend.check_room()
        ticket: str | None = None
        info: MutableMapping[str, Any] = {}
        try:
            with self._writer.begin() as connection:
                self._backend.begun(connection)
                restore.begun(connection, self._place)
                if self.epoch is not None:
                    self._check_epoch(connection)
                yield connection
                info = connection.info
                ticket = self._backend.ticket(connection)
        except PoolTimeoutError as error:
            raise StoreUnavailable(f"{self.name}: no connection was free") from error
        except DatabaseError as error:
            translated = self._backend.translated(error)
            if ticket is not None and isinstance(translated, StoreUnavailable):
                raise StoreUncertain(
                    f"{self.name}: the connection broke in a commit ({error.orig}); look whether it took place",
                    ticket,
                    info,
                ) from error
            if isinstance(translated, StoreFailed):
                self._failed = str(error.orig)
            raise translated from error
        except UnicodeDecodeError as error:
            raise self._garbled() from error
        self._mark(info)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view, that no writer holds up and that holds up no writer.

        Raises:
            StoreDamaged: the database found its own structure broken.
            StoreUnavailable: it does not answer.
        """
        try:
            with self._readers.begin() as connection:
                yield connection
        except PoolTimeoutError as error:
            raise StoreUnavailable(f"{self.name}: no connection was free") from error
        except DatabaseError as error:
            raise self._backend.translated(error) from error
        except UnicodeDecodeError as error:
            raise self._garbled() from error

    def settle(self, uncertain: StoreUncertain) -> bool | None:
        """Whether an uncertain commit took place, and if so what is to follow it; None: not known yet.

        Raises:
            StoreUnavailable: the database does not answer; ask again.
            StoreFailed: as `writing` does.
        """
        committed = self._backend.fate(uncertain.ticket)
        if committed:
            self._mark(uncertain.info)
        return committed

    def owned_by_another(self) -> bool:
        """Whether a head-end runs with this store. For a guest."""
        return self._backend.owned_by_another()

    def place(self) -> restore.Place:
        """What the restore guard knows the store by."""
        return self._place or self._backend.place()

    def octets(self) -> int:
        """How much of the disk the store takes."""
        return self._backend.octets()

    def overwriting(self, connection: Connection) -> None:
        """What this transaction replaces is overwritten in the file, where the database can: for keys, with `sweep`."""
        self._backend.overwrite(connection)

    def sweep(self, tables: Sequence[str]) -> None:
        """Leave nothing of what these tables' rows were before in the database's files. After `overwriting`.

        Raises:
            StoreError: the database refused, or does not answer; the rows themselves are as they were.
        """
        try:
            self._backend.sweep(tables)
        except DatabaseError as error:
            raise self._backend.translated(error) from error

    def _garbled(self) -> StoreDamaged:
        # Python cannot even say what SQLite found where its message quotes damaged text.
        return StoreDamaged(
            f"{self.name}: its text is no UTF-8; restore a backup, the readings since are in the meters"
        )

    def _prepare(self, own: bool, upgrade: bool) -> None:
        with self.writing(spend_reserve=True) as connection:
            self._place = self._backend.place(connection)
            formats.prepare(connection, self.name, now_us(), upgrade=own and upgrade)
            if own or not self._place.server:
                restore.check(connection, self._place, now_us())
            if own:
                epoch = (connection.scalar(select(func.max(owner.c.epoch))) or 0) + 1
                values = {"epoch": epoch, "since_us": now_us(), "process": os.getpid()}
                connection.execute(update(owner).values(values) if epoch > 1 else insert(owner).values(id=1, **values))
        if own:
            self.epoch = epoch

    def _mark(self, info: MutableMapping[str, Any]) -> None:
        # Outside the transaction: a marker ahead of its store would look like a restore.
        try:
            restore.committed(info, self.place)
        except OSError as error:
            self._failed = str(error)
            raise StoreFailed(
                f"{self.place().marker}: {error.strerror or error}; nothing is acknowledged any more, start the "
                "process again"
            ) from error

    def _check_epoch(self, connection: Connection) -> None:
        found = connection.exec_driver_sql("SELECT epoch FROM owner").scalar()
        if found != self.epoch:
            raise StaleOwner(
                f"{self.name}: owned by epoch {found} now, this process has epoch {self.epoch}; "
                "another head-end took over, so this one must stop"
            )


def form_at(address: Address) -> int | None:
    """The number of the form of the store there, whoever wrote it; None: there is none yet.

    Raises:
        StoreUnavailable: the database does not answer.
        StoreDamaged: the file is no store.
    """
    if isinstance(address, Path) and not address.exists():
        return None
    backend = _backend(address, 0, free_bytes)
    try:
        with backend.readers.begin() as connection:
            return formats.form_of(connection)
    except DatabaseError as error:
        raise backend.translated(error) from error
    finally:
        backend.readers.dispose()


def is_there(address: Address) -> bool:
    """Whether a store was made there.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    return address.exists() if isinstance(address, Path) else form_at(address) is not None


def _backend(address: Address, reserve_bytes: int, free: Callable[[Path], int]) -> _Backend:
    if isinstance(address, Server):
        return PostgresServer(address, READERS)
    return SqliteFile(address, READERS, reserve_bytes, free)
