"""Start the peers, talk to them, and stop them, from a test's process. Every wait has an end.

The peers are other people's code in environments of their own; nothing here imports them.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.interop.environments import ROOT, make

READY_TIMEOUT_S = 20.0
ANSWER_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Keys:
    """What two ends must share: the test suite's keys, made for it and used nowhere else."""

    encryption_key: str = "0b0c0d0e0f101112131415161718191a"
    authentication_key: str = "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"
    meter_title: str = "4752580000000001"
    client_title: str = "4754540000000001"
    password: str = "12345678"


KEYS = Keys()


class PeerFailed(Exception):
    """A peer ended, hung, or said something that is not JSON."""


class _Lines:
    """The JSON lines that a process prints, taken with a deadline."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        assert self.process.stdout is not None
        # Closed under our hands when the test is over.
        with suppress(ValueError):
            for line in self.process.stdout:
                self._lines.put(line)
        self._lines.put(None)

    def take(self, timeout_s: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            self.process.kill()
            raise PeerFailed(f"{self.process.args!r}: nothing within {timeout_s} s") from None
        if line is None:
            raise PeerFailed(f"{self.process.args!r}: ended with status {self.process.wait(timeout_s)}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _start(environment: str, module: str, arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(make(environment)), "-m", f"tests.interop.{module}", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _stop(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)
    if process.stdout is not None:
        process.stdout.close()


@dataclass
class GuruxMeter:
    """A running gurux-dlms meter: where it listens, and what it says of each connection when that closes."""

    host: str
    port: int
    _lines: _Lines = field(repr=False)

    def log(self) -> dict[str, Any]:
        """The log of the oldest connection that has closed and was not asked for yet."""
        return self._lines.take(ANSWER_TIMEOUT_S)


@contextmanager
def gurux_meter(
    *, auth: str = "hls-gmac", protection: str = "auth+enc", options: tuple[str, ...] = ()
) -> Iterator[GuruxMeter]:
    """Run a gurux-dlms meter; see `gurux_meter.py --help` for the options."""
    process = _start("gurux", "gurux_meter", ["--auth", auth, "--protection", protection, *options])
    try:
        lines = _Lines(process)
        ready = lines.take(READY_TIMEOUT_S)
        yield GuruxMeter(ready["host"], ready["port"], lines)
    finally:
        _stop(process)


def gurux_client(
    port: int, objects: list[str], *, options: tuple[str, ...] = (), timeout_s: float = 20
) -> dict[str, Any]:
    """Read `objects` with gurux-dlms' client; see `gurux_client.py --help` for the options and the answer."""
    arguments = [*objects, "--port", str(port), "--timeout", str(timeout_s), *options]
    process = _start("gurux", "gurux_client", arguments)
    try:
        return _Lines(process).take(timeout_s + READY_TIMEOUT_S)
    finally:
        _stop(process)


class Piped:
    """A peer behind a pipe, a JSON request and answer a line; its module says what it does."""

    def __init__(self, environment: str, module: str) -> None:
        self.process = _start(environment, module, [])
        self._lines = _Lines(self.process)

    def ask(self, do: str, **request: Any) -> Any:
        """The answer to one request.

        Raises PeerFailed when the peer raised, ended or hung.
        """
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self.process.stdin.flush()
        answer = self._lines.take(ANSWER_TIMEOUT_S)
        if not answer["ok"]:
            raise PeerFailed(f"{do}: {answer['error']}")
        return answer["answer"]

    def close(self) -> None:
        _stop(self.process)


@contextmanager
def gurux_notify() -> Iterator[Piped]:
    """Run gurux-dlms' notifications behind a pipe; see `gurux_notify.py`."""
    peer = Piped("gurux", "gurux_notify")
    try:
        yield peer
    finally:
        peer.close()


@contextmanager
def dlms_cosem() -> Iterator[Piped]:
    """Run dlms-cosem behind a pipe; see `dlms_cosem_peer.py`."""
    peer = Piped("dlms-cosem", "dlms_cosem_peer")
    try:
        yield peer
    finally:
        peer.close()
