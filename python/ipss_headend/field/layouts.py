"""What the lines of each meter mean: learnt by asking the meters, once, and stored as layouts.

A register's scaler and unit are asked of a few meters of each model, and two that say the same are believed: one meter
alone, defect or stolen, scales the values of no other (R32). What a profile captures is asked of every meter the
first time that it is read after a start: a meter whose capture objects were changed would otherwise have its values
stored under other names. Meters that answer the same share a layout. A meter without a model is a model of its own.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import trio

from ipss_headend.errors import UnknownLogicalName
from ipss_headend.field.fleet import FleetMeter
from ipss_headend.field.questions import CLOCK, Attributes, Buffer, CaptureColumn, dotted, octets
from ipss_headend.field.reactor import AnswerRow, EventKind, Native
from ipss_headend.field.requests import Requests, Submission
from ipss_headend.log import Logger, logger
from ipss_headend.metrics import Figures
from ipss_headend.names import ObjectName
from ipss_headend.store import Layout, LayoutColumn, Store, WriteBatch
from ipss_headend.store.database import now_us
from ipss_headend.store.journal import RefusalRow
from ipss_headend.store.registry import intern_layouts

if TYPE_CHECKING:
    from ipss_headend._core import Priority

CLOCK_CLASS = 8
PROFILE_CLASS = 7
SCALER_UNIT = {3: 3, 4: 3, 5: 4}
"""The attribute with scaler and unit, by interface class (Blue Book: Register, Extended register, Demand register)."""

SCALED = {3: {2}, 4: {2}, 5: {2, 3}}
"""The attributes that scaler and unit belong to."""

CAPTURE_TIME = {(4, 2): 5, (5, 3): 6}
"""The attribute with the time at which another one was captured."""

CANDIDATES = 3
"""How many meters of a model are asked for a scaler at once: one of them may be silent until its deadline."""

AGREE = 2
"""So many that say the same are believed at once; one, if no other of those asked answers."""

CANDIDATE_ROUNDS = 3
"""How often others are asked when none of them knew, before the model's meters wait for the next turn."""

TEMPORARY_FAILURE = 2
"""Green Book, Data-Access-Result."""

LOGICAL_NAME_OCTETS = 6

MOST_COLUMNS = 1_000
"""Of a profile; a meter that says more is not believed."""

LONGEST_PERIOD_S = 366 * 86_400
"""Between two captures."""

ROUND_S = 0.5
"""How long meters that have said what they capture wait for others, to be read together with them."""

Found = Callable[["ProfileShape", "array[int]"], None]


class Register(NamedTuple):
    """An attribute that is read as a line of one cell."""

    class_id: int
    logical_name: bytes
    attribute: int

    def question(self, layout: int) -> Attributes:
        """The question, with the attribute that says when the value was captured, where the class has one."""
        value = (self.class_id, self.logical_name, self.attribute)
        if self.class_id == CLOCK_CLASS and self.attribute == 2:
            status = (self.class_id, self.logical_name, 4)
            return Attributes(layout, (value, status), capture_time=0)
        captured = CAPTURE_TIME.get((self.class_id, self.attribute))
        if captured is None:
            return Attributes(layout, (value,))
        return Attributes(layout, (value, (self.class_id, self.logical_name, captured)), capture_time=1)


@dataclass(frozen=True, slots=True)
class ProfileShape:
    """A profile as some meters have it: equal shapes are asked by one plan."""

    layout: int
    logical_name: bytes
    columns: int
    """Columns of an entry, the clock's included."""
    clock_column: int | None
    status_column: int | None
    period_s: int
    """Seconds between captures; 0: by events."""
    selected: tuple[CaptureColumn, ...] = ()

    def question(self) -> Buffer:
        """The buffer by range."""
        return Buffer(
            self.layout,
            self.logical_name,
            self.columns,
            clock_column=self.clock_column,
            status_column=self.status_column,
            capture_period_s=self.period_s,
            selected=self.selected,
        )


class _Profile(NamedTuple):
    """What a meter said of a profile, as it said it: its capture objects and its capture period."""

    model: str
    capture_objects: bytes
    period: bytes


_ScalerUnit = tuple[int | None, str]


