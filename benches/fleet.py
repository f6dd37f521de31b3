"""One core of head-end reading a fleet: ours, a bare C epoll client, uvloop, dlms-cosem, gurux-dlms.

    python -m benches.fleet [--quick] [--only LOAD] [--clients c-epoll,ours,...]

The other end is the same for all: bare C meters on the second core (HLS-GMAC, suite 0, a key a meter). A client has the
first core for itself, whatever threads it has; its figure is the user and system time of its process over the exchanges
that were answered right. Runs take turns, so that what the machine does meanwhile hits all alike.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benches.harness import (
    CLIENT_CORE,
    c_meters,
    compiled,
    environment,
    extension_is_built,
    keep,
    last_json,
    need,
    summary,
)

CLIENTS = ("c-epoll", "ours", "uvloop", "dlms-cosem", "gurux-dlms")
# These block on each exchange: what one costs does not depend on how many other meters are connected.
BLOCKING = {"dlms-cosem", "gurux-dlms"}
BLOCKING_METERS = 20

LOADS: dict[str, dict[str, Any]] = {
    "saturated 1000": {"mode": "saturated", "meters": 1000},
    "saturated 10000": {"mode": "saturated", "meters": 10_000},
    "paced 10000": {"mode": "paced", "meters": 10_000, "rate": 10_000, "delay_ms": 200},
    # Nearly all of the meters at a time, as after a network's outage; one after the other for those that block.
    "cycle": {"mode": "cycle", "meters": 1000, "concurrency": 900},
}
# What the project set itself: ours over another's (at most), or another's over ours (at least).
AT_MOST = {
    ("saturated 1000", "c-epoll"): 1.5,
    ("saturated 10000", "c-epoll"): 1.5,
    ("paced 10000", "c-epoll"): 2.2,
    ("saturated 1000", "uvloop"): 1.0,
    ("saturated 10000", "uvloop"): 1.0,
    ("paced 10000", "uvloop"): 1.0,
}
AT_LEAST = {
    ("saturated 1000", "dlms-cosem"): 18,
    ("saturated 1000", "gurux-dlms"): 200,
    ("cycle", "dlms-cosem"): 20,
    ("cycle", "gurux-dlms"): 150,
}


def available() -> list[str]:
    """The clients that can run here: ours needs the extension built."""
    built = extension_is_built()
    return [client for client in CLIENTS if client != "ours" or built]


def command(client: str, load: dict[str, Any], port: int, seconds: float) -> list[str | Path]:
    """How a client is run under a load, pinned to the clients' core."""
    meters = min(load["meters"], BLOCKING_METERS) if client in BLOCKING else load["meters"]
    options = ["--port", port, "--meters", meters, "--mode", load["mode"], "--seconds", seconds, "--warm-up", 1]
    options += ["--rate", load.get("rate", 0), "--tick-ms", 5, "--concurrency", load.get("concurrency", 1)]
    if client == "c-epoll":
        program: list[str | Path] = [compiled("epoll_client")]
    elif client == "ours":
        program = [sys.executable, "-m", "benches.peers.fleet_ours"]
    elif client == "uvloop":
        compiled("bare_codec", extension=True)
        program = [environment("uvloop"), "-m", "benches.peers.fleet_uvloop"]
    else:
        module = "fleet_dlms_cosem" if client == "dlms-cosem" else "fleet_gurux"
        program = [environment("dlms-cosem" if client == "dlms-cosem" else "gurux"), "-m", f"benches.peers.{module}"]
    return ["taskset", "-c", CLIENT_CORE, *program, *(str(option) for option in options)]


def measure(name: str, clients: list[str], rounds: int, seconds: float) -> dict[str, Any]:
    """All clients under one load, taking turns."""
    load = LOADS[name]
    # A blocking client cannot be paced: it would only sleep. It takes part where it is asked to be as fast as it can.
    taking_part = [client for client in clients if client not in BLOCKING or name in ("saturated 1000", "cycle")]
    runs: dict[str, list[dict[str, Any]]] = {client: [] for client in taking_part}
    with c_meters(delay_ms=load.get("delay_ms", 0)) as port:
        for _ in range(rounds):
            for client in taking_part:
                runs[client].append(last_json(command(client, load, port, seconds), timeout_s=120 + seconds))
    result: dict[str, Any] = {}
    for client, lines in runs.items():
        result[client] = {
            "meters": lines[0]["meters"],
            "cpu_us": summary([line["cpu_us"] for line in lines]),
            "per_second": summary([line["per_second"] for line in lines]),
            "lost": sum(line["lost"] for line in lines),
            "late": sum(line["late"] for line in lines),
            "p50_us": summary([line["p50_us"] for line in lines])["median"],
            "p99_us": summary([line["p99_us"] for line in lines])["median"],
            "runs": len(lines),
        }
    for client, figures in result.items():
        for reference in ("c-epoll", "ours"):
            if reference in result:
                ratio = figures["cpu_us"]["median"] / result[reference]["cpu_us"]["median"]
                figures[f"times_{reference}"] = round(ratio, 2)
        if client == "ours":
            continue
        if (name, client) in AT_MOST:
            figures["target"] = f"ours at most {AT_MOST[name, client]} times this"
        if (name, client) in AT_LEAST:
            figures["target"] = f"at least {AT_LEAST[name, client]} times ours"
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, nothing kept")
    parser.add_argument("--only", choices=LOADS, action="append")
    parser.add_argument("--clients", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    given = parser.parse_args()
    need()
    clients = given.clients.split(",") if given.clients else available()
    rounds, seconds = (1, 1.0) if given.quick else (given.rounds, given.seconds)

    loads = {}
    heads = ("median", "spread", "x C", "x ours", "per s", "lost", "p50 us", "p99 us")
    print(f"{'CPU microseconds an exchange, one core':40} " + " ".join(f"{head:>9}" for head in heads))
    for name in given.only or LOADS:
        loads[name] = measure(name, clients, rounds, seconds)
        for client, figures in loads[name].items():
            cpu = figures["cpu_us"]
            print(
                f"{name + ', ' + client:40} {cpu['median']:9.2f} {cpu['spread_percent']:8.0f}% "
                f"{figures.get('times_c-epoll', 0):9.2f} {figures.get('times_ours', 0):9.2f} "
                f"{figures['per_second']['median']:9.0f} {figures['lost']:9} "
                f"{figures['p50_us']:9.0f} {figures['p99_us']:9.0f}"
            )
    if not given.quick:
        keep("fleet", {"seconds": seconds, "rounds": rounds, "loads": loads})
    lost = sum(figures["lost"] for load in loads.values() for figures in load.values())
    if lost:
        print(f"{lost} exchanges lost: this is no result", file=sys.stderr)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
