"""R6: consumers get every reading at least once and in order of the log, and its key makes doubles harmless."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ipss_headend.store import Database, WriteBatch, journal, log, plugins, reading_row

READINGS = int(os.environ.get("IPSS_OUTLET_READINGS", "20000"))
"""R6 asks for 10^6, with a fifth doubled and a twentieth out of order."""

KILLS = int(os.environ.get("IPSS_OUTLET_KILLS", "4"))
"""R6 asks for 100."""

CONSUMER = """
import sys, time
from pathlib import Path
from ipss_headend.store import Database, log, plugins

with Database(Path(sys.argv[1]), reserve_bytes=0) as database:
    while True:
        with database.reading() as connection:
            since = plugins.cursor(connection, "billing") or 0
            entries = list(log.after(connection, since, limit=5))
        if not entries:
            time.sleep(0.005)
            continue
        assert [one.sequence for one in entries] == list(range(since + 1, since + 1 + len(entries))), "a gap"
        effects = [("/".join(map(str, row[:4])), "bill", 1) for one in entries for row in one.rows]
        with database.writing() as connection:  # seen twice where it dies before this ends
            plugins.advance(connection, "billing", entries[-1].sequence, effects)
"""


@pytest.mark.timeout(120 + READINGS // 1000 + KILLS)
def test_r6_a_consumer_that_is_killed_again_and_again_misses_nothing_and_does_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "head_end.sqlite"
    rng = random.Random(6)
    numbers = list(range(READINGS))
    for _ in range(READINGS // 40):  # a twentieth changes places
        one, other = rng.randrange(READINGS), rng.randrange(READINGS)
        numbers[one], numbers[other] = numbers[other], numbers[one]
    size = 250
    kills = 0

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", CONSUMER, str(path)], stderr=subprocess.PIPE)

    with Database(path, own=True, reserve_bytes=0) as database:
        consumer = start()
        try:
            batches = range(0, READINGS, size)
            when = set(rng.sample(range(len(batches)), min(KILLS, len(batches))))
            for place, first in enumerate(batches):
                chosen = numbers[first : first + size]
                chosen += rng.sample(numbers[: first + size], len(chosen) // 5)  # a fifth comes again
                rows = [reading_row(1, 1, number, [number], received_us=0) for number in chosen]
                with database.writing() as connection:
                    journal.write(connection, WriteBatch(rows), 0, database.epoch or 0)
                if place in when:
                    until(database, rng.randrange(1, newest(database) + 1))
                    time.sleep(rng.uniform(0, 0.01))
                    consumer.send_signal(signal.SIGKILL)
                    _, said = consumer.communicate()
                    assert consumer.returncode == -signal.SIGKILL, said.decode()
                    kills += 1
                    consumer = start()
            until(database, newest(database))
        finally:
            consumer.kill()
            _, said = consumer.communicate()
        with database.reading() as connection:
            effects = [key for key, _, _ in plugins.effects(connection, "billing")]

    assert said == b""
    assert kills == min(KILLS, len(batches))
    assert len(effects) == len(set(effects)) == READINGS
    assert {int(key.split("/")[2]) for key in effects} == set(range(READINGS))


def newest(database: Database) -> int:
    with database.reading() as connection:
        return log.newest(connection)


def until(database: Database, sequence: int) -> None:
    """Wait until the consumer has dealt with this entry."""
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        with database.reading() as connection:
            if (plugins.cursor(connection, "billing") or 0) >= sequence:
                return
        time.sleep(0.002)
    raise AssertionError(f"entry {sequence} was not read in time")
