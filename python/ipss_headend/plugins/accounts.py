"""Settled intervals of accounts' days go to the plugins that bill them (`billing_intervals`), with accounts' labels.

Each plugin reads the log from a cursor of its own (`feed.py`): every line, flag, estimate and edit names meters' days,
and these are settled anew from the store (`settled.py`) and handed over whole. So a reading that comes late, twice or
corrected changes what its day comes to, and nothing else. What the plugin keeps of it (`ctx.keep`) is stored in the
transaction that moves its cursor.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import trio
from sqlalchemy import Connection

from ipss_headend.errors import PluginError, StoreDamaged
from ipss_headend.field.fleet import FleetMeter
from ipss_headend.log import Logger, logger
from ipss_headend.network import TRANSFORMER, Network
from ipss_headend.plugins.context import Effect
from ipss_headend.plugins.manager import Manager
from ipss_headend.plugins.process import Answer, PluginProcess
from ipss_headend.plugins.settled import MARGIN_US, columns, day_of, days_touched, settle
from ipss_headend.plugins.specs import HOOKS
from ipss_headend.plugins.vee import Done
from ipss_headend.store import Store, log, plugins, registry
from ipss_headend.store.database import now_us
from ipss_headend.store.log import Entry
from ipss_headend.store.readings import Line, series
from ipss_headend.store.registry import Layout

INTERVALS, DIMENSION = "billing_intervals", "billing_sales_dimension"
TOPICS = (log.READINGS, log.INTERVALS)
COMPARE = "compare"
PART = 200
"""Days of meters settled and handed over at a time."""
PAGE = 1000
"""Accounts told of at a time."""
LABELS = 8
LABEL_LETTERS = 80
LABEL_VALUES = 500
"""Different values of one label; the accounts beyond are `other`."""
OTHER = "other"
LOOK_S = 5.0
"""How often it is looked for accounts that changed."""
TRIES = 5
"""A day that is not the same while readings come is compared so often."""
CAUGHT_UP_S = 60.0

Unit = tuple[int, date]
"""A meter and a day."""


@dataclass(slots=True)
class _Told:
    """What one plugin's process was told of the accounts."""

    process_id: int | None = None
    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    looked_s: float = -1e9


