"""Rings: what changes many meters reaches few of them first, and halts by itself when too many of those fail. Pure.

    10 meters -> 100 -> 1 % -> 10 % -> all

Ends are cumulative: "100" is the canary's 10 and 90 more. A ring opens when the one before has ended, has failed no
more than it may, and has rested. Which meters are first is for the caller to say; `place` mixes them, so that a canary
is not one street. Nothing is kept in memory: a `Standing` is one row, and with the counts of what happened since it
says what is next, after a restart as before it.

    standing = FIRST
    verdict = look(settings, standing, Counts(total, started, ended, failed), now_us)
    Go(until)     -> start members up to the place `until`
    Wait()        -> nothing now; look again
    Open(standing)-> store it, look again
    Halt(why)     -> store `halted(standing, why)`; nothing more starts until people look at it
    Done()
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import NamedTuple


class Size(NamedTuple):
    """How far a ring reaches."""

    number: float
    percent: bool
    """Of all, not of members."""

    def members(self, total: int) -> int:
        """The same as a number of members of `total`, at least 1."""
        reach = total * self.number / 100 if self.percent else self.number
        return min(total, max(1, int(reach)))


@dataclass(frozen=True, slots=True)
class Rings:
    """How something spreads."""

    sizes: tuple[Size, ...] = (Size(10, False), Size(100, False), Size(1, True), Size(10, True))
    """Cumulative; one with all of them follows the last."""
    failures_percent: float = 5.0
    """More of a ring than this may not fail, or it is halted. Of a canary of 10 at 5 %, none may."""
    rest_s: float = 60.0
    """Between a ring's end and the next one's beginning."""

    def ends(self, total: int) -> tuple[int, ...]:
        """Up to which place each ring reaches, rising, the last one `total`."""
        reaches = sorted({*(size.members(total) for size in self.sizes), total})
        return tuple(reach for reach in reaches if reach > 0)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a spread stands: all of it that has to be stored."""

    ring: int = 0
    """The ring that is open, from 0."""
    failed_before: int = 0
    """Failures before this ring, or that people have looked at since."""
    halted: str = ""
    """Why; empty while it goes on."""


FIRST = Standing()


class Counts(NamedTuple):
    """What has happened, of all members."""

    total: int
    started: int
    ended: int
    """However they ended."""
    failed: int
    """Of those that ended, and of those whose fate is not known in time."""
    newest_us: int
    """When the newest of them ended; 0: none has."""


class Go(NamedTuple):
    """Members before this place may start."""

    until: int


class Wait(NamedTuple):
    """What has started is to end, or a ring rests."""


class Open(NamedTuple):
    """The next ring is open under this standing."""

    standing: Standing


class Halt(NamedTuple):
    """Nothing more may start."""

    why: str


class Done(NamedTuple):
    """All have ended."""


Verdict = Go | Wait | Open | Halt | Done


def look(rings: Rings, standing: Standing, counts: Counts, now_us: int) -> Verdict:
    """What is next."""
    if standing.halted:
        return Halt(standing.halted)
    ends = rings.ends(counts.total)
    if not ends:
        return Done()
    ring = min(standing.ring, len(ends) - 1)
    end, begin = ends[ring], ends[ring - 1] if ring else 0
    failed, most = counts.failed - standing.failed_before, (end - begin) * rings.failures_percent / 100
    if failed > most:
        return Halt(f"{failed} of the {end - begin} of ring {ring + 1} failed, more than {rings.failures_percent:g} %")
    if counts.started < end:
        return Go(end)
    if counts.ended < end:
        return Wait()
    if ring == len(ends) - 1:
        return Done()
    # A clock that went back makes the rest longer, never shorter.
    if now_us - counts.newest_us < rings.rest_s * 1e6:
        return Wait()
    return Open(Standing(ring + 1, counts.failed))


def halted(standing: Standing, why: str) -> Standing:
    """It is halted."""
    return replace(standing, halted=why)


def resumed(standing: Standing, failed: int) -> Standing:
    """People have looked at the failures so far and want it to go on, within the same ring."""
    return replace(standing, halted="", failed_before=failed)


def place(seed: bytes, member: int) -> bytes:
    """By this a spread's members are in their order: the same each time, and no neighbourhood."""
    return sha256(seed + member.to_bytes(8, "big")).digest()[:8]


def parse_size(text: str) -> Size:
    """A size as the configuration writes it: "10", "1%".

    Raises:
        ValueError: with words for the operator.
    """
    digits = text.removesuffix("%")
    try:
        size = Size(float(digits) if text.endswith("%") else int(digits), text.endswith("%"))
    except ValueError:
        raise ValueError(f'"{text}" is no ring; write a number of meters such as "10", or a share, "1%"') from None
    if not 0 < size.number <= (100 if size.percent else 1_000_000):
        raise ValueError(f'"{text}" is no ring; a number from 1 on, or a share of at most "100%"')
    return size
