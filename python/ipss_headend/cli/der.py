"""`ipss-headend der`: set points of inverters and storage, at a running head-end."""

import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, app, command
from ipss_headend.cli.output import Output
from ipss_headend.cli.rpc import ERRORS, jsonable
from ipss_headend.client import CallFailed, Client
from ipss_headend.errors import DONE, REFUSED, UNREACHABLE, ConfigError, RequestError
from ipss_headend.schedule import duration_s

der = typer.Typer(name="der", help="Set points of inverters and storage.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(der)

Device = Annotated[str, typer.Argument(help="The device's name in the registry.")]
Function = Annotated[
    str,
    typer.Argument(
        metavar="FUNCTION",
        help="active-power-limit, power-factor, volt-var, volt-watt, frequency-droop or storage-power.",
    ),
]
Source = Annotated[str, typer.Option(help="Who wants it, if you want several things of one function.")]


@command(der, "list")
def list_(*, config: places.CONFIG = places.DEFAULT_CONFIG, json_output: JSON = False) -> int:
    r"""List devices, what is wanted of them, and what they were made to do.

    \b
    Example:
      ipss-headend der list
    """
    found = _call(config, "der.list")["devices"]
    output = Output(json_output=json_output)
    if json_output:
        output.document({"devices": found})
        return DONE
    rows = []
    for device in found:
        decided = {one["function"]: one for one in device["decided"]}
        name = device["device"]
        rows += [
            (name, *(wish[key] for key in ("function", "value", "source", "priority")), _time(wish["until_ms"]), state)
            for wish in device["wishes"]
            for state in [_what(wish, decided.get(wish["function"]))]
        ] or [(name, "-", "-", "-", "-", "-", "nothing is wanted")]
    output.table(("device", "function", "value", "source", "priority", "until (UTC)", "state"), rows)
    return DONE


@command(der, "set")
def set_(
    device: Device,
    what: Function,
    value: Annotated[str, typer.Argument(help="A number (percent, power factor), or a curve: 92:30 98:0.")],
    *,
    lasting: Annotated[str, typer.Option("--for", help="How long it is wanted.")] = "1h",
    revert: Annotated[str, typer.Option(help="After so long without renewal the device goes back by itself.")] = "5min",
    priority: Annotated[int, typer.Option(min=0, max=100, help="Higher goes first.")] = 10,
    exclusive: Annotated[bool, typer.Option("--exclusive", help="Shut out bounds of lower priority.")] = False,
    source: Source = "",
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> int:
    r"""Want something of a device, and say what it does then. The head-end renews it until its end.

    Taking a device off the grid, and a limit of next to nothing, take two people: `control switch`, `control limit`.

    \b
    Examples:
      ipss-headend der set inverter-1 active-power-limit 60 --for 2h --revert 5min
      ipss-headend der set battery-1 storage-power -- -50
      ipss-headend der set inverter-1 volt-var "92:30 98:0 102:0 108:-30"
    """
    answer = _call(
        config,
        "der.set",
        device=device,
        function=what,
        value=value,
        for_s=_seconds("--for", lasting),
        revert_s=_seconds("--revert", revert),
        priority=priority,
        exclusive=exclusive,
        source=source,
        key=str(uuid.uuid4()),
    )
    return _told(answer, what, json_output=json_output)


@command(der, "release")
def release(
    device: Device,
    what: Function,
    *,
    source: Source = "",
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> int:
    r"""Want it no more. The device is told at once, unless somebody else wants the same function.

    \b
    Example:
      ipss-headend der release inverter-1 active-power-limit
    """
    answer = _call(config, "der.release", device=device, function=what, source=source, key=str(uuid.uuid4()))
    return _told(answer, what, json_output=json_output)


@command(der, "status")
def status(device: Device, *, config: places.CONFIG = places.DEFAULT_CONFIG, json_output: JSON = False) -> int:
    r"""Ask a device now: its power, its limit, how long until it goes back by itself.

    \b
    Example:
      ipss-headend der status inverter-1
    """
    found = _call(config, "der.read", device=device)
    output = Output(json_output=json_output)
    if json_output:
        output.document(found)
    else:
        output.table(
            ("what", "value"), [(name, "-" if value is None else value) for name, value in found["values"].items()]
        )
    return DONE


def _told(answer: dict[str, Any], function: str, *, json_output: bool) -> int:
    output = Output(json_output=json_output)
    if json_output:
        output.document(answer)
    else:
        output.table(
            ("function", "value", "whose", "outcome"),
            [(one["function"], one["value"], one["source"], one["outcome"]) for one in answer["arbitration"]],
        )
    outcomes = [one["outcome"] for one in answer["arbitration"] if one["function"] == function]
    if "refused" in outcomes or "not-held" in outcomes:
        return REFUSED
    return UNREACHABLE if "unknown" in outcomes or "pending" in outcomes else DONE


def _what(wish: dict[str, Any], decided: dict[str, Any] | None) -> str:
    if decided is None:
        return "-"
    if decided["source"] != wish["source"]:
        return f"outbid by {decided['source']}"
    return str(decided["outcome"])


def _time(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _seconds(option: str, text: str) -> int:
    try:
        return int(duration_s(text))
    except ValueError as error:
        raise RequestError(f"{option}: {error}") from None


def _call(config: Path, method: str, **params: Any) -> dict[str, Any]:
    socket = places.load_config(config).rpc.socket
    if socket is None:
        raise ConfigError(f"{config}: [rpc] has no socket; set points are for a running head-end")
    try:
        with Client(f"unix:{socket}", name="ipss-headend der") as client:
            result = jsonable(client.call(method, **params))
    except CallFailed as error:
        raise ERRORS.get(error.code, RequestError)(str(error)) from error
    found: dict[str, Any] = result
    return found
