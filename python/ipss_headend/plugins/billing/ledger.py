"""What accounts took in each hour, summed by labels and hour: whole numbers only, so that order never matters.

A day of an account stands in the place of the one that was put before. Energy is counted in `10^-9` Wh, money in
`10^-24` of its unit: every sum and every difference is exact, and so what streamed is what a batch gives, bit for bit.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from ipss_headend.plugins import Flag
from ipss_headend.plugins.billing.tariffs import PRICE_DIGITS, Tariffs

HOUR_US = 3_600_000_000
WH_DIGITS = 9
KWH_DIGITS = WH_DIGITS + 3
MONEY_DIGITS = KWH_DIGITS + PRICE_DIGITS
SUSPECT = Flag.SPIKE | Flag.NEGATIVE | Flag.SUM | Flag.REGISTER | Flag.CLOCK | Flag.STUCK
INTERVAL_GROUP = "29"
"""Value group D of an interval's own energy, which goes before a register's difference."""

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Hour:
    """One account's hour."""

    start_us: int
    end_us: int
    clock: int
    """What the clock says when it begins."""
    energy: int = 0
    known: int = 0
    expected: int = 0
    """Intervals: a whole hour has as many that are known."""
    estimated: int = 0
    edited: int = 0
    suspect: int = 0

    @property
    def complete(self) -> bool:
        """Nothing of it is missing."""
        return 0 < self.expected <= self.known


def hours_of(day: Mapping[str, Any]) -> list[Hour]:
    """The hours of a day as `billing_intervals` gives it, each from the series that says most of it."""
    edges = [start for start, _ in day["hours"]] + [day["end_us"]]
    best: list[tuple[tuple[int, ...], Hour] | None] = [None] * len(day["hours"])
    for number, one in enumerate(day["series"]):
        is_register = one["item"].split(".")[3] != INTERVAL_GROUP
        for place, found in enumerate(_summed(one, edges, day["hours"])):
            rank = (-found.known * one["step_us"], found.suspect, is_register, number)
            now = best[place]
            if found.expected and (now is None or rank < now[0]):
                best[place] = rank, found
    if all(one is None or not one[1].known for one in best):
        return []
    return [
        one[1] if one is not None else Hour(start, end, clock)
        for one, (start, clock), end in zip(best, day["hours"], edges[1:], strict=True)
    ]


