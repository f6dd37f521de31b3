"""A directory for a while: gone when the block ends, and after a kill by whoever comes next."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = ".capacity-"


@contextmanager
def scratch(where: Path) -> Iterator[Path]:
    """A directory in `where`. Those that a killed process left there are removed."""
    for left in where.glob(f"{PREFIX}*"):
        with _locked(left) as ours:
            if ours:
                shutil.rmtree(left, ignore_errors=True)
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=where))
    try:
        with _locked(directory):
            yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def resident_octets() -> int:
    """The memory that this process has in use."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    # A lock of the operating system's on the directory itself: it goes with the process, however that ends.
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
