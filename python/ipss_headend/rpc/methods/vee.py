"""`vee.*`: what plugins said of intervals, and what was estimated. Readings themselves never change."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import Connection

from ipss_headend.errors import PluginError
from ipss_headend.field.fleet import FleetMeter
from ipss_headend.plugins.flags import Flag, flag_names
from ipss_headend.plugins.intervals import DAY_US, series_of
from ipss_headend.plugins.settled import EDITED
from ipss_headend.plugins.vee import VALIDATE, Span
from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import Change, Params, Result, method
from ipss_headend.rpc.faults import Fault
from ipss_headend.rpc.jobs import Job
from ipss_headend.rpc.methods.job import State, state
from ipss_headend.rpc.methods.read import MOST_POINTS, parsed
from ipss_headend.security import audit
from ipss_headend.security.permission import Right
from ipss_headend.store import log
from ipss_headend.store import plugins as rows
from ipss_headend.store.database import now_us
from ipss_headend.store.readings import plain, scaled, series
from ipss_headend.store.registry import Layout, all_layouts

LONGEST_PAGE = 10_000
PROFILE_CLASS = 7


class Period(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Intervals of a meter that end from `from_ms` to before `to_ms`."""

    point: str
    item: str | None = None
    """One object; None: all."""
    from_ms: int
    to_ms: int
    limit: int = LONGEST_PAGE


class Flagged(msgspec.Struct, frozen=True):
    """What was said of one interval."""

    item: str
    source: str
    """The profile."""
    capture_ms: int
    flags: list[str]
    """`gap`, `spike`, `negative`, `roll-over`, `sum`, `register`, `clock`, `stuck`, `estimated`, `edited`."""


class Flags(Result, frozen=True):
    """By profile and time. Where `cursor_ms` is not None, go on with it as `from_ms`."""

    flags: list[Flagged]
    cursor_ms: int | None


class Estimated(msgspec.Struct, frozen=True):
    """One interval without a reading at its time, and what is thought of it."""

    item: str
    source: str
    capture_ms: int
    value: str | None
    """None: nothing yet; it may still be read."""
    unit: str
    method: str


class Estimates(Result, frozen=True):
    """By time. Where `cursor_ms` is not None, go on with it as `from_ms`."""

    estimates: list[Estimated]
    cursor_ms: int | None


class Edited(Result, frozen=True):
    """The interval as it counts now."""

    edited: Estimated


