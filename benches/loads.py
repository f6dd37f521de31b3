"""What the benches of loads share (`fleet.py`, `modbus.py`): clients taking turns, ratios, the table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benches.harness import extension_is_built, last_json, summary

Command = Callable[[str, dict[str, Any], int, float], list[str | Path]]
"""How a client is run under a load at a port for so many seconds."""

Limits = Mapping[tuple[str, str], float]
"""A goal for a load and a client."""


def options(description: str | None, loads: Mapping[str, Any], clients: Sequence[str]) -> argparse.Namespace:
    """What was asked for: `quick`, `only`, `clients`, `rounds`, `seconds`. Ours needs the extension built."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="one short round, nothing kept")
    parser.add_argument("--only", choices=loads, action="append")
    parser.add_argument("--clients", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    given = parser.parse_args()
    given.clients = given.clients.split(",") if given.clients else available(clients)
    if given.quick:
        given.rounds, given.seconds = 1, 1.0
    return given


def available(clients: Sequence[str]) -> list[str]:
    """Those that can run here."""
    built = extension_is_built()
    return [client for client in clients if client != "ours" or built]


def turns(
    command: Command, load: dict[str, Any], clients: Sequence[str], port: int, rounds: int, seconds: float
) -> dict[str, dict[str, Any]]:
    """The figures of each client; runs take turns, so that what the machine does meanwhile hits all alike."""
    runs: dict[str, list[dict[str, Any]]] = {client: [] for client in clients}
    for _ in range(rounds):
        for client in clients:
            runs[client].append(last_json(command(client, load, port, seconds), timeout_s=120 + seconds))
    return {
        client: {
            "meters": lines[0]["meters"],
            "cpu_us": summary([line["cpu_us"] for line in lines]),
            "per_second": summary([line["per_second"] for line in lines]),
            "lost": sum(line["lost"] for line in lines),
            "late": sum(line["late"] for line in lines),
            "p50_us": summary([line.get("p50_us", 0) for line in lines])["median"],
            "p99_us": summary([line.get("p99_us", 0) for line in lines])["median"],
            "runs": len(lines),
        }
        for client, lines in runs.items()
    }


def compare(name: str, result: dict[str, dict[str, Any]], at_most: Limits, at_least: Limits) -> None:
    """Add ratios and goals to the figures of a load."""
    for client, figures in result.items():
        for reference in ("c-epoll", "ours"):
            if reference in result:
                ratio = figures["cpu_us"]["median"] / result[reference]["cpu_us"]["median"]
                figures[f"times_{reference}"] = round(ratio, 2)
        if client == "ours":
            continue
        if (name, client) in at_most:
            figures["target"] = f"ours at most {at_most[name, client]} times this"
        if (name, client) in at_least:
            figures["target"] = f"at least {at_least[name, client]} times ours"


def head(what: str) -> None:
    """The first line of the table."""
    heads = ("median", "spread", "x C", "x ours", "per s", "lost", "p50 us", "p99 us")
    print(f"{what:40} " + " ".join(f"{head:>9}" for head in heads))


def show(name: str, result: dict[str, dict[str, Any]]) -> None:
    """The lines of one load."""
    for client, figures in result.items():
        cpu = figures["cpu_us"]
        print(
            f"{name + ', ' + client:40} {cpu['median']:9.2f} {cpu['spread_percent']:8.0f}% "
            f"{figures.get('times_c-epoll', 0):9.2f} {figures.get('times_ours', 0):9.2f} "
            f"{figures['per_second']['median']:9.0f} {figures['lost']:9} "
            f"{figures['p50_us']:9.0f} {figures['p99_us']:9.0f}"
        )


def status(loads: dict[str, dict[str, dict[str, Any]]]) -> int:
    """0 if nothing was lost, which is said otherwise."""
    lost = sum(figures["lost"] for load in loads.values() for figures in load.values())
    if lost:
        print(f"{lost} exchanges lost: this is no result", file=sys.stderr)
    return 1 if lost else 0
