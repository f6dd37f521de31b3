"""`plugin.*`: which plugins run, how they do, and what they are set to.

What is said here is kept and goes before the configuration, restarts included; each change is in the audit trail.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

import msgspec
import trio
from sqlalchemy import Connection

from ipss_headend.errors import PluginError
from ipss_headend.plugins.feed import FED
from ipss_headend.plugins.process import PluginProcess
from ipss_headend.plugins.selftest import selftest as ask_all
from ipss_headend.plugins.specs import GROUP
from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import Change, Params, Result, method
from ipss_headend.rpc.faults import Fault
from ipss_headend.rpc.jobs import Job
from ipss_headend.rpc.methods.job import State, state
from ipss_headend.security import audit
from ipss_headend.security.permission import Right
from ipss_headend.store import log
from ipss_headend.store import plugins as rows
from ipss_headend.store.plugins import StateRow

LONGEST_SETTINGS = 65_536
TESTING = trio.CapacityLimiter(1)


class Named(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A plugin, by its entry point."""

    plugin: str


class NamedChange(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A plugin, by its entry point."""

    plugin: str


class Configure(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A plugin, and what it is to be set to."""

    plugin: str
    settings: dict[str, Any]
    """What `ctx.settings` is from now on, whole."""


class SelfTest(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A plugin that is installed, enabled or not."""

    plugin: str
    patience: int = 1
    """Multiplies the hooks' time limits, for a slow machine."""


class Listed(msgspec.Struct, frozen=True):
    """A plugin that is installed or enabled."""

    plugin: str
    package: str
    """Name and version; empty: enabled and not installed."""
    enabled: bool
    running: bool
    healthy: bool
    hooks: list[str]


class Plugins(Result, frozen=True):
    """All plugins; those that are enabled first, in the order in which they are asked."""

    plugins: list[Listed]


class Reading(msgspec.Struct, frozen=True):
    """How far a plugin has read the log."""

    hook: str
    cursor: int | None
    """The last entry that it dealt with; None: it has dealt with none."""
    behind: int


class Counted(msgspec.Struct, frozen=True):
    """How often a hook was asked, since the head-end started."""

    hook: str
    outcome: str
    """`done`, `error`, `timeout`, `gone`, `overloaded`, `broken-off`."""
    calls: int


class Status(Result, frozen=True):
    """How a plugin does."""

    plugin: str
    enabled: bool
    running: bool
    fault: str | None
    """Why it could not be loaded."""
    wrong: dict[str, str]
    """What it says is wrong, asked now; and that it does not run."""
    hooks: list[str]
    methods: list[str]
    """What it offers, `x.PLUGIN.*`."""
    calls: list[Counted]
    readings: list[Reading]
    effects: int
    """How many it emitted that are kept."""
    passed_over: int
    restarts: int
    kills: int
    shadows: list[str]
    """Versions that are asked beside it and not obeyed; plugin.shadow says how they do."""


class Settings(Result, frozen=True):
    """What a plugin is set to."""

    plugin: str
    settings: dict[str, Any]


@method("plugin.list", Right.OPERATE, example={})
def list_(call: Call, params: Params) -> Plugins:
    """The plugins that are installed or enabled."""
    manager = call.services.plugins
    installed = {entry.name: _package(entry) for entry in metadata.entry_points(group=GROUP)}
    found = [
        Listed(
            plugin.name,
            installed.get(plugin.name, ""),
            enabled=True,
            running=bool(plugin.figures.up),
            healthy=plugin.figures.healthy,
            hooks=sorted(plugin.hooks or ()),
        )
        for plugin in manager.plugins
    ]
    known = {one.plugin for one in found}
    rest = sorted(set(installed) - known)
    found += [Listed(name, installed[name], enabled=False, running=False, healthy=True, hooks=[]) for name in rest]
    return Plugins(plugins=found)


@method("plugin.status", Right.OPERATE)
async def status(call: Call, params: Named) -> Status:
    """How a plugin does: its process, its hooks and methods, what it says is wrong, how far it has read the log."""
    services = call.services
    plugin = services.plugins.get(params.plugin)
    if plugin is None:
        if params.plugin not in _installed():
            raise _unknown(params.plugin)
        return Status(
            plugin=params.plugin, enabled=False, running=False, fault=None, wrong={}, hooks=[], methods=[], calls=[],
            readings=[], effects=0, passed_over=0, restarts=0, kills=0, shadows=[],
        )  # fmt: skip
    wrong = dict(await services.plugins.health(plugin))
    return await _status(call, plugin, wrong)


@method("plugin.enable", Right.OPERATE, example={"plugin": "classify"})
async def enable(call: Call, params: NamedChange) -> Status:
    """Run an installed plugin from now on, asked behind those that run already; restarts included."""
    if params.plugin not in _installed():
        raise _unknown(params.plugin)
    _everywhere(call)
    kept = await _keep(call, params.plugin, enabled=True)
    plugin = await call.services.plugins.enable(params.plugin, _settings(call, params.plugin, kept))
    if call.services.offers is not None:
        await call.services.offers.refresh()  # the answer has its methods
    return await _status(call, plugin, dict(await call.services.plugins.health(plugin)))


@method("plugin.disable", Right.OPERATE, example={"plugin": "classify"})
async def disable(call: Call, params: NamedChange) -> Status:
    """Ask a plugin no more, restarts included. What it might have refused is refused no more; its cursors stay."""
    _everywhere(call)
    if call.services.plugins.get(params.plugin) is None and params.plugin not in _installed():
        raise _unknown(params.plugin)
    await _keep(call, params.plugin, enabled=False)
    call.services.plugins.disable(params.plugin)
    return await status(call, Named(plugin=params.plugin))


@method("plugin.reload", Right.OPERATE)
async def reload(call: Call, params: NamedChange) -> Status:
    """Start a plugin's process again, or a shadow's: after another version of it was installed. The rest goes on."""
    _everywhere(call)
    shadows = {shadow.name: shadow.process for shadow in call.services.plugins.shadows}
    plugin = shadows.get(params.plugin) or _enabled(call, params.plugin)
    await plugin.reload()
    return await _status(call, plugin, dict(await call.services.plugins.health(plugin)))


@method("plugin.config", Right.OPERATE, example={"plugin": "classify"})
async def config(call: Call, params: Named) -> Settings:
    """What a plugin is set to: by plugin.configure, or else by the configuration."""
    services, name = call.services, params.plugin
    if services.plugins.get(name) is None and name not in _installed():
        raise _unknown(name)
    known = (await services.store.read(rows.states)).get(name, StateRow(None, None))
    return Settings(plugin=name, settings=_settings(call, name, known))


@method("plugin.configure", Right.OPERATE, example={"plugin": "classify", "settings": {}})
async def configure(call: Call, params: Configure) -> Settings:
    """Set a plugin, restarts included. It starts its process again."""
    services, name = call.services, params.plugin
    if services.plugins.get(name) is None and name not in _installed():
        raise _unknown(name)
    _everywhere(call)
    if len(msgspec.msgpack.encode(params.settings)) > LONGEST_SETTINGS:
        raise Fault("E_PARAMS", f"settings: at most {LONGEST_SETTINGS} octets")
    await _keep(call, name, settings=params.settings)
    plugin = services.plugins.get(name)
    if plugin is not None and plugin.settings != params.settings:
        plugin.settings = params.settings
        await plugin.reload()
    return Settings(plugin=name, settings=params.settings)


@method("plugin.selftest", Right.OPERATE)
def selftest(call: Call, params: SelfTest) -> State:
    """Ask every hook of a plugin with ordinary, empty, huge and odd input, in a process of its own, as a job."""
    if params.plugin not in _installed():
        raise _unknown(params.plugin)
    if not 1 <= params.patience <= 1000:
        raise Fault("E_PARAMS", f"patience: {params.patience} is not in 1 to 1000")

    async def work(job: Job) -> None:
        async with TESTING:
            try:
                found = await ask_all(params.plugin, patience=float(params.patience))
            except PluginError as error:
                job.note(params.plugin, {"ok": False, "error": str(error)})
                return
        for one in found:
            job.note(
                f"{one.hook} {one.case}",
                {"ok": one.well, "error": one.fault, "duration_us": int(one.duration_s * 1e6)},
            )

    try:
        return state(call.services.jobs.start("plugin.selftest", call.principal.name, [params.plugin], work))
    except RuntimeError as error:
        raise Fault("E_BUSY", str(error)) from error


async def _status(call: Call, plugin: PluginProcess, wrong: dict[str, str]) -> Status:
    hooks = plugin.hooks or {}

    def read(connection: Connection) -> tuple[list[Reading], int]:
        newest = log.newest(connection)
        found = []
        for fed in FED:
            if fed.hook in hooks:
                cursor = rows.cursor(connection, fed.cursor(plugin.name))
                found.append(Reading(fed.hook, cursor, plugin.figures.behind.get(fed.hook, newest - (cursor or 0))))
        return found, rows.effect_count(connection, plugin.name)

    readings, effects = await call.services.store.read(read)
    return Status(
        plugin=plugin.name,
        enabled=plugin in call.services.plugins.plugins,
        running=bool(plugin.figures.up),
        fault=plugin.fault,
        wrong=wrong,
        hooks=sorted(hooks),
        methods=sorted(name for name in call.services.methods if name.startswith(f"x.{plugin.name}.")),
        calls=[Counted(hook, outcome, calls) for (hook, outcome), calls in sorted(plugin.figures.calls.items())],
        readings=readings,
        effects=effects,
        passed_over=plugin.figures.passed_over,
        restarts=plugin.figures.restarts,
        kills=plugin.figures.kills,
        shadows=[shadow.name for shadow in call.services.plugins.shadows if shadow.of.shadow_of == plugin.name],
    )


async def _keep(
    call: Call, name: str, *, enabled: bool | None = None, settings: dict[str, Any] | None = None
) -> StateRow:
    who = call.principal.name

    def keep(connection: Connection) -> StateRow:
        known = rows.states(connection).get(name, StateRow(None, None))
        now = StateRow(known.enabled if enabled is None else enabled, known.settings if settings is None else settings)
        rows.set_state(connection, name, now, who)
        detail: dict[str, object] = {"settings": sorted(settings)} if settings is not None else {"enabled": enabled}
        audit.append(connection, "plugin", who, name, detail)
        return now

    return await call.services.store.change(keep, spend_reserve=True)


def _settings(call: Call, name: str, known: StateRow) -> dict[str, Any]:
    found = known.settings if known.settings is not None else call.services.config.plugins.settings.get(name, {})
    return dict(found)


def _everywhere(call: Call) -> None:
    """A plugin has a say in every meter."""
    if not call.principal.everywhere(Right.OPERATE):
        raise Fault("E_DENIED", f"{call.method}: plugins have a say in every meter; it needs the right for all groups")


def _enabled(call: Call, name: str) -> PluginProcess:
    plugin = call.services.plugins.get(name)
    if plugin is None:
        raise Fault("E_UNKNOWN", f'no plugin "{name}" is enabled; plugin.list shows those that are installed')
    return plugin


def _installed() -> set[str]:
    return {entry.name for entry in metadata.entry_points(group=GROUP)}


def _package(entry: metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""


def _unknown(name: str) -> Fault:
    return Fault("E_UNKNOWN", f'no plugin "{name}" is installed; plugin.list shows those that are')
