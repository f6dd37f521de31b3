"""What a head-end finds after kill -9 with everything still in the database's log, and how long it takes to be ready.

`python -m tests.system.recovery CONFIG LINES` is the process that is killed: it writes lines into the store of that
configuration, 10,000 a transaction, says how many are acknowledged after each, and then waits for its end. SQLite's log
is never merged into the file meanwhile, and PostgreSQL's server is told to make no checkpoint: nothing is worse.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.postgresql import PrivateServer

from ipss_headend import config
from ipss_headend.store import Database, WriteBatch, journal, reading_row, readings
from ipss_headend.store.database import now_us
from ipss_headend.store.statements import is_postgresql

PART = 10_000
QUARTER_US = 900_000_000
BEGIN_US = 1_772_323_200_000_000
SETTINGS = (
    "max_wal_size = '64GB'",
    "checkpoint_timeout = '1d'",
    "recovery_init_sync_method = 'syncfs'",
)
"""No checkpoint; and one sync of the disk at the start in the place of one for each file, as the README advises."""


def part(number: int, lines: int) -> WriteBatch:
    """Lines of four values and a status: a day of quarters of an hour of each meter."""
    rows, meters = [], set()
    for line in range(number * PART, number * PART + lines):
        meter, quarter = line // 96 + 1, line % 96
        cells = [1_000_000 + 250 * quarter + meter, 7 * quarter, 40_000 + 11 * quarter, quarter, 0]
        captured = BEGIN_US + QUARTER_US * (quarter + 1)
        rows.append(reading_row(meter, 1, captured, cells, received_us=captured, deviation_min=-60, clock_status=0))
        meters.add(meter)
    return WriteBatch(
        readings=rows,
        peer_counters=[(meter, 1000 + number) for meter in meters],
        marks=[(meter, 1, BEGIN_US, BEGIN_US + 96 * QUARTER_US) for meter in meters],
    )


def write(path: Path, lines: int) -> None:
    """Write, tell, and wait to be killed."""
    with Database(config.load(path).database.address, own=True, reserve_bytes=0) as database:
        with database.writing() as connection:
            sqlite = not is_postgresql(connection)
            raw = connection.connection.dbapi_connection
        if sqlite:
            assert raw is not None
            raw.cursor().execute("PRAGMA wal_autocheckpoint=0")
        for number in range(-(-lines // PART)):
            batch = part(number, min(PART, lines - number * PART))
            with database.writing() as connection:
                journal.write(connection, batch, now_us(), database.epoch or 0)
            os.write(1, b"%d\n" % len(batch.readings))
        signal.pause()


def killed(path: Path, lines: int, server: PrivateServer | None = None) -> int:
    """Have lines written by a process that is killed then, and PostgreSQL's server with it; how many were told."""
    if server is not None:
        for setting in SETTINGS:
            server.execute(f"ALTER SYSTEM SET {setting}")
        server.execute("SELECT pg_reload_conf()")
        server.execute("CHECKPOINT")
    told = 0
    command = [sys.executable, "-m", "tests.system.recovery", str(path), str(lines)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            while told < lines:
                said = process.stdout.readline()
                assert said, f"the writer ended after {told} lines"
                told += int(said)
        finally:
            process.kill()
    if server is not None:
        server.kill()
    return told


def ready(path: Path, server: PrivateServer | None = None) -> float:
    """Seconds from the start of everything that was killed until the head-end says that it has started."""
    began = time.perf_counter()
    if server is not None:
        server.start()
    command = [sys.executable, "-m", "ipss_headend.cli", "serve", str(path)]
    said = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                said.append(line)
                if "started" in line:
                    return time.perf_counter() - began
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            process.communicate()
    raise AssertionError(f"the head-end did not start: {said}")


def there(path: Path) -> tuple[int, int]:
    """How many lines the ledger knows, and how many are there and as they were written."""
    with Database(config.load(path).database.address, reserve_bytes=0) as database, database.reading() as connection:
        found = readings.verify(connection)
        return found.lines + found.missing, found.lines - len(found.damaged)


def log_octets(path: Path, server: PrivateServer | None = None) -> int:
    """How long the log is that nothing has been merged from."""
    address = config.load(path).database.address
    if server is not None:
        return sum(one.stat().st_size for one in (server.data / "pg_wal").iterdir() if one.is_file())
    assert isinstance(address, Path)
    return address.with_name(address.name + "-wal").stat().st_size


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
