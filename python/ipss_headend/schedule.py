"""When something recurs: `15min`, `1h`, `1d at 00:10`.

Moments are microseconds of UTC since 1970. A period below a day is aligned to UTC midnight, so a day of 23 or 25 local
hours has 92 or 100 quarter-hours without a special case; days follow the local calendar, once a day, each day.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

SECOND_US = 1_000_000
DAY_S = 86_400

UNITS_S = {"s": 1, "sec": 1, "min": 60, "h": 3600, "d": DAY_S}

_DURATION = re.compile(r"(\d{1,9})\s*(s|sec|min|h|d)")
_EVERY = re.compile(r"(?P<period>[^@]*?)(?:\s+at\s+(?P<hour>\d{1,2}):(?P<minute>\d{2}))?")


def duration_s(text: str) -> int:
    """Seconds in `15min`, `1h`, `2d`, `30s`.

    Raises:
        ValueError: not of that form.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'"{text}" is not a duration; write a number and s, min, h or d, such as "15min"')
    return int(match[1]) * UNITS_S[match[2]]


@dataclass(frozen=True, slots=True)
class Every:
    """A recurrence. `at_s` is the local time of day in seconds, for whole days only; None: aligned to UTC midnight."""

    period_s: int
    at_s: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Every":
        """Read `15min` or `1d at 00:10`.

        Raises:
            ValueError: with words for the operator.
        """
        match = _EVERY.fullmatch(text.strip())
        assert match is not None, "the pattern takes any text"
        period_s = duration_s(match["period"])
        if period_s <= 0:
            raise ValueError(f'"{text}" never recurs; the shortest period is 1s')
        if match["hour"] is not None:
            hour, minute = int(match["hour"]), int(match["minute"])
            if hour > 23 or minute > 59:
                raise ValueError(f'"{text}" names no time of day; hours go to 23 and minutes to 59')
            if period_s % DAY_S:
                raise ValueError(f'"{text}" gives a time of day to a period that is no whole day; write "1d at 00:10"')
            return cls(period_s, hour * 3600 + minute * 60)
        if period_s % DAY_S == 0:
            return cls(period_s, 0)
        if DAY_S % period_s:
            raise ValueError(f'"{text}" does not divide a day; use 15min, 30min, 1h or another that does')
        return cls(period_s)

    def next_after(self, moment_us: int, zone: ZoneInfo) -> int:
        """The first recurrence later than `moment_us`."""
        if self.at_s is None:
            period_us = self.period_s * SECOND_US
            return (moment_us // period_us + 1) * period_us
        day = datetime.fromtimestamp(moment_us // SECOND_US, zone).date() - timedelta(days=1)
        every_days = self.period_s // DAY_S
        while True:
            if day.toordinal() % every_days == 0:
                candidate_us = self._on(day, zone)
                if candidate_us > moment_us:
                    return candidate_us
            day += timedelta(days=1)

    def _on(self, day: date, zone: ZoneInfo) -> int:
        # A time that the clock skips is taken with the offset before the change, one that it repeats at its first
        # pass (PEP 495, fold=0): each day has the recurrence once.
        assert self.at_s is not None
        local = datetime.combine(day, time(self.at_s // 3600, self.at_s // 60 % 60), tzinfo=zone)
        return int(local.astimezone(UTC).timestamp()) * SECOND_US


def spread_s(name: str, window_s: int) -> float:
    """Where in a window of `window_s` seconds the meter `name` has its turn: always the same, evenly spread."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64 * window_s
