"""One batch, one transaction: twice the same is once, and what belongs together stays together."""

import re
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipss_headend.errors import StoreDamaged
from ipss_headend.store import (
    Database,
    Quality,
    Store,
    WriteBatch,
    counters,
    journal,
    log,
    marks,
    reading_row,
    readings,
)
from ipss_headend.store.database import now_us
from ipss_headend.store.statements import run

QUARTER_US = 900_000_000
DAY_US = 96 * QUARTER_US
T0 = 1_767_225_600_000_000


def write(database: Database, batch: WriteBatch) -> journal.Written:
    with database.writing() as connection:
        return journal.write(connection, batch, now_us(), database.epoch or 0)


def stored(database: Database, meter: int = 1) -> list[readings.Line]:
    with database.reading() as connection:
        return list(readings.series(connection, [meter], [1]))


def test_same_batch_twice_is_stored_once(database: Database) -> None:
    rows = [reading_row(1, 1, T0 + n * QUARTER_US, [n], received_us=T0 + DAY_US) for n in range(96)]

    first = write(database, WriteBatch(rows))
    again = write(database, WriteBatch(rows))

    assert first[:2] == (96, 0)
    assert again[:2] == (0, 96)
    assert [line.cells for line in stored(database)] == [[n] for n in range(96)]


def test_received_later_is_the_same_reading(database: Database) -> None:
    write(database, WriteBatch([reading_row(1, 1, T0, [5], received_us=T0)]))

    assert write(database, WriteBatch([reading_row(1, 1, T0, [5], received_us=T0 + 1)]))[:2] == (0, 1)


def test_two_entries_of_one_moment_are_both_kept_and_flagged(database: Database) -> None:
    rows = [reading_row(1, 1, T0 + at, [value], received_us=T0) for at, value in ((0, 1), (1, 2), (1, 3), (2, 4))]

    write(database, WriteBatch(rows))

    lines = stored(database)
    assert sorted(line.cells[0] for line in lines if isinstance(line.cells[0], int)) == [1, 2, 3, 4]
    assert [line.quality for line in lines] == [0, Quality.CONFLICT, Quality.CONFLICT, 0]
    with database.reading() as connection:
        assert readings.conflicts(connection, 1, 1) == [T0 + 1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 20), st.integers(0, 2)), max_size=60), st.randoms())
def test_any_order_with_any_repeats_stores_each_entry_once(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[int, int, int]], random: st.DataObject
) -> None:
    rows = [reading_row(meter, 1, T0 + at, [value], received_us=T0) for meter, at, value in entries]
    with Database(tmp_path_factory.mktemp("any") / "s.sqlite", own=True, reserve_bytes=0) as database:
        for start in range(0, len(rows), 7):
            write(database, WriteBatch(rows[start : start + 7]))
        random.shuffle(rows)  # type: ignore[attr-defined]
        write(database, WriteBatch(rows))

        found = {
            (line.meter_id, line.capture_time_us - T0, line.cells[0]) for m in (1, 2, 3) for line in stored(database, m)
        }
        assert found == set(entries)
        with database.reading() as connection:
            assert readings.line_count(connection) == len(found)
            assert readings.verify(connection).sound


def test_events_refusals_and_ends_are_stored_with_their_epoch(database: Database) -> None:
    write(
        database,
        WriteBatch(
            events=[(1, T0, 7, 41, "replayed")],
            refusals=[(1, 9, 0, 4)],
            ends=[(9, 1, 1, 3, 41_000, "")],
        ),
    )

    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT meter_id, at_us, kind, number, detail FROM events").all() == [
            (1, T0, 7, 41, "replayed")
        ]
        assert connection.exec_driver_sql("SELECT request_id, item, code, epoch FROM refusals").all() == [(9, 0, 4, 1)]
        assert connection.exec_driver_sql("SELECT request_id, meter_id, outcome, duration_us FROM ends").all() == [
            (9, 1, 1, 41_000)
        ]


def test_peer_counter_and_mark_go_with_the_lines_or_not_at_all(database: Database) -> None:
    broken = (1, 1, T0, 0, 0, 0, 0, 0, None, 0)
    batch = WriteBatch(
        [reading_row(1, 1, T0, [5], received_us=T0)], peer_counters=[(1, 77)], marks=[(1, 1, T0, T0 + QUARTER_US)]
    )

    with pytest.raises(Exception, match=r"NOT NULL|object of type .NoneType. has no len"):
        write(database, WriteBatch([*batch.readings, broken], peer_counters=batch.peer_counters, marks=batch.marks))  # type: ignore[list-item]

    with database.reading() as connection:
        assert counters.peer_high_water(connection, [1]) == {}
        assert marks.coverage(connection, 1, 1) == marks.Coverage()
    write(database, batch)
    with database.reading() as connection:
        assert counters.peer_high_water(connection, [1]) == {1: 77}
        assert marks.coverage(connection, 1, 1).windows == ((T0, T0 + QUARTER_US),)


