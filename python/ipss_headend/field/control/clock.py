"""Which wall clock the gate believes, and how two people tell it that one was wrong (R42).

The gate lets nothing critical out while the wall clock is behind the newest record of the audit trail. A clock that ran
far ahead for a moment leaves such a record, and the trail is not altered: so two people sign that the records up to one
of them are no measure of time. What they sign names that record and the time that is right, so that it excuses nothing
else, whoever writes it into the trail again. Whatever waits to be sent ends there: nobody gains time by it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Connection, func, select, update

from ipss_headend.errors import NotAuthorised, RequestError
from ipss_headend.field.control import machine
from ipss_headend.field.control.machine import State, Step
from ipss_headend.security import audit, principals
from ipss_headend.security.principals import HandedIn, Principal, Signature, Signer
from ipss_headend.security.rotation import TRIES
from ipss_headend.store import commands as rows
from ipss_headend.store.commands import ControlRow
from ipss_headend.store.database import now_us
from ipss_headend.store.schema import audit as audit_table
from ipss_headend.store.schema import pending_keys

ASKED = "clock-asked"
ACCEPTED = "clock-accepted"

SLACK_US = 5_000_000
"""How far two clocks of the house may differ without doubt; the gate's, too."""
TOGETHER_US = 3_600_000_000
"""The second person comes within this, or the first one says it anew."""


class Doubt(NamedTuple):
    """The wall clock is behind what was seen already."""

    newest_us: int
    """What the audit trail has seen."""
    now_us: int

    def __str__(self) -> str:
        return (
            f"the wall clock says {_shown(self.now_us)} and the audit trail has seen {_shown(self.newest_us)}: "
            "nothing critical leaves, at the latest from a restart on. Set the clock; if it is right and was ahead, "
            "two people say so with `ipss-headend control accept-clock`"
        )


class Statement(NamedTuple):
    """What both people sign."""

    record: int
    """The newest record when it was asked for: this one and those before it are no measure of time."""
    right_us: int
    """What time it was then."""

    def octets(self) -> bytes:
        """Signed with purpose `clock`, the record's number as generation."""
        return b"clock\0" + self.right_us.to_bytes(8, "big")


def believed_us(connection: Connection, people: Sequence[Principal]) -> int:
    """What time it is at least, as the audit trail says. 0: it is empty."""
    said = accepted(connection, people)
    query = select(func.max(audit_table.c.at_us))
    if said is None:
        return connection.scalar(query) or 0
    return max(said.right_us, connection.scalar(query.where(audit_table.c.seq > said.record)) or 0)


def doubt(connection: Connection, people: Sequence[Principal], moment_us: int) -> Doubt | None:
    """Whether the wall clock is behind what is believed, at this moment of it."""
    newest_us = believed_us(connection, people)
    return Doubt(newest_us, moment_us) if moment_us < newest_us - SLACK_US else None


def accept(
    connection: Connection, people: Sequence[Principal], signer: Signer | HandedIn, reason: str
) -> tuple[Statement, int] | None:
    """Say that the wall clock is right now and was ahead before; None: a second person has to agree.

    By the second person all commands that wait end, approvals of before count no more, and tries of keys that are in
    doubt are counted from now. Returns what was signed and how many commands ended. Needs a writing transaction.

    Raises:
        RequestError: the clock is not behind the audit trail.
        NotAuthorised: the signer may not ask for or approve this, has asked for it already, or has not signed this.
    """
    moment_us, who = now_us(), signer.principal.name
    found = doubt(connection, people, moment_us)
    if found is None:
        raise RequestError("the wall clock is not behind the audit trail: there is nothing to accept")
    asked = _asked(connection, moment_us)
    if asked is None:
        if not signer.principal.may_request and not signer.principal.may_approve:
            raise NotAuthorised(f"{who} may not ask for this")
        statement = Statement(audit.newest(connection)[0], moment_us)
        detail = {**_said(statement, found, reason), "signatures": [_signed(signer, statement)]}
        audit.append(connection, ASKED, who, "control", detail)
        return None
    statement, first = asked
    both = [first, _signed(signer, statement)]
    if not _agreed(people, statement, both):
        raise NotAuthorised(f"{first[0]} asked for it; a second person who may approve has to agree")
    ended = rows.move_all(connection, machine.sources(Step.EXPIRE), State.EXPIRED, "the clock was wrong: ask anew")
    state = rows.control(connection)
    rows.set_control(connection, ControlRow(state.stopped, state.generation + 1, state.budget_us))
    ahead = pending_keys.c.window_us > moment_us
    connection.execute(update(pending_keys).where(ahead).values(window_us=moment_us, tries=TRIES))
    detail = {**_said(statement, found, reason), "signatures": both, "ended": ended, "generation": state.generation + 1}
    audit.append(connection, ACCEPTED, who, "control", detail)
    return statement, ended


def _said(statement: Statement, found: Doubt, reason: str) -> dict[str, object]:
    return {
        "record": statement.record,
        "right_us": statement.right_us,
        "newest_us": found.newest_us,
        "reason": reason,
    }


def _signed(signer: Signer | HandedIn, statement: Statement) -> list[str]:
    signature = signer.sign("clock", statement.record, statement.octets())
    return [signer.principal.name, signature.octets.hex()]


def _agreed(people: Sequence[Principal], statement: Statement, said: Sequence[Sequence[str]]) -> bool:
    signed = [Signature("clock", name, statement.record, bytes.fromhex(octets)) for name, octets in said]
    who = [principals.fits(people, signature, statement.octets()) for signature in signed]
    if len(who) != 2 or who[0] is None or who[1] is None:
        return False
    return who[0].public_key != who[1].public_key and who[1].may_approve


def _asked(connection: Connection, moment_us: int) -> tuple[Statement, list[str]] | None:
    # The newest record that asks, if nobody has agreed to it and it is fresh.
    row = _newest(connection, ASKED)
    if row is None:
        return None
    said = json.loads(row)
    statement = Statement(said["record"], said["right_us"])
    agreed = _newest(connection, ACCEPTED)
    if agreed is not None and json.loads(agreed)["record"] >= statement.record:
        return None
    if not 0 <= moment_us - statement.right_us <= TOGETHER_US:
        return None
    return statement, list(said["signatures"][0])


def accepted(connection: Connection, people: Sequence[Principal]) -> Statement | None:
    """What two people have said of the clock; None: nobody has.

    Of several the one that reaches furthest: one that is written again excuses what it did, and no more.
    """
    query = select(audit_table.c.seq, audit_table.c.detail).where(audit_table.c.kind == ACCEPTED)
    found: Statement | None = None
    for seq, detail in connection.execute(query):
        said = json.loads(detail)
        statement = Statement(said["record"], said["right_us"])
        further = statement.record < seq and (found is None or statement.record > found.record)
        if further and _agreed(people, statement, said["signatures"]):
            found = statement
    return found


def _newest(connection: Connection, kind: str) -> str | None:
    chosen = select(audit_table.c.detail).where(audit_table.c.kind == kind)
    return connection.scalar(chosen.order_by(audit_table.c.seq.desc()).limit(1))


def _shown(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="seconds")
