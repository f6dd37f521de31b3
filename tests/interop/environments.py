"""Make the virtual environments that the peers run in.

Each peer lives in an environment of its own at the repository root, installed from a lock file with hashes. The
head-end never imports one: a peer is another process that speaks over a socket or a pipe.

    python tests/interop/environments.py            # all of them
    python tests/interop/environments.py gurux      # one

An environment is made anew when its lock file or the interpreter changed; otherwise this returns at once.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCKS = Path(__file__).resolve().parent / "requirements"
NAMES = ("gurux", "dlms-cosem", "uvloop", "sunspec", "pymodbus")

# One install is a handful of small wheels: a slow mirror may take this long, no longer.
INSTALL_TIMEOUT_S = 600


def interpreter(name: str) -> Path:
    """The interpreter of the environment `name`, whether it exists or not."""
    return ROOT / f".venv-{name}" / "bin" / "python"


def make(name: str) -> Path:
    """Make the environment `name` unless it is up to date, and return its interpreter."""
    directory = ROOT / f".venv-{name}"
    lock = LOCKS / f"{name}.lock"
    wanted = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    stamp = directory / "lock.sha256"
    python = interpreter(name)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python

    shutil.rmtree(directory, ignore_errors=True)
    venv.create(directory, with_pip=True, symlinks=True)
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "-r", lock],
        check=True,
        timeout=INSTALL_TIMEOUT_S,
    )
    stamp.write_text(wanted)
    return python


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"no such environment: {', '.join(unknown)}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    for name in names or NAMES:
        print(make(name))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
