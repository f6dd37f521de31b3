"""`vee.*`: what plugins said of intervals, and what was estimated. Readings themselves never change."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection

from ipss_headend.errors import PluginError
from ipss_headend.field.fleet import FleetMeter
from ipss_headend.plugins.flags import flag_names
from ipss_headend.plugins.vee import VALIDATE, Span
from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import Change, Params, Result, method
from ipss_headend.rpc.faults import Fault
from ipss_headend.rpc.jobs import Job
from ipss_headend.rpc.methods.job import State, state
from ipss_headend.rpc.methods.read import MOST_POINTS, parsed
from ipss_headend.security.permission import Right
from ipss_headend.store import plugins as rows
from ipss_headend.store.readings import plain, scaled
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
    """`gap`, `spike`, `negative`, `roll-over`, `sum`, `register`, `clock`, `stuck`, `estimated`."""


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
