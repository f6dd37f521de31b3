"""A host whose wall clock is wrong: of processes of the tests' own, as a whole, and set while they run."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

from tests.system import people

from ipss_headend.field.control import desk
from ipss_headend.security import audit
from ipss_headend.store import commands

SOURCE = Path(__file__).with_name("clock_shift.c")


class WallClock:
    """The wall clock of every process that is started in its `environment`. Right in the beginning."""

    def __init__(self, directory: Path) -> None:
        library = directory / "clock_shift.so"
        command = ["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
        subprocess.run(command, check=True, capture_output=True)
        path = directory / "clock_shift"
        path.write_bytes(bytes(16))
        with path.open("r+b") as file:
            self._said = mmap.mmap(file.fileno(), 16)
        self.environment = {**os.environ, "LD_PRELOAD": str(library), "CLOCK_SHIFT": str(path)}

    def set(self, ahead_s: float = 0) -> None:
        """It is so many seconds ahead, and goes."""
        self._say(int(ahead_s * 1e9), 0)

    def stop(self) -> None:
        """It stands still where it is."""
        ahead_ns, _ = struct.unpack("=qq", self._said[:])
        self._say(ahead_ns, time.time_ns() + ahead_ns)

    def now_us(self) -> int:
        """What it shows."""
        ahead_ns, standing_ns = struct.unpack("=qq", self._said[:])
        return int((standing_ns or time.time_ns() + ahead_ns) // 1000)

    @contextmanager
    def here(self) -> Iterator[None]:
        """People of this process look at that clock: what they do is done on that host."""
        with ExitStack() as stack:
            for module in (audit, commands, desk, people):
                stack.enter_context(mock.patch.object(module, "now_us", self.now_us))
            yield

    def _say(self, ahead_ns: int, standing_ns: int) -> None:
        self._said[:] = struct.pack("=qq", ahead_ns, standing_ns)
