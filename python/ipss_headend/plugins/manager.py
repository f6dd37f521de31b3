"""The plugins of one head-end: their processes, and how a hook's answers become one."""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import trio

from ipss_headend.errors import PluginError
from ipss_headend.log import Logger, logger
from ipss_headend.metrics import Figures
from ipss_headend.plugins.columns import Buffer, share
from ipss_headend.plugins.context import Effect
from ipss_headend.plugins.process import START_S, PluginProcess
from ipss_headend.plugins.specs import HOOKS, Hook, Mode, Refusal
from ipss_headend.store.database import now_us

Keep = Callable[[str, Sequence[Effect]], Awaitable[None]]
"""Keeps what a plugin emitted, by the plugin's name."""


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
    ) -> None:
        self.plugins = [
            PluginProcess(name, figures.plugin(name), memory_mib=memory_mib, cpu_s=cpu_s, wall_us=wall_us)
            for name in enabled
        ]
        self.patience = patience
        self._keep = keep
        self._log: Logger = logger("plugin")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep all processes alive until cancelled. Started when each plugin has started or failed once."""
        async with trio.open_nursery() as nursery:
            for plugin in self.plugins:
                nursery.start_soon(plugin.run)
            with trio.move_on_after(START_S):
                for plugin in self.plugins:
                    await plugin.told.wait()
            task_status.started()

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
            await self._kept(plugin, answer.effects)
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
        await self._kept(plugin, answer.effects)
        return answer.value

    async def _kept(self, plugin: PluginProcess, effects: Sequence[Effect]) -> None:
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
