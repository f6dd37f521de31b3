"""The plugins of one head-end: their processes, and how a hook's answers become one."""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import trio

from ipss_headend.config import ShadowConfig
from ipss_headend.errors import PluginError, StoreError
from ipss_headend.log import Logger, logger
from ipss_headend.metrics import Figures
from ipss_headend.plugins.columns import Buffer, share
from ipss_headend.plugins.context import Effect
from ipss_headend.plugins.process import RESTORE, START_S, PluginProcess
from ipss_headend.plugins.shadow import Shadow
from ipss_headend.plugins.specs import HOOKS, Hook, Mode, Refusal
from ipss_headend.store.database import now_us

HEALTH = "plugin_health"
HEALTH_S = 10.0
AGAIN_S = 1.0
"""How long until a plugin is given back again what it kept, where that failed."""

Keep = Callable[[str, Sequence[Effect]], Awaitable[None]]
"""Keeps what a plugin emitted, by the plugin's name."""
Kept = Callable[[str, str], Awaitable[Mapping[str, Any]]]
"""What a plugin of this name keeps, by key, the first behind a key; nothing behind the last."""


class Manager:
    """Asks plugins. Without plugins every hook costs a look into an empty list.

    A hook's own time limit is multiplied by `patience`.
    """

    def __init__(
        self,
        enabled: Sequence[str],
        figures: Figures,
        *,
        memory_mib: int = 1024,
        cpu_s: int = 60,
        patience: float = 1.0,
        keep: Keep | None = None,
        wall_us: Callable[[], int] = now_us,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        shadows: Mapping[str, ShadowConfig] | None = None,
        sources: Mapping[str, str] | None = None,
        kept: Kept | None = None,
    ) -> None:
        """`shadows` by their names; `sources`: where plugins' code is, if it is not what is installed."""
        self.patience = patience
        self.changed = trio.Event()
        """Set, and made anew, when a plugin came, went, or started."""
        self._figures = figures
        self._memory_mib = memory_mib
        self._cpu_s = cpu_s
        self._wall_us = wall_us
        self._keep = keep
        self._kept = kept
        self._log: Logger = logger("plugin")
        self._nursery: trio.Nursery | None = None
        self._scopes: dict[str, trio.CancelScope] = {}
        self._sources = sources or {}
        self.shadows: list[Shadow] = []
        """Those of plugins that are enabled."""
        self._shadows = shadows or {}
        self._settings = settings or {}
        self.plugins = [self._made(name, self._settings.get(name, {})) for name in enabled]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep all processes alive until cancelled. Started when each plugin has started or failed once."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for plugin in self.plugins:
                    nursery.start_soon(self._run, plugin)
                with trio.move_on_after(START_S):
                    for plugin in self.plugins:
                        await plugin.told.wait()
                nursery.start_soon(self._ask_health)
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def get(self, name: str) -> PluginProcess | None:
        """The plugin of this name, if it is enabled."""
        return next((plugin for plugin in self.plugins if plugin.name == name), None)

    async def enable(self, name: str, settings: Mapping[str, Any]) -> PluginProcess:
        """Run one more plugin, asked behind the others; returns when it has started or failed to.

        Raises:
            PluginError: the head-end is stopping.
        """
        plugin = self.get(name)
        if plugin is None:
            if self._nursery is None:
                raise PluginError(f"plugin {name}: the head-end is stopping")
            plugin = self._made(name, settings)
            self.plugins.append(plugin)
            self._nursery.start_soon(self._run, plugin)
        with trio.move_on_after(START_S):
            await plugin.told.wait()
        return plugin

    def disable(self, name: str) -> bool:
        """Ask a plugin no more and end its process. Whether it was there."""
        plugin = self.get(name)
        if plugin is None:
            return False
        self.plugins.remove(plugin)
        self.shadows = [shadow for shadow in self.shadows if shadow.of.shadow_of != name]
        scope = self._scopes.get(name)
        if scope is not None:
            scope.cancel()
        self._tell()
        return True

    def _made(self, name: str, settings: Mapping[str, Any]) -> PluginProcess:
        plugin = PluginProcess(
            name,
            self._figures.plugin(name),
            memory_mib=self._memory_mib,
            cpu_s=self._cpu_s,
            wall_us=self._wall_us,
            settings=settings,
            source=self._sources.get(name),
        )
        for shadow, of in self._shadows.items():
            if of.shadow_of == name:
                made = Shadow(
                    shadow, of, self._figures, memory_mib=self._memory_mib, cpu_s=self._cpu_s, wall_us=self._wall_us,
                    settings=self._settings.get(shadow, settings),
                )  # fmt: skip
                plugin.listeners.append(made)
                self.shadows.append(made)
        return plugin

    async def _run(self, plugin: PluginProcess) -> None:
        scope = self._scopes[plugin.name] = trio.CancelScope()
        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(plugin.run)
                for shadow in self.shadows:
                    if shadow.of.shadow_of == plugin.name:
                        nursery.start_soon(shadow.run)
                while True:
                    started = plugin.started
                    if plugin.figures.up and not plugin.restored:
                        await self._restore(plugin, started)
                        continue
                    await started.wait()
                    self._tell()
        if self._scopes.get(plugin.name) is scope:
            del self._scopes[plugin.name]

    async def _restore(self, plugin: PluginProcess, started: trio.Event) -> None:
        """Give a process that has started what it kept; it is asked nothing else before."""
        after, more = "", True
        try:
            while more:
                page = {} if self._kept is None else dict(await self._kept(plugin.name, after))
                more = bool(page)
                after = next(reversed(page), after)
                arguments = {"kept": page, "more": more}
                await plugin.ask(RESTORE, arguments, limit_s=HOOKS[RESTORE].limit_s * self.patience)
        except (PluginError, StoreError) as error:
            self._log.warning("plugin has not got back what it kept", plugin=plugin.name, why=str(error))
            with trio.move_on_after(AGAIN_S):
                await started.wait()
            return
        if plugin.started is started:
            plugin.restored = True
            self._tell()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def _ask_health(self) -> None:
        """Every ten seconds, each on its own: a plugin that hangs keeps nobody from being asked."""
        while True:
            async with trio.open_nursery() as nursery:
                for plugin in list(self.plugins):
                    nursery.start_soon(self.health, plugin)
            await trio.sleep(HEALTH_S)

    async def health(self, plugin: PluginProcess) -> Mapping[str, str]:
        """What is wrong with a plugin: as it says, or that it does not run or say it."""
        found: Mapping[str, str] = {}
        if plugin.fault is not None:
            found = {"load": plugin.fault}
        elif not plugin.figures.up:
            found = {"process": "is not running"}
        elif plugin.hooks is not None and HEALTH in plugin.hooks:
            try:
                found = await self.ask_one(plugin, HOOKS[HEALTH], {})
            except PluginError as error:
                found = {HEALTH: str(error)}
        if dict(found) != dict(plugin.health) and found:
            self._log.warning("plugin is not well", plugin=plugin.name, wrong=dict(found))
        plugin.health = found
        plugin.figures.healthy = not found
        return found

    def asked(self, hook: str) -> list[PluginProcess]:
        """The plugins that have this hook, in their order."""
        found = [plugin for plugin in self.plugins if plugin.has(hook)]
        return sorted(found, key=lambda plugin: (plugin.hooks or {}).get(hook, 0))

    async def veto(self, hook: str, /, **arguments: object) -> list[Refusal]:
        """Who refuses, and why. Nobody: an empty list. A plugin that fails refuses, where the hook fails closed."""
        refusals = []
        for plugin in self.asked(_of(hook, "veto").name):
            try:
                found = _result(HOOKS[hook], await self._ask(plugin, hook, arguments))
            except PluginError as error:
                if not HOOKS[hook].closed:
                    self._log.warning("hook goes on without a plugin", hook=hook, why=str(error))
                    continue
                found = Refusal(str(error), "plugin-failed")
            if found is not None:
                refusals.append(found)
        return refusals

    async def all(self, hook: str, /, **arguments: object) -> list[tuple[str, Any]]:
        """Every plugin's answer with the plugin's name, those without one left out.

        Raises:
            PluginError: a plugin failed, and the hook fails closed.
        """
        answers = []
        for plugin in self.asked(_of(hook, "all").name):
            found = await self._try(plugin, hook, arguments)
            if found is not None:
                answers.append((plugin.name, found))
        return answers

    async def first(self, hook: str, /, **arguments: object) -> Any:
        """The first answer that is not None.

        Raises:
            PluginError: a plugin failed, and the hook fails closed.
        """
        for plugin in self.asked(_of(hook, "first").name):
            found = await self._try(plugin, hook, arguments)
            if found is not None:
                return found
        return None

    async def pipe(self, hook: str, value: Any, /, **arguments: object) -> Any:
        """What the last plugin makes of what the one before it gave; the value itself without any.

        Raises:
            PluginError: a plugin failed, and the hook fails closed.
        """
        name = _of(hook, "pipe").arguments[0]
        for plugin in self.asked(hook):
            found = await self._try(plugin, hook, {name: msgspec.to_builtins(value), **arguments})
            if found is not None:
                value = found
        return value

    async def batch(self, hook: str, columns: Mapping[str, Buffer], rows: int) -> array[int]:
        """The flags of all plugins, one 32-bit word a row. The columns are laid into shared memory once.

        Raises:
            PluginError: a plugin failed, and the hook fails closed; or the columns cannot be shared.
        """
        spec = _of(hook, "batch")
        total = array("I", bytes(rows * 4))
        asked = self.asked(hook)
        for place, plugin in enumerate(asked):
            try:
                found = await self.ask_batch(plugin, spec, columns, rows)
            except PluginError as error:
                if spec.closed:
                    raise
                self._log.warning("hook goes on without a plugin", hook=hook, why=str(error))
                continue
            total = found if place == 0 else _either(total, found)
        return total

    async def ask_batch(
        self, plugin: PluginProcess, hook: Hook, columns: Mapping[str, Buffer], rows: int
    ) -> array[int]:
        """One plugin's flags.

        Raises:
            PluginError: it failed, or the columns cannot be shared.
        """
        # The limit of the hook is for 100,000 rows.
        limit_s = hook.limit_s * max(1.0, rows / 100_000) * self.patience
        shared = await trio.to_thread.run_sync(share, columns, rows)
        try:
            answer = await plugin.ask(hook.name, {}, limit_s=limit_s, shared=shared)
            await self.kept(plugin, answer.effects)
            return shared.flags()
        finally:
            shared.close()

    async def ask_one(self, plugin: PluginProcess, hook: Hook, arguments: Mapping[str, object]) -> Any:
        """One plugin's answer, of the hook's type.

        Raises:
            PluginError: it failed.
        """
        return _result(hook, await self._ask(plugin, hook.name, arguments))

    async def _try(self, plugin: PluginProcess, hook: str, arguments: Mapping[str, object]) -> Any:
        try:
            return _result(HOOKS[hook], await self._ask(plugin, hook, arguments))
        except PluginError as error:
            if HOOKS[hook].closed:
                raise
            self._log.warning("hook goes on without a plugin", hook=hook, why=str(error))
            return None

    async def _ask(self, plugin: PluginProcess, hook: str, arguments: Mapping[str, object]) -> Any:
        answer = await plugin.ask(hook, arguments, limit_s=HOOKS[hook].limit_s * self.patience)
        await self.kept(plugin, answer.effects)
        return answer.value

    async def kept(self, plugin: PluginProcess, effects: Sequence[Effect]) -> None:
        """Keep what a plugin emitted."""
        if effects and self._keep is not None:
            await self._keep(plugin.name, effects)


def _of(hook: str, mode: Mode) -> Hook:
    spec = HOOKS[hook]
    if spec.mode != mode:
        raise ValueError(f"{hook} is of mode {spec.mode}, not {mode}")
    return spec


def _result(spec: Hook, value: Any) -> Any:
    try:
        return msgspec.convert(value, spec.result | None)
    except msgspec.ValidationError as error:
        raise PluginError(f"{spec.name}: {error}") from error


def _either(left: array[int], right: array[int]) -> array[int]:
    whole = int.from_bytes(left.tobytes(), "little") | int.from_bytes(right.tobytes(), "little")
    return array("I", whole.to_bytes(len(left) * 4, "little"))
