"""What only PostgreSQL has: months, a server that goes away, locks of others, an ownership that is a session's."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import trio

from ipss_headend import housekeeping
from ipss_headend.address import Server
from ipss_headend.config import parse
from ipss_headend.errors import (
    ConfigError,
    RequestError,
    StaleOwner,
    StoreError,
    StoreFailed,
    StoreRestored,
    StoreUnavailable,
    StoreUncertain,
)
from ipss_headend.metrics import Figures
from ipss_headend.security import audit
from ipss_headend.store import (
    Database,
    Store,
    WriteBatch,
    bulk,
    counters,
    journal,
    log,
    partitions,
    quarantine,
    reading_row,
    readings,
)
from ipss_headend.store import postgres as backend
from ipss_headend.store.partitions import Month
from ipss_headend.store.records import ReadingRow

if TYPE_CHECKING:
    from tests.postgresql import PrivateServer

NOW_US = 1_767_225_600_000_000
DAY_US = 86_400_000_000
HERE = Month(2026, 1)


@pytest.fixture
def address(postgresql: PrivateServer, tmp_path: Path) -> Iterator[Server]:
    with postgresql.store(tmp_path / "data") as found:
        yield found


def row(time_us: int) -> ReadingRow:
    return reading_row(1, 1, time_us, [1], received_us=NOW_US)


def write(database: Database, *times_us: int) -> journal.Written:
    with database.writing() as connection:
        batch = WriteBatch([row(time_us) for time_us in times_us])
        return journal.write(connection, batch, NOW_US, database.epoch or 0)


def count(database: Database, table: str) -> int:
    with database.reading() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


def test_each_month_has_its_partition_and_wrong_clocks_the_default(database: Database) -> None:
    write(database, NOW_US, NOW_US - 40 * DAY_US, NOW_US + 30_000 * DAY_US, 0)

    assert count(database, HERE.table) == 1
    assert count(database, Month(2025, 11).table) == 1
    assert count(database, partitions.DEFAULT) == 2
    with database.reading() as connection:
        assert {HERE.after(n) for n in range(4)} <= set(partitions.existing(connection))
        assert readings.verify(connection).sound


def test_lines_that_are_there_already_are_counted_and_harm_no_other(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Straight into the table while all is new; row by row from the first that is not, for a while."""
    ways: list[str] = []
    copied = bulk._copy

    def watched(connection: Any, statement: str, octets: bytes) -> None:
        ways.append(statement.split()[1])
        copied(connection, statement, octets)

    monkeypatch.setattr(bulk, "_copy", watched)
    monkeypatch.setattr(bulk, "WARY", 2)
    minute_us = 60_000_000

    first = write(database, NOW_US, NOW_US + minute_us)
    again = write(database, NOW_US + 2 * minute_us, NOW_US + minute_us, NOW_US + 3 * minute_us)
    twice = write(database, NOW_US + 4 * minute_us, NOW_US + 4 * minute_us)
    later = [write(database, NOW_US + place * minute_us) for place in (5, 6)]

    assert (first[:2], again[:2], twice[:2]) == ((2, 0), (2, 1), (1, 1))
    assert [one[:2] for one in later] == [(1, 0), (1, 0)]
    straight, by_row = "readings", "incoming_readings"
    assert ways == [straight, straight, by_row, by_row, by_row, straight]
    assert count(database, "readings") == 7
    with database.reading() as connection:
        assert readings.verify(connection).sound