def _summed(one: Mapping[str, Any], edges: Sequence[int], clocks: Sequence[Sequence[int]]) -> list[Hour]:
    """A series by hours: an interval belongs to the hour in which it begins."""
    step_us, power = one["step_us"], WH_DIGITS + one["scaler"]
    sums = [[0, 0, 0, 0, 0] for _ in clocks]
    at_us = one["first_us"]
    place = bisect_right(edges, at_us) - 1
    for value, word in zip(one["values"], one["flags"], strict=True):
        while place < len(sums) and at_us >= edges[place + 1]:
            place += 1
        at_us += step_us
        if value is None or value < 0 or not 0 <= place < len(sums):
            continue
        if power >= 0:
            energy = value * 10**power
        else:
            energy, rest = divmod(value, 10**-power)
            if rest:
                continue  # finer than anything that is billed
        row = sums[place]
        row[0] += energy
        row[1] += 1
        if not word:
            continue
        row[2] += bool(word & Flag.ESTIMATED)
        row[3] += bool(word & Flag.EDITED)
        row[4] += bool(word & SUSPECT and not word & (Flag.ESTIMATED | Flag.EDITED))
    found = []
    for place, (start, clock) in enumerate(clocks):
        energy, known, estimated, edited, suspect = sums[place]
        expected = max(1, (edges[place + 1] - start) // step_us)
        found.append(Hour(start, edges[place + 1], clock, energy, known, expected, estimated, edited, suspect))
    return found


def encoded(hours: Sequence[Hour]) -> str | None:
    """Hours as they are kept; None for none. The same hours are the same text."""
    if not hours:
        return None
    start, end = hours[0].start_us, hours[-1].end_us
    plain = len(hours) == 24 and all(
        (hour.start_us, hour.end_us, hour.clock) == (start + place * HOUR_US, start + (place + 1) * HOUR_US, place)
        for place, hour in enumerate(hours)
    )
    clock = None if plain else [[hour.start_us, hour.clock] for hour in hours]
    energies = [hour.energy for hour in hours]
    power = 0
    while any(energies) and power < WH_DIGITS + 9 and not any(energy % 10 ** (power + 1) for energy in energies):
        power += 1
    counts = [
        _folded([getattr(hour, name) for hour in hours])
        for name in ("known", "expected", "estimated", "edited", "suspect")
    ]
    told = [start, end, clock, power, [energy // 10**power for energy in energies], *counts]
    return json.dumps(told, separators=(",", ":"))


def decoded(text: str) -> list[Hour]:
    """The hours that were kept.

    Raises:
        ValueError: it is no such text.
    """
    try:
        start, end, clock, power, energies, *counts = json.loads(text)
        clock = clock or [[start + place * HOUR_US, place] for place in range(24)]
        edges = [one[0] for one in clock] + [end]
        columns = [one if isinstance(one, list) else [one] * len(clock) for one in counts]
        rows = zip(clock, edges[1:], energies, *columns, strict=True)
        return [Hour(start, until, hour, energy * 10**power, *told) for (start, hour), until, energy, *told in rows]
    except (TypeError, IndexError) as error:
        raise ValueError("these are no hours") from error


def _folded(values: list[int]) -> list[int] | int:
    return values[0] if len(set(values)) == 1 else values


@dataclass(slots=True)
class Cell:
    """What all accounts of some labels took in one hour."""

    energy: int = 0
    known: int = 0
    expected: int = 0
    estimated: int = 0
    edited: int = 0
    suspect: int = 0
    complete: int = 0
    accounts: int = 0

    def add(self, hour: Hour, sign: int) -> None:
        """Put an account's hour in, or take it out."""
        self.energy += sign * hour.energy
        self.known += sign * hour.known
        self.expected += sign * hour.expected
        self.estimated += sign * hour.estimated
        self.edited += sign * hour.edited
        self.suspect += sign * hour.suspect
        self.complete += sign * hour.complete
        self.accounts += sign


@dataclass(slots=True)
class Account:
    """One account: its labels, and its days as they are kept."""

    labels: dict[str, str] = field(default_factory=dict)
    key: Labels = ()
    days: dict[str, str] = field(default_factory=dict)
    reach: tuple[int, int] | None = None
    """Its first hour with energy and the end of its last; None: to be looked up."""


class Ledger:
    """Sums of what accounts took."""

    def __init__(self, tariffs: Tariffs, *, lateness_us: int = 6 * HOUR_US, silent_us: int = 35 * 24 * HOUR_US) -> None:
        self.tariffs = tariffs
        self.lateness_us = lateness_us
        self.silent_us = silent_us
        self.late = 0
        """Hours of accounts that changed behind the watermark."""
        self.accounts: dict[str, Account] = {}
        self._cells: dict[int, dict[Labels, Cell]] = {}
        self._clocks: dict[int, tuple[int, date, int]] = {}
        """When an hour ends, its day, and what the clock says when it begins."""
        self._seen_us = 0

    def label(self, name: str, labels: Mapping[str, str]) -> bool:
        """Say an account's labels; what it took moves with it. Whether they are other ones."""
        account = self._account(name)
        if account.labels == dict(labels):
            return False
        before, account.labels = account.key, dict(labels)
        account.key = self._key(name, labels)
        if before != account.key:
            for day, text in account.days.items():
                date_ = date.fromisoformat(day)
                for hour in decoded(text):
                    self._put(before, date_, hour, -1)
                    self._put(account.key, date_, hour, 1)
        return True

    def put(self, name: str, day: str, text: str | None) -> bool:
        """Put an account's day in the place of the one before. Whether it is another one.

        Raises:
            ValueError: it is no day, or these are no hours.
        """
        date_ = date.fromisoformat(day)
        hours = [] if text is None else decoded(text)
        account = self._account(name)
        before = account.days.get(day)
        if before == text:
            return False
        old = [] if before is None else decoded(before)
        self._count_late(old, hours)
        both = set(old) & set(hours)  # one reading changes one hour
        for hour in old:
            if hour not in both:
                self._put(account.key, date_, hour, -1)
        for hour in hours:
            if hour not in both:
                self._put(account.key, date_, hour, 1)
        if text is None:
            del account.days[day]
        else:
            account.days[day] = text
        account.reach = None
        return True

    def forget(self, before: str) -> Iterator[tuple[str, str]]:
        """Drop the days before this one; gives account and day of each."""
        for name, account in self.accounts.items():
            for day in [day for day in account.days if day < before]:
                self.put(name, day, None)
                yield name, day

    def watermark_us(self) -> int | None:
        """Hours that end until then are closed: what changes them is late. None: nothing was taken yet."""
        newest = self._newest_us()
        return None if newest is None else newest - self.lateness_us

    def wrong_cells(self) -> list[str]:
        """The hours whose sums are not those of their accounts; none, or this program is wrong."""
        fresh = Ledger(self.tariffs)
        for name, account in self.accounts.items():
            fresh.label(name, account.labels)
            for day, text in account.days.items():
                fresh.put(name, day, text)
        mine, theirs = self._cells, fresh._cells
        return [f"sum of hour {start}" for start in sorted({*mine, *theirs}) if mine.get(start) != theirs.get(start)]

    def rows(
        self, from_us: int, to_us: int, by: Sequence[str], only: Mapping[str, str] | None = None
    ) -> list[dict[str, Any]]:
        """Sales of the hours that begin within [from, to), summed by `hour`, `day`, `tariff`, or any other label."""
        newest, watermark = self._newest_us() or 0, self.watermark_us()
        reaches = self._reaches(only or {})
        groups: dict[tuple[int | str, ...], _Group] = defaultdict(_Group)
        for start in sorted(start for start in self._cells if from_us <= start < min(to_us, newest)):
            end, day, clock = self._clocks[start]
            for labels, (firsts, lasts) in reaches.items():
                cell = self._cells[start].get(labels)
                expected = bisect_right(firsts, start) - bisect_left(lasts, start - self.silent_us + 1)
                if cell is None and not expected:
                    continue
                told = dict(labels)
                values: dict[str, int | str] = {"hour": start // 1000, "day": day.isoformat(), **told}
                group = groups[tuple(values.get(name, "") for name in by)]
                group.closed &= watermark is not None and end <= watermark
                group.expected += expected
                if cell is not None:
                    price = self.tariffs.price(told["tariff"], day, clock)
                    group.add(cell, price)
        names = ["hour_ms" if name == "hour" else name for name in by]
        return [dict(zip(names, key, strict=True)) | group.row() for key, group in sorted(groups.items())]

    def _reaches(self, only: Mapping[str, str]) -> dict[Labels, tuple[list[int], list[int]]]:
        """Of each labels, when accounts begin and end, in order."""
        found: dict[Labels, tuple[list[int], list[int]]] = {}
        for account in self.accounts.values():
            if not account.days or any(dict(account.key).get(name) != value for name, value in only.items()):
                continue
            first, last = self._reach(account)
            firsts, lasts = found.setdefault(account.key, ([], []))
            firsts.append(first)
            lasts.append(last)
        for firsts, lasts in found.values():
            firsts.sort()
            lasts.sort()
        return found

    def _reach(self, account: Account) -> tuple[int, int]:
        if account.reach is None:
            first = next(hour for hour in decoded(account.days[min(account.days)]) if hour.known)
            last = next(hour for hour in reversed(decoded(account.days[max(account.days)])) if hour.known)
            account.reach = first.start_us, last.end_us
        return account.reach

    def _newest_us(self) -> int | None:
        """The end of the newest hour of which anything is known."""
        for start in sorted(self._cells, reverse=True):
            if any(cell.known for cell in self._cells[start].values()):
                return self._clocks[start][0]
        return None

    def _count_late(self, old: Sequence[Hour], new: Sequence[Hour]) -> None:
        closed = self._seen_us - self.lateness_us
        before = {hour.start_us: hour for hour in old}
        self.late += sum(hour.end_us <= closed and before.get(hour.start_us) != hour for hour in new)
        self._seen_us = max([self._seen_us, *(hour.end_us for hour in new if hour.known)])

    def _put(self, key: Labels, day: date, hour: Hour, sign: int) -> None:
        cells = self._cells.setdefault(hour.start_us, {})
        cell = cells.setdefault(key, Cell())
        cell.add(hour, sign)
        if not cell.accounts:
            del cells[key]
        if cells:
            self._clocks[hour.start_us] = hour.end_us, day, hour.clock
        else:
            del self._cells[hour.start_us], self._clocks[hour.start_us]

    def _account(self, name: str) -> Account:
        account = self.accounts.get(name)
        if account is None:
            account = self.accounts[name] = Account()
            account.key = self._key(name, {})
        return account

    def _key(self, name: str, labels: Mapping[str, str]) -> Labels:
        return tuple(sorted({"feeder": "", **labels, "tariff": self.tariffs.name_of(name, labels)}.items()))


@dataclass(slots=True)
class _Group:
    """Cells that are one row."""

    total: Cell = field(default_factory=Cell)
    money: int = 0
    unpriced: int = 0
    expected: int = 0
    closed: bool = True

    def add(self, cell: Cell, price: int | None) -> None:
        total = self.total
        for name in ("energy", "known", "estimated", "edited", "suspect", "complete"):
            setattr(total, name, getattr(total, name) + getattr(cell, name))
        if price is None:
            self.unpriced += cell.energy
        else:
            self.money += cell.energy * price

    def row(self) -> dict[str, Any]:
        return {
            "kwh": plain(self.total.energy, KWH_DIGITS),
            "amount": plain(self.money, MONEY_DIGITS),
            "unpriced_kwh": plain(self.unpriced, KWH_DIGITS),
            "expected": self.expected,
            "complete": self.total.complete,
            "intervals": self.total.known,
            "estimated": self.total.estimated,
            "edited": self.total.edited,
            "suspect": self.total.suspect,
            "closed": self.closed,
        }


def plain(value: int, digits: int) -> str:
    """A whole number of the last digit as a decimal, exactly, without noughts at its end."""
    text = str(abs(value)).rjust(digits + 1, "0")
    part = text[-digits:].rstrip("0")
    return ("-" if value < 0 else "") + text[:-digits] + (f".{part}" if part else "")


def labels_in(accounts: Iterable[Account]) -> set[str]:
    """The names of all labels."""
    return {name for account in accounts for name, _ in account.key}
