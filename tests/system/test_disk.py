"""Disks that fail from outside the process: EIO by two tools of others (R4), a real small disk (R5), rot (R3).

`fiu-run` (libfiu) and `strace` make fsync and fdatasync fail; both come from Debian. The small disk is a tmpfs, mounted
by root or in a user namespace of our own; where neither is allowed, the test fails and says so.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from tests.system.fleet import fleet, head_end, opened
from tests.system.test_serve import free_port, page, serving, turns, until
from typer.testing import CliRunner

from ipss_headend import config
from ipss_headend.cli import app
from ipss_headend.errors import StoreDamaged, StoreError, StoreFailed
from ipss_headend.server import HeadEnd
from ipss_headend.store import Database, WriteBatch, journal, reading_row, readings, scrub
from ipss_headend.store.statements import rows

EIO_RUNS = int(os.environ.get("IPSS_EIO_RUNS", "6"))
"""R4 asks for 200, by each tool."""

FILLS = int(os.environ.get("IPSS_FILLS", "3"))
"""R5 asks for 100."""

FLIPS = int(os.environ.get("IPSS_FLIPS", "60"))
"""R3 asks for 10,000."""

WRITER = """
import os, sys
from pathlib import Path
from ipss_headend.errors import StoreFailed
from ipss_headend.store import Database, WriteBatch, counters, journal, reading_row

def say(text):
    os.write(1, text.encode() + b"\\n")

say("open")  # the tools count from the start; a failure while opening is none of this test's
database = Database(Path(sys.argv[1]), own=True, reserve_bytes=0)
failed = False
for number in range(int(sys.argv[2])):
    try:
        with database.writing() as connection:
            rows = [reading_row(1, 1, number, [number], received_us=0)]
            journal.write(connection, WriteBatch(rows), 0, database.epoch)
        say(f"ack {number}")
    except StoreFailed as error:
        say("again" if failed else f"failed {error}")
        failed = True
    if failed and number % 2:
        try:
            with database.writing(spend_reserve=True) as connection:
                counters.reserve(connection, [1], 10)
            say("ack counters")
        except StoreFailed:
            say("again")
say("end")
"""


def tools() -> list[str]:
    return ["fiu-run", "strace"]


def failing(tool: str, at: int, *, ever_after: bool) -> list[str]:
    """The tool's command line: the sync number `at` fails, and the later ones or not."""
    if tool == "strace":
        when = f"when={at}{'+' if ever_after else ''}"
        traced = ["-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync"]
        return ["strace", *traced, "-e", f"inject=fdatasync,fsync:error=EIO:{when}"]
    # libfiu has no count: a share instead, and then once or again and again.
    once = "" if ever_after else ",onetime"
    return ["fiu-run", "-x", "-c", f"enable_random name=posix/io/sync/*,probability={1 / at:.3f}{once},failinfo=5"]


