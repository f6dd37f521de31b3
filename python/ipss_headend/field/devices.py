"""Modbus devices are read by what they are: SunSpec models, or the register map that their model in the registry names.

Each class of points (`fast`, `slow`, `once`) is one question to a device and one line in the store. What is asked is
grouped by layout, so that ten thousand devices of one map are a few submissions. Values stay exact integers: a column
has one scaler, and a value that does not fit it is left out rather than rounded.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import trio

from ipss_headend.errors import ConfigError, HeadEndError, MeterError, StaleOwner, StoreDamaged, StoreFailed
from ipss_headend.field.questions import Registers
from ipss_headend.log import Logger, logger
from ipss_headend.store import Layout, LayoutColumn, Store, WriteBatch, reading_row
from ipss_headend.store.database import now_us
from ipss_headend.store.latest import Latest
from ipss_headend.store.registry import intern_layouts

if TYPE_CHECKING:
    from ipss_headend.config import ModbusConfig
    from ipss_headend.field.der.desk import SetPoints
    from ipss_headend.field.fleet import FleetMeter
    from ipss_headend.field.reactor import AnswerRow
    from ipss_headend.field.requests import Requests
    from ipss_headend.metrics import Figures
    from ipss_headend.store.records import ReadingRow

REGISTER_CLASS = 3
SUNSPEC = "sunspec"
"""The model, in the registry, of a device that says itself what it has; so does one without a model."""

AT_ONCE = 64
"""Devices that are asked what they have at the same time."""

ANSWER_S = 8.0
REST_S = 60.0
"""Before a device that did not say what it has is asked again."""

LARGEST = (1 << 63) - 1

CAPTURED = (
    (701, "W", "W", "1.0.16.7.0.255", "fast"),
    (701, "Hz", "Hz", "1.0.14.7.0.255", "fast"),
    (701, "TotWhInj", "Wh", "1.0.2.8.0.255", "slow"),
    (701, "TotWhAbs", "Wh", "1.0.1.8.0.255", "slow"),
    (704, "WMaxLimPctEna", "", "", "fast"),
    (704, "WMaxLimPct", "%", "", "fast"),
    (713, "SoC", "%", "", "fast"),
    *((model, "W", "W", "1.0.16.7.0.255", "fast") for model in (103, 102, 101, 203, 202, 201, 204)),
    *((model, "Hz", "Hz", "1.0.14.7.0.255", "fast") for model in (103, 102, 101, 203, 202, 201, 204)),
    *((model, "WH", "Wh", "1.0.2.8.0.255", "slow") for model in (103, 102, 101)),
    *((model, "TotWhImp", "Wh", "1.0.1.8.0.255", "slow") for model in (203, 202, 201, 204)),
    *((model, "TotWhExp", "Wh", "1.0.2.8.0.255", "slow") for model in (203, 202, 201, 204)),
)
"""What is captured of SunSpec devices: model, point, unit, reading, class. A reading is taken from its first model."""

FACTORS = {"WMaxLimPct": "WMaxLimPct_SF", "SoC": "Pct_SF", "W": "W_SF", "Hz": "Hz_SF", "WH": "WH_SF"}
"""The scale factors of the captured points; those of `TotWh...` are `TotWh_SF`."""

SCALE_FACTORS = range(-10, 11)
"""SunSpec's own bounds."""

DECIMALS = {1: 3, 2: 3, 4: 0}
"""Decimals kept beyond a point's own scale, by its registers: for floats and for factors."""


class Source(Protocol):
    """What one kind of device says: its questions, and what the answers mean."""

    key: tuple[object, ...]
    """Devices of equal keys are asked the same."""
    revision: int
    """Another one when the columns are others since an answer was taken: its line needs another layout."""

    def columns(self, poll: str) -> list[LayoutColumn]:
        """The columns of a class's line, none if it has none."""

    def question(self, poll: str) -> Registers:
        """What is asked for it."""

    def cells(self, poll: str, answer: Sequence[int | bytes | None]) -> list[int | bytes | None]:
        """The line of an answer."""


