"""The catalogue of what each requirement is shown by, and the results that were kept of it."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
RESULTS = HERE / "results"
REQUIREMENTS = tuple(f"R{number}" for number in range(1, 47))
TIERS = ("usual", "release")

BEGIN, END = "<!-- trust:begin -->", "<!-- trust:end -->"
"""Between these the table stands in SECURITY.md."""


@dataclass(frozen=True, slots=True)
class Run:
    """Tests that are run together and show one thing."""

    name: str
    proves: tuple[str, ...]
    shows: str
    holds: str
    gap: str = ""
    python: tuple[str, ...] = ()
    rust: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    count: dict[str, tuple[int, int]] = field(default_factory=dict)

    def counts(self, tier: str) -> dict[str, int]:
        """The environment variables of this tier."""
        return {name: values[TIERS.index(tier)] for name, values in self.count.items()}

    def shown(self, counts: dict[str, int]) -> str:
        """The count in words."""
        return self.shows.format_map({name: f"{value:,}" for name, value in counts.items()})

    def tests(self) -> str:
        """Where they are, for the table."""
        if self.python:
            return ", ".join(f"`tests/{path}`" for path in self.python)
        return f"`{' '.join(('cargo test', *self.rust) if self.rust else self.command)}`"


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended."""

    name: str
    at: str
    """UTC, to the second."""
    commit: str
    tier: str
    counts: dict[str, int]
    passed: int
    failed: int
    seconds: float
    failures: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    """What it measured, in words."""

    @property
    def good(self) -> bool:
        """Whether it shows what it is to show."""
        return self.failed == 0 and self.passed > 0


def load() -> tuple[list[Run], dict[str, str]]:
    """The runs in their order, and the requirements that nothing shows yet, with the reason."""
    document = tomllib.loads((HERE / "catalogue.toml").read_text(encoding="utf-8"))
    runs = [Run(**{key: _frozen(value) for key, value in entry.items()}) for entry in document["run"]]
    return runs, document.get("missing", {})


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, dict):
        return {key: tuple(one) for key, one in value.items()}
    return value


def results() -> list[Result]:
    """Everything that was kept, the oldest first."""
    found = []
    for path in sorted(RESULTS.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        for one in document["runs"]:
            lists = {key: tuple(one.get(key, ())) for key in ("failures", "figures")}
            found.append(Result(**{**one, **lists}))
    return sorted(found, key=lambda result: result.at)


def keep(path: Path, machine: dict[str, object], done: list[Result]) -> None:
    """Write a results file; whole or not at all."""
    document = {**machine, "runs": [asdict(result) for result in done]}
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def table(runs: list[Run], missing: dict[str, str], kept: list[Result]) -> str:
    """The table of SECURITY.md."""
    latest = {result.name: result for result in kept}
    most = {result.name: result for result in sorted(filter(lambda result: result.good, kept), key=_size)}
    lines = ["| R | shown by | last count | last date | result |", "|---|---|---|---|---|"]
    rows = [(_number(run.proves[0]), place, _row(run, latest, most)) for place, run in enumerate(runs)]
    rows += [
        (_number(name), len(runs), f"| {name} | | 0 | never | *not shown yet*: {why} |")
        for name, why in missing.items()
    ]
    return "\n".join([*lines, *(row for _, _, row in sorted(rows))])


def _row(run: Run, latest: dict[str, Result], most: dict[str, Result]) -> str:
    result = latest.get(run.name)
    gap = f"; *not shown yet*: {run.gap}" if run.gap else ""
    where = f"{run.name}: {run.tests()}"
    if result is None:
        shown, date, said = run.shown(run.counts("usual")), "never", "*not run by this command yet*"
    else:
        shown, date = run.shown({**run.counts("usual"), **result.counts}), result.at[:10]
        said = run.holds if result.good else f"**FAILED**: {result.failed} of {result.passed + result.failed}"
        greatest = most.get(run.name)
        if greatest is not None and _size(greatest) > _size(result):
            said += f"; with {', '.join(f'{value:,}' for value in greatest.counts.values())} on {greatest.at[:10]}"
    return f"| {', '.join(run.proves)} | {where} | {shown} | {date} | {said}{gap} |"


def _size(result: Result) -> int:
    return sum(result.counts.values())


def _number(requirement: str) -> int:
    return int(requirement[1:])


def written(text: str, new: str) -> str:
    """SECURITY.md with another table."""
    pattern = re.compile(f"({re.escape(BEGIN)}\n).*?({re.escape(END)})", re.DOTALL)
    return pattern.sub(lambda found: f"{found[1]}{new}\n{found[2]}", text)
