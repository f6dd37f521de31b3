"""A profile's buffer read by hand: what it captures, then the entries by time, by number, or all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ipss_headend.cli.asked import CLOCK_CLASS, SCALED, SCALER_UNIT, Wanted
from ipss_headend.cli.conversation import Conversation, Line
from ipss_headend.cli.values import shown, time_text
from ipss_headend.errors import MeterRefused, ProtocolViolation, RequestError
from ipss_headend.field.results import result_name
from ipss_headend.names import ObjectName
from ipss_headend.store.readings import plain, scaled

STATUS_NAMES = ((0, 0, 96, 10), (1, 0, 96, 10))
"""A, B, C, D of a profile's status object; E is the profile's."""

FIFO = 1
"""Sort method: the first entry is the oldest (Blue Book, "Profile generic", sort_method)."""
LIFO = 2


@dataclass(frozen=True, slots=True)
class Span:
    """Which entries are wanted; nothing: all."""

    from_us: int | None = None
    to_us: int | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the rows."""

    class_id: int
    logical_name: bytes
    attribute: int
    data_index: int
    name: str = ""
    scaler: int | None = None
    unit: str = ""

    @property
    def dotted(self) -> str:
        """The logical name as people write it."""
        return ".".join(map(str, self.logical_name))

    @property
    def is_clock(self) -> bool:
        """Whether it is the time of capture."""
        return self.class_id == CLOCK_CLASS and self.attribute == 2

    def document(self) -> dict[str, Any]:
        """As JSON answers carry it."""
        return {
            "object": f"{self.class_id}/{self.dotted}:{self.attribute}",
            "name": self.name,
            "scaler": self.scaler,
            "unit": self.unit,
        }


@dataclass(frozen=True, slots=True)
class Rows:
    """The entries of a profile, oldest first as the device gave them."""

    columns: tuple[Column, ...]
    """Without the clock."""
    lines: tuple[Line, ...]

    def documents(self, name: str, core: Any) -> list[dict[str, Any]]:
        """The entries as JSON answers carry them."""
        return [
            {
                "object": name,
                "capture_time": None if line.capture_time_us is None else time_text(line.capture_time_us),
                "deviation_min": None if line.deviation_min == -0x8000 else line.deviation_min,
                "clock_status": None if line.clock_status == 0xFF else line.clock_status,
                "values": [
                    cell_value(cell, column.scaler, core) for column, cell in zip(self.columns, line.cells, strict=True)
                ],
            }
            for line in self.lines
        ]


def cell_value(cell: int | bytes | None, scaler: int | None, core: Any) -> Any:
    """A cell's value: an integer exact, in digits; other types as JSON has them."""
    if isinstance(cell, int):
        return plain(scaled(cell, scaler))
    return None if cell is None else shown(core.decode_data(cell), scaler)


async def read_profile(conversation: Conversation, wanted: Wanted, span: Span, chosen: Sequence[ObjectName]) -> Rows:
    """Read a buffer.

    Raises:
        MeterRefused: the device does not give it.
        RequestError: a column that was chosen is not captured, or its entries cannot be counted.
    """
    core, profile = conversation.core, wanted.octets
    asked = [3, 4] + ([5, 7] if span.last is not None else [])
    reply = await conversation.ask([core.Item.attributes(0, [(7, profile, attribute)]) for attribute in asked])
    for item, attribute in enumerate(asked):
        if item in reply.refusals:
            code = reply.refusals[item]
            raise MeterRefused(f"{wanted}: the device refused attribute {attribute}: {result_name(code)} ({code})")
    captured = _captured(core.decode_data(reply.cell(0) or b"\0"), wanted)
    period_s = _number(core, reply.cell(1), wanted)
    selected = _selected(captured, chosen, wanted)
    by_range = span.from_us is not None or span.to_us is not None
    columns = selected if by_range else captured
    clock = next((place for place, column in enumerate(columns) if column.is_clock), None)
    entries = (1, 0, 1, 0)
    if span.last is not None:
        entries = _last(_number(core, reply.cell(2), wanted), _number(core, reply.cell(3), wanted), span.last, wanted)
    item = core.Item.buffer(
        0,
        profile,
        len(columns),
        clock_column=clock,
        status_column=next((place for place, column in enumerate(columns) if _is_status(column)), None),
        capture_period_s=period_s,
        select="range" if by_range else "entries" if span.last is not None else "all",
        entries=entries,
        selected=[_key(column) for column in columns] if by_range and chosen else [],
    )
    described = await describe(conversation, [column for column in columns if not column.is_clock])
    if span.last is not None and entries[1] == 0:
        return Rows(described, ())
    answer = await conversation.ask(
        [item], from_us=span.from_us or 0, to_us=span.to_us if span.to_us is not None else 4_102_444_800_000_000
    )
    if 0 in answer.refusals:
        code = answer.refusals[0]
        raise MeterRefused(f"{wanted}: the device refused its buffer: {result_name(code)} ({code})")
    rows = Rows(described, answer.lines)
    return rows if by_range or not chosen else _narrowed(rows, selected)


