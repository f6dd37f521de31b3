"""R3: what is damaged or gone is found, told once, and told by the head-end itself."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from ipss_headend.config import DatabaseConfig
from ipss_headend.errors import StoreDamaged, StoreFailed
from ipss_headend.field.reactor import EventKind
from ipss_headend.metrics import Figures
from ipss_headend.store import Database, Store, WriteBatch, journal, log, reading_row, scrub, scrubber
from ipss_headend.store.database import now_us
from ipss_headend.store.journal import NOBODY
from ipss_headend.store.scrub import Found, Place, State
from ipss_headend.store.scrubber import Scrubber
from ipss_headend.store.statements import rows, run

T0 = 1_767_225_600_000_000
LINES = 1200
"""Of three meters: more than two pieces."""


def fill(database: Database, lines: int = LINES) -> None:
    with database.writing() as connection:
        for meter in (1, 2, 3):
            found = [reading_row(meter, 1, T0 + n, [n, meter], received_us=T0) for n in range(lines // 3)]
            journal.write(connection, WriteBatch(found), now_us(), database.epoch or 0)


def turn(database: Database, began_us: int = 0) -> tuple[list[Found], State]:
    """A whole turn, as the scrubber takes it; what was found that was not known."""
    new: list[Found] = []
    began_us = began_us or now_us()
    state = State(began_us, 0, 0, Place(), 0, 0)
    while state.place is not None:
        try:
            with database.reading() as connection:
                piece = scrub.look(connection, state.place)
        except (StoreDamaged, StoreFailed) as error:
            piece = scrub.unreadable(state.place, error)
        state = state._replace(records=state.records + piece.records, place=piece.next)
        with database.writing() as connection:
            noted = scrub.note(connection, piece, state, now_us(), database.epoch or 0)
        state = state._replace(beyond=noted.beyond)
        new += noted.new
    return new, state


def change(database: Database, statement: str, values: tuple[object, ...] = ()) -> None:
    with database.writing() as connection:
        run(connection, statement, values)


def told(database: Database) -> list[tuple[int, str]]:
    """How many records each event about damage tells of, and in which words; from the log, as others hear of it."""
    with database.reading() as connection:
        entries = list(log.after(connection, 0, [log.EVENTS], limit=10_000))
    found = [row for entry in entries for row in entry.rows if row[2] == EventKind.STORE_DAMAGED]
    assert all(row[0] == NOBODY for row in found)
    return [(row[3], row[4]) for row in found]


def test_all_of_a_sound_store_is_looked_at_in_pieces_and_nothing_found(database: Database) -> None:
    fill(database)
    with database.reading() as connection:
        _, entries = log.ends(connection)
        first = scrub.look(connection, Place())

    new, state = turn(database)

    assert first.next is not None
    assert 0 < first.records <= scrub.PIECE_ROWS
    assert first.octets < 2 * scrub.PIECE_OCTETS
    assert new == []
    assert state.records == LINES + entries
    assert told(database) == []


def test_a_flipped_bit_is_told_once_until_it_is_mended(database: Database) -> None:
    fill(database)
    [(cells,)] = _cells(database, 2, T0 + 7)
    change(database, _SPOIL, (bytes([cells[0], cells[1] ^ 1]) + cells[2:], 2, T0 + 7))

    first, _ = turn(database)
    second, _ = turn(database)

    assert [one.records for one in first] == [1]
    assert "meter 2, layout 1, captured" in first[0].detail
    assert second == []
    assert len(told(database)) == 1
    with database.reading() as connection:
        assert [one.detail for one in scrub.damage(connection)] == [first[0].detail]

    change(database, _SPOIL, (cells, 2, T0 + 7))
    assert turn(database)[0] == []
    with database.reading() as connection:
        assert scrub.damage(connection) == []


def test_lines_that_vanished_are_told_with_their_number(database: Database) -> None:
    fill(database)
    change(database, "DELETE FROM readings WHERE meter_id = 2 AND capture_time_us < ?", (T0 + 5,))

    turn(database)
    turn(database)
    change(database, "DELETE FROM readings WHERE meter_id = 3 AND capture_time_us < ?", (T0 + 1,))
    turn(database)

    assert told(database) == [
        (5, "5 lines that were written are not there"),
        (6, "6 lines that were written are not there"),
    ]


def test_entries_of_the_log_that_are_damaged_or_gone_are_told_and_forgotten_ones_are_not(database: Database) -> None:
    for number in range(50):
        with database.writing() as connection:
            journal.write(connection, WriteBatch(events=[(1, T0, 7, number, "")]), now_us(), 1)
    change(database, "DELETE FROM log WHERE sequence <= 20")
    change(database, "DELETE FROM log WHERE sequence = 33")
    change(database, "UPDATE log SET content = ? WHERE sequence = 41", (b"\x90",))
    change(database, "DELETE FROM log WHERE sequence = 50")

    new, _ = turn(database)

    assert [one.what for one in new] == ["log 33", "log 41", "log 50"]


def test_a_place_that_cannot_be_read_is_told_and_the_rest_is_looked_at(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database)
    change(database, _SPOIL, (b"\x91c", 3, T0 + 7))
    look = scrub._readings

    def broken(connection: object, place: Place) -> scrub.Piece:
        if place.after[0] < 3:
            raise StoreDamaged("the page is malformed")
        return look(connection, place)  # type: ignore[arg-type]

    monkeypatch.setattr(scrub, "_readings", broken)
    new, state = turn(database)

    assert any("the page is malformed" in one.detail for one in new)
    assert any("meter 3, layout 1" in one.detail for one in new)
    assert state.place is None


def test_where_everything_is_spoilt_a_turn_ends_and_counts_what_it_does_not_name(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrub, "REMEMBERED", 10)
    fill(database)
    change(database, "UPDATE readings SET crc = 7")

    new, state = turn(database)

    assert len(new) > scrub.PIECE_ROWS
    assert state.place is None
    with database.reading() as connection:
        assert len(scrub.damage(connection)) == 10
    assert sum(count for count, _ in told(database)) == 10 + state.beyond


def test_where_a_turn_stands_is_kept_and_its_own_row_may_be_spoilt_too(database: Database) -> None:
    fill(database)
    with database.reading() as connection:
        piece = scrub.look(connection, Place())
    stands = State(5, piece.records, 0, piece.next, 3, 2)
    with database.writing() as connection:
        scrub.note(connection, piece, stands, 6, 1)

    with database.reading() as connection:
        assert scrub.state(connection) == stands
    change(database, "UPDATE scrub SET place = ?", (b"\xc1\x00",))
    with database.reading() as connection:
        assert scrub.state(connection).place == Place()


def scrubbing(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    until: Callable[[Figures], bool],
    *,
    kib_per_s: int = 1 << 20,
    every_s: float = 86_400.0,
) -> Figures:
    """A scrubber at work until something is so."""
    monkeypatch.setattr(scrubber, "FIRST_S", 0.0)
    figures = Figures()
    rules = DatabaseConfig(database.address, scrub_kib_per_second=kib_per_s, scrub_every_s=every_s)

    async def main() -> None:
        store = Store(database)
        happened: list[None] = []
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Scrubber(store, figures, rules, lambda: happened.append(None)).run)
                while not until(figures):  # noqa: ASYNC110 - figures are numbers, and nobody is told of them
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        assert len(happened) == bool(figures.events)

    trio.run(main)
    return figures


def test_damage_is_found_while_nobody_asks(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(database)
    change(database, _SPOIL, (b"\x91c", 2, T0 + 7))

    with capture_logs() as logged:
        figures = scrubbing(database, monkeypatch, lambda figures: figures.scrub_ended_us > 0)

    assert figures.events[EventKind.STORE_DAMAGED] == 1
    assert figures.damaged_records == 1
    assert figures.scrubbed_records > LINES
    assert [(line["event"], line["log_level"]) for line in logged] == [("what is stored is damaged", "error")]
    # The next start knows it, and does not tell it again.
    again = scrubbing(database, monkeypatch, lambda figures: figures.scrubbed_records > LINES, every_s=0.05)
    assert (again.damaged_records, again.events) == (1, {})
    assert len(told(database)) == 1


def test_a_turn_goes_on_where_the_last_process_left_it(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(database)
    change(database, _SPOIL, (b"\x91c", 1, T0 + 7))
    scrubbing(database, monkeypatch, lambda figures: bool(figures.damaged_records), kib_per_s=1)

    with database.reading() as connection:
        left = scrub.state(connection)
    figures = scrubbing(database, monkeypatch, lambda figures: figures.scrub_ended_us > 0)
    with database.reading() as connection:
        whole = scrub.state(connection)

    assert left.place is not None
    assert 0 < left.records < LINES
    assert (left.began_us, left.records) == (whole.began_us, whole.ended_records - figures.scrubbed_records)


def test_a_long_look_at_all_ends_with_the_head_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of a large store takes long; whoever stops the head-end does not wait for it."""
    monkeypatch.setattr(scrubber, "FIRST_S", 0.0)
    begun = trio.Event()

    def endless(connection: object, interrupted: Callable[[], bool]) -> list[Found]:
        trio.from_thread.run_sync(begun.set)
        raw = connection.connection.dbapi_connection  # type: ignore[attr-defined]
        raw.set_progress_handler(interrupted, 100_000)
        run(connection, "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n) SELECT count(*) FROM n").all()  # type: ignore[arg-type]
        return []

    monkeypatch.setattr(scrub, "_whole", endless)

    async def main(database: Database) -> None:
        rules = DatabaseConfig(path, scrub_every_s=0.01)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Scrubber(Store(database), Figures(), rules, lambda: None).run)
                await begun.wait()
                nursery.cancel_scope.cancel()

    with Database(path, own=True, reserve_bytes=0) as database:
        trio.run(main, database)
        with database.reading() as connection:
            assert scrub.damage(connection) == []


def _cells(database: Database, meter: int, captured_us: int) -> list[tuple[bytes]]:
    with database.reading() as connection:
        return rows(connection, _CELLS, (meter, captured_us))


_CELLS = "SELECT cells FROM readings WHERE meter_id = ? AND capture_time_us = ?"
_SPOIL = "UPDATE readings SET cells = ? WHERE meter_id = ? AND capture_time_us = ?"
