"""Renewals of the master key that die at a point: as `kill_me.py`, each in a directory with its command line."""

import functools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.system.kill_me import obey

from ipss_headend.cli import app
from ipss_headend.security import ceremony, keystore, renewal, wrapped_keys
from ipss_headend.store import Database

POINTS = (
    "opened",
    "staged",
    "made",
    "shared",
    "wrapped",
    "written-down",
    "before-commit",
    "committed",
    "overwritten",
    "renamed",
    "settled",
    "swept",
)
"""The old keys are open; the new key lies beside its file; it is in the store's transaction; its shares are proven; all
keys are wrapped anew; the audit record is there; the transaction is complete; committed; the old file's octets
are overwritten; the new file has its name; the end of that; nothing of the old rows is left."""


def arm(chosen: str) -> None:
    """Put the point into the code."""

    def dies(point: str) -> None:
        if point == chosen:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(owner: Any, name: str, before: str, behind: str) -> None:
        whole = getattr(owner, name)

        @functools.wraps(whole)
        def patched(*arguments: Any, **named: Any) -> Any:
            dies(before)
            done = whole(*arguments, **named)
            dies(behind)
            return done

        setattr(owner, name, patched)

    around(wrapped_keys, "opened", "", "opened")
    around(keystore, "_stage", "", "staged")
    around(ceremony, "prove", "made", "shared")
    around(wrapped_keys, "replace", "", "wrapped")
    around(ceremony, "protocol", "written-down", "")
    around(keystore, "settle", "committed", "settled")
    around(Database, "sweep", "", "swept")
    around(renewal, "renew", "", "before-commit")
    # The key file's last two steps, where Python's own functions are used.
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        sync(descriptor)
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if name.endswith("key_encryption.key"):
            dies("overwritten")

    os.fsync = fsync  # type: ignore[assignment]
    settled = keystore._settled

    @functools.wraps(settled)
    def ended(*arguments: Any) -> Any:
        done = settled(*arguments)
        if done is not None:
            dies("renamed")
        return done

    keystore._settled = ended  # type: ignore[assignment]


def be(order: dict[str, Any]) -> None:
    """Run the directory's command line; what it says goes into files there."""
    run = Path(order["config"])
    for name, descriptor in (("out", 1), ("err", 2)):
        os.dup2(os.open(run / name, os.O_WRONLY | os.O_CREAT, 0o600), descriptor)
    arm(order["point"])
    try:
        app.app(json.loads((run / "line.json").read_text()), prog_name="ipss-headend")
    except SystemExit as ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(ended.code or 0))


if __name__ == "__main__":
    app.load_commands()
    obey(be)
