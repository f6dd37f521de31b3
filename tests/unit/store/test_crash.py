"""kill -9 at each point of a batch's way to the disk: nothing acknowledged is lost, nothing is half there (R1)."""

import signal
import subprocess
import sys

import pytest

from ipss_headend.address import Address, Server
from ipss_headend.store import Database, counters, marks, readings

CHILD = """
import os, signal, sys
from pathlib import Path
from ipss_headend.address import Server
from ipss_headend.store import Database, WriteBatch, counters, journal, marks, reading_row

where, marker, point, batches = *sys.argv[1:4], int(sys.argv[4])
database = Database(Server(where, Path(marker)) if marker else Path(where), own=True, reserve_bytes=0)

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def batch(number):
    times = range(number * 100, number * 100 + 100)
    return WriteBatch(
        [reading_row(1, 1, time, [time, -time], received_us=0) for time in times],
        peer_counters=[(1, number + 1)],
        marks=[(1, 1, number * 100, number * 100 + 100)],
    )

for number in range(batches):
    if number == batches - 1:
        if point == "readings":
            counters.raise_peer = die
        elif point == "counters":
            marks.advance = die
        elif point == "commit":
            database._writer.dialect.do_commit = die
    with database.writing() as connection:
        if point == "begin" and number == batches - 1:
            die()
        journal.write(connection, batch(number), 0, database.epoch)
    os.write(1, b"%d\\n" % number)
die()
"""


@pytest.mark.parametrize("point", ["begin", "readings", "counters", "commit", "acknowledged"])
def test_killed_process_leaves_every_acknowledged_batch_and_no_half_one(address: Address, point: str) -> None:
    where = (address.url, str(address.marker)) if isinstance(address, Server) else (str(address), "")
    for batches in (1, 5):
        child = subprocess.run(
            [sys.executable, "-c", CHILD, *where, point, str(batches)], stdout=subprocess.PIPE, check=False
        )
        acknowledged = len(child.stdout.split())

        assert child.returncode == -signal.SIGKILL
        with Database(address, own=True, reserve_bytes=0) as database, database.reading() as connection:
            lines = list(readings.series(connection, [1], [1]))
            assert [line.cells for line in lines] == [[time, -time] for time in range(acknowledged * 100)]
            assert readings.verify(connection).sound
            assert counters.peer_high_water(connection, [1]).get(1, 0) == acknowledged
            assert marks.coverage(connection, 1, 1).contiguous_until_us == (acknowledged * 100 or None)
        assert acknowledged == (batches if point == "acknowledged" else batches - 1)
