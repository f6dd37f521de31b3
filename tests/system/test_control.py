"""R14-R20: critical commands whole: people, the desk, the server, the gate, virtual meters, the audit trail."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from tests.system.fleet import Running, fleet, head_end
from tests.system.people import NAMES, Office, People
from tests.system.test_serve import serving, until

from ipss_headend.errors import RequestError
from ipss_headend.field.control import orders
from ipss_headend.field.control.desk import Refused, transact
from ipss_headend.field.control.machine import State
from ipss_headend.field.questions import Action, Set
from ipss_headend.field.reactor import EventKind
from ipss_headend.server import HeadEnd
from ipss_headend.store import commands as rows
from ipss_headend.store import registry
from ipss_headend.store.commands import OrderRow
from ipss_headend.store.database import now_us

ACTION = 0xC3
"""The first octet of an action-request, as the meters report what they served."""

PENDING = int(os.environ.get("IPSS_PENDING", "5"))
ATTEMPTS = int(os.environ.get("IPSS_PROTECTED_ATTEMPTS", "12"))
FAULTY = int(os.environ.get("IPSS_FAULTY", "5"))

BUDGETS = (
    "per_minute = 100000\nper_hour = 100000\nfleet_per_day_least = 100000\n"
    "reconnects_per_minute = 100000\nreconnects_per_hour = 100000\nreconnects_per_day_least = 100000\n"
)

FAST = '[control]\nread_back = "2s"\nreconnect_window = "1s"\n'


def name(number: int) -> str:
    return f"virtual-{number:05}"


def actions(running: Running) -> Counter[int]:
    """How often each meter was told to do something."""
    return Counter(meter for meter, tag, _ in running.seen.get(EventKind.SERVED, []) if tag == ACTION)


@contextmanager
def world(
    directory: Path, count: int, first_address: str, *, faults: str = "", control: str = FAST, database: str = ""
) -> Iterator[tuple[Running, Office, Path]]:
    people = People(directory)
    with fleet(count, first_address, faults=faults) as running:
        path = head_end(directory, control + people.config(), running, database=database)
        yield running, Office(path, people), path


def test_r14_two_people_switch_a_meter_off_and_on_and_the_audit_trail_says_so(tmp_path: Path, stored: str) -> None:
    async def use(head_end: HeadEnd) -> None:
        off = await trio.to_thread.run_sync(office.switch, "off", [name(1), name(2)])
        await until(lambda: office.over(off))
        on = await trio.to_thread.run_sync(office.switch, "on", [name(1)])
        await until(lambda: office.over(on))
        states.extend(office.states(off) + office.states(on))

    states: list[State] = []
    with world(tmp_path, 4, "127.31.0.1", database=stored) as (running, office, path):
        serving(path, use)
        done = actions(running)

    assert states == [State.CONFIRMED] * 3
    assert done == {0: 2, 1: 1}
    assert sorted(office.audit_kinds()) == sorted(
        ["start", *["propose", "approve", "release"] * 2, *["sent", "confirmed"] * 3]
    )


def test_r19_reconnection_is_staggered_and_arm_leaves_alone_who_would_connect_at_once(tmp_path: Path) -> None:
    async def use(head_end: HeadEnd) -> None:
        off = await trio.to_thread.run_sync(office.switch, "off", [name(1), name(2), name(3)])
        await until(lambda: office.over(off))
        armed = await trio.to_thread.run_sync(office.switch, "arm", [name(1)])
        on = await trio.to_thread.run_sync(office.switch, "on", [name(1), name(2), name(3)])
        await until(lambda: office.over(armed) and office.over(on))
        detail.append(office.commands(armed)[0].detail)
        states.extend(office.states(armed) + office.states(on))
        due = [one.due_us for one in office.commands(on)]
        spread.append(max(due) - min(due))

    detail: list[str] = []
    states: list[State] = []
    spread: list[int] = []
    with world(tmp_path, 3, "127.32.0.1") as (_, office, path):
        serving(path, use)

    assert states == [State.FAILED] + [State.CONFIRMED] * 3
    assert detail == ["control mode 2 does not make ready for reconnection"]
    assert spread == [1_000_000]


@pytest.mark.timeout(120 + FAULTY)
@pytest.mark.parametrize(
    ("faults", "ends"),
    [("lies=100%", State.FAILED), ("lags=100%", State.CONFIRMED), ("reboots=100%", State.CONFIRMED)],
)
def test_r20_meters_that_lie_lag_or_reboot_are_read_back_and_switched_once(
    tmp_path: Path, faults: str, ends: State
) -> None:
    async def use(head_end: HeadEnd) -> None:
        faulty = [name(number) for number in range(1, FAULTY + 1)]
        off = await trio.to_thread.run_sync(office.switch, "off", faulty)
        await until(lambda: office.over(off))
        found.extend(office.commands(off))
        alarms.append(head_end.figures.command_alarms)

    found: list[rows.CommandRow] = []
    alarms: list[int] = []
    control = FAST.replace("2s", "12s" if ends is State.CONFIRMED else "2s")
    with world(tmp_path, FAULTY, "127.33.0.1", faults=faults, control=control + BUDGETS) as (running, office, path):
        serving(path, use, limit_s=30 + FAULTY)
        done = actions(running)

    assert [State(one.state) for one in found] == [ends] * FAULTY
    assert alarms == [FAULTY if ends is State.FAILED else 0]
    assert [one.alarmed for one in found] == [int(ends is State.FAILED)] * FAULTY
    assert set(done.values()) == {1}


@pytest.mark.timeout(120 + 3 * PENDING)
def test_r17_stop_holds_everything_survives_a_restart_and_wants_new_approvals(tmp_path: Path, stored: str) -> None:
    """By the file, while commands wait for their place in the stagger."""

    async def first(head_end: HeadEnd) -> None:
        off = await trio.to_thread.run_sync(office.switch, "off", names)
        await until(lambda: office.over(off))
        given.append(await trio.to_thread.run_sync(office.switch, "on", names))
        await until(lambda: State.CONFIRMED in office.states(given[0]))
        path.with_name("data").joinpath("control.stop").touch()
        await until(lambda: head_end.figures.control_stopped)
        await trio.sleep(1.0)
        before.update(actions(running))
        await trio.sleep(1.5)
        after.update(actions(running))

    async def second(head_end: HeadEnd) -> None:
        await until(lambda: head_end.figures.control_stopped)
        await until(lambda: set(office.states(given[0])) <= {State.CONFIRMED, State.PROPOSED})
        await trio.sleep(1.0)
        after.update(actions(running))
        stopped.append(head_end.figures.control_stopped)
        with pytest.raises(RequestError, match="stop switch is set"):
            office.approve(given[0])
        signer = people.signer("bob")
        office.config.control.stop_file.unlink()
        with office.open() as database, database.writing() as connection:
            office.desk.resume(connection, signer)
        await trio.sleep(1.0)
        held.update(actions(running))
        states.extend(office.states(given[0]))
        approved = [office.approve(given[0], who) for who in ("bob", "cyd")[: 1 + (PENDING > 25)]]
        assert approved[-1]
        await until(lambda: office.over(given[0]))

    names = [name(number) for number in range(1, PENDING + 1)]
    given: list[bytes] = []
    states: list[State] = []
    stopped: list[bool] = []
    before, after, held = Counter[int](), Counter[int](), Counter[int]()
    control = FAST.replace('"1s"', f'"{max(5, PENDING // 50)}s"') + BUDGETS
    with world(tmp_path, PENDING, "127.34.0.1", control=control, database=stored) as (running, office, path):
        people = office.people
        serving(path, first, limit_s=90 + PENDING)
        serving(path, second, limit_s=90 + PENDING)
        done = actions(running)

    assert stopped == [True]
    assert before  # some had gone
    assert after == before + before  # and no other since, counted in both lives
    assert held == before
    assert set(states) == {State.CONFIRMED, State.PROPOSED}
    assert done == dict.fromkeys(range(PENDING), 2)


def test_r17_a_resume_without_a_stop_voids_earlier_approvals_and_takes_later_ones(tmp_path: Path) -> None:
    """A stop may be shorter than a look of the head-end's; found by the simulation of `unit/control`."""

    async def use(head_end: HeadEnd) -> None:
        off = await trio.to_thread.run_sync(office.switch, "off", [name(1)])
        await until(lambda: office.over(off))
        signer = office.people.signer("bob")
        with office.open() as database, database.writing() as connection:
            office.desk.resume(connection, signer)
        on = await trio.to_thread.run_sync(office.switch, "on", [name(1)])
        await until(lambda: office.over(on))
        states.extend(office.states(off) + office.states(on))

    states: list[State] = []
    with world(tmp_path, 1, "127.70.0.1") as (running, office, path):
        serving(path, use)
        done = actions(running)

    assert states == [State.CONFIRMED] * 2
    assert done == {0: 2}


