"""`ipss-headend store`: which form the store has, and the way to another one."""

from typing import Annotated

import typer
from sqlalchemy import Connection

from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, app, command
from ipss_headend.cli.output import Output
from ipss_headend.cli.values import time_text
from ipss_headend.config import Config
from ipss_headend.errors import ConfigError, RequestError
from ipss_headend.store import formats, partitions, readings, scrub
from ipss_headend.store.database import Database, form_at
from ipss_headend.store.schema import SCHEMA_VERSION
from ipss_headend.store.sqlite import free_octets
from ipss_headend.store.statements import is_postgresql

SHOWN = 20
"""Damaged records that `store status` names; `damaged_records` counts all."""

store = typer.Typer(
    name="store",
    help="The store: its state, old months, backups, its form.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(store)


@command(store, "status")
def status(*, config: places.CONFIG = places.DEFAULT_CONFIG, json_output: JSON = False) -> None:
    r"""Show which form the store has, which one this program writes, and what is damaged; changes nothing.

    \b
    Example:
      ipss-headend store status
    """
    loaded = places.load_config(config)
    form = _form(loaded)
    shown: dict[str, object] = {"store": loaded.database.name, "form": form, "program": SCHEMA_VERSION}
    if form == SCHEMA_VERSION:
        with places.open_store(loaded) as database, database.reading() as connection:
            shown |= {"lines": readings.line_count(connection), "octets": database.octets()}
            if is_postgresql(connection):
                shown["months"] = [str(month) for month in partitions.existing(connection)]
                shown["lines_of_no_month"] = partitions.default_lines(connection)
            else:
                shown["octets_free_within"] = free_octets(connection)
            shown |= _looked_through(connection)
    output = Output(json_output=json_output)
    if json_output:
        output.document(shown)
    else:
        damaged = shown.pop("damaged", [])
        assert isinstance(damaged, list)
        for name, value in shown.items():
            said = f"{value[0]} to {value[-1]}" if isinstance(value, list) and value else value
            output.line(f"{name.replace('_', ' ')}: {'never' if said is None else said}")
        for one in damaged:
            output.line(f"damaged, found {one['found']}: {one['detail']}")


@command(store, "upgrade")
def upgrade(*, config: places.CONFIG = places.DEFAULT_CONFIG, json_output: JSON = False) -> None:
    r"""Bring the store to the form of this program, in one transaction. The head-end must be stopped.

    `serve` does the same when it starts.

    \b
    Example:
      ipss-headend store upgrade
    """
    loaded = places.load_config(config)
    before = _form(loaded)
    with Database(loaded.database.address, own=True, reserve_bytes=0):
        pass
    _told(before, SCHEMA_VERSION, json_output=json_output)


@command(store, "downgrade")
def downgrade(
    *,
    to: Annotated[int, typer.Option("--to", help="The form that the older program writes: its `store status`.")],
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Bring the store back to an older form, in one transaction, for an older program. The head-end must be stopped.

    Readings, counters, commands and the audit trail stay. Then start the older program: this one would go forward.

    \b
    Example:
      ipss-headend store downgrade --to 7
    """
    loaded = places.load_config(config)
    before = _form(loaded)
    if before < to:
        raise RequestError(f"--to {to}: the store has form {before}, which is older")
    with (
        Database(loaded.database.address, own=True, reserve_bytes=0, upgrade=False) as database,
        database.writing(spend_reserve=True) as connection,
    ):
        formats.change(connection, to)
    _told(before, to, json_output=json_output)


def _looked_through(connection: Connection) -> dict[str, object]:
    """How far the head-end has looked for damage by itself, and what it found."""
    state = scrub.state(connection)
    known = scrub.damage(connection)
    return {
        "looked_through": time_text(state.ended_us) if state.ended_us else None,
        "looked_through_records": state.ended_records,
        "damaged_records": len(known) + state.beyond,
        "damaged": [{"found": time_text(one.found_us), "detail": one.detail} for one in known[:SHOWN]],
    }


def _form(loaded: Config) -> int:
    form = form_at(loaded.database.address)
    if form is None:
        raise ConfigError(f"{loaded.database.name}: no store yet; `ipss-headend serve` makes it")
    return form


def _told(before: int, after: int, *, json_output: bool) -> None:
    output = Output(json_output=json_output)
    if json_output:
        output.document({"before": before, "after": after})
    else:
        output.line(f"the store had form {before} and has form {after}")
