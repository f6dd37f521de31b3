"""What unknown senders pushed is kept within bounds, and what gives way is counted."""

from ipss_headend.store import Database, Meter, WriteBatch, quarantine, registry
from ipss_headend.store.journal import NOBODY, PUSH_UNCLAIMED, write
from ipss_headend.store.quarantine import KEPT_US, PUSHES_PER_SENDER, SENDERS, KeptPush

T0 = 1_767_225_600_000_000


def title(number: int) -> bytes:
    return number.to_bytes(8, "big")


def test_the_newest_pushes_of_a_sender_are_kept_and_all_are_counted(database: Database) -> None:
    with database.writing() as connection:
        kept = quarantine.keep(connection, [(title(1), "h:1", T0 + n, bytes([n])) for n in range(10)], T0)
        [sender] = quarantine.senders(connection)
        pushes = quarantine.pushes_of(connection, [title(1), title(2)])

    assert kept.dropped == 10 - PUSHES_PER_SENDER
    assert [push.wpdu for push in pushes] == [bytes([n]) for n in range(2, 10)] == [push.wpdu for push in kept.pushes]
    assert (sender.pushes, sender.kept, sender.first_us, sender.last_us) == (10, PUSHES_PER_SENDER, T0, T0 + 9)
    assert kept.new == [(title(1), "h:1", T0, b"\x00")]


def test_the_sender_silent_for_longest_gives_way_and_old_ones_are_forgotten(database: Database) -> None:
    with database.writing() as connection:
        quarantine.keep(connection, [(title(n), "h:1", T0 + n, b"x") for n in range(1, SENDERS + 1)], T0)
        more = quarantine.keep(connection, [(title(SENDERS + 1), "h:2", T0 + SENDERS + 1, b"y")], T0)
        there = quarantine.titles(connection)
        late = quarantine.keep(connection, [(title(7), "h:3", T0 + 2 * KEPT_US, b"z")], T0 + 2 * KEPT_US)
        left = quarantine.titles(connection)

    assert more.dropped == 1
    assert len(there) == SENDERS
    assert title(1) not in there
    assert late.dropped == SENDERS
    assert left == {title(7)}


def test_a_sender_whose_pushes_are_dealt_with_is_no_more(database: Database) -> None:
    with database.writing() as connection:
        kept = quarantine.keep(connection, [(title(1), "h:1", T0, b"a"), (title(1), "h:1", T0, b"b")], T0).pushes
        quarantine.release(connection, [kept[0].push_id, 999])
        assert quarantine.pushes_of(connection, [title(1)]) == [KeptPush(kept[1].push_id, title(1), T0, b"b")]
        quarantine.release(connection, [kept[1].push_id])
        assert quarantine.senders(connection) == []
        assert not quarantine.forget(connection, title(1))


def test_one_event_tells_of_a_sender_and_none_of_a_meter_of_ours(database: Database) -> None:
    ours = Meter(1, "meter-1", None, None, 1, title(1), None, "", "", {"client": 1})
    pushes = [(title(1), "h:1", T0, b"a"), (title(2), "h:2", T0, b"bc"), (title(2), "h:2", T0, b"de")]

    with database.writing() as connection:
        registry.add_meters(connection, [ours])
        written = write(connection, WriteBatch(unclaimed=pushes), T0, 1)
        again = write(connection, WriteBatch(unclaimed=pushes[1:2], heard=[written.unclaimed[0].push_id]), T0, 1)
        events = connection.exec_driver_sql("SELECT meter_id, at_us, kind, number, detail FROM events").all()
        there = quarantine.titles(connection)

    assert [tuple(event) for event in events] == [(NOBODY, T0, PUSH_UNCLAIMED, 2, "0000000000000002 from h:2")]
    assert (len(written.unclaimed), len(again.unclaimed), again.dropped) == (3, 1, 0)
    assert there == {title(2)}
