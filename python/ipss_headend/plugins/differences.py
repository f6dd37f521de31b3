"""What a replay found: how often a plugin was asked, what it produced, and how that differs from what is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["flags", "estimate", "effect", "event", "incident", "refusal"]
Change = Literal["same", "added", "gone", "changed"]
KINDS: tuple[Kind, ...] = ("flags", "estimate", "effect", "event", "incident", "refusal")
CHANGES: tuple[Change, ...] = ("same", "added", "gone", "changed")
"""As it is stored; not stored; stored and not produced again; stored otherwise."""
FAILURES = 20
"""Kept of those that there were."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that a plugin produced, or had."""

    kind: Kind
    change: Change
    subject: Mapping[str, str | int]
    """What it is about: a meter, an object and a time; a key; an incident; a command."""
    stored: str
    """What is stored of it; empty: nothing."""
    replayed: str
    """What the plugin gave now; empty: nothing."""

    def document(self) -> dict[str, Any]:
        """As JSON and the RPC tell it."""
        return {
            "kind": self.kind,
            "change": self.change,
            **self.subject,
            "stored": self.stored,
            "replayed": self.replayed,
        }


@dataclass(frozen=True, slots=True)
class Failure:
    """One question that the plugin failed at."""

    hook: str
    sequence: int
    """The entry of the log; 0: none."""
    why: str


@dataclass(slots=True)
class Report:
    """What came of one replay."""

    plugin: str
    source: str
    """Where the code is that was asked; empty: what is installed."""
    after: int
    last: int
    most: int = 1000
    """Items that are kept."""
    everything: bool = False
    """Keep what is the same, too."""
    entries: int = 0
    hooks: tuple[str, ...] = ()
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Questions by hook and how they ended."""
    counts: Counter[tuple[Kind, Change]] = field(default_factory=Counter)
    items: list[Item] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    failed: int = 0
    notes: list[str] = field(default_factory=list)
    """What keeps the comparison from being whole."""
    whole: bool = True
    """All of the stretch was replayed."""
    seconds: float = 0.0

    def note(self, kind: Kind, subject: Mapping[str, str | int], stored: str, replayed: str) -> None:
        """Take one thing; empty texts: it is not there."""
        change: Change = "changed"
        if stored == replayed:
            change = "same"
        elif not stored:
            change = "added"
        elif not replayed:
            change = "gone"
        self.counts[kind, change] += 1
        if (change != "same" or self.everything) and len(self.items) < self.most:
            self.items.append(Item(kind, change, subject, stored, replayed))

    def fail(self, hook: str, sequence: int, why: str) -> None:
        """Take one failure."""
        self.failed += 1
        if len(self.failures) < FAILURES:
            self.failures.append(Failure(hook, sequence, why))

    @property
    def differences(self) -> int:
        """How many things are not as they are stored."""
        return sum(count for (_, change), count in self.counts.items() if change != "same")

    def of_kind(self, kind: Kind) -> dict[str, int]:
        """The counts of one kind."""
        return {change: self.counts[kind, change] for change in CHANGES}

    def document(self) -> dict[str, Any]:
        """As JSON and the RPC tell it."""
        kinds = [kind for kind in KINDS if any(self.of_kind(kind).values())]
        return {
            "plugin": self.plugin,
            "source": self.source,
            "from_cursor": self.after,
            "to_cursor": self.last,
            "entries": self.entries,
            "whole": self.whole,
            "duration_ms": int(self.seconds * 1000),
            "hooks": list(self.hooks),
            "calls": [
                {"hook": hook, "outcome": outcome, "calls": count}
                for (hook, outcome), count in sorted(self.calls.items())
            ],
            "kinds": {kind: self.of_kind(kind) for kind in kinds},
            "differences": self.differences,
            "items": [item.document() for item in self.items],
            "failed": self.failed,
            "failures": [{"hook": one.hook, "sequence": one.sequence, "why": one.why} for one in self.failures],
            "notes": list(self.notes),
        }
