"""New keys for a meter in two phases, so that no crash and no lost answer locks it out (R22).

| state | what is durable | what is tried |
|---|---|---|
| `stored` | NEW beside the keys in use, before it is sent | the keys in use |
| `sent` | that NEW may have arrived; from right before it is sent | NEW, then the keys in use |
| (gone) | NEW is in use; the old keys are erased in the same transaction | NEW |

An association under NEW is the only proof that the meter has it: the answer to the transfer may be lost, or lie. In
doubt at most two tries in 15 minutes are made, NEW first. A meter that proves itself with the old keys after NEW was
sent did not take it: NEW goes back to `stored`, the same key, so that a late transfer cannot bring a key that nobody
has. Our invocation counter goes on under NEW, which is always safe; near its end it begins anew under NEW, counted
beside the one in use until NEW is that (R10). The meter's high water belongs to the old key and starts again, in the
transaction that makes NEW the key in use.

The meter's master key changes alone, and no association shows which one a meter has. So both are kept, the meter is
talked to as ever, and each order sends the same two transfers in one request: NEW under the master key in use, and NEW
under itself, which only a meter that has it can take. Its yes to the second is the proof, whatever it said before.

| state | what is durable | what the next order sends |
|---|---|---|
| `master-stored` | NEW beside the key in use | both transfers |
| `master-sent` | that NEW may have arrived | the same both transfers |
| (gone) | NEW is in use; the old one is erased in the same transaction | |

The current encryption key is never transferred again as a proof: a meter that begins its invocation counter anew with a
transfer would use nonces twice under one key.
"""

import secrets
from dataclasses import replace
from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select, update

from ipss_headend.errors import RequestError
from ipss_headend.security import audit
from ipss_headend.security.keystore import BoundKeys, Keystore, MeterKeys
from ipss_headend.security.sample_keys import why_no_key
from ipss_headend.store import CounterBlock, counters
from ipss_headend.store.schema import key_fingerprints, key_generations, meter_keys, pending_keys

STORED = "stored"
SENT = "sent"
MASTER_STORED = "master-stored"
MASTER_SENT = "master-sent"

TRIES = 2
TRY_WINDOW_US = 15 * 60 * 1_000_000
"""R22: at most so many associations in doubt within this time, or the meter locks us out."""

_FIELDS = ("encryption_key", "authentication_key")


class Candidate(NamedTuple):
    """Keys to associate with, and whether these are the new ones."""

    keys: MeterKeys
    new: bool


class Pending(NamedTuple):
    """A rotation that has not ended. Shows no key."""

    meter_id: int
    generation: int
    state: str
    tries: int
    window_us: int


def begin(
    connection: Connection, keystore: Keystore, meter_id: int, title: bytes | None, who: str, now_us: int
) -> Pending:
    """Make new global keys for a meter and store them. Nothing was sent yet. Needs a writing transaction.

    Raises:
        RequestError: a rotation is under way already, or the meter has no keys or no master key to send them under.
    """
    under_way = pending(connection, meter_id)
    if under_way is not None and under_way.state == MASTER_STORED:
        # The meter is known not to have it: it never left, or was refused under both keys.
        connection.execute(delete(pending_keys).where(pending_keys.c.meter_id == meter_id))
    elif under_way is not None:
        raise RequestError(f"meter {meter_id}: its keys are being changed already; let that end")
    old = _in_use(connection, keystore, meter_id, title)
    if old.encryption_key is None or old.authentication_key is None or old.master_key is None:
        raise RequestError(f"meter {meter_id}: has no keys, or no master key that new ones are sent under")
    length = len(old.encryption_key)
    fresh = {field: _fresh(length) for field in _FIELDS}
    if counters.granted_until(connection, [meter_id]).get(meter_id, counters.FIRST) >= counters.ALARM:
        counters.begin_anew(connection, meter_id)
    [wrapped] = keystore.wrap([(meter_id, title, replace(old, **fresh))])
    known = select(key_generations.c.generation).where(key_generations.c.meter_id == meter_id)
    generation = 1 + (connection.scalar(known) or 0)
    row = {"meter_id": meter_id, "generation": generation, "state": STORED, "tries": 0, "window_us": now_us}
    connection.execute(insert(pending_keys).values(**row, wrapped=wrapped))
    audit.append(connection, "key change begun", who, f"meter {meter_id}", {"generation": generation})
    return Pending(meter_id, generation, STORED, 0, now_us)


