"""Columns in shared memory: a batch crosses to a plugin's process without being packed, and is read there as it lies.

Every column is an array of one type, aligned to 64 octets, in one anonymous file of the operating system's (memfd). The
head-end seals the file before it is handed over, so that a plugin can neither shrink nor write it; what the plugin
writes is a second file of a fixed size. numpy, polars and pyarrow read the columns without a copy.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ipss_headend.errors import PluginError

if TYPE_CHECKING:
    import numpy
    import numpy.typing
    import pyarrow

ALIGNMENT = 64
SIZES = {"q": 8, "i": 4, "I": 4, "B": 1, "d": 8, "Q": 8}
"""Types of columns, as `array` and `memoryview` name them."""

LARGEST_OCTETS = 1 << 30
SEAL_TRIES = 20

Buffer = bytes | bytearray | memoryview | array  # type: ignore[type-arg]
Layout = list[tuple[str, str, int, int]]
"""Name, type, offset and length of each column."""


class Columns(Mapping[str, memoryview]):
    """Columns by name, each a typed memory view."""

    def __init__(self, columns: Mapping[str, memoryview]) -> None:
        self._columns = dict(columns)

    def __getitem__(self, name: str) -> memoryview:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def numpy(self, name: str) -> numpy.typing.NDArray[Any]:
        """A column as a numpy array over the same memory."""
        import numpy as np

        column = self._columns[name]
        return np.frombuffer(column, dtype=np.dtype(column.format)) if len(column) else np.empty(0, column.format)

    def arrow(self, name: str) -> pyarrow.Array:
        """A column as an Arrow array over the same memory: polars and DuckDB take it from there without a copy."""
        import pyarrow as pa

        column = self._columns[name]
        kinds = {
            "q": pa.int64(),
            "i": pa.int32(),
            "I": pa.uint32(),
            "B": pa.uint8(),
            "d": pa.float64(),
            "Q": pa.uint64(),
        }
        return pa.Array.from_buffers(kinds[column.format], len(column), [None, pa.py_buffer(column)])


class Batch(Columns):
    """What a batch hook gets: columns to read, and `flags` to write, one word a row."""

    def __init__(self, columns: Mapping[str, memoryview], flags: memoryview) -> None:
        super().__init__(columns)
        self.flags = flags

    def numpy_flags(self) -> numpy.typing.NDArray[numpy.uint32]:
        """The flags as a numpy array that may be written."""
        import numpy as np

        return np.frombuffer(self.flags, dtype=np.uint32) if len(self.flags) else np.empty(0, np.uint32)


@dataclass(slots=True)
class Shared:
    """A sealed file with columns, and the file for the answer. Closed by `close`."""

    descriptor: int
    answer: int
    layout: Layout
    rows: int

    def close(self) -> None:
        """Give the memory back; whoever has it mapped keeps it."""
        os.close(self.descriptor)
        os.close(self.answer)

    def flags(self) -> array[int]:
        """What was answered, copied out."""
        return array("I", os.pread(self.answer, self.rows * 4, 0))


def share(columns: Mapping[str, Buffer], rows: int) -> Shared:
    """Lay columns into shared memory, with room for the flags of so many rows.

    Raises:
        PluginError: they are larger than 1 GiB, of a type that cannot be shared, or the system let the memory not be
            sealed.
    """
    layout: Layout = []
    views = []
    offset = 0
    for name, column in columns.items():
        view = memoryview(column)
        if view.format not in SIZES and view.format != "l":
            raise PluginError(f"column {name}: type {view.format} cannot be shared; use {', '.join(SIZES)}")
        layout.append((name, "q" if view.format == "l" else view.format, offset, view.nbytes))
        views.append((offset, view))
        offset += -(-view.nbytes // ALIGNMENT) * ALIGNMENT
    if offset > LARGEST_OCTETS:
        raise PluginError(f"a batch of {offset} octets; at most {LARGEST_OCTETS} are handed over")
    descriptor = _file("columns", offset)
    try:
        for at, view in views:
            _write(descriptor, view.cast("B"), at)
        _seal(descriptor)
        answer = _file("answer", rows * 4)
    except BaseException:
        os.close(descriptor)
        raise
    fcntl.fcntl(answer, fcntl.F_ADD_SEALS, _SEALS)
    return Shared(descriptor, answer, layout, rows)


def again(shared: Shared) -> Shared:
    """The same columns with a new file for the answer, which the caller closes."""
    answer = _file("answer", shared.rows * 4)
    fcntl.fcntl(answer, fcntl.F_ADD_SEALS, _SEALS)
    return Shared(shared.descriptor, answer, shared.layout, shared.rows)


def attach(descriptor: int, answer: int, layout: Layout) -> Batch:
    """Map what was shared; takes both descriptors over."""
    memory = _map(descriptor, mmap.PROT_READ)
    flags = _map(answer, mmap.PROT_READ | mmap.PROT_WRITE)
    columns = {name: memory[at : at + octets].cast(kind) for name, kind, at, octets in layout}  # type: ignore[call-overload]
    return Batch(columns, flags.cast("I"))


def local(columns: Mapping[str, Buffer], rows: int) -> Batch:
    """The same without sharing, for a plugin's own tests."""
    return Batch(
        {name: memoryview(column) for name, column in columns.items()}, memoryview(array("I", bytes(rows * 4)))
    )


def _file(name: str, octets: int) -> int:
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, octets)
    return descriptor


def _write(descriptor: int, octets: memoryview, at: int) -> None:
    done = 0
    while done < len(octets):
        done += os.pwrite(descriptor, octets[done:], at + done)


def _seal(descriptor: int) -> None:
    """Let nobody write a file any more.

    Linux refuses that (EBUSY, after some waiting of its own) while a part of itself holds a page of the file, as DAMON
    does. That passes.

    Raises:
        PluginError: it did not pass.
    """
    for _ in range(SEAL_TRIES):
        try:
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS | fcntl.F_SEAL_WRITE)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        else:
            return
    raise PluginError(f"the system held shared memory back {SEAL_TRIES} times; the batch is handed over later")


def _map(descriptor: int, protection: int) -> memoryview:
    try:
        octets = os.fstat(descriptor).st_size
        return memoryview(mmap.mmap(descriptor, octets, prot=protection)) if octets else memoryview(b"")
    finally:
        os.close(descriptor)


_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
