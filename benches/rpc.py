"""One core of msgpack-RPC server: ours as in production, mprpc's and aio-msgpack-rpc's, asked by the same callers.

    python -m benches.rpc [--quick] [--only LOAD]

The callers are one C program on the second core (`c/rpc_client.c`); all servers are up the whole time on the first, and
those that are not asked do nothing. A small call is `rpc.ping`; `read.last` asks for one register of one of 1,000
meters. Ours is a head-end whole (`peers/rpc_ours.py`), over its unix socket and over TLS 1.3 with certificates on both
sides; the peers answer the same octets with the same maps from a dictionary, over a unix socket, and check nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benches.harness import (
    BUILD,
    CLIENT_CORE,
    METER_CORE,
    ROOT,
    compiled,
    environment,
    keep,
    last_json,
    need,
    serving,
    summary,
)
from benches.peers.rpc_values import METERS, REGISTER

SERVER_CORE, CALLER_CORE = CLIENT_CORE, METER_CORE
SIDES = ("ours, unix socket", "ours, TLS", "mprpc", "aio-msgpack-rpc")
PING = {"method": "rpc.ping", "params": "9180"}
QUESTION = f"\x91\x82\xa6points\x91\xadvirtual-00000\xa5items\x91\xad{REGISTER}".encode("latin-1")
LAST = {
    "method": "read.last",
    "params": QUESTION.hex(),
    "digits": QUESTION.index(b"00000"),
    "numbers": METERS,
}
OURS = SIDES[:1]
LOADS: dict[str, dict[str, Any]] = {
    # mprpc's server answers one call of all that one receive brought, so it cannot be asked so.
    "pipelined": {"sides": [*SIDES[:2], SIDES[3]], "calls": {**PING, "connections": 8, "window": 64}},
    "one at a time": {"sides": SIDES, "calls": {**PING, "connections": 200, "window": 1}},
    "read.last": {"sides": SIDES, "calls": {**LAST, "connections": 200, "rate": 20_000}},
    "100 callers": {"sides": OURS, "calls": {**LAST, "connections": 100, "rate": 5000}},
    "100 callers, one of them 100 times": {
        "sides": OURS,
        "calls": {**LAST, "connections": 100, "rate": 5000},
        "beside": {**LAST, "connections": 1, "rate": 5000},
    },
    "200 callers": {"sides": OURS, "calls": {**LAST, "connections": 200, "rate": 5000}},
    "200 callers, logins tried": {
        "sides": OURS,
        "calls": {**LAST, "connections": 200, "rate": 5000},
        "logins": 1000,
    },
}
ALONE = {"100 callers, one of them 100 times": "100 callers", "200 callers, logins tried": "200 callers"}
# What the project set itself (ours).
PER_SECOND_AT_LEAST = {"pipelined": 50_000}
P99_US_AT_MOST = {"read.last": 2000}
P99_TIMES_AT_MOST = {"100 callers, one of them 100 times": 2.0, "200 callers, logins tried": 1.2}
START_S = 60
KEPT = ("per_second", "cpu_us", "p50_us", "p99_us")


def server(command: list[str | Path]) -> contextlib.AbstractContextManager[dict[str, Any]]:
    """Run a server on its core; what it says of itself."""
    environ = {"PYTHONPATH": f"{ROOT / 'python'}:{ROOT}", "PATH": "/usr/bin:/bin"}
    return serving(SERVER_CORE, command, env=environ, end_s=15)


@contextlib.contextmanager
def servers(rounds: int) -> Iterator[dict[str, dict[str, Any]]]:
    """All of them: how each is reached and its process' number."""
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as name, contextlib.ExitStack() as up:
        directory = Path(name)
        ours = up.enter_context(server([sys.executable, "-m", "benches.peers.rpc_ours", directory, str(rounds)]))
        shown = {key: ours[key] for key in ("authority", "certificate", "key")}
        found = {
            "ours, unix socket": {"address": ours["unix"], "pid": ours["pid"], "ours": ours},
            "ours, TLS": {"address": ours["tls"], "pid": ours["pid"], **shown},
        }
        for side, environment_name, module in (("mprpc", "mprpc", "rpc_mprpc"), (SIDES[3], SIDES[3], "rpc_aio")):
            path = directory / f"{module}.sock"
            program: list[str | Path] = [environment(environment_name), "-m", f"benches.peers.{module}", path]
            told = up.enter_context(server(program))
            wait_for(path)
            found[side] = {"address": f"unix:{path}", **told}
        yield found


def wait_for(path: Path) -> None:
    """Until a socket is there."""
    deadline = time.monotonic() + START_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{path}: no server after {START_S} s")
        time.sleep(0.02)


def group(name: str, **settings: object) -> list[str | Path]:
    """Callers of one kind, as the C program takes them."""
    return ["--group", ",".join(f"{key}={value}" for key, value in {"name": name, **settings}.items())]


def logins(ours: dict[str, Any], turn: int, rate: int) -> list[str | Path]:
    """Whoever tries a password: certificates that were stolen, other ones in each round."""
    tried: list[str | Path] = []
    each = ours["each"]
    people = ours["people"][turn * each : (turn + 1) * each]
    for number, (user, certificate, key) in enumerate(people):
        params = b"\x91\x82\xa4user" + _text(user) + b"\xa8password" + _text("a long password of another's")
        where = {"address": ours["tls"], "authority": ours["authority"], "certificate": certificate, "key": key}
        call = {"method": "auth.login", "params": params.hex(), "refusals": 1, "connections": 5}
        tried += group(f"logins {number}", **where, **call, rate=rate / len(people))
    return tried


