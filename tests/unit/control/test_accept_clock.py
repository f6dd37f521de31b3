"""Two people say that the clock was wrong: who else cannot, and nobody gains time or budget by it (R42)."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import Connection, insert, select
from tests.system.people import People

from ipss_headend.config import ControlConfig
from ipss_headend.errors import NotAuthorised, RequestError
from ipss_headend.field.control import clock, desk, orders, trail
from ipss_headend.field.control.desk import Desk
from ipss_headend.field.control.machine import State
from ipss_headend.security import audit, rotation
from ipss_headend.store import Database, registry
from ipss_headend.store import commands as rows
from ipss_headend.store.registry import Meter
from ipss_headend.store.schema import pending_keys

NOON_US = 1_800_000_000_000_000
HOUR_US = 3_600_000_000
YEAR_US = 365 * 24 * HOUR_US
TITLE = b"MMM00001"
T = TypeVar("T")


class Host:
    """A store, and a wall clock that anybody may set."""

    def __init__(self, database: Database, people: People) -> None:
        self.now_us = NOON_US
        self.database = database
        self.people = people.principals()
        self.signer = people.signer

    def does(self, work: Callable[[Connection], T]) -> T:
        return desk.transact(self.database, work)

    def notes(self, at_us: int) -> None:
        self.now_us = at_us
        self.does(lambda connection: audit.append(connection, "start", "head-end", "control"))

    def accepts(self, who: str) -> tuple[clock.Statement, int] | None:
        signer = self.signer(who)
        return self.does(lambda connection: clock.accept(connection, self.people, signer, "it was wrong"))

    def doubts(self) -> bool:
        return self.does(lambda connection: clock.doubt(connection, self.people, self.now_us)) is not None

    def believed_us(self) -> int:
        return self.does(lambda connection: clock.believed_us(connection, self.people))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    with Database(tmp_path / "s.sqlite", reserve_bytes=0) as database:
        made = Host(database, People(tmp_path))
        for module in (audit, clock, desk, rows):
            monkeypatch.setattr(module, "now_us", lambda: made.now_us)
        made.notes(NOON_US)
        yield made


def ran_ahead(host: Host) -> None:
    """For a moment the clock was a year ahead."""
    host.notes(NOON_US + YEAR_US)
    host.now_us = NOON_US + HOUR_US


def test_two_people_end_the_doubt_and_one_does_not(host: Host) -> None:
    ran_ahead(host)
    assert host.doubts()

    assert host.accepts("ada") is None
    assert host.doubts()
    with pytest.raises(NotAuthorised, match="a second person"):
        host.accepts("ada")
    assert host.doubts()
    assert host.accepts("bob") is not None

    assert not host.doubts()
    assert NOON_US + HOUR_US <= host.believed_us() < NOON_US + 2 * HOUR_US
    with host.database.reading() as connection:
        kinds = [record.kind for record in audit.records(connection)]
    assert kinds == ["start", "start", "clock-asked", "clock-accepted"]


def test_a_clock_that_is_right_needs_nobody(host: Host) -> None:
    with pytest.raises(RequestError, match="nothing to accept"):
        host.accepts("ada")


def test_the_second_person_comes_soon_and_by_a_clock_that_goes_on(host: Host) -> None:
    ran_ahead(host)
    assert host.accepts("ada") is None
    host.now_us += 2 * HOUR_US
    assert host.accepts("bob") is None, "too late: it is asked for anew"
    host.now_us -= 10_000_000
    assert host.accepts("cyd") is None, "the clock went back between the two"
    assert host.doubts()


def test_another_jump_is_another_doubt_and_an_old_word_excuses_it_not(host: Host) -> None:
    """Also where somebody who can write to the store writes what was signed into the trail again."""
    ran_ahead(host)
    host.accepts("ada")
    host.accepts("bob")
    with host.database.reading() as connection:
        [*_, record] = audit.records(connection)
    host.notes(NOON_US + 2 * YEAR_US)
    host.now_us = NOON_US + 2 * HOUR_US
    assert host.doubts()

    host.does(lambda connection: audit.append(connection, *record[2:5], json.loads(record.detail)))

    assert host.doubts()
    forged = json.loads(record.detail) | {"record": record.seq + 1}
    host.does(lambda connection: audit.append(connection, *record[2:5], forged))
    assert host.doubts(), "the record is signed"
    forged["signatures"] = [forged["signatures"][0]] * 2
    forged["record"] = json.loads(record.detail)["record"]
    host.does(lambda connection: audit.append(connection, *record[2:5], forged))
    assert host.believed_us() == NOON_US + 2 * YEAR_US


def test_whatever_waits_ends_and_no_budget_grows(host: Host, tmp_path: Path) -> None:
    """An order whose time was over by the true clock, and one that was approved, are asked for anew."""
    office = Desk(ControlConfig(stop_file=tmp_path / "stop"), host.people)
    with host.database.writing() as connection:
        registry.add_meters(connection, [Meter(1, "m1", "h", 1, 1, TITLE, None, "", "", {})])
    made = orders.switch("off", [(1, TITLE)], reason="r", requester="ada", created_us=host.now_us, life_s=600)
    asked = host.signer("ada").sign("propose", 0, made.octets())
    host.does(lambda connection: office.propose(connection, made.octets(), asked))
    host.does(lambda connection: office.approve(connection, made.order_id, host.signer("bob")))
    host.does(lambda connection: rows.spend(connection, [("cut", "ada", "", 5_000, b"c" * 16)]))
    before = host.does(rows.control)
    spent = host.does(lambda connection: rows.spent_since(connection, 0))
    window = {"meter_id": 1, "generation": 1, "state": "sent", "tries": 2, "window_us": NOON_US + YEAR_US}
    host.does(lambda connection: connection.execute(insert(pending_keys).values(**window, wrapped=b"")))
    host.notes(NOON_US + YEAR_US)
    host.now_us = NOON_US + 60_000_000
    host.accepts("ada")
    done = host.accepts("bob")

    assert done is not None
    assert done[1] == 1
    after = host.does(rows.control)
    assert after == before._replace(generation=before.generation + 1)
    assert host.does(trail.switch_ever) == after, "as the audit trail says, too"
    assert host.does(lambda connection: rows.spent_since(connection, 0)) == spent
    [command] = host.does(lambda connection: rows.commands_of(connection, made.order_id))
    assert command.state == State.EXPIRED
    with pytest.raises(RequestError, match="waits for no approval"):
        host.does(lambda connection: office.approve(connection, made.order_id, host.signer("cyd")))
    # Keys in doubt are tried again after the usual wait, and not at once: a meter counts tries, too.
    assert not host.does(lambda connection: rotation.may_try(connection, 1, host.now_us))
    assert host.does(lambda connection: connection.scalar(select(pending_keys.c.tries))) == rotation.TRIES
    assert host.does(lambda connection: rotation.may_try(connection, 1, host.now_us + rotation.TRY_WINDOW_US))
