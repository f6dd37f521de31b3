"""R22 and R10 over the line: new keys for virtual meters by two people, whatever is lost on the way."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from sqlalchemy import Connection, select, update
from tests.system.people import Office
from tests.system.test_control import FAST, name, world
from tests.system.test_serve import serving, until

from ipss_headend.errors import HeadEndError, RequestError
from ipss_headend.field.control.desk import Refused, transact
from ipss_headend.field.control.machine import State
from ipss_headend.field.control.sending import Sending
from ipss_headend.field.questions import Attributes
from ipss_headend.field.reactor import Outcome
from ipss_headend.field.rekeying import DEVICE_NAME
from ipss_headend.security import Keystore, MeterKeys, rotation
from ipss_headend.security.keystore import BoundKeys
from ipss_headend.server import HeadEnd
from ipss_headend.store import counters, registry
from ipss_headend.store.schema import key_generations, meter_keys

QUICK = '[rollout]\nrest = "0s"\n'


def keys_of(office: Office, *names: str) -> list[MeterKeys]:
    """What is in use, as the store has it."""
    with office.open() as database, database.writing() as connection:
        keystore = Keystore.open(connection, office.config.keystore)
        meters = [registry.meter_named(connection, one) for one in names]
        return [opened(connection, keystore, meter.meter_id, meter.system_title)[0] for meter in meters]


async def reads(head_end: HeadEnd, meter: int) -> bool:
    """Whether a meter answers now."""
    try:
        await head_end.requests.ask(
            (Attributes(0, (DEVICE_NAME,)),), meter, timeout_s=10, priority="critical", attempts=3
        )
    except HeadEndError:
        return False
    return True


def test_r22_two_people_change_keys_and_the_meters_answer_to_the_new_ones_alone(tmp_path: Path) -> None:
    async def use(head_end: HeadEnd) -> None:
        before.extend(keys_of(office, *names))
        asked = await trio.to_thread.run_sync(office.ask_for_keys, names)
        with pytest.raises(Refused, match="cannot approve"):
            office.approve(asked, "ada")
        assert office.approve(asked)
        await until(lambda: office.over(asked))
        states.extend(office.states(asked))
        answers.extend([await reads(head_end, meter) for meter in (1, 2, 3)])
        figures.append(head_end.figures.key_changes)

    async def again(head_end: HeadEnd) -> None:
        answers.extend([await reads(head_end, meter) for meter in (1, 2, 3)])

    names = [name(1), name(2)]
    before: list[MeterKeys] = []
    states: list[State] = []
    answers: list[bool] = []
    figures: list[int] = []
    with world(tmp_path, 3, "127.45.0.1", control=FAST + QUICK) as (running, office, path):
        serving(path, use)
        serving(path, again)
        after = keys_of(office, *names)
        assert running.reused() == []

    assert states == [State.CONFIRMED] * 2
    assert answers == [True] * 6
    assert figures == [2]
    for old, new in zip(before, after, strict=True):
        assert old.master_key == new.master_key
        assert old.encryption_key != new.encryption_key
        assert old.authentication_key != new.authentication_key
    kinds = office.audit_kinds()
    assert [kinds.count(kind) for kind in ("key change begun", "sent", "key changed", "confirmed")] == [2, 2, 2, 2]


def test_r22_two_people_change_master_keys_and_new_keys_go_under_the_new_ones(tmp_path: Path) -> None:
    async def use(head_end: HeadEnd) -> None:
        before.extend(keys_of(office, *names))
        asked = await trio.to_thread.run_sync(partial(office.ask_for_keys, names, master=True))
        with pytest.raises(Refused, match="cannot approve"):
            office.approve(asked, "ada")
        assert office.approve(asked)
        await until(lambda: office.over(asked))
        states.extend(office.states(asked))
        between.extend(keys_of(office, *names))
        rekeyed = await trio.to_thread.run_sync(office.rekey, names)
        await until(lambda: office.over(rekeyed))
        states.extend(office.states(rekeyed))
        answers.extend([await reads(head_end, meter) for meter in (1, 2, 3)])

    names = [name(1), name(2)]
    before: list[MeterKeys] = []
    between: list[MeterKeys] = []
    states: list[State] = []
    answers: list[bool] = []
    with world(tmp_path, 3, "127.80.0.1", control=FAST + QUICK) as (running, office, path):
        serving(path, use)
        after = keys_of(office, *names)
        assert running.reused() == []

    assert states == [State.CONFIRMED] * 4
    assert answers == [True] * 3
    for old, new, last in zip(before, between, after, strict=True):
        assert old == replace(new, master_key=old.master_key) != new, "the master key alone"
        assert new == replace(last, encryption_key=new.encryption_key, authentication_key=new.authentication_key)
        assert new.encryption_key != last.encryption_key
    kinds = office.audit_kinds()
    assert [kinds.count(kind) for kind in ("master key change begun", "master key changed", "key changed")] == [2, 2, 2]


def test_r22_a_lost_answer_leaves_the_master_key_in_doubt_and_the_next_order_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile the meter is read as ever, and nothing is sent under either master key."""
    whole = Sending._await_end

    async def loses(self: Sending, request: int, meter: int) -> Any:
        ended = await whole(self, request, meter)
        return (Outcome.UNKNOWN, "lost", {}) if lost else ended

    async def use(head_end: HeadEnd) -> None:
        first = await trio.to_thread.run_sync(partial(office.rekey, [name(1)], master=True))
        await until(lambda: office.states(first) == [State.UNKNOWN])
        lost.clear()
        with office.open() as database, database.reading() as connection:
            assert rotation.masters_in_doubt(connection) == [1]
            with pytest.raises(RequestError, match="being changed"):
                registry.remove_meter(connection, 1)
        answers.append(await reads(head_end, 1))
        other = await trio.to_thread.run_sync(office.rekey, [name(1)])
        await until(lambda: office.over(other))
        [refused] = office.commands(other)
        assert (refused.state, "in doubt" in refused.detail) == (State.FAILED, True)
        again = await trio.to_thread.run_sync(partial(office.rekey, [name(1)], master=True))
        await until(lambda: office.over(again))
        await until(lambda: office.over(first))
        assert office.states(again) == office.states(first) == [State.CONFIRMED]
        last = await trio.to_thread.run_sync(office.rekey, [name(1)])
        await until(lambda: office.over(last))
        assert office.states(last) == [State.CONFIRMED]
        answers.append(await reads(head_end, 1))

    monkeypatch.setattr(Sending, "_await_end", loses)
    lost = [True]
    answers: list[bool] = []
    with world(tmp_path, 1, "127.81.0.1", control=FAST + QUICK) as (running, office, path):
        [before] = keys_of(office, name(1))
        serving(path, use, limit_s=90)
        [after] = keys_of(office, name(1))
        assert running.reused() == []

    assert answers == [True, True]
    assert before.master_key != after.master_key


