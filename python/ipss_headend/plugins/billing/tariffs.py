"""Prices as data: tariffs by name, each from a day on, with periods of hours, days of the week and months.

    [[plugins.settings.sales.tariffs]]
    name = "night"
    from = "2026-01-01"                 # the newest that has begun stands; left out: always
    price = "0.31"                      # a kilowatt-hour, where no period fits
    periods = [{ hours = "22-6", days = "mon-fri", price = "0.19" }]

The first period that fits stands. Hours are those of the clock, so the hour that comes twice in autumn has one price.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

PRICE_DIGITS = 12
"""Behind the point: prices are whole numbers of this part of a unit of money."""
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_PRICE = re.compile(rf"-?[0-9]{{1,9}}(\.[0-9]{{1,{PRICE_DIGITS}}})?")


@dataclass(frozen=True, slots=True)
class Period:
    """Hours that have a price of their own."""

    price: int
    hours: frozenset[int] = frozenset(range(24))
    days: frozenset[int] = frozenset(range(7))
    months: frozenset[int] = frozenset(range(1, 13))

    def fits(self, day: date, hour: int) -> bool:
        """Whether this hour is one of its own."""
        return hour in self.hours and day.weekday() in self.days and day.month in self.months


@dataclass(slots=True)
class Tariffs:
    """What a kilowatt-hour costs, and whose tariff is which."""

    currency: str = ""
    default: str = ""
    accounts: Mapping[str, str] = field(default_factory=dict)
    feeders: Mapping[str, str] = field(default_factory=dict)
    _versions: dict[str, list[tuple[date, tuple[Period, ...]]]] = field(default_factory=dict)
    _known: dict[tuple[str, date, int], int | None] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Tariffs:
        """As the settings say.

        Raises:
            ValueError: they are wrong, in words.
        """
        made = cls(
            str(settings.get("currency", "")),
            str(settings.get("default_tariff", "")),
            _texts(settings, "accounts"),
            _texts(settings, "feeders"),
        )
        for place, row in enumerate(_list(settings.get("tariffs", []), "tariffs")):
            where = f"tariffs[{place}]"
            _only(row, where, {"name", "from", "price", "periods"})
            name = row.get("name")
            if not isinstance(name, str) or not name:
                raise ValueError(f"{where}.name: expected a text")
            periods = [_period(one, f"{where}.periods[{number}]") for number, one in
                       enumerate(_list(row.get("periods", []), f"{where}.periods"))]  # fmt: skip
            if "price" in row:
                periods.append(Period(_price(row["price"], where)))
            versions = made._versions.setdefault(name, [])
            versions.append((_date(row.get("from", "1970-01-01"), where), tuple(periods)))
        for name, versions in made._versions.items():
            versions.sort(key=lambda one: one[0])
            if len({begins for begins, _ in versions}) != len(versions):
                raise ValueError(f'tariffs: "{name}" begins twice on one day')
        return made

    def name_of(self, account: str, labels: Mapping[str, str]) -> str:
        """The tariff of an account: its label's, or as the settings say for it, its feeder, or all."""
        feeder = self.feeders.get(labels.get("feeder", ""), self.default)
        return labels.get("tariff") or self.accounts.get(account) or feeder

    def price(self, tariff: str, day: date, hour: int) -> int | None:
        """What a kilowatt-hour costs in an hour of the clock; None: nobody said."""
        key = (tariff, day, hour)
        if key not in self._known:
            if len(self._known) > 200_000:
                self._known.clear()
            self._known[key] = self._find(tariff, day, hour)
        return self._known[key]

    def _find(self, tariff: str, day: date, hour: int) -> int | None:
        versions = self._versions.get(tariff, [])
        place = bisect_right([begins for begins, _ in versions], day) - 1
        if place < 0:
            return None
        return next((period.price for period in versions[place][1] if period.fits(day, hour)), None)


def _period(row: Any, where: str) -> Period:
    _only(row, where, {"hours", "days", "months", "price"})
    if "price" not in row:
        raise ValueError(f"{where}: no price")
    hours = {one % 24 for one in _span(row.get("hours", "0-24"), where, range(25), wraps=24)}
    names = {name: str(number) for number, name in enumerate(DAYS)}
    days = re.sub("[a-z]+", lambda found: names.get(found[0], found[0]), str(row.get("days", "mon-sun")))
    return Period(
        _price(row["price"], where),
        frozenset(hours),
        frozenset(_span(days, f"{where}.days", range(7))),
        frozenset(_span(row.get("months", "1-12"), f"{where}.months", range(1, 13))),
    )


def _span(words: Any, where: str, allowed: range, wraps: int = 0) -> set[int]:
    """`1-5,7`; the end is inclusive, with `wraps` it is not and may lie behind midnight."""
    found: set[int] = set()
    for part in str(words).split(","):
        match = re.fullmatch(r"\s*(\d{1,2})(?:\s*-\s*(\d{1,2}))?\s*", part)
        numbers = [] if match is None else [int(one) for one in match.groups() if one is not None]
        if not numbers or any(one not in allowed for one in numbers):
            raise ValueError(f'{where}: "{part.strip()}" is none of {allowed[0]} to {allowed[-1]}, nor a span of them')
        first, last = numbers[0], numbers[-1]
        if wraps:
            last = first + 1 if len(numbers) == 1 else last + wraps * (last <= first)
            found |= set(range(first, last))
        else:
            if last < first:
                raise ValueError(f"{where}: {part.strip()} ends before it begins")
            found |= set(range(first, last + 1))
    return found


def _price(value: Any, where: str) -> int:
    # A float has been rounded before we see it.
    if isinstance(value, bool) or not isinstance(value, int | str) or not _PRICE.fullmatch(str(value)):
        raise ValueError(f'{where}.price: {value!r} is no exact price; write it as a text, such as "0.2875"')
    whole, _, part = str(value).partition(".")
    sign: int = -1 if whole.startswith("-") else 1
    return sign * int(whole.lstrip("-") + part.ljust(PRICE_DIGITS, "0"))


def _date(value: Any, where: str) -> date:
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        raise ValueError(f'{where}.from: "{value}" is no day such as 2026-01-01') from None


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{where}: expected a list")  # noqa: TRY004 - a setting's mistakes are of one kind
    return value


def _texts(settings: Mapping[str, Any], name: str) -> dict[str, str]:
    value = settings.get(name, {})
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise ValueError(f"{name}: expected names and their tariffs")
    return value


def _only(row: Any, where: str, known: Iterable[str]) -> None:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected a table")  # noqa: TRY004
    for name in row:
        if name not in known:
            raise ValueError(f"{where}.{name}: there is no such setting; there are {', '.join(sorted(known))}")