def begin_master(
    connection: Connection, keystore: Keystore, meter_id: int, title: bytes | None, who: str, now_us: int
) -> tuple[bytes, bytes]:
    """Make a new master key for a meter and store it, or take the one that was made before: old and new.

    Nothing was sent yet. Needs a writing transaction.

    Raises:
        RequestError: its other keys are being changed, or it has no master key.
    """
    old, found = _in_use(connection, keystore, meter_id, title), pending(connection, meter_id)
    if old.master_key is None:
        raise RequestError(f"meter {meter_id}: has no master key that a new one is sent under")
    if found is not None and found.state not in (MASTER_STORED, MASTER_SENT):
        raise RequestError(f"meter {meter_id}: its keys are being changed already; let that end")
    if found is not None:
        return old.master_key, new_keys(connection, keystore, meter_id, title).master_key or b""
    fresh = _fresh(len(old.master_key))
    [wrapped] = keystore.wrap([(meter_id, title, replace(old, master_key=fresh))])
    known = select(key_generations.c.generation).where(key_generations.c.meter_id == meter_id)
    generation = connection.scalar(known) or 0
    row = {"meter_id": meter_id, "generation": generation, "state": MASTER_STORED, "tries": 0, "window_us": now_us}
    connection.execute(insert(pending_keys).values(**row, wrapped=wrapped))
    audit.append(connection, "master key change begun", who, f"meter {meter_id}")
    return old.master_key, fresh


def sending_master(connection: Connection, meter_id: int) -> bool:
    """As `sending`, of a new master key. `tries` counts the transfers whose fate is not known."""
    mine = pending_keys.c.state.in_((MASTER_STORED, MASTER_SENT))
    values = {"state": MASTER_SENT, "tries": pending_keys.c.tries + 1}
    chosen = (pending_keys.c.meter_id == meter_id) & mine
    return connection.execute(update(pending_keys).where(chosen).values(**values)).rowcount == 1


def withdrawn_master(connection: Connection, meter_id: int) -> None:
    """As `withdrawn`, of a new master key: an earlier transfer may have arrived all the same."""
    found = pending(connection, meter_id)
    if found is not None and found.state == MASTER_SENT:
        values = {"state": MASTER_SENT if found.tries > 1 else MASTER_STORED, "tries": max(found.tries - 1, 0)}
        connection.execute(update(pending_keys).where(pending_keys.c.meter_id == meter_id).values(**values))


def refused_master(connection: Connection, meter_id: int) -> None:
    """The meter refused NEW under NEW and under the key in use, for good: it does not have it."""
    chosen = (pending_keys.c.meter_id == meter_id) & (pending_keys.c.state == MASTER_SENT)
    connection.execute(update(pending_keys).where(chosen).values(state=MASTER_STORED, tries=0))


def proven_master(connection: Connection, keystore: Keystore, meter_id: int, title: bytes | None) -> None:
    """The meter took NEW under NEW: it is the key in use, and the old one is erased. Needs a writing transaction."""
    found = pending(connection, meter_id)
    if found is None or found.state != MASTER_SENT:
        return
    chosen = pending_keys.c.meter_id == meter_id
    wrapped = connection.scalar(select(pending_keys.c.wrapped).where(chosen))
    new, old = new_keys(connection, keystore, meter_id, title), _in_use(connection, keystore, meter_id, title)
    connection.execute(update(meter_keys).where(meter_keys.c.meter_id == meter_id).values(wrapped=wrapped))
    connection.execute(delete(pending_keys).where(chosen))
    # The other keys are what they were, and so are their counters, and both ends' high water.
    if old.master_key not in (old.encryption_key, old.authentication_key):
        mark = keystore.fingerprint(old.master_key or b"")
        connection.execute(delete(key_fingerprints).where(key_fingerprints.c.fingerprint == mark))
    mark = keystore.fingerprint(new.master_key or b"")
    connection.execute(insert(key_fingerprints), [{"fingerprint": mark, "meter_id": meter_id}])
    audit.append(connection, "master key changed", "head-end", f"meter {meter_id}")


def masters_in_doubt(connection: Connection) -> list[int]:
    """The meters that may have either master key: the next order tells. They are talked to as ever."""
    query = select(pending_keys.c.meter_id).where(pending_keys.c.state == MASTER_SENT)
    return list(connection.scalars(query.order_by(pending_keys.c.meter_id)))


def sending(connection: Connection, meter_id: int) -> bool:
    """Note that the transfer leaves now. Durable before it does; the sender waits for the transaction's end.

    False: there is none that has not been sent, so nothing may leave.
    """
    chosen = (pending_keys.c.meter_id == meter_id) & (pending_keys.c.state == STORED)
    return connection.execute(update(pending_keys).where(chosen).values(state=SENT)).rowcount == 1


def withdrawn(connection: Connection, meter_id: int) -> None:
    """Nothing of the transfer left, and nothing of it will: for whoever knows that, in the same life as `sending`."""
    chosen = (pending_keys.c.meter_id == meter_id) & (pending_keys.c.state == SENT)
    connection.execute(update(pending_keys).where(chosen).values(state=STORED))


def in_doubt(connection: Connection) -> list[int]:
    """The meters that may have either keys."""
    query = select(pending_keys.c.meter_id).where(pending_keys.c.state == SENT)
    return list(connection.scalars(query.order_by(pending_keys.c.meter_id)))


def block(connection: Connection, meter_id: int, size: int, *, new: bool) -> CounterBlock:
    """Invocation counters to associate with under NEW, or the keys in use. Needs a writing transaction.

    These may use what ordinary exchanges leave to the change of a key.
    """
    if new and counters.counts_anew(connection, meter_id):
        return counters.reserve_anew(connection, meter_id, size)
    [found] = counters.reserve(connection, [meter_id], size, until=counters.LIMIT)
    return found