def test_r22_meter_that_refuses_a_new_master_key_keeps_its_old_one_and_takes_other_keys(tmp_path: Path) -> None:
    """Its master key is not what the head-end has; once that is put right, its keys are changed as ever."""

    async def use(head_end: HeadEnd) -> None:
        asked = await trio.to_thread.run_sync(partial(office.rekey, [name(1)], master=True))
        await until(lambda: office.over(asked))
        states.extend(office.states(asked))
        answers.append(await reads(head_end, 1))

    async def right(head_end: HeadEnd) -> None:
        asked = await trio.to_thread.run_sync(office.rekey, [name(1)])
        await until(lambda: office.over(asked))
        states.extend(office.states(asked))
        answers.append(await reads(head_end, 1))

    states: list[State] = []
    answers: list[bool] = []
    with world(tmp_path, 1, "127.82.0.1", control=FAST + QUICK) as (_, office, path):
        with office.open() as database, database.reading() as connection:
            kept = connection.scalar(select(meter_keys.c.wrapped))
        forget_master_keys(office)
        serving(path, use)
        with office.open() as database, database.writing() as connection:
            waiting = rotation.pending(connection, 1)
            connection.execute(update(meter_keys).values(wrapped=kept))
        serving(path, right)

    assert waiting is not None
    assert (waiting.state, waiting.tries) == (rotation.MASTER_STORED, 0)
    assert states == [State.FAILED, State.CONFIRMED]
    assert answers == [True, True]


def test_r22_meter_that_did_not_take_the_keys_goes_on_with_its_old_ones_and_gets_the_same_again(tmp_path: Path) -> None:
    """Its master key is not what the head-end has, so that it refuses the transfer."""

    async def use(head_end: HeadEnd) -> None:
        asked = await trio.to_thread.run_sync(office.rekey, [name(1)])
        await until(lambda: office.over(asked))
        states.extend(office.states(asked))
        await until(lambda: doubt(office) is False)
        answers.append(await reads(head_end, 1))

    states: list[State] = []
    answers: list[bool] = []
    with world(tmp_path, 1, "127.46.0.1", control=FAST + QUICK) as (_, office, path):
        forget_master_keys(office)
        serving(path, use)
        with office.open() as database, database.reading() as connection:
            waiting = rotation.pending(connection, 1)
            generation = connection.scalar(select(key_generations.c.generation))

    assert states == [State.FAILED]
    assert answers == [True]
    assert waiting is not None
    assert (waiting.state, waiting.generation, generation) == (rotation.STORED, 1, None)


