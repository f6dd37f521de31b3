"""`ipss-headend plugin`: write plugins, and find out what they do."""

from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import trio
import typer

from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, app, command
from ipss_headend.cli.output import Output, say
from ipss_headend.cli.running import Running
from ipss_headend.config import LogConfig
from ipss_headend.errors import FAULT
from ipss_headend.log import configure
from ipss_headend.plugins import scaffold
from ipss_headend.plugins.selftest import selftest
from ipss_headend.plugins.source import absolute
from ipss_headend.plugins.specs import GROUP

plugins = typer.Typer(help="Write plugins, and find out what they do.", no_args_is_help=True)
app.add_typer(plugins, name="plugin")

NAME = Annotated[str, typer.Argument(help="The plugin's entry point.")]
SOURCE = Annotated[
    str | None,
    typer.Option(metavar="SOURCE", help="Not what is installed: an entry point, a module, a directory, a file .py."),
]
PATIENCE = Annotated[float, typer.Option(min=0.1, help="Multiply the hooks' time limits, for a slow machine.")]


@command(plugins, "new")
def new(
    name: Annotated[str, typer.Argument(help="Small letters, digits and _.")],
    directory: Annotated[Path, typer.Option(help="Where to write it.")] = Path(),
) -> None:
    r"""Write a plugin to begin with: a package with one hook and a test that passes.

    \b
    Example:
      ipss-headend plugin new night_rule
    """
    for path in scaffold.write(name, directory):
        say(f"wrote {path}")
    place = str(directory / name)
    # Without a slash pip would look for a package of this name in the registry.
    place = place if "/" in place else f"./{place}"
    say(f"next: pip install {place} && ipss-headend plugin selftest {name}")


@command(plugins, "list")
def list_(*, json_output: JSON = False) -> None:
    r"""List the plugins that are installed. None is imported for it.

    \b
    Example:
      ipss-headend plugin list
    """
    found = sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name)
    if json_output:
        Output(json_output=True).document(
            {"plugins": [{"name": entry.name, "module": entry.value, "package": _package(entry)} for entry in found]}
        )
        return
    for entry in found:
        typer.echo(f"{entry.name}  {entry.value}  {_package(entry)}")
    if not found:
        say("no plugin is installed")


def _package(entry: metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""


@command(plugins, "status")
def status(
    name: Annotated[str | None, typer.Argument(help="One plugin; none: all that are enabled.")] = None,
    *,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> int:
    r"""Show how the plugins of a running head-end do. Ends with 1 if one does not run or says that something is wrong.

    \b
    Examples:
      ipss-headend plugin status
      ipss-headend plugin status sales --json
    """
    with Running(config, "plugin status") as running:
        listed = running.call("plugin.list")["plugins"] if name is None else []
        names = [one["plugin"] for one in listed if one["enabled"]] if name is None else [name]
        found = [running.call("plugin.status", plugin=one) for one in names]
    output = Output(json_output=json_output)
    if json_output:
        output.document({"plugins": found})
    else:
        columns = ("plugin", "state", "behind", "calls", "failed", "restarts", "kills", "passed over", "wrong")
        output.table(columns, [_status(one) for one in found], right=columns[2:-1])
        say(f"{len(found)} plugins")
    return FAULT if any(_wrong(one) for one in found) else 0


def _status(one: dict[str, Any]) -> tuple[object, ...]:
    calls = sum(each["calls"] for each in one["calls"])
    done = sum(each["calls"] for each in one["calls"] if each["outcome"] == "done")
    behind = max((each["behind"] for each in one["readings"]), default="")
    state = "running" if one["running"] else "not running"
    return (
        one["plugin"], state, behind, calls, calls - done, one["restarts"], one["kills"], one["passed_over"],
        _wrong(one),
    )  # fmt: skip


def _wrong(one: dict[str, Any]) -> str:
    said = [f"{name}: {words}" for name, words in one["wrong"].items()]
    return "; ".join(said or ([one["fault"]] if one["fault"] else [] if one["running"] else ["it does not run"]))


@command(plugins, "selftest")
def selftest_(name: NAME, *, source: SOURCE = None, patience: PATIENCE = 1.0, json_output: JSON = False) -> int:
    r"""Ask every hook of a plugin with ordinary, empty, huge and odd input.

    Its answers are of the types that the hooks promise, within their limits, and each time the same.

    \b
    Examples:
      ipss-headend plugin selftest night_rule
      ipss-headend plugin selftest night_rule --source ./night_rule    not installed yet
    """
    configure(LogConfig(level="critical"))
    where = None if source is None else absolute(source, Path.cwd())
    findings = trio.run(lambda: selftest(name, patience=patience, source=where))
    wrong = [finding for finding in findings if not finding.well]
    if json_output:
        Output(json_output=True).document(
            {
                "plugin": name,
                "well": not wrong,
                "findings": [
                    {"hook": one.hook, "case": one.case, "ms": round(one.duration_s * 1000, 3), "fault": one.fault}
                    for one in findings
                ],
            }
        )
    else:
        for one in findings:
            typer.echo(f"{one.hook}  {one.case}  {one.duration_s * 1000:.1f} ms  {one.fault or 'well'}")
        typer.echo(f"{name}: {len(findings) - len(wrong)} of {len(findings)} well")
    return FAULT if wrong else 0
