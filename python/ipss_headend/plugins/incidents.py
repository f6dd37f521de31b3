"""What happens to meters, grouped into incidents, and handed to plugins that say what it is.

Read from the log with one durable cursor, while a plugin has `dispatch_classify` or `control_event_decode`: what
sessions noticed, and the codes of meters' event logs. Signals of one area that are near in time are one incident; the
area is the meter's transformer and grows as `areas.py` says, or its group where no network is known. A reading of a
meter whose neighbours are silent is a signal too: it was heard. What a maker's code means is asked of plugins first and
found in the companion standards' common codes otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import trio
from sqlalchemy import Connection

from ipss_headend.errors import PluginError, StoreDamaged, StoreError, StoreFailed
from ipss_headend.field.fleet import FleetMeter
from ipss_headend.field.reactor import EventKind
from ipss_headend.log import Logger, logger
from ipss_headend.metrics import Figures
from ipss_headend.network import Network
from ipss_headend.plugins.areas import Areas
from ipss_headend.plugins.manager import Manager
from ipss_headend.plugins.silence import ANSWERED, GOING, SILENT
from ipss_headend.plugins.specs import HOOKS, Classified
from ipss_headend.store import Store, incidents, log, plugins, registry
from ipss_headend.store.database import now_us
from ipss_headend.store.incidents import ClassRow, Filed, Incident, Signal
from ipss_headend.store.log import Entry
from ipss_headend.store.records import decode_cells
from ipss_headend.store.registry import Layout, Meter

CLASSIFY, DECODE = "dispatch_classify", "control_event_decode"
CURSOR = "head-end/incidents"
TOPICS = (log.EVENTS, log.READINGS)
ENTRIES = 20
IDLE_S = 2.0
QUIET_US = 600_000_000
"""An incident takes signals up to ten minutes before and behind those that it has, and is closed after that."""
PATIENCE_US = 60_000_000
"""How long an incident waits for a plugin that is not running."""
AT_ONCE = 50

NOTICED: Mapping[int, str] = {
    EventKind.BACKED_OFF: "meter-gone",
    EventKind.CLOCK_DEVIATES: "clock-deviates",
    EventKind.ASSOCIATED: "answered",
    EventKind.AUTHENTICATION_FAILED: EventKind.AUTHENTICATION_FAILED.label,
    EventKind.TAG_INVALID: EventKind.TAG_INVALID.label,
    EventKind.REPLAY_REFUSED: EventKind.REPLAY_REFUSED.label,
    EventKind.WEAKER_SECURITY: EventKind.WEAKER_SECURITY.label,
    EventKind.SYSTEM_TITLE_MISMATCH: EventKind.SYSTEM_TITLE_MISMATCH.label,
    EventKind.PROTOCOL_VIOLATION: EventKind.PROTOCOL_VIOLATION.label,
}
"""Kinds of signals for what sessions noticed; the rest is the ordinary day."""

COMMON: Mapping[int, Classified] = {
    1: Classified("power-down", 2),
    2: Classified("power-up", 0),
    6: Classified("clock-deviates", 1),
    7: Classified("battery-low", 1),
    8: Classified("battery-low", 1),
    40: Classified("cover-opened", 3),
    42: Classified("strong-field", 3),
    44: Classified("cover-opened", 3),
    **{code: Classified("under-voltage", 2) for code in (76, 77, 78)},
    **{code: Classified("over-voltage", 3) for code in (79, 80, 81)},
    **{code: Classified("phase-lost", 3) for code in (82, 83, 84)},
}
"""Codes of the event logs that DSMR 5 P3 ("Event codes") and IDIS package 2 share."""

_CODE = re.compile(r"0\.\d+\.96\.11\.\d+\.255")
"""The objects "event code" of event logs (Blue Book, abstract objects, C = 96, D = 11)."""


class Incidents:
    """Groups signals of one head-end's meters, and asks plugins."""

    def __init__(
        self,
        manager: Manager,
        store: Store,
        meters: Mapping[int, FleetMeter | Meter],
        figures: Figures,
        happened: Callable[[], trio.Event],
        network: Callable[[], Network],
        wall_us: Callable[[], int] = now_us,
    ) -> None:
        self._manager = manager
        self._store = store
        self._meters = meters
        self._figures = figures
        self._happened = happened
        self._network = network
        self._wall_us = wall_us
        self._layouts: dict[int, Layout] = {}
        self._codes: dict[int, int] = {}
        """The place of the event code in lines of a layout."""
        self._areas = Areas(network(), ())
        self._fleet = 0
        """How many meters were there when the areas were made."""
        self._silent: dict[str, int] = {}
        """Since when some meter of an area is silent; of these it is noted who is heard all the same."""
        self._heard: set[tuple[str, str]] = set()
        self._log: Logger = logger("incidents")

    async def run(self) -> None:
        """Group and ask until cancelled; without a plugin for it, wait for one."""
        while True:
            if not any(plugin.hooks and {CLASSIFY, DECODE} & set(plugin.hooks) for plugin in self._manager.plugins):
                await self._manager.changed.wait()
                continue
            happened = self._happened()
            try:
                more = await self._read_on()
                await self._ask()
            except StoreFailed:
                raise
            except StoreError as error:
                self._log.warning("incidents wait", why=str(error))
                more = False
            if not more:
                with trio.move_on_after(IDLE_S):
                    await happened.wait()

    async def said_of(self, entry: Entry) -> list[ClassRow]:
        """What plugins say that the codes of one entry of the log mean; nothing is kept."""
        named: list[ClassRow] = []
        await self._look()
        if entry.topic == log.EVENTS:
            await self._noticed(entry, [], named)
        elif entry.topic == log.READINGS:
            await self._logged(entry, [], named)
        return named

    async def _read_on(self) -> bool:
        """Deal with the next entries; whether there may be more."""

        def read(connection: Connection) -> list[Entry]:
            place = max(log.ends(connection)[0], plugins.cursor(connection, CURSOR) or 0)
            return list(log.after(connection, place, TOPICS, ENTRIES))

        try:
            found = await self._store.read(read)
        except StoreDamaged as error:
            self._log.error("an entry of the log is damaged; it is passed over", why=str(error))
            await self._store.change(_skip)
            return True
        if not found:
            return False
        await self._look()
        signals: list[Filed] = []
        named: list[ClassRow] = []
        for entry in found:
            if entry.topic == log.EVENTS:
                await self._noticed(entry, signals, named)
            else:
                await self._logged(entry, signals, named)
        for entry in found:
            if entry.topic == log.READINGS:
                self._listen(entry, signals)
        quiet = any(one.signal.kind in SILENT or one.signal.kind == GOING for one in signals)
        areas = self._areas

        def write(connection: Connection) -> None:
            incidents.named(connection, named)
            incidents.take(connection, signals, QUIET_US)
            if quiet:
                for growth in areas.growths(incidents.open_below(connection)):
                    incidents.unite(connection, growth.area, growth.incidents)
            plugins.advance(connection, CURSOR, found[-1].sequence)

        await self._store.change(write)
        return len(found) == ENTRIES

    async def _look(self) -> None:
        """Make the areas anew if the network or the fleet is another one."""
        network, size = self._network(), len(self._meters)
        if self._areas.network is not network or self._fleet != size:
            self._areas = await trio.to_thread.run_sync(Areas, network, list(self._meters.values()))
            self._fleet = size

    def _file(self, signals: list[Filed], signal: Signal, *, opens: bool) -> None:
        signals.append(Filed(signal, opens, self._areas.of(signal.meter)))
        if signal.kind in SILENT:
            area = self._areas.network.area_of(signal.meter)
            if area:
                self._silent.setdefault(area, signal.at_us)

    def _listen(self, entry: Entry, signals: list[Filed]) -> None:
        """Note whose readings came while others of their area are silent; each meter once."""
        if not self._silent:
            return
        network = self._areas.network
        for row in entry.rows:
            meter = self._meters.get(row[0])
            area = "" if meter is None else network.area_of(meter.name)
            if meter is None or row[6] < self._silent.get(area, row[6] + 1) or (area, meter.name) in self._heard:
                continue
            self._heard.add((area, meter.name))
            self._file(signals, Signal(meter.name, ANSWERED, row[6], "a reading"), opens=False)

    def _forget(self, before_us: int) -> None:
        """Drop what is known of silences that began before."""
        old = {area for area, at_us in self._silent.items() if at_us < before_us}
        if old:
            self._silent = {area: at_us for area, at_us in self._silent.items() if area not in old}
            self._heard = {one for one in self._heard if one[0] not in old}

    async def _noticed(self, entry: Entry, signals: list[Filed], named: list[ClassRow]) -> None:
        for meter_id, at_us, kind, number, detail in entry.rows:
            meter = self._meters.get(meter_id)
            if meter is None:
                continue
            if kind in NOTICED:
                signal = Signal(meter.name, NOTICED[kind], at_us, detail[:200])
                self._file(signals, signal, opens=kind != EventKind.ASSOCIATED)
            elif kind == EventKind.PUSH_KEPT:
                payload = _octets(detail)
                meaning, said_by = await self._meaning(meter.name, number, payload, {})
                if meaning is not None:
                    named.append(ClassRow(meter_id, at_us, number, "push", meaning.name, meaning.severity, said_by))
                    signal = Signal(meter.name, meaning.name, at_us, "push")
                    self._file(signals, signal, opens=meaning.severity > 0)

    async def _logged(self, entry: Entry, signals: list[Filed], named: list[ClassRow]) -> None:
        if any(row[1] not in self._layouts for row in entry.rows):
            self._layouts = await self._store.read(registry.all_layouts)
            self._codes = {
                number: place
                for number, layout in self._layouts.items()
                for place, column in enumerate(layout.columns)
                if layout.class_id == 7 and _CODE.fullmatch(column.logical_name)
            }
        for row in entry.rows:
            place = self._codes.get(row[1])
            meter = self._meters.get(row[0])
            if place is None or meter is None:
                continue
            cells = decode_cells(row[8])
            code = cells[place] if place < len(cells) else None
            if not isinstance(code, int):
                continue
            meaning, said_by = await self._meaning(meter.name, code, row[8], COMMON)
            if meaning is None:
                continue
            source = self._layouts[row[1]].logical_name
            if said_by:
                named.append(ClassRow(row[0], row[2], code, source, meaning.name, meaning.severity, said_by))
            signal = Signal(meter.name, meaning.name, row[2], f"code {code} of {source}")
            self._file(signals, signal, opens=meaning.severity > 0)

    async def _meaning(
        self, device: str, code: int, payload: bytes, common: Mapping[int, Classified]
    ) -> tuple[Classified | None, str]:
        """What a code means, and the plugin that says so; without one, what it commonly means."""
        for plugin in self._manager.asked(DECODE):
            try:
                asked = {"device": device, "code": code, "payload": payload}
                found: Classified | None = await self._manager.ask_one(plugin, HOOKS[DECODE], asked)
            except PluginError as error:
                self._log.warning("a code goes on without a plugin", why=str(error))
                continue
            if found is not None:
                return found, plugin.name
        return common.get(code), ""

    async def _ask(self) -> None:
        """Have changed incidents classified, and close those that are over."""
        now = self._wall_us()
        asked = self._manager.asked(CLASSIFY)
        for incident in await self._store.read(lambda connection: incidents.unclassified(connection, AT_ONCE)):
            if any(not plugin.figures.up for plugin in asked) and incident.changed_us > now - PATIENCE_US:
                continue
            classes = await self._manager.pipe(CLASSIFY, [], **await self.asked_about(incident))
            said: list[dict[str, Any]] = msgspec.to_builtins(classes)
            await self._store.change(
                lambda connection, incident=incident, said=said: incidents.classify(connection, incident, said)  # type: ignore[misc]
            )
            self._log.info(
                "incident", incident=incident.incident_id, area=incident.area, kind=incident.area_kind,
                signals=len(incident.signals), classes=[one["name"] for one in said],
            )  # fmt: skip
        self._figures.incidents = await self._store.change(
            lambda connection: incidents.close(connection, now - QUIET_US)
        )
        self._forget(now - QUIET_US)

    async def asked_about(self, incident: Incident) -> dict[str, Any]:
        """What `dispatch_classify` is asked about an incident, behind the classes."""
        await self._look()
        return {"incident": self._areas.told(incident), "signals": self._areas.signals(incident)}


def _octets(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _skip(connection: Connection) -> None:
    place = max(log.ends(connection)[0], plugins.cursor(connection, CURSOR) or 0)
    number = log.first_after(connection, place, TOPICS)
    if number is not None:
        plugins.advance(connection, CURSOR, number)
