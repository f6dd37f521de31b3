"""A head-end with its store in PostgreSQL: killed, and with the server stopped, killed or held under it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.system.fleet import Running, fleet, head_end, opened
from tests.system.kill_me import POINTS
from tests.system.orders import Orders, forking
from tests.system.test_kill import PLANS, acknowledged, check

from ipss_headend import config
from ipss_headend.field.reactor import EventKind
from ipss_headend.store import log, readings

if TYPE_CHECKING:
    from tests.postgresql import PrivateServer

KILLS = int(os.environ.get("IPSS_POSTGRESQL_KILLS", "5"))
METERS = 4
DOWN_S = 3.0
WAIT_S = 30.0


@pytest.fixture
def server() -> Iterator[PrivateServer]:
    """One of the test's own: it is stopped and killed."""
    from tests.postgresql import PrivateServer

    with PrivateServer() as running:
        yield running


def counted(path: Path) -> int:
    """How many readings somebody was told of."""
    record = path.with_name("acknowledged")
    return record.stat().st_size // 32 if record.exists() else 0


def until_more(path: Path, than: int) -> int:
    """Wait until more readings are acknowledged."""
    ends = time.monotonic() + WAIT_S
    while (found := counted(path)) <= than:
        assert time.monotonic() < ends, f"no reading beyond {than} came through"
        time.sleep(0.1)
    return found


def finished(orders: Orders, process: int) -> int | None:
    """Ask the head-end to stop."""
    os.kill(process, signal.SIGTERM)
    return orders.wait()


def sound(path: Path, running: Running) -> None:
    """Nothing acknowledged is lost, nothing twice in the log's numbers, no counter reused."""
    loaded = config.load(path)
    check(loaded, path)
    assert running.reused() == []
    with opened(loaded) as database, database.reading() as connection:
        assert readings.verify(connection).sound
        sequences = [entry.sequence for entry in log.after(connection, 0, limit=1_000_000)]
        assert sequences == list(range(1, len(sequences) + 1))


@pytest.mark.timeout(120 + 8 * KILLS)
def test_r1_r7_kills_lose_no_acknowledged_reading_and_reuse_no_counter(
    tmp_path: Path, postgresql: PrivateServer
) -> None:
    with (
        postgresql.store(tmp_path / "data") as address,
        fleet(METERS, "127.21.40.1", history_days=KILLS + 10) as running,
        forking() as orders,
    ):
        path = head_end(tmp_path, PLANS, running, reactor="counter_block = 64", database=address.url)
        text = path.read_text(encoding="utf-8")
        for kill in range(KILLS):
            path.write_text(text.replace("backfill_days = 1", f"backfill_days = {kill + 2}"), encoding="utf-8")
            point = POINTS[kill % len(POINTS)]

            orders.start(path, point, 1 if point == "reserved" else 1 + kill // len(POINTS) % 3)

            assert orders.wait() == -signal.SIGKILL
            assert running.reused() == []
        sound(path, running)
        assert len(acknowledged(path)) >= METERS
        assert running.seen[EventKind.NONCE_SEEN]


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_database_that_is_away_holds_readings_back_and_is_caught_up_with(
    tmp_path: Path, server: PrivateServer, how: str
) -> None:
    with (
        server.store(tmp_path / "data") as address,
        fleet(METERS, "127.21.41.1", history_days=3) as running,
        forking() as orders,
    ):
        path = head_end(tmp_path, PLANS, running, database=address.url)
        process = orders.start(path)
        before = until_more(path, METERS)

        (server.stop if how == "stopped" else server.kill)()
        time.sleep(DOWN_S)
        while_away = counted(path)
        time.sleep(0.5)
        assert counted(path) == while_away
        server.start()

        assert until_more(path, max(before, while_away)) > before
        assert finished(orders, process) == 0
        sound(path, running)


def test_session_that_holds_the_tables_holds_the_head_end_up_and_no_longer(
    tmp_path: Path, postgresql: PrivateServer
) -> None:
    with (
        postgresql.store(tmp_path / "data") as address,
        fleet(METERS, "127.21.42.1", history_days=3) as running,
        forking() as orders,
    ):
        path = head_end(tmp_path, PLANS, running, database=address.url)
        process = orders.start(path)
        until_more(path, METERS)

        with psycopg.connect(address.url) as other:
            other.execute("LOCK TABLE readings, ledger, log")
            time.sleep(DOWN_S)
            held = counted(path)
            time.sleep(1)
            assert counted(path) == held
            other.rollback()

        until_more(path, held)
        assert finished(orders, process) == 0
        sound(path, running)
