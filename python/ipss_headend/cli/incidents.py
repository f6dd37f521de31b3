"""`ipss-headend incidents`: what happened to several meters at once, and what plugins say that it is."""

from typing import Annotated, Any

import typer

from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, app, command
from ipss_headend.cli.output import Output, say
from ipss_headend.cli.running import Running, moment

incidents = typer.Typer(
    name="incidents", help="What happened to meters, and what it is.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(incidents)


@command(incidents, "list")
def list_(
    *,
    open_only: Annotated[bool, typer.Option("--open", help="Only those that still take signals.")] = False,
    group: Annotated[str | None, typer.Option("--group", help="Only of this group of meters.")] = None,
    area: Annotated[str | None, typer.Option("--area", help="Only of this node of the network, line or group.")] = None,
    last: Annotated[int | None, typer.Option("--last", min=1, help="Only the newest so many.")] = None,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""List incidents in the order in which they were opened, with the class that is most probable.

    \b
    Examples:
      ipss-headend incidents list --open
      ipss-headend incidents list --group north --last 10 --json
      ipss-headend incidents list --area T-17
    """
    found: list[dict[str, Any]] = []
    cursor: int | None = 0
    with Running(config, "incidents") as running:
        while cursor is not None:
            page = running.call("anomaly.list", open_only=open_only, cursor=cursor, limit=1000)
            found += [
                one
                for one in page["incidents"]
                if area in {None, one["area"]} and group in {None, one["area_kind"] == "group" and one["area"]}
            ]
            cursor = page["cursor"]
    found = found[-last:] if last else found
    output = Output(json_output=json_output)
    if json_output:
        output.document({"incidents": found})
        return
    rows = [
        (
            one["incident"], _area(one), moment(one["opened_ms"]), moment(one["changed_ms"]),
            _state(one), one["meters"], one["signals"], *_class(one),
        )
        for one in found
    ]  # fmt: skip
    columns = (
        "incident",
        "area",
        "opened",
        "changed",
        "state",
        "meters",
        "signals",
        "class",
        "probability",
        "severity",
    )
    output.table(columns, rows, right=("incident", "meters", "signals", "probability", "severity"))
    say(f"{len(found)} incidents")


@command(incidents, "show")
def show(
    incident: Annotated[int, typer.Argument(help="Its number, as `incidents list` shows it.")],
    *,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Show an incident with its classes and its signals.

    \b
    Example:
      ipss-headend incidents show 7
    """
    with Running(config, "incidents") as running:
        found = running.call("anomaly.get", incident=incident)
    output = Output(json_output=json_output)
    if json_output:
        output.document(found)
        return
    one = found["incident"]
    where = f"{one['area_kind']} {one['area'] or '-'}"
    output.line(f"incident {incident}, {where}, {_state(one)}, opened {moment(one['opened_ms'])}")
    for each in one["classes"] or []:
        evidence = "; ".join(each["evidence"])
        output.line(f"{each['name']} {_percent(each)} severity {each['severity']}{': ' if evidence else ''}{evidence}")
    rows = [(moment(each["at_ms"]), each["point"], each["kind"], each["detail"]) for each in found["signals"]]
    output.table(("at", "meter", "signal", "detail"), rows)
    dropped = f", {found['dropped']} more are not kept" if found["dropped"] else ""
    say(f"{len(found['signals'])} signals{dropped}")


def _area(one: dict[str, Any]) -> str:
    return str(one["area"]) if one["area_kind"] == "group" else f"{one['area_kind']} {one['area']}"


def _state(one: dict[str, Any]) -> str:
    if one["part_of"] is not None:
        return f"part of {one['part_of']}"
    return "open" if one["open"] else "closed"


def _class(one: dict[str, Any]) -> tuple[object, ...]:
    if not one["classes"]:
        return "", "", ""
    first = one["classes"][0]
    return first["name"], _percent(first), first["severity"]


def _percent(one: dict[str, Any]) -> str:
    return f"{one['probability_ppm'] / 10_000:.0f} %"