class Accounts:
    """Hands days to plugins."""

    def __init__(
        self,
        manager: Manager,
        store: Store,
        meters: Mapping[int, FleetMeter],
        zone: ZoneInfo,
        network: Callable[[], Network],
        wall_us: Callable[[], int] = now_us,
    ) -> None:
        self._manager = manager
        self._store = store
        self._meters = meters
        self._zone = zone
        self._network = network
        self._wall_us = wall_us
        self._layouts: dict[int, Layout] = {}
        self._labels: dict[tuple[str, ...], dict[str, str]] = {}
        self._of_meters: dict[int, dict[str, str]] = {}
        """Labels of meters in the network `_looked_in`: a look at all of them is short."""
        self._looked_in: Network | None = None
        self._asked_when: trio.Event | None = None
        self._values: dict[str, set[str]] = defaultdict(set)
        self._told: dict[str, _Told] = {}
        self._log: Logger = logger("accounts")

    async def deal(self, plugin: PluginProcess, entries: Sequence[Entry]) -> Done:
        """Hand over the days that these entries of the log are about.

        Returns what keeps, in the store, what the plugin had kept.

        Raises:
            PluginError: it failed.
        """
        until = day_after(self._wall_us(), self._zone)
        touched: set[Unit] = set()
        for entry in entries:
            for row in entry.rows:
                last_us = row[3] if entry.topic == log.INTERVALS else row[2]
                if row[0] in self._meters and await self._bears(row[1]):
                    touched |= {(row[0], day) for day in days_touched(row[2], last_us, self._zone) if day <= until}
        return await self.hand_over(plugin, sorted(touched))

    async def hand_over(self, plugin: PluginProcess, units: Sequence[Unit]) -> Done:
        """The same for these days of meters.

        Raises:
            PluginError: it failed.
        """
        effects: list[Effect] = []
        for start in range(0, len(units), PART):
            part = units[start : start + PART]
            days = await self._store.read(lambda connection, part=part: self._days(connection, part))  # type: ignore[misc]
            effects += (await self._ask(plugin, days, "")).effects
        kept = [(effect.key, effect.kind, effect.content) for effect in effects]

        def keep(connection: Connection) -> None:
            plugins.keep(connection, plugin.name, kept)

        return keep

    async def tell(self, plugin: PluginProcess) -> None:
        """Tell a plugin of the accounts that are new to it or have other labels, every `LOOK_S` at most.

        Raises:
            PluginError: it failed.
        """
        told = self._told.setdefault(plugin.name, _Told())
        if told.process_id != plugin.process_id:
            told.process_id, told.labels, told.looked_s = plugin.process_id, {}, -1e9
        if self._asked_when is self._manager.changed and trio.current_time() < told.looked_s + LOOK_S:
            return
        told.looked_s = trio.current_time()
        changed = {}
        for place, meter in enumerate(list(self._meters.values())):
            if place % PAGE == 0:
                await trio.lowlevel.checkpoint()
            labels = await self._labels_of(meter)
            if told.labels.get(meter.name) != labels:
                changed[meter.name] = labels
        names = list(changed)
        for start in range(0, len(names), PAGE):
            page = {name: changed[name] for name in names[start : start + PAGE]}
            await self._manager.kept(plugin, (await self._invoke(plugin, page, [], "")).effects)
            told.labels |= page

    async def compare(self, plugin: PluginProcess, units: Sequence[Unit]) -> list[str]:
        """Settle days anew and have the plugin compare them with what it has; what is not the same, by its words.

        Raises:
            PluginError: it failed.
        """
        wrong: list[str] = []
        for start in range(0, len(units), PART):
            left: Sequence[Unit] = units[start : start + PART]
            differs: list[str] = []
            for _ in range(TRIES):
                newest, days = await self._store.read(
                    lambda connection, left=left: (log.newest(connection), self._days(connection, left))  # type: ignore[misc]
                )
                await self._caught_up(plugin, newest)
                value = (await self._ask(plugin, days, COMPARE)).value
                differs = [str(one) for one in (value or {}).get("differs", [])]
                if not differs:
                    break
                # It may have dealt with what came since: only a difference that stays is one.
            wrong += differs
        value = (await self._ask(plugin, [], COMPARE)).value
        return wrong + [str(one) for one in (value or {}).get("differs", [])]

    async def _caught_up(self, plugin: PluginProcess, newest: int) -> None:
        name = f"{plugin.name}/{INTERVALS}"

        def next_(connection: Connection) -> int | None:
            return log.first_after(connection, plugins.cursor(connection, name) or 0, TOPICS)

        with trio.move_on_after(CAUGHT_UP_S):
            while True:
                number = await self._store.read(next_)
                if number is None or number > newest:
                    return
                await trio.sleep(0.05)
        raise PluginError(f"plugin {plugin.name}: it has not read the log up to here within {CAUGHT_UP_S:g} s")

    async def _ask(self, plugin: PluginProcess, days: list[dict[str, Any]], run: str) -> Answer:
        accounts = {}
        meters = {meter.name: meter for meter in self._meters.values()} if days else {}
        for name in dict.fromkeys(day["account"] for day in days):
            if name in meters:
                accounts[name] = await self._labels_of(meters[name])
        return await self._invoke(plugin, accounts, days, run)

    async def _invoke(
        self, plugin: PluginProcess, accounts: Mapping[str, Mapping[str, str]], days: list[dict[str, Any]], run: str
    ) -> Answer:
        arguments = {"accounts": accounts, "days": days, "run": run}
        return await plugin.ask(INTERVALS, arguments, limit_s=HOOKS[INTERVALS].limit_s * self._manager.patience)

    async def _bears(self, layout_id: int) -> bool:
        """Whether lines of this layout have energy that is billed."""
        if layout_id not in self._layouts:
            self._layouts = await self._store.read(registry.all_layouts)
        layout = self._layouts.get(layout_id)
        return layout is not None and bool(columns(layout))

    def _days(self, connection: Connection, units: Iterable[Unit]) -> list[dict[str, Any]]:
        """These days as the store has them."""
        if not self._layouts:
            self._layouts = registry.all_layouts(connection)
        wanted = [number for number, layout in sorted(self._layouts.items()) if columns(layout)]
        found = []
        for meter_id, date_ in units:
            meter = self._meters.get(meter_id)
            if meter is None:
                continue
            day = day_of(date_, self._zone)
            span = (day.start_us - MARGIN_US, day.end_us + MARGIN_US)
            damaged: list[StoreDamaged] = []
            lines: dict[int, list[Line]] = defaultdict(list)
            for line in series(connection, [meter_id], wanted, *span, damaged.append):
                lines[line.layout_id].append(line)
            flags = {row[1:4]: row.flags for row in plugins.flags(connection, meter_id, *span)}
            given = {row[1:4]: row for row in plugins.estimated(connection, meter_id, *span) if row.value is not None}
            found.append(
                {
                    "account": meter.name,
                    "day": date_.isoformat(),
                    "start_us": day.start_us,
                    "end_us": day.end_us,
                    "hours": [list(hour) for hour in day.hours],
                    "series": settle(meter_id, day, self._layouts, lines, flags, given),
                }
            )
        return found

    async def _labels_of(self, meter: FleetMeter) -> dict[str, str]:
        """Labels of an account: what plugins say, and a feeder where they say none: the network's, or its group."""
        if self._asked_when is not self._manager.changed:
            self._asked_when = self._manager.changed  # a plugin came, went or started: it may say something else
            self._labels.clear()
            self._values.clear()
            self._looked_in = None
        network = self._network()
        if self._looked_in is not network:
            self._looked_in = network
            self._of_meters.clear()
        if meter.meter_id in self._of_meters:
            return self._of_meters[meter.meter_id]
        node, feeder = network.place(meter.name).node, network.feeder_of(meter.name)
        account = {
            "name": meter.name,
            "group": meter.group,
            "model": meter.model,
            "node": node,
            "transformer": network.above(network.area(node), TRANSFORMER) if node else "",
            "feeder": feeder,
        }
        facts = tuple(account.values())
        if facts not in self._labels:
            labels: dict[str, str] = {}
            for _, said in await self._manager.all(DIMENSION, account=account):
                for name, value in list(said.items())[:LABELS]:
                    labels.setdefault(name[:LABEL_LETTERS], self._bounded(name, value[:LABEL_LETTERS]))
            self._labels[facts] = {"feeder": feeder or meter.group} | labels
        if self._looked_in is network:
            self._of_meters[meter.meter_id] = self._labels[facts]
        return self._labels[facts]

    def _bounded(self, name: str, value: str) -> str:
        known = self._values[name]
        if value not in known and len(known) >= LABEL_VALUES:
            self._log.warning("a label has too many values", label=name, most=LABEL_VALUES)
            return OTHER
        known.add(value)
        return value


def day_after(wall_us: int, zone: ZoneInfo) -> date:
    """The last day that is billed now: what meters say of later ones is a wrong clock's."""
    return max(days_touched(wall_us, wall_us, zone)) + timedelta(days=1)
