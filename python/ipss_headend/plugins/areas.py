"""Which signals belong together: the areas of a network, lines that meters share, and groups where no network is known.

An incident begins in the area of a meter, its transformer, and grows: to what feeds several transformers that went dark
together, to what feeds several dark feeders, or to a line (a concentrator, a gateway) whose meters fell silent together
while others below the same transformers did not.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ipss_headend.field.fleet import FleetMeter
from ipss_headend.network import FEEDER, Network
from ipss_headend.plugins.silence import SHARE, SILENT, TOGETHER_US, Silence, silences, together
from ipss_headend.store.incidents import GROUP, LINE, Area, Incident
from ipss_headend.store.registry import Meter


class Growth(NamedTuple):
    """Incidents that are one, and its area."""

    area: Area
    incidents: tuple[int, ...]


class Areas:
    """The areas of one network and fleet."""

    def __init__(self, network: Network, meters: Iterable[FleetMeter | Meter]) -> None:
        self.network = network
        self._groups: dict[str, str] = {}
        lines: dict[str, str] = {}
        for meter in meters:
            self._groups[meter.name] = meter.group
            if meter.host is not None and network.area_of(meter.name):
                lines[meter.name] = f"{meter.host}:{meter.port}" if meter.port else meter.host
        counts = Counter(lines.values())
        self._lines = {meter: line for meter, line in lines.items() if counts[line] > 1}
        self._line_sizes = {line: count for line, count in counts.items() if count > 1}
        self._group_sizes = Counter(self._groups.values())

    def of(self, meter: str) -> tuple[Area, ...]:
        """Where a signal of a meter belongs, the nearest first: there it opens an incident, elsewhere it joins one."""
        area = self.network.area_of(meter)
        if not area:
            return (Area(GROUP, self._groups.get(meter, "")),)
        nodes = self.network.nodes
        found = [Area(nodes[name].kind, name) for name in self.network.path(area)]
        line = self._lines.get(meter)
        return (*found, Area(LINE, line)) if line is not None else tuple(found)

    def told(self, incident: Incident) -> dict[str, Any]:
        """An incident, as `dispatch_classify` is asked about it."""
        names = {signal.meter for signal in incident.signals}
        found: dict[str, Any] = {
            "id": str(incident.incident_id),
            "opened_us": incident.opened_us,
            "area": incident.area,
            "area_kind": incident.area_kind,
            "dropped": incident.dropped,
        }
        if incident.area_kind == GROUP:
            sizes = {incident.area: self._group_sizes[incident.area]}
            return {**found, "parents": dict.fromkeys(names, incident.area), "sizes": sizes}
        network = self.network
        parents = {name: network.area_of(name) or incident.area for name in names}
        above = {area: network.path(area) for area in set(parents.values())}
        lines = {name: self._lines[name] for name in names if name in self._lines}
        return {
            **found,
            "parents": parents,
            "sizes": {area: network.sizes[area] for area in above},
            "above": above,
            "feeders": {area: network.above(area, FEEDER) for area in above},
            "fed": {node: network.fed[node] for path in above.values() for node in path},
            "lines": lines,
            "line_sizes": {line: self._line_sizes[line] for line in set(lines.values())},
        }

    def signals(self, incident: Incident) -> list[dict[str, Any]]:
        """Its signals, as `dispatch_classify` is asked about them: with the path from the meter's node to the root."""
        return [{**signal._asdict(), "path": self.network.path_of(signal.meter)} for signal in incident.signals]

    def growths(self, found: Sequence[Incident]) -> list[Growth]:
        """Which of these incidents are one, or have a larger area than they had."""
        found = [one for one in found if one.area_kind != GROUP]
        where: dict[str, Incident] = {}
        known: dict[str, Silence] = {}
        for one in found:
            told = self.told(one)
            for area, silence in silences(
                told["parents"], told["sizes"], [each._asdict() for each in one.signals]
            ).items():
                if area not in known or len(silence.away) > len(known[area].away):
                    known[area], where[area] = silence, one
        grown = self._lost_lines(found, known, where)
        taken = {number for one in grown for number in one.incidents}
        taken |= {one.incident_id for one in found if one.area_kind == LINE}
        quiet = {area: one for area, one in known.items() if one.dark or one.whole}
        quiet = {area: one for area, one in quiet.items() if where[area].incident_id not in taken}
        return grown + self._dark(quiet, where)

    def _lost_lines(
        self, found: Sequence[Incident], known: Mapping[str, Silence], where: Mapping[str, Incident]
    ) -> list[Growth]:
        silent: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for one in found:
            for signal in one.signals:
                if signal.kind in SILENT and signal.meter in self._lines:
                    silent[self._lines[signal.meter]].append((signal.at_us, signal.meter))
        grown = []
        for line, moments in sorted(silent.items()):
            members = together(moments)[1]
            touched = {self.network.area_of(meter) for meter in members} & known.keys()
            if len(members) < SHARE * self._line_sizes[line] or len(touched) < 2:
                continue
            feeders = {self.network.feeder_of(meter) for meter in members}
            spared = any(not known[area].whole for area in touched)
            numbers = sorted({where[area].incident_id for area in touched})
            if (spared or len(feeders) > 1) and not any(known[area].going for area in touched):
                area = Area(LINE, line)
                if len(numbers) > 1 or {(where[one].area_kind, where[one].area) for one in touched} != {tuple(area)}:
                    grown.append(Growth(area, tuple(numbers)))
        return grown

    def _dark(self, quiet: Mapping[str, Silence], where: Mapping[str, Incident]) -> list[Growth]:
        """Areas that went dark together below one feeder, and feeders below one substation."""
        network = self.network
        feeders: dict[str, list[str]] = defaultdict(list)
        for area in quiet:
            path = network.path(area)
            if path:
                feeders[network.above(area, FEEDER) or path[-1]].append(area)
        wholes: dict[str, list[tuple[str, list[str]]]] = defaultdict(list)
        clusters: list[list[str]] = []
        for feeder, areas in sorted(feeders.items()):
            for cluster in _clusters(areas, quiet):
                fed = network.fed[network.common(cluster)]
                if sum(quiet[one].dark for one in cluster) < 2 and not (
                    len(cluster) > 2 and len(cluster) >= SHARE * fed
                ):
                    continue
                clusters.append(cluster)
                if len(cluster) >= SHARE * network.fed[feeder]:
                    wholes[network.path(feeder)[-1]].append((feeder, cluster))
        for pairs in wholes.values():
            first = {feeder: min(quiet[one].from_us for one in cluster) for feeder, cluster in pairs}
            for part in _split(sorted(first, key=lambda one: (first[one], one)), first):
                if len(part) > 1:
                    clusters += [[area for feeder, cluster in pairs if feeder in part for area in cluster]]
        grown: dict[int, Growth] = {}
        for cluster in clusters:
            numbers = {where[area].incident_id for area in cluster}
            areas = [where[area].area for area in cluster]
            common = network.common([*cluster, *(one for one in areas if one in network.nodes)])
            if common and (len(numbers) > 1 or {*areas} != {common}):
                growth = Growth(Area(network.nodes[common].kind, common), tuple(sorted(numbers)))
                # A larger one comes behind those that it takes in.
                for number in numbers:
                    grown[number] = growth
        return list(dict.fromkeys(grown.values()))


def _clusters(areas: Sequence[str], quiet: Mapping[str, Silence]) -> list[list[str]]:
    moments = {area: quiet[area].from_us for area in areas}
    return _split(sorted(areas, key=lambda one: (moments[one], one)), moments)


def _split(names: Sequence[str], moments: Mapping[str, int]) -> list[list[str]]:
    """These, in the order of their moments, in parts that began within two minutes."""
    parts: list[list[str]] = []
    for name in names:
        if parts and moments[name] - moments[parts[-1][0]] <= TOGETHER_US:
            parts[-1].append(name)
        else:
            parts.append([name])
    return parts