class Edit(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An interval of a meter, and what it is to count as."""

    point: str
    item: str
    source: str | None = None
    """The profile, where several have this object."""
    capture_ms: int
    """The end of the interval."""
    value: str
    """What was taken in it, a decimal in the object's unit."""
    reason: str


class Run(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which meters, and which capture times."""

    points: list[str]
    from_ms: int
    to_ms: int


@method("vee.flags", Right.VIEW, example={"point": "virtual-00001", "from_ms": 0, "to_ms": 4102444800000})
async def flags(call: Call, params: Period) -> Flags:
    """What plugins said of a meter's intervals. Flags are added and never taken away; a gap has no reading."""
    found = await _told(call, params, rows.flags)
    limit = min(max(params.limit, 1), LONGEST_PAGE)
    page = [
        Flagged(column.logical_name, layout.logical_name, row.capture_time_us // 1000, flag_names(row.flags))
        for row, layout, column in sorted(found, key=lambda one: (one[0].capture_time_us, one[0].place))
    ]
    return Flags(flags=page[:limit], cursor_ms=page[limit].capture_ms if len(page) > limit else None)


@method("vee.estimates", Right.VIEW, example={"point": "virtual-00001", "from_ms": 0, "to_ms": 4102444800000})
async def estimates(call: Call, params: Period) -> Estimates:
    """Intervals of a meter that are missing, and the values estimated for them. A reading that comes later stands."""
    found = await _told(call, params, rows.estimated)
    limit = min(max(params.limit, 1), LONGEST_PAGE)
    page = [
        Estimated(
            column.logical_name,
            layout.logical_name,
            row.capture_time_us // 1000,
            None if row.value is None else plain(scaled(row.value, column.scaler)),
            column.unit,
            row.method,
        )
        for row, layout, column in found
    ]
    return Estimates(estimates=page[:limit], cursor_ms=page[limit].capture_ms if len(page) > limit else None)


@method("vee.edit", Right.MANAGE)
async def edit(call: Call, params: Edit) -> Edited:
    """Say what an interval of energy counts as, before what was read; audited. The reading stays as it is."""
    meter = call.meter(params.point, Right.MANAGE)
    at_us, name = params.capture_ms * 1000, parsed(params.item).logical_name
    source = None if params.source is None else parsed(params.source).logical_name
    if not params.reason.strip():
        raise Fault("E_PARAMS", "reason: say why")
    who = call.principal.name

    def change(connection: Connection) -> Estimated:
        found = _interval(connection, meter.meter_id, at_us, name, source)
        if len({(one[1].logical_name, one[2]) for one in found}) != 1:
            words = ", ".join(sorted({one[1].logical_name for one in found})) or "none"
            raise Fault("E_UNKNOWN", f"an interval of {name} that ends then: {words} has it; name one as source")
        layout_id, layout, place = found[0]
        column = layout.columns[place]
        value = _counts(params.value, column.scaler or 0)
        words = f"{EDITED} by {who}"[:100]
        rows.edit(connection, rows.EstimateRow(meter.meter_id, layout_id, place, at_us, now_us(), value, words))
        rows.flag(connection, [rows.FlagRow(meter.meter_id, layout_id, place, at_us, int(Flag.EDITED))])
        log.append(connection, now_us(), {log.INTERVALS: [(meter.meter_id, layout_id, at_us, at_us)]})
        detail = {"item": name, "source": layout.logical_name, "capture_ms": params.capture_ms}
        audit.append(connection, "edit", who, meter.name, {**detail, "value": params.value, "reason": params.reason})
        return Estimated(
            name, layout.logical_name, params.capture_ms, plain(scaled(value, column.scaler)), column.unit, words
        )

    found = await call.services.store.change(change)
    call.services.written()
    return Edited(edited=found)


def _interval(
    connection: Connection, meter_id: int, at_us: int, name: str, source: str | None
) -> list[tuple[int, Layout, int]]:
    """The columns of a meter's profiles that have an interval which ends then: layout, its number, place."""
    found = []
    for layout_id, layout in all_layouts(connection).items():
        if source not in {None, layout.logical_name} or name not in {one.logical_name for one in layout.columns}:
            continue
        lines = list(series(connection, [meter_id], [layout_id], at_us - DAY_US, at_us + DAY_US))
        for one in series_of(meter_id, layout_id, layout, lines, least=2):
            fits = (at_us - one.ends_us[0]) % one.step_us == 0 if one.ends_us else False
            if fits and layout.columns[one.place].logical_name == name:
                found.append((layout_id, layout, one.place))
    return found


def _counts(text: str, scaler: int) -> int:
    """A decimal as whole counts of a column.

    Raises:
        Fault: it is none, or finer than the column.
    """
    try:
        value = Decimal(text).scaleb(-scaler)
    except ArithmeticError:
        value = Decimal("NaN")
    if not value.is_finite() or value != int(value) or not 0 <= value < 2**62:
        raise Fault("E_PARAMS", f'value: "{text}" is no whole number of 1e{scaler} from nought on')
    return int(value)


@method("vee.run", Right.MANAGE)
async def run(call: Call, params: Run) -> State:
    """Hand stored intervals to the validating plugins once more, as a job: after a plugin was added or changed."""
    services = call.services
    validation, manager = services.validation, services.plugins
    meters = [call.meter(name, Right.MANAGE) for name in dict.fromkeys(params.points)]
    if not 1 <= len(meters) <= MOST_POINTS:
        raise Fault("E_PARAMS", f"points: 1 to {MOST_POINTS} meters")
    if validation is None or not manager.asked(VALIDATE):
        raise Fault("E_PLUGIN", f"no plugin is enabled that has {VALIDATE}; plugin.enable plugin=validate is one")
    await services.layouts.refresh(services.store)
    profiles = await services.store.read(_profiles)
    span = (params.from_ms * 1000, params.to_ms * 1000)

    async def check(meter: FleetMeter) -> None:
        spans: dict[tuple[int, int], Span] = {(meter.meter_id, layout): span for layout in profiles}
        for plugin in manager.asked(VALIDATE):
            await services.store.change(await validation.check(plugin, spans))

    async def work(job: Job) -> None:
        for meter in meters:
            try:
                await check(meter)
            except PluginError as error:
                job.note(meter.name, {"ok": False, "error": str(error)})
            else:
                job.note(meter.name, {"ok": True})

    try:
        return state(services.jobs.start("vee.run", call.principal.name, [meter.name for meter in meters], work))
    except RuntimeError as error:
        raise Fault("E_BUSY", str(error)) from error


async def _told(call: Call, params: Period, query: Any) -> list[tuple[Any, Layout, Any]]:
    meter = call.meter(params.point, Right.VIEW)
    name = None if params.item is None else parsed(params.item).logical_name
    services = call.services
    found = await services.store.read(
        lambda connection: query(connection, meter.meter_id, params.from_ms * 1000, params.to_ms * 1000)
    )
    await services.layouts.refresh(services.store)
    told = []
    for row in found:
        layout = services.layouts.layout(row.layout_id)
        column = layout.columns[row.place]
        if name in {None, column.logical_name}:
            told.append((row, layout, column))
    return told


def _profiles(connection: Connection) -> list[int]:
    return [number for number, layout in all_layouts(connection).items() if layout.class_id == PROFILE_CLASS]
