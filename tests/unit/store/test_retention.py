"""Retention on SQLite: months go into archives that are whole before anything is deleted, and can be read again."""

from __future__ import annotations

import csv
import io
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from sqlalchemy import Connection

from ipss_headend import housekeeping
from ipss_headend.config import parse
from ipss_headend.errors import RequestError, StoreDamaged, StoreFull
from ipss_headend.metrics import Figures
from ipss_headend.security import audit
from ipss_headend.store import (
    Database,
    Store,
    WriteBatch,
    archive,
    journal,
    plugins,
    reading_row,
    readings,
    retention,
    schema,
)
from ipss_headend.store.archive import Contents
from ipss_headend.store.export import Selection, export
from ipss_headend.store.partitions import Month
from ipss_headend.store.records import ReadingRow
from ipss_headend.store.registry import Layout, LayoutColumn, Meter, add_meters, intern_layouts, meter_named

DAY_US = 86_400_000_000
JANUARY, FEBRUARY, MARCH = Month(2024, 1), Month(2024, 2), Month(2024, 3)
DAYS = range(0, 90, 3)
"""Of lines, from the first of January on."""


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with Database(path, own=True, reserve_bytes=0) as opened:
        yield opened


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def row(day: int, meter: int = 1, layout: int = 1, value: int = 0) -> ReadingRow:
    time_us = JANUARY.from_us + day * DAY_US
    return reading_row(meter, layout, time_us, [value or day], received_us=time_us + 60_000_000)


def fill(database: Database) -> list[ReadingRow]:
    rows = [row(day, meter, layout) for meter in (1, 2, 5) for layout in (1, 3) for day in DAYS]
    with database.writing() as connection:
        journal.write(connection, WriteBatch(rows), rows[0][6], database.epoch or 0)
        plugins.flag(connection, [plugins.FlagRow(2, 3, 0, one[2], 1) for one in rows if one[:2] == (2, 3)])
        plugins.want(connection, [(5, 1, 0, JANUARY.from_us + 7)], 1)
    return rows


def stored(connection: Connection) -> set[ReadingRow]:
    return {tuple(found) for found in connection.exec_driver_sql("SELECT * FROM readings")}


def archived(directory: Path) -> list[ReadingRow]:
    found: list[ReadingRow] = []
    for path in sorted(directory.glob("readings-*.sqlite")):
        with archive.reading(path) as connection:
            found += archive.rows_of(connection, schema.readings)
    return found


def unnoted(connection: Connection, *, path: Path, contents: Contents) -> None:
    """Of no interest here."""


def retire(database: Database, directory: Path, before: Month = MARCH) -> retention.Report:
    return retention.run(database, retention.retire(before, directory, unnoted), pause=0)


def test_months_before_are_in_archives_and_the_rest_is_in_the_store(database: Database, directory: Path) -> None:
    rows = fill(database)

    report = retire(database, directory)

    assert [one.path.name for one in report.archives] == ["readings-2024-01.sqlite", "readings-2024-02.sqlite"]
    assert [one.deleted for one in report.archives] == [one.contents.readings for one in report.archives]
    old = {one for one in rows if one[2] < MARCH.from_us}
    assert 0 < len(old) < len(rows)
    assert set(archived(directory)) == old
    with database.reading() as connection:
        assert stored(connection) == set(rows) - old
        assert readings.verify(connection).sound
        assert readings.line_count(connection) == len(rows) - len(old)
        assert len(plugins.flags(connection, 2, 0, MARCH.from_us)) == 0
        assert len(plugins.flags(connection, 2, MARCH.from_us, 2**62)) > 0
        assert plugins.estimated(connection, 5, 0, MARCH.from_us) == []
    with archive.reading(report.archives[0].path) as connection:
        assert len(plugins.flags(connection, 2, 0, MARCH.from_us)) > 0
        assert len(plugins.estimated(connection, 5, 0, MARCH.from_us)) == 1
    assert all(one.path.stat().st_mode & 0o777 == 0o600 for one in report.archives)


def test_nothing_is_left_to_do_the_second_time(database: Database, directory: Path) -> None:
    fill(database)
    retire(database, directory)

    assert retire(database, directory).archives == []


