"""R2: the power goes at any moment, and what was not synced is lost, torn or out of order. Nothing acknowledged is."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tests.system.disk import Disk, Op, build, ops

from ipss_headend.errors import StoreDamaged
from ipss_headend.security import audit
from ipss_headend.store import Database, counters, readings, restore

CUTS = int(os.environ.get("IPSS_POWER_CUTS", "40"))
"""R2 asks for 500, 10,000 before a release."""

WORK = """
import os, sys
from pathlib import Path
from ipss_headend.security import audit
from ipss_headend.store import Database, WriteBatch, counters, journal, reading_row

acks = os.open(sys.argv[1] + "/acks", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for life in range(3):
    with Database(Path(sys.argv[1], "head_end.sqlite"), own=True, reserve_bytes=0) as database:
        plain = database._writer.raw_connection()
        plain.driver_connection.execute("PRAGMA wal_autocheckpoint = 60")  # more of the dangerous moments
        plain.driver_connection.execute("PRAGMA synchronous = " + sys.argv[2])
        plain.close()
        for number in range(life * 40, life * 40 + 40):
            with database.writing() as connection:
                times = range(number * 20, number * 20 + 20)
                rows = [reading_row(1, 1, time, [time, b"x" * 40], received_us=0) for time in times]
                journal.write(connection, WriteBatch(rows), 0, database.epoch)
                seq = audit.append(connection, "test", "p", "s", {"number": number})
            os.write(acks, b"R %d\\n" % number)
            if number % 3 == 0:
                with database.writing(spend_reserve=True) as connection:
                    [block] = counters.reserve(connection, [1], 50)
                os.write(acks, b"C %d\\n" % block.end)
"""


@pytest.mark.timeout(120 + CUTS)
def test_r2_of_many_power_cuts_none_loses_what_was_acknowledged(tmp_path: Path) -> None:
    assert lost_power(tmp_path, CUTS, "FULL") > 0  # the cuts did cut something off


def test_the_cuts_find_a_store_that_does_not_sync(tmp_path: Path) -> None:
    with pytest.raises((AssertionError, StoreDamaged)):
        lost_power(tmp_path, 40, "OFF")


def lost_power(directory: Path, count: int, synchronous: str) -> int:
    """Work once, and cut the power at so many moments of it; at how many of them something was on its way."""
    data, log = directory / "data", directory / "ops"
    data.mkdir(mode=0o700)
    environment = {**os.environ, "LD_PRELOAD": str(build(directory)), "DISK_UNDER": str(data), "DISK_LOG": str(log)}
    subprocess.run([sys.executable, "-c", WORK, str(data), synchronous], env=environment, check=True, timeout=60)
    done = list(ops(log))
    rng = random.Random(2)
    disk, acknowledged, granted, at, on_its_way = Disk(), -1, 0, 0, 0
    for cut in sorted(rng.choices(range(len(done)), k=count)):
        for op in done[at:cut]:
            if op.name == "acks":
                kind, number = op.data.split()
                acknowledged, granted = (int(number), granted) if kind == b"R" else (acknowledged, int(number))
            else:
                disk.apply(op)
        at = cut
        on_its_way += check(data, disk.cut(rng), acknowledged, granted)
    return on_its_way


def check(data: Path, found: dict[str, bytes], acknowledged: int, granted: int) -> bool:
    """Open what is left in the place where it was; whether it was a moment between durable and told."""
    path = data / "head_end.sqlite"
    for name in ("head_end.sqlite-wal", "head_end.sqlite-shm", "head_end.sqlite-journal"):
        (data / name).unlink(missing_ok=True)
    for one in data.iterdir():
        if one.name not in {*found, "acks", path.name}:
            one.unlink()
    for name, octets in {path.name: b"", **found}.items():
        if name.endswith("-shm"):
            continue  # memory, not a file
        with (data / name).open("r+b" if (data / name).exists() else "wb") as file:  # the same inode as before
            file.truncate(0)
            file.write(octets)
    with Database(path, own=True, reserve_bytes=0) as database:
        with database.reading() as connection:
            times = [line.capture_time_us for line in readings.series(connection, [1], [1])]
            assert readings.verify(connection).sound
            assert restore.state(connection) in {"", "the marker file beside it is missing"}
            alone = restore.state(connection) != ""
            records = list(audit.records(connection))
        stored = len(times) // 20 - 1
        assert times == list(range(20 * (stored + 1)))  # whole batches, in order, none missing
        assert stored >= acknowledged, f"{acknowledged - stored} acknowledged batches are lost"
        assert stored <= acknowledged + 1
        assert audit.verify(records, [], b"").first_bad is None
        assert len(records) == stored + 1
        if not alone:
            with database.writing(spend_reserve=True) as connection:
                [block] = counters.reserve(connection, [1], 1)
            assert block.next >= granted, "a counter was granted twice"
        else:
            assert granted == 0, "the marker was not durable before a grant"
    return stored > acknowledged or alone


def test_a_disk_keeps_what_was_synced_and_tears_the_rest() -> None:
    disk = Disk()
    for op in (Op("W", "f", 0, b"a" * 1024), Op("S", "f", 0, b""), Op("W", "f", 0, b"b" * 1024), Op("W", "g", 0, b"c")):
        disk.apply(op)

    seen = {bytes(disk.cut(random.Random(seed)).get("f", b"")) for seed in range(40)}
    named = {"g" in disk.cut(random.Random(seed)) for seed in range(40)}

    halves = {b"a" * 512, b"b" * 512}
    assert seen == {one + other for one in halves for other in halves}
    assert named == {True, False}
