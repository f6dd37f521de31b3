"""Meters that two have proved to be: nothing critical goes to them until a person has looked which one it is (R29).

The reactor finds them and the native gate holds them at once. What outlives the process is in the audit trail alone:
who may write rows takes no hold away, as a clearance counts with the signature of somebody who may approve.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, select

from ipss_headend.errors import NotAuthorised, RequestError
from ipss_headend.security import audit, principals
from ipss_headend.security.principals import HandedIn, Principal, Signature, Signer
from ipss_headend.store import quarantine
from ipss_headend.store.schema import audit as audit_table

KINDS = ("clone", "clear")
"""Records of the audit trail that say who is held."""


class Hold(NamedTuple):
    """A meter that is held."""

    meter_id: int
    system_title: bytes
    name: str
    why: str
    since_us: int
    record: int
    """The number of its record, which stands in the clearance as generation: one clearance for one finding."""


def octets(meter_id: int, title: bytes) -> bytes:
    """What is signed to clear a meter, purpose `clear`."""
    return b"clear\0" + meter_id.to_bytes(4, "big") + title


def held(connection: Connection, people: Sequence[Principal]) -> dict[int, Hold]:
    """Who is held, as the audit trail says."""
    found: dict[int, Hold] = {}
    columns = (audit_table.c.seq, audit_table.c.at_us, audit_table.c.kind, audit_table.c.subject, audit_table.c.detail)
    query = select(*columns).where(audit_table.c.kind.in_(KINDS)).order_by(audit_table.c.seq)
    for seq, at_us, kind, name, detail in connection.execute(query):
        said = json.loads(detail)
        meter = said["meter"]
        if kind == "clone":
            found.setdefault(meter, Hold(meter, bytes.fromhex(said["title"]), name, said["why"], at_us, seq))
        elif meter in found and _cleared(people, found[meter], *said["signature"]):
            del found[meter]
    return found


def find(connection: Connection, people: Sequence[Principal], meter_id: int, title: bytes, name: str, why: str) -> bool:
    """Hold a meter; false if it is held."""
    if meter_id in held(connection, people):
        return False
    audit.append(connection, "clone", "head-end", name, {"meter": meter_id, "title": title.hex(), "why": why})
    return True


def clear(
    connection: Connection, people: Sequence[Principal], meter_id: int, signer: Signer | HandedIn, reason: str
) -> int:
    """Let critical commands go to a meter again; what came from elsewhere meanwhile is thrown away. Returns how much.

    Raises:
        RequestError: it is not held.
        NotAuthorised: the signer may not approve, or has not signed this.
    """
    hold = held(connection, people).get(meter_id)
    if hold is None:
        raise RequestError("this meter is not held")
    who = signer.principal.name
    if not signer.principal.may_approve:
        raise NotAuthorised(f"{who} may not clear a meter; who may approve commands may")
    signature = signer.sign("clear", hold.record, octets(meter_id, hold.system_title))
    pushes = len(quarantine.pushes_of(connection, [hold.system_title])) if hold.system_title else 0
    if pushes:
        quarantine.forget(connection, hold.system_title)
    detail = {
        "meter": meter_id,
        "reason": reason,
        "found": hold.record,
        "pushes": pushes,
        "signature": [who, signature.octets.hex()],
    }
    audit.append(connection, "clear", who, hold.name, detail)
    return pushes


def _cleared(people: Sequence[Principal], hold: Hold, name: str, signature: str) -> bool:
    signed = Signature("clear", name, hold.record, bytes.fromhex(signature))
    who = principals.fits(people, signed, octets(hold.meter_id, hold.system_title))
    return who is not None and who.may_approve
