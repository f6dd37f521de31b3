"""One core of head-end reading a fleet: ours, a bare C epoll client, uvloop, dlms-cosem, gurux-dlms.

    python -m benches.fleet [--quick] [--only LOAD] [--clients c-epoll,ours,...]

The other end is the same for all: bare C meters on the second core (HLS-GMAC, suite 0, a key a meter). A client has the
first core for itself, whatever threads it has; its figure is the user and system time of its process over the exchanges
that were answered right. Runs take turns, so that what the machine does meanwhile hits all alike.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benches import loads
from benches.harness import CLIENT_CORE, c_meters, compiled, environment, keep, need

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
    with c_meters(delay_ms=load.get("delay_ms", 0)) as port:
        result = loads.turns(command, load, taking_part, port, rounds, seconds)
    loads.compare(name, result, AT_MOST, AT_LEAST)
    return result


def main() -> int:
    given = loads.options(__doc__, LOADS, CLIENTS)
    need()
    found = {}
    loads.head("CPU microseconds an exchange, one core")
    for name in given.only or LOADS:
        found[name] = measure(name, given.clients, given.rounds, given.seconds)
        loads.show(name, found[name])
    if not given.quick:
        keep("fleet", {"seconds": given.seconds, "rounds": given.rounds, "loads": found})
    return loads.status(found)


if __name__ == "__main__":
    sys.exit(main())