def test_damaged_row_is_reported_and_never_served(database: Database) -> None:
    rows = [reading_row(1, 1, T0 + n, [n], received_us=T0) for n in range(5)]
    write(database, WriteBatch(rows))
    with database.writing() as connection:
        run(connection, "UPDATE readings SET cells = ? WHERE capture_time_us = ?", (b"\x91c", T0 + 2))

    damage: list[StoreDamaged] = []
    with database.reading() as connection:
        with pytest.raises(StoreDamaged, match=r"meter 1, layout 1, captured \d+ us does not match its checksum"):
            list(readings.series(connection, [1], [1]))
        served = list(readings.series(connection, [1], [1], on_damage=damage.append))
        verification = readings.verify(connection)

    assert [line.cells for line in served] == [[0], [1], [3], [4]]
    assert len(damage) == 1
    assert not verification.sound
    assert len(verification.damaged) == 1


def test_vanished_row_is_missed(database: Database) -> None:
    write(database, WriteBatch([reading_row(1, 1, T0 + n, [n], received_us=T0) for n in range(5)]))
    with database.writing() as connection:
        run(connection, "DELETE FROM readings WHERE capture_time_us = ?", (T0 + 2,))

    with database.reading() as connection:
        verification = readings.verify(connection)

    assert verification.missing == 1
    assert not verification.sound


def test_flipped_bits_in_the_file_never_serve_a_wrong_value(tmp_path: Path) -> None:
    good = tmp_path / "good.sqlite"
    rows = [reading_row(1, 1, T0 + n * QUARTER_US, [n * 1000, None], received_us=T0) for n in range(2000)]
    with Database(good, own=True, reserve_bytes=0) as database:
        write(database, WriteBatch(rows))
        database._writer.dispose()
    octets = good.read_bytes()
    # A bit in each octet of one record and of its neighbours' ends: in the readings, and in the log.
    places = [match.start() for match in re.finditer(re.escape(bytes(rows[1000][8])), octets)]
    assert len(places) == 2
    for at in places:
        assert _noticed(tmp_path, octets, at) == 60


def _noticed(tmp_path: Path, octets: bytes, at: int) -> int:
    """How many of 60 flipped bits around `at` are found. A wrong value is never served."""
    noticed = 0
    for step in range(-30, 30):
        copy = tmp_path / "bad.sqlite"
        copy.write_bytes(octets[: at + step] + bytes([octets[at + step] ^ 0x10]) + octets[at + step + 1 :])
        served: list[readings.Line] = []
        damage: list[StoreDamaged] = []
        with Database(copy) as database:
            try:
                with database.reading() as connection:
                    served += readings.series(connection, [1], [1], on_damage=damage.append)
                    noticed += not readings.verify(connection).sound
            except StoreDamaged:
                noticed += 1

        assert all(line.cells == [(line.capture_time_us - T0) // QUARTER_US * 1000, None] for line in served)
    return noticed


def test_latest_line_of_each_meter_and_layout(database: Database) -> None:
    rows = [
        reading_row(meter, layout, T0 + n, [meter * 100 + layout * 10 + n], received_us=T0)
        for meter in (1, 2)
        for layout in (1, 2)
        for n in range(3)
    ]
    write(database, WriteBatch(rows))

    with database.reading() as connection:
        found = list(readings.latest(connection, [1, 2, 3], [1, 2]))

    assert [(line.meter_id, line.layout_id, line.cells) for line in found] == [
        (1, 1, [112]),
        (1, 2, [122]),
        (2, 1, [212]),
        (2, 2, [222]),
    ]


def test_series_is_half_open(database: Database) -> None:
    write(database, WriteBatch([reading_row(1, 1, T0 + n, [n], received_us=T0) for n in range(5)]))

    with database.reading() as connection:
        found = [line.cells for line in readings.series(connection, [1], [1], T0 + 1, T0 + 4)]

    assert found == [[1], [2], [3]]


async def _through_trio(path: Path) -> None:
    async with Store(Database(path, own=True, reserve_bytes=0)) as store:
        written = await store.write(WriteBatch([reading_row(1, 1, T0, [5], received_us=T0)]))
        blocks = await store.reserve([1, 2], 100)
        count = await store.read(readings.line_count)

    assert written[:2] == (1, 0)
    assert blocks == [(1, 1, 101), (2, 1, 101)]
    assert count == 1


def test_store_writes_reserves_and_reads_under_trio(path: Path) -> None:
    trio.run(_through_trio, path)


def test_log_is_forgotten_in_pieces_the_oldest_first(database: Database) -> None:
    events = [(1, at, 1, 0, "") for at in range(25)]
    for at, event in enumerate(events):
        with database.writing() as connection:
            log.append(connection, at, {log.EVENTS: [event]})

    pieces: list[int] = []
    while not pieces or pieces[-1]:
        with database.writing() as connection:
            pieces.append(log.forget(connection, 18, limit=10))

    assert pieces == [10, 8, 0]
    with database.reading() as connection:
        assert log.ends(connection) == (18, 25), "what is kept goes on without a gap"
        assert [entry.at_us for entry in log.after(connection, 18)] == list(range(18, 25))
