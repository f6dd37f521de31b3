"""The audit trail: who did what, hash-chained, written in the transaction of the effect, so never after it (R40).

Each record's hash covers the one before. Every 1,000 records or 60 s the newest hash is signed (Ed25519) and appended
to a file in a second place: from then on not even whoever may write to the store and recompute the chain alters what
is older. No record holds a key or a secret. Where no record can be written, the transaction fails and nothing is done.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgpack
from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa
from sqlalchemy import Connection, func, insert, select

from ipss_headend.errors import ConfigError, HeadEndError, words
from ipss_headend.security import principals
from ipss_headend.store.database import now_us
from ipss_headend.store.schema import audit, audit_checkpoints
from ipss_headend.store.statements import rows

FIRST_HASH = sha256(b"ipss-headend audit, form 1").digest()
"""What the first record's hash covers in place of one before it."""

CHECKPOINT_RECORDS = 1_000
CHECKPOINT_S = 60.0
PAGE = 1_000
LONGEST_LINE = 4_096
"""More octets than a checkpoint's line has."""


class AuditBroken(HeadEndError):
    """The audit trail is not what was written."""

    exit_status = 5


class Record(NamedTuple):
    """One thing that was done, or is about to be."""

    seq: int
    """From 1, without a gap."""
    at_us: int
    kind: str
    principal: str
    subject: str
    detail: str
    """JSON."""
    hash: bytes


