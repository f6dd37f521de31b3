"""Pushes of senders that nobody knows, kept until somebody adopts the sender or they are old.

Anybody who reaches a listener can send one, so all of it is bounded: how many senders, how many pushes of each, and for
how long. What gives way is counted. Nothing here is verified; the system title is what a sender says of itself.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update

from ipss_headend.store.schema import quarantine_pushes, quarantine_senders

SENDERS = 1_000
"""When one more comes, the sender that was silent for longest gives way."""

PUSHES_PER_SENDER = 8
"""The newest are kept: at most 33 KiB a sender, as a push before an association has at most 4 KiB."""

KEPT_US = 30 * 86_400 * 1_000_000
"""A sender that was silent for so long is forgotten."""

PushRow = tuple[bytes, str, int, bytes]
"""(system_title, address, received_us, wpdu)."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who pushed, as far as that can be said without its keys."""

    system_title: bytes
    address: str
    """Where its latest push came from."""
    first_us: int
    last_us: int
    pushes: int
    """How many came."""
    kept: int
    """How many of them are still there."""


class KeptPush(NamedTuple):
    """One push of somebody who was unknown when it came."""

    push_id: int
    system_title: bytes
    received_us: int
    wpdu: bytes


class Kept(NamedTuple):
    """What keeping pushes came to."""

    new: list[PushRow]
    """The first push of each sender that was not there."""
    dropped: int
    """Pushes that gave way to these."""
    pushes: list[KeptPush]
    """These, as they are kept."""


def keep(connection: Connection, pushes: Sequence[PushRow], now_us: int) -> Kept:
    """Keep these pushes within the bounds. Needs a writing transaction."""
    dropped = _forget(connection, quarantine_senders.c.last_us < now_us - KEPT_US)
    new: list[PushRow] = []
    kept: dict[int, KeptPush] = {}
    for push in pushes:
        title, address, received_us, wpdu = push
        known = connection.execute(
            update(quarantine_senders)
            .where(quarantine_senders.c.system_title == title)
            .values(address=address, last_us=received_us, pushes=quarantine_senders.c.pushes + 1)
        ).rowcount
        if not known:
            dropped += _make_room(connection)
            connection.execute(
                insert(quarantine_senders).values(
                    system_title=title, address=address, first_us=received_us, last_us=received_us, pushes=1
                )
            )
            new.append(push)
        number: int = connection.execute(
            insert(quarantine_pushes)
            .values(system_title=title, received_us=received_us, wpdu=wpdu)
            .returning(quarantine_pushes.c.push_id)
        ).scalar_one()
        kept[number] = KeptPush(number, title, received_us, wpdu)
        for old in _beyond(connection, title):
            connection.execute(delete(quarantine_pushes).where(quarantine_pushes.c.push_id == old))
            kept.pop(old, None)
            dropped += 1
    return Kept(new, dropped, list(kept.values()))


def senders(connection: Connection) -> list[Sender]:
    """All senders, the one heard last in front."""
    kept: dict[bytes, int] = dict(
        connection.execute(
            select(quarantine_pushes.c.system_title, func.count()).group_by(quarantine_pushes.c.system_title)
        ).all()
    )
    found = connection.execute(
        select(quarantine_senders).order_by(quarantine_senders.c.last_us.desc(), quarantine_senders.c.system_title)
    )
    return [
        Sender(row.system_title, row.address, row.first_us, row.last_us, row.pushes, kept.get(row.system_title, 0))
        for row in found
    ]


def sender_count(connection: Connection) -> int:
    """How many senders are kept."""
    return connection.scalar(select(func.count()).select_from(quarantine_senders)) or 0


def pushes_of(connection: Connection, titles: Collection[bytes]) -> list[KeptPush]:
    """What these senders pushed, each sender's in the order in which it came."""
    found: list[KeptPush] = []
    chosen = list(titles)
    for start in range(0, len(chosen), _TITLES_A_QUERY):
        query = (
            select(quarantine_pushes)
            .where(quarantine_pushes.c.system_title.in_(chosen[start : start + _TITLES_A_QUERY]))
            .order_by(quarantine_pushes.c.push_id)
        )
        found += [
            KeptPush(row.push_id, row.system_title, row.received_us, row.wpdu) for row in connection.execute(query)
        ]
    return found


def titles(connection: Connection) -> frozenset[bytes]:
    """The system titles of all senders."""
    return frozenset(connection.scalars(select(quarantine_senders.c.system_title)))


def release(connection: Connection, push_ids: Iterable[int]) -> None:
    """These pushes are dealt with; a sender without any is no more. Needs a writing transaction."""
    for number in push_ids:
        title = connection.scalar(
            delete(quarantine_pushes)
            .where(quarantine_pushes.c.push_id == number)
            .returning(quarantine_pushes.c.system_title)
        )
        if title is not None and not _count(connection, title):
            connection.execute(delete(quarantine_senders).where(quarantine_senders.c.system_title == title))


def forget(connection: Connection, system_title: bytes) -> bool:
    """Drop a sender and what it pushed; False if it is not there. Needs a writing transaction."""
    there = connection.execute(
        delete(quarantine_senders).where(quarantine_senders.c.system_title == system_title)
    ).rowcount
    connection.execute(delete(quarantine_pushes).where(quarantine_pushes.c.system_title == system_title))
    return bool(there)


def _make_room(connection: Connection) -> int:
    if sender_count(connection) < SENDERS:
        return 0
    oldest = connection.scalar(
        select(quarantine_senders.c.system_title).order_by(quarantine_senders.c.last_us, quarantine_senders.c.pushes)
    )
    return _forget(connection, quarantine_senders.c.system_title == oldest)


def _forget(connection: Connection, which: object) -> int:
    gone = connection.scalars(select(quarantine_senders.c.system_title).where(which)).all()  # type: ignore[arg-type]
    dropped = 0
    for title in gone:
        dropped += _count(connection, title)
        forget(connection, title)
    return dropped


def _count(connection: Connection, title: bytes) -> int:
    query = select(func.count()).select_from(quarantine_pushes).where(quarantine_pushes.c.system_title == title)
    return connection.scalar(query) or 0


def _beyond(connection: Connection, title: bytes) -> Sequence[int]:
    newest = (
        select(quarantine_pushes.c.push_id)
        .where(quarantine_pushes.c.system_title == title)
        .order_by(quarantine_pushes.c.push_id.desc())
    )
    return connection.scalars(newest.offset(PUSHES_PER_SENDER).limit(_TITLES_A_QUERY)).all()


_TITLES_A_QUERY = 500
