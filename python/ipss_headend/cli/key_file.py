"""Files with keys, for `decode` and `read`: TOML, a table per system title, values in hexadecimal.

    [4d4d4d0000bc614e]
    encryption_key = "000102030405060708090a0b0c0d0e0f"
    authentication_key = "d0d1d2d3d4d5d6d7d8d9dadbdcdddedf"

Names outside a table are for every system title.
"""

import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ipss_headend.cli.output import say
from ipss_headend.errors import ConfigError

LENGTHS = {
    "encryption_key": (16, 32),
    "authentication_key": (16, 32),
    "dedicated_key": (16, 32),
    "master_key": (16, 32),
    "client_system_title": (8,),
    "server_system_title": (8,),
    "private_key": (),
    "peer_public_key": (),
}
"""The names, and how many octets each may have; none: whatever its kind has."""


@dataclass(frozen=True, slots=True, repr=False)
class KeyFile:
    """The keys of a file. Shows how many tables, never a key."""

    path: Path
    common: Mapping[str, str]
    tables: Mapping[str, Mapping[str, str]]
    """By system title, 16 hexadecimal digits in lower case."""

    def __repr__(self) -> str:
        return f"KeyFile({len(self.tables)} tables)"

    def of(self, system_title: str) -> dict[str, str]:
        """The keys for one system title; the title itself among them."""
        return {"server_system_title": system_title, **self.common, **self.tables[system_title]}

    def only(self) -> dict[str, str] | None:
        """The keys, if the file leaves no choice: one table or none."""
        if not self.tables:
            return dict(self.common)
        return self.of(next(iter(self.tables))) if len(self.tables) == 1 else None

    def matching(self, octets: str) -> dict[str, str]:
        """The keys for a frame, by the system title that occurs in its hexadecimal octets; else `only`."""
        lower = octets.lower()
        for title in self.tables:
            place = lower.find(title)
            while place >= 0:
                if place % 2 == 0:
                    return self.of(title)
                place = lower.find(title, place + 1)
        return self.only() or dict(self.common)


def load(path: Path) -> KeyFile:
    """Read a file with keys. One that others may read is told of.

    Raises:
        ConfigError: all mistakes, one a line; never with a key in it.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            document = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; expected a file with keys") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        # The parser's own words may quote the line, and the line may hold a key.
        raise ConfigError(f'{path}: not TOML; write lines such as encryption_key = "..." in hexadecimal') from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        say(f"{path} has mode {mode:04o}, so others may read the keys; run `chmod 600 {path}`")
    mistakes: list[str] = []
    common: dict[str, str] = {}
    tables: dict[str, dict[str, str]] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            title = _hexadecimal(name, (8,), f"{path}: [{name}]", "a system title", mistakes)
            tables[title] = {key: _key(key, entry, f"{path}: [{name}] {key}", mistakes) for key, entry in value.items()}
        else:
            common[name] = _key(name, value, f"{path}: {name}", mistakes)
    if mistakes:
        raise ConfigError(*mistakes)
    return KeyFile(path, common, tables)


def _key(name: str, value: object, place: str, mistakes: list[str]) -> str:
    if name not in LENGTHS:
        mistakes.append(f"{place}: unknown; known here: {', '.join(LENGTHS)}")
        return ""
    return _hexadecimal(value, LENGTHS[name], place, "a " + name.replace("_", " "), mistakes)


def _hexadecimal(value: object, lengths: tuple[int, ...], place: str, what: str, mistakes: list[str]) -> str:
    try:
        octets = bytes.fromhex(value if isinstance(value, str) else "no text")
    except ValueError:
        mistakes.append(f"{place}: not hexadecimal digits in quotes; {what} is")
        return ""
    if lengths and len(octets) not in lengths:
        expected = " or ".join(map(str, lengths))
        mistakes.append(f"{place}: {len(octets)} octets; {what} has {expected}")
    return octets.hex()
