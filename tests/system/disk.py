"""A disk that loses power: what a process did to its files is recorded, and taken back to any moment of it.

At a cut, everything behind a file's last sync is at risk: each sector of 512 octets of it is there or not, in any
order; lengths, new names and removed ones too until their directory was synced. That is what POSIX promises, and less
than what ext4 or XFS keep.
"""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512
_HEAD = struct.Struct("=cB2xIQ")
SOURCE = Path(__file__).with_name("disk_recorder.c")


def build(directory: Path) -> Path:
    """Compile the recorder."""
    library = directory / "disk_recorder.so"
    command = ["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library


@dataclass(frozen=True, slots=True)
class Op:
    """One thing done to a file."""

    kind: str
    name: str
    offset: int
    data: bytes


def ops(log: Path) -> Iterator[Op]:
    """What was recorded, in order."""
    octets, at = log.read_bytes(), 0
    while at < len(octets):
        kind, name_length, length, offset = _HEAD.unpack_from(octets, at)
        at += _HEAD.size
        name = octets[at : at + name_length].decode()
        at += name_length
        yield Op(kind.decode(), name.strip("/"), offset, octets[at : at + length])
        at += length


@dataclass
class _File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Op] = field(default_factory=list)
    named: bool = False
    """Its name survives."""


class Disk:
    """The files as they are known to be, and what is only on its way."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._gone: dict[str, _File] = {}
        """Removed, and the directory not synced since."""

    def apply(self, op: Op) -> None:
        """One thing more was done."""
        match op.kind:
            case "W" | "T":
                self._files.setdefault(op.name, _File()).pending.append(op)
            case "S":
                file = self._files.setdefault(op.name, _File())
                for one in file.pending:
                    _write(file.durable, one)
                file.pending.clear()
                file.named = True  # whoever syncs a new file finds it again (ext4, XFS)
            case "D":
                self._gone.clear()
                for file in self._files.values():
                    file.named = True
            case "U":
                gone = self._files.pop(op.name, None)
                if gone is not None and gone.named:
                    self._gone[op.name] = gone

    def cut(self, rng: random.Random) -> dict[str, bytes]:
        """What is found after the power came back."""
        found = {}
        keep = rng.choice((0.0, 0.5, 0.9, 1.0))  # how much of what was on its way arrived
        for name, file in {**self._gone, **self._files}.items():
            if name in self._gone and name not in self._files and rng.random() < 0.5:
                continue
            if not file.named and rng.random() >= keep:
                continue
            octets = bytearray(file.durable)
            for op in file.pending:
                if op.kind == "T":
                    if rng.random() < keep:
                        _write(octets, op)
                    continue
                for offset, part in sectors(op):
                    if rng.random() < keep:
                        _write(octets, Op("W", name, offset, part))
            found[name] = bytes(octets)
        return found


def sectors(op: Op) -> Iterator[tuple[int, bytes]]:
    """What a write means for each sector of the disk that it touches."""
    start = 0
    while start < len(op.data):
        length = SECTOR - (op.offset + start) % SECTOR
        yield op.offset + start, op.data[start : start + length]
        start += length


def _write(octets: bytearray, op: Op) -> None:
    if op.kind == "T":
        del octets[op.offset :]
        octets.extend(bytes(op.offset - len(octets)))
        return
    octets.extend(bytes(max(0, op.offset - len(octets))))
    octets[op.offset : op.offset + len(op.data)] = op.data