class LayoutBook:
    """What is known of the meters' registers and profiles."""

    def __init__(
        self,
        *,
        store: Store,
        requests: Requests,
        native: Native,
        meters: Mapping[int, FleetMeter],
        figures: Figures,
        timeout_s: float,
    ) -> None:
        self._store = store
        self._requests = requests
        self._native = native
        self._meters = meters
        self._figures = figures
        self._timeout_s = timeout_s
        self._log: Logger = logger("layouts")
        self._scalers: dict[tuple[str, int, bytes], _ScalerUnit] = {}
        self._votes: dict[tuple[str, int, bytes], dict[int, _ScalerUnit]] = {}
        """What meters said of a scaler that is not known yet."""
        self._registers: dict[tuple[str, Register], int] = {}
        self._shapes: dict[tuple[bytes, tuple[Register, ...]], dict[int, ProfileShape]] = {}

    def register(self, name: ObjectName) -> Register:
        """What an object of a plan is: its class from the catalogue and its value, where the plan leaves them out.

        Raises:
            UnknownLogicalName: the catalogue does not know it and no class is given.
        """
        logical_name = octets(name.logical_name)
        class_id = name.class_id
        if class_id is None:
            known = self._native.catalogue(logical_name)
            if known is None:
                raise UnknownLogicalName(
                    f"{name}: the catalogue does not know this object; write its class too, such as 3/{name}"
                )
            class_id = int(known["class_id"])
        return Register(class_id, logical_name, 2 if name.attribute is None else name.attribute)

    async def registers(
        self, registers: Sequence[Register], meters: Iterable[int], priority: Priority
    ) -> dict[tuple[int, ...], array[int]]:
        """The meters by the layouts of these registers, in their order, without those whose model did not answer."""
        by_model = self._by_model(meters)
        await self._learn(
            {model: [(part.class_id, part.logical_name) for part in registers if _scaled(part)] for model in by_model},
            by_model,
            priority,
        )
        found: dict[tuple[int, ...], array[int]] = {}
        for model, members in by_model.items():
            layouts = await self._register_layouts(model, registers)
            if layouts is not None:
                found.setdefault(layouts, array("I")).extend(members)
        return found

    async def profiles(
        self, logical_name: str, columns: Sequence[Register], meters: Iterable[int], priority: Priority, found: Found
    ) -> int:
        """Hand the meters to `found`, by the shape of this profile, as soon as the shape is known.

        A silent meter keeps no other waiting. Returns how many did not say what they capture; they are left out.
        """
        profile = octets(logical_name)
        known = self._shapes.setdefault((profile, tuple(columns)), {})
        unknown = array("I")
        ready: dict[ProfileShape, array[int]] = {}
        for meter in meters:
            if meter in known:
                ready.setdefault(known[meter], array("I")).append(meter)
            else:
                unknown.append(meter)
        for shape, members in ready.items():
            found(shape, members)
        if not unknown:
            return 0
        said: dict[_Profile, array[int]] = {}
        submissions = await self._ask_profile(profile, unknown, priority, said)
        try:
            over = False
            while not over:
                over = await _over_within(ROUND_S, submissions)
                heard = dict(said)
                said.clear()
                for one, members in heard.items():
                    learnt = await self._shape(profile, columns, one, members, priority)
                    if learnt is not None:
                        known.update(dict.fromkeys(members, learnt))
                        found(learnt, members)
        finally:
            for submission in submissions:
                self._requests.withdraw(submission)
        await self._compare(logical_name, known, unknown)
        return sum(meter not in known for meter in unknown)

    def forget(self, meter: int) -> None:
        """The meter's answer did not fit: what it captures is asked again before it is read again."""
        for known in self._shapes.values():
            known.pop(meter, None)

    async def _register_layouts(self, model: str, registers: Sequence[Register]) -> tuple[int, ...] | None:
        missing = [part for part in registers if (model, part) not in self._registers and not _is_clock(part)]
        layouts = []
        for part in missing:
            column = self._column((*part, 0), model)
            if column is None:
                return None
            layouts.append(Layout(part.class_id, dotted(part.logical_name), part.attribute, (column,)))
        if layouts:
            numbers = await self._store.change(lambda connection: intern_layouts(connection, layouts))
            self._figures.layouts_learnt += len(layouts)
            self._registers.update({(model, part): number for part, number in zip(missing, numbers, strict=True)})
        return tuple(0 if _is_clock(part) else self._registers[model, part] for part in registers)

    async def _ask_profile(
        self, profile: bytes, meters: array[int], priority: Priority, said: dict[_Profile, array[int]]
    ) -> list[Submission]:
        def hear(answer: AnswerRow) -> None:
            meter, *_, cells = answer
            if cells and isinstance(cells[0], bytes):
                period = cells[1] if len(cells) > 1 and isinstance(cells[1], bytes) else b""
                said.setdefault(_Profile(self._model(meter), cells[0], period), array("I")).append(meter)

        question = Attributes(0, ((PROFILE_CLASS, profile, 3), (PROFILE_CLASS, profile, 4)))
        return await self._requests.offer(
            [question], meters, timeout_s=self._timeout_s, priority=priority, on_answer=hear
        )

    async def _shape(
        self, profile: bytes, columns: Sequence[Register], said: _Profile, members: array[int], priority: Priority
    ) -> ProfileShape | None:
        captured = self._capture_objects(said, profile)
        if captured is None:
            return None
        selected: tuple[CaptureColumn, ...] = ()
        if columns:
            wanted = set(columns)
            selected = tuple(part for part in captured if _is_clock(part) or _is_status(part) or part[:3] in wanted)
            absent = wanted - {Register(*part[:3]) for part in captured}
            if absent:
                names = ", ".join(dotted(part.logical_name) for part in absent)
                self._log.warning("profile has no such column", model=said.model, columns=names)
            captured = list(selected)
        needed = [(part[0], part[1]) for part in captured if _scaled(part)]
        await self._learn({said.model: needed}, {said.model: members}, priority)
        clock = next((place for place, part in enumerate(captured) if _is_clock(part)), None)
        cells = [self._column(part, said.model) for part in captured if not _is_clock(part)]
        if any(cell is None for cell in cells):
            return None
        layout = Layout(PROFILE_CLASS, dotted(profile), 2, tuple(cell for cell in cells if cell is not None))
        [number] = await self._store.change(lambda connection: intern_layouts(connection, [layout]))
        self._figures.layouts_learnt += 1
        return ProfileShape(
            layout=number,
            logical_name=profile,
            columns=len(captured),
            clock_column=clock,
            status_column=next((place for place, part in enumerate(captured) if _is_status(part)), None),
            period_s=self._period_s(said),
            selected=selected,
        )

    def _capture_objects(self, said: _Profile, profile: bytes) -> list[CaptureColumn] | None:
        try:
            _, entries = self._native.decode_data(said.capture_objects)
            parts = [[value for _, value in fields] for _, fields in entries]
            _whole(len(parts), 0, MOST_COLUMNS)
            found = [_capture_object(*part[:4]) for part in parts]
        except (ValueError, TypeError, IndexError) as error:
            self._log.warning(
                "capture objects not understood", profile=dotted(profile), model=said.model, why=str(error)
            )
            return None
        return found or None

    def _period_s(self, said: _Profile) -> int:
        try:
            return _whole(self._native.decode_data(said.period)[1], 0, LONGEST_PERIOD_S)
        except (ValueError, TypeError, IndexError):
            return 0  # a meter that does not say is asked by the plan's period

    def _column(self, part: CaptureColumn, model: str) -> LayoutColumn | None:
        class_id, logical_name, attribute, data_index = part
        scaler, unit = None, ""
        if _scaled(part):
            known = self._scalers.get((model, class_id, logical_name))
            if known is None:
                return None
            scaler, unit = known
        catalogued = self._native.catalogue(logical_name)
        return LayoutColumn(
            class_id=class_id,
            logical_name=dotted(logical_name),
            attribute=attribute,
            data_index=data_index,
            scaler=scaler,
            unit=unit,
            name="" if catalogued is None else str(catalogued["name"]),
        )

    async def _learn(
        self,
        needed: Mapping[str, Sequence[tuple[int, bytes]]],
        members: Mapping[str, Sequence[int]],
        priority: Priority,
    ) -> None:
        """Ask for the scalers and units that are not known yet: a few meters of each model, all models at once."""
        for first in range(0, CANDIDATES * CANDIDATE_ROUNDS, CANDIDATES):
            asked: dict[tuple[tuple[int, bytes], ...], array[int]] = {}
            for model, objects in needed.items():
                missing = tuple(dict.fromkeys(part for part in objects if (model, *part) not in self._scalers))
                candidates = members[model][first : first + CANDIDATES]
                if missing and candidates:
                    asked.setdefault(missing, array("I")).extend(candidates)
            if not asked:
                return
            submissions = []
            for missing, meters in asked.items():
                submissions += await self._requests.offer(
                    [Attributes(0, ((*part, SCALER_UNIT[part[0]]),)) for part in missing],
                    meters,
                    timeout_s=self._timeout_s,
                    priority=priority,
                    on_answer=partial(self._hear_scaler, missing),
                    on_refusal=partial(self._hear_refusal, missing),
                )
            try:
                while not await _over_within(ROUND_S, submissions):
                    if all((model, *part) in self._scalers for model in needed for part in needed[model]):
                        break
            finally:
                for submission in submissions:
                    self._requests.withdraw(submission)
            self._count_votes([(model, *part) for model in needed for part in needed[model]])

    def _vote(self, meter: int, part: tuple[int, bytes], said: _ScalerUnit) -> None:
        key = (self._model(meter), *part)
        if key in self._scalers:
            return
        votes = self._votes.setdefault(key, {})
        votes[meter] = said
        if list(votes.values()).count(said) >= AGREE:
            self._scalers[key] = said
            if len(set(votes.values())) > 1:
                self._differ(key, votes)
            del self._votes[key]

    def _count_votes(self, asked: Iterable[tuple[str, int, bytes]]) -> None:
        """A round is over: what one meter alone has said holds; where they differ, others are asked."""
        for key in asked:
            votes = self._votes.get(key)
            if votes is not None and len(votes) == 1:
                [self._scalers[key]] = votes.values()
                del self._votes[key]
            elif votes is not None:
                self._differ(key, votes)

    def _differ(self, key: tuple[str, int, bytes], votes: Mapping[int, _ScalerUnit]) -> None:
        said = {self._meters[meter].name: f"10^{scaler} {unit}" for meter, (scaler, unit) in votes.items()}
        self._log.warning("meters of one model scale differently", model=key[0], object=dotted(key[2]), said=said)

    def _hear_scaler(self, missing: Sequence[tuple[int, bytes]], answer: AnswerRow) -> None:
        meter, _, item, *_, cells = answer
        found: _ScalerUnit = (None, "")  # a null scaler-unit is an answer too: the value has neither
        if cells and isinstance(cells[0], bytes):
            try:
                _, [(_, scaler), (_, unit)] = self._native.decode_data(cells[0])
                found = (_whole(scaler, -128, 127), self._native.unit_symbol(_whole(unit, 0, 255)))
            except (ValueError, TypeError) as error:
                name = dotted(missing[item][1])
                self._log.warning("scaler and unit not understood", object=name, meter_id=meter, why=str(error))
        self._vote(meter, missing[item], found)

    def _hear_refusal(self, missing: Sequence[tuple[int, bytes]], refusal: RefusalRow) -> None:
        meter, _, item, code = refusal
        if code != TEMPORARY_FAILURE:  # who cannot say it now has not said that there is none
            self._vote(meter, missing[item], (None, ""))

    async def _compare(self, logical_name: str, known: Mapping[int, ProfileShape], asked: Iterable[int]) -> None:
        """Tell when meters of one model do not capture the same."""
        first: dict[str, int] = {}
        for meter in known:
            first.setdefault(self._model(meter), meter)
        events = []
        for meter in asked:
            shape = known.get(meter)
            if shape is None:
                continue
            model_meter = first[self._model(meter)]
            if shape != known[model_meter]:
                detail = f"{logical_name}: other columns than {self._meters[model_meter].name} of the same model"
                events.append((meter, now_us(), int(EventKind.COLUMNS_DIFFER), shape.columns, detail))
        if events:
            self._log.warning("meters of one model capture different columns", profile=logical_name, meters=len(events))
            await self._store.write(WriteBatch(events=events))

    def _by_model(self, meters: Iterable[int]) -> dict[str, array[int]]:
        found: dict[str, array[int]] = {}
        for meter in meters:
            found.setdefault(self._model(meter), array("I")).append(meter)
        return found

    def _model(self, meter: int) -> str:
        return self._meters[meter].model or f"#{meter}"


