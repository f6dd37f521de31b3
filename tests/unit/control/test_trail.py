"""R17, R18, R29, R40: the stop switch, the list and holds stand in the audit trail, whatever rows and files say."""

from collections.abc import Iterator

import pytest
import structlog
import trio
from sqlalchemy import Connection
from tests.unit.control.simulation import Ground, ReadBack
from tests.unit.control.test_faults import House, run

from ipss_headend import log
from ipss_headend.config import LogConfig
from ipss_headend.field.control import clones, trail
from ipss_headend.field.control.desk import transact
from ipss_headend.field.control.machine import State
from ipss_headend.security.audit import page
from ipss_headend.store import commands as rows


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    log.configure(LogConfig(level="critical"))
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with Ground() as made:
        yield made


def by_hand(house: House, *statements: str) -> None:
    """What somebody with the database writes into it."""

    def work(connection: Connection) -> None:
        for statement in statements:
            connection.exec_driver_sql(statement)

    transact(house.world.database, work)


def switched(house: House) -> tuple[int, int]:
    with house.world.database.reading() as connection:
        row = rows.control(connection)
        return int(row.stopped), row.generation


def stop(house: House) -> None:
    house.control.ask_stop("ada")


def resume(house: House) -> None:
    house.stop_file.unlink(missing_ok=True)
    transact(house.world.database, lambda connection: house.office.resume(connection, house.world.signers["bob"]))


def test_r17_a_stop_file_that_is_taken_away_opens_nothing(ground: Ground) -> None:
    async def story(house: House) -> None:
        await trio.sleep(2.0)
        assert not house.gate.stopped
        stop(house)
        await trio.sleep(2.0)
        house.stop_file.unlink()
        for _ in range(100):
            await trio.sleep(0.05)
            assert house.gate.stopped
        resume(house)
        await trio.sleep(2.0)
        assert not house.gate.stopped

    async def again(house: House) -> None:
        await trio.sleep(2.0)
        assert not house.gate.stopped

    run(ground, ReadBack, story, again)


def test_r17_rows_that_were_set_back_make_no_stop_and_no_resume_undone(ground: Ground) -> None:
    async def story(house: House) -> None:
        await trio.sleep(2.0)
        resume(house)
        stop(house)
        await trio.sleep(2.0)
        house.stop_file.unlink()
        assert switched(house) == (1, 2)
        by_hand(house, "UPDATE control_state SET stopped = 0, generation = 1")

    async def again(house: House) -> None:
        await trio.sleep(2.0)
        assert house.gate.stopped
        assert switched(house) == (1, 2)

    run(ground, ReadBack, story, again)


def test_r40_a_start_compares_all_that_an_order_may_have_lived_through(ground: Ground) -> None:
    """Beyond the last checkpoint, too: whoever takes SENT out of the trail could have a command sent twice."""

    async def story(house: House) -> None:
        order = house.approved("off", 1)
        await trio.sleep(150.0)
        assert house.states(order) == {State.CONFIRMED}
        by_hand(house, "UPDATE audit SET kind = 'seen' WHERE kind = 'sent'", "UPDATE commands SET state = 'released'")

    async def again(house: House) -> None:
        assert "was altered" in str(house.broken)

    run(ground, ReadBack, story, again)


def test_r18_older_records_are_compared_beside_the_work(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "LOOK_BACK_US", 10_000_000)

    async def story(house: House) -> None:
        title = bytes([3] * 8)
        transact(
            house.world.database,
            lambda connection: house.office.protect(connection, 3, title, "m3", "cyd", "clinic"),
        )
        await trio.sleep(150.0)

    async def sound(house: House) -> None:
        await trio.sleep(30.0)
        assert not house.gate.stopped
        assert 3 in house.gate.protected_meters
        by_hand(house, "DELETE FROM protected", "UPDATE audit SET detail = '{}', kind = 'note' WHERE kind = 'protect'")

    async def again(house: House) -> None:
        assert house.broken is None
        await trio.sleep(10.0)
        assert house.gate.stopped
        assert switched(house)[0]

    run(ground, ReadBack, story, sound, again)


def test_r40_a_page_at_a_time_finds_what_all_at_once_does(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    from ipss_headend.security import audit

    monkeypatch.setattr(audit, "PAGE", 3)

    async def story(house: House) -> None:
        house.approved("off", 1, 2, 3)
        await trio.sleep(150.0)
        with house.world.database.reading() as connection:
            last = audit.load_checkpoints(house.control._notary.copies)[-1]
            assert last.seq > 6

            def walk(drop: int = 0, change: int = 0) -> str:
                before, seq, problem = audit.FIRST_HASH, 0, ""
                while seq < last.seq and not problem:
                    found = [one for one in page(connection, seq) if one.seq != drop]
                    found = [one._replace(subject="x") if one.seq == change else one for one in found]
                    before, seq, problem = audit.follow(found, before, seq, last)
                return problem

            assert walk() == ""
            for number in range(1, last.seq + 1):
                assert "missing" in walk(drop=number)
                assert f"record {number}," in walk(change=number)
            wrong = last._replace(hash=bytes(32))
            assert (
                "not the one that was signed"
                in audit.follow(
                    page(connection, last.seq - 1), found_hash(connection, last.seq - 1), last.seq - 1, wrong
                )[2]
            )

    run(ground, ReadBack, story)


def found_hash(connection: Connection, seq: int) -> bytes:
    return page(connection, seq - 1)[0].hash


def test_r29_a_held_meter_that_comes_back_under_another_number_is_held(ground: Ground) -> None:
    async def story(house: House) -> None:
        title = bytes([4] * 8)
        people = house.office.people
        # The number that it had before it was retired.
        transact(house.world.database, lambda connection: clones.find(connection, people, 99, title, "m4", "two of it"))
        house.gate.hold = lambda meters: None  # type: ignore[method-assign]
        await trio.sleep(2.0)
        order = house.approved("off", 4)
        await trio.sleep(30.0)
        [one] = house.commands(order)
        assert (one.state, "held" in one.detail) == (State.FAILED, True)

    run(ground, ReadBack, story)