async def describe(conversation: Conversation, columns: Sequence[Column]) -> tuple[Column, ...]:
    """The columns with their names, scalers and units."""
    core = conversation.core
    scaled_columns = [column for column in columns if (column.class_id, column.attribute) in SCALED]
    objects = list(dict.fromkeys((column.class_id, column.logical_name) for column in scaled_columns))
    known: dict[tuple[int, bytes], tuple[int | None, str]] = {}
    if objects:
        reply = await conversation.ask(
            [core.Item.attributes(0, [(class_id, name, SCALER_UNIT[class_id])]) for class_id, name in objects]
        )
        known = {part: scaler_unit(core, reply.cell(item)) for item, part in enumerate(objects)}
    found = []
    for column in columns:
        is_scaled = (column.class_id, column.attribute) in SCALED
        scaler, unit = known.get((column.class_id, column.logical_name), (None, "")) if is_scaled else (None, "")
        found.append(Column(*_key(column), name=object_name(core, column.logical_name), scaler=scaler, unit=unit))
    return tuple(found)


def scaler_unit(core: Any, octets: bytes | None) -> tuple[int | None, str]:
    """Scaler and unit symbol from the value of a scaler_unit attribute; nothing where the device gives none."""
    if octets is None:
        return None, ""
    try:
        (_, scaler), (_, unit) = core.decode_data(octets)[1]
        return int(scaler), str(core.unit_symbol(int(unit)))
    except (ValueError, TypeError):
        return None, ""


def object_name(core: Any, logical_name: bytes) -> str:
    """What the catalogue calls an object, empty if it does not know it."""
    known = core.catalogue(logical_name)
    return "" if known is None else str(known.get("name", ""))


def _captured(value: list[Any], wanted: Wanted) -> list[Column]:
    try:
        parts = [[field[1] for field in element[1]] for element in value[1]]
        found = [Column(int(part[0]), bytes.fromhex(part[1]), int(part[2]), int(part[3])) for part in parts]
    except (TypeError, IndexError, ValueError) as error:
        raise ProtocolViolation(f"{wanted}: its capture objects do not have the shape of such") from error
    if not found:
        raise RequestError(f"{wanted}: captures nothing, so there is nothing to read")
    return found


def _selected(captured: list[Column], chosen: Sequence[ObjectName], wanted: Wanted) -> list[Column]:
    if not chosen:
        return captured
    names = [column.dotted for column in captured]
    for name in chosen:
        if name.logical_name not in names:
            raise RequestError(f"{name} is no column of {wanted.logical_name}; it captures {', '.join(names)}")

    def is_chosen(column: Column) -> bool:
        return any(
            name.logical_name == column.dotted
            and name.class_id in {None, column.class_id}
            and name.attribute in {None, column.attribute}
            for name in chosen
        )

    return [column for column in captured if column.is_clock or is_chosen(column)]


def _narrowed(rows: Rows, selected: list[Column]) -> Rows:
    kept = {_key(column) for column in selected}
    places = [place for place, column in enumerate(rows.columns) if _key(column) in kept]
    lines = tuple(
        Line(line.item, line.capture_time_us, line.deviation_min, line.clock_status, [line.cells[at] for at in places])
        for line in rows.lines
    )
    return Rows(tuple(rows.columns[place] for place in places), lines)


def _last(sort_method: int, in_use: int, count: int, wanted: Wanted) -> tuple[int, int, int, int]:
    """First and last entry of the newest `count`; 0 as the last: there is none."""
    if sort_method == FIFO:
        return max(1, in_use - count + 1), in_use, 1, 0
    if sort_method == LIFO:
        return 1, min(count, in_use), 1, 0
    raise RequestError(f"{wanted}: sorted by value (method {sort_method}), so it has no last entries; use --from")


def _number(core: Any, octets: bytes | None, wanted: Wanted) -> int:
    value = core.decode_data(octets)[1] if octets else 0
    if not isinstance(value, int):
        raise ProtocolViolation(f"{wanted}: a number was expected, the device gave something else")
    return value


def _is_status(column: Column) -> bool:
    return tuple(column.logical_name[:4]) in STATUS_NAMES


def _key(column: Column) -> tuple[int, bytes, int, int]:
    return column.class_id, column.logical_name, column.attribute, column.data_index
