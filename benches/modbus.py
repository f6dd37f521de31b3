"""One core of head-end asking Modbus devices, and decoding: ours, a bare C epoll client, pymodbus' asyncio client.

    python -m benches.modbus [--quick] [--only LOAD] [--clients c-epoll,ours,pymodbus]

The other end is the same for all: bare C devices on the second core (`c/modbus.c`); a request reads 10 holding
registers. Decoding is of answers of 125 registers; ours is timed by criterion (`protocols/modbus/benches/codec.rs`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benches.harness import (
    CLIENT_CORE,
    METER_CORE,
    ROOT,
    compiled,
    environment,
    extension_is_built,
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
    runs: dict[str, list[dict[str, Any]]] = {client: [] for client in taking_part}
    with devices() as port:
        for _ in range(rounds):
            for client in taking_part:
                runs[client].append(last_json(command(client, load, port, seconds), timeout_s=120 + seconds))
    result: dict[str, Any] = {}
    for client, lines in runs.items():
        result[client] = {
            "cpu_us": summary([line["cpu_us"] for line in lines]),
            "per_second": summary([line["per_second"] for line in lines]),
            "lost": sum(line["lost"] for line in lines),
            "late": sum(line["late"] for line in lines),
            "runs": len(lines),
        }
    for client, figures in result.items():
        for reference in ("c-epoll", "ours"):
            if reference in result:
                ratio = figures["cpu_us"]["median"] / result[reference]["cpu_us"]["median"]
                figures[f"times_{reference}"] = round(ratio, 2)
        if (name, client) in AT_MOST:
            figures["target"] = f"ours at most {AT_MOST[name, client]} times this"
        if (name, client) in AT_LEAST:
            figures["target"] = f"at least {AT_LEAST[name, client]} times ours"
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, nothing kept")
    parser.add_argument("--only", choices=LOADS, action="append")
    parser.add_argument("--clients", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    given = parser.parse_args()
    need()
    built = extension_is_built()
    clients = given.clients.split(",") if given.clients else [name for name in CLIENTS if name != "ours" or built]
    rounds, seconds = (1, 1.0) if given.quick else (given.rounds, given.seconds)

    rows = decoding(given.quick)
    print(f"{'CPU microseconds a call, one core':40} {'ours':>9} {'pymodbus':>9} {'x':>7}")
    for row in rows:
        ours, theirs = row["ours_us"]["median"], row["pymodbus_us"]["median"]
        print(f"{row['work']:40} {ours:9.3f} {theirs:9.1f} {row['times_faster']:7.0f}")

    loads = {}
    heads = ("median", "spread", "x C", "x ours", "per s", "lost")
    print(f"{'CPU microseconds a request, one core':40} " + " ".join(f"{head:>9}" for head in heads))
    for name in given.only or LOADS:
        loads[name] = measure(name, clients, rounds, seconds)
        for client, figures in loads[name].items():
            cpu = figures["cpu_us"]
            print(
                f"{name + ', ' + client:40} {cpu['median']:9.2f} {cpu['spread_percent']:8.0f}% "
                f"{figures.get('times_c-epoll', 0):9.2f} {figures.get('times_ours', 0):9.2f} "
                f"{figures['per_second']['median']:9.0f} {figures['lost']:9}"
            )
    if not given.quick and not given.only:
        keep("modbus", {"decode": rows, "loads": loads})
    return 1 if any(figures["lost"] for load in loads.values() for figures in load.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
