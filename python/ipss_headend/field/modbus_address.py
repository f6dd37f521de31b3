"""Modbus addresses as people write them: which transports there are, and where a serial line ends and a unit begins.

`modbus+tcp://HOST:PORT/UNIT`, and on a serial line `modbus+rtu:///dev/ttyUSB0/UNIT?baud=9600`: the unit is the number
behind the line. A line whose own name is a number, as `/dev/pts/0`, has its unit behind that: `/dev/pts/0/UNIT`; it is
never left out there, so that no number means two things.
"""

from __future__ import annotations

FRAMINGS = {
    "modbus+tcp": "tcp",
    "modbus+tls": "tcp",
    "modbus+udp": "udp",
    "modbus+rtu+tcp": "rtu-over-tcp",
    "modbus+rtu": "rtu",
    "modbus+ascii+tcp": "ascii",
    "modbus+ascii": "ascii",
}
"""How frames travel over each transport."""

SERIAL = frozenset({"modbus+rtu", "modbus+ascii"})
"""The transports of serial lines."""

NAMES_REQUESTS = frozenset({"modbus+tcp", "modbus+tls", "modbus+udp"})
"""Where an answer names its request, so that several may be asked at once."""

NUMBERED = frozenset({"", "/dev", "/dev/pts", "/dev/tts", "/dev/usb/tts"})
"""Directories whose device files have numbers for names: what stands right in them is a line, never a unit."""

LARGEST_UNIT = 0xFF


def line_and_unit(transport: str, path: str) -> tuple[str, str]:
    """The device file and the unit of `/dev/ttyUSB0/3`; the unit is empty if none is named.

    Raises:
        ValueError: it names no line, or a unit that no line has; with words for the operator.
    """
    line, _, last = path.rpartition("/")
    unit = last
    if not (last.isascii() and last.isdecimal()) or line in NUMBERED:
        line, unit = path, ""
    if not line.startswith("/") or "//" in line or line.endswith("/") or any(map(str.isspace, line)):
        raise ValueError(f"not of the form {transport}:///dev/ttyUSB0/UNIT?baud=9600")
    if unit and not 1 <= int(unit) <= LARGEST_UNIT:
        raise ValueError(
            f"unit {unit[:12]} is none; a serial line has units 1 to 247, and 0 is all of them: none answers"
        )
    return line, unit


def needs_unit(line: str) -> bool:
    """Whether a line's own name is a number, so that its unit has to be written."""
    return line.rpartition("/")[2].isdecimal()


def no_unit(transport: str, line: str) -> str:
    """What to say of a line whose unit is left out and has to be written."""
    number = line.rpartition("/")[2]
    return f"{number} is the line's own number, and no unit is named; write {transport}://{line}/UNIT?baud=9600"


def line_settings(transport: str, settings: str) -> str:
    """The settings of a line, `baud=9600&parity=even`, with what a framing wants that says nothing of it.

    ASCII has 7 data bits and even parity (MODBUS over Serial Line V1.02, 2.5.2).
    """
    if transport != "modbus+ascii":
        return settings
    given = [pair for pair in settings.split("&") if pair]
    named = {pair.partition("=")[0] for pair in given}
    wanted = {"data_bits": "7", "parity": "even"}
    return "&".join([*given, *(f"{name}={value}" for name, value in wanted.items() if name not in named)])
