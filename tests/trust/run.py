"""Run what shows the requirements, keep the results, and write the table of SECURITY.md. `make trust` calls this.

make trust                      all of them with the usual counts, unattended
make trust R="R9 R14"           what shows these
make trust TRUST=release        with the counts of a release: hours
make trust MINUTES=20           those with the oldest results first, none begun after 20 minutes
make trust R=R14 IPSS_CONTROL_KILLS=56      a count of one's own
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

from tests.trust.catalogue import RESULTS, ROOT, TIERS, Result, Run, keep, load, results, table, written

LIMIT_S = {"usual": 900, "release": 6 * 3600}
"""A run that takes longer hangs."""

SECURITY = ROOT / "SECURITY.md"
_CARGO = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed", re.MULTILINE)
_CARGO_FAILED = re.compile(r"^test (\S+) \.\.\. FAILED$|^    (\S+)$", re.MULTILINE)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requirements", nargs="*", help="R9 R14 ...; all if left out")
    parser.add_argument("--tier", choices=TIERS, default=os.environ.get("TRUST", "usual"))
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("MINUTES") or 0))
    parser.add_argument("--list", action="store_true", help="say what would run, and for how long it did last time")
    options = parser.parse_args(arguments)
    runs, missing = load()
    kept = results()
    chosen = choose(runs, set(options.requirements), kept if options.minutes else [])
    if not chosen:
        print(f"nothing shows {' '.join(options.requirements)} yet; tests/trust/catalogue.toml says what there is")
        return 2
    expected = {result.name: result.seconds for result in kept if result.tier == options.tier and result.good}
    if options.list:
        for run in chosen:
            print(f"{' '.join(run.proves):<24} {run.name:<40} {expected.get(run.name, 0):6.0f} s")
        return 0

    machine: dict[str, object] = {
        "commit": commit(),
        "tier": options.tier,
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }
    began, at = time.monotonic(), datetime.now(UTC)
    path = RESULTS / f"{at:%Y-%m-%dT%H%M%SZ}-{options.tier}.json"
    done: list[Result] = []
    try:
        for place, run in enumerate(chosen, 1):
            gone = time.monotonic() - began
            if options.minutes and gone > options.minutes * 60:
                print(f"{options.minutes:g} minutes are over; {len(chosen) - place + 1} are left for another time")
                break
            left = sum(expected.get(one.name, 30.0) for one in chosen[place - 1 :])
            counts = {name: int(os.environ.get(name, value)) for name, value in run.counts(options.tier).items()}
            print(
                f"[{place}/{len(chosen)}] {gone / 60:3.0f} min gone, about {left / 60:.0f} left | "
                f"{' '.join(run.proves)} {run.name}: {run.shown(counts)}",
                flush=True,
            )
            result = perform(run, options.tier, counts, str(machine["commit"]))
            done.append(result)
            keep(path, machine, done)
            verdict = "ok" if result.good else "FAILED"
            print(f"    {verdict}: {result.passed} passed, {result.failed} failed, {result.seconds:.0f} s", flush=True)
            print("".join(f"    {line}\n" for line in (*result.figures, *result.failures)), end="", flush=True)
    except KeyboardInterrupt:
        print("interrupted; what has ended is kept")
    if done:
        SECURITY.write_text(
            written(SECURITY.read_text(encoding="utf-8"), table(runs, missing, results())), encoding="utf-8"
        )
    bad = [result.name for result in done if not result.good]
    print(f"{len(done) - len(bad)} of {len(done)} hold, {(time.monotonic() - began) / 60:.1f} minutes; {path.name}")
    return 1 if bad else 0


def choose(runs: Sequence[Run], wanted: set[str], kept: Sequence[Result]) -> list[Run]:
    """The runs that show any of the wanted requirements; those with the oldest results first where some are given."""
    chosen = [run for run in runs if not wanted or wanted & set(run.proves)]
    last = {result.name: result.at for result in kept}
    return sorted(chosen, key=lambda run: last.get(run.name, "")) if kept else chosen


def perform(run: Run, tier: str, counts: Mapping[str, int], commit: str) -> Result:
    """One run, with its processes gone at its end."""
    at, began = datetime.now(UTC), time.monotonic()
    environment = {**os.environ, **{name: str(value) for name, value in counts.items()}}
    limit_s = LIMIT_S[tier]
    with tempfile.TemporaryDirectory() as directory:
        report, said = Path(directory) / "report.xml", Path(directory) / "figures"
        environment["IPSS_FIGURES"] = str(said)
        command = list(run.command)
        if run.python:
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
            command += [f"--timeout={limit_s}", *(f"tests/{path}" for path in run.python)]
        elif run.rust:
            package, rest = run.rust[:2], run.rust[2:]
            release = ["--release"] if tier == "release" else []
            command = ["cargo", "test", "--locked", "--no-fail-fast", *release, *package, *rest]
        output, status = bounded(command, environment, limit_s)
        if run.python:
            passed, failures = judged(report)
        elif run.rust:
            passed = sum(int(found[1]) for found in _CARGO.finditer(output))
            failures = sorted({found[1] for found in _CARGO_FAILED.finditer(output) if found[1]})
        else:
            passed, failures = int(status == 0), []
        figures = tuple(said.read_text(encoding="utf-8").splitlines()) if said.exists() else ()
    if status != 0 and not failures:
        failures = [f"exit status {status}: {' '.join(output.split()[-30:])}"[:300]]
    return Result(
        name=run.name,
        at=f"{at:%Y-%m-%dT%H:%M:%SZ}",
        commit=commit,
        tier=tier,
        counts=dict(counts),
        passed=passed,
        failed=len(failures),
        seconds=round(time.monotonic() - began, 1),
        failures=tuple(failures),
        figures=figures,
    )


def bounded(command: Sequence[str], environment: Mapping[str, str], limit_s: float) -> tuple[str, int]:
    """A command's output and exit status; ended with all that it started when its time is over."""
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            return output.decode(errors="replace") + f"\nnot over in {limit_s:.0f} s", -1
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return output.decode(errors="replace"), process.returncode


def judged(report: Path) -> tuple[int, list[str]]:
    """How many passed, and which failed; what was skipped counts as failed."""
    if not report.exists():
        return 0, []
    cases = list(ElementTree.parse(report).iter("testcase"))
    failures = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if any(case.find(kind) is not None for kind in ("failure", "error", "skipped"))
    ]
    return len(cases) - len(failures), failures


def commit() -> str:
    """What is checked out; `+` for changes beside it."""

    def said(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    changed = said("status", "--porcelain", "--untracked-files=no", "--", ".", ":!SECURITY.md", ":!tests/trust/results")
    return said("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


def processor() -> str:
    """Its name, as the kernel has it."""
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return found[1] if found else platform.machine()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
