"""New keys in two phases: whatever dies or is lost, the meter's key is one that we have (R22)."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select

from ipss_headend.errors import RequestError
from ipss_headend.security import Keystore, MeterKeys, rotation
from ipss_headend.store import Database, counters
from ipss_headend.store.schema import key_fingerprints, key_generations, meter_keys, pending_keys

METER = 7
TITLE = b"MMM\x00\x00\x00\x00\x07"
KEYSTORE = Keystore(os.urandom(32))
MINUTE_US = 60_000_000


class Killed(Exception):
    """The process ended here."""


def dies(*, here: bool) -> None:
    if here:
        raise Killed


class Meter:
    """Has one pair of keys; takes a transfer, and answers it or not."""

    def __init__(self, keys: MeterKeys) -> None:
        self.keys = keys

    def opens(self, keys: MeterKeys) -> bool:
        return (keys.encryption_key, keys.authentication_key) == (
            self.keys.encryption_key,
            self.keys.authentication_key,
        )


def add(connection: Connection, keys: MeterKeys, meter: int = METER) -> None:
    [wrapped] = KEYSTORE.wrap([(meter, TITLE, keys)])
    connection.execute(insert(meter_keys).values(meter_id=meter, wrapped=wrapped))


def some_keys() -> MeterKeys:
    return MeterKeys(os.urandom(16), os.urandom(16), None, os.urandom(16))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path / "s.sqlite", reserve_bytes=0) as opened:
        yield opened


def associate(database: Database, meter: Meter, number: int, now_us: int) -> bool:
    """As the head-end does it: each candidate once, within the tries."""
    with database.reading() as connection:
        tried = rotation.candidates(connection, KEYSTORE, number, TITLE)
    for candidate in tried:
        with database.writing() as connection:
            if not rotation.may_try(connection, number, now_us):
                return False
        if meter.opens(candidate.keys):
            with database.writing() as connection:
                rotation.proven(connection, KEYSTORE, number, TITLE, new=candidate.new)
            return True
    return False


def test_r22_no_crash_and_no_lost_message_locks_a_meter_out(database: Database) -> None:
    seeded = random.Random(22)
    count = int(os.environ.get("IPSS_ROTATIONS", "60"))
    for number in range(count):
        meter = Meter(some_keys())
        first = meter.keys
        with database.writing() as connection:
            add(connection, meter.keys, number)
        now_us, done = 0, False
        for _ in range(40):
            now_us += 16 * MINUTE_US
            point = seeded.choice(["begin", "stored", "sending", "lost", "taken", "answered", "none"])
            try:
                with database.writing() as connection:
                    if rotation.pending(connection, number) is None and not done:
                        rotation.begin(connection, KEYSTORE, number, TITLE, "test", now_us)
                    dies(here=point == "begin")
                dies(here=point == "stored")
                with database.writing() as connection:
                    waiting = rotation.pending(connection, number)
                    if waiting is not None and waiting.state == rotation.STORED:
                        sent = rotation.new_keys(connection, KEYSTORE, number, TITLE)
                        rotation.sending(connection, number)
                    else:
                        sent = None
                dies(here=point == "sending")
                if sent is not None and point != "lost":
                    meter.keys = sent
                dies(here=point in {"taken", "lost"})
            except Killed:
                pass
            assert associate(database, meter, number, now_us), (number, point)
            with database.reading() as connection:
                done = rotation.pending(connection, number) is None and not meter.opens(first)
            if done:
                break
        assert done
        with database.reading() as connection:
            [only] = rotation.candidates(connection, KEYSTORE, number, TITLE)
        assert only == (meter.keys, False)


def test_the_old_key_stays_until_the_new_one_is_proven(database: Database) -> None:
    old = some_keys()
    with database.writing() as connection:
        add(connection, old)
        counters.raise_peer(connection, [(METER, 500)])
        counters.raise_to(connection, [(METER, 900)])
        rotation.begin(connection, KEYSTORE, METER, TITLE, "Olga", 0)
        assert [one.new for one in rotation.candidates(connection, KEYSTORE, METER, TITLE)] == [False]
        rotation.sending(connection, METER)
        new, kept = rotation.candidates(connection, KEYSTORE, METER, TITLE)
        assert (new.new, kept) == (True, rotation.Candidate(old, new=False))
        assert new.keys.master_key == old.master_key
        assert counters.peer_high_water(connection, [METER]) == {METER: 500}

        assert rotation.proven(connection, KEYSTORE, METER, TITLE, new=True) == "active"

        assert rotation.candidates(connection, KEYSTORE, METER, TITLE) == [rotation.Candidate(new.keys, new=False)]
        assert connection.execute(select(pending_keys)).all() == []
        assert connection.scalar(select(key_generations.c.generation)) == 1
        assert counters.peer_high_water(connection, [METER]) == {}
        assert counters.granted_until(connection, [METER]) == {METER: 900}
        assert len(connection.execute(select(key_fingerprints)).all()) == 3


def test_a_meter_that_kept_its_key_gets_the_same_new_one_again(database: Database) -> None:
    with database.writing() as connection:
        add(connection, some_keys())
        rotation.begin(connection, KEYSTORE, METER, TITLE, "Olga", 0)
        before = rotation.new_keys(connection, KEYSTORE, METER, TITLE)
        rotation.sending(connection, METER)

        assert rotation.proven(connection, KEYSTORE, METER, TITLE, new=False) == rotation.STORED

        assert rotation.new_keys(connection, KEYSTORE, METER, TITLE) == before
        with pytest.raises(RequestError, match="being changed already"):
            rotation.begin(connection, KEYSTORE, METER, TITLE, "Olga", 0)


def test_two_tries_in_fifteen_minutes(database: Database) -> None:
    with database.writing() as connection:
        add(connection, some_keys())
        rotation.begin(connection, KEYSTORE, METER, TITLE, "Olga", 0)
        rotation.sending(connection, METER)

        allowed = [rotation.may_try(connection, METER, minute * MINUTE_US) for minute in (0, 1, 2, 14, 15, 16, 17, 3)]

        assert allowed == [True, True, False, False, False, True, True, False]


def test_never_three_tries_in_fifteen_minutes_however_they_lie(database: Database) -> None:
    with database.writing() as connection:
        add(connection, some_keys())
        rotation.begin(connection, KEYSTORE, METER, TITLE, "Olga", 0)
        rotation.sending(connection, METER)

        made = [
            minute
            for minute in (0, 14, 15, 16, *range(17, 90))
            if rotation.may_try(connection, METER, minute * MINUTE_US)
        ]

        assert len(made) >= 6
        assert all(third - first >= 15 for first, third in zip(made, made[2:], strict=False)), made


def test_a_key_whose_counters_are_near_their_end_never_comes_back(database: Database) -> None:
    old = some_keys()
    with database.writing() as connection:
        add(connection, old)
        fingerprints = [KEYSTORE.fingerprint(key or b"") for key in (old.encryption_key, old.authentication_key)]
        connection.execute(insert(key_fingerprints), [{"fingerprint": one, "meter_id": METER} for one in fingerprints])
        counters.raise_to(connection, [(METER, counters.ALARM + 1)])
        rotation.begin(connection, KEYSTORE, METER, TITLE, "Olga", 0)
        rotation.sending(connection, METER)
        rotation.proven(connection, KEYSTORE, METER, TITLE, new=True)

        assert counters.granted_until(connection, [METER])[METER] < 100
        known: dict[bytes, int] = {row[0]: row[1] for row in connection.execute(select(key_fingerprints))}
        assert [known[one] for one in fingerprints] == [counters.USED_UP] * 2
        assert len([one for one in known.values() if one == METER]) == 3


def test_a_meter_without_a_master_key_is_refused(database: Database) -> None:
    with database.writing() as connection:
        add(connection, MeterKeys(os.urandom(16)))
        with pytest.raises(RequestError, match="no master key"):
            rotation.begin(connection, KEYSTORE, METER, TITLE, "Olga", 0)


def test_r22_a_master_key_in_doubt_stays_in_doubt_until_the_meter_tells(database: Database) -> None:
    """What was not sent takes back its own doubt and no earlier one; the other keys and their counters stay."""
    old = some_keys()

    def state() -> tuple[str, int]:
        found = rotation.pending(connection, METER)
        assert found is not None
        return found.state, found.tries

    with database.writing() as connection:
        add(connection, old)
        counters.raise_peer(connection, [(METER, 77)])
        was, new = rotation.begin_master(connection, KEYSTORE, METER, TITLE, "ada", 0)
        assert was == old.master_key != new
        assert rotation.candidates(connection, KEYSTORE, METER, TITLE) == [rotation.Candidate(old, new=False)]
        assert rotation.sending_master(connection, METER)
        rotation.withdrawn_master(connection, METER)
        assert state() == (rotation.MASTER_STORED, 0)

        rotation.sending_master(connection, METER)
        assert rotation.begin_master(connection, KEYSTORE, METER, TITLE, "ada", 1) == (was, new), "the same again"
        rotation.sending_master(connection, METER)
        rotation.withdrawn_master(connection, METER)
        assert state() == (rotation.MASTER_SENT, 1)
        assert rotation.in_doubt(connection) == []
        assert rotation.masters_in_doubt(connection) == [METER]
        with pytest.raises(RequestError, match="let that end"):
            rotation.begin(connection, KEYSTORE, METER, TITLE, "ada", 2)

        rotation.refused_master(connection, METER)
        assert state() == (rotation.MASTER_STORED, 0)
        rotation.proven_master(connection, KEYSTORE, METER, TITLE)
        assert state() == (rotation.MASTER_STORED, 0), "what was never sent is not proven"
        rotation.sending_master(connection, METER)
        rotation.proven_master(connection, KEYSTORE, METER, TITLE)

        [(keys, _)] = rotation.candidates(connection, KEYSTORE, METER, TITLE)
        assert keys == MeterKeys(old.encryption_key, old.authentication_key, None, new)
        assert counters.peer_high_water(connection, [METER]) == {METER: 77}, "the counters' key is the same"
        assert connection.scalar(select(key_generations.c.generation)) is None
        assert rotation.begin(connection, KEYSTORE, METER, TITLE, "ada", 3).state == rotation.STORED
        with pytest.raises(RequestError, match="let that end"):
            rotation.begin_master(connection, KEYSTORE, METER, TITLE, "ada", 4)
