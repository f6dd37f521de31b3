"""Connections held: resident memory of the process per idle associated session, at 1,000, 5,000 and 15,000.

    python -m benches.held [--quick]

Measured as the difference of the process' resident memory before the first connection and after the last association,
over the number of sessions. The kernel's socket buffers are not in it, as they are in nobody's process.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from benches.fleet import CLIENTS, command
from benches.harness import c_meters, keep, last_json, need
from benches.loads import available

SIZES = (1000, 5000, 15_000)
# Of the asking side's user memory, KiB a session; 1 is aimed at.
TARGET_KIB = 4.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1,000 only, nothing kept")
    given = parser.parse_args()
    need()
    rows: list[dict[str, Any]] = []
    status = 0
    with c_meters() as port:
        for client in [one for one in available(CLIENTS) if one in ("c-epoll", "ours", "uvloop")]:
            for size in SIZES[:1] if given.quick else SIZES:
                load = {"mode": "held", "meters": size}
                line = last_json(command(client, load, port, 0.2), timeout_s=180)
                row = {"client": client, "held": line["associated"], "kib_a_session": line["kib_a_connection"]}
                rows.append(row)
                print(f"{client:12} {row['held']:6} held {row['kib_a_session']:8.2f} KiB a session")
                if line["associated"] != size:
                    print(f"{client}: {size} wanted, {line['associated']} associated", file=sys.stderr)
                    status = 1
    if not given.quick:
        keep("held", {"rows": rows, "target_kib": TARGET_KIB})
    return status


if __name__ == "__main__":
    sys.exit(main())
