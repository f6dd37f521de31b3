"""What it costs to lose nothing and to let nobody act alone, each beside the same work without it.

    python -m benches.safety [--quick]

On SQLite, on the disk under the repository, sides in turns:

- readings synced to the disk before they are acknowledged, beside the same store with `synchronous=OFF`, which loses
  them when the power goes: 10,000 lines a transaction, and 96, as when a meter answers alone;
- a record of the audit trail, chained by SHA-256, beside the same row without a hash, 1,000 a transaction;
- a command for one meter asked for and approved by a second person (canonical octets, two Ed25519 signatures made and
  checked, the order's rows and their audit records, a synced transaction for each of the two steps), beside two synced
  transactions of one row.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benches.harness import BUILD, keep, summary
from benches.store import batch
from sqlalchemy import Connection, insert
from tests.system.people import People
from tests.unit.control.simulation import meter

from ipss_headend.config import ControlConfig
from ipss_headend.field.control import orders
from ipss_headend.field.control.desk import Desk
from ipss_headend.security import audit
from ipss_headend.store import registry
from ipss_headend.store.database import Database, now_us
from ipss_headend.store.journal import WriteBatch, write
from ipss_headend.store.schema import audit as trail

METERS = 200
RECORDS = 1000

Work = Callable[[Path], float]
"""Do it in a directory; how many a second."""


def readings(batches: list[WriteBatch], synchronous: str) -> Work:
    """Lines a second that are written, a transaction a batch."""

    def work(directory: Path) -> float:
        with Database(directory / "store.sqlite3", own=True, reserve_bytes=0) as database:
            with database.writing() as connection:
                raw = connection.connection.dbapi_connection
            assert raw is not None
            raw.cursor().execute(f"PRAGMA synchronous={synchronous}")
            began = time.perf_counter()
            for one in batches:
                with database.writing() as connection:
                    write(connection, one, now_us(), database.epoch or 0)
            return sum(len(one.readings) for one in batches) / (time.perf_counter() - began)

    return work


def chained(count: int) -> Work:
    """Records a second of the audit trail."""

    def record(connection: Connection, number: int) -> None:
        audit.append(connection, "approve", "bob", "order", {"number": number})

    return _records(count, record)


def unchained(count: int) -> Work:
    """The same rows without their hashes."""

    def record(connection: Connection, number: int) -> None:
        detail = f'{{"number":{number}}}'
        values = {"kind": "approve", "principal": "bob", "subject": "order", "detail": detail, "hash": b""}
        connection.execute(insert(trail).values(seq=number + 1, at_us=now_us(), **values))

    return _records(count, record)


def _records(count: int, record: Callable[[Connection, int], None]) -> Work:
    def work(directory: Path) -> float:
        with Database(directory / "store.sqlite3", own=True, reserve_bytes=0) as database:
            began = time.perf_counter()
            for first in range(0, count, RECORDS):
                with database.writing() as connection:
                    for number in range(first, first + RECORDS):
                        record(connection, number)
            return count / (time.perf_counter() - began)

    return work


def by_two(count: int) -> Work:
    """Commands a second that one person asks for and another approves."""

    def work(directory: Path) -> float:
        people = People(directory)
        desk = Desk(ControlConfig(), people.principals())
        ada, bob = people.signer("ada"), people.signer("bob")
        with Database(directory / "store.sqlite3", own=True, reserve_bytes=0) as database:
            with database.writing() as connection:
                registry.add_meters(connection, [meter(number) for number in range(1, METERS + 1)])
            began = time.perf_counter()
            for number in range(count):
                device = number % METERS + 1
                order = orders.switch(
                    "off",
                    [(device, meter(device).system_title or b"")],
                    reason="unpaid since May",
                    requester="ada",
                    created_us=now_us(),
                    life_s=900,
                )
                signature = ada.sign("propose", 0, order.octets())
                with database.writing() as connection:
                    desk.propose(connection, order.octets(), signature)
                with database.writing() as connection:
                    assert desk.approve(connection, order.order_id, bob).complete
            return count / (time.perf_counter() - began)

    return work


def alone(count: int) -> Work:
    """Two transactions of one row each."""

    def work(directory: Path) -> float:
        row = {"at_us": 0, "kind": "", "principal": "", "subject": "", "detail": "", "hash": b""}
        with Database(directory / "store.sqlite3", own=True, reserve_bytes=0) as database:
            began = time.perf_counter()
            for number in range(2 * count):
                with database.writing() as connection:
                    connection.execute(insert(trail).values(seq=number + 1, **row))
            return count / (time.perf_counter() - began)

    return work


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two short rounds, nothing kept")
    given = parser.parse_args()
    rounds, share = (2, 1) if given.quick else (7, 4)
    large = [batch(number) for number in range(5 * share)]
    small = [
        WriteBatch(readings=one.readings[:96], ends=one.ends[:1], peer_counters=one.peer_counters[:1])
        for one in (batch(number) for number in range(1000, 1000 + 50 * share))
    ]
    sides: dict[str, tuple[Work, Work]] = {
        "lines, 10,000 a transaction": (readings(large, "FULL"), readings(large, "OFF")),
        "lines, 96 a transaction": (readings(small, "FULL"), readings(small, "OFF")),
        "audit records": (chained(RECORDS * share), unchained(RECORDS * share)),
        "commands asked for and approved": (by_two(100 * share), alone(100 * share)),
    }
    BUILD.mkdir(exist_ok=True)
    found: dict[str, list[list[float]]] = {name: [[], []] for name in sides}
    for _ in range(rounds):
        for name, works in sides.items():
            for figures, work in zip(found[name], works, strict=True):
                directory = Path(tempfile.mkdtemp(dir=BUILD))
                figures.append(work(directory))
                shutil.rmtree(directory)
    rows = []
    print(f"{'a second':36} {'with':>10} {'without':>10} {'ratio':>6}")
    for name, (ours, bare) in found.items():
        row = {"work": name, "with": summary(ours), "without": summary(bare)}
        ratio = round(summary(ours)["median"] / summary(bare)["median"], 3)
        rows.append({**row, "ratio": ratio})
        print(f"{name:36} {summary(ours)['median']:10,.0f} {summary(bare)['median']:10,.0f} {ratio:6.2f}")
    if not given.quick:
        keep("safety", {"rounds": rounds, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
