"""Invocation counters, ours and the meters': the one place where they are kept (R7-R10).

Ours are granted in blocks [next, end), made durable before anybody sees them, and never granted twice. Whoever dies
burns the rest of its block. A block is never taken back.
"""

import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import Column, Connection, delete, insert, select, update

from ipss_headend.store import restore
from ipss_headend.store.schema import invocation_counters, key_counters, peer_counters
from ipss_headend.store.statements import run

FIRST = 1
"""The first counter granted under a new key; some meters refuse 0."""

LIMIT = 2**32 - 1
"""Never granted (R10): a key must be changed before."""

ALARM = 2_000_000_000
"""Time to plan a change of key (R10)."""

FORCED = LIMIT - 100_000
"""Ordinary exchanges end here (R10): what is left belongs to the change of the key."""

USED_UP = 0
"""In place of a meter's number at the fingerprint of a key that may never be used again: no meter has it."""

_CHUNK = 500


class CounterBlock(NamedTuple):
    """Counters that one meter's session may use, each once: next, next + 1, ... end - 1. Empty: the key is used up."""

    meter_id: int
    next: int
    end: int


def reserve(connection: Connection, meter_ids: Sequence[int], size: int, *, until: int = FORCED) -> list[CounterBlock]:
    """Take a block of `size` for each meter, in the order given. They may be used once the transaction has ended.

    A meter near `until` gets a shorter block, at last an empty one. `LIMIT` there is for the change of a key.

    Raises:
        StoreRestored: the store was copied back, and nobody has accepted that (R8).
    """
    if size <= 0:
        raise ValueError(f"a block of {size} counters is none")
    if len(set(meter_ids)) != len(meter_ids):
        raise ValueError("a meter is named twice; one block each")
    if meter_ids:
        restore.granting(connection, time.time_ns() // 1000)
    next_of = dict.fromkeys(meter_ids, FIRST)
    next_of.update(_rows(connection, invocation_counters.c.next, meter_ids))
    blocks = [
        CounterBlock(meter, next_of[meter], max(next_of[meter], min(next_of[meter] + size, until)))
        for meter in meter_ids
    ]
    raise_to(connection, [(block.meter_id, block.end) for block in blocks])
    return blocks


def raise_to(connection: Connection, counters: Iterable[tuple[int, int]]) -> None:
    """Grant nothing below `counter` any more, for each (meter_id, counter). Never lowers one.

    For a key that somebody else has used (an import from another head-end), or a meter that expects more (after it
    has proved who it is; the caller keeps R10's limit on the jump).
    """
    _raise(connection, _RAISE_OURS, [(meter, min(counter, LIMIT)) for meter, counter in counters])


def raise_peer(connection: Connection, counters: Iterable[tuple[int, int]]) -> None:
    """Believe the meters' counters up to `counter`, for each (meter_id, counter). Never lowers one (R9)."""
    _raise(connection, _RAISE_PEER, list(counters))


def peer_high_water(connection: Connection, meter_ids: Sequence[int]) -> dict[int, int]:
    """The highest counter believed of each meter that has one."""
    return _rows(connection, peer_counters.c.high_water, meter_ids)


def granted_until(connection: Connection, meter_ids: Sequence[int]) -> dict[int, int]:
    """The lowest counter never yet granted of each meter that ever had a block."""
    return _rows(connection, invocation_counters.c.next, meter_ids)


def near_end(connection: Connection) -> list[int]:
    """The meters whose keys are due to be changed: a counter beyond `ALARM` was granted."""
    columns = invocation_counters.c
    return list(connection.scalars(select(columns.meter_id).where(columns.next > ALARM).order_by(columns.meter_id)))


def forget_peer(connection: Connection, meter_ids: Sequence[int]) -> None:
    """The meters' keys have changed, so their counters may start again. Ours go on: that is always safe."""
    for start in range(0, len(meter_ids), _CHUNK):
        chosen = meter_ids[start : start + _CHUNK]
        connection.execute(peer_counters.delete().where(peer_counters.c.meter_id.in_(chosen)))


def begin_anew(connection: Connection, meter_id: int) -> None:
    """Keys that are not in use yet count from the beginning, beside the ones in use, until `take_over`."""
    connection.execute(insert(key_counters).values(meter_id=meter_id, next=FIRST))


def counts_anew(connection: Connection, meter_id: int) -> bool:
    """Whether a meter's pending keys have a counter of their own; else they share the one in use."""
    return connection.scalar(select(key_counters.c.next).where(key_counters.c.meter_id == meter_id)) is not None


def reserve_anew(connection: Connection, meter_id: int, size: int) -> CounterBlock:
    """As `reserve`, of the pending keys' own counter.

    Raises:
        StoreRestored: as `reserve`.
    """
    restore.granting(connection, time.time_ns() // 1000)
    chosen = key_counters.c.meter_id == meter_id
    first = connection.scalar(select(key_counters.c.next).where(chosen)) or LIMIT
    block = CounterBlock(meter_id, first, max(first, min(first + size, FORCED)))
    connection.execute(update(key_counters).where(chosen).values(next=block.end))
    return block


def take_over(connection: Connection, meter_id: int) -> None:
    """The pending keys are the ones in use now, and so is their counter. Nothing was sealed under them by another."""
    chosen = key_counters.c.meter_id == meter_id
    first = connection.scalar(select(key_counters.c.next).where(chosen))
    if first is not None:
        connection.execute(
            update(invocation_counters).where(invocation_counters.c.meter_id == meter_id).values(next=first)
        )
        connection.execute(delete(key_counters).where(chosen))


def _rows(connection: Connection, column: Column[int], meter_ids: Sequence[int]) -> dict[int, int]:
    table = column.table
    found: dict[int, int] = {}
    for start in range(0, len(meter_ids), _CHUNK):
        chosen = meter_ids[start : start + _CHUNK]
        rows = connection.execute(select(table.c.meter_id, column).where(table.c.meter_id.in_(chosen)))
        found.update(rows.all())
    return found


def _raise(connection: Connection, statement: str, rows: list[tuple[int, int]]) -> None:
    if rows:
        run(connection, statement, rows)


_RAISE_OURS = (
    "INSERT INTO invocation_counters (meter_id, next) VALUES (?, ?) "
    "ON CONFLICT (meter_id) DO UPDATE SET next = excluded.next WHERE excluded.next > invocation_counters.next"
)
_RAISE_PEER = (
    "INSERT INTO peer_counters (meter_id, high_water) VALUES (?, ?) "
    "ON CONFLICT (meter_id) DO UPDATE SET high_water = excluded.high_water "
    "WHERE excluded.high_water > peer_counters.high_water"
)
