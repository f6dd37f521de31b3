"""The store in a PostgreSQL database: one writing connection, which holds the head-end's ownership, and readers.

All who write take one lock of the database's for the length of their transaction, the head-end and the commands beside
it: so a transaction sees all that was written before it, as with SQLite, numbers have no gap, and no two of ours
deadlock. Rows go in by hundreds of thousands a second through one connection; more would not make the index quicker.

The ownership is a lock of the session's, so it ends with the connection, however that ends; behind it stands the
fencing epoch, which each transaction compares. A commit whose connection breaks is asked after when the database
answers again: by its transaction's number as long as that is under way, then by a number that it leaves in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, InterfaceError, OperationalError
from sqlalchemy.pool import QueuePool

from ipss_headend.address import Server
from ipss_headend.errors import (
    ConfigError,
    StoreDamaged,
    StoreError,
    StoreFailed,
    StoreFull,
    StoreInUse,
    StoreUnavailable,
)
from ipss_headend.store import restore

if TYPE_CHECKING:
    import psycopg

LOCK_MS = 10_000
"""How long a transaction waits for another's lock (R32: a slow database)."""
STATEMENT_MS = 60_000
"""The longest that the writer lets one statement take."""
IDLE_MS = 60_000
"""A transaction whose process sleeps longer than this (a frozen machine) is ended by the server, its locks with it."""
OWNER_WAIT_MS = 3_000
"""A head-end that was killed leaves its session for a moment."""

OWNER_LOCK = 0x69707373_00000001
WRITER_LOCK = 0x69707373_00000002
"""Advisory locks of the database's: `ipss` in ASCII, and a number."""

_UNAVAILABLE = ("08", "57P", "53300", "53200", "55P03", "40001", "40P01", "57014", "25P03")
_OURS = ("22", "23", "25", "42", "54", "0A", "26", "34")


class PostgresServer:
    """One database, as `Database` needs it."""

    def __init__(self, server: Server, readers: int) -> None:
        self.server = server
        self.name = server.name
        self._owns = False
        self._owned_once = False
        server.marker.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # the head-end's data directory
        held = {"lock_timeout": LOCK_MS, "statement_timeout": STATEMENT_MS}
        self.writer = self._engine(
            lambda: server.connect(**held, idle_in_transaction_session_timeout=IDLE_MS, client_min_messages="warning"),
            1,
        )
        self.readers = self._engine(
            lambda: server.connect(
                lock_timeout=LOCK_MS,
                default_transaction_read_only="on",
                default_transaction_isolation="repeatable read",
            ),
            readers,
        )
        event.listen(self.writer, "connect", self._writer_connected)

    def own(self) -> None:
        """Be the database's one head-end from the next connection on."""
        self._owns = True

    def owned_by_another(self) -> bool:
        """Whether a head-end runs with this store. For a guest."""
        with self.readers.connect() as connection:
            return _owner_session(connection.connection.dbapi_connection) is not None

    def close(self) -> None:
        """The ownership went with its connection."""

    def check_room(self) -> None:
        """The disk is another machine's: the server says when it is full."""

    def begun(self, connection: Connection) -> None:
        """Wait until nobody else writes; what they wrote is visible then."""
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})")

    def ticket(self, connection: Connection) -> str | None:
        """What to ask after this transaction's commit by; None: it has written nothing."""
        if not self._owns:
            return connection.exec_driver_sql("SELECT pg_current_xact_id_if_assigned()::text").scalar()
        found = connection.exec_driver_sql(_TICKET).one_or_none()
        return None if found is None else ":".join(map(str, found))

    def fate(self, ticket: str) -> bool | None:
        """Whether the transaction of this ticket was committed; None: that is not decided yet.

        A transaction's number alone says that of a guest only: a server that crashed, or was replaced by its standby,
        may give the number of one that it lost to another. The head-end's own leave a number of theirs in the store.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        number, _, own = ticket.partition(":")
        try:
            with self.readers.connect() as connection:
                query = "SELECT CASE WHEN %s::text::xid8 < pg_snapshot_xmax(pg_current_snapshot()) "
                query += "THEN pg_xact_status(%s::text::xid8) ELSE 'aborted' END, pg_is_in_recovery()"
                status, standby = connection.exec_driver_sql(query, (number, number)).one()
            if standby or status == "in progress":
                return None
            if not own:
                return {"committed": True, "aborted": False}.get(status or "")
            # A snapshot of its own: that of the question before may be older than the commit.
            with self.readers.connect() as connection:
                last, epoch = connection.exec_driver_sql(_LAST_COMMIT).one()
        except DatabaseError as error:
            raise self.translated(error) from error
        turn, owner = map(int, own.split(":"))
        return bool(epoch == owner and last is not None and last >= turn)

    def place(self, connection: Connection | None = None) -> restore.Place:
        """What tells this store from a copy of it: the cluster's own number and the database's."""
        if connection is None:
            with self.readers.connect() as own:
                return self.place(own)
        row = connection.exec_driver_sql(
            "SELECT oid::bigint, (SELECT system_identifier::text FROM pg_control_system()) FROM pg_database "
            "WHERE datname = current_database()"
        ).one()
        return restore.Place(self.server.marker, row[0], row[1], server=True)

    def octets(self) -> int:
        """How much of the disk the store takes."""
        with self.readers.connect() as connection:
            found: int = connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one()
            return found

    def overwrite(self, connection: Connection) -> None:
        """PostgreSQL keeps what rows were until `sweep`."""

    def sweep(self, tables: Sequence[str]) -> None:
        """Write the tables anew, without what their rows were. Its log of changes keeps that until it is recycled."""
        with self.writer.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for table in tables:
                connection.exec_driver_sql(f'VACUUM FULL "{table}"')

    def translated(self, error: DatabaseError) -> StoreError:
        """What PostgreSQL's error means."""
        state = getattr(error.orig, "sqlstate", None) or ""
        text = str(error.orig).strip().replace("\n", " ")
        if state in ("55P03", "57014"):
            return StoreUnavailable(f"{self.name}: another session held a lock for {LOCK_MS // 1000} s ({text})")
        broken = not state and isinstance(error, OperationalError | InterfaceError)
        if broken or error.connection_invalidated or state.startswith(_UNAVAILABLE):
            return StoreUnavailable(f"{self.name}: {text or 'the connection broke'}; nothing was written")
        if state == "53100":
            return StoreFull(f"{self.name}: the server's disk is full; make room on it")
        if state.startswith(("XX001", "XX002")):
            return StoreDamaged(f"{self.name}: {text}; restore a backup, the readings since are still in the meters")
        if not state or state.startswith(_OURS):
            return StoreError(f"{self.name}: {text}")  # the transaction is undone
        return StoreFailed(f"{self.name}: {text} ({state}); nothing is acknowledged any more, start the process again")

    def _engine(self, connect: Callable[[], object], size: int) -> Engine:
        return create_engine(
            "postgresql+psycopg://",
            creator=connect,
            poolclass=QueuePool,
            pool_size=size,
            max_overflow=0,
            pool_timeout=LOCK_MS / 1000,
            pool_pre_ping=True,
        )

    def _writer_connected(self, connection: psycopg.Connection[Any], _: object) -> None:
        _check_durable(connection, self.name)
        if not self._owns:
            return
        import psycopg

        try:
            connection.execute(f"SET lock_timeout = {OWNER_WAIT_MS}")
            connection.execute("SELECT pg_advisory_lock(%s)", (OWNER_LOCK,))
            connection.execute(f"SET lock_timeout = {LOCK_MS}")
            connection.commit()
        except psycopg.errors.LockNotAvailable:
            connection.rollback()
            found = _owner_session(connection)
            connection.close()
            message = f"{self.name}: {found or 'another session'} is the head-end of this store; stop it first"
            if self._owned_once:  # it may be our own, that the server has not missed yet; the epoch tells
                raise StoreUnavailable(message) from None
            raise StoreInUse(f"{message}, or give this one its own database") from None
        self._owned_once = True