class MapSource:
    """A device by its register map."""

    def __init__(self, native: Any, name: str, files: list[tuple[str, str]]) -> None:
        """Take the map.

        Raises:
            ValueError: there is none of this name, or a file is wrong.
        """
        self.key: tuple[object, ...] = ("map", name)
        self.revision = 0
        self._name = name
        self._map = native.RegisterMap(name, files)
        self._points = {point[0]: point for point in self._map.points()}
        self._wanted: dict[str, list[str]] = {}
        self._asked: dict[str, list[str]] = {}
        for poll in ("fast", "slow", "once"):
            wanted = [name for name, point in self._points.items() if point[6] == poll]
            factors = [self._points[name][7] for name in wanted]
            self._wanted[poll] = wanted
            self._asked[poll] = list(dict.fromkeys([*wanted, *(one for one in factors if one in self._points)]))

    def columns(self, poll: str) -> list[LayoutColumn]:
        """The columns of a class's line."""
        found = []
        for name in self._wanted[poll]:
            _, _, _, count, unit, reading, _, factor, scale, is_number = self._points[name]
            plain = count == 1 and factor is None
            scaler = (scale if plain else scale - DECIMALS.get(count, 0)) if is_number else None
            found.append(LayoutColumn(REGISTER_CLASS, reading or name, 2, 0, scaler, unit, name))
        return found

    def question(self, poll: str) -> Registers:
        """What is asked for it."""
        return Registers(tuple((one[1], one[2], one[3]) for one in (self._points[name] for name in self._asked[poll])))

    def cells(self, poll: str, answer: Sequence[int | bytes | None]) -> list[int | bytes | None]:
        """The line of an answer."""
        said = dict(zip(self._asked[poll], answer, strict=False))
        found: list[int | bytes | None] = []
        for name, column in zip(self._wanted[poll], self.columns(poll), strict=True):
            text = self.value(name, said)
            if text is None or column.scaler is not None:
                found.append(mantissa(text, column.scaler or 0))
            else:
                found.append(text.encode())
        return found

    def value(self, name: str, said: Mapping[str, int | bytes | None]) -> str | None:
        """A point's value among the registers of these points."""
        octets, from_point = said.get(name), self._points[name][7]
        if not isinstance(octets, bytes):
            return None
        factor = None
        if from_point is not None:
            raw = said.get(from_point)
            text = self._map.read(from_point, raw) if isinstance(raw, bytes) else None
            factor = int(Decimal(text)) if text is not None else None
        read: str | None = self._map.read(name, octets, factor)
        return read

    def points(self, names: Sequence[str]) -> list[str]:
        """These points, and those that their values need. Raises ValueError for one that the map does not have."""
        for name in names:
            if name not in self._points:
                raise ValueError(f"{self._name} has no point {name}; it has {', '.join(sorted(self._points))}")
        factors = [self._points[name][7] for name in names]
        return list(dict.fromkeys([*names, *(one for one in factors if one in self._points)]))

    def registers(self, names: Sequence[str]) -> list[tuple[str, int, int]]:
        """Where points stand: table, address, registers."""
        return [(self._points[name][1], self._points[name][2], self._points[name][3]) for name in names]

    @property
    def treatment(self) -> tuple[int, int, int]:
        """Registers of one read, milliseconds between requests, requests at once."""
        found: tuple[int, int, int] = self._map.treatment
        return found

    def critical(self) -> list[tuple[str, str, int, int, str]]:
        """Points whose write switches or limits supply: name, table, address, registers, `switch` or `limit`."""
        return list(self._map.critical())

    def unit(self, name: str) -> str:
        """A point's unit."""
        return str(self._points[name][4])


