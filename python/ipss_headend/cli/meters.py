"""`ipss-headend meters`: the registry. Keys go in; they come out on one explicit wish only."""

import csv
import io
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, app, command
from ipss_headend.cli.output import Output, say
from ipss_headend.cli.simulate import write_private
from ipss_headend.errors import DONE, ConfigError, RequestError, words
from ipss_headend.field import fleet_file, shipment
from ipss_headend.field.fleet import PLACE_COLUMNS, export_meters, import_read, load_fleet, place_meters
from ipss_headend.field.fleet_file import Protocol
from ipss_headend.network import NOWHERE, Place
from ipss_headend.security import transport
from ipss_headend.security.keystore import Keystore
from ipss_headend.store import counters, network, registry
from ipss_headend.store.registry import Meter

meters = typer.Typer(name="meters", help="The registry of meters.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(meters)

Groups = Annotated[list[str] | None, typer.Option("--group", help="Only this group; may be given more than once.")]


@command(meters, "import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV, a meter a line; or a manufacturer's shipment file, XML or CSV.")],
    *,
    transport_key: Annotated[
        str, typer.Option("--transport-key", metavar="NAME", help="Keys in the file are wrapped under this one.")
    ] = "",
    strict: Annotated[bool, typer.Option("--strict", help="Take no line unless all are good.")] = False,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> int:
    r"""Put the meters of a CSV file into the registry, their keys wrapped.

    Each line is taken or refused in words, with its number: duplicates, keys that are all zero or well known, names and
    addresses that are taken. A running head-end reads new meters after its next start.

    A shipment file's keys are wrapped under a transport key, which `keys transport add` took before.

    Columns: name, address (needed); system_title, encryption_key, authentication_key, master_key, password, client,
    server, auth, suite, protection, dedicated, invocation_counter, model, group; node and phases, its place in the
    network.

    \b
    Examples:
      ipss-headend meters import fleet.csv
      ipss-headend meters import shipment-2026-11.xml --transport-key acme-2026
      ipss-headend meters import fleet.csv --strict --json --config /etc/ipss-headend/head_end.toml
    """
    loaded = places.load_config(config)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {words(error)}; expected a CSV file") from error
    with places.open_store(loaded, create=True) as database, database.writing() as connection:
        keystore = Keystore.open(connection, loaded.keystore)
        under = transport.key_named(connection, keystore, transport_key) if transport_key else None
        report = import_read(
            connection,
            keystore,
            shipment.read(text, file.name, under),
            file.name,
            strict=strict,
            client_system_title=loaded.client_system_title,
        )
    for mistake in report.mistakes:
        say(mistake)
    output = Output(json_output=json_output)
    if json_output:
        output.document({"imported": report.imported, "refused": len(report.mistakes), "mistakes": report.mistakes})
    else:
        output.line(f"{report.imported} meters imported, {len(report.mistakes)} lines refused")
    return report.exit_status


@command(meters, "list")
def list_(*, group: Groups = None, config: places.CONFIG = places.DEFAULT_CONFIG, json_output: JSON = False) -> None:
    r"""List the meters, without any secret.

    \b
    Examples:
      ipss-headend meters list
      ipss-headend meters list --group household --json
    """
    loaded = places.load_config(config)
    with places.open_store(loaded) as database, database.reading() as connection:
        found = registry.all_meters(connection, group or ())
        standing = network.places(connection)
    output = Output(json_output=json_output)
    if json_output:
        output.document({"meters": [document(meter, standing.get(meter.meter_id, NOWHERE)) for meter in found]})
        return
    output.table(
        ("name", "address", "system title", "auth", "protection", "model", "group", "node", "phases"),
        [
            (
                meter.name,
                address(meter) or "dials in",
                (meter.system_title or b"").hex(),
                meter.protocol.get("auth"),
                meter.protocol.get("protection"),
                meter.model,
                meter.group,
                *standing.get(meter.meter_id, NOWHERE),
            )
            for meter in found
        ],
    )
    say(f"{len(found)} meters")