def _whole(value: object, least: int, most: int) -> int:
    """A number as its type in the standard can be: a meter may say any other, in any type.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{str(value)[:40]} is not from {least} to {most}")
    return value


def _capture_object(class_id: object, logical_name: str, attribute: object, data_index: object) -> CaptureColumn:
    name = bytes.fromhex(logical_name)
    if len(name) != LOGICAL_NAME_OCTETS:
        raise ValueError(f"a logical name of {len(name)} octets")
    return _whole(class_id, 0, 0xFFFF), name, _whole(attribute, -128, 127), _whole(data_index, 0, 0xFFFF)


async def _over_within(seconds: float, submissions: Iterable[Submission]) -> bool:
    """Whether all of them are over, now or after a while."""
    with trio.move_on_after(seconds):
        for submission in submissions:
            await submission.over.wait()
        return True
    return False


def _scaled(part: CaptureColumn | Register) -> bool:
    return part[2] in SCALED.get(part[0], ())


def _is_clock(part: CaptureColumn | Register) -> bool:
    return part[0] == CLOCK_CLASS and part[1] == CLOCK and part[2] == 2


def _is_status(part: CaptureColumn | Register) -> bool:
    # Blue Book, "Profile status": 0-b:96.10.x.255.
    return part[0] == 1 and part[1][:1] == b"\x00" and part[1][2:4] == bytes((96, 10)) and part[2] == 2