def _check_durable(connection: psycopg.Connection[Any], name: str) -> None:
    settings = dict(
        connection.execute(
            "SELECT name, setting FROM pg_settings WHERE name IN "
            "('fsync', 'full_page_writes', 'synchronous_commit', 'server_encoding', 'server_version_num')"
        ).fetchall()
    )
    for needed in ("fsync", "full_page_writes"):
        if settings[needed] != "on":
            raise ConfigError(f"{name}: {needed} is off, so a power cut would lose what was acknowledged; set it to on")
    if settings["server_encoding"] != "UTF8":
        raise ConfigError(f"{name}: the database's encoding is {settings['server_encoding']}; make it with UTF8")
    if int(settings["server_version_num"]) < 140_000:
        raise ConfigError(f"{name}: PostgreSQL 14 or newer is needed, this is {settings['server_version_num']}")
    if settings["synchronous_commit"] in ("off", "local"):
        connection.execute("SET synchronous_commit = on")
    # The log's entries compress to half; lz4 takes a quarter of the time of PostgreSQL's own, where the server has it.
    connection.execute(
        "SELECT set_config(name, 'lz4', false) FROM pg_settings WHERE name = 'default_toast_compression' "
        "AND 'lz4' = ANY (enumvals) AND source = 'default'"
    )
    connection.commit()


def _owner_session(connection: Any) -> str | None:
    row = connection.execute(
        "SELECT coalesce(application_name, ''), coalesce(host(client_addr), 'this machine') FROM pg_locks "
        "LEFT JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted AND classid = %s "
        "AND objid = %s AND objsubid = 1 "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND pg_locks.pid <> pg_backend_pid()",
        (OWNER_LOCK >> 32, OWNER_LOCK & 0xFFFFFFFF),
    ).fetchone()
    connection.rollback()
    return None if row is None else f"{row[0] or 'a session'} ({row[1]})"


_TICKET = """
WITH own AS (SELECT pg_current_xact_id_if_assigned() AS number)
INSERT INTO numbers (name, last) SELECT 'commits', 1 FROM own WHERE number IS NOT NULL
ON CONFLICT (name) DO UPDATE SET last = numbers.last + 1
RETURNING (SELECT number::text FROM own), last, (SELECT epoch FROM owner)
"""
_LAST_COMMIT = "SELECT (SELECT last FROM numbers WHERE name = 'commits'), (SELECT epoch FROM owner)"
