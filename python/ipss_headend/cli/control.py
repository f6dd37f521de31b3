"""`ipss-headend control`: critical commands. Works on the store; the running server does what is approved."""

import time
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import Connection

from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, app, command
from ipss_headend.cli.control_tools import (
    account,
    drafted,
    known_order,
    life_s_of,
    meters_of,
    order_of,
    order_shown,
    passphrase_of,
    preview_shown,
    show,
    signer_of,
    text_of,
    uuid_of,
)
from ipss_headend.cli.output import Output, say
from ipss_headend.config import Config
from ipss_headend.errors import DONE, PARTLY_DONE, REFUSED, UNREACHABLE, NotAuthorised, RequestError
from ipss_headend.field.control import clock, clones, machine, orders
from ipss_headend.field.control.desk import Desk, transact
from ipss_headend.field.control.machine import State
from ipss_headend.field.control.orders import Order, RegisterWrite
from ipss_headend.field.control.task import touch
from ipss_headend.field.der.critical import Meaning
from ipss_headend.field.der.setpoints import Function
from ipss_headend.schedule import duration_s
from ipss_headend.security import audit, principals
from ipss_headend.store import commands as rows
from ipss_headend.store.database import now_us

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


NotAfter = Annotated[str, typer.Option("--not-after", help="How long it may wait, as 15min.")]
Number = Annotated[str, typer.Option("--order", help="The order's number (UUID): the same again changes nothing.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")]
Revert = Annotated[
    str,
    typer.Option("--revert", help="An inverter goes back by itself after so long, as 2h; never: it does not."),
]


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
    revert: Revert = "",
    not_after: NotAfter = "",
    order: Number = "",
    dry_run: DryRun = False,
    key: KeyFile = None,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Ask for supply to be switched. Nothing happens before others approve it.

    Shows what it would do: meters by group, protected ones, what is over budget, how many people must approve.
    Inverters and storage (through the running head-end) leave the grid or come back.

    \b
    Examples:
      ipss-headend control switch inverter-1 --to off --revert 2h --reason "works on feeder 12" --key ada.key
      ipss-headend control switch meter-7 --to off --reason "unpaid since May" --key ada.key
      ipss-headend control switch group:district-3 --to on --reason "fault cleared" --dry-run
    """

    def make(meters: list[tuple[int, bytes]], **common: Any) -> Order:
        return orders.switch(to.value, meters, **common)

    def mean() -> Meaning:
        if to is To.ARM:
            raise RequestError("--to arm: inverters and storage have no switch that a customer closes; use on")
        on = to is To.ON
        return Meaning(Function.CONNECT, Decimal(on), 0 if on else _revert_s(revert))

    ask(make, targets, reason, not_after, order, key, config, mean=mean, dry_run=dry_run, json_output=json_output)


@command(control, "limit")
def limit(
    targets: Targets,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; stands in the audit trail.")],
    watts: Annotated[int | None, typer.Option("--watts", metavar="N", help="What may be drawn at most.")] = None,
    release: Annotated[bool, typer.Option("--release", help="Take the limit away.")] = False,
    scaler: Annotated[
        int, typer.Option("--scaler", min=-9, max=9, metavar="N", help="Of the register that the limiter monitors.")
    ] = 0,
    percent: Annotated[
        str, typer.Option("--percent", metavar="N", help="Of an inverter's or a storage's rating.")
    ] = "",
    revert: Revert = "",
    not_after: NotAfter = "",
    order: Number = "",
    dry_run: DryRun = False,
    key: KeyFile = None,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Ask for the limiter's threshold to be set, or taken away. Nothing happens before others approve it.

    Limits of inverters and storage that are as good as switching off go this way, too (through the running head-end);
    others are set points: `ipss-headend der set`.

    \b
    Examples:
      ipss-headend control limit inverter-1 --percent 0 --revert 2h --reason "feeder 12 is full" --key ada.key
      ipss-headend control limit meter-7 --watts 1000 --reason "feeder 12 is full" --key ada.key
      ipss-headend control limit meter-7 --release --reason "feeder 12 is repaired" --key ada.key
    """
    if (watts is not None) + release + bool(percent) != 1:
        raise RequestError("say how much with --watts (a meter) or --percent (an inverter), or --release")
    threshold = None if watts is None else Decimal(watts).scaleb(-scaler)
    if threshold is not None and threshold != int(threshold):
        raise RequestError(f"--watts {watts} is no whole number of 10^{scaler} W; round it")

    def make(meters: list[tuple[int, bytes]], **common: Any) -> Order:
        if percent:
            raise RequestError("--percent is for inverters and storage; a meter's limiter takes --watts")
        return orders.limit(None if threshold is None else int(threshold), meters, **common)

    def mean() -> Meaning:
        if watts is not None:
            raise RequestError("--watts is for meters; inverters and storage take --percent")
        value = None
        if percent:
            try:
                value = Decimal(percent)
            except InvalidOperation:
                raise RequestError(f'--percent: "{percent}" is no number') from None
        return Meaning(Function.ACTIVE_POWER_LIMIT, value, 0 if release else _revert_s(revert))

    ask(make, targets, reason, not_after, order, key, config, mean=mean, dry_run=dry_run, json_output=json_output)