@pytest.mark.timeout(120 + ATTEMPTS)
def test_r18_protected_meter_is_not_cut_by_request_approval_or_rows_put_into_the_store(
    tmp_path: Path, stored: str
) -> None:
    async def use(head_end: HeadEnd) -> None:
        for attempt in range(ATTEMPTS):
            with pytest.raises(Refused, match="protected, never cut"):
                office.ask("off", [name(1)], who=NAMES[attempt % len(NAMES)])
        off = await trio.to_thread.run_sync(office.switch, "off", [name(2)])
        on = await trio.to_thread.run_sync(office.switch, "on", [name(1)])
        # An insider takes the meter off the list by hand, and writes an approved order without a signature.
        forged, *more = [tampered(office) for _ in range(1 + ATTEMPTS // 4)]
        await until(lambda: all(map(office.over, (off, on, forged, *more))))
        assert {state for one in more for state in office.states(one)} == {State.FAILED}
        states.extend(office.states(off) + office.states(on) + office.states(forged))
        why.append(office.commands(forged)[0].detail)

    states: list[State] = []
    why: list[str] = []
    with world(tmp_path, 3, "127.35.0.1", database=stored) as (running, office, path):
        device = title(office, name(1))
        with office.open() as database, database.writing() as connection:
            office.desk.protect(connection, 1, device, name(1), "ada", "hospital")
        serving(path, use, limit_s=30 + ATTEMPTS)
        done = actions(running)
        # With a signed order from before the protection, and the row of the list gone: the audit trail knows better.
        serving(path, lambda _: late(office, states))
        done_later = actions(running)

    assert states == [State.CONFIRMED, State.CONFIRMED, State.FAILED, State.FAILED]
    assert "has not signed" in why[0]
    assert done == {0: 1, 1: 1}
    assert done_later == done


async def a_while(_: HeadEnd) -> None:
    await trio.sleep(1.0)


def title(office: Office, meter: str) -> bytes:
    with office.open() as database, database.reading() as connection:
        return registry.meter_named(connection, meter).system_title or b""


def tampered(office: Office) -> bytes:
    """Rows as an insider writes them: a disconnection of meter 1, approved by nobody."""
    made = orders.switch(
        "off",
        [(1, title(office, name(1)))],
        reason="grudge",
        requester="ada",
        created_us=now_us(),
        life_s=900,
    )
    with office.open() as database, database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM protected")
        values = (made.order_id, made.octets(), made.kind, "ada", made.created_us, made.not_after_us, 1)
        targets = [(target.command_id, target.meter_id) for target in made.targets]
        rows.add_order(connection, OrderRow(*values), targets, State.APPROVED)
    return made.order_id


async def late(office: Office, states: list[State]) -> None:
    """The list's row is still gone; people even sign."""
    off = await trio.to_thread.run_sync(office.switch, "off", [name(1)])
    await until(lambda: office.over(off))
    states.extend(office.states(off))


def test_r16_over_budget_is_quarantined_until_a_second_person_and_then_still_within_the_budget(tmp_path: Path) -> None:
    async def use(head_end: HeadEnd) -> None:
        off = await trio.to_thread.run_sync(office.switch, "off", [name(number) for number in range(1, 7)])
        await until(lambda: office.states(off).count(State.CONFIRMED) == 4)
        await trio.sleep(0.5)
        held.append(sum(one.quarantined for one in office.commands(off)))
        with office.open() as database:
            with pytest.raises(Refused):
                transact(database, lambda connection: office.desk.end_quarantine(connection, off, people.signer("ada")))
            transact(database, lambda connection: office.desk.end_quarantine(connection, off, people.signer("cyd")))
        await trio.sleep(1.0)
        held.append(sum(one.quarantined for one in office.commands(off)))

    held: list[int] = []
    control = FAST + "fleet_per_day_least = 4\n"
    with world(tmp_path, 6, "127.36.0.1", control=control) as (running, office, path):
        people = office.people
        serving(path, use)
        serving(path, a_while)
        done = actions(running)

    assert held == [2, 2]
    assert sum(done.values()) == 4


def test_r14_plain_action_on_the_ordinary_path_is_refused_before_an_octet_leaves(tmp_path: Path) -> None:
    async def use(head_end: HeadEnd) -> None:
        cut = Action((70, bytes((0, 0, 96, 3, 10, 255)), 1), b"\x0f\x00")
        limit = Set((71, bytes((0, 0, 17, 0, 0, 255)), 4), b"\x06\x00\x00\x00\x01")
        for question in (cut, limit):
            with pytest.raises(RequestError, match="for released commands only"):
                await head_end.requests.ask((question,), 1, timeout_s=10, priority="critical")

    with world(tmp_path, 1, "127.37.0.1") as (running, _, path):
        serving(path, use)
        done = actions(running)

    assert not done
