"""`ipss-headend control`: critical commands. Works on the store; the running server does what is approved."""

import os
import time
import uuid
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import Connection

from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, app, command
from ipss_headend.cli.output import Output, say
from ipss_headend.config import Config
from ipss_headend.errors import DONE, PARTLY_DONE, REFUSED, UNREACHABLE, ConfigError, NotAuthorised, RequestError
from ipss_headend.field.control import machine, orders
from ipss_headend.field.control.desk import Desk, Preview, transact
from ipss_headend.field.control.machine import State
from ipss_headend.field.control.orders import Order
from ipss_headend.field.control.task import touch
from ipss_headend.schedule import duration_s
from ipss_headend.security import principals
from ipss_headend.security.principals import Signer
from ipss_headend.store import commands as rows
from ipss_headend.store import registry
from ipss_headend.store.database import Database, now_us
from ipss_headend.store.registry import Meter

control = typer.Typer(
    name="control", help="Critical commands: switching supply.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(control)
protect = typer.Typer(name="protect", help="The never-disconnect list.", no_args_is_help=True, rich_markup_mode=None)
control.add_typer(protect)

KeyFile = Annotated[
    Path | None,
    typer.Option("--key", envvar="IPSS_HEADEND_KEY", help="Your own private key; says who you are."),
]
OrderId = Annotated[str, typer.Argument(metavar="ORDER", help="The order's number, or its beginning.")]
Targets = Annotated[list[str], typer.Argument(help="Meters by name, group:NAME, or @FILE with a name a line.")]


class To(StrEnum):
    """What supply is to be."""

    ON = "on"
    OFF = "off"
    ARM = "arm"


@command(control, "switch")
def switch(
    targets: Targets,
    *,
    to: Annotated[To, typer.Option("--to", help="off; on; arm: ready, the customer closes the switch.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; stands in the audit trail.")],
    not_after: Annotated[str, typer.Option("--not-after", help="How long it may wait, as 15min.")] = "",
    order: Annotated[
        str, typer.Option("--order", help="The order's number (UUID): the same again changes nothing.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
    key: KeyFile = None,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Ask for supply to be switched. Nothing happens before others approve it.

    Shows what it would do: meters by group, protected ones, what is over budget, how many people must approve.

    \b
    Examples:
      ipss-headend control switch meter-7 --to off --reason "unpaid since May" --key ada.key
      ipss-headend control switch group:district-3 --to on --reason "fault cleared" --dry-run
    """
    loaded, output = places.load_config(config), Output(json_output=json_output)
    desk = Desk(loaded.control, loaded.principals)
    signer = None if dry_run and key is None else _signer(loaded, key)
    with places.open_store(loaded) as database:
        with database.reading() as connection:
            meters = _targets(connection, targets)
        made = orders.switch(
            to.value,
            [(meter.meter_id, meter.system_title or b"") for meter in meters],
            reason=reason,
            requester=signer.principal.name if signer else "nobody",
            created_us=now_us(),
            life_s=_life_s(not_after, loaded),
            order_id=_uuid(order) if order else None,
        )
        with database.reading() as connection:
            preview = desk.preview(connection, made)
        if not dry_run:
            assert signer is not None
            signature = signer.sign("propose", 0, made.octets())
            known = _known(database, made)
            if known is None:
                transact(database, lambda connection: desk.propose(connection, made.octets(), signature))
    shown: dict[str, Any] = {"order": None if dry_run else orders.shown(made.order_id), **_shown(preview)}
    if json_output:
        output.document(shown)
        return
    for name, value in shown.items():
        output.line(f"{name.replace('_', ' ')}: {value}")
    if not dry_run:
        output.line(
            f"next, by {preview.approvers} other(s): ipss-headend control approve {shown['order']} --key THEIRS"
        )


@command(control, "approve")
def approve(
    order: OrderId, *, key: KeyFile = None, config: places.CONFIG = places.DEFAULT_CONFIG, json_output: JSON = False
) -> None:
    r"""Approve what somebody else asked for. With the last approval that it needs, the running server does it.

    \b
    Example:
      ipss-headend control approve 3f1c --key bob.key
    """
    loaded, output = places.load_config(config), Output(json_output=json_output)
    desk, signer = Desk(loaded.control, loaded.principals), _signer(loaded, key)
    with places.open_store(loaded) as database:
        number, made = _order(database, order)
        if not json_output:
            with database.reading() as connection:
                preview = _shown(desk.preview(connection, made))
            say(f"{made.kind} for {made.requester}, because: {made.reason}")
            say(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in preview.items()))
        approved = transact(database, lambda connection: desk.approve(connection, number, signer))
    if json_output:
        output.document(
            {
                "order": orders.shown(number),
                "approved_by": list(approved.approvers),
                "needed": approved.needed,
                "complete": approved.complete,
            }
        )
    else:
        state = "goes now" if approved.complete else "waits for another"
        output.line(f"{orders.shown(number)}: approved by {', '.join(approved.approvers)}; {state}")


@command(control, "release")
def release(
    order: OrderId, *, key: KeyFile = None, config: places.CONFIG = places.DEFAULT_CONFIG, json_output: JSON = False
) -> None:
    r"""End the quarantine of an order that was over budget, as a second person. The budget still holds.

    \b
    Example:
      ipss-headend control release 3f1c --key bob.key
    """
    loaded = places.load_config(config)
    desk, signer = Desk(loaded.control, loaded.principals), _signer(loaded, key)
    with places.open_store(loaded) as database:
        number, _ = _order(database, order)
        count = transact(database, lambda connection: desk.end_quarantine(connection, number, signer))
    _say(json_output, {"order": orders.shown(number), "commands": count})


@command(control, "cancel")
def cancel(order: OrderId, *, config: places.CONFIG = places.DEFAULT_CONFIG, json_output: JSON = False) -> None:
    r"""Take back what has not been sent of an order.

    \b
    Example:
      ipss-headend control cancel 3f1c
    """
    loaded = places.load_config(config)
    desk = Desk(loaded.control, loaded.principals)
    with places.open_store(loaded) as database:
        number, _ = _order(database, order)
        count = transact(database, lambda connection: desk.cancel(connection, number, _account()))
    _say(json_output, {"order": orders.shown(number), "cancelled": count})


@command(control, "stop")
def stop(
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why.")] = "",
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Set the stop switch: within a second no critical command leaves, also after a restart. Approvals become void.

    The same: create the stop file, or send the server SIGUSR1.

    \b
    Example:
      ipss-headend control stop --reason "wrong list"
    """
    loaded = places.load_config(config)
    touch(loaded.control.stop_file)  # first: it works at once, whatever the store does
    desk = Desk(loaded.control, loaded.principals)
    with places.open_store(loaded, create=True) as database:
        held = transact(database, lambda connection: desk.stop(connection, _account(), reason))
    _say(json_output, {"stopped": True, "held": held})


@command(control, "resume")
def resume(*, key: KeyFile = None, config: places.CONFIG = places.DEFAULT_CONFIG, json_output: JSON = False) -> None:
    r"""Take the stop switch back. What was held wants approving again.

    \b
    Example:
      ipss-headend control resume --key bob.key
    """
    loaded = places.load_config(config)
    desk, signer = Desk(loaded.control, loaded.principals), _signer(loaded, key)
    if not signer.principal.may_approve:
        raise NotAuthorised(f"{signer.principal.name} may not resume; who may approve commands may")
    with places.open_store(loaded) as database:
        # The row says stopped until the file is gone: whatever breaks between the two leaves it stopped.
        transact(database, lambda connection: desk.stop(connection, signer.principal.name, "before resuming"))
        loaded.control.stop_file.unlink(missing_ok=True)
        generation = transact(database, lambda connection: desk.resume(connection, signer))
    _say(json_output, {"stopped": False, "generation": generation})


@command(control, "status")
def status(*, config: places.CONFIG = places.DEFAULT_CONFIG, json_output: JSON = False) -> None:
    r"""Show the stop switch, the commands that are open, the budgets and how many meters are protected.

    \b
    Example:
      ipss-headend control status --json
    """
    loaded = places.load_config(config)
    desk = Desk(loaded.control, loaded.principals)
    with places.open_store(loaded) as database, database.reading() as connection:
        state, budget = rows.control(connection), desk.spent(connection)
        fleet = rows.fleet_size(connection)
        shown = {
            "stopped": state.stopped or loaded.control.stop_file.exists(),
            "generation": state.generation,
            "commands": rows.counts(connection, State),
            "budgets": {
                name: {
                    "spent_in_24h": pool.spent_today(state.budget_us),
                    "fleet_per_day": desk.limits(name, fleet).fleet_per_day,
                }
                for name, pool in budget.pools.items()
            },
            "protected": len(rows.protected_meters(connection)),
            "principals": [one.name for one in loaded.principals],
        }
    _say(json_output, shown)


@command(control, "list")
def list_(
    order: Annotated[str | None, typer.Argument(help="One order, with each of its commands.")] = None,
    *,
    last: Annotated[int, typer.Option("--last", help="How many orders.")] = 20,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""List the orders made last, or the commands of one.

    \b
    Examples:
      ipss-headend control list
      ipss-headend control list 3f1c --json
    """
    loaded, output = places.load_config(config), Output(json_output=json_output)
    with places.open_store(loaded) as database:
        found = [_order(database, order)[0]] if order is not None else None
        with database.reading() as connection:
            chosen = (
                [row for number in found if (row := rows.order_of(connection, number))]
                if found is not None
                else rows.newest_orders(connection, last)
            )
            listed = [_order_shown(connection, row, whole=found is not None) for row in chosen]
    if json_output:
        output.document({"orders": listed})
        return
    if found is not None:
        output.table(
            ("meter", "state", "detail"),
            [(one["meter"], one["state"], one["detail"]) for shown in listed for one in shown["commands"]],
        )
        return
    output.table(
        ("order", "kind", "requester", "meters", "states", "reason"),
        [
            (shown["order"], shown["kind"], shown["requester"], shown["meters"], shown["states"], shown["reason"])
            for shown in listed
        ],
    )


@command(control, "wait")
def wait(
    order: OrderId,
    *,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds.")] = 120.0,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> int:
    r"""Wait until every command of an order is at its end. Ends with 0 if all are confirmed, 8 if some, 6 if none.

    \b
    Example:
      ipss-headend control wait 3f1c --timeout 60
    """
    loaded = places.load_config(config)
    deadline = time.monotonic() + timeout
    with places.open_store(loaded) as database:
        number, _ = _order(database, order)
        while True:
            with database.reading() as connection:
                states = [State(one.state) for one in rows.commands_of(connection, number)]
            left = sum(state not in machine.FINAL for state in states)
            if not left or time.monotonic() >= deadline:
                break
            time.sleep(0.2)
    shown = {state.value: states.count(state) for state in State if state in states}
    _say(json_output, {"order": orders.shown(number), "states": shown})
    confirmed = shown.get(State.CONFIRMED, 0)
    if left:
        return UNREACHABLE
    return DONE if confirmed == len(states) else PARTLY_DONE if confirmed else REFUSED


@command(protect, "add")
def protect_add(
    targets: Targets,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why, as: dialysis at home.")],
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Never disconnect or limit these meters.

    \b
    Example:
      ipss-headend control protect add group:hospitals --reason hospital
    """
    loaded = places.load_config(config)
    desk = Desk(loaded.control, loaded.principals)
    with places.open_store(loaded) as database:
        with database.reading() as connection:
            meters = _targets(connection, targets)

        def add(connection: Connection) -> int:
            return sum(
                desk.protect(connection, one.meter_id, one.system_title or b"", one.name, _account(), reason)
                for one in meters
            )

        added = transact(database, add)
    _say(json_output, {"protected": added, "already": len(meters) - added})


@command(protect, "remove")
def protect_remove(
    targets: Targets, *, key: KeyFile = None, config: places.CONFIG = places.DEFAULT_CONFIG, json_output: JSON = False
) -> None:
    r"""Ask for meters to be taken off the list; the second person who does so takes them off.

    \b
    Example:
      ipss-headend control protect remove meter-7 --key bob.key
    """
    loaded = places.load_config(config)
    desk, signer = Desk(loaded.control, loaded.principals), _signer(loaded, key)
    with places.open_store(loaded) as database:
        with database.reading() as connection:
            meters = _targets(connection, targets)

        def remove(connection: Connection) -> int:
            return sum(desk.unprotect(connection, one.meter_id, signer) for one in meters)

        removed = transact(database, remove)
    _say(json_output, {"removed": removed, "waiting_for_second_person": len(meters) - removed})


@command(protect, "list")
def protect_list(*, config: places.CONFIG = places.DEFAULT_CONFIG, json_output: JSON = False) -> None:
    r"""List the protected meters.

    \b
    Example:
      ipss-headend control protect list
    """
    loaded, output = places.load_config(config), Output(json_output=json_output)
    with places.open_store(loaded) as database, database.reading() as connection:
        listed = rows.protected_meters(connection)
    if json_output:
        output.document(
            {"protected": [{"meter": one.name, "by": one.principal, "reason": one.reason} for one in listed]}
        )
    else:
        output.table(("meter", "by", "reason"), [(one.name, one.principal, one.reason) for one in listed])


@command(control, "operator")
def operator(
    name: Annotated[str, typer.Argument(help="The person's name.")],
    *,
    key_file: Annotated[Path, typer.Option("--key-file", help="Where to put the private key.")],
    passphrase_file: Annotated[Path | None, typer.Option("--passphrase-file", help="Encrypt it.")] = None,
    json_output: JSON = False,
) -> None:
    r"""Make a key for somebody who asks for commands or approves them, and show what goes into the configuration.

    \b
    Example:
      ipss-headend control operator ada --key-file ada.key
    """
    public_key = principals.create_key_file(key_file, _passphrase(passphrase_file)).hex()
    if json_output:
        Output(json_output=True).document({"name": name, "public_key": public_key, "key_file": str(key_file)})
        return
    say(f"{key_file}: the private key; only {name} may have it. Into the configuration goes:")
    output = Output()
    for line in (
        "[[principals]]",
        f'name = "{name}"',
        f'public_key = "{public_key}"',
        "request = true",
        "approve = true",
    ):
        output.line(line)


def _signer(config: Config, key: Path | None) -> Signer:
    if key is None:
        raise RequestError("who are you? name your private key with --key, or in IPSS_HEADEND_KEY")
    passphrase = os.environ.get("IPSS_HEADEND_PASSPHRASE_FILE")
    loaded = principals.load_key_file(key, _passphrase(Path(passphrase) if passphrase else None))
    return principals.signer(config.principals, loaded)


def _passphrase(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; expected a passphrase") from error


def _targets(connection: Connection, targets: Sequence[str]) -> list[Meter]:
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


def _order(database: Database, text: str) -> tuple[bytes, Order]:
    """An order by its number or the beginning of it."""
    wanted = text.replace("-", "").lower()
    with database.reading() as connection:
        hits = [row for row in rows.newest_orders(connection, 10_000) if row.order_id.hex().startswith(wanted)]
    if len(hits) != 1 or not wanted:
        raise RequestError(f'"{text}" is the number of {"more than one order" if hits else "no order"}')
    return hits[0].order_id, Order.decode(hits[0].octets)


def _known(database: Database, made: Order) -> Order | None:
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


def _order_shown(connection: Connection, row: rows.OrderRow, *, whole: bool) -> dict[str, Any]:
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


def _shown(preview: Preview) -> dict[str, Any]:
    return {
        "kind": preview.kind,
        "meters": preview.meters,
        "groups": preview.groups,
        "protected": list(preview.protected),
        "over_budget": preview.over_budget,
        "approvers_needed": preview.approvers,
        "spread_s": preview.spread_s,
        "not_after_us": preview.not_after_us,
    }


def _life_s(text: str, config: Config) -> float:
    try:
        return duration_s(text) if text else config.control.not_after_s
    except ValueError as error:
        raise RequestError(f"--not-after: {error}") from None


def _uuid(text: str) -> bytes:
    try:
        return uuid.UUID(text).bytes
    except ValueError:
        raise RequestError(f'--order: "{text}" is no UUID') from None


def _account() -> str:
    """The account that runs this command, where no key is asked for."""
    return f"account {os.getuid()}"


def _say(json_output: bool, shown: dict[str, Any]) -> None:
    output = Output(json_output=json_output)
    if json_output:
        output.document(shown)
        return
    for name, value in shown.items():
        output.line(f"{name.replace('_', ' ')}: {value}")
