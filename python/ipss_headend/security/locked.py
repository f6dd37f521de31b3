"""A key in a page of memory of its own: never swapped out, in no core file, not in a child, zeroised at the end.

That holds for the long-lived copy only. CPython cannot promise it for what passes by: the text of a key file, the
octets that a token or pycryptodome hands over, and meters' keys on their way to the reactor live in ordinary `bytes`
until the allocator uses their memory again. Core dumps are off for them (`keystore.forbid_core_dumps`).
"""

import contextlib
import ctypes
import mmap
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_WIPE_ON_FORK: Final = 18  # MADV_WIPEONFORK, which the standard library does not name


class LockedKey:
    """A key that stays where it is put."""

    __slots__ = ("_length", "_page", "locked")

    def __init__(self, key: bytes | bytearray) -> None:
        """Copy the key. A `bytearray` is zeroised afterwards."""
        if len(key) > mmap.PAGESIZE:
            raise ValueError(f"a key of {len(key)} octets is none")
        self._page: mmap.mmap | None = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._length = len(key)
        self.locked = _lock(self._page)
        """Whether the system keeps the page in memory; False: its limit (`ulimit -l`) is too low."""
        for advice in (mmap.MADV_DONTDUMP, _WIPE_ON_FORK):
            with contextlib.suppress(OSError):
                self._page.madvise(advice)
        self._page[: self._length] = key
        if isinstance(key, bytearray):
            key[:] = bytes(len(key))

    def __repr__(self) -> str:
        return "LockedKey()"

    def __reduce__(self) -> str:
        raise TypeError("keys are not pickled")

    def __del__(self) -> None:
        self.wipe()

    @property
    def view(self) -> memoryview:
        """The key in its page, not a copy; do not keep it.

        Raises:
            ValueError: it was wiped.
        """
        if self._page is None:
            raise ValueError("this key was wiped")
        return memoryview(self._page)[: self._length]

    def wipe(self) -> None:
        """Zeroise and give the page back. A second time does nothing."""
        page, self._page = getattr(self, "_page", None), None
        if page is not None:
            page[:] = bytes(len(page))
            with contextlib.suppress(BufferError):  # somebody still looks at it; it is zero
                page.close()


def _lock(page: mmap.mmap) -> bool:
    start = ctypes.c_char.from_buffer(page)
    try:
        return bool(_LIBC.mlock(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(len(page))) == 0)
    finally:
        del start