@pytest.mark.parametrize("tool", tools())
@pytest.mark.timeout(120 + 2 * EIO_RUNS)
def test_r4_after_a_failed_sync_nothing_is_acknowledged(tool: str, tmp_path: Path) -> None:
    """Also when the next sync would succeed again: what the kernel dropped stays dropped."""
    assert shutil.which(tool), f"{tool} is missing: scripts/system-packages names its package"
    rng = random.Random(4)
    failures = 0
    for run in range(EIO_RUNS):
        path = tmp_path / f"{run}" / "head_end.sqlite"
        Database(path, own=True, reserve_bytes=0).close()
        command = failing(tool, rng.randrange(4, 40), ever_after=run % 2 == 1)
        child = subprocess.run(
            [*command, sys.executable, "-c", WRITER, str(path), "40"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        said = child.stdout.split("\n")
        first = next((place for place, line in enumerate(said) if line.startswith("failed")), None)
        acknowledged = [int(line.split()[1]) for line in said[:first] if line.startswith("ack ")]
        if first is not None:
            failures += 1
            assert not [line for line in said[first:] if line.startswith("ack")], said
            assert "start the process again" in said[first]
        with Database(path, own=True, reserve_bytes=0) as database, database.reading() as connection:
            stored = {line.capture_time_us for line in readings.series(connection, [1], [1])}
            assert stored >= set(acknowledged)
            assert readings.verify(connection).sound
        shutil.rmtree(path.parent)
    assert failures >= EIO_RUNS // 3, failures


@pytest.mark.parametrize("tool", tools())
def test_r4_a_head_end_whose_sync_fails_ends_and_says_why(tool: str, tmp_path: Path) -> None:
    plan = '[[plans]]\nname = "registers"\nobjects = ["1.0.1.8.0.255"]\nevery = "1s"\n'
    with fleet(3, "127.69.0.1", history_days=1) as running:
        path = head_end(tmp_path, plan, running)
        process = subprocess.Popen(
            [
                # The first of a share of the syncs may be that of an audit checkpoint, which stops commands alone.
                *(failing(tool, 8, ever_after=True) if tool == "fiu-run" else failing(tool, 6, ever_after=False)),
                sys.executable,
                "-m",
                "ipss_headend.cli",
                "serve",
                str(path),
            ],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            _, log = process.communicate(timeout=90)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    assert process.returncode not in {0, -signal.SIGKILL}
    assert "nothing is acknowledged any more, start the process again" in log or "disk I/O error" in log
    assert "Traceback" not in log


FILLER = """
import os, sys
from pathlib import Path
from ipss_headend.errors import StoreFull
from ipss_headend.security import audit
from ipss_headend.store import Database, WriteBatch, counters, journal, reading_row, readings

directory, fills = Path(sys.argv[1]), int(sys.argv[2])
filler = directory / "filler"
acknowledged, granted = 0, 0
with Database(directory / "head_end.sqlite", own=True, reserve_bytes=2 << 20) as database:
    for fill in range(fills):
        free = os.statvfs(directory).f_bavail * 4096
        # Sometimes the reserve stops readings before a transaction, sometimes the disk ends within one.
        filler.write_bytes(b"f" * max(0, free - (3 << 20)))
        refused = 0
        while refused < 3:
            size = 2000 if fill % 2 else 40
            rows = [reading_row(1, 1, acknowledged + n, [n, os.urandom(1000)], received_us=0) for n in range(size)]
            try:
                with database.writing() as connection:
                    journal.write(connection, WriteBatch(rows), 0, database.epoch)
                acknowledged += size
            except StoreFull:
                refused += 1
                with database.writing(spend_reserve=True) as connection:
                    [block] = counters.reserve(connection, [1], 10)
                    audit.append(connection, "test", "p", "s", {"fill": fill})
                assert block.next >= granted
                granted = block.end
        filler.unlink()
        # No restart is needed. What makes room may use the reserve: the database itself has grown into the disk.
        with database.writing(spend_reserve=True) as connection:
            connection.exec_driver_sql("DELETE FROM readings WHERE capture_time_us < ?", (acknowledged - 50,))
            connection.exec_driver_sql("DELETE FROM log")
    with database.reading() as connection:
        times = [line.capture_time_us for line in readings.series(connection, [1], [1])]
        assert times == list(range(acknowledged - 50, acknowledged)), "acknowledged readings are lost"
        assert len(list(audit.records(connection))) >= 3 * fills
print("kept", acknowledged, granted)
"""


@pytest.mark.timeout(120 + 4 * FILLS)
def test_r5_a_small_disk_is_filled_again_and_again(tmp_path: Path) -> None:
    """16 MiB with a reserve of 2: readings stop, counters and audit go on, nothing acknowledged is lost."""
    there = tmp_path / "small"
    there.mkdir()
    mount = 'mount -t tmpfs -o size=16m none "$1" && shift && exec "$@"'
    command = [
        "unshare",
        "--mount",
        *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]),
        "sh",
        "-c",
        mount,
        "sh",
    ]
    child = subprocess.run(
        [*command, str(there), sys.executable, "-c", FILLER, str(there), str(FILLS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "permission denied" not in child.stderr.lower(), f"no small disk may be mounted here: {child.stderr}"
    assert child.returncode == 0, child.stderr[-3000:]
    assert child.stdout.startswith("kept ")
    assert list(there.iterdir()) == []  # it was another disk


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[list[object]]]:
    """A store's octets, and what its readings are."""
    path = tmp_path_factory.mktemp("good") / "head_end.sqlite"
    cells: list[list[object]] = [[number * 1000, -number] for number in range(600)]
    with Database(path, own=True, reserve_bytes=0) as database:
        rows = [reading_row(1, 1, number, one, received_us=0) for number, one in enumerate(cells)]  # type: ignore[arg-type]
        with database.writing() as connection:
            journal.write(connection, WriteBatch(rows), 0, database.epoch or 0)
    return path.read_bytes(), cells


@pytest.mark.timeout(120 + FLIPS // 5)
def test_r3_of_flipped_bits_and_cut_files_none_serves_a_wrong_value(
    good: tuple[bytes, list[list[object]]], tmp_path: Path
) -> None:
    """What is served is right, and what is missing is told, also by the store's own watch while nobody asks.

    Bits that nothing is kept in may flip unnoticed.
    """
    octets, cells = good
    rng = random.Random(3)
    told = harmless = 0
    for number in range(FLIPS):
        place = rng.randrange(len(octets))
        bad = octets[:place] if number % 10 == 9 else _flipped(octets, place, rng.randrange(8))
        path = tmp_path / "bad.sqlite"
        for one in tmp_path.glob("bad.sqlite*"):
            one.unlink()
        path.write_bytes(bad)
        try:
            served, sound = looked_at(path)
        except (StoreDamaged, StoreError):
            told += 1
            continue
        assert all(cells[time] == values for time, values in served), f"a wrong value at octet {place}"
        assert len({time for time, _ in served}) == len(served), f"a line twice at octet {place}"
        assert not sound or len(served) == len(cells), f"octet {place}: {len(cells) - len(served)} lines gone, untold"
        assert sound or looked_through(path), f"octet {place}: no alarm by itself"
        told += not sound
        harmless += sound
    # Most of so small a database is room in which nothing is kept.
    assert told > FLIPS // 8
    assert told + harmless == FLIPS


def looked_at(path: Path) -> tuple[list[tuple[int, list[object]]], bool]:
    """What a damaged store serves, and whether it thinks itself sound."""
    lost: list[StoreDamaged] = []
    with Database(path, reserve_bytes=0) as database, database.reading() as connection:
        served = [
            (line.capture_time_us, list[object](line.cells))
            for line in readings.series(connection, [1], [1], on_damage=lost.append)
        ]
        return served, readings.verify(connection).sound and not lost


def looked_through(path: Path) -> list[scrub.Found]:
    """What a turn of the head-end's own watch finds."""
    found: list[scrub.Found] = []
    place: scrub.Place | None = scrub.Place()
    with Database(path, reserve_bytes=0) as database:
        while place is not None:
            try:
                with database.reading() as connection:
                    piece = scrub.look(connection, place)
            except (StoreDamaged, StoreFailed) as error:
                piece = scrub.unreadable(place, error)
            found += piece.found
            place = piece.next
    return found


def test_r3_a_head_end_finds_flipped_bits_while_nobody_asks(tmp_path: Path) -> None:
    port = free_port()
    shown: dict[str, tuple[int, str]] = {}
    plan = '[[plans]]\nname = "registers"\nobjects = ["1.0.1.8.0.255"]\nevery = "1d"\n'

    async def alarmed(running: HeadEnd) -> None:
        await until(lambda: running.figures.scrub_ended_us > 0)
        for name in ("metrics", "healthz"):
            shown[name] = await trio.to_thread.run_sync(page, f"http://127.0.0.1:{port}/{name}")

    with fleet(3, "127.69.1.1", history_days=1) as running:
        path = head_end(tmp_path, plan, running, metrics_port=port)
        path.write_text(path.read_text() + '[database]\nscrub_every = "1s"\n')
        serving(path, turns)
        loaded = config.load(path)
        with opened(loaded) as database, database.reading() as connection:
            _, (meter, layout, cells), _ = rows(connection, "SELECT meter_id, layout_id, cells FROM readings")
        file = tmp_path / "data" / "head_end.sqlite"
        octets = file.read_bytes()
        assert cells in octets
        file.write_bytes(octets.replace(cells, _flipped(cells, len(cells) - 1, 3)))
        with capture_logs() as logged:
            serving(path, alarmed)

    damaged = [line["found"] for line in logged if line["event"] == "what is stored is damaged"]
    assert any(f"meter {meter}, layout {layout}" in found for found in damaged)
    assert shown["healthz"] == (200, "ok\n")  # another start would mend nothing
    [value] = [line for line in shown["metrics"][1].splitlines() if line.startswith("head_end_store_damaged_records ")]
    assert float(value.split()[1]) == len(damaged)
    assert 'head_end_events_total{kind="store-damaged"}' in shown["metrics"][1]
    app.load_commands()
    status = CliRunner().invoke(app.app, ["store", "status", "--config", str(path)])
    assert f"meter {meter}, layout {layout}" in status.stdout
    assert f"damaged records: {len(damaged)}" in status.stdout


def _flipped(octets: bytes, place: int, bit: int) -> bytes:
    return octets[:place] + bytes([octets[place] ^ 1 << bit]) + octets[place + 1 :]


def test_the_tools_are_among_the_packages_of_the_system() -> None:
    text = (Path(__file__).parents[2] / "scripts" / "system-packages").read_text(encoding="utf-8")
    wanted: Sequence[str] = ("fiu-utils", "strace")

    assert all(package in text for package in wanted)
