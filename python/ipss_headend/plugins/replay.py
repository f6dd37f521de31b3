"""Recorded history is handed to a plugin once more, and what it gives is compared with what is stored.

The plugin, or another version of it, runs in a process of its own, as sandboxed as a live one's. Nothing is written: no
cursor moves, no flag is added, an effect is compared and forgotten. It is asked as it would have been then: entry by
entry, with `ctx.now_us` the moment when the entry was written, and validation sees the readings that had come by then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import trio

from ipss_headend.errors import PluginError, StoreDamaged
from ipss_headend.field.control import orders
from ipss_headend.field.fleet import FleetMeter
from ipss_headend.field.topology import Topology
from ipss_headend.metrics import Figures
from ipss_headend.plugins.context import KEPT, Effect
from ipss_headend.plugins.differences import Report
from ipss_headend.plugins.feed import AFTER, CONSUME, ENTRIES, FED, VALIDATE, Rows, consumed, ended, outcome_of
from ipss_headend.plugins.flags import Flag, flag_names
from ipss_headend.plugins.incidents import CLASSIFY, DECODE, Incidents
from ipss_headend.plugins.intervals import PROFILE_CLASS
from ipss_headend.plugins.judge import AUTHORIZE, BEFORE, DISCONNECT, GUARD, TARGETS, Judge
from ipss_headend.plugins.manager import Manager
from ipss_headend.plugins.process import START_S, PluginProcess
from ipss_headend.plugins.shadow import text
from ipss_headend.plugins.specs import HOOKS, Refusal
from ipss_headend.plugins.vee import ESTIMATE, Span, Validation
from ipss_headend.store import Store, log, recorded, registry
from ipss_headend.store.export import time_text
from ipss_headend.store.incidents import ClassRow
from ipss_headend.store.log import Entry
from ipss_headend.store.recorded import Stretch
from ipss_headend.store.registry import Layout, Meter

REPLAYED = frozenset({CONSUME, AFTER, VALIDATE, ESTIMATE, CLASSIFY, DECODE, AUTHORIZE, GUARD, BEFORE, DISCONNECT})
"""Hooks whose questions the store has."""
OF_ITSELF = frozenset({"plugin_health", "rpc_methods", "restore"})
TOPICS = (log.READINGS, log.EVENTS, log.COMMANDS)
VETOES = (AUTHORIZE, GUARD, BEFORE, DISCONNECT)
MOST_FAILURES = 100
"""A replay that fails so often is given up."""
BACK_S = 3 * START_S
"""How long a process that ended may take to be there again."""
PART = 200
REFUSED = "refused by a rule: "
"""Before a plugin's words in the detail of a command."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay is."""

    done: int
    total: int
    at_us: int
    """When the entry was written that it is at."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What is replayed, and what its process may use."""

    name: str
    source: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    memory_mib: int = 1024
    cpu_s: int = 60
    patience: float = 1.0
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    holidays: frozenset[str] = frozenset()
    regional: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(slots=True)
class _Said:
    """What the plugin gave, until it is compared."""

    spans: dict[tuple[int, int], Span] = field(default_factory=dict)
    """Of profiles that it validated: (meter, layout)."""
    flags: dict[tuple[int, int], dict[tuple[int, int], int]] = field(default_factory=dict)
    missing: dict[tuple[int, int, int], set[int]] = field(default_factory=dict)
    names: dict[tuple[int, int, int, str], ClassRow] = field(default_factory=dict)
    codes: dict[int, Span] = field(default_factory=dict)
    """Of meters whose codes it was asked about."""
    effects: list[Effect] = field(default_factory=list)
    """Those that are not compared yet."""
    keys: set[str] = field(default_factory=set)


