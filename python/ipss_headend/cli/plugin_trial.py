"""`ipss-headend plugin replay` and `plugin shadow`: what another version would say, before it has a say."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import trio
import typer
from sqlalchemy import Connection

from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, command
from ipss_headend.cli.output import Output, say
from ipss_headend.cli.plugin import NAME, PATIENCE, SOURCE, plugins
from ipss_headend.cli.running import Running
from ipss_headend.cli.values import parse_moment
from ipss_headend.config import Config, LogConfig
from ipss_headend.errors import DONE, PARTLY_DONE, RequestError
from ipss_headend.log import configure
from ipss_headend.plugins.differences import CHANGES, KINDS, Item, Report
from ipss_headend.plugins.replay import Progress, Replay, Tried
from ipss_headend.plugins.source import absolute
from ipss_headend.rpc.methods.stream import rows_in
from ipss_headend.store import Database, Store, recorded, registry
from ipss_headend.store import plugins as stored
from ipss_headend.store.database import now_us
from ipss_headend.store.export import time_text
from ipss_headend.store.log import Entry

TOLD_S = (0.2, 10.0)
"""How often progress is told: to a terminal, and to a file."""

MOMENT = "ISO 8601, in UTC where it has no offset, or a while ago, such as 2d."


@command(plugins, "replay")
def replay(
    name: NAME,
    *,
    source: SOURCE = None,
    since: Annotated[str | None, typer.Option(metavar="T", help=f"What was stored from then on. {MOMENT}")] = None,
    until: Annotated[str | None, typer.Option(metavar="T", help="What was stored before then.")] = None,
    from_cursor: Annotated[int | None, typer.Option(min=0, metavar="N", help="Entries of the log behind N.")] = None,
    to_cursor: Annotated[int | None, typer.Option(min=0, metavar="N", help="Entries of the log up to N.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show what is the same, too.")] = False,
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="Show so many things; all are counted.")] = 100,
    patience: PATIENCE = 1.0,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> int:
    r"""Hand recorded history to a plugin once more: what it gives, and how that differs from what is stored.

    The store is only read: no flag, effect or cursor changes, whether the head-end runs or not. The plugin runs in a
    process as a live one's. It is asked what the store has the questions of: readings, event codes, incidents, and the
    commands that came to an end.

    \b
    Examples:
      ipss-headend plugin replay validate --since 7d
      ipss-headend plugin replay night_rule --source ./night_rule --from-cursor 1000 --json
    """
    loaded = places.load_config(config)
    configure(LogConfig(level="critical"))
    moment_us = now_us()
    since_us = None if since is None else parse_moment(since, moment_us)
    until_us = None if until is None else parse_moment(until, moment_us)
    where = None if source is None else absolute(source, Path.cwd())
    with places.open_store(loaded) as database:
        with database.reading() as connection:
            stretch = recorded.stretch(
                connection, since_us=since_us, until_us=until_us, from_cursor=from_cursor, to_cursor=to_cursor
            )
            tried = _tried(loaded, connection, name, where, patience)
        if stretch.last <= stretch.after:
            raise RequestError(
                f"the log has no entry there (it is kept for {loaded.rpc.log_days} days); widen the time"
            )
        report = Report(name, where or "", stretch.after, stretch.last, most=limit, everything=everything)
        told = teller()
        found = trio.run(_run, database, tried, report, stretch, told)
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
    if json_output:
        Output(json_output=True).document(found.document())
    else:
        _show(found)
    return PARTLY_DONE if found.failed or not found.whole else DONE


@command(plugins, "shadow")
def shadow(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A plugin or a shadow; all if none.")] = None,
    *,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Show how versions do that a running head-end asks beside its plugins and does not obey.

    They are configured as `[plugins.shadows.NAME]` with `shadow_of` and `source`.

    \b
    Examples:
      ipss-headend plugin shadow
      ipss-headend plugin shadow night_rule --json
    """
    with Running(config, "plugin shadow") as running:
        found = running.call("plugin.shadow", **({} if name is None else {"plugin": name}))["shadows"]
    output = Output(json_output=json_output)
    if json_output:
        output.document({"shadows": found})
        return
    if not found:
        say("no shadow runs; [plugins.shadows.NAME] configures one")
        return
    columns = ("shadow", "of", "runs", "same", "different", "failed", "alone", "dropped", "fault")
    output.table(
        columns,
        [(one["shadow"], one["shadow_of"], "yes" if one["running"] else "no", *(one[part] for part in columns[3:8]),
          one["fault"]) for one in found],
        right=columns[3:8],
    )  # fmt: skip
    examples = [(one["shadow"], example) for one in found for example in one["examples"]]
    if examples:
        output.line()
        output.table(
            ("at (UTC)", "shadow", "hook", "verdict", "asked", "live", "shadow says"),
            [(time_text(one["at_ms"] * 1000), of, one["hook"], one["verdict"], one["asked"], one["live"], one["shadow"])
             for of, one in examples],
        )  # fmt: skip


