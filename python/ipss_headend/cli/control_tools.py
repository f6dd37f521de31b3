"""What the commands of `ipss-headend control` share: who signs, which meters and orders are meant, what is shown."""

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from ipss_headend.cli.output import Output
from ipss_headend.cli.rpc import ERRORS
from ipss_headend.client import CallFailed, Client
from ipss_headend.config import Config
from ipss_headend.errors import ConfigError, RequestError
from ipss_headend.field.control import orders
from ipss_headend.field.control.desk import Preview
from ipss_headend.field.control.machine import State
from ipss_headend.field.control.orders import Order
from ipss_headend.schedule import duration_s
from ipss_headend.security import principals
from ipss_headend.security.principals import Signer
from ipss_headend.store import commands as rows
from ipss_headend.store import registry
from ipss_headend.store.database import Database
from ipss_headend.store.registry import Meter


def signer_of(config: Config, key: Path | None) -> Signer:
    """Whose private key it is.

    Raises:
        HeadEndError: no key, or nobody's.
    """
    if key is None:
        raise RequestError("who are you? name your private key with --key, or in IPSS_HEADEND_KEY")
    passphrase = os.environ.get("IPSS_HEADEND_PASSPHRASE_FILE")
    loaded = principals.load_key_file(key, passphrase_of(Path(passphrase) if passphrase else None))
    return principals.signer(config.principals, loaded)


def passphrase_of(path: Path | None) -> str | None:
    """What stands in a passphrase file."""
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; expected a passphrase") from error


def meters_of(connection: Connection, targets: Sequence[str]) -> list[Meter]:
    """The meters that these words name, each once."""
    everybody = registry.all_meters(connection)
    named = {meter.name: meter for meter in everybody}
    found: dict[int, Meter] = {}
    for word in targets:
        if word.startswith("group:"):
            members = [meter for meter in everybody if meter.group == word.removeprefix("group:")]
            if not members:
                raise RequestError(f'no meter is in the group "{word.removeprefix("group:")}"')
            names = [meter.name for meter in members]
        elif word.startswith("@"):
            try:
                names = [line.strip() for line in Path(word[1:]).read_text(encoding="utf-8").splitlines()]
            except OSError as error:
                raise ConfigError(f"{word[1:]}: {error.strerror or error}; expected a file of names") from error
        else:
            names = [word]
        for name in filter(None, names):
            meter = named.get(name) or registry.meter_named(connection, name)
            found[meter.meter_id] = meter
    return list(found.values())


def order_of(database: Database, text: str) -> tuple[bytes, Order]:
    """An order by its number or the beginning of it."""
    wanted = text.replace("-", "").lower()
    with database.reading() as connection:
        hits = [row for row in rows.newest_orders(connection, 10_000) if row.order_id.hex().startswith(wanted)]
    if len(hits) != 1 or not wanted:
        raise RequestError(f'"{text}" is the number of {"more than one order" if hits else "no order"}')
    return hits[0].order_id, Order.decode(hits[0].octets)


def drafted(config: Config, method: str, **params: Any) -> Order:
    """An order that the running head-end makes, as it has to ask the devices: checked by who signs it.

    Raises:
        HeadEndError: no head-end runs, or it cannot make it.
    """
    if config.rpc.socket is None:
        raise ConfigError("[rpc] has no socket; orders for inverters and storage are made by a running head-end")
    try:
        with Client(f"unix:{config.rpc.socket}", name="ipss-headend control") as client:
            return Order.decode(bytes.fromhex(client.call(method, **params)["octets"]))
    except CallFailed as error:
        raise ERRORS.get(error.code, RequestError)(str(error)) from error


def known_order(database: Database, made: Order) -> Order | None:
    """The order that has this number already, if it asks for the same."""
    with database.reading() as connection:
        row = rows.order_of(connection, made.order_id)
    if row is None:
        return None
    known = Order.decode(row.octets)
    same = (known.kind, known.effect, known.expected, known.reason, known.requester, known.targets) == (
        made.kind,
        made.effect,
        made.expected,
        made.reason,
        made.requester,
        made.targets,
    )
    # Another order under this number goes to the desk, which refuses it and writes that down.
    return known if same else None


def order_shown(connection: Connection, row: rows.OrderRow, *, whole: bool) -> dict[str, Any]:
    """An order as it is listed; `whole`: with its commands."""
    made = Order.decode(row.octets)
    found = rows.commands_of(connection, row.order_id)
    shown: dict[str, Any] = {
        "order": orders.shown(row.order_id),
        "kind": row.kind,
        "requester": row.requester,
        "meters": row.targets,
        "reason": made.reason,
        "not_after_us": row.not_after_us,
        "quarantined": sum(one.quarantined for one in found),
        "states": {state.value: count for state in State if (count := sum(one.state == state for one in found))},
    }
    if whole:
        names = rows.groups_of(connection, [one.meter_id for one in found])
        shown["commands"] = [
            {
                "command": orders.shown(one.command_id),
                "meter": names.get(one.meter_id, (f"#{one.meter_id}",))[0],
                "state": one.state,
                "alarmed": bool(one.alarmed),
                "detail": one.detail,
            }
            for one in found
        ]
    return shown


def preview_shown(preview: Preview) -> dict[str, Any]:
    """What an order would do, as it is told."""
    return {
        "kind": preview.kind,
        "effect": preview.effect,
        "expected": preview.expected,
        "meters": preview.meters,
        "groups": preview.groups,
        "protected": list(preview.protected),
        "over_budget": preview.over_budget,
        "approvers_needed": preview.approvers,
        "spread_s": preview.spread_s,
        "rings": list(preview.rings),
        "not_after_us": preview.not_after_us,
    }


def life_s_of(text: str, config: Config) -> float:
    """How long an order may wait."""
    try:
        return duration_s(text) if text else config.control.not_after_s
    except ValueError as error:
        raise RequestError(f"--not-after: {error}") from None


def uuid_of(text: str) -> bytes:
    """The number of an order."""
    try:
        return uuid.UUID(text).bytes
    except ValueError:
        raise RequestError(f'--order: "{text}" is no UUID') from None


def account() -> str:
    """The account that runs this command, where no key is asked for."""
    return f"account {os.getuid()}"


def text_of(value: object) -> str:
    """A value as people read it."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {text_of(part)}" for name, part in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(text_of, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def show(json_output: bool, shown: dict[str, Any]) -> None:
    """Print what was found: JSON, or a line each."""
    output = Output(json_output=json_output)
    if json_output:
        output.document(shown)
        return
    for name, value in shown.items():
        output.line(f"{name.replace('_', ' ')}: {text_of(value)}")
