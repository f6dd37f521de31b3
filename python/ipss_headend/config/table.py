"""One TOML table, read key by key, with every mistake in words."""

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from ipss_headend.errors import UnknownLogicalName
from ipss_headend.schedule import duration_s

T = TypeVar("T")


class Table:
    """One TOML table, read key by key; a mistake is noted and the default goes on, so that all are found at once."""

    def __init__(self, values: Mapping[str, object], file: str, path: str, mistakes: list[str]) -> None:
        self.values = values
        self._file = file
        self._path = path
        self._mistakes = mistakes
        self._known: list[str] = []

    def mistake(self, key: str, words: str) -> None:
        """Note a mistake at a key."""
        place = ".".join(part for part in (self._path, key) if part)
        self._mistakes.append(f"{self._file}: {place}: {words}")

    def finish(self) -> None:
        """Refuse what was not asked for."""
        for key in self.values:
            if key not in self._known:
                near = difflib.get_close_matches(key, self._known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(self._known))}"
                self.mistake(key, f"unknown; {hint}")

    def text(self, key: str, default: str | None) -> str:
        """A text; without a default it must be there and say something."""
        return self._take(key, default, str, "a text in quotes", "")

    def integer(self, key: str, default: int, least: int, most: int) -> int:
        """A whole number within bounds."""
        number = self._take(key, default, int, "a whole number", default)
        if not least <= number <= most:
            self.mistake(key, f"{number} is out of range; use {least} to {most}, or leave the line out for {default}")
            return default
        return number

    def port(self, key: str, default: int, hint: str, least: int = 1) -> int:
        """A port's number."""
        number = self._take(key, default, int, "a whole number", default)
        if not least <= number <= 65535:
            self.mistake(key, f"{number} is not a port; {hint}")
            return default
        return number

    def boolean(self, key: str, *, default: bool) -> bool:
        """True or false."""
        return self._take(key, default, bool, "true or false", default)

    def choice(self, key: str, default: str, choices: tuple[str, ...]) -> str:
        """One of some words."""
        chosen = self._take(key, default, str, "a text in quotes", default)
        if chosen not in choices:
            self.mistake(key, f'"{chosen}" is none of {", ".join(choices)}')
            return default
        return chosen

    def percent(self, key: str, default: str) -> float:
        """A share, written with its sign."""

        def share(text: str) -> float:
            number = float(text.removesuffix("%")) if text.endswith("%") else -1.0
            if not 0 <= number <= 100:
                raise ValueError(f'"{text}" is no share; write "{default}"')
            return number

        return self.parsed(key, default, share)

    def seconds(self, key: str, default: float) -> float:
        """A time to wait, more than nothing."""

        def wait_s(text: str) -> float:
            seconds = duration_s(text)
            if seconds <= 0:
                raise ValueError(f'"{text}" is no time to wait; write "{default:g}s" or leave the line out')
            return float(seconds)

        return self.parsed(key, f"{default:g}s", wait_s)

    def parsed(self, key: str, default: str | None, parser: Callable[[str], T], fallback: T | None = None) -> T:
        """A text with a meaning. `fallback` stands in where there is no default to parse."""
        text = self._take(key, default, str, "a text in quotes", "")
        try:
            if text or default is not None:
                return parser(text)
        except (ValueError, UnknownLogicalName) as error:
            self.mistake(key, str(error))
        if default is not None:
            return parser(default)
        assert fallback is not None, "a key without a default has a fallback"
        return fallback

    def parsed_list(self, key: str, parser: Callable[[str], T]) -> Iterator[T]:
        """A list of texts with a meaning; those without one are left out."""
        for index, entry in enumerate(self._take(key, [], list, "a list", [])):
            if not isinstance(entry, str):
                self.mistake(f"{key}[{index}]", f"{shown(entry)} is no text in quotes")
                continue
            try:
                yield parser(entry)
            except (ValueError, UnknownLogicalName) as error:
                self.mistake(f"{key}[{index}]", str(error))

    def table(self, key: str) -> "Table":
        """A table below this one; empty where there is none."""
        values = self._take(key, {}, dict, f"a table; write [{key}]", {})
        return Table(values, self._file, f"{self._path}.{key}" if self._path else key, self._mistakes)

    def tables(self, key: str) -> Iterator["Table"]:
        """The tables of a list."""
        for index, values in enumerate(self._take(key, [], list, f"a list of tables; write [[{key}]]", [])):
            path = f"{key}[{index}]"
            if isinstance(values, dict):
                yield Table(values, self._file, path, self._mistakes)
            else:
                self.mistake(path, f"{shown(values)} is no table; write [[{key}]]")

    def _take(self, key: str, default: T | None, kind: type[T], expected: str, fallback: T) -> T:
        self._known.append(key)
        if key not in self.values:
            if default is not None:
                return default
            self.mistake(key, f"missing; expected {expected}")
            return fallback
        value = self.values[key]
        # In Python a bool is an int; in a configuration file `port = true` is a mistake.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.mistake(key, f"{shown(value)} is not {expected}")
            return default if default is not None else fallback
        if default is None and not value:
            self.mistake(key, f"empty; expected {expected}")
        return value


def shown(value: object) -> str:
    """A value as the file has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, dict):
        return "a table"
    return "a list" if isinstance(value, list) else str(value)
