"""The other end of `kill_me.py`."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Orders:
    """A process that forks head-ends."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, path: Path, point: str = "never", nth: int = 1) -> int:
        """Start a head-end that dies at this point; returns its process number."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"config": str(path), "point": point, "nth": nth}) + "\n")
        self._process.stdin.flush()
        return self._line()

    def wait(self) -> int:
        """The exit status of the head-end that was started last, negative for a signal."""
        return os.waitstatus_to_exitcode(self._line())

    def _line(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@contextmanager
def forking() -> Iterator[Orders]:
    """The process, while the block runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.system.kill_me"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with process:
        try:
            yield Orders(process)
        except BaseException:
            process.kill()
            raise
