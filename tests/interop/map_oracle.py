"""Register maps read by somebody else: their TOML, an image of registers, and what each point of it has to say.

Written from the documentation of the types (protocols/modbus/data/README.md) alone, with Python's own integers, floats
and decimals; nothing of the head-end is used.
"""

from __future__ import annotations

import random
import struct
import tomllib
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

MAPS = Path(__file__).parents[2] / "protocols" / "modbus" / "data" / "maps"
TABLES = {"holding": "holding", "input": "input", "coils": "coils", "discrete-inputs": "discrete"}
WIDTHS = {"16": 1, "32": 2, "64": 4}
SCALERS = range(-128, 128)
"""Powers of ten that a value may have: a float beyond them is none."""
NO_TEXT = b"\xc3\x28"
"""No UTF-8."""


@dataclass(frozen=True)
class Point:
    """One point, as its map has it."""

    name: str
    table: str
    address: int
    count: int
    kind: str
    low_word_first: bool
    swap_octets: bool
    scale: int
    scale_from: str | None
    not_available: frozenset[int]
    names: dict[int, str]
    readable: bool

    def ordered(self, registers: list[int]) -> list[int]:
        """From the device's order to the highest first."""
        words = list(reversed(registers)) if self.low_word_first else list(registers)
        return [(word & 0xFF) << 8 | word >> 8 for word in words] if self.swap_octets else words


def points(name: str) -> dict[str, Point]:
    """All points of a map, those that it inherits with them."""
    document = tomllib.loads((MAPS / f"{name}.toml").read_text("utf-8"))
    head = document["map"]
    found = points(head["inherits"]) if "inherits" in head else {}
    for gone in head.get("without", []):
        del found[gone]
    for key, entry in document.get("points", {}).items():
        found[key] = _point(key, entry, head)
    return found


def _point(name: str, entry: dict[str, Any], head: dict[str, Any]) -> Point:
    kind = entry["type"]
    count = entry.get("count") or WIDTHS.get(kind[-2:], 1)
    absent = entry.get("not_available", head.get("not_available", {}).get(kind, []))
    return Point(
        name,
        TABLES[entry.get("table", head.get("table", "holding"))],
        entry["address"],
        count,
        kind,
        entry.get("low_word_first", kind != "text" and head.get("low_word_first", False)),
        entry.get("swap_octets", head.get("swap_octets", False)),
        entry.get("scale", 0),
        entry.get("scale_from"),
        frozenset(raw & (1 << 16 * count) - 1 for raw in absent),
        {int(number): text for number, text in entry.get("names", {}).items()},
        entry.get("access", "r") != "w",
    )


def image(found: dict[str, Point], dice: random.Random) -> dict[str, dict[int, int]]:
    """Random registers for these points, many of them with values that mean something."""
    tables: dict[str, dict[int, int]] = {table: {} for table in TABLES.values()}
    for point in found.values():
        registers = point.ordered(_words(point, dice))  # the order is its own inverse
        for place, register in enumerate(registers):
            tables[point.table].setdefault(point.address + place, register)
    return tables


def _words(point: Point, dice: random.Random) -> list[int]:
    """The highest first."""
    count, luck = point.count, dice.random()
    if point.kind == "bit":
        return [dice.randint(0, 1)]
    if point.not_available and luck < 0.15:
        raw = dice.choice(sorted(point.not_available))
        return [raw >> 16 * place & 0xFFFF for place in reversed(range(count))]
    match point.kind:
        case "text":
            text = "".join(dice.choice("AZaz09 -") for _ in range(dice.randint(0, 2 * count))).encode()
            text = NO_TEXT if luck > 0.9 else text
            return list(struct.unpack(f">{count}H", text.ljust(2 * count, b"\0")[: 2 * count]))
        case "bcd" if luck < 0.8:
            return [int("".join(dice.choice("0123456789") for _ in range(4)), 16) for _ in range(count)]
        case "mod10k" if luck < 0.8:
            return [dice.randint(0, 9999) for _ in range(count)]
        case "float32" if luck < 0.8:
            return list(struct.unpack(">2H", struct.pack(">f", dice.uniform(-1e6, 1e6))))
        case "enum16" | "enum32" if point.names and luck < 0.8:
            number = dice.choice(sorted(point.names))
            return [number >> 16 * place & 0xFFFF for place in reversed(range(count))]
        case "int16" if "scale" in point.name and luck < 0.8:
            return [dice.randint(-10, 10) & 0xFFFF]
        case _:
            return [dice.getrandbits(16) for _ in range(count)]


def expected(point: Point, found: dict[str, Point], tables: dict[str, dict[int, int]]) -> Decimal | str | None:
    """What a point says; None: it is not available, no value of its type, or its scale is not known."""
    words = point.ordered([tables[point.table][point.address + place] for place in range(point.count)])
    raw = 0
    for word in words:
        raw = raw << 16 | word
    if point.kind == "text":
        return _text(b"".join(word.to_bytes(2) for word in words))
    if raw in point.not_available:
        return None
    number: int | Decimal | None
    bits = 16 * point.count
    match point.kind.rstrip("0123456789k"):
        case "uint" | "bit":
            number = raw
        case "int":
            number = raw - (1 << bits) if raw >> bits - 1 else raw
        case "float":
            number = _float(raw.to_bytes(bits // 8))
        case "bcd":
            digits = f"{raw:0{bits // 4}x}"
            number = int(digits) if digits.isdecimal() else None
        case "mod":
            signed = [word - 0x10000 if word >= 0x8000 else word for word in words]
            good = all(-9999 <= word <= 9999 for word in signed)
            number = sum(word * 10_000**place for place, word in enumerate(reversed(signed))) if good else None
        case "bits":
            return str(raw)
        case "enum":
            return point.names.get(raw, str(raw))
        case other:
            raise AssertionError(f"{point.name}: {other} is no type that the documentation has")
    if number is None:
        return None
    factor: Decimal | str | None = Decimal(0)
    if point.scale_from is not None:
        factor = expected(found[point.scale_from], found, tables)
        if not isinstance(factor, Decimal) or not -10 <= factor <= 10:
            return None
    value = Decimal(number).scaleb(point.scale + int(factor or 0))
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    return value if exponent in SCALERS else None


def _text(octets: bytes) -> str | None:
    try:
        return octets.partition(b"\0")[0].decode("utf-8").strip() or None
    except UnicodeDecodeError:
        return None


def _float(octets: bytes) -> Decimal | None:
    """The shortest decimal that reads back as it."""
    form = ">f" if len(octets) == 4 else ">d"
    [value] = struct.unpack(form, octets)
    if value != value or value in (float("inf"), float("-inf")):
        return None
    for digits in range(1, 18):
        text = f"{value:.{digits - 1}e}"
        if struct.pack(form, float(text)) == struct.pack(form, value):
            return Decimal(text)
    raise AssertionError("17 digits tell every float")
