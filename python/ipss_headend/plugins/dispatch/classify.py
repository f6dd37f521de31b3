"""What an incident is, from its signals and from what hangs below what.

What a meter says outright (its cover was opened, its neutral is lost) is a class of its own. Silence has two causes,
and topology tells them apart: where all below a transformer went silent together, or one of them had time to say that
power was going, it is an outage; where a neighbour below the same transformer answered after that, only the line was
lost.

`incident` has `parents`, the transformer of each meter, and `sizes`, how many meters hang below each transformer.
A signal has `meter`, `kind` and `at_us`.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from ipss_headend.plugins import Context, IncidentClass, hook

SAID: dict[str, tuple[str, int]] = {
    "phase-lost": ("one-phase-loss", 3),
    "neutral-lost": ("neutral-loss", 4),
    "current-reversed": ("reversed-current", 2),
    "bypass": ("bypass", 3),
    "strong-field": ("magnet", 3),
    "cover-opened": ("cover", 3),
    "over-voltage": ("over-voltage", 3),
    "under-voltage": ("under-voltage", 2),
    "over-load": ("overload", 2),
    "clock-deviates": ("clock", 1),
    "battery-low": ("battery", 1),
    "rolled-over": ("roll-over", 0),
    "restarted": ("reset", 1),
}
"""What meters say outright: class and severity."""

SILENT = frozenset({"meter-gone", "timeout"})
GOING = "power-down"
ANSWERED = "answered"
TOGETHER_US = 120_000_000
"""Meters that lose power together are noticed within this time."""
SHARE = 0.8
"""So many of those below a transformer are all of them: some are always away."""


@hook
def dispatch_classify(
    ctx: Context, classes: list[IncidentClass], incident: dict[str, Any], signals: list[dict[str, Any]]
) -> list[IncidentClass]:
    """Add the classes of an incident, the most probable first."""
    found = [*classes, *_said(signals), *_silence(incident, signals)]
    return sorted(found, key=lambda one: (-one.probability, -one.severity, one.name))


def _said(signals: list[dict[str, Any]]) -> list[IncidentClass]:
    meters: dict[str, set[str]] = defaultdict(set)
    for signal in signals:
        if signal.get("kind") in SAID:
            meters[signal["kind"]].add(str(signal.get("meter")))
    return [IncidentClass(SAID[kind][0], 0.95, SAID[kind][1], sorted(who)[:20]) for kind, who in meters.items()]


def _silence(incident: dict[str, Any], signals: list[dict[str, Any]]) -> list[IncidentClass]:
    parents, sizes = _map(incident, "parents"), _map(incident, "sizes")
    silent: dict[str, dict[str, int]] = defaultdict(dict)
    answered: dict[str, int] = {}
    going: dict[str, set[str]] = defaultdict(set)
    for signal in signals:
        meter, kind, at_us = str(signal.get("meter")), signal.get("kind"), int(signal.get("at_us") or 0)
        below = str(parents.get(meter, meter))
        if kind in SILENT:
            silent[below].setdefault(meter, at_us)
        elif kind == GOING:
            going[below].add(meter)
        elif kind == ANSWERED:
            answered[below] = max(answered.get(below, at_us), at_us)
    outage: list[str] = []
    lost: list[str] = []
    sure = 0.0
    for below in sorted({*silent, *going}):
        quiet = silent[below]
        first_us = min(quiet.values(), default=0)
        together = sum(at_us - first_us <= TOGETHER_US for at_us in quiet.values())
        size = sizes.get(below, 0)
        whole = isinstance(size, int) and size > 1 and together >= SHARE * size
        lives = quiet and answered.get(below, first_us - 1) >= first_us
        if (going[below] and not lives) or (whole and not lives):
            outage.append(below)
            sure = max(sure, 0.98 if going[below] else 0.9)
        else:
            lost.append(below)
    found = [IncidentClass("outage", sure, 4, outage[:20])] if outage else []
    return [*found, IncidentClass("comms-loss", 0.9 if not outage else 0.5, 1, lost[:20])] if lost else found


def _map(incident: dict[str, Any], name: str) -> dict[str, Any]:
    found = incident.get(name)
    return found if isinstance(found, dict) else {}