def test_server_that_goes_away_within_a_copy_is_told_and_nothing_is_written(
    database: Database, address: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = bulk._copy

    def cut(connection: Any, statement: str, octets: bytes) -> None:
        session = connection.connection.dbapi_connection.info.backend_pid
        with psycopg.connect(address.url, autocommit=True) as other:
            assert other.execute("SELECT pg_terminate_backend(%s, 5000)", (session,)).fetchone() == (True,)
        copied(connection, statement, octets)

    write(database, NOW_US)
    with monkeypatch.context() as patched:
        patched.setattr(bulk, "_copy", cut)
        with pytest.raises(StoreUnavailable):
            write(database, NOW_US + 1_000_000)

    assert count(database, "readings") == 1
    assert write(database, NOW_US + 1_000_000)[:2] == (1, 0)


def test_log_is_compressed_by_the_quick_method_where_the_server_has_it(database: Database) -> None:
    write(database, *(NOW_US + place * 1_000_000 for place in range(500)))

    with database.reading() as connection:
        query = "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"
        has_it = connection.exec_driver_sql(query).scalar()
        used = connection.exec_driver_sql("SELECT DISTINCT pg_column_compression(content) FROM log").scalars().all()
    assert used == ["lz4" if has_it else "pglz"]


def test_lines_of_the_default_partition_move_when_their_month_is_made(database: Database) -> None:
    ahead = NOW_US + 20_000 * DAY_US
    write(database, ahead, ahead + 1)
    assert count(database, partitions.DEFAULT) == 2

    with database.writing() as connection:
        journal.write(connection, WriteBatch([row(ahead + 2)]), ahead + 3, 1)

    assert count(database, partitions.DEFAULT) == 0
    assert count(database, partitions.month_of(ahead).table) == 3
    assert write(database, ahead).duplicates == 1


def test_reader_of_the_table_does_not_hold_a_write_up(database: Database) -> None:
    old = NOW_US - 200 * DAY_US
    write(database, 0)
    with database.reading() as reader:
        reader.exec_driver_sql("SELECT count(*) FROM readings").all()
        began = time.monotonic()
        write(database, old)
        assert time.monotonic() - began < 5
    assert count(database, partitions.DEFAULT) == 2

    write(database, old + 1)

    assert count(database, partitions.month_of(old).table) == 2


def test_retired_months_leave_a_table_and_a_true_ledger(database: Database) -> None:
    write(database, NOW_US, NOW_US - 40 * DAY_US, NOW_US - 41 * DAY_US)

    with database.writing() as connection:
        gone = partitions.detach(connection, HERE)
        with pytest.raises(RequestError, match="not over yet"):
            partitions.detach(connection, Month(9000, 1))

    assert gone == [("retired_readings_2025_11", 2)]
    assert count(database, "retired_readings_2025_11") == 2
    with database.reading() as connection:
        assert readings.verify(connection).sound
        assert readings.line_count(connection) == 1


def test_lines_that_come_after_their_month_was_retired_go_with_the_next(database: Database) -> None:
    old = NOW_US - 40 * DAY_US
    gone = []
    for time_us in (old, old + 1, old + 2):
        write(database, time_us)
        with database.writing() as connection:
            gone += partitions.detach(connection, HERE)

    names = [f"retired_readings_2025_11{number}" for number in ("", "_2", "_3")]
    assert gone == [(name, 1) for name in names]
    with database.reading() as connection:
        assert readings.verify(connection).sound


def test_head_end_retires_months_by_itself_as_configured(address: Server) -> None:
    figures = Figures()
    config = parse('[keystore]\nkey_file = "k"\n[retention]\nmonths = 1\n', Path("head_end.toml"))

    async def main() -> None:
        database = Database(address, own=True)
        write(database, NOW_US, NOW_US - 40 * DAY_US)
        async with Store(database) as store, trio.open_nursery() as nursery:
            nursery.start_soon(housekeeping.keep, store, config, figures)
            with trio.fail_after(60):
                while figures.retired_lines < 2:  # noqa: ASYNC110 - nobody tells
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    trio.run(main)

    with Database(address) as database, database.reading() as connection:
        noted = [(one.kind, one.subject) for one in audit.records(connection)]
        assert noted[:2] == [("retire", "2025-11"), ("retire", "2026-01")]
        assert readings.verify(connection).sound
        assert readings.line_count(connection) == 0


def test_a_nul_that_a_meter_says_is_no_reason_to_stop(database: Database) -> None:
    with database.writing() as connection:
        journal.write(connection, WriteBatch(events=[(1, 0, 7, 0, "a\0b")], ends=[(1, 1, 1, 1, 1, "\0")]), NOW_US, 1)

    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT detail FROM events").scalar() == "a\ufffdb"


def test_r8_ownership_that_broke_with_its_session_is_taken_by_another_and_the_first_is_fenced(
    address: Server, postgresql: PrivateServer
) -> None:
    with Database(address, own=True) as first:
        postgresql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid) "
            f"WHERE locktype = 'advisory' AND datname = '{address.url.partition('@/')[2].partition('?')[0]}'"
        )
        with Database(address, own=True) as second:
            with pytest.raises(StoreUnavailable, match="is the head-end of this store"), first.writing() as connection:
                counters.reserve(connection, [1], 10)
            with second.writing() as connection:
                counters.reserve(connection, [1], 10)
        with pytest.raises(StaleOwner), first.writing() as connection:
            counters.reserve(connection, [1], 10)


