"""`audit.*`: who did what. For auditors whose scope is everything: records name meters of every group."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import Params, Result, method
from ipss_headend.rpc.faults import Fault
from ipss_headend.security import audit as trail
from ipss_headend.security import principals
from ipss_headend.security.permission import Right
from ipss_headend.store.schema import audit

LONGEST_PAGE = 1000


class Query(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which records."""

    from_ms: int | None = None
    to_ms: int | None = None
    kinds: list[str] = msgspec.field(default_factory=list)
    """Such as `propose`, `approve`, `sent`, `refused`; none: all."""
    principal: str | None = None
    subject: str | None = None
    """Such as an order's number."""
    cursor: int = 0
    """The number after which to go on."""
    limit: int = 100


class Record(msgspec.Struct, frozen=True):
    """Something that was done, or was about to be."""

    seq: int
    at_us: int
    """Microseconds: as hashed."""
    kind: str
    principal: str
    subject: str
    detail: dict[str, Any]
    hash: str


class Records(Result, frozen=True):
    """A page; `cursor` gives the next, None: that was the last."""

    records: list[Record]
    cursor: int | None


class Verdict(Result, frozen=True):
    """What verifying found."""

    ok: bool
    records: int
    checkpoints: int
    first_bad: int | None
    """The first record that is not what was written."""
    problem: str | None
    public_key: str
    """With which the checkpoints were signed."""


@method("audit.query", Right.AUDIT, example={"kinds": ["refused"], "limit": 10})
async def query(call: Call, params: Query) -> Records:
    """Records of the audit trail, in their order."""
    _everything(call)
    limit = min(max(params.limit, 1), LONGEST_PAGE)
    selected = select(audit).where(audit.c.seq > params.cursor).order_by(audit.c.seq).limit(limit + 1)
    if params.kinds:
        selected = selected.where(audit.c.kind.in_(params.kinds[:LONGEST_PAGE]))
    if params.from_ms is not None:
        selected = selected.where(audit.c.at_us >= params.from_ms * 1000)
    if params.to_ms is not None:
        selected = selected.where(audit.c.at_us < params.to_ms * 1000)
    if params.principal is not None:
        selected = selected.where(audit.c.principal == params.principal)
    if params.subject is not None:
        selected = selected.where(audit.c.subject == params.subject)

    def read(connection: Connection) -> list[trail.Record]:
        return [trail.Record(*row) for row in connection.execute(selected)]

    found = await call.services.store.read(read)
    return Records(
        records=[Record(*one[:5], detail=json.loads(one.detail), hash=one.hash.hex()) for one in found[:limit]],
        cursor=found[limit - 1].seq if len(found) > limit else None,
    )


@method("audit.verify", Right.AUDIT, example={})
async def verify(call: Call, params: Params) -> Verdict:
    """Compare every record with the chain, and the chain with the signed checkpoints of the second place."""
    _everything(call)
    settings = call.services.config.audit

    def read(connection: Connection) -> Verdict:
        copies = trail.load_checkpoints(settings.checkpoints)
        key = principals.public_key_of(principals.load_key_file(settings.key_file))
        found = trail.verify(trail.records(connection), copies, key)
        return Verdict(
            ok=found.first_bad is None,
            records=found.records,
            checkpoints=found.checkpoints,
            first_bad=found.first_bad,
            problem=found.problem or None,
            public_key=key.hex(),
        )

    return await call.services.store.read(read)


def _everything(call: Call) -> None:
    if not call.principal.everywhere(Right.AUDIT):
        raise Fault("E_DENIED", "the audit trail is of all groups of meters; your scope is not")
