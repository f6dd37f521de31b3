"""`plugin.replay` and `plugin.shadow`: what another version of a plugin would say, before it has a say."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import msgspec
import trio

from ipss_headend.errors import HeadEndError
from ipss_headend.plugins.differences import Report
from ipss_headend.plugins.replay import Progress, Replay, Tried
from ipss_headend.plugins.shadow import Shadow
from ipss_headend.plugins.specs import GROUP
from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import Change, Params, Result, method
from ipss_headend.rpc.faults import Fault
from ipss_headend.rpc.jobs import Job
from ipss_headend.rpc.methods.job import State, state
from ipss_headend.rpc.methods.stream import rows_of
from ipss_headend.security.permission import Right
from ipss_headend.store import plugins as rows
from ipss_headend.store import recorded
from ipss_headend.store.log import Entry
from ipss_headend.store.plugins import StateRow

MOST_ITEMS = 1000
TRYING = trio.CapacityLimiter(1)


class ReplayOf(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An installed plugin, enabled or not, and a part of the log; all of it where nothing is said."""

    plugin: str
    version: str | None = None
    """Another installed plugin, whose answers are compared with what is stored of `plugin`. Code that is not installed
    is replayed on the command line only."""
    since_ms: int | None = None
    """When the first entry was written."""
    until_ms: int | None = None
    """Before then."""
    from_cursor: int | None = None
    """Entries behind this one."""
    to_cursor: int | None = None
    """Up to this one."""
    limit: int = 100
    """Of the differences that are told; all are counted."""
    patience: int = 1
    """Multiplies the hooks' time limits, for a slow machine."""


class Shadowed(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A plugin or a shadow; all where none is named."""

    plugin: str | None = None


class Verdicts(msgspec.Struct, frozen=True):
    """How answers to one hook compare."""

    hook: str
    verdict: str
    """`same`, `different`, `failed` (the shadow did), `alone` (the plugin did), `dropped` (the shadow was behind)."""
    questions: int


class Took(msgspec.Struct, frozen=True):
    """How long both took for the questions to one hook that both answered."""

    hook: str
    live_us: int
    shadow_us: int


class Shown(msgspec.Struct, frozen=True):
    """A question that had not the same answer."""

    at_ms: int
    hook: str
    verdict: str
    asked: str
    live: str
    shadow: str


class Told(msgspec.Struct, frozen=True):
    """How a shadow does."""

    shadow: str
    shadow_of: str
    source: str
    running: bool
    fault: str | None
    """Why it could not be loaded."""
    since_ms: int
    """Counted since then."""
    same: int
    different: int
    failed: int
    alone: int
    dropped: int
    hooks: list[Verdicts]
    took: list[Took]
    examples: list[Shown]
    """The newest; texts are cut off."""


class Shadows(Result, frozen=True):
    """Shadows of enabled plugins."""

    shadows: list[Told]


@method("plugin.replay", Right.OPERATE, example={"plugin": "validate", "from_cursor": 0})
async def replay(call: Call, params: ReplayOf) -> State:
    """Hand recorded history to a plugin once more, as a job: what it gives, and how that differs from what is stored.

    Nothing is written. The outcome `replay` is the report.
    """
    _everywhere(call)
    installed = {entry.name for entry in metadata.entry_points(group=GROUP)}
    for name in (params.plugin, params.version):
        if name is not None and name not in installed:
            raise Fault("E_UNKNOWN", f'no plugin "{name}" is installed; plugin.list shows those that are')
    if not 1 <= params.patience <= 1000:
        raise Fault("E_PARAMS", f"patience: {params.patience} is not in 1 to 1000")
    services = call.services
    stretch = await services.store.read(
        lambda connection: recorded.stretch(
            connection,
            since_us=None if params.since_ms is None else params.since_ms * 1000,
            until_us=None if params.until_ms is None else params.until_ms * 1000,
            from_cursor=params.from_cursor,
            to_cursor=params.to_cursor,
        )
    )
    known = (await services.store.read(rows.states)).get(params.plugin, StateRow(None, None))
    config = services.config.plugins
    settings = known.settings if known.settings is not None else config.settings.get(params.plugin, {})
    tried = Tried(
        params.plugin, params.version, settings, config.memory_mib, max(1, int(config.cpu_s)),
        config.patience * params.patience, services.config.time_zone, config.holidays,
        config.regional_holidays,
    )  # fmt: skip
    report = Report(params.plugin, params.version or "", stretch.after, stretch.last)
    report.most = min(max(params.limit, 0), MOST_ITEMS)

    async def told(entry: Entry) -> list[dict[str, Any]]:
        return await rows_of(services, entry)

    async def work(job: Job) -> None:
        def tell(progress: Progress) -> None:
            job.outcomes["progress"] = {
                "ok": True, "done": progress.done, "total": progress.total, "at_ms": progress.at_us // 1000,
            }  # fmt: skip

        async with TRYING:
            try:
                found = await Replay(tried, services.store, told, services.field.meters, report).run(stretch, tell)
            except* HeadEndError as errors:
                job.note("replay", {"ok": False, "error": str(_first(errors))})
            else:
                job.note("replay", {"ok": True, **found.document()})

    try:
        return state(services.jobs.start("plugin.replay", call.principal.name, [params.plugin], work))
    except RuntimeError as error:
        raise Fault("E_BUSY", str(error)) from error


@method("plugin.shadow", Right.OPERATE, example={})
def shadow(call: Call, params: Shadowed) -> Shadows:
    """How the versions do that are asked beside plugins and not obeyed: where they say the same, and where not.

    They are configured, `[plugins.shadows.NAME]`.
    """
    _everywhere(call)
    found = [_told(one) for one in call.services.plugins.shadows if params.plugin in {None, one.name, one.of.shadow_of}]
    if params.plugin is not None and not found:
        raise Fault("E_UNKNOWN", f'"{params.plugin}" has no shadow and is none; [plugins.shadows] configures them')
    return Shadows(shadows=found)


def _told(shadow: Shadow) -> Told:
    totals = dict.fromkeys(("same", "different", "failed", "alone", "dropped"), 0)
    for (_, verdict), count in shadow.counts.items():
        totals[verdict] += count
    return Told(
        shadow=shadow.name,
        shadow_of=shadow.of.shadow_of,
        source=shadow.of.source,
        running=bool(shadow.process.figures.up),
        fault=shadow.process.fault,
        since_ms=shadow.since_us // 1000,
        same=totals["same"],
        different=totals["different"],
        failed=totals["failed"],
        alone=totals["alone"],
        dropped=totals["dropped"],
        hooks=[Verdicts(hook, verdict, count) for (hook, verdict), count in sorted(shadow.counts.items())],
        took=[
            Took(hook, int(live_s * 1e6), int(shadow_s * 1e6))
            for hook, (live_s, shadow_s) in sorted(shadow.durations_s.items())
        ],
        examples=[
            Shown(one.at_us // 1000, one.hook, one.verdict, one.asked, one.live, one.shadow)
            for one in reversed(shadow.examples)
        ],
    )


def _first(errors: BaseExceptionGroup[HeadEndError]) -> BaseException:
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def _everywhere(call: Call) -> None:
    """A plugin is asked about every meter."""
    if not call.principal.everywhere(Right.OPERATE):
        raise Fault("E_DENIED", f"{call.method}: plugins see every meter; it needs the right for all groups")
