"""`ipss-headend users`: accounts of people and of other systems, at the head-end that runs.

These are calls of `auth.*`. Over the unix socket the head-end's own user may make them, so the first administrator
needs no password that anybody else could know; from elsewhere, whoever administers accounts.
"""

import getpass
import ssl
import sys
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import typer

from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, app, command
from ipss_headend.cli.output import Output
from ipss_headend.cli.rpc import ERRORS
from ipss_headend.client import CallFailed, Client
from ipss_headend.errors import ConfigError, RequestError, words

users = typer.Typer(
    name="users", help="Who may call, and with which roles.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(users)

NAME = Annotated[str, typer.Argument(metavar="NAME", help="The account's name.")]
ROLE = Annotated[str, typer.Argument(metavar="ROLE", help="VIEWER, OPERATOR, ENGINEER, ...: docs/rpc.md lists them.")]
SCOPE = Annotated[str, typer.Option("--scope", metavar="GROUP", help="A group of meters; * is all.")]
CERTIFICATES = Annotated[
    list[Path] | None, typer.Option("--certificate", metavar="FILE", help="A certificate, PEM. May stand many times.")
]
LONGEST_FILE = 65_536


@command(users, "add")
def add(
    name: NAME,
    *,
    service: Annotated[bool, typer.Option("--service", help="Another system, which never approves.")] = False,
    certificates: CERTIFICATES = None,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Make an account. It has no roles yet.

    \b
    Examples:
      ipss-headend users add ada --certificate ada.pem
      ipss-headend users add billing --service --certificate billing.pem
    """
    fingerprints = [fingerprint(path) for path in certificates or ()]
    kind = "service" if service else "user"
    _show([_call(config, "auth.user.add", user=name, kind=kind, certificates=fingerprints)], json_output=json_output)


@command(users, "list")
def list_(*, config: places.CONFIG = places.DEFAULT_CONFIG, json_output: JSON = False) -> None:
    r"""Show all accounts with their roles.

    \b
    Example:
      ipss-headend users list
    """
    found = _call(config, "auth.user.list")["users"]
    if json_output:
        Output(json_output=True).document({"users": found})
    else:
        _show(found, json_output=False)


@command(users, "grant")
def grant(
    name: NAME,
    role: ROLE,
    *,
    scope: SCOPE = "*",
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Give an account a role for a group of meters.

    \b
    Example:
      ipss-headend users grant ada OPERATOR --scope north
    """
    _show([_call(config, "auth.grant", subject=name, role=role, scope=scope)], json_output=json_output)


@command(users, "revoke")
def revoke(
    name: NAME,
    role: ROLE,
    *,
    scope: SCOPE = "*",
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Take a role from an account, from its open sessions at once.

    \b
    Example:
      ipss-headend users revoke ada OPERATOR --scope north
    """
    _show([_call(config, "auth.revoke", subject=name, role=role, scope=scope)], json_output=json_output)


@command(users, "disable")
def disable(
    name: NAME,
    *,
    enable: Annotated[bool, typer.Option("--enable", help="Let it in again, and forget its wrong passwords.")] = False,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Keep an account out, its open sessions at once.

    \b
    Example:
      ipss-headend users disable ada
    """
    _show([_call(config, "auth.user.disable", user=name, disabled=not enable)], json_output=json_output)


@command(users, "certificate")
def certificate(
    name: NAME,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The certificate, PEM.")],
    *,
    remove: Annotated[bool, typer.Option("--remove", help="It is the account's no more.")] = False,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Register a certificate as an account's own, or take it away.

    \b
    Example:
      ipss-headend users certificate ada ada-2027.pem
    """
    found = _call(config, "auth.user.certificate", user=name, fingerprint=fingerprint(file), remove=remove)
    _show([found], json_output=json_output)


@command(users, "password")
def password(
    name: NAME,
    *,
    password_file: Annotated[Path | None, typer.Option(help="Its first line; else it is asked for.")] = None,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Give a person a password, beside the certificate. It has to log in from then on.

    \b
    Example:
      ipss-headend users password ada
    """
    if password_file is not None:
        secret = _text(password_file).partition("\n")[0]
    elif sys.stdin.isatty():
        secret = getpass.getpass("password: ")
        if getpass.getpass("again: ") != secret:
            raise RequestError("the two passwords differ")
    else:
        raise RequestError("no terminal to ask for the password on; give --password-file")
    _show([_call(config, "auth.user.password", user=name, password=secret)], json_output=json_output)


def fingerprint(path: Path) -> str:
    """SHA-256 of the first certificate in a PEM file.

    Raises:
        ConfigError: it cannot be read, or has none.
    """
    text = _text(path)
    begin, end = text.find(ssl.PEM_HEADER), text.find(ssl.PEM_FOOTER)
    try:
        octets = ssl.PEM_cert_to_DER_cert(text[begin : end + len(ssl.PEM_FOOTER)])
    except ValueError as error:
        raise ConfigError(f"{path}: no certificate in it; expected PEM") from error
    return sha256(octets).hexdigest()


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(LONGEST_FILE)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {words(error)}") from error


def _call(config: Path, method: str, **params: Any) -> Any:
    socket = places.load_config(config).rpc.socket
    if socket is None:
        raise ConfigError(f"{config}: [rpc] has no socket; accounts are made over it")
    try:
        with Client(f"unix:{socket}", name="ipss-headend users") as client:
            return client.call(method, **params)
    except CallFailed as error:
        raise ERRORS.get(error.code, RequestError)(str(error)) from error


def _show(found: list[dict[str, Any]], *, json_output: bool) -> None:
    output = Output(json_output=json_output)
    if json_output:
        output.document(found[0])
        return
    output.table(
        ("name", "kind", "roles", "certificates", "password", "state"),
        [
            (
                one["user"],
                one["kind"],
                ", ".join(f"{held['role']}:{held['scope']}" for held in one["roles"]),
                ", ".join(text[:16] for text in one["certificates"]),
                "yes" if one["password"] else "no",
                "disabled" if one["disabled"] else "locked" if one["locked_until_ms"] else "",
            )
            for one in found
        ],
    )