class SunSpecSource:
    """A device by the SunSpec models that it has."""

    def __init__(self, line: Any) -> None:
        """Take a line whose models are known."""
        self._line = line
        taken: dict[str, tuple[int, str, str, str, str]] = {}
        for one in CAPTURED:
            model, point, _, reading, _ = one
            if model in line.models and line.has((model, point)) and (model, point) in line.values([(model, point)]):
                taken.setdefault(reading or f"{model}/{point}", one)
        self._points = {
            poll: [(name, one) for name, one in taken.items() if one[4] == poll] for poll in ("fast", "slow", "once")
        }
        self._scalers = {(one[0], one[1]): self._factor(one) or 0 for one in taken.values()}
        self.key: tuple[object, ...] = ("sunspec", line.meter_id)
        self.revision = 0

    def columns(self, poll: str) -> list[LayoutColumn]:
        """The columns of a class's line."""
        return [
            LayoutColumn(REGISTER_CLASS, name, 2, 0, self._scalers[one[0], one[1]], one[2], f"{one[0]} {one[1]}")
            for name, one in self._points[poll]
        ]

    def question(self, poll: str) -> Registers:
        """What is asked for it."""
        question: Registers = self._line.question([*self._places(poll), *self._factors(poll)])
        return question

    def cells(self, poll: str, answer: Sequence[int | bytes | None]) -> list[int | bytes | None]:
        """The line of an answer.

        What was refused has no value: what the device said before is of another moment. Neither has what has a scale
        factor that cannot be used, as some devices have it at night: unscaled it would be wrong by powers of ten.
        """
        places = self._places(poll)
        values = self._line.values(self._line.take([*places, *self._factors(poll)], answer))
        for _, one in self._points[poll]:
            # Some devices change their scale factors while they run: the scaler follows to what is finer.
            place, now = (one[0], one[1]), self._factor(one)
            if now is None:
                values.pop(place, None)
            elif now < self._scalers[place]:
                self._scalers[place] = now
                self.revision += 1
        return [
            mantissa(None if (value := values.get(place)) is None else str(value), self._scalers[place])
            for place in places
        ]

    def _places(self, poll: str) -> list[tuple[int, str]]:
        return [(one[0], one[1]) for _, one in self._points[poll]]

    def _factors(self, poll: str) -> list[tuple[int, str]]:
        """The scale factors of a class's points: asked with them, as they may be others by now."""
        named = dict.fromkeys((one[0], factor_of(one[1])) for _, one in self._points[poll])
        return [place for place in named if place[1] and self._line.has(place)]

    def _factor(self, one: tuple[int, str, str, str, str]) -> int | None:
        """A point's power of ten; None: it has one that cannot be used."""
        place = (one[0], factor_of(one[1]))
        if not place[1] or not self._line.has(place):
            return 0
        value = self._line.values([place]).get(place)
        return int(value) if value is not None and value in SCALE_FACTORS else None


def factor_of(point: str) -> str:
    """The name of the point with a captured point's power of ten; empty: it has none."""
    return "TotWh_SF" if point.startswith("TotWh") else FACTORS.get(point, "")