class Replay:
    """One replay."""

    def __init__(
        self, tried: Tried, store: Store, rows: Rows, meters: Mapping[int, FleetMeter | Meter], report: Report
    ) -> None:
        self.report = report
        self._tried = tried
        self._store = store
        self._rows = rows
        self._meters = meters
        self._now_us = 0
        self._said = _Said()
        self._layouts: dict[int, Layout] = {}
        figures = Figures()
        self._manager = Manager(
            [tried.name], figures, memory_mib=tried.memory_mib, cpu_s=tried.cpu_s, patience=tried.patience,
            keep=self._emitted, wall_us=self._clock, settings={tried.name: tried.settings},
            sources={} if tried.source is None else {tried.name: tried.source},
        )  # fmt: skip
        (self._plugin,) = self._manager.plugins
        self._validation = Validation(self._manager, store, figures, self._clock)
        self._topology = Topology(store)
        self._incidents = Incidents(self._manager, store, meters, figures, trio.Event, self._topology, self._clock)
        self._judge = Judge(
            self._manager, zone=tried.zone, meters=meters, network=self._topology, holidays=tried.holidays,
            regional=tried.regional, wall_us=self._clock,
        )  # fmt: skip

    async def run(self, stretch: Stretch, tell: Callable[[Progress], None] = lambda _: None) -> Report:
        """Replay, and compare.

        Raises:
            PluginError: the plugin cannot be loaded, or has no hook whose questions are recorded.
        """
        began = trio.current_time()
        await self._topology.refresh()
        async with trio.open_nursery() as nursery:
            await nursery.start(self._manager.run)
            try:
                await self._work(stretch, tell)
            finally:
                nursery.cancel_scope.cancel()
        self.report.calls = self._plugin.figures.calls
        self.report.seconds = trio.current_time() - began
        return self.report

    async def _work(self, stretch: Stretch, tell: Callable[[Progress], None]) -> None:
        hooks = self._loaded()
        self._layouts = await self._store.read(registry.all_layouts)
        self._now_us = stretch.since_us
        place = stretch.after
        while place < stretch.last:
            found = await self._next(place, stretch.last)
            if not found:
                break
            for part in found:
                await self._deal(hooks, part)
            await self._compare_effects()
            place = found[-1].sequence
            self.report.entries += len(found)
            tell(Progress(place - stretch.after, stretch.last - stretch.after, found[-1].at_us))
            if self.report.failed >= MOST_FAILURES:
                self.report.whole = False
                self.report.notes.append(f"given up behind entry {place}, after {self.report.failed} failures")
                stretch = stretch._replace(last=place, until_us=found[-1].at_us)
                break
        tell(Progress(stretch.last - stretch.after, stretch.last - stretch.after, stretch.until_us))
        self._now_us = max(self._now_us, stretch.until_us)
        await self._compare_flags()
        if ESTIMATE in hooks:
            await self._estimate()
        await self._compare_names(hooks)
        if CLASSIFY in hooks:
            await self._classify(stretch)
        await self._compare_effects()
        await self._effects_gone(hooks, stretch)
        await self._say_what_is_behind(hooks, stretch)

    def _loaded(self) -> frozenset[str]:
        name, plugin = self._tried.name, self._plugin
        if plugin.hooks is None:
            raise PluginError(f'plugin "{name}" cannot be loaded; {plugin.fault or "it does not say why"}')
        hooks = frozenset(plugin.hooks)
        self.report.hooks = tuple(sorted(hooks))
        if not hooks & REPLAYED:
            raise PluginError(
                f"{name}: it has {', '.join(sorted(hooks))}, and a replay asks none of these, but "
                f"{', '.join(one for one in HOOKS if one in REPLAYED)}; plugin selftest asks all hooks"
            )
        return hooks

    async def _next(self, place: int, last: int) -> list[Entry]:
        """Some entries behind a cursor; a damaged one is passed over."""
        while place < last:
            try:
                return await self._entries(place, last, ENTRIES)
            except StoreDamaged:
                pass
            try:
                return await self._entries(place, last, 1)  # what stands before it
            except StoreDamaged as error:
                self.report.notes.append(str(error))
                self.report.whole = False
            place = await self._first_after(place) or last
        return []

    async def _entries(self, place: int, last: int, limit: int) -> list[Entry]:
        found = await self._store.read(lambda connection: list(log.after(connection, place, TOPICS, limit)))
        return [entry for entry in found if entry.sequence <= last]

    async def _first_after(self, place: int, topics: Sequence[str] = TOPICS) -> int | None:
        return await self._store.read(lambda connection: log.first_after(connection, place, topics))

    # Asking

    async def _deal(self, hooks: frozenset[str], entry: Entry) -> None:
        self._now_us = entry.at_us
        if VALIDATE in hooks:
            await self._validate(entry)
        if CONSUME in hooks:
            await self._ask(CONSUME, consumed(entry, await self._rows(entry)), entry.sequence)
        if DECODE in hooks and entry.topic != log.COMMANDS:
            await self._decode(entry)
        if entry.topic == log.COMMANDS and hooks & {AFTER, *VETOES}:
            rows = await self._rows(entry)
            for row, order in await ended(self._store, entry, rows):
                if AFTER in hooks:
                    await self._ask(AFTER, outcome_of(row, order), entry.sequence)
                if order is not None:
                    await self._judge_command(hooks, row, order, entry.sequence)

    async def _ask(self, hook: str, arguments: Mapping[str, Any], sequence: int) -> Any:
        """The plugin's answer; None where it failed."""
        await self._back()
        try:
            return await self._manager.ask_one(self._plugin, HOOKS[hook], arguments)
        except PluginError as error:
            self.report.fail(hook, sequence, str(error))
            return None

    async def _back(self) -> None:
        """Wait for the process, which may have ended; a replay is in no hurry."""
        self._plugin.mend()
        with trio.move_on_after(BACK_S) as waited:
            while not self._plugin.figures.up:
                await _started(self._plugin)
        if waited.cancelled_caught:
            raise PluginError(f"plugin {self._tried.name}: its process ended and does not start again")

    async def _validate(self, entry: Entry) -> None:
        spans = self._validation.touched([entry])
        if not spans:
            return
        await self._back()
        known_us = max([entry.at_us, *(row[6] for row in entry.rows)])
        try:
            flags, missing = await self._validation.judge(self._plugin, spans, known_us)
        except PluginError as error:
            self.report.fail(VALIDATE, entry.sequence, str(error))
            return
        said = self._said
        for profile, (first, last) in spans.items():
            if profile[1] not in self._layouts:
                self._layouts = await self._store.read(registry.all_layouts)
            if self._layouts[profile[1]].class_id != PROFILE_CLASS:
                continue
            known = said.spans.get(profile, (first, last))
            said.spans[profile] = min(first, known[0]), max(last, known[1])
        for row in flags:
            words = said.flags.setdefault((row.meter_id, row.layout_id), {})
            words[row.place, row.capture_time_us] = words.get((row.place, row.capture_time_us), 0) | row.flags
        for meter_id, layout_id, place, at_us in missing:
            said.missing.setdefault((meter_id, layout_id, place), set()).add(at_us)

    async def _decode(self, entry: Entry) -> None:
        await self._back()
        for row in await self._incidents.said_of(entry):
            self._said.names[row.meter_id, row.at_us, row.code, row.source] = row
        for told in entry.rows:
            at_us = told[2] if entry.topic == log.READINGS else told[1]
            first, last = self._said.codes.get(told[0], (at_us, at_us))
            self._said.codes[told[0]] = min(first, at_us), max(last, at_us)

    async def _judge_command(
        self, hooks: frozenset[str], row: Mapping[str, Any], order: orders.Order, sequence: int
    ) -> None:
        """Whether it would have been let go: asked for with its whole order, and then before it left."""
        point = row["point"]
        asked: list[tuple[str, dict[str, Any]]] = []
        if AUTHORIZE in hooks:
            names = [self._name(target.meter_id) for target in order.targets]
            asked += [
                (AUTHORIZE, {"actor": order.requester, "action": order.kind, "targets": names[start : start + TARGETS]})
                for start in range(0, len(names), TARGETS)
            ]
        if GUARD in hooks:
            mass = self._judge.mass(order.requester, order.kind, [self._name(one.meter_id) for one in order.targets])
            asked += [] if mass is None else [(GUARD, mass)]
        if BEFORE in hooks:
            command = self._judge.placed({**outcome_of(row, order)["command"], "group": self._group(point)})
            asked.append((BEFORE, {"command": command, "device_state": {}, "reason": order.reason}))
        if DISCONNECT in hooks and order.kind in orders.MAY_CUT:
            arguments = {"account": str(point or ""), "reason": order.reason, "weather": {}}
            calendar = self._judge.calendar(str(point or ""), self._group(point) or "")
            asked.append((DISCONNECT, {**arguments, "calendar": calendar}))
        if not asked:
            return
        failed, said = self.report.failed, ""
        for hook, arguments in asked:
            refusal = await self._ask(hook, arguments, sequence)
            if self.report.failed > failed:
                return
            if isinstance(refusal, Refusal):
                said = refusal.reason
                break
        stored = str(row["detail"]).partition(REFUSED)[2]
        if said or stored:
            subject = {"command": row["command"], "meter": str(point or ""), "action": order.kind}
            self.report.note("refusal", {**subject, "at": time_text(row["at_ms"] * 1000)}, stored, said)

    def _group(self, point: str | None) -> str | None:
        return next((meter.group for meter in self._meters.values() if meter.name == point), None)

    async def _estimate(self) -> None:
        """Have it estimate what is missing to this day."""
        for (meter_id, layout_id), (first, last) in self._said.spans.items():
            found = await self._store.read(
                lambda connection, key=(meter_id, layout_id, first, last): recorded.missing(connection, *key)  # type: ignore[misc]
            )
            stored = {(row.place, row.capture_time_us): row for row in found}
            places: dict[int, set[int]] = {}
            for place, at_us in stored:
                places.setdefault(place, set()).add(at_us)
            for profile, times in self._said.missing.items():
                within = {at_us for at_us in times if first <= at_us <= last}
                if profile[:2] == (meter_id, layout_id) and within:
                    places.setdefault(profile[2], set()).update(within)
            for place, times in places.items():
                for gap in await self._validation.gaps(meter_id, layout_id, place, times):
                    await self._back()
                    estimate = await self._validation.ask(gap)
                    for offset in range(gap.count):
                        at_us = gap.series.ends_us[gap.first + offset]
                        if at_us not in times:
                            continue
                        row = stored.get((place, at_us))
                        was = "" if row is None or row.value is None else f"{row.value} {row.method}"
                        now = "" if estimate is None else f"{estimate.values[offset]} {estimate.method[:100]}"
                        if was or now:
                            self.report.note("estimate", self._interval(meter_id, layout_id, place, at_us), was, now)

    async def _classify(self, stretch: Stretch) -> None:
        after = 0
        while True:
            found = await self._store.read(
                lambda connection, after=after: recorded.incidents_opened(  # type: ignore[misc]
                    connection, stretch.since_us, stretch.until_us, after, PART
                )
            )
            for incident in found:
                self._now_us = incident.changed_us
                failed = self.report.failed
                arguments = {"classes": [], **await self._incidents.asked_about(incident)}
                said = await self._ask(CLASSIFY, arguments, 0)
                if self.report.failed == failed:
                    opened = time_text(incident.opened_us)
                    subject: dict[str, str | int] = {
                        "incident": incident.incident_id,
                        "area": incident.area,
                        "at": opened,
                    }
                    now = _classes(msgspec.to_builtins(said or []))
                    self.report.note("incident", subject, _classes(incident.classes or []), now)
            if len(found) < PART:
                return
            after = found[-1].incident_id

    # Comparing

    async def _emitted(self, _: str, effects: Sequence[Effect]) -> None:
        # What it keeps is as new as its cursor, not as the entry that is replayed: there is nothing to compare.
        self._said.effects += [effect for effect in effects if effect.kind != KEPT]

    async def _compare_effects(self) -> None:
        """What was emitted since: the first of each key stands, as in the store."""
        fresh: dict[str, Effect] = {}
        for effect in self._said.effects:
            if effect.key not in self._said.keys:
                fresh.setdefault(effect.key, effect)
        self._said.effects.clear()
        self._said.keys |= fresh.keys()
        if not fresh:
            return
        stored = await self._store.read(lambda connection: recorded.effects(connection, self._tried.name, list(fresh)))
        for key, effect in fresh.items():
            known = stored.get(key)
            now = _effect(effect.kind, effect.content)
            same = known is not None and [*known] == msgspec.msgpack.decode(
                msgspec.msgpack.encode([effect.kind, effect.content])
            )
            was = "" if known is None else now if same else _effect(*known)
            if was == now and not same and known is not None:
                was += " (differs behind what is shown)"
            self.report.note("effect", {"key": key}, was, now)

    async def _effects_gone(self, hooks: frozenset[str], stretch: Stretch) -> None:
        others = sorted(hooks - REPLAYED - OF_ITSELF)
        if stretch.last <= stretch.after:
            return
        if others:
            self.report.notes.append(
                f"effects that are gone are not told: it may have emitted them in {', '.join(others)}, "
                "which no replay asks"
            )
            return
        kept = await self._store.read(lambda connection: recorded.effects_of(connection, self._tried.name, stretch))
        for key, kind, content in kept:
            if key not in self._said.keys:
                self.report.note("effect", {"key": key}, _effect(kind, content), "")

    async def _compare_flags(self) -> None:
        for (meter_id, layout_id), (first, last) in self._said.spans.items():
            stored = await self._store.read(
                lambda connection, key=(meter_id, layout_id, first, last): recorded.flags(connection, *key)  # type: ignore[misc]
            )
            was = {key: word & ~Flag.ESTIMATED for key, word in stored.items() if word & ~Flag.ESTIMATED}
            said = self._said.flags.get((meter_id, layout_id), {})
            now = {key: word for key, word in said.items() if first <= key[1] <= last}
            for place, at_us in sorted(was.keys() | now.keys(), key=lambda key: (key[1], key[0])):
                words = [", ".join(flag_names(one.get((place, at_us), 0))) for one in (was, now)]
                self.report.note("flags", self._interval(meter_id, layout_id, place, at_us), words[0], words[1])

    async def _compare_names(self, hooks: frozenset[str]) -> None:
        if DECODE not in hooks:
            return
        for meter_id, (first, last) in self._said.codes.items():
            found = await self._store.read(
                lambda connection, key=(meter_id, first, last): recorded.event_names(  # type: ignore[misc]
                    connection, self._tried.name, *key
                )
            )
            was = {(row.meter_id, row.at_us, row.code, row.source): row for row in found}
            now = {key: row for key, row in self._said.names.items() if key[0] == meter_id}
            for key in sorted(was.keys() | now.keys()):
                subject: dict[str, str | int] = {
                    "meter": self._name(meter_id),
                    "at": time_text(key[1]),
                    "code": key[2],
                    "source": key[3],
                }
                self.report.note("event", subject, _meaning(was.get(key)), _meaning(now.get(key)))

    async def _say_what_is_behind(self, hooks: frozenset[str], stretch: Stretch) -> None:
        cursors = await self._store.read(recorded.readers)
        name, notes = self._tried.name, self.report.notes
        for fed in FED:
            if fed.hook not in hooks or fed.hook not in {CONSUME, VALIDATE}:
                continue
            place = cursors.get(fed.cursor(name))
            if place is None:
                notes.append(f"{fed.hook}: {name} has not read this log, so that all is new")
                continue
            following = await self._first_after(place, fed.topics)
            if following is not None and following <= stretch.last:
                notes.append(f"{fed.hook}: {name} has read up to entry {place}; what comes behind it is new")
        others = [
            one.partition("/")[0] for one in cursors if one.endswith(f"/{VALIDATE}") and one != f"{name}/{VALIDATE}"
        ]
        if VALIDATE in hooks and others:
            notes.append(f"flags of all plugins are stored together; {', '.join(sorted(others))} gave some, too")

    def _interval(self, meter_id: int, layout_id: int, place: int, at_us: int) -> dict[str, str | int]:
        layout = self._layouts[layout_id]
        return {
            "meter": self._name(meter_id),
            "source": layout.logical_name,
            "object": layout.columns[place].logical_name,
            "at": time_text(at_us),
        }

    def _name(self, meter_id: int) -> str:
        meter = self._meters.get(meter_id)
        return str(meter_id) if meter is None else meter.name

    def _clock(self) -> int:
        return self._now_us


async def _started(plugin: PluginProcess) -> None:
    with trio.move_on_after(0.5):
        await plugin.started.wait()


def _effect(kind: str, content: object) -> str:
    return f"{kind} {text(content)}"


def _meaning(row: ClassRow | None) -> str:
    return "" if row is None else f"{row.name}, severity {row.severity}"


def _classes(classes: Sequence[Mapping[str, Any]]) -> str:
    """Classes in words; none are none."""
    found = [f"{one['name']} {one['probability']:.3f} severity {one.get('severity', 0)}" for one in classes]
    return ", ".join(found) or "no class"