@command(control, "tariff")
def tariff(
    targets: Targets,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; stands in the audit trail.")],
    not_after: NotAfter = "",
    order: Number = "",
    dry_run: DryRun = False,
    key: KeyFile = None,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Ask for the passive activity calendar to become the active one, now. Nothing happens before others approve it.

    \b
    Example:
      ipss-headend control tariff group:district-3 --reason "prices of 2027" --key ada.key
    """
    ask(orders.tariff, targets, reason, not_after, order, key, config, dry_run=dry_run, json_output=json_output)


def _revert_s(text: str) -> int:
    """After how long a device goes back by itself; 0: it does not."""
    if not text:
        raise RequestError("after how long does it go back by itself? say --revert 2h, or --revert never")
    try:
        return 0 if text == "never" else int(duration_s(text))
    except ValueError as error:
        raise RequestError(f"--revert: {error}") from None


def ask(
    make: Callable[..., Order],
    targets: list[str],
    reason: str,
    not_after: str,
    order: str,
    key: Path | None,
    config: Path,
    *,
    dry_run: bool,
    json_output: bool,
    mean: Callable[[], Meaning] | None = None,
) -> None:
    """Say what an order would do and, unless it is a dry run, ask for it."""
    loaded, output = places.load_config(config), Output(json_output=json_output)
    desk = Desk(loaded.control, loaded.principals, loaded.rollout)
    signer = None if dry_run and key is None else signer_of(loaded, key)
    with places.open_store(loaded) as database:
        with database.reading() as connection:
            meters = meters_of(connection, targets)
        chosen = [(meter.meter_id, meter.identity) for meter in meters]
        common: dict[str, Any] = {
            "reason": reason,
            "requester": signer.principal.name if signer else "nobody",
            "created_us": now_us() // 1000 * 1000,
            "life_s": life_s_of(not_after, loaded),
            "order_id": uuid_of(order) if order else None,
        }
        devices = [meter for meter in meters if str(meter.protocol.get("transport", "")).startswith("modbus")]
        if not devices:
            made = make(chosen, **common)
        elif mean is None or len(devices) != len(meters):
            raise RequestError("an order is for meters, or for inverters and storage to be switched or limited")
        else:
            made = _drafted(loaded, mean(), [meter.name for meter in meters], chosen, common, dry_run=dry_run)
        with database.reading() as connection:
            preview = desk.preview(connection, made)
        if not dry_run:
            assert signer is not None
            signature = signer.sign("propose", 0, made.octets())
            known = known_order(database, made)
            if known is None:
                transact(database, lambda connection: desk.propose(connection, made.octets(), signature))
    shown: dict[str, Any] = {"order": None if dry_run else orders.shown(made.order_id), **preview_shown(preview)}
    if json_output:
        output.document(shown)
        return
    for name, value in shown.items():
        output.line(f"{name.replace('_', ' ')}: {text_of(value)}")
    if not dry_run:
        output.line(
            f"next, by {preview.approvers} other(s): ipss-headend control approve {shown['order']} --key THEIRS"
        )


def _drafted(
    loaded: Config,
    meaning: Meaning,
    names: list[str],
    chosen: list[tuple[int, bytes]],
    common: dict[str, Any],
    *,
    dry_run: bool,
) -> Order:
    """The order that means this. The running head-end knows the registers; what it says is not taken on trust."""
    if common["order_id"] is not None:
        with places.open_store(loaded) as database, database.reading() as connection:
            row = rows.order_of(connection, common["order_id"])
        if row is not None:
            return Order.decode(row.octets)  # asked for already: the desk compares nothing else
    wanted: dict[str, Any] = {"revert_s": meaning.revert_s}
    if meaning.function is Function.CONNECT:
        wanted["to"] = "on" if meaning.value else "off"
    else:
        wanted |= {"release": True} if meaning.value is None else {"percent": f"{meaning.value:f}"}
    people = [one.name for one in loaded.principals]
    requester = common["requester"] if not dry_run or common["requester"] in people else next(iter(people), "")
    made = drafted(
        loaded,
        "control.preview",
        targets=names,
        reason=common["reason"],
        signer=requester,
        not_after_s=int(common["life_s"]),
        order=None if common["order_id"] is None else orders.shown(common["order_id"]),
        created_ms=common["created_us"] // 1000,
        **wanted,
    )
    common["order_id"] = made.order_id
    expected = orders.order(meaning.kind, made.effect, meaning.text(), chosen, **(common | {"requester": requester}))
    if not isinstance(made.effect, RegisterWrite) or made != expected:
        raise NotAuthorised("the head-end made another order than was asked for; it is not signed")
    return made


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
    desk, signer = Desk(loaded.control, loaded.principals, loaded.rollout), signer_of(loaded, key)
    with places.open_store(loaded) as database:
        number, made = order_of(database, order)
        if not json_output:
            with database.reading() as connection:
                preview = preview_shown(desk.preview(connection, made))
            say(f"{made.kind} for {made.requester}, because: {made.reason}")
            say(", ".join(f"{name.replace('_', ' ')} {text_of(value)}" for name, value in preview.items()))
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
    desk, signer = Desk(loaded.control, loaded.principals, loaded.rollout), signer_of(loaded, key)
    with places.open_store(loaded) as database:
        number, _ = order_of(database, order)
        count = transact(database, lambda connection: desk.end_quarantine(connection, number, signer))
    show(json_output, {"order": orders.shown(number), "commands": count})


@command(control, "cancel")
def cancel(order: OrderId, *, config: places.CONFIG = places.DEFAULT_CONFIG, json_output: JSON = False) -> None:
    r"""Take back what has not been sent of an order.

    \b
    Example:
      ipss-headend control cancel 3f1c
    """
    loaded = places.load_config(config)
    desk = Desk(loaded.control, loaded.principals, loaded.rollout)
    with places.open_store(loaded) as database:
        number, _ = order_of(database, order)
        count = transact(database, lambda connection: desk.cancel(connection, number, account()))
    show(json_output, {"order": orders.shown(number), "cancelled": count})


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
    desk = Desk(loaded.control, loaded.principals, loaded.rollout)
    with places.open_store(loaded, create=True) as database:
        held = transact(database, lambda connection: desk.stop(connection, account(), reason))
    show(json_output, {"stopped": True, "held": held})


@command(control, "resume")
def resume(*, key: KeyFile = None, config: places.CONFIG = places.DEFAULT_CONFIG, json_output: JSON = False) -> None:
    r"""Take the stop switch back. What was held wants approving again.

    \b
    Example:
      ipss-headend control resume --key bob.key
    """
    loaded = places.load_config(config)
    desk, signer = Desk(loaded.control, loaded.principals, loaded.rollout), signer_of(loaded, key)
    if not signer.principal.may_approve:
        raise NotAuthorised(f"{signer.principal.name} may not resume; who may approve commands may")
    with places.open_store(loaded) as database:
        # The row says stopped until the file is gone: whatever breaks between the two leaves it stopped.
        transact(database, lambda connection: desk.stop(connection, signer.principal.name, "before resuming"))
        loaded.control.stop_file.unlink(missing_ok=True)
        generation = transact(database, lambda connection: desk.resume(connection, signer))
    show(json_output, {"stopped": False, "generation": generation})


@command(control, "status")
def status(*, config: places.CONFIG = places.DEFAULT_CONFIG, json_output: JSON = False) -> None:
    r"""Show the stop switch, how many commands are in each state, the budgets, the protected meters, the audit trail.

    \b
    Example:
      ipss-headend control status --json
    """
    loaded = places.load_config(config)
    desk = Desk(loaded.control, loaded.principals, loaded.rollout)
    with places.open_store(loaded) as database, database.reading() as connection:
        state, budget = rows.control(connection), desk.spent(connection)
        fleet = rows.fleet_size(connection)
        shown = {
            "stopped": state.stopped or loaded.control.stop_file.exists(),
            "generation": state.generation,
            "commands": rows.counts(connection, State),
            "quarantined": rows.held(connection),
            "alarmed": rows.alarmed(connection),
            "budgets": {
                name: {
                    "spent_in_24h": pool.spent_today(state.budget_us),
                    "fleet_per_day": desk.limits(name, fleet).fleet_per_day,
                }
                for name, pool in budget.pools.items()
            },
            "protected": len(rows.protected_meters(connection)),
            "held": len(clones.held(connection, loaded.principals)),
            "clock": str(
                clock.doubt(connection, loaded.principals, now_us()) or "right, as far as the audit trail knows"
            ),
            "principals": [one.name for one in loaded.principals],
            "audit": {
                "records": audit.newest(connection)[0],
                "signed": max((one.seq for one in audit.stored_checkpoints(connection)), default=0),
            },
        }
    show(json_output, shown)


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
        found = [order_of(database, order)[0]] if order is not None else None
        with database.reading() as connection:
            chosen = (
                [row for number in found if (row := rows.order_of(connection, number))]
                if found is not None
                else rows.newest_orders(connection, last)
            )
            listed = [order_shown(connection, row, whole=found is not None) for row in chosen]
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
        number, _ = order_of(database, order)
        while True:
            with database.reading() as connection:
                states = [State(one.state) for one in rows.commands_of(connection, number)]
            left = sum(state not in machine.FINAL for state in states)
            if not left or time.monotonic() >= deadline:
                break
            time.sleep(0.2)
    shown = {state.value: states.count(state) for state in State if state in states}
    show(json_output, {"order": orders.shown(number), "states": shown})
    confirmed = shown.get(State.CONFIRMED, 0)
    if left:
        return UNREACHABLE
    return DONE if confirmed == len(states) else PARTLY_DONE if confirmed else REFUSED


@command(control, "held")
def held(*, config: places.CONFIG = places.DEFAULT_CONFIG, json_output: JSON = False) -> None:
    r"""List the meters to which nothing critical goes, as two have proved to be them: one of the two is a copy.

    \b
    Example:
      ipss-headend control held
    """
    loaded = places.load_config(config)
    with places.open_store(loaded) as database, database.reading() as connection:
        listed = clones.held(connection, loaded.principals).values()
    if json_output:
        output = [{"meter": one.name, "why": one.why, "since_ms": one.since_us // 1000} for one in listed]
        Output(json_output=True).document({"held": output})
    else:
        Output().table(("meter", "why"), [(one.name, one.why) for one in listed])


@command(control, "clear")
def clear(
    targets: Targets,
    *,
    reason: Annotated[str, typer.Option("--reason", help="What was found; stands in the audit trail.")],
    key: KeyFile = None,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Let critical commands go to held meters again. For who may approve, once it is settled which one the meter is.

    What the other one pushed meanwhile is thrown away. Meters whose keys somebody has need new ones: `keys rotate`.

    \b
    Example:
      ipss-headend control clear meter-7 --reason "the copy was found in a shed" --key bob.key
    """
    loaded = places.load_config(config)
    signer = signer_of(loaded, key)
    with places.open_store(loaded) as database:
        with database.reading() as connection:
            meters = meters_of(connection, targets)

        def settle(connection: Connection) -> int:
            people = loaded.principals
            return sum(clones.clear(connection, people, one.meter_id, signer, reason) for one in meters)

        pushes = transact(database, settle)
    show(json_output, {"cleared": len(meters), "pushes_thrown_away": pushes})


@command(control, "accept-clock")
def accept_clock(
    *,
    reason: Annotated[str, typer.Option("--reason", help="What had happened to the clock; stands in the audit trail.")],
    key: KeyFile = None,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Say that this host's clock is right and was ahead before, so that critical commands leave again. For two people.

    The gate lets nothing out while the clock is behind the newest record of the audit trail. Look at the clock first:
    compare what this prints with one that you trust. The first person asks, the second agrees within an hour; then all
    orders that wait are expired, as nobody knows whose time was over, and approvals of before count no more. Budgets do
    not follow the wall clock and stay as they are.

    \b
    Example:
      ipss-headend control accept-clock --reason "the time server was wrong" --key ada.key
      ipss-headend control accept-clock --reason "the time server was wrong" --key bob.key
    """
    loaded = places.load_config(config)
    signer = signer_of(loaded, key)
    with places.open_store(loaded) as database:
        with database.reading() as connection:
            found = clock.doubt(connection, loaded.principals, now_us())
        if found is not None:
            say(str(found))
        done = transact(database, lambda connection: clock.accept(connection, loaded.principals, signer, reason))
    if done is None:
        show(json_output, {"accepted": False, "waits_for": "a second person who may approve"})
    else:
        show(json_output, {"accepted": True, "commands_ended": done[1]})


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
    desk = Desk(loaded.control, loaded.principals, loaded.rollout)
    with places.open_store(loaded) as database:
        with database.reading() as connection:
            meters = meters_of(connection, targets)

        def add(connection: Connection) -> int:
            return sum(
                desk.protect(connection, one.meter_id, one.identity, one.name, account(), reason) for one in meters
            )

        added = transact(database, add)
    show(json_output, {"protected": added, "already": len(meters) - added})


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
    desk, signer = Desk(loaded.control, loaded.principals, loaded.rollout), signer_of(loaded, key)
    with places.open_store(loaded) as database:
        with database.reading() as connection:
            meters = meters_of(connection, targets)

        def remove(connection: Connection) -> int:
            return sum(desk.unprotect(connection, one.meter_id, signer) for one in meters)

        removed = transact(database, remove)
    show(json_output, {"removed": removed, "waiting_for_second_person": len(meters) - removed})


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
    public_key = principals.create_key_file(key_file, passphrase_of(passphrase_file)).hex()
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
