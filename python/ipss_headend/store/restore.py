"""A store that was copied back may not send: counters that its copy does not know of may be used already (R8).

Each grant of invocation counters raises a number in the store, and after the commit, before anybody sees the grant, the
same number in a marker file beside the store. A store that is behind its marker, has none, or has another store's was
copied back; so was one whose file is another (inode) or is on another machine. That is noted in the store, and no
counter is granted until `accept` has raised them all by what may have been used since the copy was made.

In PostgreSQL the marker is in the head-end's data directory, on its own machine, and in place of inode and machine
stand the database's and the cluster's numbers: a dump that was read back has another of them, a base backup or a
standby that was promoted is behind the marker unless it lost nothing.

Not seen: a whole machine set back to a snapshot, file by file identical. Accept a restore by hand then.
"""

import fcntl
import os
import secrets
import zlib
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, case, func, insert, select, update

from ipss_headend.errors import ConfigError, StoreError, StoreRestored
from ipss_headend.store.files import sync
from ipss_headend.store.schema import invocation_counters, key_counters, meter_keys, restore_guard
from ipss_headend.store.statements import run

FRAMES_PER_SECOND = 1000
"""The most that a session may have sealed for one meter in a second: a local network, without any pause."""

LIMIT = 2**32 - 1

_PENDING = "restore marker"
_PLACE = "store's place"
_SLOT = 4096  # two slots, written in turns, so that a torn one leaves the other
_MACHINE = Path("/etc/machine-id")


class Marker(NamedTuple):
    """What the file beside the store knows."""

    instance: str
    grants: int
    at_us: int
    inode: int
    machine: str


class Place(NamedTuple):
    """Where a store is: what of it a copy does not have."""

    marker: Path
    number: int
    """The file's inode; the database's number in its cluster."""
    machine: str
    """The machine's number; the cluster's."""
    server: bool = False


class Accepted(NamedTuple):
    """What accepting a restored store did."""

    meters: int
    margin: int
    age_s: int


def marker_path(store: Path) -> Path:
    """Where the marker of this store is."""
    return store.with_name(store.name + ".marker")


def check(connection: Connection, place: Place, now_us: int) -> None:
    """Note in the store if it was copied back. For the opening of a store, in its writing transaction."""
    marker = load(place.marker)
    row = connection.execute(select(restore_guard)).one_or_none()
    if row is None:
        instance = secrets.token_hex(8)
        why = "" if marker is None else "the store is new, but the marker beside it knows an older one"
        values = {"instance": instance, "grants": 1, "at_us": now_us, "restored": why}
        connection.execute(insert(restore_guard).values(id=1, **values))
        if not why:
            connection.info[_PENDING] = (instance, 1, now_us)
    elif not row.restored and (why := _why_restored(row.instance, row.grants, marker, place)):
        connection.execute(update(restore_guard).values(restored=why))


def granting(connection: Connection, now_us: int) -> None:
    """Note a grant of counters, in its transaction. `committed` writes the marker.

    Raises:
        StoreError: the marker is on another machine.
        StoreRestored: the store was copied back, and nobody has accepted that.
    """
    row = connection.execute(select(restore_guard)).one_or_none()
    if row is None:  # a store in a test's memory, opened by nobody
        return
    if row.restored:
        raise StoreRestored(
            f"the store was copied back: {row.restored}; nothing is sent, because its copy does not know which "
            "invocation counters were used since. Run `ipss-headend keys accept-restore`"
        )
    place: Place | None = connection.info.get(_PLACE)
    if place is not None and place.server:
        marker = load(place.marker)
        if marker is None or marker.instance != row.instance:
            raise StoreError(
                f"{place.marker}: not the restore guard's file of this store; counters are granted where the head-end "
                "has its data directory, so run this there"
            )
    connection.execute(update(restore_guard).values(grants=row.grants + 1, at_us=now_us))
    connection.info[_PENDING] = (row.instance, row.grants + 1, now_us)


def begun(connection: Connection, place: Place | None) -> None:
    """Forget what an earlier transaction that failed left to be marked."""
    connection.info.pop(_PENDING, None)
    connection.info[_PLACE] = place


def committed(info: MutableMapping[str, Any], place: Callable[[], Place]) -> None:
    """Make the marker as new as the store, durably, if this transaction granted counters.

    Raises:
        OSError: it could not be written; nobody may use what was granted.
    """
    pending = info.pop(_PENDING, None)
    if pending is not None:
        instance, grants, at_us = pending
        where = place()
        _save(where.marker, Marker(instance, grants, at_us, where.number, where.machine))


