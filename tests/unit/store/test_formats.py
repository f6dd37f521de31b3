"""R46: up and down with everything in the store, killed in the middle: nothing lost, no counter used twice."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text

from ipss_headend.address import Address, Server
from ipss_headend.errors import RequestError, StoreTooNew, StoreTooOld
from ipss_headend.store import Database, WriteBatch, commands, counters, formats, journal, log, reading_row, readings
from ipss_headend.store.database import form_at
from ipss_headend.store.schema import SCHEMA_VERSION, metadata

ROUNDS = int(os.environ.get("IPSS_UPGRADES", "2"))
"""R46 asks for 100."""

NEXT = SCHEMA_VERSION + 1
WAYS = (*formats.WAYS, str(Path(__file__).parent / "next_form"))
FORM_7 = Path(formats.__file__).parent / "migrations" / "form_7.sqlite.sql"
T0 = 1_767_225_600_000_000


@pytest.fixture(autouse=True)
def next_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a form after the newest."""
    monkeypatch.setattr(formats, "WAYS", WAYS)


def change(address: Address, to: int) -> list[str]:
    """As `store upgrade` and `downgrade` of a program that knows both forms."""
    program = form_at(address) or 0
    formats.NEWEST = program
    try:
        with (
            Database(address, own=True, reserve_bytes=0, upgrade=False) as database,
            database.writing(spend_reserve=True) as connection,
        ):
            return formats.change(connection, to, newest=max(program, to))
    finally:
        formats.NEWEST = SCHEMA_VERSION


def live(address: Address, round_: int) -> None:
    """A head-end's day: readings, marks, events, counters, an order."""
    rows = [reading_row(meter, 1, T0 + round_ * 1000 + n, [n], received_us=T0) for meter in (1, 2) for n in range(20)]
    with Database(address, own=True, reserve_bytes=0) as database, database.writing() as connection:
        journal.write(
            connection,
            WriteBatch(rows, events=[(1, T0, 7, round_, "")], marks=[(1, 1, T0, T0 + round_ + 1)]),
            T0,
            database.epoch or 0,
        )
        counters.reserve(connection, [1, 2], 10)
        order = commands.OrderRow(round_.to_bytes(16, "big"), b"octets", "off", "ada", T0, T0, 1)
        commands.add_order(connection, order, [(round_.to_bytes(16, "little"), 1)], "proposed")


def content(address: Address) -> dict[str, object]:
    """What must be the same after every way up and down."""
    with Database(address, reserve_bytes=0) as database, database.reading() as connection:
        assert readings.verify(connection).sound
        tables = ("readings", "events", "orders", "commands", "audit", "marks", "ledger")
        counts = {name: connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar() for name in tables}
        return counts | {
            "log": [entry.sequence for entry in log.after(connection, 0, limit=10_000)],
            "counters": counters.granted_until(connection, [1, 2]),
        }


CHILD = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.engine import Engine
from ipss_headend.address import Server
from ipss_headend.store import Database, formats

where, marker, way, form, to, left = sys.argv[1:]
formats.WAYS = (*formats.WAYS, way)
formats.NEWEST = int(form)
address = Server(where, Path(marker)) if marker else Path(where)
database = Database(address, own=True, reserve_bytes=0, upgrade=False)
left = int(left)

def step(*_):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

with database.writing(spend_reserve=True) as connection:
    event.listen(Engine, "before_cursor_execute", step)
    formats.change(connection, int(to), newest=max(int(form), int(to)))
    step()
