"""Read plans made while the head-end runs, beside those of the configuration: durable, begun and ended at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import trio
from sqlalchemy import Connection

from ipss_headend.config import PlanConfig, parse_plan
from ipss_headend.errors import ConfigError, RequestError, UnknownLogicalName
from ipss_headend.field.campaign import Campaign
from ipss_headend.field.context import Field
from ipss_headend.log import Logger, logger
from ipss_headend.security import audit
from ipss_headend.store import Store, schedules

MOST = 1000
"""Plans of this kind."""


class Schedules:
    """The plans of one head-end that were made by the RPC. `run` has to run for any to."""

    def __init__(self, store: Store, field: Field, configured: Iterable[PlanConfig]) -> None:
        self._store = store
        self._field = field
        self._configured = {plan.name: plan for plan in configured}
        self._plans: dict[str, PlanConfig] = {}
        self._scopes: dict[str, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self._log: Logger = logger("plan")

    @property
    def plans(self) -> list[tuple[PlanConfig, bool]]:
        """Every plan, and whether it is the configuration's."""
        return [(plan, True) for plan in self._configured.values()] + [(plan, False) for plan in self._plans.values()]

    async def load(self) -> None:
        """Take up what was kept. A plan that cannot be any more is told and left where it is."""
        for name, values in (await self._store.read(schedules.all_schedules)).items():
            if name in self._configured:
                self._log.error("a kept plan gives way to the configuration's", plan=name)
                continue
            try:
                self._plans[name] = self._checked(name, values)
            except (ConfigError, RequestError) as error:
                self._log.error("a kept plan is not taken", plan=name, why=str(error))

    async def run(self) -> None:
        """Run them until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for plan in self._plans.values():
                    self._start(plan)
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def set(self, name: str, values: Mapping[str, Any], who: str) -> PlanConfig:
        """Make a plan, or put it in the place of the one of this name; its turn that is due is taken at once.

        Raises:
            RequestError, ConfigError: it cannot be.
        """
        if name in self._configured:
            raise RequestError(f'plan "{name}" is the configuration\'s; change it there, or take another name')
        if name not in self._plans and len(self._plans) >= MOST:
            raise RequestError(f"{MOST} plans are kept already")
        plan = self._checked(name, values)

        def keep(connection: Connection) -> None:
            schedules.put(connection, name, values, who)
            audit.append(connection, "schedule", who, name, {"plan": dict(values)})

        await self._store.change(keep)
        self._end(name)
        self._plans[name] = plan
        self._start(plan)
        return plan

    async def remove(self, name: str, who: str) -> bool:
        """End a plan and forget it; what it read stays. Whether it was there."""
        if name not in self._plans:
            return False

        def forget(connection: Connection) -> None:
            schedules.remove(connection, name)
            audit.append(connection, "schedule", who, name, {"plan": None})

        await self._store.change(forget)
        self._end(name)
        del self._plans[name]
        self._field.figures.plans.pop(name, None)
        return True

    def _checked(self, name: str, values: Mapping[str, Any]) -> PlanConfig:
        plan = parse_plan({"name": name, **values})
        try:
            Campaign(plan, self._field)  # whose objects it knows
        except UnknownLogicalName as error:
            raise RequestError(f"{name}: {error}") from error
        return plan

    def _start(self, plan: PlanConfig) -> None:
        if self._nursery is not None:
            scope = self._scopes[plan.name] = trio.CancelScope()
            self._nursery.start_soon(self._run, plan, scope)

    def _end(self, name: str) -> None:
        scope = self._scopes.pop(name, None)
        if scope is not None:
            scope.cancel()

    async def _run(self, plan: PlanConfig, scope: trio.CancelScope) -> None:
        with scope:
            await Campaign(plan, self._field).run()
