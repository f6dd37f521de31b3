"""Values of COSEM attributes, as JSON and as people write them. Integers stay exact: no float touches energy."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from ipss_headend.errors import RequestError
from ipss_headend.schedule import DAY_S, UNITS_S, duration_s
from ipss_headend.store.readings import plain, scaled

Value = Sequence[Any]
"""[type, value], as CLI.md has it."""

_INTEGER_RANGES = {
    "integer": (-(2**7), 2**7 - 1),
    "unsigned": (0, 2**8 - 1),
    "enum": (0, 2**8 - 1),
    "bcd": (0, 2**8 - 1),
    "long": (-(2**15), 2**15 - 1),
    "long-unsigned": (0, 2**16 - 1),
    "double-long": (-(2**31), 2**31 - 1),
    "double-long-unsigned": (0, 2**32 - 1),
    "long64": (-(2**63), 2**63 - 1),
    "long64-unsigned": (0, 2**64 - 1),
}
INTEGERS = frozenset(_INTEGER_RANGES) | {
    "delta-integer",
    "delta-long",
    "delta-double-long",
    "delta-unsigned",
    "delta-long-unsigned",
    "delta-double-long-unsigned",
}
_TEXTS = {"visible-string", "utf8-string", "octet-string", "bit-string"}
_SCALED = INTEGERS - {"enum", "bcd"}


def shown(value: Value, scaler: int | None = None) -> Any:
    """The value without its type: an integer as its exact decimal text, a date-time as text, the rest as JSON has it.

    Only integers that measure something take a scaler.
    """
    kind, content = value
    if kind in INTEGERS:
        return plain(scaled(content, scaler if kind in _SCALED else None))
    if isinstance(content, dict):
        return moment_text(content)
    if kind in {"structure", "array"}:
        return [shown(element) for element in content]
    return content


def for_people(value: Value, scaler: int | None = None) -> str:
    """The value in one line. Octets that are readable text, or a date-time, are shown as such beside their digits."""
    kind, content = value
    if content is None:
        return "no value"
    if kind == "boolean":
        return "true" if content else "false"
    if kind == "octet-string":
        octets = bytes.fromhex(content)
        if len(octets) == 12 and (found := date_time_of(octets)) is not None:
            return moment_text(found)
        text = octets.rstrip(b"\x00 ").decode("ascii", errors="replace")
        if text and all(" " <= letter <= "~" for letter in text):
            return f"{text} ({content})"
        if len(octets) == 6:
            return f"{'.'.join(map(str, octets))} ({content})"
        return content or "empty"
    if kind in {"structure", "array"}:
        return "[" + ", ".join(for_people(element) for element in content) + "]"
    return str(shown(value, scaler))


def date_time_of(octets: bytes) -> dict[str, Any] | None:
    """The twelve octets of a COSEM date-time (Blue Book, "Date and time formats"), if they can be one."""
    year, month, day, dow = int.from_bytes(octets[:2]), octets[2], octets[3], octets[4]
    hour, minute, second, hundredths = octets[5:9]
    deviation, status = int.from_bytes(octets[9:11], signed=True), octets[11]

    def part(number: int, unspecified: int = 0xFF) -> int | None:
        return None if number == unspecified else number

    possible = (
        (year == 0xFFFF or 1970 <= year <= 2200)
        and (month in {0xFD, 0xFE, 0xFF} or 1 <= month <= 12)
        and (day in {0xFD, 0xFE, 0xFF} or 1 <= day <= 31)
        and (dow == 0xFF or 1 <= dow <= 7)
        and all(number == 0xFF or number < limit for number, limit in ((hour, 24), (minute, 60), (second, 60)))
        and (hundredths == 0xFF or hundredths < 100)
        and (deviation == -0x8000 or -840 <= deviation <= 840)
    )
    if not possible:
        return None
    return {
        "year": part(year, 0xFFFF),
        "month": part(month),
        "day": part(day),
        "dow": part(dow),
        "hour": part(hour),
        "minute": part(minute),
        "second": part(second),
        "hundredths": part(hundredths),
        "deviation_min": part(deviation, -0x8000),
        "status": part(status),
        "raw": octets.hex(),
    }


def moment_text(value: dict[str, Any]) -> str:
    """A date-time, date or time in ISO 8601's way; question marks where it is unspecified.

    The offset is ISO's (local minus UTC), the negative of the wire's deviation.
    """

    def part(name: str, width: int) -> str:
        number = value.get(name)
        return "?" * width if number is None else f"{number:0{width}}"

    day = f"{part('year', 4)}-{part('month', 2)}-{part('day', 2)}" if "year" in value else ""
    clock = f"{part('hour', 2)}:{part('minute', 2)}:{part('second', 2)}" if "hour" in value else ""
    text = "T".join(filter(None, (day, clock)))
    deviation = value.get("deviation_min")
    if deviation is not None:
        text += f"{'-' if deviation > 0 else '+'}{abs(deviation) // 60:02}:{abs(deviation) % 60:02}"
    return text


def time_text(moment_us: int) -> str:
    """Microseconds of UTC since 1970 in ISO 8601, with as many places of a second as it needs."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment_us)
    text = moment.isoformat(timespec="auto").removesuffix("+00:00")
    return text + "Z"