database.close()
"""


def killed_change(address: Address, form: int, to: int, after: int) -> bool:
    """A way up or down whose process is killed before statement `after`; false: it had ended before."""
    where = (address.url, str(address.marker)) if isinstance(address, Server) else (str(address), "")
    done = subprocess.run([sys.executable, "-c", CHILD, *where, WAYS[-1], str(form), str(to), str(after)], check=False)
    assert done.returncode in (0, -signal.SIGKILL)
    return done.returncode != 0


def test_r46_up_and_down_with_kills_in_the_middle_loses_nothing(address: Address) -> None:
    live(address, 0)
    for round_ in range(ROUNDS):
        for form, to in ((SCHEMA_VERSION, NEXT), (NEXT, SCHEMA_VERSION)):
            before = content_of(address, form)

            killed = killed_change(address, form, to, (round_ * 11 + to * 3) % 23)

            assert form_at(address) == (form if killed else to)
            if killed:
                assert content_of(address, form) == before
                change(address, to)
            assert form_at(address) == to
            assert content_of(address, to) == before
        live(address, round_ + 1)


def content_of(address: Address, form: int) -> dict[str, object]:
    """As the program of this form sees it."""
    formats.NEWEST = form
    try:
        return content(address)
    finally:
        formats.NEWEST = SCHEMA_VERSION


def test_r46_an_older_program_refuses_a_newer_form_until_it_is_brought_back(address: Address) -> None:
    live(address, 0)
    change(address, NEXT)

    with pytest.raises(StoreTooNew, match=rf"schema {NEXT}, .*store downgrade --to {SCHEMA_VERSION}`"):
        Database(address, own=True)

    change(address, SCHEMA_VERSION)
    live(address, 1)


def test_owner_brings_an_older_store_up_to_date_and_a_guest_does_not(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(address, 0)
    monkeypatch.setattr(formats, "NEWEST", NEXT)

    with pytest.raises(StoreTooOld, match="run `ipss-headend store upgrade`"):
        Database(address)
    Database(address, own=True).close()

    assert form_at(address) == NEXT


def test_forms_without_a_way_are_refused(address: Address) -> None:
    live(address, 0)

    with Database(address, own=True, reserve_bytes=0) as database, database.writing() as connection:
        with pytest.raises(RequestError, match=rf"form {NEXT}: this program knows the forms \d to {SCHEMA_VERSION}"):
            formats.change(connection, NEXT)
        with pytest.raises(RequestError, match="form 6"):
            formats.change(connection, 6)


def test_steps_lead_to_the_tables_of_a_new_store(path: Path, tmp_path: Path) -> None:
    Database(path).close()
    old = form_7(tmp_path)
    change(old, SCHEMA_VERSION)
    shapes = []
    for one in (path, old):
        engine = create_engine(f"sqlite:///{one}")
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []
            master = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")).all()
            shapes.append({row.name for row in master})
        engine.dispose()

    assert shapes[0] == shapes[1]


def form_7(directory: Path) -> Path:
    """A store as the programs before PostgreSQL made it, with two entries in its log and one meter that is gone."""
    found = directory / "old.sqlite"
    engine = create_engine(f"sqlite:///{found}")
    with engine.begin() as connection:
        for statement in FORM_7.read_text().split(";\n"):
            if statement.strip():
                connection.execute(text(statement))
        connection.execute(text("INSERT INTO schema_info VALUES (7, 0)"))
        connection.execute(
            text("INSERT INTO log (at_us, topic, content, crc) VALUES (1, 'events', x'90', 0), (2, 'events', x'90', 0)")
        )
        connection.execute(text("DELETE FROM log"))
        connection.execute(text("UPDATE sqlite_sequence SET seq = 41 WHERE name = 'log'"))
    engine.dispose()
    return found


def test_r46_form_7_comes_up_and_goes_back_with_its_numbers(tmp_path: Path) -> None:
    old = form_7(tmp_path)

    change(old, SCHEMA_VERSION)
    live(old, 0)
    with Database(old) as database, database.reading() as connection:
        last = log.newest(connection)
        assert [entry.sequence for entry in log.after(connection, 0)] == list(range(42, last + 1))
    change(old, 7)
    engine = create_engine(f"sqlite:///{old}")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO log (at_us, topic, content, crc) VALUES (1, 'events', x'90', 0)"))
        assert connection.execute(text("SELECT max(sequence) FROM log")).scalar() == last + 1
        assert connection.execute(text("SELECT schema_version FROM schema_info")).scalar() == 7
    engine.dispose()
    change(old, SCHEMA_VERSION)
    live(old, 1)