class Checkpoint(NamedTuple):
    """The chain's newest record at some moment, signed."""

    seq: int
    at_us: int
    hash: bytes
    signature: bytes

    def line(self) -> str:
        """As a line of the file in the second place."""
        shown = {"seq": self.seq, "at_us": self.at_us, "hash": self.hash.hex(), "signature": self.signature.hex()}
        return json.dumps(shown, separators=(",", ":")) + "\n"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verifying found."""

    records: int
    checkpoints: int
    first_bad: int | None
    """The first record that is not what was written; None: all are."""
    problem: str


def append(
    connection: Connection, kind: str, principal: str, subject: str, detail: Mapping[str, object] | None = None
) -> int:
    """Write a record in this transaction; returns its number. Needs a writing transaction, so that nobody else does."""
    last = rows(connection, _LAST)
    seq, before = (last[0][0] + 1, last[0][1]) if last else (1, FIRST_HASH)
    text = json.dumps(detail or {}, separators=(",", ":"), sort_keys=True)
    at_us = now_us()
    row = (seq, at_us, kind, principal, subject, text)
    connection.execute(
        insert(audit).values(
            seq=seq,
            at_us=at_us,
            kind=kind,
            principal=principal,
            subject=subject,
            detail=text,
            hash=chained(before, row),
        )
    )
    return seq


def chained(before: bytes, row: tuple[int, int, str, str, str, str]) -> bytes:
    """The hash of a record behind the record with hash `before`."""
    return sha256(before + msgpack.packb(row)).digest()


def records(connection: Connection, after: int = 0) -> Iterator[Record]:
    """The records behind this one, in order."""
    chosen = select(audit).where(audit.c.seq > after).order_by(audit.c.seq)
    found = connection.execute(chosen, execution_options={"yield_per": 5_000})
    return (Record(*row) for row in found)


def page(connection: Connection, after: int) -> list[Record]:
    """The next records behind this one."""
    return [
        Record(*row)
        for row in connection.execute(select(audit).where(audit.c.seq > after).order_by(audit.c.seq).limit(PAGE))
    ]


def follow(found: Iterable[Record], before: bytes, seq: int, until: Checkpoint) -> tuple[bytes, int, str]:
    """Compare a page of the chain that goes on behind record `seq` with hash `before`, up to a signed checkpoint.

    Returns hash and number of the last record that was compared, and what is wrong; empty: nothing.
    """
    first = seq
    for record in found:
        if record.seq != seq + 1:
            return before, seq, f"record {seq + 1} is missing; {record.seq} is in its place"
        if record.hash != chained(before, record[:6]):
            return before, seq, f"record {record.seq}, or its place in the chain, was altered"
        before, seq = record.hash, record.seq
        if seq == until.seq:
            return before, seq, "" if before == until.hash else f"record {seq} is not the one that was signed"
    return before, seq, f"records {seq + 1} to {until.seq} are missing" if seq == first else ""


def newest(connection: Connection) -> tuple[int, int]:
    """The number of the newest record and the highest time stamp of all; 0, 0 without any."""
    seq, at_us = rows(connection, "SELECT MAX(seq), MAX(at_us) FROM audit")[0]
    return seq or 0, at_us or 0


def verify(
    found: Iterable[Record], checkpoints: Iterable[Checkpoint], public_key: bytes, since: Checkpoint | None = None
) -> Verdict:
    """Compare every record with the chain and the chain with the checkpoints, which come from the second place.

    `since`: the records from this checkpoint's on; its signature is checked, too. Finds an altered, swapped, inserted
    or missing record at the first one that is wrong; a cut tail from the first checkpoint behind it.
    """
    wanted: dict[int, Checkpoint] = {}
    signed = 0
    for checkpoint in checkpoints if since is None else (since, *checkpoints):
        if not signature_fits(checkpoint, public_key):
            return Verdict(
                0, signed, checkpoint.seq, f"the checkpoint at record {checkpoint.seq} has a wrong signature"
            )
        if wanted.setdefault(checkpoint.seq, checkpoint).hash != checkpoint.hash:
            return Verdict(0, signed, checkpoint.seq, f"two checkpoints at record {checkpoint.seq} differ")
        signed += 1
    before, seq, count = FIRST_HASH, 0, 0
    found = iter(found)
    if since is not None:
        first = next(found, None)
        if first is None or first.seq != since.seq or first.hash != since.hash:
            return Verdict(0, signed, since.seq, f"record {since.seq} is not the one that was signed, or is cut off")
        before, seq, count = since.hash, since.seq, 1
    for record in found:
        seq += 1
        count += 1
        if record.seq != seq:
            return Verdict(count, signed, seq, f"record {seq} is missing; {record.seq} is in its place")
        if record.hash != chained(before, record[:6]):
            return Verdict(count, signed, seq, f"record {seq}, or its place in the chain, was altered")
        known = wanted.get(seq)
        if known is not None and known.hash != record.hash:
            return Verdict(count, signed, seq, f"record {seq} is not the one that was signed: the chain was rewritten")
        before = record.hash
    last = max(wanted, default=0)
    if last > seq:
        return Verdict(count, signed, seq + 1, f"records {seq + 1} to {last} are cut off: a checkpoint knows them")
    return Verdict(count, signed, None, "")


def signature_fits(checkpoint: Checkpoint, public_key: bytes) -> bool:
    """Whether a checkpoint was signed with this key."""
    try:
        eddsa.new(eddsa.import_public_key(public_key), "rfc8032").verify(_signed(checkpoint), checkpoint.signature)
    except ValueError:
        return False
    return True


class Notary:
    """Signs checkpoints and copies them to the second place."""

    def __init__(self, key_file: Path, copies: Path) -> None:
        """Take the signing key, made on first use.

        Raises:
            ConfigError: the key or the file of copies cannot be used.
        """
        if not key_file.exists():
            principals.create_key_file(key_file)
        self._key: ECC.EccKey = principals.load_key_file(key_file)
        self.copies = copies
        try:
            copies.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(copies, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
        except OSError as error:
            raise ConfigError(f"audit.checkpoints: {copies}: {error.strerror or error}") from error

    @property
    def public_key(self) -> bytes:
        """What `audit verify` needs."""
        return principals.public_key_of(self._key)

    def sign(self, connection: Connection) -> Checkpoint | None:
        """A checkpoint of the newest record, in the store; None if it has one already. Then `copy` it."""
        last = rows(connection, _LAST)
        if not last or connection.scalar(select(func.max(audit_checkpoints.c.seq))) == last[0][0]:
            return None
        bare = Checkpoint(last[0][0], now_us(), last[0][1], b"")
        checkpoint = bare._replace(signature=eddsa.new(self._key, "rfc8032").sign(_signed(bare)))
        connection.execute(insert(audit_checkpoints).values(checkpoint._asdict()))
        return checkpoint

    def copy(self, checkpoint: Checkpoint) -> None:
        """Append it to the file in the second place, synced. What a crash has torn of a last line gives way.

        Raises:
            OSError: it could not be written.
        """
        descriptor = os.open(self.copies, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            end = os.fstat(descriptor).st_size
            tail = os.pread(descriptor, LONGEST_LINE, max(end - LONGEST_LINE, 0))
            if not tail.endswith(b"\n") and tail:
                os.ftruncate(descriptor, end - len(tail) + tail.rfind(b"\n") + 1)
            octets = checkpoint.line().encode()
            if os.write(descriptor, octets) != len(octets):
                raise OSError(errno.ENOSPC, "a part of the checkpoint was written")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def load_checkpoints(path: Path) -> list[Checkpoint]:
    """The copies from the second place. A last line that a crash has torn is left out.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {words(error)}; expected the audit trail's checkpoints") from error
    lines = text.split("\n")
    lines.pop()  # what follows the last line's end: nothing, or what a crash has torn
    found = []
    for number, line in enumerate(lines, 1):
        try:
            shown = json.loads(line)
            found.append(
                Checkpoint(
                    int(shown["seq"]),
                    int(shown["at_us"]),
                    bytes.fromhex(shown["hash"]),
                    bytes.fromhex(shown["signature"]),
                )
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}: line {number} is no checkpoint") from error
    return found


def was_served(connection: Connection) -> bool:
    """Whether a head-end with a notary has run with this store: its first act is a record, its checkpoints others."""
    started = connection.execute(select(audit.c.seq).where(audit.c.kind == "start").limit(1)).first()
    return started is not None or bool(stored_checkpoints(connection))


def stored_checkpoints(connection: Connection) -> list[Checkpoint]:
    """The checkpoints that stand in the store itself."""
    return [Checkpoint(*row) for row in connection.execute(select(audit_checkpoints).order_by(audit_checkpoints.c.seq))]


def _signed(checkpoint: Checkpoint) -> bytes:
    numbers = checkpoint.seq.to_bytes(8, "big") + checkpoint.at_us.to_bytes(8, "big")
    return b"ipss-headend audit checkpoint, form 1\0" + numbers + checkpoint.hash


_LAST = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1"
