"""`ipss-headend rpc`: call a method of a running head-end."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ipss_headend.cli import places
from ipss_headend.cli.app import app, command
from ipss_headend.cli.output import Output
from ipss_headend.client import CallFailed, Client, tls_context
from ipss_headend.errors import (
    AuthenticationFailed,
    ConfigError,
    HeadEndError,
    MeterGone,
    MeterRefused,
    MeterTimeout,
    NotAuthorised,
    ProtocolViolation,
    RequestError,
    words,
)

ERRORS: dict[str, type[HeadEndError]] = {
    "E_AUTH": NotAuthorised,
    "E_DENIED": NotAuthorised,
    "E_SECURITY": AuthenticationFailed,
    "E_TIMEOUT": MeterTimeout,
    "E_DEADLINE": MeterTimeout,
    "E_UNREACHABLE": MeterGone,
    "E_REFUSED": MeterRefused,
    "E_VIOLATION": ProtocolViolation,
    "E_INTERNAL": HeadEndError,
    "E_STORE": HeadEndError,
}


@command(app, "rpc")
def rpc(
    method: Annotated[str, typer.Argument(help="Such as read.last; rpc.methods lists them.")],
    params: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Params; a value is JSON or else text.")
    ] = None,
    *,
    address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="unix:PATH or tls://HOST:PORT.  [default: the configuration's socket]"),
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="Our certificate, PEM, its key in it or in --key.")] = None,
    key: Annotated[Path | None, typer.Option(help="The certificate's private key, PEM.")] = None,
    authority: Annotated[Path | None, typer.Option(help="Certificates that the head-end's is checked by, PEM.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="S", help="Seconds to wait for the answer.")] = 60.0,
    config: places.CONFIG = places.DEFAULT_CONFIG,
) -> None:
    r"""Call a method of a running head-end and print its result as JSON.

    Lists are JSON, or comma-separated texts behind `key[]=`.

    \b
    Examples:
      ipss-headend rpc rpc.methods
      ipss-headend rpc read.last points[]=virtual-00001 items[]=1.0.1.8.0.255,1.0.2.8.0.255
      ipss-headend rpc read.now device=virtual-00001 'items=["1.0.1.8.0.255"]'
      ipss-headend rpc rpc.schema method=read.series --address tls://head-end.example:4060 --certificate me.pem
    """
    given = dict(parameter(text) for text in params or ())
    tls = None
    if address is None:
        socket = places.load_config(config).rpc.socket
        if socket is None:
            raise ConfigError(f"{config}: [rpc] has no socket; name the head-end with --address")
        address = f"unix:{socket}"
    elif address.startswith("tls://"):
        for option, file in (("--certificate", certificate), ("--key", key), ("--authority", authority)):
            if file is not None and not file.is_file():
                raise ConfigError(f"{option}: {file}: no such file; expected PEM")
        try:
            tls = tls_context(
                certificate=None if certificate is None else str(certificate),
                key=None if key is None else str(key),
                authority=None if authority is None else str(authority),
            )
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"--certificate, --key or --authority: {words(error)}; expected PEM files") from error
    try:
        with Client(address, tls=tls, name="ipss-headend rpc", timeout_s=timeout) as client:
            result = client.call(method, **(given | _as_declared(client, method, given, params or [])))
    except CallFailed as error:
        raise ERRORS.get(error.code, RequestError)(str(error)) from error
    Output(json_output=True).document(jsonable(result))


def _as_declared(client: Client, method: str, given: dict[str, Any], written: list[str]) -> dict[str, Any]:
    doubtful = [name for name, value in given.items() if value is None or isinstance(value, bool | int | float)]
    if not doubtful:
        return {}
    try:
        schema = client.call("rpc.schema", method=method)["params"]
    except CallFailed:
        return {}  # the call itself says what is wrong
    return texts(schema, doubtful, dict(text.partition("=")[::2] for text in written))


def texts(schema: dict[str, Any], names: list[str], written: dict[str, str]) -> dict[str, str]:
    """Those of the params `names` that a method takes as text alone, as they were written: `key=7` is "7"."""
    properties = schema.get("$defs", {}).get(schema.get("$ref", "").rpartition("/")[2], schema).get("properties", {})
    found = {}
    for name in names:
        kinds = properties.get(name, {})
        taken = {one.get("type") for one in kinds.get("anyOf", [kinds])}
        if "string" in taken and taken <= {"string", "null"} and not ("null" in taken and written[name] == "null"):
            found[name] = written[name]
    return found


def parameter(text: str) -> tuple[str, Any]:
    """A param as it is written on a command line.

    Raises:
        RequestError: no `=`.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise RequestError(f'"{text}" is not KEY=VALUE')
    if name.endswith("[]"):
        return name[:-2], [part for part in value.split(",") if part]
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def jsonable(value: Any) -> Any:
    """Octets as hexadecimal digits, the rest as it is."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: jsonable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(part) for part in value]
    return value
