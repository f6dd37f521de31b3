"""Looking for secrets in octets (R21, R41): as they are, in hexadecimal, in base64, as Python or Rust would show them.

Many secrets are looked for at once: the first eight octets of every form are in a table that each place of the data is
compared with, in numpy, some 100 MiB a second.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ipss_headend.security.sample_keys import why_no_key

SHORTEST = 8
"""Octets of a secret that is looked for: shorter ones are words, and met by chance."""

PIECE = 8 << 20
"""Octets of a file that are in memory at once."""

LONGEST = 4096
"""Octets of a form at most: what two pieces overlap by."""

FEW = 4_000_000
"""Octets times forms up to which one look after the other is quicker than the table."""

_BETWEEN = b" :-\t\r\n_"
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_TABLE_BITS = 20


class Hit(NamedTuple):
    """A secret where none may be. Never says which."""

    kind: str
    form: str


class Search:
    """Some secrets, each with the words for what it is."""

    def __init__(self, secrets: Mapping[bytes, str]) -> None:
        self._plain: dict[bytes, Hit] = {}
        self._squeezed: dict[bytes, Hit] = {}
        for secret, kind in secrets.items():
            if not looked_for(secret):
                continue
            for form, octets in plain_forms(secret):
                self._plain.setdefault(octets, Hit(kind, form))
            for form, octets in squeezed_forms(secret):
                self._squeezed.setdefault(octets, Hit(kind, form))
        self._finders: dict[bool, Callable[[bytes], set[Hit]]] = {}

    def __len__(self) -> int:
        return len(self._plain) + len(self._squeezed)

    def octets(self, data: bytes) -> set[Hit]:
        """What is found in these octets."""
        if not self._plain or len(data) < SHORTEST:
            return set()
        squeezed = data.translate(None, _BETWEEN).lower()
        return self._find(self._plain, data) | self._find(self._squeezed, squeezed)

    def file(self, path: Path) -> set[Hit]:
        """What is found in a file."""
        found: set[Hit] = set()
        with path.open("rb") as stream:
            kept = b""
            while piece := stream.read(PIECE):
                found |= self.octets(kept + piece)
                kept = piece[-LONGEST:]
        return found

    def _find(self, forms: Mapping[bytes, Hit], data: bytes) -> set[Hit]:
        if len(data) * len(forms) <= FEW:
            return {hit for octets, hit in forms.items() if octets in data}
        finder = self._finders.get(forms is self._plain)
        if finder is None:
            finder = self._finders[forms is self._plain] = _finder(forms)
        return finder(data)


def looked_for(secret: bytes) -> bool:
    """Whether it can be told from what is there by chance: long enough, and no sequence, zeros or manual's sample."""
    return len(secret) >= SHORTEST and (len(secret) not in {16, 24, 32} or why_no_key(secret) is None)


def plain_forms(secret: bytes) -> Iterator[tuple[str, bytes]]:
    """The forms that are looked for in the data as it is."""
    yield "raw", secret
    for before in range(3):
        # Base64 of something around it: the characters that do not depend on the neighbours.
        begin = (before * 8 + 5) // 6
        end = (before + len(secret)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield "in base64", encode(bytes(before) + secret)[begin:end]
    shown = repr(secret)[2:-1].encode()
    if shown != secret:
        yield "as Python shows octets", shown


def squeezed_forms(secret: bytes) -> Iterator[tuple[str, bytes]]:
    """The forms that are looked for in small letters, without what may stand between digits."""
    yield "in hexadecimal", secret.hex().encode()
    yield "as a list of numbers", ",".join(map(str, secret)).encode()


def _finder(forms: Mapping[bytes, Hit]) -> Callable[[bytes], set[Hit]]:
    by_begin: dict[bytes, list[bytes]] = {}
    for octets in forms:
        by_begin.setdefault(octets[:8], []).append(octets)
    begins = np.frombuffer(b"".join(by_begin), dtype="<u8")
    table = np.zeros(1 << _TABLE_BITS, dtype=bool)
    table[_place(begins)] = True

    def find(data: bytes) -> set[Hit]:
        found: set[Hit] = set()
        for offset in range(8):
            count = (len(data) - offset) // 8
            if count <= 0:
                break
            words = np.frombuffer(data, dtype="<u8", count=count, offset=offset)
            near = np.flatnonzero(table[_place(words)])
            near = near[np.isin(words[near], begins)]
            for place in (near * 8 + offset).tolist():
                for octets in by_begin[data[place : place + 8]]:
                    if data.startswith(octets, place):
                        found.add(forms[octets])
        return found

    return find


def _place(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    placed: npt.NDArray[np.uint64] = (words * _SPREAD) >> np.uint64(64 - _TABLE_BITS)
    return placed


def of_files(paths: Iterable[Path]) -> dict[bytes, str]:
    """The secrets that files carry whose purpose that is: fleet files and key files."""
    found: dict[bytes, str] = {}
    for path in paths:
        try:
            with path.open("rb") as stream:
                head = stream.read(LONGEST)
                if _KEY_FILE.fullmatch(head.strip()):
                    found[bytes.fromhex(head.decode())] = "key of a key file"
                elif carries_columns_of_keys(head):
                    keys = _digits((head + stream.read()).splitlines())
                    found.update((bytes.fromhex(one.decode()), "key of a fleet file") for one in keys)
        except OSError:
            continue
    return found


def carries_columns_of_keys(head: bytes) -> bool:
    """Whether a file begins like a fleet file with meters' keys."""
    return _FLEET.match(head) is not None


def _digits(lines: list[bytes]) -> set[bytes]:
    # Titles and addresses are no secrets.
    names, *rest = ([cell.strip(b'" ') for cell in line.split(b",")] for line in lines)
    columns = [place for place, name in enumerate(names) if name in _KEY_COLUMNS]
    return {row[place] for row in rest for place in columns if place < len(row) and _DIGITS.fullmatch(row[place])}


_KEY_FILE = re.compile(rb"[0-9a-f]{32}([0-9a-f]{32})?")
_FLEET = re.compile(rb'["\w, ]*\b(encryption|master|private)_key\b')
_KEY_COLUMNS = (b"encryption_key", b"authentication_key", b"master_key", b"private_key")
_DIGITS = re.compile(rb"([0-9a-fA-F]{2}){16,32}")
