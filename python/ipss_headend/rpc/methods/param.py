"""`param.*`: parameters of meters: planned, written, read back, and compared later.

A plan is a list of attributes with the values that they are to have, for some meters. What is ordinary is written by a
job and read back: the passive side of an activity calendar, special days, clocks. What may cut supply or begin another
tariff (limiters, register monitors, scripts, the moment of activation) becomes an order for each parameter, which
people sign and approve as any critical command (docs/commands.md): the reactor writes it on no other way.
"""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
import trio
from sqlalchemy import Connection

from ipss_headend import _core
from ipss_headend.errors import HeadEndError
from ipss_headend.field.control import orders
from ipss_headend.field.fleet import FleetMeter
from ipss_headend.field.questions import Attributes, Descriptor, Set, octets
from ipss_headend.field.results import result_name
from ipss_headend.rpc.call import Call, Services
from ipss_headend.rpc.catalogue import Change, Params, Result, method
from ipss_headend.rpc.faults import Fault
from ipss_headend.rpc.jobs import Job
from ipss_headend.rpc.methods.control_tools import changed, desk_of, octets_of, principal_of
from ipss_headend.rpc.methods.job import State, state
from ipss_headend.rpc.methods.read import parsed
from ipss_headend.security.permission import Right
from ipss_headend.security.principals import Signature
from ipss_headend.store import parameters as rows
from ipss_headend.store.database import now_us

MOST_TARGETS = 1000
MOST_PARAMETERS = 50
AT_ONCE = 50
ASK_S = 30.0
CLOCK = (8, 2)
"""Class and attribute whose value is another one when it is read back."""
CRITICAL = (
    dict.fromkeys((9, 10, 21, 22, 30, 67, 68, 122, 123), "script")
    | dict.fromkeys((70, 71, 111, 112, 113, 115), "limit")
    | {6: "tariff", 18: "firmware"}
)
"""Kinds of orders by interface class; the native gate has the last word (rust/src/control/effect.rs)."""
CALENDAR, PASSIVE = 20, range(6, 10)
"""Activity calendar: its passive side may be prepared, the rest is another tariff."""
SECRET = frozenset({12, 15, 64})


class Parameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One attribute, and the value that it is to have."""

    object: str
    """Class, logical name and attribute: `20/0.0.13.0.0.255:7`."""
    value: list[Any]
    """`[type, value]` as `ipss-headend read --json` shows it: `["double-long-unsigned", 5000]`."""


class Wanted(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What meters are to be set to."""

    targets: list[str]
    parameters: list[Parameter]
    reason: str
    """Why; stands in the audit trail and in orders."""
    signer: str = ""
    """Who asks for what is critical, as control.preview has it."""
    not_after_s: int = 3600
    """How long an order of the plan may wait."""


class Difference(msgspec.Struct, frozen=True):
    """One attribute of one meter that is not as it is wanted, or could not be read."""

    point: str
    object: str
    value: list[Any] | None
    """What it is; None: it could not be read."""
    error: str | None


class Ordered(msgspec.Struct, frozen=True):
    """A critical parameter, as the order that people sign."""

    order: str
    object: str
    kind: str
    signer: str
    octets: str
    """What the signer signs, purpose `propose`, generation 0, in hexadecimal digits."""


class Planned(Result, frozen=True):
    """A plan, what differs now, and what people have to sign for it."""

    plan: str
    differences: list[Difference]
    orders: list[Ordered]


