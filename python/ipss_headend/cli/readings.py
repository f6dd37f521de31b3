"""`ipss-headend readings`: what is stored, as a table, JSON, CSV, Parquet or Arrow."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import Connection

from ipss_headend import _core
from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, app, command
from ipss_headend.cli.output import Output, say
from ipss_headend.cli.values import for_people, parse_moment, shown
from ipss_headend.errors import DONE, PARTLY_DONE, ConfigError, RequestError, UnknownLogicalName
from ipss_headend.names import logical_name
from ipss_headend.store import archive as archives
from ipss_headend.store import registry
from ipss_headend.store.database import now_us
from ipss_headend.store.export import Form, Selection, ValueRow, export, time_text, values
from ipss_headend.store.readings import latest
from ipss_headend.store.registry import Layout, Meter

readings = typer.Typer(name="readings", help="Stored readings.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(readings)

LARGEST_TABLE = 100_000
"""Values of one query; more are for `readings export`, which streams."""

Archive = Annotated[
    Path | None, typer.Option("--archive", metavar="FILE", help="Of an archive that `store retire` made.")
]
From = Annotated[str | None, typer.Option("--from", metavar="T", help="First capture time.")]
To = Annotated[str | None, typer.Option("--to", metavar="T", help="Capture times before this one.")]


class Format(StrEnum):
    """What an export is written as."""

    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"


@command(readings, "query")
def query(
    meter: Annotated[str, typer.Argument(help="The meter's name.")],
    objects: Annotated[
        list[str] | None, typer.Argument(metavar="[OBJECT]...", help="Logical names; all if none.")
    ] = None,
    *,
    from_: From = None,
    to: To = None,
    last: Annotated[int | None, typer.Option(min=1, metavar="N", help="The newest N values of each object.")] = None,
    archive: Archive = None,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> int:
    r"""Show stored readings of one meter, oldest first; the latest of each object if no time is given.

    Times are ISO 8601, in UTC where they have no offset, or a while ago, such as 2d.

    \b
    Examples:
      ipss-headend readings query virtual-00001
      ipss-headend readings query virtual-00001 1.0.1.8.0.255 --last 10
      ipss-headend readings query virtual-00001 1.0.99.1.0.255 --from 1d --json
      ipss-headend readings query virtual-00001 --archive data/archive/readings-2023-12.sqlite --last 10
    """
    damages: list[str] = []
    with _opened(archive, config) as connection:
        selection = select(connection, [registry.meter_named(connection, meter)], objects or (), from_, to)
        found = _rows(connection, selection, last, damages, latest_only=not (from_ or to or last))
    for damage in damages:
        say(damage)
    output = Output(json_output=json_output)
    if json_output:
        output.document({"meter": meter, "readings": [document(row) for row in found], "damaged": len(damages)})
    else:
        output.table(
            ("captured (UTC)", "object", "logical name", "name", "value", "unit", "quality"),
            [
                (
                    time_text(row.capture_time_us),
                    row.object,
                    row.logical_name,
                    row.name,
                    row.value if row.raw is None else _explained(row.raw),
                    row.unit,
                    row.quality,
                )
                for row in found
            ],
            right=("value",),
        )
        say(f"{len(found)} values")
    return PARTLY_DONE if damages else DONE


@command(readings, "export")
def export_(
    file: Annotated[Path | None, typer.Argument(help="Where to write; standard output if left out.")] = None,
    *,
    form: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.CSV,
    meter: Annotated[list[str] | None, typer.Option(help="Only this meter; may be given more than once.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="Only this group; may be given more than once.")] = None,
    objects: Annotated[
        list[str] | None, typer.Option("--object", help="Only this object; may be given more than once.")
    ] = None,
    from_: From = None,
    to: To = None,
    archive: Archive = None,
    config: places.CONFIG = places.DEFAULT_CONFIG,
) -> int:
    r"""Write stored readings, a row a value, for other tools. Memory does not grow with their number.

    \b
    Examples:
      ipss-headend readings export readings.csv
      ipss-headend readings export --format parquet readings.parquet --group household --from 7d
      ipss-headend readings export --format arrow --object 1.0.1.8.0.255 > readings.arrow
      ipss-headend readings export --archive data/archive/readings-2023-12.sqlite december.csv
    """
    if file is None and form is not Format.CSV and sys.stdout.isatty():
        raise RequestError(f"{form} is binary and standard output a terminal; name a FILE")
    damages: list[str] = []
    with _opened(archive, config) as connection:
        if meter:
            chosen = [registry.meter_named(connection, name) for name in meter]
        else:
            chosen = registry.all_meters(connection, group or ())
        selection = select(connection, chosen, objects or (), from_, to)
        count = _write(connection, selection, file, form, damages)
    for damage in damages[:10]:
        say(damage)
    say(f"{count} values" + ("" if file is None else f" written to {file}"))
    return PARTLY_DONE if damages else DONE


def select(
    connection: Connection, meters: Sequence[Meter], objects: Sequence[str], from_: str | None, to: str | None
) -> Selection:
    """What the operator named. An object is a register, a profile, or a column of profiles.

    Raises:
        UnknownLogicalName: nothing of an object is stored.
    """
    moment_us = now_us()
    names = [logical_name(text) for text in objects]
    layouts: dict[int, Layout] = {} if names else _stored(registry.all_layouts(connection))
    columns: set[str] = set()
    for name in names:
        found = _stored(registry.layouts_with(connection, name))
        if not found:
            raise UnknownLogicalName(f"{name}: nothing is stored of it; no plan reads it, or none has yet")
        layouts |= found
        whole = [layout for layout in found.values() if layout.logical_name == name and len(layout.columns) > 1]
        columns |= {column.logical_name for layout in whole for column in layout.columns} or {name}
    return Selection(
        meters,
        layouts,
        None if from_ is None else parse_moment(from_, moment_us),
        None if to is None else parse_moment(to, moment_us),
        frozenset(columns),
    )


@contextlib.contextmanager
def _opened(archive: Path | None, config: Path) -> Iterator[Connection]:
    if archive is not None:
        with archives.reading(archive) as connection:
            yield connection
        return
    with places.open_store(places.load_config(config)) as database, database.reading() as connection:
        yield connection


def document(row: ValueRow) -> dict[str, Any]:
    """A value as JSON answers carry it. Its reading type is IEC 61968-9's, null where the catalogue has none."""
    raw = None
    if row.raw is not None:
        raw = _decoded(row.raw)
    direction, reading_type = _catalogued(row.logical_name)
    return {
        "object": f"{row.class_id}/{row.logical_name}:{row.attribute}",
        "read_from": row.object,
        "name": row.name,
        "direction": direction,
        "reading_type": reading_type,
        "capture_time": time_text(row.capture_time_us),
        "value": row.value if raw is None else shown(raw),
        "raw": raw,
        "mantissa": row.mantissa,
        "scaler": row.scaler,
        "unit": row.unit,
        "quality": row.quality,
        "clock_status": row.clock_status,
        "deviation_min": row.deviation_min,
        "received": time_text(row.received_us),
    }


