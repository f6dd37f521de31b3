"""`read.*`: values. From the store at once (`last`, `series`), or from the meter (`now`)."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from ipss_headend import errors
from ipss_headend.field.fleet import FleetMeter
from ipss_headend.field.requests import answered
from ipss_headend.field.results import result_name
from ipss_headend.names import ObjectName
from ipss_headend.plugins.flags import flag_names
from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import Change, Empty, Params, Result, method
from ipss_headend.rpc.faults import Fault, fault_of
from ipss_headend.rpc.jobs import Job
from ipss_headend.rpc.methods.job import State, state
from ipss_headend.security.permission import Right
from ipss_headend.store.database import now_us
from ipss_headend.store.export import quality_text
from ipss_headend.store.latest import TOGETHER
from ipss_headend.store.plugins import flags
from ipss_headend.store.readings import Line, plain, scaled
from ipss_headend.store.readings import series as stored_series
from ipss_headend.store.registry import Layout, LayoutColumn, all_layouts

if TYPE_CHECKING:
    from ipss_headend.config import PlanConfig
    from ipss_headend.field.layouts import Register
    from ipss_headend.field.reactor import AnswerRow
    from ipss_headend.rpc.call import Services
    from ipss_headend.store.journal import EndRow

LONGEST_PAGE = 10_000
MOST_POINTS = 10_000
MOST_ITEMS = 100
ITEMS_KEPT = 10_000
"""Objects as callers write them; more begin anew."""
DEFAULT_S = 60.0
PROFILE_CLASS = 7


class Points(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Values of meters."""

    points: list[str]
    """Names of meters."""
    items: list[str]
    """Objects: `1.0.1.8.0.255`, `1-0:1.8.0*255`, `3/1.0.1.8.0.255:2`."""


class Value(msgspec.Struct, frozen=True):
    """One value of one meter. `value` is the exact decimal; what is no number stands in `raw` as the meter said it."""

    point: str
    item: str
    value: str | None
    unit: str
    raw: bytes | None
    capture_ms: int
    received_ms: int
    age_ms: int
    """Since it was received."""
    quality: str
    source: str
    """The object that it was read from: the register itself, or a profile that captures it."""


class Values(Result, frozen=True):
    """What is known. `missing` names what no value was ever stored of."""

    values: list[Value]
    missing: list[tuple[str, str]]