def state(connection: Connection) -> str:
    """Why this store may not send; empty: it may."""
    return connection.scalar(select(restore_guard.c.restored)) or ""


def accept(
    connection: Connection,
    place: Place,
    now_us: int,
    *,
    age_s: int | None = None,
    frames_per_second: int = FRAMES_PER_SECOND,
) -> Accepted:
    """Raise all counters by what may have been used since the copy was made, and let the store send again.

    `age_s`: how old the copy is; None: as old as its newest grant, which is never too little. Needs a writing
    transaction.

    Raises:
        ConfigError: the marker shows that the copy is older, or nothing was copied back.
    """
    row = connection.execute(select(restore_guard)).one()
    if not row.restored:
        raise ConfigError("accept-restore: this store was not copied back; nothing is to be accepted")
    longest = max(now_us - row.at_us, 0) // 1_000_000 + 1
    age = longest if age_s is None else age_s
    marker = load(place.marker)
    if marker is not None and marker.instance == row.instance:
        least = max(marker.at_us - row.at_us, 0) // 1_000_000
        if age < least:
            raise ConfigError(
                f"accept-restore: --age {age}s is less than the {least} s that the marker shows counters were granted "
                "after this copy's newest; give more, or leave it out"
            )
    if age < 0 or frames_per_second < 1:
        raise ConfigError("accept-restore: an age is no less than 0 s, and a rate at least 1 a second")
    margin = age * frames_per_second + 1
    known = select(invocation_counters.c.meter_id)
    fresh = [(meter, 1) for meter in connection.scalars(select(meter_keys.c.meter_id).except_(known))]
    if fresh:
        run(connection, "INSERT INTO invocation_counters (meter_id, next) VALUES (?, ?)", fresh)
    column = invocation_counters.c.next
    raised = case((column > LIMIT - margin, LIMIT), else_=column + margin)
    connection.execute(update(invocation_counters).values(next=raised))
    pending = key_counters.c.next
    connection.execute(
        update(key_counters).values(next=case((pending > LIMIT - margin, LIMIT), else_=pending + margin))
    )
    meters = connection.scalar(select(func.count()).select_from(invocation_counters)) or 0
    instance, grants = secrets.token_hex(8), row.grants + 1
    connection.execute(update(restore_guard).values(instance=instance, grants=grants, at_us=now_us, restored=""))
    connection.info[_PENDING] = (instance, grants, now_us)
    return Accepted(meters, margin, age)


def load(path: Path) -> Marker | None:
    """The newest sound slot of a marker file; None: there is none, or both are broken."""
    try:
        octets = path.read_bytes()
    except FileNotFoundError:
        return None
    found = [_parsed(octets[start : start + _SLOT]) for start in (0, _SLOT)]
    return max((marker for marker in found if marker is not None), key=lambda marker: marker.grants, default=None)


def _why_restored(instance: str, grants: int, marker: Marker | None, place: Place) -> str:
    if marker is None:
        return f"{place.marker} is missing" if place.server else "the marker file beside it is missing"
    if marker.instance != instance:
        return "the marker file beside it is another store's"
    if marker.grants > grants:
        return f"the marker file beside it knows {marker.grants - grants} later grants of counters"
    if marker.machine != place.machine:
        return "it comes from another " + ("cluster" if place.server else "machine")
    if marker.inode != place.number:
        if place.server:
            return "it is another database than the one that its marker file belongs to"
        return "it is a copy of the file that the marker beside it belongs to"
    return ""


def _save(path: Path, marker: Marker) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        before = load(path)
        if before is not None and before.instance == marker.instance and before.grants >= marker.grants:
            return  # another process's later grant was faster
        body = "\n".join(map(str, marker)).encode()
        slot = f"{zlib.crc32(body):08x}\n".encode() + body
        fresh = before is None or before.instance != marker.instance
        for start in (0, _SLOT) if fresh else (_SLOT * (marker.grants % 2),):
            os.pwrite(descriptor, slot.ljust(_SLOT, b"\0"), start)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if fresh:
        sync(path.parent)


def _parsed(slot: bytes) -> Marker | None:
    check_sum, _, body = slot.rstrip(b"\0").partition(b"\n")
    if check_sum != f"{zlib.crc32(body):08x}".encode():
        return None
    try:
        instance, grants, at_us, inode, machine = body.decode("ascii").split("\n")
        return Marker(instance, int(grants), int(at_us), int(inode), machine)
    except ValueError:
        return None


def machine() -> str:
    """The number of the machine that runs this."""
    try:
        return _MACHINE.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
