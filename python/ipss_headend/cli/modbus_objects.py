"""What of a Modbus unit may be named: registers by table and number, points of a register map or of SunSpec models.

Registers are numbered as manuals number them: `holding/40001`, `input/30001` and `coil/1` are the first of their table,
whose address on the wire is 0. `holding/@0` names the address itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ipss_headend.cli.decode import explain
from ipss_headend.errors import DONE, REFUSED, MeterRefused, RequestError
from ipss_headend.field.devices import SUNSPEC, MapSource, load_maps

if TYPE_CHECKING:
    from ipss_headend.cli.conversation import Conversation
    from ipss_headend.config import Config

TABLES = {"holding": 4, "input": 3, "discrete": 1, "coil": 0}
"""The digit in front of the numbers of each table in manuals."""

SUNSPEC_BASES = (40_000, 50_000, 0)
"""Addresses at which a SunSpec device begins (SunSpec Device Information Model Specification, clause 6.1)."""

WHOLE = frozenset({"sunspec", "identification"})
"""Objects that are no single value."""

_REGISTERS = re.compile(r"(holding|input|coil|discrete)/(@?)(\d{1,6})(?::(\d{1,5}))?")
_MODEL_POINT = re.compile(r"(\d{1,5})/([A-Za-z_][\w.\[\]]*)")
_BARE_POINT = re.compile(r"[A-Za-z_][\w.\[\]]*")


@dataclass
class Result:
    """What came of one object."""

    text: str
    document: dict[str, Any] = field(default_factory=dict)
    shown: str = ""
    status: int = DONE

    def fail(self, error: dict[str, Any], status: int) -> None:
        """It has no value."""
        self.document = {"object": self.text, "ok": False, "error": error}
        self.shown, self.status = str(error.get("message", "")), status


@dataclass(frozen=True, slots=True)
class Registers:
    """Registers or coils that were asked for."""

    text: str
    table: str
    address: int
    """On the wire, from 0."""
    count: int

    @classmethod
    def parse(cls, text: str) -> Registers:
        """Read `holding/40001:2` and its like.

        Raises:
            RequestError: with words for the operator.
        """
        match = _REGISTERS.fullmatch(text.strip())
        if match is None:
            raise RequestError(
                f"{text}: not of the form holding/40001:2, input/1:10, coil/1, discrete/1, identification, sunspec, or "
                "a SunSpec model's point, 701/W; a map's point only with --map NAME, or of a device of the registry"
            )
        table, direct, digits, count_text = match.groups()
        number, count = int(digits), int(count_text or 1)
        address = number if direct else _address(table, digits, number)
        if not (0 <= address <= 0xFFFF and count >= 1 and address + count <= 0x10000):
            raise RequestError(f"{text}: a table has 65536 places; addresses 0 to 65535, numbers from 1")
        return cls(text, table, address, count)

    @property
    def is_bits(self) -> bool:
        """Whether it is of coils or inputs."""
        return self.table in {"coil", "discrete"}

    @property
    def point(self) -> tuple[str, int, int, str]:
        """The same for a plan."""
        return ("coils" if self.table == "coil" else self.table, self.address, self.count, "raw")


def _address(table: str, digits: str, number: int) -> int:
    prefix = TABLES[table]
    if len(digits) in {5, 6} and prefix and digits[0] == str(prefix):
        within = int(digits[1:])
        if within >= 1:
            return within - 1
    return number - 1


@dataclass(frozen=True, slots=True)
class SunSpecPoint:
    """A point of a SunSpec model by its name: `701/W`, or `W` of the first model that has one."""

    model: int | None
    name: str

    @classmethod
    def parse(cls, text: str, *, bare: bool) -> SunSpecPoint | None:
        """Read it; `bare`: the model may be left out. None: it is no such name."""
        if match := _MODEL_POINT.fullmatch(text):
            return cls(int(match[1]), match[2])
        return cls(None, text) if bare and _BARE_POINT.fullmatch(text) else None

    def is_of(self, reading: dict[str, Any]) -> bool:
        """Whether this is what a decoded reading is of."""
        return reading["point"] == self.name and self.model in {None, reading["model"]}


class Points:
    """Points of a register map that were asked for by their names."""

    def __init__(self, source: MapSource, names: Sequence[str]) -> None:
        """Take the map, and the names of points that it has."""
        self.source = source
        self.names = frozenset(names)

    async def read(self, conversation: Conversation, results: Sequence[Result]) -> None:
        """Ask for the points and for what their values need, and describe them."""
        source = self.source
        asked = source.points(sorted(self.names))
        reply = await conversation.ask(
            [conversation.core.ModbusItem.read(0, [(*place, "raw")]) for place in source.registers(asked)]
        )
        said = {name: reply.cell(item) for item, name in enumerate(asked)}
        for result in results:
            if result.text not in self.names:
                continue
            octets = said[result.text]
            if octets is None:
                item = asked.index(result.text)
                result.fail(refusal(conversation, reply.refusals.get(item, 0)), REFUSED)
                continue
            value, unit = source.value(result.text, said), source.unit(result.text)
            result.document = {
                "object": result.text,
                "ok": True,
                "value": value,
                "unit": unit or None,
                "raw": octets.hex(),
            }
            result.shown = "not there" if value is None else f"{value} {unit}".strip()


@dataclass(frozen=True, slots=True)
class Asked:
    """The objects of one command, each as what it is."""

    registers: tuple[Registers | None, ...]
    """In the order of the objects; None: the object is something else."""
    points: Points | None
    sunspec: dict[str, SunSpecPoint]
    """By the object's text."""


