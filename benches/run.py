"""All benches, one after the other, then the README's table: what `make bench` runs.

python benches/run.py                 everything, some twenty minutes; the machine should do nothing else
python benches/run.py --quick         a rough look; nothing is kept
python benches/run.py codec store     some of them
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BENCHES = ("codec", "fleet", "modbus", "held", "store", "end_to_end", "plugins", "rpc", "safety", "recovery")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benches", nargs="*", metavar="BENCH", help=", ".join(BENCHES))
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    status = 0
    for name in given.benches or BENCHES:
        print(f"\n== {name}", flush=True)
        command = [sys.executable, "-m", f"benches.{name}", *(["--quick"] if given.quick else [])]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode or status
    if not given.quick:
        status = subprocess.run([sys.executable, "-m", "benches.report"], cwd=ROOT, check=False).returncode or status
    return status


if __name__ == "__main__":
    sys.exit(main())