def candidates(connection: Connection, keystore: Keystore, meter_id: int, title: bytes | None) -> list[Candidate]:
    """The keys to associate with, in the order to try.

    Raises:
        KeyTampered: stored keys were changed.
    """
    old = _in_use(connection, keystore, meter_id, title)
    found = pending(connection, meter_id)
    if found is None or found.state != SENT:
        return [Candidate(old, new=False)]
    return [Candidate(new_keys(connection, keystore, meter_id, title), new=True), Candidate(old, new=False)]


def new_keys(connection: Connection, keystore: Keystore, meter_id: int, title: bytes | None) -> MeterKeys:
    """The keys to be sent, wrapped for the meter under its master key by whoever sends them."""
    wrapped = connection.scalar(select(pending_keys.c.wrapped).where(pending_keys.c.meter_id == meter_id))
    return keystore.unwrap([BoundKeys(meter_id, title, wrapped or b"")])[0]


def may_try(connection: Connection, meter_id: int, now_us: int) -> bool:
    """Take one of the tries of a rotation in doubt; False: wait for the next 15 minutes. Needs a writing transaction.

    A clock that was set back gives no new tries.
    """
    found = pending(connection, meter_id)
    if found is None or found.state != SENT:
        return True
    tries = 0 if now_us - found.window_us >= TRY_WINDOW_US else found.tries
    if tries >= TRIES:
        return False
    # Counted from the newest try: from the first one, two late in a window and two early in the next were four at once.
    values = {"tries": tries + 1, "window_us": max(now_us, found.window_us)}
    connection.execute(update(pending_keys).where(pending_keys.c.meter_id == meter_id).values(**values))
    return True


def untried(connection: Connection, meter_id: int) -> None:
    """A try that `may_try` took reached nobody, so no meter counts it. Needs a writing transaction."""
    chosen = (pending_keys.c.meter_id == meter_id) & (pending_keys.c.tries > 0)
    connection.execute(update(pending_keys).where(chosen).values(tries=pending_keys.c.tries - 1))


def proven(connection: Connection, keystore: Keystore, meter_id: int, title: bytes | None, *, new: bool) -> str:
    """The meter proved itself with these keys, in an association and an answer: what follows, in one transaction.

    Returns `active` where NEW is in use now, else the state that the rotation has.
    """
    found = pending(connection, meter_id)
    if found is None or found.state not in (STORED, SENT):
        return "active"
    chosen = pending_keys.c.meter_id == meter_id
    if not new:
        connection.execute(update(pending_keys).where(chosen).values(state=STORED))
        return STORED
    wrapped = connection.scalar(select(pending_keys.c.wrapped).where(chosen))
    keys, old = new_keys(connection, keystore, meter_id, title), _in_use(connection, keystore, meter_id, title)
    connection.execute(update(meter_keys).where(meter_keys.c.meter_id == meter_id).values(wrapped=wrapped))
    connection.execute(delete(key_generations).where(key_generations.c.meter_id == meter_id))
    connection.execute(insert(key_generations).values(meter_id=meter_id, generation=found.generation))
    connection.execute(delete(pending_keys).where(chosen))
    if counters.counts_anew(connection, meter_id):
        # The counter that stays known is NEW's: the old keys' is near its end, and they must never come back.
        own = key_fingerprints.c.fingerprint.in_(
            [keystore.fingerprint(getattr(old, field) or b"") for field in _FIELDS]
        )
        connection.execute(update(key_fingerprints).where(own).values(meter_id=counters.USED_UP))
    secret = [getattr(keys, field) for field in (*_FIELDS, "master_key")]
    marks = {keystore.fingerprint(key) for key in secret if key is not None}
    connection.execute(delete(key_fingerprints).where(key_fingerprints.c.fingerprint.in_(marks)))
    connection.execute(insert(key_fingerprints), [{"fingerprint": mark, "meter_id": meter_id} for mark in marks])
    counters.forget_peer(connection, [meter_id])
    counters.take_over(connection, meter_id)
    audit.append(connection, "key changed", "head-end", f"meter {meter_id}", {"generation": found.generation})
    return "active"


def pending(connection: Connection, meter_id: int) -> Pending | None:
    """The meter's rotation under way."""
    columns = [pending_keys.c[name] for name in Pending._fields]
    row = connection.execute(select(*columns).where(pending_keys.c.meter_id == meter_id)).one_or_none()
    return None if row is None else Pending(*row)


def _in_use(connection: Connection, keystore: Keystore, meter_id: int, title: bytes | None) -> MeterKeys:
    wrapped = connection.scalar(select(meter_keys.c.wrapped).where(meter_keys.c.meter_id == meter_id))
    return keystore.unwrap([BoundKeys(meter_id, title, wrapped or b"")])[0]


def _fresh(length: int) -> bytes:
    key = secrets.token_bytes(length)
    while why_no_key(key) is not None:
        key = secrets.token_bytes(length)
    return key