def parse_moment(text: str, now_us: int) -> int:
    """A moment that an operator names: ISO 8601 (UTC where it has no offset), a day, or a duration ago (`2d`, `6h`).

    Raises:
        RequestError: none of them.
    """
    if re.fullmatch(rf"\d+\s*({'|'.join(UNITS_S)})", text.strip()):
        return now_us - duration_s(text) * 1_000_000
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise RequestError(
            f'"{text}" is no moment; write 2026-01-31, 2026-01-31T10:15, 2026-01-31T10:15+01:00, or 2d for two days ago'
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * DAY_S + since.seconds) * 1_000_000 + since.microseconds


def parse_value(text: str, like: str | None = None) -> list[Any]:
    """A value to write: `["double-long-unsigned", 5]`, `double-long-unsigned:5`, or `5` alone if the type is known.

    Raises:
        RequestError: no value, or one that its type cannot hold.
    """
    stripped = text.strip()
    if stripped.startswith("["):
        try:
            value = json.loads(stripped)
        except ValueError as error:
            raise RequestError(f"{stripped}: not JSON: {error}") from None
        if not (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)):
            raise RequestError(f'{stripped}: not [type, value]; write ["double-long-unsigned", 5]')
        return value
    kind, separator, rest = stripped.partition(":")
    if separator and (kind in INTEGERS or kind in _TEXTS or kind in {"boolean", "null-data", "float32", "float64"}):
        return [kind, _content(kind, rest)]
    if stripped == "null-data":
        return ["null-data", None]
    if like is None:
        raise RequestError(f'"{text}" has no type; write one in front, as in double-long-unsigned:{text}')
    return [like, _content(like, stripped)]


def _content(kind: str, text: str) -> Any:
    try:
        if kind in INTEGERS:
            number = int(text)
            least, most = _INTEGER_RANGES.get(kind, (-(2**63), 2**64))
            if not least <= number <= most:
                raise RequestError(f"{number} is no {kind}; it holds {least} to {most}")
            return number
        if kind == "boolean":
            return {"true": True, "1": True, "false": False, "0": False}[text.strip().lower()]
        if kind == "octet-string":
            return bytes.fromhex(text).hex()
        if kind in {"float32", "float64"}:
            return float(text)
    except (ValueError, KeyError):
        raise RequestError(f'"{text}" is no {kind}') from None
    if kind in {"visible-string", "utf8-string"}:
        return text
    if kind == "bit-string" and set(text) <= {"0", "1"}:
        return text
    if kind == "null-data" and not text:
        return None
    raise RequestError(f'"{text}" is no {kind}; write it as JSON, ["{kind}", ...]')