def asked_of(objects: Sequence[str], model: str | None, config: Config | None) -> Asked:
    """What these objects are at a device of this model: a register map, `sunspec`, or None for nobody knows.

    Raises:
        RequestError: there is no such map, or an object is neither a point of it nor anything else.
    """
    points, sunspec = None, {}
    if model is not None and model != SUNSPEC:
        points = _points(model, objects, config)
    registers: list[Registers | None] = []
    for text in objects:
        point = SunSpecPoint.parse(text, bare=model == SUNSPEC) if text not in WHOLE else None
        if text in WHOLE or (points is not None and text in points.names):
            registers.append(None)
        elif point is not None:
            sunspec[text] = point
            registers.append(None)
        else:
            registers.append(Registers.parse(text))
    return Asked(tuple(registers), points, sunspec)


def _points(name: str, objects: Sequence[str], config: Config | None) -> Points:
    from ipss_headend import _core

    own = [] if config is None else load_maps(config.data_directory / "maps")
    try:
        source = MapSource(_core, name, own)
        named = [one for one in objects if one not in WHOLE and "/" not in one]
        source.points(named)
    except ValueError as error:
        raise RequestError(f"register map {name}: {error}; `ipss-headend modbus maps` lists the maps") from error
    return Points(source, named)


def refusal(conversation: Conversation, code: int) -> dict[str, Any]:
    """The device's own no, for a result."""
    name = conversation.core.modbus_exception(code) or f"exception {code}"
    return {"fault": "remote", "code": name, "number": code, "message": f"the device refused: {name} ({code})"}


async def read_sunspec(conversation: Conversation, results: Sequence[Result], points: dict[str, SunSpecPoint]) -> None:
    """The whole chain of models, decoded: for the object `sunspec`, and for points of models.

    Raises:
        MeterRefused: it is no SunSpec device.
    """
    base, image = await _image(conversation)
    request = {"layer": "sunspec", "base_address": base, "hex": image.hex()}
    answer = json.loads("".join(explain(json.dumps(request))))
    readings = answer.get("readings", [])
    for result in results:
        if result.text == "sunspec":
            result.document = {
                "object": result.text,
                "ok": answer.get("outcome") == "decoded",
                "value": readings,
                "raw": image.hex(),
                "base_address": base,
            }
            result.shown = "\n".join(map(_shown, readings))
        elif result.text in points:
            _point(conversation.name, result, points[result.text], readings)


def _point(device: str, result: Result, point: SunSpecPoint, readings: Sequence[dict[str, Any]]) -> None:
    reading = next((one for one in readings if point.is_of(one)), None)
    if reading is None:
        where = "none of its models has" if point.model is None else f"its model {point.model} (if it has one) has not"
        message = f"{device}: {where} a point {point.name}; the object sunspec shows all"
        result.fail({"fault": "remote", "code": "no-such-point", "message": message}, REFUSED)
        return
    value, unit = reading["value"], reading["unit"]
    result.document = {
        "object": result.text,
        "ok": True,
        "value": value,
        "unit": unit,
        **{key: reading[key] for key in ("raw", "model", "point", "address")},
    }
    result.shown = "not there" if value is None else f"{value} {unit or ''}".strip()


def _shown(reading: dict[str, Any]) -> str:
    return " ".join(str(reading[key]) for key in ("model", "point", "value", "unit") if reading.get(key) is not None)


async def _image(conversation: Conversation) -> tuple[int, bytes]:
    """Where the chain begins, and its registers."""
    for base in SUNSPEC_BASES:
        image = await _registers(conversation, base, 2)
        if image == b"SunS":
            break
    else:
        raise MeterRefused(f"{conversation.name}: no SunSpec device: no SunS at {', '.join(map(str, SUNSPEC_BASES))}")
    while base + len(image) // 2 + 2 <= 0x10000:
        header = await _registers(conversation, base + len(image) // 2, 2)
        image += header
        if len(header) < 4 or header[:2] == b"\xff\xff":
            break
        length = int.from_bytes(header[2:], "big")
        block = await _registers(conversation, base + len(image) // 2, length) if length else b""
        image += block
        if len(block) != 2 * length:
            break
    return base, image


async def _registers(conversation: Conversation, address: int, count: int) -> bytes:
    """Holding registers; empty if the device refuses them."""
    reply = await conversation.ask([conversation.core.ModbusItem.read(0, [("holding", address, count, "raw")])])
    return reply.cell(0) or b""
