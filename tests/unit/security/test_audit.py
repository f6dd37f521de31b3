"""R40: every alteration of the audit trail is found, and named by its first bad record."""

import os
import random
from pathlib import Path

import pytest
from Crypto.Signature import eddsa
from sqlalchemy import Connection

from ipss_headend.errors import StoreError
from ipss_headend.security import audit
from ipss_headend.security.audit import FIRST_HASH, Checkpoint, Notary, Record, chained, verify
from ipss_headend.store import Database

RECORDS = 100_000
MUTANTS = int(os.environ.get("IPSS_AUDIT_MUTANTS", "400"))
EVERY = 1_000


def trail(count: int) -> list[Record]:
    records, before = [], FIRST_HASH
    for seq in range(1, count + 1):
        row = (seq, seq * 1_000, "sent", f"p{seq % 7}", f"order {seq}", f'{{"meter":{seq % 977}}}')
        before = chained(before, row)
        records.append(Record(*row, before))
    return records


@pytest.fixture
def notary(tmp_path: Path) -> Notary:
    return Notary(tmp_path / "audit.key", tmp_path / "elsewhere" / "checkpoints.jsonl")


def signed(notary: Notary, record: Record) -> Checkpoint:
    bare = Checkpoint(record.seq, record.at_us, record.hash, b"")
    return bare._replace(signature=eddsa.new(notary._key, "rfc8032").sign(audit._signed(bare)))


def test_r40_any_alteration_of_a_hundred_thousand_records_is_found(notary: Notary) -> None:
    """Each mutant is checked from the checkpoint before its place, as `verify` does with `since`."""
    records = trail(RECORDS)
    checkpoints = [signed(notary, record) for record in records[EVERY - 1 :: EVERY]]
    assert verify(records, checkpoints, notary.public_key).first_bad is None

    rng = random.Random(40)
    for number in range(MUTANTS):
        start = rng.randrange(0, RECORDS - 2 * EVERY, EVERY)
        stretch = records[max(start - 1, 0) : start + 2 * EVERY]
        since = checkpoints[start // EVERY - 1] if start else None
        place = rng.randrange(1, len(stretch) - 1)
        behind = checkpoints[start // EVERY :][:2]
        expected = stretch[place].seq
        match number % 6:
            case 0:  # one octet of one field
                one = stretch[place]
                field = rng.choice(["kind", "principal", "subject", "detail"])
                text = getattr(one, field)
                spot = rng.randrange(len(text))
                changed = text[:spot] + chr(ord(text[spot]) ^ 1) + text[spot + 1 :]
                stretch[place] = one._replace(**{field: changed})
            case 1:
                del stretch[place]
            case 2:
                stretch[place], stretch[place + 1] = stretch[place + 1], stretch[place]
            case 3:  # cut off, and found at the next checkpoint
                del stretch[place:]
            case 4:  # altered, and the chain made anew behind it: the next checkpoint knows
                expected = next(one.seq for one in behind if one.seq >= stretch[place].seq)
                stretch[place] = stretch[place]._replace(principal="mallory")
                before = stretch[place - 1].hash
                for later in range(place, len(stretch)):
                    before = chained(before, stretch[later][:6])
                    stretch[later] = stretch[later]._replace(hash=before)
            case _:  # a record put in
                stretch.insert(place, stretch[place]._replace(kind="approve"))

        verdict = verify(stretch, behind, notary.public_key, since)

        assert verdict.first_bad == expected, (number, verdict)


def test_r40_checkpoint_of_another_key_or_changed_is_refused(notary: Notary, tmp_path: Path) -> None:
    records = trail(10)
    checkpoint = signed(notary, records[-1])
    other = Notary(tmp_path / "other.key", tmp_path / "c.jsonl")

    assert verify(records, [checkpoint], other.public_key).first_bad == 10
    assert verify(records, [checkpoint._replace(at_us=1)], notary.public_key).first_bad == 10
    assert verify(records, [checkpoint], notary.public_key).first_bad is None


def test_r40_records_and_checkpoints_go_through_the_store_and_the_second_place(tmp_path: Path, notary: Notary) -> None:
    with Database(tmp_path / "head_end.sqlite", reserve_bytes=0) as database:
        for number in range(5):
            with database.writing() as connection:
                audit.append(connection, "sent", "ada", f"order {number}", {"meter": number})
        with database.writing() as connection:
            checkpoint = notary.sign(connection)
            assert checkpoint is not None
        with database.writing() as connection:
            assert notary.sign(connection) is None
        notary.copy(checkpoint)
        with notary.copies.open("a") as torn:
            torn.write('{"seq":9,')
        copies = audit.load_checkpoints(notary.copies)

        with database.reading() as connection:
            assert verify(audit.records(connection), copies, notary.public_key).first_bad is None
        with database.writing() as connection:
            connection.exec_driver_sql("UPDATE audit SET principal = 'bob' WHERE seq = 3")
        with database.reading() as connection:
            assert verify(audit.records(connection), copies, notary.public_key).first_bad == 3
        with database.writing() as connection:
            connection.exec_driver_sql("DELETE FROM audit")
        with database.reading() as connection:
            assert verify(audit.records(connection), copies, notary.public_key).first_bad == 1


def test_r40_what_cannot_be_noted_is_not_done(tmp_path: Path) -> None:
    with Database(tmp_path / "head_end.sqlite", reserve_bytes=0) as database:
        with database.writing() as connection:
            connection.exec_driver_sql(
                "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'full'); END"
            )

        def resume(connection: Connection) -> None:
            connection.exec_driver_sql("INSERT INTO control_state VALUES (1, 0, 1, 0, 0)")
            audit.append(connection, "resume", "ada", "control")

        with pytest.raises(StoreError, match="full"), database.writing() as connection:
            resume(connection)

        with database.reading() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM control_state").scalar() == 0


def test_r40_a_checkpoint_that_a_crash_has_torn_gives_way_to_the_next(notary: Notary) -> None:
    """It made the next one's line unreadable, so that the head-end would not start any more."""
    first, second = (signed(notary, record) for record in trail(2))
    notary.copy(first)
    with notary.copies.open("ab") as file:
        file.write(second.line().encode()[:40])
    assert audit.load_checkpoints(notary.copies) == [first]

    notary.copy(second)

    assert audit.load_checkpoints(notary.copies) == [first, second]
    notary.copies.write_bytes(second.line().encode()[:40])
    notary.copy(first)
    assert audit.load_checkpoints(notary.copies) == [first]