def _text(words: str) -> bytes:
    octets = words.encode()
    return bytes([0xA0 | len(octets)]) + octets


def run(load: dict[str, Any], side: dict[str, Any], turn: int, seconds: float) -> dict[str, Any]:
    """One run of a load at a server."""
    reached = {key: side[key] for key in ("address", "authority", "certificate", "key") if key in side}
    command: list[str | Path] = ["taskset", "-c", CALLER_CORE, compiled("rpc_client"), "--pid", str(side["pid"])]
    # Passwords that are still compared at the end are waited for.
    command += ["--warm-up", "0.5", "--seconds", str(seconds), "--grace", "30" if "logins" in load else "4"]
    command += group("calls", **reached, **load["calls"])
    if "beside" in load:
        command += group("beside", **reached, **load["beside"])
    if "logins" in load:
        command += logins(side["ours"], turn, load["logins"])
    said = last_json(command, timeout_s=60 + seconds)
    calls, answered = said["groups"]["calls"], sum(one["per_second"] for one in said["groups"].values()) * seconds
    return {
        **{key: calls[key] for key in ("per_second", "p50_us", "p99_us")},
        "cpu_us": said["cpu_us"] / max(answered, 1),
        "lost": sum(one["lost"] for one in said["groups"].values()),
        "refused": sum(one["refused"] for one in said["groups"].values()),
    }


def measure(reached: dict[str, dict[str, Any]], names: list[str], rounds: int, seconds: float) -> dict[str, Any]:
    """All loads, sides and loads taking turns."""
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {
        name: {side: [] for side in LOADS[name]["sides"]} for name in names
    }
    for side in SIDES:  # once, so that what is asked for is in memory
        run({"calls": {**LAST, "connections": 20}}, reached[side], 0, 0.5)
    for turn in range(rounds):
        for name in names:
            for side in LOADS[name]["sides"]:
                runs[name][side].append(run(LOADS[name], reached[side], turn, seconds))
    found: dict[str, Any] = {}
    for name, sides in runs.items():
        found[name] = {}
        for side, lines in sides.items():
            figures = {
                key: summary([one[key] for one in lines]) for key in ("per_second", "cpu_us", "p50_us", "p99_us")
            }
            found[name][side] = {**figures, "lost": sum(one["lost"] for one in lines), "runs": len(lines)}
            if name in ALONE and ALONE[name] in found:
                alone = found[ALONE[name]][side]["p99_us"]["median"]
                found[name][side]["p99_times_alone"] = round(figures["p99_us"]["median"] / alone, 2)
        for figures in found[name].values():
            own = found[name][SIDES[0]]["cpu_us"]["median"]
            figures["times_ours"] = round(figures["cpu_us"]["median"] / own, 2)
    return found


def verdicts(found: dict[str, Any]) -> Iterator[str]:
    """What the project set itself, and what came of it."""
    ours = SIDES[0]
    for name, goal in PER_SECOND_AT_LEAST.items():
        if name in found:
            value = found[name][ours]["per_second"]["median"]
            yield f"{name}: {value:,.0f} a second, at least {goal:,} asked for: {'met' if value >= goal else 'missed'}"
    for name, limit in P99_US_AT_MOST.items():
        if name in found:
            value = found[name][ours]["p99_us"]["median"]
            yield f"{name}: p99 {value:,.0f} us, at most {limit:,} asked for: {'met' if value <= limit else 'missed'}"
    for name, times in P99_TIMES_AT_MOST.items():
        if "p99_times_alone" in found.get(name, {}).get(ours, {}):
            value = found[name][ours]["p99_times_alone"]
            yield f"{name}: p99 {value:g} x, at most {times:g} asked for: {'met' if value <= times else 'missed'}"


def show(found: dict[str, Any]) -> None:
    """The table."""
    heads = ("CPU us", "spread", "x ours", "per s", "p50 us", "p99 us", "spread", "lost")
    print(f"{'a call, one core':54} " + " ".join(f"{head:>8}" for head in heads))
    for name, sides in found.items():
        for side, figures in sides.items():
            cpu, p99 = figures["cpu_us"], figures["p99_us"]
            cells = (cpu["spread_percent"], figures["times_ours"], figures["per_second"]["median"])
            print(
                f"{name + ', ' + side:54} {cpu['median']:8.2f} {cells[0]:7.0f}% {cells[1]:8.2f} {cells[2]:8.0f} "
                f"{figures['p50_us']['median']:8.0f} {p99['median']:8.0f} {p99['spread_percent']:7.0f}% "
                f"{figures['lost']:8}"
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round, nothing kept")
    parser.add_argument("--only", choices=LOADS, action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.seconds = 1, 1.0
    need()
    with servers(given.rounds) as reached:
        found = measure(reached, given.only or list(LOADS), given.rounds, given.seconds)
        versions = {side: told["version"] for side, told in reached.items() if "version" in told}
    show(found)
    for verdict in verdicts(found):
        print(verdict)
    for name, sides in found.items():
        for side, figures in sides.items():
            if figures["lost"]:
                print(f"{name}, {side}: {figures['lost']} calls lost: this is no result of it", file=sys.stderr)
    if any(sides[side]["lost"] for sides in found.values() for side in sides if side.startswith("ours")):
        return 1
    if not given.quick and not given.only:
        goals = {"per_second": PER_SECOND_AT_LEAST, "p99_us": P99_US_AT_MOST, "p99_times_alone": P99_TIMES_AT_MOST}
        keep(
            "rpc",
            {"seconds": given.seconds, "rounds": given.rounds, "loads": found, "targets": goals, "versions": versions},
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