class Named(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A plan."""

    plan: str


class Apply(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A plan, and the signatures of its orders."""

    plan: str
    signatures: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    """Ed25519 by order, hexadecimal digits; left out: what is critical is not asked for."""


class Applied(Result, frozen=True):
    """What writes the ordinary parameters, and the orders that wait for approval."""

    job: State
    orders: list[str]


class Drift(Result, frozen=True):
    """What is not as it was planned."""

    plan: str
    compared: int
    differences: list[Difference]


@method("param.plan", Right.MANAGE)
async def plan(call: Call, params: Wanted) -> Planned:
    """Plan what meters are to be set to: what differs now, read from the meters, and the orders that have to be signed.

    Nothing is written before param.apply.
    """
    meters = [call.meter(name, Right.MANAGE) for name in dict.fromkeys(params.targets)]
    if not 1 <= len(meters) <= MOST_TARGETS or not 1 <= len(params.parameters) <= MOST_PARAMETERS:
        raise Fault("E_PARAMS", f"1 to {MOST_TARGETS} targets and 1 to {MOST_PARAMETERS} parameters")
    wanted = [(one.object, *_parameter(one)) for one in params.parameters]
    drafts: list[tuple[str, str, str, str, bytes]] = []
    for name, descriptor, value in wanted:
        kind = _kind(descriptor)
        if kind is None:
            continue
        signer = principal_of(call, params.signer)
        made = orders.order(
            kind,
            orders.Effect("set", descriptor[0], descriptor[1], descriptor[2], value),
            "written",
            [(meter.meter_id, meter.system_title or b"") for meter in meters],
            reason=params.reason,
            requester=signer.name,
            created_us=now_us() // 1000 * 1000,
            life_s=params.not_after_s,
        )
        drafts.append((orders.shown(made.order_id), name, kind, signer.name, made.octets()))
    found, _ = await _compare(call.services, meters, wanted)
    number = str(uuid.uuid4())
    content = {
        "targets": [meter.name for meter in meters],
        "parameters": [[name, *descriptor, value] for name, descriptor, value in wanted],
        "orders": [list(draft) for draft in drafts],
        "reason": params.reason,
    }
    await call.services.store.change(lambda connection: rows.put(connection, number, content, call.principal.name))
    return Planned(
        plan=number,
        differences=found,
        orders=[Ordered(order, name, kind, signer, made.hex()) for order, name, kind, signer, made in drafts],
    )


@method("param.apply", Right.MANAGE)
async def apply(call: Call, params: Apply) -> Applied:
    """Write a plan's ordinary parameters, as a job that reads them back, and ask for its signed orders.

    What is as wanted already is left alone. Orders wait for approval as those of control.switch.
    """
    services = call.services
    content, meters = await _known(call, params.plan, Right.MANAGE)
    drafts = {order: (signer, made) for order, _, _, signer, made in content["orders"]}
    unknown = sorted(set(params.signatures) - set(drafts))
    if unknown:
        raise Fault("E_PARAMS", f"signatures: {unknown[0]} is no order of this plan")
    if params.signatures and not call.principal.may(Right.PROPOSE):
        raise Fault("E_DENIED", f"param.apply: orders need the right {Right.PROPOSE}")
    names = [meter.name for meter in meters]
    if (why := await services.judge.asked(call.principal.name, "parameters", names)) is not None:
        raise Fault("E_DENIED", f"param.apply: {why}")
    desk = desk_of(call)
    for order, text in params.signatures.items():
        signer, made = drafts[order]
        signature = Signature("propose", principal_of(call, signer).name, 0, octets_of(text))

        def ask(connection: Connection, made: bytes = made, signature: Signature = signature) -> None:
            desk.propose(connection, made, signature)

        await changed(call, ask)
    ordinary = [one for one in _wanted(content) if _kind(one[1]) is None]

    async def work(job: Job) -> None:
        room = trio.CapacityLimiter(AT_ONCE)

        async def write(meter: FleetMeter) -> None:
            async with room:
                try:
                    job.note(meter.name, await _write(services, meter, ordinary))
                except HeadEndError as error:
                    job.note(meter.name, {"ok": False, "error": str(error)})

        async with trio.open_nursery() as nursery:
            for meter in meters if ordinary else []:
                nursery.start_soon(write, meter)

    try:
        job = services.jobs.start("param.apply", call.principal.name, names if ordinary else [], work)
    except RuntimeError as error:
        raise Fault("E_BUSY", str(error)) from error
    return Applied(job=state(job), orders=sorted(params.signatures))


@method("param.verify", Right.READ)
async def verify(call: Call, params: Named) -> Drift:
    """Read a plan's parameters from its meters and say what is not as it was planned."""
    content, meters = await _known(call, params.plan, Right.READ)
    found, compared = await _compare(call.services, meters, _wanted(content))
    return Drift(plan=params.plan, compared=compared, differences=found)


def _parameter(one: Parameter) -> tuple[Descriptor, bytes]:
    name = parsed(one.object)
    if name.class_id is None or name.attribute is None:
        raise Fault("E_PARAMS", f"{one.object}: name its class and its attribute, as in 20/0.0.13.0.0.255:7")
    if name.class_id in SECRET:
        raise Fault("E_DENIED", f"{one.object}: keys and passwords are changed by key rotation, not as parameters")
    try:
        value = bytes(_core.encode_data(one.value))
    except (ValueError, TypeError, OverflowError) as error:
        raise Fault("E_PARAMS", f'{one.object}: {error}; a value is ["double-long-unsigned", 5]') from error
    return (name.class_id, octets(name.logical_name), name.attribute), value


def _kind(descriptor: Descriptor) -> str | None:
    """The kind of order that writes this attribute; None: it is ordinary."""
    class_id, _, attribute = descriptor
    if class_id == CALENDAR:
        return None if attribute in PASSIVE else "tariff"
    return CRITICAL.get(class_id)


def _wanted(content: dict[str, Any]) -> list[tuple[str, Descriptor, bytes]]:
    return [
        (name, (class_id, logical_name, attribute), value)
        for name, class_id, logical_name, attribute, value in content["parameters"]
    ]


async def _known(call: Call, number: str, right: Right) -> tuple[dict[str, Any], list[FleetMeter]]:
    content = await call.services.store.read(lambda connection: rows.get(connection, number))
    if content is None:
        raise Fault("E_UNKNOWN", f'no plan is called "{number[:80]}"; param.plan makes one')
    return content, [call.meter(name, right) for name in content["targets"]]


async def _compare(
    services: Services, meters: list[FleetMeter], wanted: list[tuple[str, Descriptor, bytes]]
) -> tuple[list[Difference], int]:
    """What differs, and how many attributes could be compared."""
    room = trio.CapacityLimiter(AT_ONCE)
    found: dict[str, list[Difference]] = {}
    compared = 0

    async def ask(meter: FleetMeter) -> None:
        nonlocal compared
        async with room:
            try:
                values = await _read(services, meter, wanted)
            except HeadEndError as error:
                found[meter.name] = [Difference(meter.name, name, None, str(error)) for name, _, _ in wanted]
                return
        differ = []
        for (name, descriptor, value), (cell, why) in zip(wanted, values, strict=True):
            compared += cell is not None
            if cell is None or (cell != value and (descriptor[0], descriptor[2]) != CLOCK):
                told = None if cell is None else list(_core.decode_data(cell))
                differ.append(Difference(meter.name, name, told, why))
        found[meter.name] = differ

    async with trio.open_nursery() as nursery:
        for meter in meters:
            nursery.start_soon(ask, meter)
    return [one for meter in meters for one in found[meter.name]], compared


async def _read(
    services: Services, meter: FleetMeter, wanted: list[tuple[str, Descriptor, bytes]]
) -> list[tuple[bytes | None, str | None]]:
    """The octets of each attribute, or why there are none."""
    answer = await services.field.requests.ask(
        [Attributes(0, (descriptor,)) for _, descriptor, _ in wanted], meter.meter_id, timeout_s=ASK_S, name=meter.name
    )
    found: list[tuple[bytes | None, str | None]] = []
    for place in range(len(wanted)):
        line = answer.line(place)
        cell = None if line is None else line[6][0]
        if isinstance(cell, bytes):
            found.append((cell, None))
        else:
            code = answer.refusals.get(place)
            found.append((None, "no value" if code is None else result_name(code)))
    return found


async def _write(services: Services, meter: FleetMeter, wanted: list[tuple[str, Descriptor, bytes]]) -> dict[str, Any]:
    """Write what differs and read it back; what came of each attribute."""
    before = await _read(services, meter, wanted)
    changing = [one for one, (cell, _) in zip(wanted, before, strict=True) if cell != one[2]]
    outcomes = {name: "as wanted already" for name, _, _ in wanted}
    if changing:
        answer = await services.field.requests.ask(
            [Set(descriptor, value) for _, descriptor, value in changing],
            meter.meter_id,
            timeout_s=ASK_S,
            name=meter.name,
        )
        after = await _read(services, meter, changing)
        for place, ((name, descriptor, value), (cell, why)) in enumerate(zip(changing, after, strict=True)):
            code = answer.refusals.get(place)
            if code is not None:
                outcomes[name] = f"refused: {result_name(code)}"
            elif cell == value or (descriptor[0], descriptor[2]) == CLOCK:
                outcomes[name] = "written"
            else:
                outcomes[name] = f"the meter said yes and is otherwise: {why or list(_core.decode_data(cell or b''))}"
    well = all(said in {"written", "as wanted already"} for said in outcomes.values())
    wrong = None if well else "; ".join(f"{name}: {said}" for name, said in outcomes.items())
    return {"ok": well, "outcomes": outcomes, "error": wrong}