@lru_cache(maxsize=4096)
def _catalogued(logical_name: str) -> tuple[str | None, str | None]:
    known = _core.catalogue(bytes(map(int, logical_name.split(".")))) or {}
    return known.get("direction"), known.get("reading_type")


def _stored(layouts: dict[int, Layout]) -> dict[int, Layout]:
    return {number: layout for number, layout in layouts.items() if layout.columns}


def _rows(
    connection: Connection, selection: Selection, last: int | None, damages: list[str], *, latest_only: bool
) -> list[ValueRow]:
    def damaged(damage: Exception) -> None:
        damages.append(str(damage))

    if latest_only:
        found: list[ValueRow] = []
        for number in selection.layouts:
            for meter in selection.meters:
                for line in latest(connection, [meter.meter_id], [number], damaged):
                    moment = line.capture_time_us
                    one = Selection(
                        [meter], {number: selection.layouts[number]}, moment, moment + 1, selection.logical_names
                    )
                    found += values(connection, one, damaged)
        return found
    if last is None:
        rows = list(islice(values(connection, selection, damaged), LARGEST_TABLE + 1))
        if len(rows) > LARGEST_TABLE:
            raise RequestError(f"more than {LARGEST_TABLE} values; narrow --from and --to, or use `readings export`")
        return rows
    by_column: dict[tuple[str, str, int], list[ValueRow]] = {}
    for row in values(connection, selection, damaged):
        kept = by_column.setdefault((row.object, row.logical_name, row.attribute), [])
        kept.append(row)
        if len(kept) > last:
            del kept[0]
    return [row for kept in by_column.values() for row in kept]


def _write(connection: Connection, selection: Selection, file: Path | None, form: Format, damages: list[str]) -> int:
    def damaged(damage: Exception) -> None:
        damages.append(str(damage))

    chosen: Form = form.value
    if file is None:
        return export(connection, selection, sys.stdout.buffer, chosen, damaged)
    temporary = file.with_name(f"{file.name}.{os.getpid()}.new")
    try:
        with temporary.open("wb") as stream:
            count = export(connection, selection, stream, chosen, damaged)
        temporary.replace(file)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return count


def _decoded(octets: bytes) -> list[Any]:
    from ipss_headend import _core

    try:
        return _core.decode_data(octets)
    except ValueError:
        return ["octet-string", octets.hex()]


def _explained(octets: bytes) -> str:
    return for_people(_decoded(octets))
