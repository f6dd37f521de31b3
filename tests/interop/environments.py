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
OLD = ("msgpack-rpc-python", "mprpc")
"""They have no wheels and no say about what builds them: that is pinned in `build-old.lock`."""
NAMES = ("gurux", "dlms-cosem", "uvloop", "sunspec", "pymodbus", *OLD, "aio-msgpack-rpc", "pynvim")

# One install is a handful of small wheels: a slow mirror may take this long, no longer.
INSTALL_TIMEOUT_S = 600


def interpreter(name: str) -> Path:
    """The interpreter of the environment `name`, whether it exists or not."""
    return ROOT / f".venv-{name}" / "bin" / "python"


def make(name: str) -> Path:
    """Make the environment `name` unless it is up to date, and return its interpreter."""
    directory = ROOT / f".venv-{name}"
    lock = LOCKS / f"{name}.lock"
    build = LOCKS / "build-old.lock"
    wanted = hashlib.sha256(
        lock.read_bytes() + (build.read_bytes() if name in OLD else b"") + sys.version.encode()
    ).hexdigest()
    stamp = directory / "lock.sha256"
    python = interpreter(name)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python

    shutil.rmtree(directory, ignore_errors=True)
    venv.create(directory, with_pip=True, symlinks=True)
    pip = [str(python), "-m", "pip"]
    locked = ["--quiet", "--require-hashes", "--no-deps"]
    if name in OLD:
        _run([*pip, "install", *locked, "-r", str(build)])
        locked.append("--no-build-isolation")
    if name == "mprpc":
        _regenerated_mprpc(python, pip, lock, directory)
    else:
        _run([*pip, "install", *locked, "-r", str(lock)])
    stamp.write_text(wanted)
    return python


def _regenerated_mprpc(python: Path, pip: list[str], lock: Path, directory: Path) -> None:
    """Install mprpc with C made anew from its own Cython: the C that it ships includes a header that 3.11 moved."""
    sources = directory / "sources"
    prefer = ["--no-build-isolation", "--no-binary", "mprpc,gsocketpool,msgpack-python"]
    _run([*pip, "download", "--quiet", "--require-hashes", "--no-deps", *prefer, "-d", str(sources), "-r", str(lock)])
    [archive] = sources.glob("mprpc-*.tar.gz")
    shutil.unpack_archive(archive, sources)
    archive.unlink()
    [source] = [path for path in sources.glob("mprpc-*") if path.is_dir()]
    modules = sorted(str(path) for path in (source / "mprpc").glob("*.pyx"))
    _run([str(python), "-m", "cython", "-2", *modules])
    others = sorted(str(path) for path in sources.iterdir() if path.is_file())
    _run([*pip, "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", *others, str(source)])


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, timeout=INSTALL_TIMEOUT_S)


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