async def _run(
    database: Database, tried: Tried, report: Report, stretch: recorded.Stretch, tell: Callable[[Progress], None]
) -> Report:
    store = Store(database)
    meters = {meter.meter_id: meter for meter in await store.read(registry.all_meters)}
    layouts: dict[int, registry.Layout] = {}

    async def rows(entry: Entry) -> list[dict[str, Any]]:
        if not layouts or any(row[1] not in layouts for row in entry.rows if entry.topic == "readings"):
            layouts.update(await store.read(registry.all_layouts))
        return rows_in(
            entry, lambda number: None if (one := meters.get(number)) is None else one.name, layouts.__getitem__
        )

    return await Replay(tried, store, rows, meters, report).run(stretch, tell)


def _tried(loaded: Config, connection: Connection, name: str, source: str | None, patience: float) -> Tried:
    known = stored.states(connection).get(name)
    settings = loaded.plugins.settings.get(name, {})
    return Tried(
        name, source, settings if known is None or known.settings is None else known.settings,
        loaded.plugins.memory_mib, max(1, int(loaded.plugins.cpu_s)), loaded.plugins.patience * patience,
        loaded.time_zone, loaded.plugins.holidays, loaded.plugins.regional_holidays,
    )  # fmt: skip


def teller(now_s: Callable[[], float] = time.monotonic) -> Callable[[Progress], None]:
    """Says how far a long replay is: in one line of a terminal, or now and then in a line of its own."""
    terminal = sys.stderr.isatty()
    every_s = TOLD_S[0 if terminal else 1]
    began = last = now_s()

    def tell(progress: Progress) -> None:
        nonlocal last
        now = now_s()
        if now - last < every_s or not progress.done:
            return
        last = now
        left_s = (now - began) * (progress.total - progress.done) / progress.done
        words = f"{progress.done} of {progress.total} entries, at {time_text(progress.at_us)}, {left_s:.0f} s left"
        if terminal:
            sys.stderr.write(f"\r\x1b[K{words}")
            sys.stderr.flush()
        else:
            say(words)

    return tell


def _show(report: Report) -> None:
    output = Output()
    hooks: dict[str, dict[str, int]] = {}
    for (hook, outcome), count in sorted(report.calls.items()):
        hooks.setdefault(hook, {})[outcome] = count
    output.table(
        ("hook", "asked", "answered"),
        [(hook, sum(outcomes.values()), outcomes.get("done", 0)) for hook, outcomes in hooks.items()],
        right=("asked", "answered"),
    )
    output.line()
    output.table(
        ("what", *CHANGES),
        [(kind, *report.of_kind(kind).values()) for kind in KINDS if any(report.of_kind(kind).values())],
        right=CHANGES,
    )
    if report.items:
        output.line()
        output.table(("what", "change", "of", "stored", "replayed"), [_row(item) for item in report.items])
    for one in report.failures:
        say(f"failed: {one.hook}" + (f", entry {one.sequence}" if one.sequence else "") + f": {one.why}")
    for note in report.notes:
        say(f"note: {note}")
    shown = sum(item.change != "same" for item in report.items)
    more = f", {shown} shown (--limit)" if shown < report.differences else ""
    say(
        f"{report.plugin}: {report.entries} entries replayed in {report.seconds:.1f} s, "
        f"{report.differences} differences{more}, {report.failed} failures"
    )


def _row(item: Item) -> tuple[str, ...]:
    return item.kind, item.change, " ".join(map(str, item.subject.values())), item.stored, item.replayed