def load_maps(directory: Path) -> list[tuple[str, str]]:
    """A utility's own register maps, name and text of each.

    Raises:
        ConfigError: what is wrong with them, a line a mistake.
    """
    from ipss_headend import _core

    files = []
    for path in sorted(directory.glob("*.toml")):
        try:
            files.append((str(path), path.read_text("utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: {error}; a register map is a text in TOML") from error
    mistakes = _core.check_maps(files)
    if mistakes:
        raise ConfigError(*mistakes)
    return files


def mantissa(text: str | None, scaler: int) -> int | None:
    """The integer of a decimal at a power of ten: floats to the nearest, nothing for what does not fit a cell."""
    if text is None:
        return None
    try:
        found = int(Decimal(text).scaleb(-scaler).to_integral_value())
    except (InvalidOperation, OverflowError):
        return None
    return found if -LARGEST <= found <= LARGEST else None


@dataclass
class Known:
    """A device and how it is read."""

    model: str
    source: Source
    layouts: dict[str, int] = field(default_factory=dict)
    """The layout of each class's line."""
    revision: int = 0
    """Of the source, when its layouts were made."""
    named: bool = False
    """What is as it is has been read."""


class Devices:
    """Reads all Modbus devices of the registry, class by class."""

    def __init__(
        self,
        *,
        store: Store,
        requests: Requests,
        native: Any,
        set_points: SetPoints,
        meters: Mapping[int, FleetMeter],
        figures: Figures,
        rules: ModbusConfig,
        files: list[tuple[str, str]],
        latest: Latest | None = None,
        written: Callable[[], None] = lambda: None,
    ) -> None:
        """`files` are a utility's own maps, name and text of each.

        `latest` follows what is stored; `written` is called after each durable write.
        """
        self._store = store
        self._requests = requests
        self._native = native
        self._set_points = set_points
        self._meters = meters
        self._figures = figures
        self._rules = rules
        self._files = files
        self._latest = latest or Latest()
        self._written = written
        self._maps: dict[str, MapSource] = {}
        self._known: dict[int, Known] = {}
        self._again: dict[int, float] = {}
        self._finding = trio.Lock()
        self.lines = 0
        """Lines stored of devices."""
        self._log: Logger = logger("devices")

    def __len__(self) -> int:
        """How many devices have said what they are."""
        return len(self._known)

    async def run(self) -> None:
        """Read each class at its period, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._poll, "fast", self._rules.fast_s)
            nursery.start_soon(self._poll, "slow", self._rules.slow_s)
            nursery.start_soon(self._poll, "once", ONCE_S)

    async def _poll(self, poll: str, period_s: float) -> None:
        while True:
            due_s = trio.current_time() + period_s
            try:
                async with self._finding:
                    await self._find()
                await self.read(poll)
            except* (StoreFailed, StaleOwner, StoreDamaged):
                raise
            except* Exception:  # noqa: BLE001 - round a subject's task
                self._log.exception("reading of devices broken off by a fault of ours", poll=poll)
            await trio.sleep_until(max(due_s, trio.current_time() + LEAST_S))

    async def read(self, poll: str) -> None:
        """Ask all devices for a class of points once, and store what they say."""
        groups: dict[tuple[object, ...], array[int]] = {}
        for number, known in self._known.items():
            if poll in known.layouts and number in self._meters and not (poll == "once" and known.named):
                groups.setdefault(known.source.key, array("I")).append(number)
        said: list[tuple[Known, int, int, list[int | bytes | None]]] = []
        submissions = []
        for members in groups.values():
            source = self._known[members[0]].source

            def hear(answer: AnswerRow) -> None:
                known = self._known.get(answer[0])
                if known is not None and poll in known.layouts:
                    moment_us = now_us()
                    cells = known.source.cells(poll, answer[6])
                    known.named = known.named or poll == "once"
                    said.append((known, answer[0], moment_us, cells))

            submissions += await self._requests.offer(
                [source.question(poll)], members, timeout_s=ANSWER_S, attempts=2, on_answer=hear
            )
        await self._requests.finish(submissions)
        rows: list[ReadingRow] = []
        for known, number, moment_us, cells in said:
            while known.revision != (revision := known.source.revision):
                known.layouts = await self._layouts(known.model, known.source)
                known.revision = revision
            rows.append(reading_row(number, known.layouts[poll], moment_us, cells, received_us=moment_us))
        if rows:
            written = await self._store.write(WriteBatch(readings=rows))
            self._latest.note(rows)
            self._written()
            self.lines += written.readings
            self._figures.lines += written.readings
            self._figures.values += sum(len(one[3]) for one in said)

    async def _find(self) -> None:
        """Find out how new devices are read."""
        for number in self._known.keys() - self._meters.keys():
            del self._known[number]
        now_s = time.monotonic()
        new = [
            meter
            for meter in self._meters.values()
            if meter.protocol.is_modbus
            and meter.meter_id not in self._known
            and self._again.get(meter.meter_id, 0.0) <= now_s
        ]
        room = trio.CapacityLimiter(AT_ONCE)
        async with trio.open_nursery() as nursery:
            for meter in new:
                nursery.start_soon(self._learn, meter, room)

    async def _learn(self, meter: FleetMeter, room: trio.CapacityLimiter) -> None:
        async with room:
            try:
                source = await self._source(meter)
            except (MeterError, HeadEndError, ValueError) as error:
                if isinstance(error, StoreFailed | StaleOwner | StoreDamaged):
                    raise
                if meter.meter_id not in self._again:
                    self._log.warning("device not read", meter=meter.name, why=str(error))
                self._again[meter.meter_id] = time.monotonic() + REST_S
                return
        model = meter.model or SUNSPEC
        self._known[meter.meter_id] = Known(model, source, await self._layouts(model, source))
        self._again.pop(meter.meter_id, None)

    async def _layouts(self, model: str, source: Source) -> dict[str, int]:
        wanted = {poll: source.columns(poll) for poll in ("fast", "slow", "once")}
        layouts = {
            poll: Layout(0, f"modbus/{model}/{poll}", 0, tuple(columns)) for poll, columns in wanted.items() if columns
        }
        numbers = await self._store.change(lambda connection: intern_layouts(connection, list(layouts.values())))
        self._figures.layouts_learnt += len(layouts)
        return dict(zip(layouts, numbers, strict=True))

    async def _source(self, meter: FleetMeter) -> Source:
        if meter.model in {"", SUNSPEC}:
            return SunSpecSource(await self._set_points.line(meter))
        if meter.model not in self._maps:
            self._maps[meter.model] = MapSource(self._native, meter.model, self._files)
        return self._maps[meter.model]


ONCE_S = 60.0
"""Names and ratings are read when a device is new to this process; new ones are looked for so often."""

LEAST_S = 0.2
"""Between two turns, when one takes longer than its period."""
