"""R1, R7: kill -9, fifty times at five points; no acknowledged reading lost, no invocation counter reused."""

import os
import signal
from array import array
from pathlib import Path

import pytest
from tests.system.fleet import fleet, head_end, opened
from tests.system.kill_me import POINTS
from tests.system.orders import forking

from ipss_headend import config
from ipss_headend.config import Config
from ipss_headend.field.reactor import EventKind
from ipss_headend.schedule import SECOND_US
from ipss_headend.store.marks import Coverage, coverage

KILLS = int(os.environ.get("IPSS_KILLS", "50"))
METERS = 4
PERIOD_US = 900 * SECOND_US

PLANS = """
[[plans]]
name = "registers"
objects = ["1.0.1.8.0.255", "1.0.2.8.0.255"]
every = "1s"

[[plans]]
name = "load profile"
profile = "1.0.99.1.0.255"
every = "15min"
backfill_days = 1
"""


@pytest.mark.timeout(300 + 6 * KILLS)
def test_fifty_kills_lose_no_acknowledged_reading_and_reuse_no_counter(tmp_path: Path) -> None:
    with fleet(METERS, "127.21.0.1", history_days=KILLS + 10) as running, forking() as orders:
        path = head_end(tmp_path, PLANS, running, reactor="counter_block = 64")
        text = path.read_text(encoding="utf-8")
        for kill in range(KILLS):
            # A day more to fill than before, so that there is work at every point.
            path.write_text(text.replace("backfill_days = 1", f"backfill_days = {kill + 2}"), encoding="utf-8")
            point = POINTS[kill % len(POINTS)]
            # The start's own block is the only one that is surely reserved; the others come by again and again.
            nth = 1 if point == "reserved" else 1 + kill // len(POINTS) % 3

            orders.start(path, point, nth)

            status = orders.wait()
            assert running.reused() == []
            assert status == -signal.SIGKILL, f"kill {kill}: it did not come to {point} for the time {nth}"
            if kill % 10 == 9:
                stored, marked = check(config.load(path), path)

    assert stored > KILLS * METERS
    assert marked > 10 * METERS * 96
    assert running.seen[EventKind.NONCE_SEEN]
    assert EventKind.REPLAY_REFUSED not in running.seen


def check(loaded: Config, path: Path) -> tuple[int, int]:
    """Everything acknowledged is there, and where a mark says so, a meter's whole profile is."""
    marked = 0
    with opened(loaded) as database, database.reading() as connection:
        rows = connection.exec_driver_sql("SELECT meter_id, layout_id, capture_time_us, entry_hash FROM readings").all()
        stored = {(row[0], row[1], row[2], row[3]) for row in rows}
        lost = acknowledged(path) - stored
        assert not lost, f"{len(lost)} acknowledged readings are lost"
        for layout in connection.exec_driver_sql("SELECT layout_id FROM layouts WHERE class_id = 7").scalars():
            for meter in range(1, METERS + 1):
                times = {row[2] for row in stored if row[:2] == (meter, layout)}
                expected = captures(coverage(connection, meter, layout))
                assert expected <= times, f"meter {meter}: {len(expected - times)} marked lines are not there"
                marked += len(expected)
    return len(stored), marked


def acknowledged(path: Path) -> set[tuple[int, int, int, int]]:
    """The keys of all readings that somebody was told of: meter, layout, capture time, entry hash."""
    flat = array("q")
    record = path.with_name("acknowledged")
    if record.exists():
        flat.frombytes(record.read_bytes())
    return set(zip(flat[0::4], flat[1::4], flat[2::4], flat[3::4], strict=True))


def captures(mark: Coverage) -> set[int]:
    """The moments at which a meter captured within a mark."""
    return {
        time_us
        for window in mark.windows
        for time_us in range(-(-window.from_us // PERIOD_US) * PERIOD_US, window.until_us, PERIOD_US)
    }
