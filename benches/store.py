"""Readings made durable a second: the store against a bare bulk insert of the same rows into the same table.

    python -m benches.store [--quick]

Both write the same lines (a day of quarter-hours a meter, four values and a status a line), 10,000 in a synced
transaction (WAL, synchronous=FULL), into a new file on the disk under the repository. The bare side is `sqlite3`'s
executemany into the `readings` table alone. The store writes what a head-end must write beside them: the ends of the
requests, the meters' counters, the marks, the ledger, and checks its ownership. Rounds take turns.

PostgreSQL in the same way, a private server with fsync on the same disk: the bare side is one binary COPY a transaction
of the same rows, packed outside the clock, straight into the partitioned `readings` table with its key. The store keeps
each line twice, in `readings` and for the outlet in `log`: so there is a second bare side, one COPY into each of the
two tables, the entries of the log encoded and packed outside the clock.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import struct
import sys
import tempfile
import time
import zlib
from pathlib import Path

import msgspec
import psycopg
import trio
from benches.harness import BUILD, keep, summary
from tests.postgresql import PrivateServer

from ipss_headend.address import Address, Server
from ipss_headend.store import log
from ipss_headend.store.bulk import packed
from ipss_headend.store.database import Database
from ipss_headend.store.journal import WriteBatch
from ipss_headend.store.records import READING_COLUMNS, ReadingRow, reading_row
from ipss_headend.store.store import Store

LINES = 96
VALUES = 4
BATCH_METERS = 104
PERIOD_US = 900_000_000
BEGIN_US = 1_772_323_200_000_000
TARGET = 0.7
RECEIVED_US = BEGIN_US + 2 * 86_400_000_000
INSERT = f"INSERT INTO readings ({', '.join(READING_COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

LOG = "COPY log (sequence, at_us, topic, content, crc) FROM STDIN (FORMAT binary)"
COPY = f"COPY readings ({', '.join(READING_COLUMNS)}) FROM STDIN (FORMAT binary)"


def batch(number: int) -> WriteBatch:
    """What some 104 meters hand over after their daily read, lines in the order in which meters answered."""
    rows: list[ReadingRow] = []
    meters = range(number * BATCH_METERS + 1, (number + 1) * BATCH_METERS + 1)
    for meter in meters:
        for line in range(LINES):
            cells = [1_000_000 + 250 * line + meter, 7 * line, 40_000 + 11 * line, line, 0]
            captured = BEGIN_US + PERIOD_US * (line + 1)
            rows.append(
                reading_row(meter, 1, captured, cells, received_us=RECEIVED_US, deviation_min=-60, clock_status=0)
            )
    return WriteBatch(
        readings=rows,
        ends=[(meter, meter, 0, 8, 40_000, "") for meter in meters],
        peer_counters=[(meter, 1000 + number) for meter in meters],
        marks=[(meter, 1, BEGIN_US, BEGIN_US + LINES * PERIOD_US) for meter in meters],
    )


def bare(path: Path, batches: list[WriteBatch]) -> float:
    """Seconds that `sqlite3` needs for the rows alone."""
    Database(path, reserve_bytes=0).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA cache_size=-65536")
    began = time.perf_counter()
    for one in batches:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(INSERT, one.readings)
        connection.execute("COMMIT")
    took = time.perf_counter() - began
    connection.close()
    return took


def ours(path: Address, batches: list[WriteBatch]) -> float:
    """Seconds that the store needs for the batches."""

    async def run() -> float:
        async with Store(Database(path, own=True, reserve_bytes=0)) as store:
            began = time.perf_counter()
            for one in batches:
                await store.write(one)
            return time.perf_counter() - began

    return trio.run(run)


def bare_copy(server: Server, batches: list[WriteBatch]) -> float:
    """Seconds that COPY needs for the rows alone."""
    Database(server, reserve_bytes=0).close()
    parts = [packed(one.readings) for one in batches]
    with psycopg.connect(server.url) as connection:
        began = time.perf_counter()
        for part in parts:
            with connection.cursor() as cursor, cursor.copy(COPY) as copy:
                copy.write(part)
            connection.commit()
        return time.perf_counter() - began


def bare_copies(server: Server, batches: list[WriteBatch]) -> float:
    """Seconds that COPY needs for the rows and for the same rows as entries of the log."""
    Database(server, reserve_bytes=0).close()
    parts, number = [], 0
    for one in batches:
        entries = packed_log(one, number)
        number += -(-len(one.readings) // log.ENTRY_ROWS)
        parts.append((packed(one.readings), entries))
    with psycopg.connect(server.url) as connection:
        began = time.perf_counter()
        for rows, entries in parts:
            for statement, octets in ((COPY, rows), (LOG, entries)):
                with connection.cursor() as cursor, cursor.copy(statement) as copy:
                    copy.write(octets)
            connection.commit()
        return time.perf_counter() - began


def packed_log(one: WriteBatch, last: int) -> bytes:
    """A batch's entries of the log, as binary COPY reads them, numbered behind `last`."""
    topic = log.READINGS.encode()
    parts = [b"PGCOPY\n\xff\r\n\0" + bytes(8)]
    for place, start in enumerate(range(0, len(one.readings), log.ENTRY_ROWS), 1):
        content = msgspec.msgpack.encode(one.readings[start : start + log.ENTRY_ROWS])
        parts.append(struct.pack("!hiqiqi", 5, 8, last + place, 8, RECEIVED_US, len(topic)) + topic)
        parts.append(struct.pack("!i", len(content)) + content + struct.pack("!iq", 8, zlib.crc32(content)))
    return b"".join((*parts, b"\xff\xff"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two short rounds, nothing kept")
    given = parser.parse_args()
    rounds, count = (2, 5) if given.quick else (5, 30)
    batches = [batch(number) for number in range(count)]
    lines = sum(len(one.readings) for one in batches)
    figures: dict[str, list[float]] = {
        name: [] for name in ("bare", "ours", "bare COPY", "bare COPY, both tables", "ours in PostgreSQL")
    }
    BUILD.mkdir(exist_ok=True)
    for _ in range(rounds):
        for name, run in (("bare", bare), ("ours", ours)):
            directory = Path(tempfile.mkdtemp(dir=BUILD))
            figures[name].append(lines / run(directory / "store.sqlite3", batches))
            shutil.rmtree(directory)
    with PrivateServer(BUILD) as server:
        for _ in range(rounds):
            for name, run_server in (
                ("bare COPY", bare_copy),
                ("bare COPY, both tables", bare_copies),
                ("ours in PostgreSQL", ours),
            ):
                with server.store(server.directory / "marker") as address:
                    figures[name].append(lines / run_server(address, batches))
    results = {name: summary(each) for name, each in figures.items()}
    ratio = round(results["ours"]["median"] / results["bare"]["median"], 3)
    in_postgresql = results["ours in PostgreSQL"]["median"]
    ratio_postgresql = round(in_postgresql / results["bare COPY"]["median"], 3)
    ratio_both = round(in_postgresql / results["bare COPY, both tables"]["median"], 3)
    for name, result in results.items():
        print(
            f"{name:22} {result['median']:10.0f} lines/s {result['median'] * VALUES:10.0f} values/s "
            f"spread {result['spread_percent']:.0f}%"
        )
    print(f"ours/bare {ratio} (at least {TARGET} is asked for)")
    print(f"ours in PostgreSQL/bare COPY {ratio_postgresql}, of both tables {ratio_both}")
    if not given.quick:
        keep(
            "store",
            {
                "lines": lines,
                "values_a_line": VALUES,
                "lines_per_second": results,
                "ratio": ratio,
                "ratio_postgresql": ratio_postgresql,
                "ratio_postgresql_both": ratio_both,
                "target": TARGET,
            },
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
