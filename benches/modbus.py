"""One core of head-end asking Modbus devices, and decoding: ours, a bare C epoll client, pymodbus' asyncio client.

    python -m benches.modbus [--quick] [--only LOAD] [--clients c-epoll,ours,pymodbus]

The other end is the same for all: bare C devices on the second core (`c/modbus.c`); a request reads 10 holding
registers. Decoding is of answers of 125 registers; ours is timed by criterion (`protocols/modbus/benches/codec.rs`).
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benches import loads
from benches.harness import (
    CLIENT_CORE,
    METER_CORE,
    ROOT,
    compiled,
    environment,
    keep,
    last_json,
    need,
    summary,
)

CLIENTS = ("c-epoll", "ours", "pymodbus")
LOADS: dict[str, dict[str, Any]] = {
    "saturated 1": {"mode": "saturated", "meters": 1},
    "saturated 100": {"mode": "saturated", "meters": 100},
    "saturated 5000": {"mode": "saturated", "meters": 5000},
    "paced 10000": {"mode": "paced", "meters": 10_000, "rate": 10_000},
}
# A load that pymodbus cannot keep up with measures nothing of it.
NOT_PACED = {"pymodbus"}
WORKS = {
    "TCP answer of 125 registers, decode": "tcp-125",
    "RTU answer of 125 registers, decode": "rtu-125",
}
CRITERION = ("cargo", "bench", "--locked", "-q", "-p", "ipss-modbus", "--bench", "codec")
# What the project set itself: ours over another's (at most), or another's over ours (at least).
AT_MOST = {("saturated 5000", "c-epoll"): 1.4, ("paced 10000", "c-epoll"): 2.0}
AT_LEAST = {("saturated 100", "pymodbus"): 13, ("saturated 5000", "pymodbus"): 13}
DECODE_AT_LEAST = 200


@contextlib.contextmanager
def devices() -> Iterator[int]:
    """Run the bare C devices on their own core; the port."""
    command = ["taskset", "-c", METER_CORE, str(compiled("modbus")), "device", "--port", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["port"]
        finally:
            process.kill()


def command(client: str, load: dict[str, Any], port: int, seconds: float) -> list[str | Path]:
    """How a client is run under a load, pinned to the clients' core."""
    options = ["--port", port, "--meters", load["meters"], "--mode", load["mode"]]
    options += ["--seconds", seconds, "--warm-up", 1, "--rate", load.get("rate", 0)]
    if client == "c-epoll":
        program: list[str | Path] = [compiled("modbus"), "client"]
    elif client == "ours":
        program = [sys.executable, "-m", "benches.peers.modbus_ours"]
    else:
        program = [environment("pymodbus"), "-m", "benches.peers.modbus_pymodbus"]
    return ["taskset", "-c", CLIENT_CORE, *program, *(str(option) for option in options)]


def measure(name: str, clients: list[str], rounds: int, seconds: float) -> dict[str, Any]:
    """All clients under one load, taking turns."""
    load = LOADS[name]
    taking_part = [client for client in clients if client not in NOT_PACED or load["mode"] != "paced"]
    with devices() as port:
        result = loads.turns(command, load, taking_part, port, rounds, seconds)
    loads.compare(name, result, AT_MOST, AT_LEAST)
    return result


def decoding(quick: bool) -> list[dict[str, Any]]:
    """Microseconds of one core to decode an answer, ours by criterion, pymodbus in its own process."""
    subprocess.run([*CRITERION, "--no-run"], cwd=ROOT, check=True)
    theirs = last_json(
        ["taskset", "-c", CLIENT_CORE, environment("pymodbus"), "-m", "benches.peers.modbus_codec_pymodbus"],
        timeout_s=300,
    )
    lengths = ("0.2", "0.5", "10") if quick else ("0.5", "1.5", "15")
    names = ("--warm-up-time", "--measurement-time", "--sample-size")
    options = [part for pair in zip(names, lengths, strict=True) for part in pair]
    quiet = subprocess.DEVNULL
    bench = ["taskset", "-c", CLIENT_CORE, *CRITERION, "--", *options]
    subprocess.run(bench, cwd=ROOT, check=True, stdout=quiet, stderr=quiet)
    rows = []
    for work, slug in WORKS.items():
        sample = json.loads((ROOT / "target" / "criterion" / "modbus" / slug / "new" / "sample.json").read_text())
        own = summary([ns / count / 1000 for ns, count in zip(sample["times"], sample["iters"], strict=True)])
        peer = summary(theirs["figures_us"][work])
        ratio = round(peer["median"] / own["median"], 1)
        rows.append(
            {"work": work, "ours_us": own, "pymodbus_us": peer, "times_faster": ratio, "target": DECODE_AT_LEAST}
        )
    return rows


def main() -> int:
    given = loads.options(__doc__, LOADS, CLIENTS)
    need()
    rows = [] if given.only else decoding(given.quick)
    if rows:
        print(f"{'CPU microseconds a call, one core':40} {'ours':>9} {'pymodbus':>9} {'x':>7}")
    for row in rows:
        ours, theirs = row["ours_us"]["median"], row["pymodbus_us"]["median"]
        print(f"{row['work']:40} {ours:9.3f} {theirs:9.1f} {row['times_faster']:7.0f}")
    found = {}
    loads.head("CPU microseconds a request, one core")
    for name in given.only or LOADS:
        found[name] = measure(name, given.clients, given.rounds, given.seconds)
        loads.show(name, found[name])
    if not given.quick and not given.only:
        keep("modbus", {"seconds": given.seconds, "rounds": given.rounds, "decode": rows, "loads": found})
    return loads.status(found)


if __name__ == "__main__":
    sys.exit(main())
