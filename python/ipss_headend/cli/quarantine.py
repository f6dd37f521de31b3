"""`ipss-headend meters quarantine` and `adopt`: senders of pushes that nobody knows, and how they become meters."""

import csv
import io
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Connection

from ipss_headend.cli import key_file, places
from ipss_headend.cli.app import JSON, command
from ipss_headend.cli.meters import meters
from ipss_headend.cli.output import Output, say
from ipss_headend.cli.rpc import ERRORS
from ipss_headend.client import CallFailed, Client
from ipss_headend.config import Config, system_title
from ipss_headend.errors import DONE, PARTLY_DONE, ConfigError, HeadEndError, RequestError, UnknownMeter
from ipss_headend.field.fleet import ImportReport, import_meters
from ipss_headend.field.fleet_file import COLUMNS
from ipss_headend.security.keystore import Keystore
from ipss_headend.store import quarantine
from ipss_headend.store.quarantine import KeptPush, Sender

Title = Annotated[str, typer.Argument(metavar="TITLE", help="The sender's system title, 16 hexadecimal digits.")]


@command(meters, "quarantine")
def quarantined(
    *,
    forget: Annotated[
        list[str] | None, typer.Option(metavar="TITLE", help="Drop this sender and what is kept of it.")
    ] = None,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> int:
    r"""List who pushed and is in no registry, by the system title that it gave itself. Nothing of it is verified.

    Kept are the newest 8 pushes of at most 1000 senders, for 30 days after the latest.

    \b
    Examples:
      ipss-headend meters quarantine
      ipss-headend meters quarantine --json
      ipss-headend meters quarantine --forget 4d4d4d0000bc614e
    """
    loaded = places.load_config(config)
    with places.open_store(loaded) as database:
        if forget:
            with database.writing() as connection:
                for title in map(_title, forget):
                    _forget(connection, title)
        with database.reading() as connection:
            senders = quarantine.senders(connection)
            pushes = quarantine.pushes_of(connection, [sender.system_title for sender in senders])
    output = Output(json_output=json_output)
    if json_output:
        output.document({"senders": [_document(sender, pushes) for sender in senders]})
        return DONE
    output.table(
        ("system title", "from", "first", "last", "pushes", "kept"),
        [
            (
                sender.system_title.hex(),
                sender.address,
                _time(sender.first_us),
                _time(sender.last_us),
                sender.pushes,
                sender.kept,
            )
            for sender in senders
        ],
    )
    say(f"{len(senders)} senders")
    return DONE


@command(meters, "adopt")
def adopt(
    title: Title,
    *,
    name: Annotated[str, typer.Option(help="What the meter is to be called.")],
    keys: Annotated[
        Path | None, typer.Option(metavar="KEYS.toml", help="Its keys, in the file that `read` and `decode` take.")
    ] = None,
    model: Annotated[str, typer.Option(help="Its model: names the companion profile that explains its pushes.")] = "",
    group: Annotated[str, typer.Option(help="Its group.")] = "",
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=VALUE", help="Any other column of the fleet file; may be given more than once."),
    ] = None,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> int:
    r"""Make a sender of the quarantine a meter: its kept pushes are opened, and stored if they verify.

    A running head-end takes it up at once; without one it is in the registry, and its pushes are opened when the
    head-end starts. `client` and `server` are those of its latest push unless they are given.

    \b
    Examples:
      ipss-headend meters adopt 4d4d4d0000bc614e --name meter-7 --keys keys.toml
      ipss-headend meters adopt 4d4d4d0000bc614e --name m7 --keys keys.toml --model kaifa --column address=10.0.0.7:4059
    """
    loaded = places.load_config(config)
    octets = _title(title)
    given = {**_keys(octets, keys), **_columns(column or ()), "name": name}
    given |= {key: value for key, value in (("model", model), ("group", group)) if value}
    running = _running(loaded)
    output = Output(json_output=json_output)
    if running is None:
        report, kept = _import(loaded, octets, given)
        for mistake in report.mistakes:
            say(mistake)
        if json_output:
            output.document({"name": name, "adopted": bool(report.imported), "waiting": kept})
        elif report.imported:
            output.line(f"{name} is a meter; {kept} pushes are opened when the head-end starts")
        return report.exit_status
    try:
        with running as client:
            found = client.call("device.adopt", system_title=octets.hex(), columns=given, key=str(uuid.uuid4()))
    except CallFailed as error:
        raise ERRORS.get(error.code, RequestError)(str(error)) from error
    if json_output:
        output.document({"name": name, "adopted": True, "stored": found["stored"], "refused": found["refused"]})
    else:
        output.line(f"{name} is a meter; {found['stored']} pushes stored, {len(found['refused'])} refused")
        for why in found["refused"]:
            say(why)
    return PARTLY_DONE if found["refused"] else DONE


def _running(config: Config) -> Client | None:
    """The head-end of this configuration, if it runs here and answers."""
    path = config.rpc.socket
    if path is None or not path.is_socket():
        return None
    client = Client(f"unix:{path}", name="ipss-headend meters adopt")
    try:
        client.call("rpc.ping")
    except HeadEndError:
        client.close()
        return None
    return client


def _import(config: Config, title: bytes, given: dict[str, str]) -> tuple[ImportReport, int]:
    from ipss_headend import _core
    from ipss_headend.field.quarantine import adoption_columns

    with places.open_store(config) as database, database.writing() as connection:
        pushes = quarantine.pushes_of(connection, [title])
        if not pushes:
            raise UnknownMeter(f"{title.hex()} has no pushes in quarantine; `meters quarantine` shows who has")
        columns = adoption_columns(_core, pushes[-1], given)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerow(columns)
        report = import_meters(
            connection,
            Keystore.open(connection, config.keystore),
            io.StringIO(text.getvalue()),
            "columns",
            strict=True,
            client_system_title=config.client_system_title,
        )
    return report, len(pushes)


def _keys(title: bytes, path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    loaded = key_file.load(path)
    found = loaded.of(title.hex()) if title.hex() in loaded.tables else dict(loaded.common)
    known = {name: value for name, value in found.items() if name in COLUMNS}
    if not known:
        raise ConfigError(
            f"{path}: no keys for {title.hex()}; write a table [{title.hex()}] with encryption_key and others"
        )
    return known


def _columns(given: tuple[str, ...] | list[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in COLUMNS:
            raise RequestError(f'--column "{text[:24]}": expected COLUMN=VALUE with one of {", ".join(COLUMNS)}')
        found[name] = value
    return found


def _forget(connection: Connection, title: bytes) -> None:
    if not quarantine.forget(connection, title):
        raise UnknownMeter(f"{title.hex()} is not in quarantine; `meters quarantine` shows who is")


def _title(text: str) -> bytes:
    try:
        return system_title(text)
    except ValueError as error:
        raise RequestError(f"TITLE: {error}") from None


def _document(sender: Sender, pushes: list[KeptPush]) -> dict[str, object]:
    return {
        "system_title": sender.system_title.hex(),
        "address": sender.address,
        "first": _time(sender.first_us),
        "last": _time(sender.last_us),
        "pushes": sender.pushes,
        "kept": [push.wpdu.hex() for push in pushes if push.system_title == sender.system_title],
    }


def _time(moment_us: int) -> str:
    return datetime.fromtimestamp(moment_us / 1e6, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
