"""How soon a head-end is ready after kill -9, with a million readings that are only in the database's log (R1).

    python -m benches.recovery [--quick]

The writer (`tests/system/recovery.py`) is killed when all lines are acknowledged; SQLite's log was never merged into
the file, and PostgreSQL, which is killed with it, made no checkpoint. Then `ipss-headend serve` is started, behind
PostgreSQL where that is the store (`recovery_init_sync_method = syncfs`, as the README advises), and the clock runs
from the first start to the head-end's own "started". Beside it the same with a store that was closed in order, so that
what is not recovery shows. Each line is counted and compared with its checksum afterwards; a run that loses one is no
result. At most 5 s are asked for.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benches.harness import BUILD, keep, summary
from tests.postgresql import PrivateServer
from tests.system import recovery

from ipss_headend.cli.serve import make_head_end

RECORDS = 1_000_000
GOAL_S = 5.0


def measured(kind: str, records: int) -> tuple[float, float, int]:
    """Seconds until ready after the kill, seconds after an end in order, and how long the log was."""
    directory = Path(tempfile.mkdtemp(dir=BUILD))
    path, _ = make_head_end(directory / "head-end")
    text = path.read_text().replace("port = 9466", "port = 0")
    server: PrivateServer | None = None
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        if kind == "PostgreSQL":
            server = stack.enter_context(PrivateServer(BUILD))
            address = stack.enter_context(server.store(path.parent / "data"))
            text = text.replace("sqlite:///head_end.sqlite", address.url)
        path.write_text(text)
        told = recovery.killed(path, records, server)
        octets = recovery.log_octets(path, server)
        killed_s = recovery.ready(path, server)
        found = recovery.there(path)
        if not told == found[0] == found[1] == records:
            raise RuntimeError(f"{kind}: {told} lines acknowledged, {found[0]} in the ledger, {found[1]} there")
        if server is not None:
            server.stop(mode="fast")
        return killed_s, recovery.ready(path, server), octets


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the records, once, nothing kept")
    given = parser.parse_args()
    rounds, records = (1, RECORDS // 10) if given.quick else (3, RECORDS)
    BUILD.mkdir(exist_ok=True)
    found: dict[str, list[tuple[float, float, int]]] = {"SQLite": [], "PostgreSQL": []}
    for _ in range(rounds):
        for kind, figures in found.items():
            figures.append(measured(kind, records))
    rows = []
    for kind, figures in found.items():
        killed, ordered, octets = (list(one) for one in zip(*figures, strict=True))
        row = {"store": kind, "log_mib": octets[-1] >> 20, "killed_s": summary(killed), "ordered_s": summary(ordered)}
        rows.append(row)
        print(
            f"{kind:10} {records:,} records, log of {octets[-1] >> 20} MiB: {summary(killed)['median']:.2f} s, "
            f"{summary(ordered)['median']:.2f} s after an end in order; lost 0"
        )
    if not given.quick:
        keep("recovery", {"rounds": rounds, "records": records, "goal_s": GOAL_S, "rows": rows})
    return 0 if all(summary([one[0] for one in figures])["median"] <= GOAL_S for figures in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