def test_r8_a_dump_that_was_read_back_grants_nothing(
    address: Server, postgresql: PrivateServer, tmp_path: Path
) -> None:
    def grant(at: Server) -> None:
        with Database(at, own=True) as database, database.writing() as connection:
            counters.reserve(connection, [1], 10)

    grant(address)
    copy = postgresql.make(address.url.partition("@/")[2].partition("?")[0])
    restored = postgresql.server(copy, address.marker)
    try:
        with pytest.raises(StoreRestored, match="another database"):
            grant(restored)
    finally:
        postgresql.drop(copy)
    grant(address)
    address.marker.unlink()
    with pytest.raises(StoreRestored, match=r"head_end\.marker is missing"):
        grant(address)


def test_new_head_end_makes_its_data_directory(address: Server, tmp_path: Path) -> None:
    elsewhere = Server(address.url, tmp_path / "new" / "data" / "head_end.marker")

    with Database(elsewhere, own=True) as database, database.writing() as connection:
        counters.reserve(connection, [1], 10)

    assert elsewhere.marker.exists()


def test_guest_on_another_machine_changes_nothing_of_the_guard_and_gets_no_counters(
    address: Server, tmp_path: Path
) -> None:
    elsewhere = Server(address.url, tmp_path / "elsewhere.marker")
    with Database(address, own=True) as database:
        with (
            pytest.raises(StoreError, match="run this there"),
            Database(elsewhere) as guest,
            guest.writing() as connection,
        ):
            counters.reserve(connection, [1], 10)
        with database.writing() as connection:
            assert counters.reserve(connection, [1], 10)


def test_lock_that_another_session_holds_is_told_and_harms_nothing(database: Database, address: Server) -> None:
    with psycopg.connect(address.url) as other:
        other.execute("LOCK TABLE ledger")
        with pytest.raises(StoreUnavailable, match="another session held a lock"):
            _impatient_write(database)
        other.rollback()

    assert write(database, NOW_US).readings == 1


def _impatient_write(database: Database) -> None:
    with database.writing() as connection:
        connection.exec_driver_sql("SET LOCAL lock_timeout = 100")
        journal.write(connection, WriteBatch([row(NOW_US)]), NOW_US, 1)


def _lock_both(database: Database) -> None:
    with database.writing() as connection:
        connection.exec_driver_sql("SET LOCAL deadlock_timeout = '500ms'")
        connection.exec_driver_sql("LOCK TABLE ledger")
        connection.exec_driver_sql("LOCK TABLE marks")


