"""What the clients of the fleet bench share: their options, their CPU, their one line of JSON.

Plain Python, for it runs in each client's own environment.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

KEYS = (bytes.fromhex("7b1e52c9043d86af6019d28b44fdb66f"), bytes.fromhex("2a93ec45be1770d9328be45da60f68c1"))
CLIENT_TITLE = b"BEN\x00\x00\x00\x00\x01"
FIRST = 0x010001


def options() -> argparse.Namespace:
    """The options that every client takes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--meters", type=int, default=20)
    parser.add_argument("--mode", choices=["saturated", "paced", "cycle", "held"], required=True)
    parser.add_argument("--rate", type=float, default=10_000)
    parser.add_argument("--tick-ms", type=float, default=5)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--warm-up", type=float, default=1)
    parser.add_argument("--seconds", type=float, default=3)
    given = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return given


def address(number: int) -> str:
    """The loopback address of meter `number`."""
    return socket.inet_ntoa(struct.pack(">I", 127 << 24 | number))


def key(base: bytes, number: int) -> bytes:
    """Meter `number`'s own key."""
    return base[:12] + (int.from_bytes(base[12:], "big") ^ number).to_bytes(4, "big")


def title(number: int) -> bytes:
    """Meter `number`'s system title."""
    return b"IPB\x02" + number.to_bytes(4, "big")


def counter() -> int:
    """An invocation counter above those of earlier runs: a sixteenth of a millisecond each since 2026."""
    return int((time.time() - 1_767_225_600) * 1000 / 16)


def cpu_us() -> float:
    """User and system time of this process, all its threads, in microseconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_utime + usage.ru_stime) * 1e6


def resident_kib() -> float:
    """Resident memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1024


class Meter:
    """Counts what a client does in the measured time, after the warm-up."""

    def __init__(self, client: str, given: argparse.Namespace) -> None:
        self.client, self.given = client, given
        self.exchanges = self.lost = self.late = 0
        self.latencies: list[float] = []
        self.kib_a_connection = 0.0
        self.associated = 0
        self.output = os.fdopen(os.dup(1), "w")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        gc.collect()
        gc.freeze()

    def begin(self) -> None:
        """The warm-up begins."""
        now = time.monotonic()
        self.warm = now + self.given.warm_up
        self.end = self.warm + self.given.seconds

    def count_from_now(self) -> None:
        """The measured time begins."""
        self.exchanges = self.late = 0
        self.latencies = []
        self.counted = time.monotonic()
        self.cpu = cpu_us()

    def count_until_now(self) -> None:
        """The measured time is over."""
        self.cpu = cpu_us() - self.cpu
        self.took = time.monotonic() - self.counted
        self.measured = self.exchanges

    def report(self) -> int:
        """Print the line; the exit status says whether anything was lost."""
        latencies = sorted(self.latencies)
        count = self.measured

        def quantile(q: float) -> float:
            return round(latencies[min(len(latencies) - 1, int(q * len(latencies)))] * 1e6) if latencies else 0

        line: dict[str, Any] = {
            "client": self.client,
            "meters": self.given.meters,
            "associated": self.associated,
            "seconds": round(self.took, 3),
            "exchanges": count,
            "per_second": round(count / self.took) if self.took else 0,
            "cpu_us": round(self.cpu / count, 3) if count else 0,
            "lost": self.lost,
            "late": self.late,
            "p50_us": quantile(0.5),
            "p99_us": quantile(0.99),
            "kib_a_connection": round(self.kib_a_connection, 3),
        }
        self.output.write(json.dumps(line) + "\n")
        self.output.flush()
        return 1 if self.lost else 0


def run_blocking(client: str, given: argparse.Namespace, connect: Callable[[int], Any], works: Any) -> int:
    """Drive a client that blocks on each exchange: one meter after the other, as fast as it goes.

    `connect(number)` gives an associated session; `works.ask(session)` is one GET, `works.close(session)` releases it.
    """
    meter = Meter(client, given)
    before = resident_kib()
    sessions = []
    if given.mode != "cycle":
        sessions = [connect(FIRST + index) for index in range(given.meters)]
        meter.associated = len(sessions)
        meter.kib_a_connection = (resident_kib() - before) / given.meters
    meter.begin()
    counting, index = False, 0
    while (now := time.monotonic()) < meter.end:
        if not counting and now >= meter.warm:
            counting = True
            meter.count_from_now()
        if given.mode == "cycle":
            session = connect(FIRST + index % given.meters)
            works.ask(session)
            works.close(session)
        else:
            works.ask(sessions[index % given.meters])
        meter.latencies.append(time.monotonic() - now)
        meter.exchanges += 1
        index += 1
    meter.count_until_now()
    for session in sessions:
        works.close(session)
    return meter.report()


if __name__ == "__main__":
    sys.exit("this is what the clients share; run one of them")
