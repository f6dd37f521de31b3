"""Decode, encode, decipher: ours against dlms-cosem and gurux-dlms, on the same octets, on one core.

    python -m benches.codec [--quick]

Each side runs in a process of its own and checks what it decoded before it is timed. Ours is timed by criterion, for
no Python stands between the octets and the batch; the peers by `timing.py`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benches.harness import CLIENT_CORE, ROOT, environment, extension_is_built, keep, last_json, summary

WORKS = {
    "GET request, encode and cipher": "get-request-cipher",
    "GET response, encode": "get-response-encode",
    "GET response, decode": "get-response-decode",
    "GET response, decipher and decode": "get-response-open",
    "GET response in HDLC, deframe, decipher and decode": "get-response-hdlc",
    "GET response, suite 1, decipher and decode": "get-response-open-suite-1",
    "GET response, suite 2, decipher and decode": "get-response-open-suite-2",
    "96 x 4 profile, decipher and decode": "profile-open",
    "association: AARQ, AARE, both proofs": "association",
}
CRITERION = ("cargo", "bench", "--locked", "-q", "-p", "ipss-dlms", "--bench", "peers")
# Sides take turns so often, so that what the machine does meanwhile hits all alike.
ROUNDS = 3
# What the project set itself, as times faster: work, peer, ratio.
TARGETS = {
    ("96 x 4 profile, decipher and decode", "dlms-cosem"): 400,
    ("96 x 4 profile, decipher and decode", "gurux-dlms"): 4000,
    ("GET response, decipher and decode", "dlms-cosem"): 30,
    ("GET response, decipher and decode", "gurux-dlms"): 1000,
}


def ours(quick: bool) -> dict[str, list[float]]:
    """Microseconds of processor time a call by criterion, a figure a sample."""
    lengths = ("0.2", "0.5", "10") if quick else ("0.5", "1.5", "15")
    names = ("--warm-up-time", "--measurement-time", "--sample-size")
    options = [part for pair in zip(names, lengths, strict=True) for part in pair]
    subprocess.run(
        ["taskset", "-c", CLIENT_CORE, *CRITERION, "--", *options],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    figures = {}
    for work, slug in WORKS.items():
        sample = json.loads((ROOT / "target" / "criterion" / "peers" / slug / "new" / "sample.json").read_text())
        figures[work] = [
            nanoseconds / count / 1000 for nanoseconds, count in zip(sample["times"], sample["iters"], strict=True)
        ]
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a rough look in half a minute")
    given = parser.parse_args()

    # Built before anything is timed, so that no compiler runs beside a measurement.
    subprocess.run([*CRITERION, "--no-run"], cwd=ROOT, check=True)
    interpreters = {"dlms_cosem": environment("dlms-cosem"), "gurux": environment("gurux")}
    if extension_is_built():
        interpreters = {"ours": Path(sys.executable), **interpreters}
    own_figures: dict[str, list[float]] = {work: [] for work in WORKS}
    sides: dict[str, dict[str, Any]] = {}
    for _ in range(1 if given.quick else ROUNDS):
        for module, python in interpreters.items():
            command = ["taskset", "-c", CLIENT_CORE, python, "-m", f"benches.peers.codec_{module}"]
            line = last_json(command, timeout_s=300)
            side = sides.setdefault(line["side"], {"version": line["version"], "figures_us": {}})
            for work, figures in line["figures_us"].items():
                side["figures_us"].setdefault(work, []).extend(figures)
        for work, figures in ours(given.quick).items():
            own_figures[work].extend(figures)
    own = {work: summary(figures) for work, figures in own_figures.items()}

    rows: list[dict[str, Any]] = []
    for work in WORKS:
        row: dict[str, Any] = {"work": work, "ours_us": own[work], "peers": {}}
        for name, side in sides.items():
            if work in side["figures_us"]:
                figures = summary(side["figures_us"][work])
                row["peers"][name] = {
                    "us": figures,
                    "times_faster": round(figures["median"] / own[work]["median"], 1),
                    "target": TARGETS.get((work, name)),
                }
        rows.append(row)
    if not given.quick:
        keep("codec", {"versions": {name: side["version"] for name, side in sides.items()}, "rows": rows})

    print(f"{'microseconds a call, one core':38} {'ours':>10}  " + "".join(f"{name:>24}" for name in sides))
    for row in rows:
        cells = ""
        for name in sides:
            peer = row["peers"].get(name)
            cells += f"{peer['us']['median']:12.1f} {peer['times_faster']:8.0f} x" if peer else f"{'-':>23}"
            cells += " "
        print(f"{row['work']:38} {row['ours_us']['median']:10.3f}  {cells}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
