"""`stream.*`: everything that happens, from a cursor on, for whoever reads it to the end and then waits.

The log is durable and numbered without a gap. A stream is only a place in it: a client that keeps the last cursor that
it has dealt with may stop, lose its connection, and go on, and misses nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import trio
from sqlalchemy import Connection

from ipss_headend.field.control.orders import shown
from ipss_headend.field.reactor import EventKind
from ipss_headend.rpc.call import Call, Services
from ipss_headend.rpc.catalogue import Empty, Params, Result, method
from ipss_headend.rpc.faults import Fault
from ipss_headend.security.permission import Principal, Right
from ipss_headend.store import log
from ipss_headend.store.export import quality_text
from ipss_headend.store.log import Entry
from ipss_headend.store.readings import line_of, plain, scaled
from ipss_headend.store.records import check
from ipss_headend.store.registry import Layout

MOST_ENTRIES = 20
"""Log entries of one answer: at most some 10,000 lines."""
LONGEST_WAIT_MS = 60_000


class Open(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where to begin."""

    topics: list[str] = msgspec.field(default_factory=lambda: list(log.TOPICS))
    """`readings`, `events`, `commands`."""
    cursor: int | None = None
    """The last that was dealt with; None: from now on; 0: from the oldest that is kept."""
    push: bool = False
    """Send what comes as `stream.event` notifications; needs `push` in rpc.hello."""


class Opened(Result, frozen=True):
    """A stream, and the cursor where it begins."""

    stream: str
    cursor: int
    oldest: int
    """Cursors before this one have been forgotten."""


