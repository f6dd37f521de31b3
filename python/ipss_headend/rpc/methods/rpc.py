"""`rpc.*`: the conversation itself."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from ipss_headend import __version__
from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import Params, Result, method
from ipss_headend.rpc.faults import Fault, fault_of

VERSION = 1
LONGEST_BATCH = 1000
MOST_OCTETS = 4 << 20
"""Of a batch's answers; those behind are told to come in another one."""


class Hello(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who the client is and how it wants to be answered."""

    client: str = ""
    """What it calls itself, for logs."""
    versions: list[int] = msgspec.field(default_factory=lambda: [VERSION])
    """The versions of the catalogue that it knows."""
    errors: str = "string"
    """`string`: an error is "E_CODE: text"; `array`: it is [code, text]."""
    push: bool = False
    """It takes `stream.event` notifications between answers."""


class Welcome(Result, frozen=True):
    """What the server is."""

    server: str
    version: int
    limits: dict[str, int]
    session: int


class Now(Result, frozen=True):
    """The server's wall clock."""

    now_ms: int


class MethodRow(msgspec.Struct, frozen=True):
    """One method."""

    name: str
    right: str | None
    changes: bool
    summary: str


class MethodRows(Result, frozen=True):
    """All methods."""

    methods: list[MethodRow]


class Named(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A method."""

    method: str


class Schema(Result, frozen=True):
    """JSON Schema of params and result."""

    method: str
    right: str | None
    changes: bool
    description: str
    params: dict[str, Any]
    result: dict[str, Any]


class OneCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call of a batch."""

    method: str
    params: dict[str, Any] = msgspec.field(default_factory=dict)


class Calls(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Calls in order."""

    calls: list[OneCall]


class Answers(Result, frozen=True):
    """For each call `[error, result]`, one of them nil."""

    answers: list[tuple[Any, Any]]


@method("rpc.hello", None, open_to_all=True, example={"client": "billing 2.1", "versions": [1]})
def hello(call: Call, params: Hello) -> Welcome:
    """Say who the client is and how it wants errors; hear what the server is and what it allows."""
    if VERSION not in params.versions:
        raise Fault("E_PARAMS", f"versions: {params.versions}; this server speaks version {VERSION}")
    if params.errors not in {"string", "array"}:
        raise Fault("E_PARAMS", f'errors: "{params.errors}"; it is "string" or "array"')
    session = call.session
    session.client = params.client[:100]
    session.errors_as_arrays = params.errors == "array"
    session.push = params.push
    limits = {"frame_octets": 1 << 20, "depth": 16, "calls": 256, "batch": LONGEST_BATCH}
    return Welcome(server=f"ipss-headend {__version__}", version=VERSION, limits=limits, session=session.number)


@method("rpc.ping", None, open_to_all=True, example={})
def ping(call: Call, params: Params) -> Now:
    """Answer at once."""
    return Now(now_ms=time.time_ns() // 1_000_000)


@method("rpc.methods", None, open_to_all=True, example={})
def methods(call: Call, params: Params) -> MethodRows:
    """All methods, with the right that each needs; plugins' begin with `x.`."""
    known = sorted(call.services.methods.items())
    rows = [MethodRow(one.name, one.right, one.changes, one.summary) for _, one in known]
    return MethodRows(methods=rows)


@method("rpc.schema", None, open_to_all=True, example={"method": "read.last"})
def schema(call: Call, params: Named) -> Schema:
    """What a method takes and gives, as JSON Schema."""
    found = call.services.methods.get(params.method)
    if found is None:
        raise Fault("E_METHOD", f'no method is called "{params.method[:128]}"; rpc.methods lists them')
    return Schema(
        method=found.name,
        right=found.right,
        changes=found.changes,
        description=found.description,
        params=msgspec.json.schema(found.params),
        result=msgspec.json.schema(found.result),
    )


@method("rpc.batch", None, example={"calls": [{"method": "rpc.ping"}]})
async def batch(call: Call, params: Calls) -> Answers:
    """Make calls one after the other and answer them together; one that fails keeps no other from being made."""
    if len(params.calls) > LONGEST_BATCH:
        raise Fault("E_PARAMS", f"calls: {len(params.calls)}; at most {LONGEST_BATCH}")
    answers: list[tuple[Any, Any]] = []
    octets = 0
    for one in params.calls:
        try:
            said = msgspec.Raw(msgspec.msgpack.encode(await _one(call, one, octets)))
            octets += len(memoryview(said))
            answers.append((None, said))
        except Exception as error:
            fault = fault_of(error)
            if fault is None:
                raise
            answers.append(([fault.code, fault.text] if call.session.errors_as_arrays else str(fault), None))
    return Answers(answers=answers)


async def _one(call: Call, one: OneCall, before: int) -> Result:
    if before > MOST_OCTETS:
        raise Fault("E_PARAMS", f"the answers before this one have {before} octets; make it in another batch")
    found = call.services.methods.get(one.method)
    if found is None or found.name == "rpc.batch":
        raise Fault("E_METHOD", f'no method of a batch is called "{one.method[:128]}"; rpc.methods lists them')
    if not call.principal.may(found.right):
        raise Fault("E_DENIED", f"{found.name} needs the right {found.right}")
    if call.session.limited is not None:
        call.session.limited(call.principal.name, found.name)
    octets = msgspec.msgpack.encode([one.params])
    inner = Call(call.services, call.session, found.name)
    params = found.decode(octets)
    if found.changes:
        return await call.services.keys.once(inner, found, params, octets)
    answer = found.handler(inner, params)
    return answer if isinstance(answer, Result) else await answer
