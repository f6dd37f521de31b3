"""Questions to a meter, as values: compared, hashed and shown; made into the reactor's plan once for all meters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from ipss_headend.field.reactor import ModbusNative, Native

if TYPE_CHECKING:
    from ipss_headend._core import Item, ModbusItem, ModbusPlan, Plan

Descriptor = tuple[int, bytes, int]
"""Class id, logical name, attribute or method."""

CaptureColumn = tuple[int, bytes, int, int]
"""Class id, logical name, attribute, data index."""

PLANS_KEPT = 1024
"""Read plans need a few; single questions may differ without end."""

CLOCK = bytes((0, 0, 1, 0, 0, 255))


@dataclass(frozen=True, slots=True)
class Attributes:
    """Attributes that make one line; layout 0 makes it an answer. See `_core.Item.attributes`."""

    layout: int
    attributes: tuple[Descriptor, ...]
    capture_time: int | None = None

    def item(self, native: Native) -> Item:
        """The same for the reactor."""
        return native.Item.attributes(self.layout, self.attributes, capture_time=self.capture_time)


@dataclass(frozen=True, slots=True)
class Buffer:
    """A profile's buffer, a line an entry. See `_core.Item.buffer`."""

    layout: int
    logical_name: bytes
    columns: int
    clock_column: int | None = 0
    status_column: int | None = None
    capture_period_s: int = 0
    select: Literal["range", "all", "entries"] = "range"
    entries: tuple[int, int, int, int] = (1, 0, 1, 0)
    selected: tuple[CaptureColumn, ...] = ()

    def item(self, native: Native) -> Item:
        """The same for the reactor."""
        return native.Item.buffer(
            self.layout,
            self.logical_name,
            self.columns,
            clock_column=self.clock_column,
            status_column=self.status_column,
            capture_period_s=self.capture_period_s,
            select=self.select,
            entries=self.entries,
            selected=self.selected,
        )


@dataclass(frozen=True, slots=True)
class Set:
    """Write an attribute; `value` is A-XDR."""

    descriptor: Descriptor
    value: bytes

    def item(self, native: Native) -> Item:
        """The same for the reactor."""
        return native.Item.set(self.descriptor, self.value)


@dataclass(frozen=True, slots=True)
class Action:
    """Invoke a method; `parameters` are A-XDR."""

    descriptor: Descriptor
    parameters: bytes | None = None

    def item(self, native: Native) -> Item:
        """The same for the reactor."""
        return native.Item.action(self.descriptor, self.parameters)


@dataclass(frozen=True, slots=True)
class SetList:
    """Write several attributes, at once where the meter has that; each value is A-XDR."""

    values: tuple[tuple[Descriptor, bytes], ...]

    def item(self, native: Native) -> Item:
        """The same for the reactor."""
        return native.Item.set_list(self.values)


@dataclass(frozen=True, slots=True)
class Actions:
    """Invoke several methods, at once where the meter has that; parameters are A-XDR."""

    methods: tuple[tuple[Descriptor, bytes | None], ...]

    def item(self, native: Native) -> Item:
        """The same for the reactor."""
        return native.Item.actions(self.methods)


@dataclass(frozen=True, slots=True)
class Access:
    """Read, write and invoke in one ACCESS. See `_core.Item.access`."""

    parts: tuple[tuple[Literal["get", "set", "action"], Descriptor, bytes | None], ...]
    break_on_error: bool = False
    self_descriptive: bool = False

    def item(self, native: Native) -> Item:
        """The same for the reactor."""
        return native.Item.access(
            self.parts, break_on_error=self.break_on_error, self_descriptive=self.self_descriptive
        )


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """Write or invoke without an answer."""

    question: Set | SetList | Action

    def item(self, native: Native) -> Item:
        """The same for the reactor."""
        return native.Item.unconfirmed(self.question.item(native))


@dataclass(frozen=True, slots=True)
class Registers:
    """Registers or coils of a Modbus device that make one answer, a cell of octets each."""

    points: tuple[tuple[str, int, int], ...]
    """Table (`holding`, `input`, `coils`, `discrete`), first address, how many."""

    def item(self, native: ModbusNative) -> ModbusItem:
        """The same for the reactor."""
        return native.ModbusItem.read(0, [(table, first, count, "raw") for table, first, count in self.points])


@dataclass(frozen=True, slots=True)
class WriteRegisters:
    """Write holding registers of a Modbus device (function 16)."""

    address: int
    octets: bytes
    """Two a register."""

    def item(self, native: ModbusNative) -> ModbusItem:
        """The same for the reactor."""
        count = len(self.octets) // 2
        head = b"\x10" + self.address.to_bytes(2, "big") + count.to_bytes(2, "big") + bytes((2 * count,))
        return native.ModbusItem.ask(head + self.octets)


ModbusQuestion = Registers | WriteRegisters
"""A plan has questions of one protocol alone."""

Question = ModbusQuestion | Attributes | Buffer | Set | SetList | Action | Actions | Access | Unconfirmed


class Plans:
    """The reactor's plans of questions, made once for all who ask the same."""

    def __init__(self, native: Native) -> None:
        self._native = native
        self._made: dict[tuple[Question, ...], Plan | ModbusPlan] = {}

    def of(self, questions: Sequence[Question]) -> Plan | ModbusPlan:
        """The plan of these questions, in order."""
        key = tuple(questions)
        if key not in self._made:
            if len(self._made) >= PLANS_KEPT:
                self._made.clear()
            self._made[key] = self._plan(key)
        return self._made[key]

    def _plan(self, key: tuple[Question, ...]) -> Plan | ModbusPlan:
        native = cast("ModbusNative", self._native)
        modbus = [one.item(native) for one in key if isinstance(one, ModbusQuestion)]
        if modbus:
            return native.ModbusPlan(modbus)
        return self._native.Plan([one.item(self._native) for one in key if not isinstance(one, ModbusQuestion)])


def octets(logical_name: str) -> bytes:
    """`1.0.1.8.0.255` as the six octets of the wire."""
    return bytes(map(int, logical_name.split(".")))


def dotted(logical_name: Sequence[int]) -> str:
    """The six octets as `1.0.1.8.0.255`."""
    return ".".join(map(str, logical_name))
