"""`ipss-headend store retire`, `verify` and `compact`: archives of old months, and what is there."""

import os
import pwd
import re
from pathlib import Path
from typing import Annotated

import typer

from ipss_headend import housekeeping
from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, command
from ipss_headend.cli.output import Output, say
from ipss_headend.cli.store import store
from ipss_headend.errors import DONE, FAULT, PARTLY_DONE, RequestError
from ipss_headend.store import archive, retention
from ipss_headend.store.database import Database
from ipss_headend.store.export import time_text
from ipss_headend.store.partitions import Month
from ipss_headend.store.readings import verify as verified
from ipss_headend.store.sqlite import free_octets, vacuum
from ipss_headend.store.statements import is_postgresql


@command(store, "retire")
def retire(
    *,
    before: Annotated[str, typer.Option("--before", help="The first month that stays, such as 2024-01.")],
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> int:
    r"""Take the readings of old months out of the store. It may be done beside the running head-end.

    SQLite: each month becomes an archive, a file in the directory of [retention] archive. It is whole, on the disk and
    read back before anything is deleted; whatever ends this command, run it again. Read archives with `readings query`
    and `readings export --archive FILE`. Lines that are damaged stay in the store, and the command ends with 8.

    PostgreSQL: each month's table stays, as retired_readings_YYYY_MM. Archive these with pg_dump, then drop them.

    [retention] months in the configuration has the head-end do it by itself.

    \b
    Examples:
      ipss-headend store retire --before 2024-01
      ipss-headend readings export --archive data/archive/readings-2023-12.sqlite december.csv
    """
    month = _month(before)
    loaded = places.load_config(config)
    output = Output(json_output=json_output)
    with places.open_store(loaded) as database:
        with database.reading() as connection:
            detaches = is_postgresql(connection)
        if detaches:
            with database.writing(spend_reserve=True) as connection:
                gone = housekeeping.detached(connection, month, _user())
            rows = [{"table": table, "lines": lines} for table, lines in gone]
            report = retention.Report()
        else:
            report = retention.run(
                database,
                retention.retire(
                    month,
                    loaded.retention.archive,
                    housekeeping.noted(_user()),
                    reserve_bytes=loaded.database.reserve_mib << 20,
                ),
            )
            rows = [
                {
                    "month": one.contents.month,
                    "archive": str(one.path),
                    "lines": one.contents.readings,
                    "deleted": one.deleted,
                    "digest": one.contents.digest,
                }
                for one in report.archives
            ]
    if json_output:
        output.document({"retired": rows, "damaged": report.damaged})
    else:
        for row in rows:
            output.line(f"{row.get('archive') or row['table']}: {row['lines']} lines")
    for damage in report.damaged:
        say(damage)
    say(f"{len(rows)} {'months were' if detaches else 'archives were'} retired")
    return PARTLY_DONE if report.damaged else DONE


@command(store, "verify")
def verify(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[ARCHIVE]", help="An archive of `store retire`; without: the store."),
    ] = None,
    *,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> int:
    r"""Read all readings and compare them with their checksums, the ledger and the database's own rules.

    Ends with 0, or with 1 and what is wrong. It may run beside the head-end.

    \b
    Examples:
      ipss-headend store verify
      ipss-headend store verify data/archive/readings-2023-12.sqlite
    """
    output = Output(json_output=json_output)
    if file is not None:
        contents = archive.check(file)
        shown: dict[str, object] = {
            "ok": True,
            "month": contents.month,
            "lines": contents.readings,
            "made": time_text(contents.made_us),
            "digest": contents.digest,
        }
        sound = True
    else:
        with places.open_store(places.load_config(config)) as database, database.reading() as connection:
            found = verified(connection)
        sound = found.sound
        shown = {
            "ok": sound,
            "lines": found.lines,
            "missing": found.missing,
            "damaged": list(found.damaged),
            "structure": list(found.structure),
        }
    if json_output:
        output.document(shown)
    else:
        for name, value in shown.items():
            for line in value if isinstance(value, list) else [value]:
                output.line(f"{name}: {line}")
    return DONE if sound else FAULT


@command(store, "compact")
def compact(*, config: places.CONFIG = places.DEFAULT_CONFIG, json_output: JSON = False) -> None:
    r"""Give the room that retired readings left in SQLite's file back to the disk. The head-end must be stopped.

    Seldom needed: what comes next is written into that room. The disk needs as much free room as the store then has.

    \b
    Example:
      ipss-headend store compact
    """
    loaded = places.load_config(config)
    if not isinstance(loaded.database.address, Path):
        raise RequestError("store compact: PostgreSQL does it by itself; a dropped table's room is free at once")
    with places.open_store(loaded):  # there is one
        pass
    with Database(loaded.database.address, own=True, reserve_bytes=0) as database:
        before = database.octets()
        with database.reading() as connection:
            empty = free_octets(connection)
        vacuum(database.path, before - empty)
        after = database.octets()
    output = Output(json_output=json_output)
    if json_output:
        output.document({"before": before, "after": after})
    else:
        output.line(f"the store had {before} octets and has {after}")


def _month(text: str) -> Month:
    found = re.fullmatch(r"(\d{4})-(\d{2})", text)
    if found is None or not 1 <= int(found[2]) <= 12 or int(found[1]) < 1:
        raise RequestError(f'--before: "{text}" is no month; write it like 2024-01')
    return Month(int(found[1]), int(found[2]))


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
