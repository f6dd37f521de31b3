"""What the benches share: the machine, the C programs, the peers' environments, and the results kept.

A bench prints a table and keeps `results/NAME.json`; `report.py` makes the README's table from those files.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BENCHES = ROOT / "benches"
RESULTS = BENCHES / "results"
BUILD = ROOT / ".bench"
CLIENT_CORE, METER_CORE = "0", "1"
HEADERS = [Path("/usr/include/openssl/evp.h"), Path("/usr/local/include/openssl/evp.h")]


def need() -> None:
    """End with a list of what this machine lacks, if it lacks anything."""
    missing = []
    if shutil.which("gcc") is None:
        missing.append("gcc (Debian: gcc)")
    if not any(header.exists() for header in HEADERS):
        missing.append("OpenSSL's headers (Debian: libssl-dev)")
    if shutil.which("taskset") is None:
        missing.append("taskset (Debian: util-linux)")
    if (os.cpu_count() or 1) < 2:
        missing.append("a second core: the meters must not share the head-end's")
    if missing:
        sys.exit("the benches need, and this machine lacks:\n" + "".join(f"  {one}\n" for one in missing))


def compiled(name: str, *, extension: bool = False) -> Path:
    """Compile `c/NAME.c` unless its product is newer than its sources, and return the product."""
    sources = [BENCHES / "c" / f"{name}.c", *(BENCHES / "c").glob("*.h")]
    target = BUILD / (f"{name}.so" if extension else name)
    if target.exists() and all(target.stat().st_mtime > source.stat().st_mtime for source in sources):
        return target
    BUILD.mkdir(exist_ok=True)
    flags = ["-O2", "-Wall", "-std=gnu11"]
    if extension:
        flags += ["-shared", "-fPIC", f"-I{sysconfig.get_paths()['include']}"]
    subprocess.run(["gcc", *flags, "-o", target, sources[0], "-lssl", "-lcrypto"], check=True)
    return target


def environment(name: str) -> Path:
    """The interpreter of a peer's environment, made if need be."""
    made = subprocess.run(
        [sys.executable, ROOT / "tests" / "interop" / "environments.py", name],
        check=True,
        capture_output=True,
        text=True,
    )
    return Path(made.stdout.strip())


def extension_is_built() -> bool:
    """Whether this interpreter has `ipss_headend._core`."""
    return bool(importlib.util.find_spec("ipss_headend") and importlib.util.find_spec("ipss_headend._core"))


def last_json(command: list[str | Path], *, timeout_s: float, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a command from the root and give its last line of JSON.

    Raises RuntimeError when it printed none or ran too long.
    """
    try:
        ran = subprocess.run(
            [str(part) for part in command],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{BUILD}:{ROOT}", **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        raise RuntimeError(f"{command[0]}: no end after {timeout_s} s") from expired
    lines = [line for line in ran.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"{' '.join(map(str, command))}: status {ran.returncode}\n{ran.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


@contextlib.contextmanager
def serving(
    core: str, command: list[str | Path], *, env: dict[str, str] | None = None, end_s: float = 10
) -> Iterator[dict[str, Any]]:
    """Run a server on its core until the block ends; what it says of itself in its first line, JSON.

    The end of its input tells it to end, within `end_s`.
    """
    pinned = ["taskset", "-c", core, *map(str, command)]
    with subprocess.Popen(
        pinned, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()
            try:
                process.wait(end_s)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def c_meters(*, delay_ms: int = 0, seconds: int = 600) -> Iterator[int]:
    """Run the bare C meters on their own core; the port."""
    options = ["--port", "0", "--delay-ms", str(delay_ms), "--seconds", str(seconds)]
    with serving(METER_CORE, [compiled("epoll_meter"), *options]) as said:
        yield said["port"]


def summary(figures: list[float]) -> dict[str, float]:
    """Median, lowest, highest, and how far apart those are in percent of the median."""
    middle = statistics.median(figures)
    low, high = min(figures), max(figures)
    return {
        "median": round(middle, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "spread_percent": round(100 * (high - low) / middle, 1) if middle else 0.0,
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = ""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "measured": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def keep(name: str, result: dict[str, Any]) -> None:
    """Keep a bench's result."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n")