class Poll(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What came after a cursor."""

    cursor: int
    topics: list[str] = msgspec.field(default_factory=lambda: list(log.TOPICS))
    wait_ms: int = 30_000
    """How long to wait when there is nothing yet."""
    limit: int = MOST_ENTRIES
    """Log entries at most; an entry has up to 500 lines."""


class Close(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A stream."""

    stream: str


class LayoutTold(msgspec.Struct, frozen=True):
    """What the values of a line are."""

    object: str
    columns: list[dict[str, Any]]


class Happened(Result, frozen=True):
    """What came. Keep `cursor` once it is dealt with."""

    cursor: int
    events: list[dict[str, Any]]
    """Readings have `point, layout, capture_ms, key, values, quality`; events `point, at_ms, kind, number, detail`;
    commands `point, at_ms, command, order, state, detail`, one for each step; each has `topic` and `sequence`. `key`
    tells a line that comes twice."""
    layouts: dict[str, LayoutTold]
    """The layouts of these readings."""
    more: bool
    """More is there already."""


def _topics(topics: list[str]) -> list[str]:
    unknown = set(topics) - set(log.TOPICS)
    if unknown or not topics:
        raise Fault("E_PARAMS", f"topics: {', '.join(sorted(unknown)) or 'none'}; there are {', '.join(log.TOPICS)}")
    return topics


@method("stream.open", Right.VIEW, example={"topics": ["readings"], "cursor": 0})
async def open_(call: Call, params: Open) -> Opened:
    """Where a stream begins. With `push`, what comes is sent; without, ask stream.poll."""
    services = call.services
    topics = _topics(params.topics)
    oldest, newest = await services.store.read(log.ends)
    cursor = newest if params.cursor is None else max(params.cursor, oldest) if params.cursor == 0 else params.cursor
    if not oldest <= cursor <= newest:
        raise Fault("E_UNKNOWN", f"cursor {cursor} is not kept; the log has {oldest} to {newest}, read.series the rest")
    name = f"{call.session.number}.{len(call.session.streams) + 1}"
    if params.push:
        if not call.session.push or call.session.send is None:
            raise Fault("E_PARAMS", "push: say push in rpc.hello first, or use stream.poll")
        scope = trio.CancelScope()
        call.session.streams[name] = scope
        services.start(_push, call, name, topics, cursor, scope)
    return Opened(stream=name, cursor=cursor, oldest=oldest)


@method("stream.poll", Right.VIEW, example={"cursor": 0, "topics": ["readings"], "wait_ms": 0, "limit": 1})
async def poll(call: Call, params: Poll) -> Happened:
    """What came after the cursor; waits when there is nothing."""
    services = call.services
    topics = _topics(params.topics)
    limit = min(max(params.limit, 1), MOST_ENTRIES)
    oldest, newest = await services.store.read(log.ends)
    if not oldest <= params.cursor <= newest:
        raise Fault(
            "E_UNKNOWN", f"cursor {params.cursor} is not kept; the log has {oldest} to {newest}, read.series the rest"
        )
    deadline = trio.current_time() + min(max(params.wait_ms, 0), LONGEST_WAIT_MS) / 1000
    cursor = params.cursor
    while True:
        happened = services.happened
        found, cursor = await _after(services, cursor, topics, limit)
        if found or trio.current_time() >= deadline:
            return await _told(services, call.principal, found, cursor, more=len(found) == limit)
        with trio.move_on_at(deadline):
            await happened.wait()


@method("stream.close", Right.VIEW)
def close(call: Call, params: Close) -> Empty:
    """Send no more of a pushed stream."""
    scope = call.session.streams.pop(params.stream, None)
    if not isinstance(scope, trio.CancelScope):
        raise Fault("E_UNKNOWN", f'no stream of this connection is called "{params.stream}"')
    scope.cancel()
    return Empty()


async def _push(call: Call, name: str, topics: list[str], cursor: int, scope: trio.CancelScope) -> None:
    services = call.services
    send = call.session.send
    assert send is not None
    with scope:
        while True:
            happened = services.happened
            found, cursor = await _after(services, cursor, topics, MOST_ENTRIES)
            if found:
                told = await _told(services, call.principal, found, cursor, more=len(found) == MOST_ENTRIES)
                while not call.session.closed:
                    try:
                        send("stream.event", {"stream": name, **msgspec.structs.asdict(told)})
                        break
                    except Fault:
                        # It reads slowly: what it has not taken stays in the log, and memory does not grow.
                        await trio.sleep(0.05)
            else:
                await happened.wait()
            if call.session.closed:
                return


async def _after(services: Services, cursor: int, topics: list[str], limit: int) -> tuple[list[Entry], int]:
    """The entries after a cursor, and the cursor behind them and behind what is of other topics."""

    def read(connection: Connection) -> tuple[list[Entry], int]:
        newest = log.ends(connection)[1]
        found = list(log.after(connection, cursor, topics, limit))
        return found, found[-1].sequence if len(found) == limit else newest

    return await services.store.read(read)


async def rows_of(services: Services, entry: Entry) -> list[dict[str, Any]]:
    """Everything that an entry tells, whoever's it is: for plugins, which have no scope."""
    await services.layouts.refresh(services.store)
    meters = services.field.meters
    return rows_in(
        entry, lambda number: None if (one := meters.get(number)) is None else one.name, services.layouts.layout
    )


def rows_in(entry: Entry, name: Callable[[int], str | None], layout: Callable[[int], Layout]) -> list[dict[str, Any]]:
    """The same by the names and layouts that these know."""
    layouts: dict[str, LayoutTold] = {}
    events = [_row(entry, row, name(row[0]), layout, layouts) for row in entry.rows]
    shown = {number: msgspec.to_builtins(one) for number, one in layouts.items()}
    return [event | shown.get(event.get("layout", ""), {}) for event in events]


async def _told(services: Services, who: Principal, found: list[Entry], cursor: int, *, more: bool) -> Happened:
    await services.layouts.refresh(services.store)
    events: list[dict[str, Any]] = []
    layouts: dict[str, LayoutTold] = {}
    meters = services.field.meters
    for entry in found:
        for row in entry.rows:
            meter = meters.get(row[0])
            if not who.may(Right.VIEW, "" if meter is None else meter.group):
                continue
            events.append(_row(entry, row, None if meter is None else meter.name, services.layouts.layout, layouts))
    return Happened(cursor=cursor, events=events, layouts=layouts, more=more)


def _row(
    entry: Entry,
    row: list[Any],
    point: str | None,
    layout: Callable[[int], Layout],
    layouts: dict[str, LayoutTold],
) -> dict[str, Any]:
    head = {"topic": entry.topic, "sequence": entry.sequence, "point": point}
    if entry.topic == log.READINGS:
        check(row)
        return head | _reading(row, layout, layouts)
    if entry.topic == log.EVENTS:
        _, at_us, kind, number, detail = row
        return head | {"at_ms": at_us // 1000, "kind": EventKind(kind).label, "number": number, "detail": detail}
    _, at_us, command, order, state, detail = row
    numbers = {"command": shown(command), "order": shown(order)}
    return head | {"at_ms": at_us // 1000} | numbers | {"state": state, "detail": detail}


def _reading(row: list[Any], layout_of: Callable[[int], Layout], layouts: dict[str, LayoutTold]) -> dict[str, Any]:
    line = line_of(row)
    layout = layout_of(line.layout_id)
    name = str(line.layout_id)
    if name not in layouts:
        layouts[name] = LayoutTold(layout.logical_name, [msgspec.to_builtins(column) for column in layout.columns])
    values = [
        plain(scaled(cell, column.scaler)) if isinstance(cell, int) else cell
        for column, cell in zip(layout.columns, line.cells, strict=False)
    ]
    return {
        "layout": name,
        "capture_ms": line.capture_time_us // 1000,
        "received_ms": line.received_us // 1000,
        "key": f"{row[3] & (2**64 - 1):016x}",
        "values": values,
        "quality": quality_text(line.quality),
    }