@command(meters, "show")
def show(
    name: Annotated[str, typer.Argument(help="The meter's name.")],
    *,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Show one meter, without any secret.

    \b
    Example:
      ipss-headend meters show virtual-00001
    """
    loaded = places.load_config(config)
    with places.open_store(loaded) as database, database.reading() as connection:
        meter = registry.meter_named(connection, name)
        granted = counters.granted_until(connection, [meter.meter_id]).get(meter.meter_id)
        believed = counters.peer_high_water(connection, [meter.meter_id]).get(meter.meter_id)
        known = network.load(connection)
    shown = {
        **document(meter, known.place(name)),
        "path": known.path_of(name),
        "next_invocation_counter": granted,
        "meter_invocation_counter": believed,
        "counter_alarm": (granted or 0) >= counters.ALARM,
    }
    output = Output(json_output=json_output)
    if json_output:
        output.document(shown)
        return
    output.table(("property", "value"), [(key.replace("_", " "), _plain(value)) for key, value in shown.items()])


@command(meters, "place")
def place(
    name: Annotated[str, typer.Argument(help="The meter's name; left out with --file.")] = "",
    node: Annotated[str, typer.Argument(help="The node that it stands at; left out: nowhere.")] = "",
    *,
    phases: Annotated[str, typer.Option("--phases", help="A, BN, ABC, ABCN, ...")] = "",
    file: Annotated[Path | None, typer.Option("--file", help="CSV with the columns name, node, phases.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Take no line unless all are good.")] = False,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> int:
    r"""Say where meters stand in the network: at which node, on which phases.

    A running head-end knows it within seconds.

    \b
    Examples:
      ipss-headend meters place virtual-00001 T-17 --phases A
      ipss-headend meters place --file places.csv
    """
    if bool(name) == bool(file):
        raise RequestError("name one meter and its node, or a --file of many")
    loaded = places.load_config(config)
    rows: Iterable[tuple[int, dict[str, str] | str]] = [(1, {"name": name, "node": node, "phases": phases})]
    where = "meters place: "
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: {words(error)}; expected a CSV file") from error
        rows = fleet_file.rows(io.StringIO(text), file.name, PLACE_COLUMNS, PLACE_COLUMNS[:2])
        where = f"{file.name}: line "
    with places.open_store(loaded) as database, database.writing() as connection:
        report = place_meters(connection, rows, where, strict=strict)
    for mistake in report.mistakes:
        say(mistake)
    output = Output(json_output=json_output)
    if json_output:
        output.document({"placed": report.imported, "refused": len(report.mistakes), "mistakes": report.mistakes})
    else:
        output.line(f"{report.imported} meters placed, {len(report.mistakes)} lines refused")
    return report.exit_status


@command(meters, "export")
def export(
    file: Annotated[Path | None, typer.Argument(help="Where to write; standard output if left out.")] = None,
    *,
    group: Groups = None,
    with_keys: Annotated[bool, typer.Option("--with-keys", help="Write the keys too, in the clear; asks.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before writing keys.")] = False,
    config: places.CONFIG = places.DEFAULT_CONFIG,
) -> int:
    r"""Write the registry as CSV, as `meters import` takes it; without secrets unless they are asked for.

    \b
    Examples:
      ipss-headend meters export fleet.csv
      ipss-headend meters export with_keys.csv --with-keys
    """
    loaded = places.load_config(config)
    if with_keys:
        if file is None:
            raise RequestError("--with-keys needs a FILE: keys are not written to a terminal or a pipe")
        if not yes:
            if not sys.stdin.isatty():
                raise RequestError("--with-keys asks first, and nobody is here to answer; add --yes")
            typer.confirm(f"Write the keys of all chosen meters in the clear to {file}?", abort=True, err=True)
    text = io.StringIO(newline="")
    with places.open_store(loaded) as database:
        if with_keys:
            with database.writing() as connection:
                count = _export_keys(connection, Keystore.open(connection, loaded.keystore), text, group or ())
        else:
            with database.reading() as connection:
                count = export_meters(connection, text, group or ())
    if file is None:
        sys.stdout.write(text.getvalue())
        sys.stdout.flush()
    else:
        write_private(file, text.getvalue())
    say(f"{count} meters" + ("" if file is None else f" written to {file}"))
    return DONE


def _export_keys(connection: Any, keystore: Keystore, text: io.StringIO, groups: list[str] | tuple[()]) -> int:
    found = load_fleet(connection, keystore, groups)
    granted = counters.granted_until(connection, [meter.meter_id for meter in found])
    standing = network.places(connection)
    writer = csv.DictWriter(text, fleet_file.COLUMNS, lineterminator="\n")
    writer.writeheader()
    for meter in found:
        protocol = meter.protocol
        writer.writerow(
            {
                "name": meter.name,
                "address": meter.written_address,
                "system_title": (meter.system_title or b"").hex(),
                "logical_device_name": fleet_file.shown_device_name(meter.logical_device_name),
                "encryption_key": (meter.keys.encryption_key or b"").hex(),
                "authentication_key": (meter.keys.authentication_key or b"").hex(),
                "master_key": (meter.keys.master_key or b"").hex(),
                "password": (meter.keys.password or b"").decode(),
                "private_key": (meter.keys.private_key or b"").hex(),
                "peer_public_key": (meter.keys.peer_public_key or b"").hex(),
                "client": protocol.client,
                "server": meter.server,
                "auth": protocol.auth,
                "suite": protocol.suite,
                "protection": protocol.protection,
                "dedicated": "yes" if protocol.dedicated else "no",
                "transport": protocol.transport,
                "physical": protocol.physical,
                "in_flight": protocol.in_flight,
                "gateway": protocol.gateway,
                "referencing": protocol.referencing,
                "model": meter.model,
                "group": meter.group,
                **standing.get(meter.meter_id, NOWHERE)._asdict(),
                "invocation_counter": granted.get(meter.meter_id, counters.FIRST),
            }
        )
    return len(found)


def address(meter: Meter) -> str:
    """As the fleet's file has it; empty for a meter that dials in."""
    return fleet_file.written_address(meter.host, meter.port, meter.server, Protocol(**meter.protocol))  # type: ignore[arg-type]


def document(meter: Meter, place: Place) -> dict[str, Any]:
    """A meter as JSON answers carry it. No secret is in it."""
    return {
        "name": meter.name,
        "address": address(meter) or None,
        "server": meter.server,
        "system_title": None if meter.system_title is None else meter.system_title.hex(),
        "logical_device_name": fleet_file.shown_device_name(meter.logical_device_name) or None,
        "model": meter.model,
        "group": meter.group,
        "node": place.node or None,
        "phases": place.phases or None,
        **dict(meter.protocol),
    }


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " < ".join(map(str, value))
    return "" if value is None else str(value)
