"""`control.*`: critical commands. People sign with keys and on machines of their own; the head-end signs for nobody.

`control.preview` gives an order's canonical octets (docs/commands.md), `control.switch` takes them back as a signature;
a second person takes the octets from `control.order` and hands a signature to `control.approve`. Who may do what is
checked by the desk and again by the native gate: nothing here can let a command through. What becomes of a command is
told by `control.get` and by the stream `commands`.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from typing import Literal, TypeVar

import msgspec
import trio
from sqlalchemy import Connection

from ipss_headend import _core
from ipss_headend.errors import HeadEndError
from ipss_headend.field.control import machine, orders
from ipss_headend.field.control.desk import Desk, Refused, kept
from ipss_headend.field.control.orders import Order
from ipss_headend.field.control.readback import ReadBack
from ipss_headend.field.control.task import touch
from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import Change, Params, Result, method
from ipss_headend.rpc.faults import Fault
from ipss_headend.security import principals
from ipss_headend.security.permission import Right
from ipss_headend.security.principals import HandedIn, Signature
from ipss_headend.store import commands as rows
from ipss_headend.store.commands import OrderRow
from ipss_headend.store.database import now_us

T = TypeVar("T")

LONGEST_PAGE = 1000
MOST_ASKED = 100
"""Meters of one `control.state`."""
ASKED_AT_ONCE = 16


class Wanted(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What supply is to be."""

    targets: list[str]
    """Meters by name, and `group:NAME` for all of a group."""
    to: Literal["on", "off", "arm"]
    """`arm`: ready, and the customer closes the switch."""
    reason: str
    """Why; stands in the audit trail."""
    not_after_s: int | None = None
    """How long it may wait; None: as configured."""
    signer: str = ""
    """The `[[principals]]` of the configuration who signs. Left out: the caller's own, and it has to be, unless the
    call comes by the unix socket."""
    order: str | None = None
    """The order's number, a UUID; None: a new one is made."""
    created_ms: int | None = None
    """When the order was made; None: now."""


class Preview(msgspec.Struct, frozen=True):
    """What an order would do."""

    kind: str
    meters: int
    groups: dict[str, int]
    protected: list[str]
    """Never cut: an order with one of these is refused."""
    over_budget: int
    """How many would be quarantined."""
    approvers: int
    """How many other people must approve."""
    spread_s: int
    not_after_ms: int


class Draft(Result, frozen=True):
    """An order that nobody has asked for yet, and what it would do."""

    order: str
    created_ms: int
    signer: str
    octets: str
    """The canonical octets that `signer` signs, purpose `propose`, generation 0, in hexadecimal digits."""
    preview: Preview