def test_small_pieces_are_the_same(database: Database, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = fill(database)
    monkeypatch.setattr(retention, "PIECE", 3)
    monkeypatch.setattr(retention, "LOOKS", 2)

    retire(database, directory)

    with database.reading() as connection:
        assert sorted([*archived(directory), *stored(connection)]) == sorted(rows)
        assert readings.verify(connection).sound


def test_dropped_between_any_two_steps_it_goes_on_and_loses_nothing(
    path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PIECE", 20)
    kept: list[retention.Steps] = []  # or the collector would end them well
    with Database(path, own=True, reserve_bytes=0) as database:
        rows = fill(database)
        for after in range(1, 200):
            steps = retention.retire(MARCH, directory, unnoted)
            kept.append(steps)
            found = None
            for _ in range(after):
                try:
                    step = steps.send(found)
                except StopIteration:
                    break
                with database.writing() if step.writes else database.reading() as connection:
                    found = step.work(connection)
            else:
                with database.reading() as connection:
                    whole = [*archived(directory), *stored(connection)]
                    for checked in directory.glob("*.checked"):
                        with archive.reading(checked) as half:
                            whole += archive.rows_of(half, schema.readings)
                    assert set(whole) == set(rows)
                    assert readings.verify(connection).sound
                # As with the process, its lock goes.
                directory.joinpath(".lock").unlink()
                continue
            break
        else:
            raise AssertionError("it never came to its end")

        with database.reading() as connection:
            assert sorted([*archived(directory), *stored(connection)]) == sorted(rows)
            assert readings.verify(connection).sound
    for steps in kept:
        steps.close()


CHILD = """
import os, signal, sys
from pathlib import Path
from ipss_headend.store import Database, archive, retention
from ipss_headend.store.partitions import Month

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

path, directory, point = sys.argv[1:]
database = Database(Path(path), reserve_bytes=0)
retention.PIECE = 20
deletions = 0

def delete(*arguments, original=retention._delete):
    global deletions
    deletions += 1
    found = original(*arguments)
    if point == "deleting" and deletions == 3:
        die()
    return found

retention._delete = delete
if point == "copying":
    archive.Writing.name = die
elif point == "checking":
    archive.check = die
elif point == "naming":
    archive.renamed = die
elif point == "deleted":
    original = archive.renamed
    archive.renamed = lambda one, other: die() if one.name.endswith(".checked") else original(one, other)
retention.run(database, retention.retire(Month(2024, 3), Path(directory), lambda *_, **__: None), pause=0)
"""


@pytest.mark.parametrize("point", ["copying", "checking", "naming", "deleting", "deleted"])
def test_killed_process_loses_nothing_and_the_next_ends_it(path: Path, directory: Path, point: str) -> None:
    with Database(path, own=True, reserve_bytes=0) as database:
        rows = fill(database)

        child = subprocess.run([sys.executable, "-c", CHILD, path, directory, point], check=False)

        assert child.returncode == -signal.SIGKILL
        with database.reading() as connection:
            assert readings.verify(connection).sound
            begun = stored(connection)
        assert (len(begun) < len(rows)) == (point in {"deleting", "deleted"})

        retire(database, directory)

        with database.reading() as connection:
            assert sorted([*archived(directory), *stored(connection)]) == sorted(rows)
            assert readings.verify(connection).sound
        assert {found.suffix for found in directory.glob("readings-*")} == {".sqlite"}


ANYWHERE = """
import os, random, signal, sys
from pathlib import Path
from ipss_headend.store import Database, archive, retention
from ipss_headend.store.partitions import Month

path, directory, seed = sys.argv[1:]
dice = random.Random(int(seed))
left, after = dice.randrange(1, 40), dice.random() < 0.5

def counted(owner, name):
    original = getattr(owner, name)

    def call(*arguments, **named):
        global left
        left -= 1
        if left == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        found = original(*arguments, **named)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, name, call)

for owner, name in (
    (os, "fsync"), (Path, "rename"), (Path, "unlink"), (retention, "_rows"), (retention, "_delete"),
    (archive.Writing, "add"), (Database, "writing"), (Database, "reading"),
):
    counted(owner, name)
retention.PIECE = 20
database = Database(Path(path), reserve_bytes=0)
retention.run(database, retention.retire(Month(2024, 3), Path(directory), lambda *_, **__: None), pause=0)
"""

KILLS = int(os.environ.get("IPSS_RETIREMENT_KILLS", "5"))


def test_killed_anywhere_beside_a_head_end_that_writes_nothing_is_lost(path: Path, directory: Path) -> None:
    """Kills at any transaction, file or sync of a retirement, again and again, while late lines come."""
    killed, seed = 0, 0
    with Database(path, own=True, reserve_bytes=0) as database:
        rows = fill(database)
        while killed < KILLS:
            seed += 1
            child = subprocess.Popen([sys.executable, "-c", ANYWHERE, path, directory, str(seed)])
            while child.poll() is None:
                late = row(len(rows) % 80, meter=7, layout=1, value=len(rows) + 1000)
                with database.writing() as connection:
                    journal.write(connection, WriteBatch([late]), late[6], database.epoch or 0)
                rows.append(late)
                time.sleep(0.02)
            killed += child.returncode == -signal.SIGKILL
            assert child.returncode in (0, -signal.SIGKILL)
            with database.reading() as connection:
                assert readings.verify(connection).sound

        retire(database, directory)

        with database.reading() as connection:
            kept = stored(connection)
            assert sorted([*archived(directory), *kept]) == sorted(rows)
            assert all(one[2] >= MARCH.from_us for one in kept)
            assert readings.verify(connection).sound


def test_line_that_comes_while_the_month_is_retired_stays_and_goes_next_time(
    database: Database, directory: Path
) -> None:
    rows = fill(database)
    late = row(4, meter=1, layout=1, value=999)
    steps = retention.retire(FEBRUARY, directory, unnoted)
    found, came = None, False
    while True:
        try:
            step = steps.send(found)
        except StopIteration:
            break
        if step.writes and not came:
            with database.writing() as connection:
                journal.write(connection, WriteBatch([late]), late[6], database.epoch or 0)
            came = True
        with database.writing() if step.writes else database.reading() as connection:
            found = step.work(connection)
    with database.reading() as connection:
        assert late in stored(connection)

    report = retire(database, directory, FEBRUARY)

    assert [(one.path.name, one.deleted) for one in report.archives] == [("readings-2024-01-2.sqlite", 1)]
    with database.reading() as connection:
        assert sorted([*archived(directory), *stored(connection)]) == sorted([*rows, late])
        assert readings.verify(connection).sound


def test_damaged_line_is_neither_archived_nor_deleted(database: Database, directory: Path) -> None:
    rows = fill(database)
    with database.writing() as connection:
        connection.exec_driver_sql(
            "UPDATE readings SET crc = crc + 1 WHERE meter_id = 1 AND layout_id = 1 AND capture_time_us = ?",
            (rows[1][2],),
        )

    report = retire(database, directory)

    assert len(report.damaged) == 1
    with database.reading() as connection:
        assert len([one for one in stored(connection) if one[2] < MARCH.from_us]) == 1
        assert len(archived(directory)) + len(stored(connection)) == len(rows)
        found = readings.verify(connection)
    assert (len(found.damaged), found.missing) == (1, 0)


def test_lines_of_a_clock_that_cannot_be_stay(database: Database, directory: Path) -> None:
    wrong = [reading_row(1, 1, time_us, [1], received_us=JANUARY.from_us) for time_us in (5, 2**62, -(2**62))]
    with database.writing() as connection:
        journal.write(connection, WriteBatch(wrong), 1, database.epoch or 0)

    assert retire(database, directory).archives == []


def test_month_that_is_not_over_is_refused(database: Database, directory: Path) -> None:
    with pytest.raises(RequestError, match="not over"):
        retire(database, directory, Month(9000, 1))


def test_two_at_once_are_refused(database: Database, directory: Path) -> None:
    fill(database)
    first = retention.retire(MARCH, directory, unnoted)
    next(first)

    with pytest.raises(RequestError, match="another process"):
        retire(database, directory)

    first.close()
    assert len(retire(database, directory).archives) == 2


def test_without_room_nothing_is_deleted_and_nothing_left_behind(database: Database, directory: Path) -> None:
    rows = fill(database)

    with pytest.raises(StoreFull, match="nothing was deleted"):
        retention.run(database, retention.retire(MARCH, directory, unnoted, reserve_bytes=1 << 60), pause=0)

    with database.reading() as connection:
        assert stored(connection) == set(rows)
    assert list(directory.glob("readings-*")) == []


def test_archive_reads_as_the_store_did(database: Database, directory: Path) -> None:
    layout = Layout(7, "1.0.99.1.0.255", 2, (LayoutColumn(3, "1.0.1.8.0.255", 2, scaler=-3, unit="kWh"),))
    meter = Meter(1, "oak street 1", "192.0.2.1", 4059, 1, None, None, "", "east", {})
    with database.writing() as connection:
        intern_layouts(connection, [layout])
        add_meters(connection, [meter])
    fill(database)

    def exported(connection: Connection) -> list[list[str]]:
        text = io.BytesIO()
        export(connection, Selection([meter], {1: layout}, JANUARY.from_us, FEBRUARY.from_us), text)
        return list(csv.reader(io.StringIO(text.getvalue().decode())))

    with database.reading() as connection:
        before = exported(connection)
    [one] = retire(database, directory, FEBRUARY).archives

    assert len(before) == 1 + 11
    with archive.reading(one.path) as connection:
        assert exported(connection) == before
    with database.reading() as connection:
        assert len(exported(connection)) == 1


def test_archive_of_an_older_form_has_empty_places_for_what_came_since(database: Database, directory: Path) -> None:
    with database.writing() as connection:
        add_meters(connection, [Meter(1, "oak street 1", "192.0.2.1", 4059, 1, None, None, "", "east", {})])
    fill(database)
    [one] = retire(database, directory, FEBRUARY).archives
    older = sqlite3.connect(one.path)
    for column in ("system_title", "logical_device_name"):  # unique ones cannot be dropped
        older.execute("CREATE TABLE other AS SELECT * FROM meters")
        older.execute("DROP TABLE meters")
        older.execute("ALTER TABLE other RENAME TO meters")
        older.execute(f"ALTER TABLE meters DROP COLUMN {column}")
    older.execute("ALTER TABLE meters DROP COLUMN model")
    older.commit()
    older.close()

    with archive.reading(one.path) as connection:
        found = meter_named(connection, "oak street 1")

    assert (found.system_title, found.model, found.group) == (None, "", "east")
    assert archive.check(one.path) == one.contents


def test_any_octet_of_an_archive_that_changed_is_told(database: Database, directory: Path) -> None:
    fill(database)
    [one] = retire(database, directory, FEBRUARY).archives
    assert archive.check(one.path) == one.contents
    octets = one.path.read_bytes()
    with archive.reading(one.path) as connection:
        cells = next(archive.rows_of(connection, schema.readings))
    place = octets.rindex(cells[8] + cells[9].to_bytes(4, "big"))

    for at in (place, place + len(cells[8]), octets.index(one.contents.digest.encode())):
        one.path.write_bytes(octets[:at] + bytes([octets[at] ^ 1]) + octets[at + 1 :])
        with pytest.raises(StoreDamaged):
            archive.check(one.path)


def test_room_of_what_is_retired_is_used_again(database: Database, directory: Path) -> None:
    def write(start: int) -> None:
        rows = [row(0, meter, value=start + place) for meter in range(1, 200) for place in range(50)]
        with database.writing() as connection:
            journal.write(connection, WriteBatch(rows), 1, database.epoch or 0)

    def pages() -> int:
        with database.reading() as connection:
            found: int = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            return found

    write(0)
    retire(database, directory)
    with database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM log")
    before = pages()

    write(1000)

    assert pages() < before * 1.05


def test_head_end_retires_by_itself_as_configured(path: Path, directory: Path) -> None:
    figures = Figures()
    text = f'[keystore]\nkey_file = "k"\n[retention]\nmonths = 1\narchive = "{directory}"\n'
    config = parse(text, path.with_name("head_end.toml"))

    async def main() -> int:
        database = Database(path, own=True, reserve_bytes=0)
        rows = fill(database)
        async with Store(database) as store, trio.open_nursery() as nursery:
            nursery.start_soon(housekeeping.keep, store, config, figures)
            with trio.fail_after(60):
                while figures.retired_lines < len(rows):  # noqa: ASYNC110 - nobody tells
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        return len(rows)

    lines = trio.run(main)

    assert len(archived(directory)) == lines
    with Database(path, reserve_bytes=0) as database, database.reading() as connection:
        found = [(one.kind, one.principal, one.subject) for one in audit.records(connection)]
        assert found == [("retire", "head-end", month) for month in ("2024-01", "2024-02", "2024-03")]
        assert retention.retired_until(connection) == Month(2024, 4).from_us
        assert readings.verify(connection).sound
    assert not figures.retention_trouble


def test_head_end_tells_what_keeps_it_and_goes_on(path: Path, directory: Path) -> None:
    figures = Figures()
    text = f'[keystore]\nkey_file = "k"\n[retention]\nmonths = 1\narchive = "{directory}"\n'
    config = parse(text, path.with_name("head_end.toml"))
    directory.write_text("in the way")

    async def main() -> None:
        database = Database(path, own=True, reserve_bytes=0)
        fill(database)
        async with Store(database) as store, trio.open_nursery() as nursery:
            nursery.start_soon(housekeeping.keep, store, config, figures, 0.01)
            with trio.fail_after(60):
                while not figures.retention_trouble:  # noqa: ASYNC110 - nobody tells
                    await trio.sleep(0.01)
                os.unlink(directory)
                while figures.retention_trouble:  # noqa: ASYNC110 - nobody tells
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    trio.run(main)

    assert figures.retired_lines > 0
