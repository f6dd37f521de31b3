"""Plugins have a say in commands: they may refuse, and can send nothing.

Who asks for a command is judged when it is asked for and again before its release, and so is an order that cuts many;
each command before it leaves. A plugin that fails is asked again for `AGAIN_S`; then its failure refuses (these hooks
fail closed).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import trio

from ipss_headend.errors import StoreError, StoreFailed
from ipss_headend.field.control.orders import MAY_CUT
from ipss_headend.field.fleet import FleetMeter
from ipss_headend.network import FEEDER, Network
from ipss_headend.plugins.manager import Manager
from ipss_headend.plugins.specs import Refusal
from ipss_headend.store import Store, weather
from ipss_headend.store.database import now_us
from ipss_headend.store.incidents import GROUP
from ipss_headend.store.registry import Meter
from ipss_headend.store.weather import EVERYWHERE, WeatherArea

AUTHORIZE, BEFORE, DISCONNECT = "control_authorize", "control_before_command", "control_disconnect_veto"
GUARD = "control_mass_guard"
TARGETS = 1000
"""Of one question to `control_authorize`; an order with more is asked about in parts."""
AGAIN_S = 10.0
"""R39: a plugin is back within 5 s; one that was killed is no reason to give up a command."""
AGAIN_STEP_S = 0.25
FAILED = "plugin-failed"


class Judge:
    """Asks the control hooks of one head-end's plugins."""

    def __init__(
        self,
        manager: Manager,
        *,
        zone: ZoneInfo,
        meters: Mapping[int, FleetMeter | Meter],
        network: Callable[[], Network],
        store: Store | None = None,
        holidays: frozenset[str] = frozenset(),
        regional: Mapping[str, frozenset[str]] | None = None,
        wall_us: Callable[[], int] = now_us,
    ) -> None:
        """`regional` holidays are of groups of meters and nodes of the network. Without a store no weather is known."""
        self._manager = manager
        self._zone = zone
        self._meters = meters
        self._network = network
        self._store = store
        self._holidays = holidays
        self._regional = regional or {}
        self._wall_us = wall_us

    @property
    def looks(self) -> bool:
        """Some plugin wants to know a device's state before a command leaves."""
        return bool(self._manager.asked(BEFORE))

    async def asked(self, actor: str, action: str, targets: Sequence[str]) -> str | None:
        """Why this may not be asked for; None: it may."""
        if self._manager.asked(AUTHORIZE):
            for start in range(0, max(len(targets), 1), TARGETS):
                part = list(targets[start : start + TARGETS])
                if found := await self._veto(AUTHORIZE, {"actor": actor, "action": action, "targets": part}):
                    return _words(found)
        mass = self.mass(actor, action, targets) if self._manager.asked(GUARD) else None
        found = [] if mass is None else await self._veto(GUARD, mass)
        return _words(found) if found else None

    def mass(self, actor: str, action: str, targets: Sequence[str]) -> dict[str, Any] | None:
        """What `control_mass_guard` is asked about an order; None: it cuts nobody, or one alone."""
        if action not in MAY_CUT or len(targets) < 2:
            return None
        network = self._network()
        groups = {meter.name: meter.group for meter in self._meters.values()}
        sizes = Counter(groups.values())
        hit: Counter[tuple[str, str]] = Counter()
        for name in targets:
            feeder = network.feeder_of(name)
            hit[(FEEDER, feeder) if feeder else (GROUP, groups.get(name, ""))] += 1
        view = [
            {
                "kind": kind,
                "name": name,
                "targets": count,
                "meters": network.all_below[name] if kind == FEEDER else sizes[name],
            }
            for (kind, name), count in sorted(hit.items())
        ]
        batch = {"actor": actor, "action": action, "count": len(targets), "targets": list(targets[:TARGETS])}
        return {"batch": batch, "feeder_view": view}

    def placed(self, command: Mapping[str, object]) -> dict[str, object]:
        """A command with where its meter stands."""
        network, point = self._network(), str(command.get("point") or "")
        return {**command, "path": network.path_of(point), "feeder": network.feeder_of(point)}

    async def leaves(
        self, command: Mapping[str, object], device_state: Mapping[str, object], reason: str, *, cuts: bool
    ) -> str | None:
        """Why a command may not leave now; None: it may. `cuts`: supply would be cut."""
        if self._manager.asked(BEFORE):
            arguments = {"command": self.placed(command), "device_state": dict(device_state), "reason": reason}
            if found := await self._veto(BEFORE, arguments):
                return _words(found)
        if cuts and self._manager.asked(DISCONNECT):
            account, group = str(command.get("point") or ""), str(command.get("group") or "")
            try:
                weather_ = await self.weather(account, group)
            except StoreFailed:
                raise
            except StoreError as error:
                return f"the weather is not known: {error}"
            arguments = {
                "account": account,
                "reason": reason,
                "weather": weather_,
                "calendar": self.calendar(account, group),
            }
            if found := await self._veto(DISCONNECT, arguments):
                return _words(found)
        return None

    def areas(self, meter: str, group: str) -> list[WeatherArea]:
        """Where the weather of a meter is looked for, the nearest first."""
        nodes = [WeatherArea("node", name) for name in self._network().path_of(meter)]
        return [*nodes, WeatherArea("group", group), EVERYWHERE]

    async def weather(self, meter: str, group: str) -> dict[str, Any]:
        """The weather of a meter, as hooks are told of it; empty: it is not known.

        Raises:
            StoreError: it cannot be read.
        """
        if self._store is None:
            return {}
        areas, now = self.areas(meter, group), self._wall_us()
        return await self._store.read(lambda connection: weather.nearest(connection, areas, now))

    def calendar(self, meter: str, group: str) -> dict[str, Any]:
        """The day and the hour in the head-end's time zone; Monday is 1. The meter's region has holidays of its own."""
        now = datetime.fromtimestamp(self._wall_us() / 1e6, UTC).astimezone(self._zone)
        days = self._holidays.union(
            *(self._regional[name] for name in (group, *self._network().path_of(meter)) if name in self._regional)
        )
        return {
            "date": now.date().isoformat(),
            "weekday": now.isoweekday(),
            "minute": now.hour * 60 + now.minute,
            "holiday": _is_in(days, now.date()),
            "holiday_tomorrow": _is_in(days, now.date() + timedelta(days=1)),
        }

    async def _veto(self, hook: str, arguments: Mapping[str, object]) -> list[Refusal]:
        until = trio.current_time() + AGAIN_S
        while True:
            found = await self._manager.veto(hook, **arguments)
            if any(one.code != FAILED for one in found) or not found or trio.current_time() >= until:
                return found
            await trio.sleep(AGAIN_STEP_S)


def _is_in(days: frozenset[str], day: date) -> bool:
    text = day.isoformat()
    return text in days or text[5:] in days


def _words(refusals: Sequence[Refusal]) -> str:
    return "refused by a rule: " + "; ".join(one.reason for one in refusals)[:500]