def test_deadlock_is_told_as_something_to_try_again(database: Database, address: Server) -> None:
    ready = threading.Event()

    def other() -> None:
        with psycopg.connect(address.url) as session:
            session.execute("LOCK TABLE marks")
            ready.set()
            time.sleep(0.3)
            session.execute("SET deadlock_timeout = '10s'")
            session.execute("LOCK TABLE ledger")
            session.rollback()

    thread = threading.Thread(target=other)
    thread.start()
    ready.wait()
    with pytest.raises(StoreUnavailable, match="deadlock"):
        _lock_both(database)
    thread.join()

    assert write(database, NOW_US).readings == 1


@pytest.mark.parametrize("took_place", [True, False])
def test_commit_whose_connection_broke_is_asked_after(
    database: Database, monkeypatch: pytest.MonkeyPatch, took_place: bool
) -> None:
    breaks = iter([True])
    commit = database._writer.dialect.do_commit

    def broken(raw: Any) -> None:
        if next(breaks, False):
            connection = raw.driver_connection
            if took_place:
                connection.commit()
            connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        commit(raw)

    monkeypatch.setattr(database._writer.dialect, "do_commit", broken)

    async def run() -> tuple[journal.Written, list[counters.CounterBlock]]:
        store = Store(database)
        written = await store.write(WriteBatch([row(NOW_US)], events=[(1, 0, 7, 0, "")]))
        return written, await store.reserve([1], 10)

    written, blocks = trio.run(run)

    assert written.readings == 1
    assert blocks[0].next == 1
    with database.reading() as connection:
        assert [entry.sequence for entry in log.after(connection, 0)] == [1, 2]
        assert connection.exec_driver_sql("SELECT count(*) FROM events").scalar() == 1


def test_commit_of_unknown_fate_is_not_retried_by_who_does_not_ask(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(raw: Any) -> None:
        raw.driver_connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(database._writer.dialect, "do_commit", broken)

    with pytest.raises(StoreUncertain) as caught:
        write(database, NOW_US)

    assert database.settle(caught.value) is False


def test_what_is_too_long_for_an_index_is_refused_and_ends_nothing(database: Database) -> None:
    title = bytes(random.Random(1).randbytes(3_000))
    with pytest.raises(StoreError) as caught, database.writing() as connection:
        quarantine.keep(connection, [(title, "192.0.2.1:4059", NOW_US, b"")], NOW_US)

    assert not isinstance(caught.value, StoreFailed)
    write(database, NOW_US)


def test_r7_number_of_a_lost_transaction_that_another_one_got_is_no_proof(
    database: Database, address: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that crashed, or was replaced by its standby, gives the numbers of what it lost to others."""
    with monkeypatch.context() as patched:

        def lost(raw: Any) -> None:
            raw.driver_connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")

        patched.setattr(database._writer.dialect, "do_commit", lost)
        with pytest.raises(StoreUncertain) as caught:
            write(database, NOW_US)
    with psycopg.connect(address.url) as other:
        other.execute("CREATE TABLE anothers (n int)")
        [number] = other.execute("SELECT pg_current_xact_id()::text").fetchone() or [""]
        other.commit()
    caught.value.ticket = ":".join([number, *caught.value.ticket.split(":")[1:]])

    assert database.settle(caught.value) is False
    write(database, NOW_US)
    assert count(database, "readings") == 1


def test_server_that_would_lose_what_it_acknowledged_is_refused() -> None:
    class Unsafe:
        def execute(self, *_: object) -> Unsafe:
            return self

        def fetchall(self) -> list[tuple[str, str]]:
            return [("fsync", "off"), ("full_page_writes", "on"), ("server_encoding", "UTF8")]

    with pytest.raises(ConfigError, match="fsync is off"):
        backend._check_durable(Unsafe(), "postgresql://db/meters")  # type: ignore[arg-type]


def test_nobody_answers_and_no_password_is_told(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hush-hush\n")
    nowhere = Server(f"postgresql://head_end@/meters?host={tmp_path}", tmp_path / "m", secret)

    with pytest.raises(StoreUnavailable) as caught:
        Database(nowhere)

    assert "postgresql://head_end@/meters" in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "hush" not in repr(nowhere)