@pytest.mark.parametrize("used", [counters.ALARM, counters.LIMIT - 1_000])
def test_r10_key_change_near_the_counters_end_begins_them_anew(tmp_path: Path, used: int) -> None:
    """Beyond `FORCED` nothing ordinary is sealed any more; the change of the key is."""

    async def use(head_end: HeadEnd) -> None:
        answers.append(await reads(head_end, 1))
        # What was not sent, because the line went away in that moment, is asked for again by people.
        unsent = True
        while unsent:
            asked = await trio.to_thread.run_sync(office.rekey, [name(1)])
            await until(partial(office.over, asked))
            [command] = office.commands(asked)
            states.append(State(command.state))
            unsent = states[-1] == State.FAILED and command.detail.startswith("not sent")
        answers.append(await reads(head_end, 1))

    answers: list[bool] = []
    states: list[State] = []
    with world(tmp_path, 1, f"127.47.{used % 200}.1", control=FAST + QUICK) as (_, office, path):
        with office.open() as database, database.writing() as connection:
            counters.raise_to(connection, [(1, used)])
        serving(path, use)
        with office.open() as database, database.reading() as connection:
            granted = counters.granted_until(connection, [1])[1]

    assert states[-1] == State.CONFIRMED
    assert answers == [used < counters.FORCED, True]
    assert granted < 100_000


def test_rollout_of_keys_halts_after_its_canary_and_goes_on_by_a_second_person(tmp_path: Path) -> None:
    """Every meter refuses its keys, so the canary's 2 do: nothing else is touched until somebody has looked."""

    async def use(head_end: HeadEnd) -> None:
        asked = await trio.to_thread.run_sync(office.rekey, [name(number) for number in range(1, 9)])
        await until(lambda: sum(one.quarantined for one in office.commands(asked)) == 6)
        await until(lambda: office.states(asked).count(State.FAILED) == 2)
        halted.extend(office.states(asked))
        with office.open() as database:
            with pytest.raises(Refused, match="second person"):
                transact(database, lambda connection: office.desk.end_quarantine(connection, asked, signer("ada")))
            transact(database, lambda connection: office.desk.end_quarantine(connection, asked, signer("cyd")))
        await until(lambda: office.over(asked))
        ended.extend(office.states(asked))

    halted: list[State] = []
    ended: list[State] = []
    with world(tmp_path, 8, "127.48.0.1", control=FAST + '[rollout]\nrest = "0s"\nrings = ["2"]\n') as (
        _,
        office,
        path,
    ):
        signer = office.people.signer
        forget_master_keys(office)
        serving(path, use)
        kinds = office.audit_kinds()

    assert sorted(halted) == [State.APPROVED] * 6 + [State.FAILED] * 2
    assert ended == [State.FAILED] * 8
    assert kinds.count("halt") == 1
    assert kinds.count("sent") == 8


def forget_master_keys(office: Office) -> None:
    """The head-end has other master keys than the meters, so that these refuse what comes under them."""
    with office.open() as database, database.writing() as connection:
        keystore = Keystore.open(connection, office.config.keystore)
        found = registry.all_meters(connection)
        for number, meter in enumerate(found):
            [keys] = opened(connection, keystore, meter.meter_id, meter.system_title)
            [wrapped] = keystore.wrap(
                [(meter.meter_id, meter.system_title, replace(keys, master_key=bytes([number, *range(7, 22)])))]
            )
            chosen = meter_keys.c.meter_id == meter.meter_id
            connection.execute(update(meter_keys).where(chosen).values(wrapped=wrapped))


def opened(connection: Connection, keystore: Keystore, meter_id: int, title: bytes | None) -> list[MeterKeys]:
    wrapped = connection.scalar(select(meter_keys.c.wrapped).where(meter_keys.c.meter_id == meter_id))
    return keystore.unwrap([BoundKeys(meter_id, title, wrapped or b"")])


def doubt(office: Office) -> bool:
    with office.open() as database, database.reading() as connection:
        return bool(rotation.in_doubt(connection))


def test_r22_meter_in_doubt_that_never_got_its_new_keys_is_found_under_the_old_ones(tmp_path: Path) -> None:
    """As after a crash between SENT and the first octet."""

    async def use(head_end: HeadEnd) -> None:
        await until(lambda: not doubt(office))
        answers.append(await reads(head_end, 1))

    answers: list[bool] = []
    with world(tmp_path, 1, "127.45.128.1", control=FAST + QUICK) as (running, office, path):
        before = keys_of(office, name(1))
        with office.open() as database, database.writing() as connection:
            keystore = Keystore.open(connection, office.config.keystore)
            meter = registry.meter_named(connection, name(1))
            rotation.begin(connection, keystore, meter.meter_id, meter.system_title, "ada", 0)
            rotation.sending(connection, meter.meter_id)
        serving(path, use)
        after = keys_of(office, name(1))
        assert running.reused() == []

    assert before == after
    assert answers == [True]
