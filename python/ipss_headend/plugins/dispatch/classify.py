"""What an incident is, from its signals and from what hangs below what.

What a meter says outright (its cover was opened, its neutral is lost) is a class of its own. Silence has two causes,
and topology tells them apart: where all below a transformer went silent together, or one of them had time to say that
power was going, it is an outage; where a neighbour below the same transformer was heard after that, only the line was
lost. Where meters that share a line (a concentrator, a gateway) are silent together and others below the same
transformers are not, or where their transformers are on several feeders, it is that line.

`incident` has `parents`, the transformer of each meter, `sizes`, how many meters hang below each transformer, and where
a network is known `above`, `feeders`, `fed`, `lines` and `line_sizes`. A signal has `meter`, `kind` and `at_us`.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from ipss_headend.plugins import SHARE, SILENT, TOGETHER_US, Context, IncidentClass, Silence, hook, silences, together

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

SURE, LIKELY, EVEN, UNLIKELY = 0.98, 0.9, 0.6, 0.2
"""Of an outage: somebody said so; all fell silent; so did their line; and it is that of several feeders."""
MOST_EVIDENCE = 20


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
    return [
        IncidentClass(SAID[kind][0], 0.95, SAID[kind][1], sorted(who)[:MOST_EVIDENCE]) for kind, who in meters.items()
    ]


def _silence(incident: dict[str, Any], signals: list[dict[str, Any]]) -> list[IncidentClass]:
    found = silences(_map(incident, "parents"), _map(incident, "sizes"), signals)
    dark = _dark(incident, found)
    lost = _lost_lines(incident, signals, found)
    sure = SURE if any(found[area].going for area in dark) else LIKELY
    lines: list[str] = []
    for line, (members, likely) in sorted(lost.items()):
        behind = {area for area in dark if found[area].silent <= members and not found[area].going}
        if likely == 0.0:
            dark -= behind
            lines.append(line)
        elif behind and behind == dark:
            sure = min(sure, likely)
            lines.append(line)
    # Of an incident with more signals than are kept, nobody knows who else is silent.
    away = {meter for area, one in found.items() if area not in dark for meter in one.away}
    meters = sorted(away - {meter for line in lines for meter in lost[line][0]}) if not incident.get("dropped") else []
    told = []
    if dark:
        told.append(IncidentClass("outage", sure, 4, _root(incident, dark)[:MOST_EVIDENCE]))
    if lines or meters:
        probability = 1 - sure if dark and not meters else 0.5 if dark else 0.9
        told.append(IncidentClass("comms-loss", round(probability, 6), 1, [*lines, *meters][:MOST_EVIDENCE]))
    return told


def _dark(incident: dict[str, Any], found: dict[str, Silence]) -> set[str]:
    """Areas without power. One with a single meter is, where others are that fell silent with it."""
    dark = {area for area, one in found.items() if one.dark}
    quiet = {area for area, one in found.items() if one.whole}
    fed = _map(incident, "fed").get(str(incident.get("area")), 0)
    if len(quiet) > 2 and isinstance(fed, int) and 0 < SHARE * fed <= len(quiet):
        return dark | quiet
    moments = [found[area].from_us for area in dark]
    return dark | {area for area in quiet if any(abs(found[area].from_us - at_us) <= TOGETHER_US for at_us in moments)}


def _lost_lines(
    incident: dict[str, Any], signals: list[dict[str, Any]], found: dict[str, Silence]
) -> dict[str, tuple[frozenset[str], float]]:
    """Lines whose meters fell silent together: these, and how likely it is that they are without power all the same."""
    lines, sizes, parents = (_map(incident, name) for name in ("lines", "line_sizes", "parents"))
    feeders = _map(incident, "feeders")
    moments: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for signal in signals:
        line = lines.get(str(signal.get("meter")))
        if line is not None and signal.get("kind") in SILENT:
            moments[str(line)].append((int(signal.get("at_us") or 0), str(signal.get("meter"))))
    lost = {}
    for line, silent in moments.items():
        members = together(silent)[1]
        if len(members) < 2 or len(members) < SHARE * sizes.get(line, 0):
            continue
        areas = {str(parents.get(meter, meter)) for meter in members}
        if any(not found[area].whole for area in areas):
            lost[line] = (members, 0.0)
        else:
            apart = len({feeders.get(area, area) for area in areas}) > 1
            lost[line] = (members, UNLIKELY if apart else EVEN)
    return lost


def _root(incident: dict[str, Any], dark: set[str]) -> list[str]:
    """What feeds all areas without power, and these."""
    above = _map(incident, "above")
    paths = [above.get(area) or [area] for area in sorted(dark)]
    shared = [node for node in paths[0] if all(node in path for path in paths)]
    return [*shared[:1], *sorted(dark - set(shared[:1]))]


def _map(incident: dict[str, Any], name: str) -> dict[str, Any]:
    found = incident.get(name)
    return found if isinstance(found, dict) else {}
