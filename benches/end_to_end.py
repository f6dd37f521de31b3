"""The whole head-end on a virtual fleet: from asking the meters to readings that are durable.

    python -m benches.end_to_end [--quick]

Runs `ipss-headend demo --json`: 1,000 virtual meters in a process of their own, a head-end on SQLite, three days of
load profile and the registers of each meter over HLS-GMAC associations with ciphered APDUs. Both share the machine.
Lost is every request that failed and every line that is missing at the end; a run with a loss is no result.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benches.harness import BUILD, keep, last_json, summary

METERS = 1_000
TARGET = 150_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one run, nothing kept")
    given = parser.parse_args()

    BUILD.mkdir(exist_ok=True)
    runs = []
    for _ in range(1 if given.quick else 5):
        with tempfile.TemporaryDirectory(dir=BUILD) as directory:
            command: list[str | Path] = [sys.executable, "-m", "ipss_headend.cli", "demo", "--json"]
            runs.append(last_json([*command, "--meters", str(METERS), "--directory", directory], timeout_s=120))
    lost = sum(run["failed"] + run["gaps"] + METERS - run["meters_read"] for run in runs)
    rate = summary([run["values_per_second"] for run in runs])
    duration = summary([run["duration_s"] for run in runs])
    cpu = summary([run["cpu_s"] / run["values_stored"] * 1e6 for run in runs])
    print(f"{METERS:,} meters, {runs[0]['values_stored']:,} values, lost {lost}")
    for label, figures in [("values a second", rate), ("seconds", duration), ("CPU us a value", cpu)]:
        print(f"{label:<18}{figures['median']:>12,.2f}  ({figures['low']:,.2f} to {figures['high']:,.2f})")
    if lost:
        print("a loss: no result", file=sys.stderr)
        return 1
    print(f"target {TARGET:,} values a second: {'met' if rate['median'] >= TARGET else 'missed'}")
    if not given.quick:
        result = {"meters": METERS, "values": runs[0]["values_stored"], "lost": lost}
        keep("end_to_end", result | {"values_per_second": rate, "duration_s": duration, "cpu_us_a_value": cpu})
    return 0


if __name__ == "__main__":
    sys.exit(main())
