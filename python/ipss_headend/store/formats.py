"""Which form a store has, and the way from one to another (R46): Alembic, the same steps for both databases.

A step is a file in `migrations/versions`, numbered like the form that it leads to, with a way back that loses no
reading, no counter and no command. All steps of a change are one transaction: a process that dies in it has changed
nothing. `schema_info` says the form to programs too old to know Alembic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, insert, inspect, select, update

from ipss_headend.errors import RequestError, StoreError, StoreTooNew, StoreTooOld
from ipss_headend.store import partitions, statements
from ipss_headend.store.schema import SCHEMA_VERSION, alembic_version, metadata, schema_info

if TYPE_CHECKING:
    from alembic.config import Config

NEWEST = SCHEMA_VERSION
"""The form that this program writes."""

OLDEST = {"sqlite": 7, "postgresql": 8}
"""The form that a way back ends at."""

WAYS = ("ipss_headend:store/migrations",)


def prepare(connection: Connection, name: str, now_us: int, *, upgrade: bool) -> None:
    """Make a new store, or see that this program may use the one that is there.

    Raises:
        StoreTooNew: a newer head-end wrote it.
        StoreTooOld: an older one did, and it is not to be changed here.
    """
    version = form_of(connection)
    if version is None:
        _make(connection, now_us)
    elif version > NEWEST:
        raise StoreTooNew(
            f"{name}: written by a newer head-end (schema {version}, this one knows {NEWEST}); start that "
            f"version, or let it run `ipss-headend store downgrade --to {NEWEST}`"
        )
    elif version < NEWEST:
        if not upgrade:
            raise StoreTooOld(
                f"{name}: written by an older head-end (schema {version}, this one writes {NEWEST}); stop that "
                "one, then run `ipss-headend store upgrade` or start this one"
            )
        change(connection, NEWEST)


def form_of(connection: Connection) -> int | None:
    """The number of the store's form; None: there is no store yet."""
    if not inspect(connection).has_table("schema_info"):
        return None
    return connection.scalar(select(schema_info.c.schema_version))


def change(connection: Connection, to: int, *, newest: int | None = None) -> list[str]:
    """Bring the store to form `to`, up or down, in the caller's writing transaction. Returns the steps taken.

    Raises:
        RequestError: there is no way to that form.
    """
    oldest = OLDEST[connection.dialect.name]
    newest = NEWEST if newest is None else newest
    if not oldest <= to <= newest:
        raise RequestError(f"form {to}: this program knows the forms {oldest} to {newest} of such a store")
    version = form_of(connection)
    if version is None:
        raise StoreError("there is no store yet; `ipss-headend serve` makes it")
    from alembic import command

    if version <= OLDEST["sqlite"]:
        # Before form 8 nothing but tables was added; `0007` makes those that are missing.
        alembic_version.create(connection, checkfirst=True)
    steps: list[str] = []
    config = _config(connection, steps)
    (command.upgrade if to > version else command.downgrade)(config, f"{to:04}")
    connection.execute(update(schema_info).values(schema_version=to))
    return steps


def _make(connection: Connection, now_us: int) -> None:
    metadata.create_all(connection)
    connection.execute(insert(schema_info).values(schema_version=NEWEST, created_us=now_us))
    connection.execute(insert(alembic_version).values(version_num=f"{NEWEST:04}"))
    statements.make_numbers(connection)
    if statements.is_postgresql(connection):
        partitions.begin(connection, now_us)


def _config(connection: Connection, steps: list[str]) -> Config:
    from alembic.config import Config

    def applied(*, step: Any, **_: Any) -> None:
        steps.append(str(step))

    config = Config()
    config.set_main_option("script_location", WAYS[0])
    config.attributes.update(connection=connection, applied=applied)
    if len(WAYS) > 1:
        config.set_main_option("path_separator", "newline")
        config.set_main_option("version_locations", "\n".join([f"{WAYS[0]}/versions", *WAYS[1:]]))
    return config