class Ask(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ask meters now."""

    device: str | None = None
    devices: list[str] = []  # noqa: RUF012 - msgspec copies it
    """Several: the answer is a job."""
    items: list[str]
    max_age_ms: int = 0
    """A stored value that is no older than this is as good as a new one."""


class Asked(Result, frozen=True):
    """Values, or the job that gets them."""

    values: list[Value]
    refused: list[tuple[str, str]]
    """What the meter said no to."""
    job: State | None = None


class Period(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A series: capture times from `from_ms` to before `to_ms`."""

    point: str
    item: str
    from_ms: int
    to_ms: int
    as_of_ms: int | None = None
    """Only what had been received by then: what a bill of that day could know."""
    limit: int = LONGEST_PAGE


class Series(Result, frozen=True):
    """A series in columns. Where `cursor_ms` is not None, go on with it as `from_ms`."""

    point: str
    item: str
    unit: str
    start_ms: int | None
    step_ms: int | None
    """The distance of neighbours, where all are the same."""
    times_ms: list[int]
    values: list[str | None]
    flags: list[str]
    """`good`, or what is to be known of the value."""
    sources: list[str]
    validation: list[list[str]]
    """What plugins said of each value: `spike`, `negative`, ...; vee.flags has what is missing, too."""
    cursor_ms: int | None


class PlanState(msgspec.Struct, frozen=True):
    """A read plan and its latest turn."""

    name: str
    every_s: int
    items: list[str]
    profile: str | None
    groups: list[str]
    turn_ms: int
    asked: int
    done: int
    failed: int
    pending: int
    completeness_ppm: int
    """Of a million."""
    configured: bool
    """It is the configuration's; otherwise read.schedule.set made it."""


class PlanNamed(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A read plan."""

    name: str


class PlanGone(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A read plan."""

    name: str


class Schedule(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A read plan, as `[[plans]]` in docs/configuration.md has it. What is left out has the default of there."""

    name: str
    every: str
    """`15min`, `1d at 00:10`."""
    objects: list[str] = []  # noqa: RUF012 - msgspec copies it
    profile: str | None = None
    columns: list[str] = []  # noqa: RUF012
    period: str | None = None
    window: str | None = None
    priority: str | None = None
    backfill_days: int | None = None
    clock_limit: str | None = None
    groups: list[str] = []  # noqa: RUF012
    """Only meters of these; none: all."""


class OnePlan(Result, frozen=True):
    """A read plan."""

    plan: PlanState


class Plans(Result, frozen=True):
    """The read plans."""

    plans: list[PlanState]


@method("read.last", Right.VIEW, example={"points": ["virtual-00001"], "items": ["1.0.1.8.0.255"]})
def last(call: Call, params: Points) -> Values | Awaitable[Values]:
    """The newest stored values. Never asks a meter: a value's age says how old it is."""
    if len(params.points) > MOST_POINTS or len(params.items) > MOST_ITEMS:
        raise Fault("E_PARAMS", f"at most {MOST_POINTS} points and {MOST_ITEMS} items a call")
    book = call.services.layouts
    meters = [call.meter(name, Right.VIEW) for name in params.points]
    if book.learnt != call.services.figures.layouts_learnt:
        return _load_last(call, meters, params.items)
    try:
        return _last(meters, _places(book, params.items), call.services.latest.kept)
    except KeyError:
        return _load_last(call, meters, params.items)


async def _load_last(call: Call, meters: Sequence[FleetMeter], items: Sequence[str]) -> Values:
    services = call.services
    book, latest = services.layouts, services.latest
    learnt = services.figures.layouts_learnt
    if book.learnt != learnt:
        await book.refresh(services.store)
        book.learnt = learnt
    asked = _places(book, items)
    wanted = [(meter.meter_id, place.layout_id) for meter in meters for _, places in asked for place in places]
    if len(wanted) <= TOGETHER:
        await latest.fill(services.store, wanted)
        with suppress(KeyError):  # what was kept began anew in between
            return _last(meters, asked, latest.kept)
    loaded = await services.store.read(lambda connection: latest.load(connection, wanted))
    latest.keep(loaded)
    return _last(meters, asked, loaded)


def _places(book: Layouts, items: Sequence[str]) -> list[tuple[str, tuple[Place, ...]]]:
    """Where each object is found.

    Raises:
        Fault: an item is no object.
    """
    return [(item, book.places(item)) for item in items]


def _last(
    meters: Sequence[FleetMeter],
    asked: Sequence[tuple[str, tuple[Place, ...]]],
    lines: Mapping[tuple[int, int], Line | None],
) -> Values:
    """The newest values in these lines.

    Raises:
        KeyError: a line has to be loaded first.
    """
    moment_us = now_us()
    values: list[Value] = []
    missing: list[tuple[str, str]] = []
    for meter in meters:
        point, meter_id = meter.name, meter.meter_id
        for item, places in asked:
            newest: Line | None = None
            for place in places:
                line = lines[meter_id, place.layout_id]
                if line is None or place.index >= len(line.cells):
                    continue
                if newest is None or line.capture_time_us > newest.capture_time_us:
                    newest, where = line, place
            if newest is None:
                missing.append((point, item))
            else:
                values.append(_value(point, item, where, newest, moment_us))
    return Values(values=values, missing=missing)


def value_of(point: str, item: str, name: ObjectName, line: Line, layout: Layout, moment_us: int) -> Value | None:
    """The value of an object in a line that has it."""
    place = place_of(name, line.layout_id, layout)
    return None if place is None or place.index >= len(line.cells) else _value(point, item, place, line, moment_us)


def _value(point: str, item: str, place: Place, line: Line, moment_us: int) -> Value:
    cell, scaler = line.cells[place.index], place.column.scaler
    text = None
    if isinstance(cell, int):
        text = plain(scaled(cell, scaler)) if scaler else f"{cell:d}"
    return Value(
        point,
        item,
        text,
        place.column.unit,
        cell if isinstance(cell, bytes) else None,
        line.capture_time_us // 1000,
        line.received_us // 1000,
        (moment_us - line.received_us) // 1000,
        quality_text(line.quality),
        place.source,
    )


@method("read.now", Right.READ, example={"device": "virtual-00001", "items": ["1.0.1.8.0.255"]})
async def now(call: Call, params: Ask) -> Asked:
    """Ask a meter and answer with what it said, which is stored; several meters: as a job.

    Equal questions that are on their way already are shared.
    """
    services = call.services
    names = [*([params.device] if params.device is not None else []), *params.devices]
    if not names:
        raise Fault("E_PARAMS", "device or devices: name a meter")
    if len(names) > MOST_POINTS or not 1 <= len(params.items) <= MOST_ITEMS:
        raise Fault("E_PARAMS", f"at most {MOST_POINTS} devices and {MOST_ITEMS} items a call, and one of each")
    meters = [call.meter(name, Right.READ) for name in names]
    registers = [register_of(call, item) for item in params.items]
    timeout_s = DEFAULT_S if params.deadline_ms is None else params.deadline_ms / 1000
    if params.device is not None and not params.devices:
        return await _ask_one(call, meters[0], params, registers, timeout_s)

    async def work(job: Job) -> None:
        await services.asking.job(services, job, meters, params.items, registers, timeout_s)

    try:
        job = services.jobs.start("read.now", call.principal.name, names, work)
    except RuntimeError as error:
        raise Fault("E_BUSY", str(error)) from error
    return Asked(values=[], refused=[], job=state(job))


async def _ask_one(
    call: Call, meter: FleetMeter, params: Ask, registers: Sequence[Register], timeout_s: float
) -> Asked:
    if params.max_age_ms > 0:
        known = last(call, Points(points=[meter.name], items=params.items))
        stored = known if isinstance(known, Values) else await known
        if not stored.missing and all(value.age_ms <= params.max_age_ms for value in stored.values):
            return Asked(values=stored.values, refused=[])
    return await call.services.asking.one(call.services, meter, params.items, registers, timeout_s)


@method(
    "read.series",
    Right.VIEW,
    example={"point": "virtual-00001", "item": "1.0.1.8.0.255", "from_ms": 0, "to_ms": 4102444800000, "limit": 4},
)
async def series(call: Call, params: Period) -> Series:
    """Stored values of one object by capture time, whatever they were read from."""
    services = call.services
    meter = call.meter(params.point, Right.VIEW)
    name = parsed(params.item)
    limit = min(max(params.limit, 1), LONGEST_PAGE)
    if params.to_ms < params.from_ms:
        raise Fault("E_PARAMS", f"to_ms: {params.to_ms} is before from_ms, {params.from_ms}")
    await services.layouts.refresh(services.store)
    layouts = [place.layout_id for place in services.layouts.places(params.item)]
    latest_us = None if params.as_of_ms is None else params.as_of_ms * 1000 + 999
    said: dict[tuple[str, int], list[str]] = {}

    def read(connection: Any) -> list[Value]:
        for row in flags(connection, meter.meter_id, params.from_ms * 1000, params.to_ms * 1000):
            layout = services.layouts.layout(row.layout_id)
            if layout.columns[row.place].logical_name == name.logical_name:
                said[layout.logical_name, row.capture_time_us // 1000] = flag_names(row.flags)
        found: list[Value] = []
        for layout_id in layouts:
            layout = services.layouts.layout(layout_id)
            taken = 0
            for line in stored_series(
                connection, [meter.meter_id], [layout_id], params.from_ms * 1000, params.to_ms * 1000
            ):
                if latest_us is not None and line.received_us > latest_us:
                    continue
                value = value_of(meter.name, params.item, name, line, layout, line.received_us)
                if value is not None:
                    found.append(value)
                    taken += 1
                if taken > limit:
                    break
        return sorted(found, key=lambda value: value.capture_ms)

    found = await services.store.read(read)
    page = found[:limit]
    more = found[limit] if len(found) > limit else None
    times = [value.capture_ms for value in page]
    steps = {after - before for before, after in pairwise(times)}
    return Series(
        point=meter.name,
        item=params.item,
        unit=page[0].unit if page else "",
        start_ms=times[0] if times else None,
        step_ms=steps.pop() if len(steps) == 1 else None,
        times_ms=times,
        values=[value.value for value in page],
        flags=[value.quality for value in page],
        sources=[value.source for value in page],
        validation=[said.get((value.source, value.capture_ms), []) for value in page],
        cursor_ms=None if more is None else more.capture_ms,
    )


@method("read.schedule.list", Right.VIEW, example={})
def schedules(call: Call, params: Params) -> Plans:
    """The read plans, and how their latest turn goes."""
    return Plans(plans=[_state(call, plan, configured) for plan, configured in call.services.schedules.plans])


@method("read.schedule.status", Right.VIEW)
def schedule_status(call: Call, params: PlanNamed) -> OnePlan:
    """One read plan, and how its latest turn goes: what was asked, what was read, how complete that is."""
    for plan, configured in call.services.schedules.plans:
        if plan.name == params.name:
            return OnePlan(plan=_state(call, plan, configured))
    raise Fault("E_UNKNOWN", f'no read plan is called "{params.name[:128]}"; read.schedule.list shows them')


@method(
    "read.schedule.set",
    Right.MANAGE,
    example={"name": "night registers", "every": "1d at 02:00", "objects": ["1.0.1.8.0.255"]},
)
async def set_schedule(call: Call, params: Schedule) -> OnePlan:
    """Make a read plan, or change one that was made so. It is kept, and its turn that is due is taken at once.

    The fields are those of `[[plans]]` in the configuration; its own plans are changed there.
    """
    _reach(call, params.groups)
    for known, configured in call.services.schedules.plans:
        if known.name == params.name and not configured:
            _reach(call, list(known.groups))  # what it replaces
    own = ("name", "key", "deadline_ms")
    given = {
        field.name: value
        for field in msgspec.structs.fields(params)
        if field.name not in own and (value := getattr(params, field.name)) not in (None, [])
    }
    plan = await call.services.schedules.set(params.name, given, call.principal.name)
    return OnePlan(plan=_state(call, plan, configured=False))


@method("read.schedule.remove", Right.MANAGE)
async def remove_schedule(call: Call, params: PlanGone) -> Empty:
    """End a read plan that was made by read.schedule.set, and forget it. What it read stays."""
    for plan, configured in call.services.schedules.plans:
        if plan.name == params.name and not configured:
            _reach(call, list(plan.groups))
            await call.services.schedules.remove(params.name, call.principal.name)
            return Empty()
    raise Fault("E_UNKNOWN", f'no read plan "{params.name[:128]}" was made by read.schedule.set')


def _reach(call: Call, groups: Sequence[str]) -> None:
    if not call.principal.everywhere(Right.MANAGE) and (not groups or not all(map(call.reaches, groups))):
        raise Fault("E_DENIED", f"{call.method}: groups: name groups of yours; a plan without groups reads every meter")


def _state(call: Call, plan: PlanConfig, configured: bool) -> PlanState:
    figures = call.services.figures.plan(plan.name)
    return PlanState(
        plan.name,
        plan.every.period_s,
        [str(name) for name in plan.objects],
        plan.profile,
        list(plan.groups),
        figures.turn_us // 1000,
        figures.asked,
        figures.done,
        figures.failed,
        figures.pending,
        round(figures.completeness * 1_000_000),
        configured,
    )


def parsed(item: str) -> ObjectName:
    """An object by its name.

    Raises:
        Fault: it is none.
    """
    try:
        return ObjectName.parse(item)
    except errors.UnknownLogicalName as error:
        raise Fault("E_PARAMS", str(error)) from error


def register_of(call: Call, item: str) -> Register:
    """What is asked of a meter for an object.

    Raises:
        Fault: it is none, or one that is not read so.
    """
    try:
        register = call.services.field.layouts.register(parsed(item))
    except errors.UnknownLogicalName as error:
        raise Fault("E_PARAMS", str(error)) from error
    if register.class_id == PROFILE_CLASS and register.attribute == 2:
        raise Fault("E_PARAMS", f"{item}: a profile's buffer is read by plans; read.series has what they read")
    return register


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object stands in the lines of a layout."""

    layout_id: int
    index: int
    column: LayoutColumn
    source: str
    """The object that lines of the layout are read from."""


def place_of(name: ObjectName, layout_id: int, layout: Layout) -> Place | None:
    """Where an object stands in a layout; None: it does not."""
    for index, column in enumerate(layout.columns):
        if column.logical_name == name.logical_name and name.class_id in {None, column.class_id}:
            return Place(layout_id, index, column, layout.logical_name)
    return None


class Layouts:
    """The layouts of the store, and which of them have an object."""

    def __init__(self) -> None:
        self._layouts: dict[int, Layout] = {}
        self._places: dict[str, tuple[Place, ...]] = {}
        self.learnt = -1
        """How many layouts the field had learnt when this was refreshed."""

    def places(self, item: str) -> tuple[Place, ...]:
        """Where an object is found, as somebody writes it.

        Raises:
            Fault: it is none.
        """
        found = self._places.get(item)
        if found is None:
            if len(self._places) >= ITEMS_KEPT:
                self._places.clear()
            name = parsed(item)
            places = (place_of(name, number, layout) for number, layout in self._layouts.items())
            found = self._places[item] = tuple(place for place in places if place is not None)
        return found

    def layout(self, number: int) -> Layout:
        """The layout of this number."""
        return self._layouts[number]

    async def refresh(self, store: Any) -> None:
        """Take up what was learnt since."""
        known = await store.read(lambda connection: all_layouts(connection))
        if len(known) != len(self._layouts):
            self._layouts = known
            self._places.clear()


@dataclass(slots=True)
class _Shared:
    """A question on its way, and what came of it."""

    over: trio.Event = dataclasses.field(default_factory=trio.Event)
    answer: Asked | Fault | None = None


class Asking:
    """Questions to meters for callers: equal ones share their way."""

    def __init__(self) -> None:
        self._on_the_way: dict[tuple[int, tuple[Register, ...]], _Shared] = {}

    async def one(
        self,
        services: Services,
        meter: FleetMeter,
        items: Sequence[str],
        registers: Sequence[Register],
        timeout_s: float,
    ) -> Asked:
        """Ask one meter.

        Raises:
            Fault: it did not answer.
        """
        key = (meter.meter_id, tuple(registers))
        known = self._on_the_way.get(key)
        if known is not None:
            await known.over.wait()
            if isinstance(known.answer, Asked):
                return known.answer
            if known.answer is not None:
                raise Fault(known.answer.code, known.answer.text)
            # Whoever asked gave up: it is asked anew.
        shared = self._on_the_way[key] = _Shared()
        try:
            shared.answer = answer = await _ask(services, meter, items, registers, timeout_s)
        except Exception as error:
            shared.answer = fault_of(error)
            raise
        finally:
            if self._on_the_way.get(key) is shared:
                del self._on_the_way[key]
            shared.over.set()
        return answer

    async def job(
        self,
        services: Services,
        job: Job,
        meters: Iterable[FleetMeter],
        items: Sequence[str],
        registers: Sequence[Register],
        timeout_s: float,
    ) -> None:
        """Ask several meters, each at its own pace."""
        room = trio.CapacityLimiter(200)

        async def ask(meter: FleetMeter) -> None:
            async with room:
                try:
                    answer = await self.one(services, meter, items, registers, timeout_s)
                except Exception as error:
                    fault = fault_of(error)
                    if fault is None:
                        raise
                    job.note(meter.name, {"ok": False, "error": str(fault)})
                else:
                    job.note(meter.name, {"ok": True, **msgspec.to_builtins(answer)})

        async with trio.open_nursery() as nursery:
            for meter in meters:
                nursery.start_soon(ask, meter)


async def _ask(
    services: Services, meter: FleetMeter, items: Sequence[str], registers: Sequence[Register], timeout_s: float
) -> Asked:
    field = services.field
    known = await field.layouts.registers(registers, [meter.meter_id], "on-demand")
    if not known:
        raise Fault("E_TIMEOUT", f"{meter.name}: it did not say what these objects are; it may be unreachable")
    [(layouts, _)] = known.items()
    refused: dict[int, int] = {}
    answers: dict[int, AnswerRow] = {}
    ends: list[EndRow] = []
    try:
        submission = field.requests.submit(
            [register.question(layout) for register, layout in zip(registers, layouts, strict=True)],
            array("I", (meter.meter_id,)),
            timeout_s=timeout_s,
            priority="on-demand",
            attempts=1,
            on_answer=lambda answer: answers.__setitem__(answer[2], answer),
            on_refusal=lambda refusal: refused.__setitem__(refusal[2], refusal[3]),
            on_end=ends.append,
        )
    except RuntimeError as error:
        raise Fault("E_BUSY", f"{meter.name}: not asked: {error}; try again later") from error
    await field.requests.finish([submission])
    answered(meter.name, ends[0])
    await services.layouts.refresh(services.store)
    wanted = [(meter.meter_id, layout) for layout in layouts if layout]
    loaded = await services.store.read(lambda connection: services.latest.load(connection, wanted))
    moment_us = now_us()
    values = []
    for place, (item, layout_id) in enumerate(zip(items, layouts, strict=True)):
        line = loaded.get((meter.meter_id, layout_id))
        value: Value | None = None
        if place in answers:  # a clock's moment, which is told and not stored
            captured_us = answers[place][3]
            moment_ms = moment_us // 1000
            captured_ms = moment_ms if captured_us is None else captured_us // 1000
            source = parsed(item).logical_name
            value = Value(meter.name, item, None, "", None, captured_ms, moment_ms, 0, "good", source)
        elif place not in refused and line is not None:
            value = value_of(meter.name, item, parsed(item), line, services.layouts.layout(layout_id), moment_us)
        if value is not None:
            values.append(value)
    return Asked(values=values, refused=[(items[place], result_name(code)) for place, code in refused.items()])
