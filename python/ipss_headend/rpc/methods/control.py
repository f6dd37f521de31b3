"""`control.*`: critical commands. People sign with keys and on machines of their own; the head-end signs for nobody.

`control.preview` gives an order's canonical octets (docs/commands.md); `control.switch`, `limit`, `tariff` and `keys`
take them back as a signature; a second person takes the octets from `control.order` and hands a signature to
`control.approve`. Who may do what is checked by the desk and again by the native gate: nothing here can let a command
through. What becomes of a command is told by `control.get` and by the stream `commands` (`control_status.py`).
"""

from __future__ import annotations

from sqlalchemy import Connection

from ipss_headend.field.control import orders
from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import method
from ipss_headend.rpc.faults import Fault
from ipss_headend.rpc.methods.control_shapes import (
    Approval,
    Count,
    Draft,
    Keys,
    Limit,
    OrderChanged,
    OrderNamed,
    Preview,
    Signed,
    Switch,
    Switched,
    Tariff,
    ToSign,
    Wanted,
)
from ipss_headend.rpc.methods.control_tools import (
    LONGEST_PAGE,
    changed,
    desk_of,
    made,
    octets_of,
    preview_of,
    principal_of,
    whole_order,
)
from ipss_headend.security.permission import Right
from ipss_headend.security.principals import HandedIn, Signature
from ipss_headend.store import commands as rows


@method("control.preview", Right.PROPOSE)
async def preview(call: Call, params: Wanted) -> Draft:
    """What an order would do, and the octets that its requester signs for control.switch, limit, tariff or keys.

    Stores nothing. An inverter is asked how it is laid out. The same `order` and `created_ms` give the same octets.
    """
    desk, who = desk_of(call), principal_of(call, params.signer)
    wanted = await made(call, params, who.name)
    shown = await call.services.store.read(lambda connection: preview_of(desk, connection, wanted))
    return Draft(
        order=orders.shown(wanted.order_id),
        created_ms=wanted.created_us // 1000,
        signer=who.name,
        octets=wanted.octets().hex(),
        preview=shown,
    )


@method("control.switch", Right.PROPOSE)
async def switch(call: Call, params: Switch) -> Switched:
    """Ask for supply to be switched, with the requester's signature of control.preview's octets. It waits for approval.

    The same order again is the same order, whatever became of it.
    """
    return await _ask(call, params)


@method("control.limit", Right.PROPOSE)
async def limit(call: Call, params: Limit) -> Switched:
    """Ask for a limit, or for its end, with the requester's signature of control.preview's octets."""
    return await _ask(call, params)


@method("control.tariff", Right.PROPOSE)
async def tariff(call: Call, params: Tariff) -> Switched:
    """Ask for the passive calendar to become the active one, with a signature of control.preview's octets."""
    return await _ask(call, params)


@method("control.keys", Right.PROPOSE)
async def keys(call: Call, params: Keys) -> Switched:
    """Ask for new keys of meters, with the requester's signature of control.preview's octets.

    They are made here for each meter when its command leaves, and go to it under its master key; nobody sees them.
    """
    return await _ask(call, params)


async def _ask(call: Call, params: Switch | Limit | Tariff | Keys) -> Switched:
    desk, who = desk_of(call), principal_of(call, params.signer)
    if not params.dry_run and (params.order is None or params.created_ms is None):
        raise Fault("E_PARAMS", "order and created_ms are needed, as control.preview gave them")
    order = await made(call, params, who.name)
    signature = Signature("propose", who.name, 0, b"" if params.dry_run else octets_of(params.signature))
    names = [call.services.field.meters[target.meter_id].name for target in order.targets]
    if (why := await call.services.judge.asked(who.name, order.kind, names)) is not None:
        raise Fault("E_DENIED", f"order refused: {why}")

    def ask(connection: Connection) -> Preview:
        shown = preview_of(desk, connection, order)
        if not params.dry_run:
            desk.propose(connection, order.octets(), signature)
        return shown

    shown = await (call.services.store.read(ask) if params.dry_run else changed(call, ask))
    meters = call.services.field.meters
    return Switched(
        order=orders.shown(order.order_id),
        commands={
            meters[target.meter_id].name: orders.shown(target.command_id) for target in order.targets[:LONGEST_PAGE]
        },
        approvers=shown.approvers,
        preview=shown,
    )


@method("control.order", Right.VIEW)
async def order(call: Call, params: OrderNamed) -> ToSign:
    """What somebody who approves an order signs, who has signed it, and what it would do now."""
    desk = desk_of(call)

    def read(connection: Connection) -> ToSign:
        row, found = whole_order(call, connection, params.order)
        approved = desk.approved(connection, found, row.octets)
        return ToSign(
            order=orders.shown(row.order_id),
            kind=found.kind,
            requester=found.requester,
            reason=found.reason,
            octets=row.octets.hex(),
            generation=rows.control(connection).generation,
            approved_by=list(approved.approvers),
            needed=approved.needed,
            preview=preview_of(desk, connection, found),
        )

    return await call.services.store.read(read)


@method("control.approve", Right.APPROVE)
async def approve(call: Call, params: Signed) -> Approval:
    """Approve what somebody else asked for, by a signature of the octets of control.order, purpose `approve`."""
    desk, handed = desk_of(call), HandedIn(principal_of(call, params.signer), octets_of(params.signature))

    def sign(connection: Connection) -> Approval:
        row, _ = whole_order(call, connection, params.order)
        approved = desk.approve(connection, row.order_id, handed)
        return Approval(
            order=orders.shown(row.order_id),
            approved_by=list(approved.approvers),
            needed=approved.needed,
            complete=approved.complete,
        )

    return await changed(call, sign)


@method("control.release", Right.APPROVE)
async def release(call: Call, params: Signed) -> Count:
    """End the quarantine of an order that was over budget, by a second person's signature, purpose `unquarantine`."""
    desk, handed = desk_of(call), HandedIn(principal_of(call, params.signer), octets_of(params.signature))

    def sign(connection: Connection) -> Count:
        row, _ = whole_order(call, connection, params.order)
        return Count(commands=desk.end_quarantine(connection, row.order_id, handed))

    return await changed(call, sign)


@method("control.cancel", Right.PROPOSE)
async def cancel(call: Call, params: OrderChanged) -> Count:
    """Take back what has not been sent of an order. Without the right `stop`, of one's own only."""
    desk, name = desk_of(call), call.principal.name

    def take_back(connection: Connection) -> Count:
        row, found = whole_order(call, connection, params.order)
        if found.requester != name and not call.principal.may(Right.STOP):
            raise Fault("E_DENIED", f"order {params.order} was asked for by {found.requester}, not by {name}")
        return Count(commands=desk.cancel(connection, row.order_id, name))

    return await changed(call, take_back)