class Switch(Wanted, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An order, signed: `order` and `created_ms` as control.preview gave them."""

    key: str
    """Idempotency key, as `Change` has it; a struct has one base."""
    signature: str = ""
    """Ed25519, hexadecimal digits."""
    dry_run: bool = False
    """Only say what it would do; the signature is not looked at."""


class Switched(Result, frozen=True):
    """An order that waits for approval."""

    order: str
    commands: dict[str, str]
    """The command of each meter, for at most 1000; control.get has all."""
    approvers: int
    preview: Preview


class OrderNamed(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An order."""

    order: str


class ToSign(Result, frozen=True):
    """What people sign, and what it would do."""

    order: str
    kind: str
    requester: str
    reason: str
    octets: str
    """Canonical octets, hexadecimal digits."""
    generation: int
    """Of the stop switch: stands in each approval."""
    approved_by: list[str]
    needed: int
    preview: Preview


class Signed(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An order, and what somebody says of it."""

    order: str
    signature: str
    """Ed25519, hexadecimal digits, made with the octets and the generation of control.order."""
    signer: str = ""


class Approval(Result, frozen=True):
    """How far it is."""

    order: str
    approved_by: list[str]
    needed: int
    complete: bool
    """It goes now."""


class OrderChanged(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An order."""

    order: str


class Count(Result, frozen=True):
    """How many commands it was about."""

    commands: int


class Asked(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An order, or one command."""

    order: str | None = None
    command: str | None = None
    cursor: int = 0
    """The number after which to go on."""
    limit: int = 1000


class Command(msgspec.Struct, frozen=True):
    """One meter's part of an order."""

    command: str
    point: str | None
    state: str
    """`proposed`, `approved`, `released`, `sent`, `confirmed`, `failed`, `unknown`, `expired` or `cancelled`."""
    detail: str
    changed_ms: int
    quarantined: bool
    alarmed: bool


class OrderTold(msgspec.Struct, frozen=True):
    """An order, as far as the caller may see its meters."""

    order: str
    kind: str
    requester: str
    reason: str
    created_ms: int
    not_after_ms: int
    states: dict[str, int]
    """How many commands are in each state."""


class Whole(Result, frozen=True):
    """An order with a page of its commands; `cursor` gives the next, None: that was the last."""

    order: OrderTold
    approved_by: list[str]
    commands: list[Command]
    cursor: int | None


class Query(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A page."""

    cursor: str = ""
    limit: int = 100


class Orders(Result, frozen=True):
    """The newest first; `cursor` gives the next page, None: that was the last."""

    orders: list[OrderTold]
    cursor: str | None


class Meters(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which meters."""

    targets: list[str]


class Output(msgspec.Struct, frozen=True):
    """A meter's supply."""

    point: str
    output: bool | None
    """Whether it has supply; None: not told."""
    control_state: int | None
    """0 disconnected, 1 connected, 2 ready for reconnection."""
    control_mode: int | None
    error: str | None
    """Why it could not be read."""
    open: list[Command]
    """What of it is under way."""


class Outputs(Result, frozen=True):
    """In the order of the names."""

    meters: list[Output]


class Halt(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Stop. Takes no key: it works while the store does not, and a repeat changes nothing."""

    reason: str


class Halted(Result, frozen=True):
    """It is stopped."""

    held: int
    """Commands whose approvals are void now."""
    generation: int


class Resume(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Take the stop switch back."""

    signature: str
    """Of the octets `ipss-headend resume, form 1`, purpose `resume`, with the generation of control.status."""
    signer: str = ""


class Status(Result, frozen=True):
    """The stop switch, and what is under way."""

    stopped: bool
    generation: int
    commands: dict[str, int]
    """How many are open, by state."""


@method("control.preview", Right.PROPOSE)
async def preview(call: Call, params: Wanted) -> Draft:
    """What an order to switch supply would do, and the octets that its requester signs for control.switch.

    Stores nothing. The same `order` and `created_ms` give the same octets.
    """
    desk, who = _desk(call), _principal(call, params.signer)
    made = _made(call, params, who.name)
    shown = await call.services.store.read(lambda connection: _preview(desk, connection, made))
    return Draft(
        order=orders.shown(made.order_id),
        created_ms=made.created_us // 1000,
        signer=who.name,
        octets=made.octets().hex(),
        preview=shown,
    )


@method("control.switch", Right.PROPOSE)
async def switch(call: Call, params: Switch) -> Switched:
    """Ask for supply to be switched, with the requester's signature of control.preview's octets. It waits for approval.

    The same order again is the same order, whatever became of it.
    """
    desk, who = _desk(call), _principal(call, params.signer)
    if not params.dry_run and (params.order is None or params.created_ms is None):
        raise Fault("E_PARAMS", "control.switch: order and created_ms are needed, as control.preview gave them")
    made = _made(call, params, who.name)
    signature = Signature("propose", who.name, 0, b"" if params.dry_run else _octets(params.signature))
    names = [call.services.field.meters[target.meter_id].name for target in made.targets]
    if (why := await call.services.judge.asked(who.name, made.kind, names)) is not None:
        raise Fault("E_DENIED", f"control.switch: {why}")

    def ask(connection: Connection) -> Preview:
        shown = _preview(desk, connection, made)
        if not params.dry_run:
            desk.propose(connection, made.octets(), signature)
        return shown

    shown = await (call.services.store.read(ask) if params.dry_run else _changed(call, ask))
    meters = call.services.field.meters
    return Switched(
        order=orders.shown(made.order_id),
        commands={
            meters[target.meter_id].name: orders.shown(target.command_id) for target in made.targets[:LONGEST_PAGE]
        },
        approvers=shown.approvers,
        preview=shown,
    )


@method("control.order", Right.VIEW)
async def order(call: Call, params: OrderNamed) -> ToSign:
    """What somebody who approves an order signs, who has signed it, and what it would do now."""
    desk = _desk(call)

    def read(connection: Connection) -> ToSign:
        row, made = _whole(call, connection, params.order)
        approved = desk.approved(connection, made, row.octets)
        return ToSign(
            order=orders.shown(row.order_id),
            kind=made.kind,
            requester=made.requester,
            reason=made.reason,
            octets=row.octets.hex(),
            generation=rows.control(connection).generation,
            approved_by=list(approved.approvers),
            needed=approved.needed,
            preview=_preview(desk, connection, made),
        )

    return await call.services.store.read(read)


@method("control.approve", Right.APPROVE)
async def approve(call: Call, params: Signed) -> Approval:
    """Approve what somebody else asked for, by a signature of the octets of control.order, purpose `approve`."""
    desk, handed = _desk(call), HandedIn(_principal(call, params.signer), _octets(params.signature))

    def sign(connection: Connection) -> Approval:
        row, _ = _whole(call, connection, params.order)
        approved = desk.approve(connection, row.order_id, handed)
        return Approval(
            order=orders.shown(row.order_id),
            approved_by=list(approved.approvers),
            needed=approved.needed,
            complete=approved.complete,
        )

    return await _changed(call, sign)


@method("control.release", Right.APPROVE)
async def release(call: Call, params: Signed) -> Count:
    """End the quarantine of an order that was over budget, by a second person's signature, purpose `unquarantine`."""
    desk, handed = _desk(call), HandedIn(_principal(call, params.signer), _octets(params.signature))

    def sign(connection: Connection) -> Count:
        row, _ = _whole(call, connection, params.order)
        return Count(commands=desk.end_quarantine(connection, row.order_id, handed))

    return await _changed(call, sign)


@method("control.cancel", Right.PROPOSE)
async def cancel(call: Call, params: OrderChanged) -> Count:
    """Take back what has not been sent of an order. Without the right `stop`, of one's own only."""
    desk, name = _desk(call), call.principal.name

    def take_back(connection: Connection) -> Count:
        row, made = _whole(call, connection, params.order)
        if made.requester != name and not call.principal.may(Right.STOP):
            raise Fault("E_DENIED", f"order {params.order} was asked for by {made.requester}, not by {name}")
        return Count(commands=desk.cancel(connection, row.order_id, name))

    return await _changed(call, take_back)


@method("control.get", Right.VIEW)
async def get(call: Call, params: Asked) -> Whole:
    """An order and its commands, or the one command, of the meters that the caller may see."""
    if (params.order is None) == (params.command is None):
        raise Fault("E_PARAMS", "control.get: an order or a command")
    desk, limit = _desk(call), min(max(params.limit, 1), LONGEST_PAGE)

    def read(connection: Connection) -> Whole:
        number = None if params.order is None else _uuid(params.order)
        if params.command is not None:
            one = rows.command_of(connection, _uuid(params.command))
            number = None if one is None else one.order_id
        row = None if number is None else rows.order_of(connection, number)
        seen = [] if row is None else _seen(call, connection, row.order_id)
        if params.command is not None:
            seen = [one for one in seen if one.command_id == _uuid(params.command)]
        if row is None or not seen:
            raise _unknown(params.order or params.command or "")
        page = [one for one in seen if one.meter_id > params.cursor][: limit + 1]
        made = Order.decode(row.octets)
        return Whole(
            order=_told(row, made, seen),
            approved_by=list(desk.approved(connection, made, row.octets).approvers),
            commands=[_command(call, one) for one in page[:limit]],
            cursor=page[limit - 1].meter_id if len(page) > limit else None,
        )

    return await call.services.store.read(read)


@method("control.list", Right.VIEW, example={"limit": 10})
async def list_(call: Call, params: Query) -> Orders:
    """The orders for meters that the caller may see."""
    limit = min(max(params.limit, 1), LONGEST_PAGE)
    place = (1 << 62, b"")
    if params.cursor:
        moment, _, number = params.cursor.partition(":")
        if not moment.isdecimal() or len(moment) > 18:
            raise Fault("E_PARAMS", "cursor: not one that control.list gave")
        place = (int(moment), _uuid(number))

    def read(connection: Connection) -> Orders:
        found: list[OrderTold] = []
        here = place
        while page := rows.orders_before(connection, *here, limit):
            for row in page:
                here = (row.created_us, row.order_id)
                if seen := _seen(call, connection, row.order_id):
                    found.append(_told(row, Order.decode(row.octets), seen))
                if len(found) == limit:
                    return Orders(orders=found, cursor=f"{here[0]}:{orders.shown(here[1])}")
        return Orders(orders=found, cursor=None)

    return await call.services.store.read(read)


@method("control.state", Right.READ, example={"targets": ["virtual-00001"]})
async def state(call: Call, params: Meters) -> Outputs:
    """Ask meters for the state of their supply, now; at most 100, and those that do not answer are told."""
    services = call.services
    chosen = [call.meter(name, Right.READ) for name in dict.fromkeys(params.targets)]
    if not 1 <= len(chosen) <= MOST_ASKED:
        raise Fault("E_PARAMS", f"targets: 1 to {MOST_ASKED} meters")
    meters = services.field.meters
    read_back = ReadBack(services.field.requests, _core, meters)
    found: dict[int, tuple[bool | None, int | None, int | None, str | None]] = {}
    room = trio.CapacityLimiter(ASKED_AT_ONCE)

    async def ask(meter_id: int) -> None:
        async with room:
            try:
                found[meter_id] = (*await read_back.state(meter_id), None)
            except HeadEndError as error:
                found[meter_id] = (None, None, None, str(error))

    async with trio.open_nursery() as nursery:
        for meter in chosen:
            nursery.start_soon(ask, meter.meter_id)
    under_way = await services.store.read(
        lambda connection: {
            meter.meter_id: rows.commands_of_meter(connection, meter.meter_id, machine.OPEN) for meter in chosen
        }
    )
    return Outputs(
        meters=[
            Output(
                point=meter.name,
                output=found[meter.meter_id][0],
                control_state=found[meter.meter_id][1],
                control_mode=found[meter.meter_id][2],
                error=found[meter.meter_id][3],
                open=[_command(call, one) for one in under_way[meter.meter_id]],
            )
            for meter in chosen
        ]
    )


@method("control.stop", Right.STOP)
async def stop(call: Call, params: Halt) -> Halted:
    """Set the stop switch: from now on no critical command leaves, also after a restart. Approvals become void."""
    services, desk, name = call.services, _desk(call), call.principal.name
    if services.control is not None:
        services.control.ask_stop(name)  # first, and at once: whatever the store does
    else:
        touch(services.config.control.stop_file)

    def hold(connection: Connection) -> Halted:
        held = desk.stop(connection, name, params.reason)
        return Halted(held=held, generation=rows.control(connection).generation)

    return await _changed(call, hold)


@method("control.resume", Right.APPROVE)
async def resume(call: Call, params: Resume) -> Status:
    """Take the stop switch back, by the signature of somebody who may approve. What was held wants approving again."""
    services, desk = call.services, _desk(call)
    handed = HandedIn(_principal(call, params.signer), _octets(params.signature))
    if not handed.principal.may_approve:
        raise Fault("E_DENIED", f"{handed.principal.name} may not resume; who may approve commands may")

    def hold(connection: Connection) -> None:
        handed.sign("resume", rows.control(connection).generation, principals.RESUME)
        desk.stop(connection, handed.principal.name, "before resuming")

    # The row says stopped until the file is gone: whatever breaks between the two leaves it stopped.
    await _changed(call, hold)
    services.config.control.stop_file.unlink(missing_ok=True)
    await _changed(call, lambda connection: desk.resume(connection, handed))
    return await _status(call)


@method("control.status", Right.VIEW, example={})
async def status(call: Call, params: Params) -> Status:
    """The stop switch, its generation, and how many commands are open."""
    return await _status(call)


async def _status(call: Call) -> Status:
    file = call.services.config.control.stop_file

    def read(connection: Connection) -> Status:
        found = rows.control(connection)
        return Status(
            stopped=found.stopped or file.exists(),
            generation=found.generation,
            commands=rows.counts(connection, machine.OPEN),
        )

    return await call.services.store.read(read)


def _desk(call: Call) -> Desk:
    config = call.services.config
    return Desk(config.control, config.principals, config.rollout)


async def _changed(call: Call, work: Callable[[Connection], T]) -> T:
    """Do it in one durable transaction; what is refused aloud stays in the audit trail."""
    found = await call.services.store.change(kept(work), spend_reserve=True)
    call.services.written()
    if isinstance(found, Refused):
        raise found
    return found


def _principal(call: Call, wanted: str) -> principals.Principal:
    """Who of the configuration signs: the caller, by name.

    By the unix socket come those who could use the command line as well: there the signature alone says who it is.
    """
    own = call.principal.name
    local = call.session.peer == "local" and own.startswith("local:")
    name = wanted or (own.removeprefix("local:") if local else own)
    if name != own and not local:
        raise Fault("E_DENIED", f"you are {own}, and sign as nobody else")
    found = next((one for one in call.services.config.principals if one.name == name), None)
    if found is None:
        raise Fault("E_DENIED", f'the configuration has no [[principals]] called "{name}"')
    return found


def _made(call: Call, params: Wanted, requester: str) -> Order:
    life_s = params.not_after_s if params.not_after_s is not None else call.services.config.control.not_after_s
    return orders.switch(
        params.to,
        _targets(call, params.targets),
        reason=params.reason,
        requester=requester,
        created_us=now_us() // 1000 * 1000 if params.created_ms is None else params.created_ms * 1000,
        life_s=life_s,
        order_id=None if params.order is None else _uuid(params.order),
    )


def _targets(call: Call, words: list[str]) -> list[tuple[int, bytes]]:
    found: dict[int, bytes] = {}
    for word in words:
        if not word.startswith("group:"):
            meter = call.meter(word, Right.PROPOSE)
            found[meter.meter_id] = meter.system_title or b""
            continue
        group = word.removeprefix("group:")
        members = [meter for meter in call.services.names.values() if meter.group == group]
        if not members or not call.principal.may(Right.PROPOSE, group):
            raise Fault("E_UNKNOWN", f'no meter is in the group "{group}"')
        found.update((meter.meter_id, meter.system_title or b"") for meter in members)
    return list(found.items())


def _preview(desk: Desk, connection: Connection, made: Order) -> Preview:
    found = desk.preview(connection, made)
    return Preview(
        kind=found.kind,
        meters=found.meters,
        groups=found.groups,
        protected=list(found.protected),
        over_budget=found.over_budget,
        approvers=found.approvers,
        spread_s=int(found.spread_s),
        not_after_ms=found.not_after_us // 1000,
    )


def _whole(call: Call, connection: Connection, text: str) -> tuple[OrderRow, Order]:
    """An order all of whose meters are in the caller's scope: nobody signs, or stops, what he does not see."""
    row = rows.order_of(connection, _uuid(text))
    if row is None:
        raise _unknown(text)
    made = Order.decode(row.octets)
    names = rows.groups_of(connection, [target.meter_id for target in made.targets])
    if not all(call.reaches(names.get(target.meter_id, ("", ""))[1]) for target in made.targets):
        raise _unknown(text)
    return row, made


def _seen(call: Call, connection: Connection, order_id: bytes) -> list[rows.CommandRow]:
    """An order's commands, those to meters in the caller's scope."""
    found = rows.commands_of(connection, order_id)
    names = rows.groups_of(connection, [one.meter_id for one in found])
    return [one for one in found if call.reaches(names.get(one.meter_id, ("", ""))[1])]


def _told(row: OrderRow, made: Order, seen: list[rows.CommandRow]) -> OrderTold:
    return OrderTold(
        order=orders.shown(row.order_id),
        kind=row.kind,
        requester=row.requester,
        reason=made.reason,
        created_ms=row.created_us // 1000,
        not_after_ms=row.not_after_us // 1000,
        states=dict(Counter(one.state for one in seen)),
    )


def _command(call: Call, one: rows.CommandRow) -> Command:
    meter = call.services.field.meters.get(one.meter_id)
    return Command(
        command=orders.shown(one.command_id),
        point=None if meter is None else meter.name,
        state=one.state,
        detail=one.detail,
        changed_ms=one.changed_us // 1000,
        quarantined=bool(one.quarantined),
        alarmed=bool(one.alarmed),
    )


def _unknown(text: str) -> Fault:
    return Fault("E_UNKNOWN", f"there is no order or command {text}; control.list shows those that you may see")


def _uuid(text: str) -> bytes:
    try:
        return uuid.UUID(text).bytes
    except ValueError:
        raise Fault("E_PARAMS", f'"{text[:80]}" is no UUID') from None


def _octets(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Fault("E_PARAMS", "signature: not hexadecimal digits") from None
