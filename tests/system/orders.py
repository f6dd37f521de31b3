"""The other end of `kill_me.py`."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEADLINE_S = 30.0
"""A head-end that has not come to its end by then does not come to it."""


class Orders:
    """A process that forks head-ends."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._child = 0

    def start(self, path: Path, point: str = "never", nth: int = 1) -> int:
        """Start a head-end that dies at this point; returns its process number."""
        assert self._process.stdin is not None
        order = json.dumps({"config": str(path), "point": point, "nth": nth})
        self._process.stdin.write(order.encode() + b"\n")
        self._child = self._line()
        return self._child

    def wait(self, timeout_s: float = DEADLINE_S) -> int | None:
        """The exit status of the head-end started last, negative for a signal; None: it went on, and was ended now."""
        assert self._process.stdout is not None
        ended, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        if not ended:
            os.kill(self._child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(self._line())
        return status if ended else None

    def _line(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@contextmanager
def forking(module: str = "tests.system.kill_me") -> Iterator[Orders]:
    """The process, while the block runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        cwd=Path(__file__).parents[2],
    )
    with process:
        try:
            yield Orders(process)
        except BaseException:
            process.kill()
            raise
