"""What the audit trail alone says, whatever the rows beside it say now: who may write rows sets none of it back.

The trail is only as good as what was compared of it: the newest part before anything may leave, the rest beside the
work, page by page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import trio
from sqlalchemy import Connection, select

from ipss_headend.field.control import orders
from ipss_headend.field.control.desk import released_by_two
from ipss_headend.log import logger
from ipss_headend.security import audit
from ipss_headend.security.audit import Checkpoint
from ipss_headend.security.principals import Principal
from ipss_headend.store import Store
from ipss_headend.store import commands as rows
from ipss_headend.store.schema import audit as audit_table

LOOK_BACK_US = int((orders.LONGEST_CHANGE_S + orders.LONGEST_LIFE_S) * 1e6)
"""Records younger than this are compared before anything may leave: what was sent of an order that still lives."""

PAUSE_S = 0.05
"""Between two pages of older ones."""


def start(copies: Sequence[Checkpoint], now_us: int) -> Checkpoint | None:
    """The checkpoint from which on a start compares; None: from the first record on."""
    return next((one for one in reversed(copies) if one.at_us <= now_us - LOOK_BACK_US), None)


async def look_back(store: Store, until: Checkpoint | None, stop: Callable[[str], None]) -> None:
    """Compare what the start did not: who is protected or held is known by the trail alone, however old.

    Where it is not what was written, `stop` is called with who says so.
    """
    before, seq = audit.FIRST_HASH, 0
    while until is not None and seq < until.seq:
        page = await store.read(lambda connection, after=seq: audit.page(connection, after))  # type: ignore[misc]
        before, seq, problem = audit.follow(page, before, seq, until)
        if problem:
            remedy = "ipss-headend audit verify"
            logger("control").error("the audit trail is not what was written", why=problem, remedy=remedy)
            stop("audit trail")
            return
        await trio.sleep(PAUSE_S)


def switch_ever(connection: Connection) -> rows.ControlRow:
    """The stop switch as the row and the audit trail say it together: rows may be set back, the trail may not."""
    state = rows.control(connection)
    query = select(audit_table.c.kind, audit_table.c.detail).where(
        audit_table.c.kind.in_(("stop", "resume", "clock-accepted"))
    )
    said = connection.execute(query.order_by(audit_table.c.seq)).all()
    generations = [json.loads(detail)["generation"] for kind, detail in said if kind != "stop"]
    switched = [kind for kind, _ in said if kind != "clock-accepted"]
    stopped = state.stopped or switched[-1:] == ["stop"]
    return state._replace(stopped=stopped, generation=max(generations, default=state.generation))


def sent_ever(connection: Connection) -> list[bytes]:
    """Every command that the audit trail has seen sent: rows may be set back, it may not."""
    found = connection.execute(select(audit_table.c.detail).where(audit_table.c.kind == "sent"))
    return [bytes.fromhex(json.loads(detail)["command"].replace("-", "")) for (detail,) in found]


def protected_ever(
    connection: Connection, people: Sequence[Principal]
) -> tuple[int, list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """A version of the list, who is on it, and who was taken off it by two people whose signatures fit."""
    listed = {(row.meter_id, row.system_title) for row in rows.protected_meters(connection)}
    said: dict[tuple[int, bytes], int] = {}
    kinds = ("protect", "unprotect")
    query = select(audit_table.c.kind, audit_table.c.detail).where(audit_table.c.kind.in_(kinds))
    for kind, detail in connection.execute(query.order_by(audit_table.c.seq)):
        shown = json.loads(detail)
        meter = (shown["meter"], bytes.fromhex(shown["title"]))
        if kind == "protect":
            said[meter] = shown["since"]
        elif said.get(meter) and released_by_two(people, *meter, said[meter], shown["signatures"]):
            said[meter] = 0
    listed |= {meter for meter, since in said.items() if since}
    released = [meter for meter, since in said.items() if not since and meter not in listed]
    return rows.protected_version(connection), sorted(listed), released
