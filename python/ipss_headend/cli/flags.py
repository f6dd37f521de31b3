"""`ipss-headend flags`: what validation said of intervals, what was estimated, and a person's word instead."""

import time
from typing import Annotated, Any

import typer

from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, app, command
from ipss_headend.cli.output import Output, say
from ipss_headend.cli.running import Running, moment
from ipss_headend.cli.values import parse_moment
from ipss_headend.store.database import now_us

flags = typer.Typer(
    name="flags", help="What validation said of intervals.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(flags)

METER = Annotated[str, typer.Argument(help="A meter's name.")]
OBJECT = Annotated[str | None, typer.Option("--object", metavar="OBJECT", help="Only this object.")]
FROM = Annotated[str, typer.Option("--from", metavar="T", help="First capture time, such as 2026-03-01 or 7d (ago).")]
TO = Annotated[str | None, typer.Option("--to", metavar="T", help="Behind the last capture time.  [default: now]")]


@command(flags, "list")
def list_(
    meter: METER,
    *,
    object_: OBJECT = None,
    from_: FROM = "7d",
    to: TO = None,
    kind: Annotated[
        list[str] | None, typer.Option("--flag", metavar="FLAG", help="Only with this flag, such as spike or gap.")
    ] = None,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""List the flags of a meter's intervals, by capture time. Flags are added and never taken away.

    \b
    Examples:
      ipss-headend flags list virtual-00001
      ipss-headend flags list virtual-00001 --from 30d --flag spike --flag gap --json
    """
    found = [
        one
        for one in _pages(config, "vee.flags", "flags", meter, object_, from_, to)
        if not kind or set(kind) & set(one["flags"])
    ]
    output = Output(json_output=json_output)
    if json_output:
        output.document({"meter": meter, "flags": found})
        return
    rows = [(moment(one["capture_ms"]), one["source"], one["item"], ", ".join(one["flags"])) for one in found]
    output.table(("capture time", "profile", "object", "flags"), rows)
    say(f"{len(found)} intervals with flags")


@command(flags, "estimates")
def estimates(
    meter: METER,
    *,
    object_: OBJECT = None,
    from_: FROM = "7d",
    to: TO = None,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""List the intervals of a meter that are missing or edited, and their values. An empty value is not known yet.

    \b
    Example:
      ipss-headend flags estimates virtual-00001 --from 30d
    """
    found = _pages(config, "vee.estimates", "estimates", meter, object_, from_, to)
    output = Output(json_output=json_output)
    if json_output:
        output.document({"meter": meter, "estimates": found})
        return
    rows = [
        (moment(one["capture_ms"]), one["source"], one["item"], one["value"], one["unit"], one["method"])
        for one in found
    ]
    output.table(("capture time", "profile", "object", "value", "unit", "method"), rows, right=("value",))
    say(f"{len(found)} intervals")


@command(flags, "edit")
def edit(
    meter: METER,
    object_: Annotated[str, typer.Argument(metavar="OBJECT", help="The object, such as 1.0.1.8.0.255.")],
    *,
    at: Annotated[str, typer.Option("--at", metavar="T", help="The end of the interval.")],
    value: Annotated[str, typer.Option("--value", help="What was taken in it, in the object's unit.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is in the audit trail.")],
    profile: Annotated[
        str | None, typer.Option("--profile", help="The profile, where several have this object.")
    ] = None,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Say what an interval counts as, before what was read. The reading stays as it is.

    \b
    Example:
      ipss-headend flags edit virtual-00001 1.0.1.8.0.255 --at 2026-03-01T10:15Z --value 120 --reason "meter bypassed"
    """
    params: dict[str, Any] = {} if profile is None else {"source": profile}
    with Running(config, "flags edit") as running:
        found = running.call(
            "vee.edit", point=meter, item=object_, capture_ms=_ms(at), value=value, reason=reason, **params
        )
    output = Output(json_output=json_output)
    if json_output:
        output.document(found["edited"])
    else:
        one = found["edited"]
        output.line(f"{meter} {one['item']} {moment(one['capture_ms'])}: {one['value']} {one['unit']}, {one['method']}")


def _pages(
    config: Any, method: str, name: str, meter: str, object_: str | None, from_: str, to: str | None
) -> list[dict[str, Any]]:
    """All pages of what a method gives; an interval of a page's edge comes once."""
    params: dict[str, Any] = {"point": meter, "to_ms": int(time.time() * 1000) if to is None else _ms(to)}
    if object_ is not None:
        params["item"] = object_
    found: list[dict[str, Any]] = []
    cursor: int | None = _ms(from_)
    with Running(config, "flags") as running:
        while cursor is not None:
            page = running.call(method, from_ms=cursor, **params)
            found += page[name]
            cursor = page["cursor_ms"] if page[name] and page["cursor_ms"] != cursor else None
            if cursor is not None:
                found = [one for one in found if one["capture_ms"] < cursor]
    return found


def _ms(text: str) -> int:
    return parse_moment(text, now_us()) // 1000
