"""`control.*`: what became of orders, what meters say, the stop switch."""

from __future__ import annotations

import trio
from sqlalchemy import Connection

from ipss_headend import _core
from ipss_headend.errors import HeadEndError
from ipss_headend.field.control import clones, machine, orders
from ipss_headend.field.control.orders import Order
from ipss_headend.field.control.readback import ReadBack
from ipss_headend.field.control.task import touch
from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import Params, method
from ipss_headend.rpc.faults import Fault
from ipss_headend.rpc.methods.control_shapes import (
    Asked,
    Clearance,
    Cleared,
    Halt,
    Halted,
    Held,
    HeldMeter,
    Meters,
    Orders,
    OrderTold,
    Output,
    Outputs,
    Query,
    Resume,
    Status,
    Whole,
)
from ipss_headend.rpc.methods.control_tools import (
    LONGEST_PAGE,
    changed,
    command_of,
    desk_of,
    octets_of,
    principal_of,
    seen_of,
    told,
    unknown,
    uuid_of,
)
from ipss_headend.security import principals
from ipss_headend.security.permission import Right
from ipss_headend.security.principals import HandedIn
from ipss_headend.store import commands as rows

MOST_ASKED = 100
"""Meters of one `control.state`."""
ASKED_AT_ONCE = 16


@method("control.get", Right.VIEW)
async def get(call: Call, params: Asked) -> Whole:
    """An order and its commands, or the one command, of the meters that the caller may see."""
    if (params.order is None) == (params.command is None):
        raise Fault("E_PARAMS", "control.get: an order or a command")
    desk, limit = desk_of(call), min(max(params.limit, 1), LONGEST_PAGE)

    def read(connection: Connection) -> Whole:
        number = None if params.order is None else uuid_of(params.order)
        if params.command is not None:
            one = rows.command_of(connection, uuid_of(params.command))
            number = None if one is None else one.order_id
        row = None if number is None else rows.order_of(connection, number)
        seen = [] if row is None else seen_of(call, connection, row.order_id)
        if params.command is not None:
            seen = [one for one in seen if one.command_id == uuid_of(params.command)]
        if row is None or not seen:
            raise unknown(params.order or params.command or "")
        page = [one for one in seen if one.meter_id > params.cursor][: limit + 1]
        made = Order.decode(row.octets)
        return Whole(
            order=told(row, made, seen),
            approved_by=list(desk.approved(connection, made, row.octets).approvers),
            commands=[command_of(call, one) for one in page[:limit]],
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
        place = (int(moment), uuid_of(number))

    def read(connection: Connection) -> Orders:
        found: list[OrderTold] = []
        here = place
        while page := rows.orders_before(connection, *here, limit):
            for row in page:
                here = (row.created_us, row.order_id)
                if seen := seen_of(call, connection, row.order_id):
                    found.append(told(row, Order.decode(row.octets), seen))
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
                open=[command_of(call, one) for one in under_way[meter.meter_id]],
            )
            for meter in chosen
        ]
    )


@method("control.stop", Right.STOP)
async def stop(call: Call, params: Halt) -> Halted:
    """Set the stop switch: from now on no critical command leaves, also after a restart. Approvals become void."""
    services, desk, name = call.services, desk_of(call), call.principal.name
    if services.control is not None:
        services.control.ask_stop(name)  # first, and at once: whatever the store does
    else:
        touch(services.config.control.stop_file)

    def hold(connection: Connection) -> Halted:
        held = desk.stop(connection, name, params.reason)
        return Halted(held=held, generation=rows.control(connection).generation)

    return await changed(call, hold)


@method("control.resume", Right.APPROVE)
async def resume(call: Call, params: Resume) -> Status:
    """Take the stop switch back, by the signature of somebody who may approve. What was held wants approving again."""
    services, desk = call.services, desk_of(call)
    handed = HandedIn(principal_of(call, params.signer), octets_of(params.signature))
    if not handed.principal.may_approve:
        raise Fault("E_DENIED", f"{handed.principal.name} may not resume; who may approve commands may")

    def hold(connection: Connection) -> None:
        handed.sign("resume", rows.control(connection).generation, principals.RESUME)
        desk.stop(connection, handed.principal.name, "before resuming")

    # The row says stopped until the file is gone: whatever breaks between the two leaves it stopped.
    await changed(call, hold)
    services.config.control.stop_file.unlink(missing_ok=True)
    await changed(call, lambda connection: desk.resume(connection, handed))
    return await _status(call)


@method("control.held", Right.VIEW, example={})
async def held(call: Call, _: Params) -> Held:
    """The meters to which nothing critical goes, as two have proved to be them: one of the two is a copy."""
    people = call.services.config.principals
    found = await call.services.store.read(lambda connection: clones.held(connection, people))
    meters = call.services.field.meters
    return Held(
        meters=[
            HeldMeter(
                point=hold.name,
                why=hold.why,
                since_ms=hold.since_us // 1000,
                generation=hold.record,
                octets=clones.octets(hold.meter_id, hold.system_title).hex(),
            )
            for hold in found.values()
            if (meter := meters.get(hold.meter_id)) is not None and call.reaches(meter.group)
        ]
    )


@method("control.clear", Right.APPROVE)
async def clear(call: Call, params: Clearance) -> Cleared:
    """Let critical commands go to a held meter again, by the signature of somebody who may approve.

    What the other one pushed meanwhile is thrown away.
    """
    meter = call.meter(params.point, Right.APPROVE)
    handed = HandedIn(principal_of(call, params.signer), octets_of(params.signature))
    people = call.services.config.principals
    return await changed(
        call,
        lambda connection: Cleared(pushes=clones.clear(connection, people, meter.meter_id, handed, params.reason)),
    )


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
