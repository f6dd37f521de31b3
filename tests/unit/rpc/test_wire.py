"""R35: whatever bytes a client sends. The scanner in Rust and a plain one in Python give the same verdict."""

from __future__ import annotations

import math
import os
import random
import resource
import struct

import msgpack

from ipss_headend import _core

MUTANTS = int(os.environ.get("IPSS_MUTANTS", "200000"))
BOMBS = int(os.environ.get("IPSS_BOMBS", "10000"))
OCTETS, DEPTH, VALUES = 4096, 16, 1000


class More(Exception):
    """The message goes on."""


class Wrong(Exception):
    """The message breaks a rule."""


class Reference:
    """The wire rules, written down as plainly as they go (docs/rpc.md)."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.at = 0
        self.values = 0

    def take(self, count: int) -> bytes:
        if self.at + count > OCTETS:
            raise Wrong
        if self.at + count > len(self.octets):
            raise More
        self.at += count
        return self.octets[self.at - count : self.at]

    def room(self, count: int) -> None:
        """That many octets at least must come: what cannot end within the limit is wrong at once."""
        if self.at + count > OCTETS:
            raise Wrong

    def number(self, size: int) -> int:
        if self.at + size > len(self.octets):
            raise More  # a head is read whole before it is judged
        self.at += size
        return int.from_bytes(self.octets[self.at - size : self.at])

    def value(self, depth: int, *, key: bool = False) -> object:
        begin = self.at
        if self.at >= OCTETS:
            raise Wrong
        first = self.number(1)
        kind, length = self.head(first)
        if key and kind != "text":
            raise Wrong
        if kind in {"text", "octets"}:
            self.room(length)
            octets = self.take(length)
            self.count()
            if kind == "octets":
                return octets
            try:
                return octets.decode()
            except UnicodeDecodeError:
                raise Wrong from None
        if kind in {"array", "map"}:
            self.room(length * (2 if kind == "map" else 1))
            if depth >= DEPTH:
                raise Wrong
            self.count()
            if kind == "array":
                return [self.value(depth + 1) for _ in range(length)]
            keys = []
            for _ in range(length):
                keys.append(self.value(depth + 1, key=True))
                self.value(depth + 1)
            if len(set(keys)) != len(keys):
                raise Wrong
            return {}
        self.room(0)
        self.count()
        if first <= 0x7F:
            return first
        if 0xCC <= first <= 0xCF:
            return length
        return (None, self.octets[begin : self.at])

    def count(self) -> None:
        self.values += 1
        if self.values > VALUES:
            raise Wrong

    def head(self, first: int) -> tuple[str, int]:
        if first <= 0x7F or first >= 0xE0 or first in {0xC0, 0xC2, 0xC3}:
            return "plain", 0
        for low, high, kind in ((0x80, 0x8F, "map"), (0x90, 0x9F, "array"), (0xA0, 0xBF, "text")):
            if low <= first <= high:
                return kind, first - low
        sized = {
            0xC4: ("octets", 1), 0xC5: ("octets", 2), 0xC6: ("octets", 4),
            0xD9: ("text", 1), 0xDA: ("text", 2), 0xDB: ("text", 4),
            0xDC: ("array", 2), 0xDD: ("array", 4), 0xDE: ("map", 2), 0xDF: ("map", 4),
        }  # fmt: skip
        if first in sized:
            kind, size = sized[first]
            return kind, self.number(size)
        if first in {0xCA, 0xCB}:
            size = 4 if first == 0xCA else 8
            if self.at + size > len(self.octets):
                raise More
            self.at += size
            [number] = struct.unpack(">f" if size == 4 else ">d", self.octets[self.at - size : self.at])
            if not math.isfinite(number):
                raise Wrong
            return "plain", 0
        if 0xCC <= first <= 0xD3:
            return "plain", self.number(1 << ((first - 0xCC) % 4))
        raise Wrong  # 0xC1 and every extension type


def reference(octets: bytes) -> str:
    """What becomes of the first message: `call`, `wrong` or `more`."""
    walk = Reference(octets)
    try:
        message = walk.value(0)
    except More:
        return "wrong" if octets and octets[0] not in {0x93, 0x94, 0xDC, 0xDD} else "more"
    except Wrong:
        return "wrong"
    if not isinstance(message, list) or not 3 <= len(message) <= 4:
        return "wrong"
    kind, *rest = message
    if kind == 1 and len(rest) == 3:
        return "call"
    if kind == 0 and len(rest) == 3:
        number, *rest = rest
        if not isinstance(number, int) or number > 0xFFFF_FFFF:
            return "wrong"
    elif kind != 2 or len(rest) != 2:
        return "wrong"
    method, params = rest
    name = len(method.encode()) if isinstance(method, str) else len(method) if isinstance(method, bytes) else 999
    return "call" if name <= 128 and isinstance(params, list) else "wrong"


def scanned(octets: bytes) -> str:
    calls, ended = _core.RpcScanner(octets=OCTETS, depth=DEPTH, values=VALUES).feed(octets)
    return "call" if calls else "wrong" if ended is not None else "more"


def seeds(source: random.Random) -> list[bytes]:
    def value(depth: int) -> object:
        kind = source.randrange(9 if depth < 5 else 7)
        if kind == 7:
            return [value(depth + 1) for _ in range(source.randrange(4))]
        if kind == 8:
            return {f"k{n}": value(depth + 1) for n in range(source.randrange(4))}
        return source.choice([None, True, -5, 7, 70_000, 2**63, 1.5, "text", b"octets", "x" * 40, b"y" * 300])

    found = []
    for _ in range(200):
        number = source.choice([1, 200, 70_000, 2**32 - 1])
        message = source.choice(
            [[0, number, "read.last", [value(0)]], [2, "note", [value(0)]], [1, number, None, value(0)]]
        )
        found.append(msgpack.packb(message))
    return found


def test_scanner_and_plain_python_give_the_same_verdict_on_mutants() -> None:
    source = random.Random(35)
    whole = seeds(source)
    verdicts = {"call": 0, "wrong": 0, "more": 0}
    for _ in range(MUTANTS):
        octets = bytearray(source.choice(whole))
        for _ in range(source.randrange(4)):
            at = source.randrange(len(octets))
            match source.randrange(4):
                case 0:
                    octets[at] ^= 1 << source.randrange(8)
                case 1:
                    octets[at] = source.choice((0xC1, 0xD4, 0xC7, 0xDD, 0xDF, 0xDB, 0x81, 0x91, 0xCB, 0xFF))
                case 2:
                    del octets[at:]
                case _:
                    octets[at:at] = source.choice(whole)[: source.randrange(20)]
            if not octets:
                break
        wanted = reference(bytes(octets))
        assert scanned(bytes(octets)) == wanted, octets.hex()
        verdicts[wanted] += 1
    assert min(verdicts.values()) > MUTANTS / 50, verdicts


def test_bombs_cost_no_more_than_their_octets() -> None:
    source = random.Random(36)
    heads = [b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(BOMBS):
        scanner = _core.RpcScanner()
        opening = b"\x94\x00\x01\xa1m\x91"
        match number % 4:
            case 0:
                bomb = opening + source.choice(heads) + source.randrange(1 << 20, 1 << 32).to_bytes(4)
            case 1:
                bomb = opening + b"\x91" * source.randrange(16, 2000)
            case 2:
                bomb = opening + b"\xdc\xff\xff" + b"\x80" * 1000
            case _:
                bomb = source.randbytes(source.randrange(1, 200))
        _, ended = scanner.feed(bomb)
        if number % 4 < 2:
            assert ended is not None
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 2 * 1024, "two frames"
