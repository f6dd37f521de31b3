"""`ipss-headend keys rotate` and `keys rotation`: new keys for meters, by the path of every critical command."""

from typing import Annotated, Any

import typer
from sqlalchemy import Connection

from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, command
from ipss_headend.cli.control import KeyFile, OrderId, ask
from ipss_headend.cli.control_tools import order_of, show, signer_of
from ipss_headend.cli.keys import keys
from ipss_headend.cli.output import Output
from ipss_headend.errors import RequestError
from ipss_headend.field.control import orders
from ipss_headend.field.control.desk import Desk, transact
from ipss_headend.field.control.machine import FINAL, State
from ipss_headend.field.control.orders import Order
from ipss_headend.field.control.rollout import counts
from ipss_headend.security import rotation
from ipss_headend.store import commands as rows
from ipss_headend.store import counters, registry, spreads

rotations = typer.Typer(name="rotation", help="How changes of keys go on.", no_args_is_help=True, rich_markup_mode=None)
keys.add_typer(rotations)

FEW = 25
LIFE_OF_FEW, LIFE_OF_MANY = "1d", "7d"
"""How long an order may wait, unless told: for a few meters, and for a rollout in rings."""


@command(keys, "rotate")
def rotate(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="METER...", help="Meters by name, group:NAME, or @FILE.")
    ] = None,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; stands in the audit trail.")],
    group: Annotated[list[str] | None, typer.Option("--group", help="All meters of this group.")] = None,
    due: Annotated[bool, typer.Option("--due", help="All meters whose invocation counters run out.")] = False,
    again: Annotated[str, typer.Option("--again", metavar="ORDER", help="What this order has not changed.")] = "",
    not_after: Annotated[
        str, typer.Option("--not-after", help="How long it may take, as 7d.  [default: 1d; 7d for more than 25]")
    ] = "",
    order: Annotated[
        str, typer.Option("--order", help="The order's number (UUID): the same again changes nothing.")
    ] = "",
    master: Annotated[
        bool, typer.Option("--master", help="Their master keys, which wrap the others, in place of those.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
    key: KeyFile = None,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Ask for new encryption and authentication keys. Nothing happens before others approve it (`control approve`).

    Each meter's keys are made when its turn comes, go to it under its master key, and replace the old ones once it has
    answered under them. Many meters change in rings: 10, 100, 1 %, 10 %, all; too many failures halt it.

    A new master key goes wrapped under the one in use, and under itself, which only a meter that has it takes: that is
    the proof. Without an answer both are kept, the meter is talked to as ever, and the next such order tells.

    \b
    Examples:
      ipss-headend keys rotate meter-7 --reason "installer left" --key ada.key
      ipss-headend keys rotate --group district-3 --reason yearly --dry-run
      ipss-headend keys rotate --due --reason "counters run out" --key ada.key
      ipss-headend keys rotate --again 3f1c --reason "the rest" --key ada.key
      ipss-headend keys rotate --master meter-7 --reason "the manufacturer's key" --key ada.key
    """
    loaded = places.load_config(config)
    wanted = [*(targets or []), *(f"group:{name}" for name in group or [])]
    with places.open_store(loaded) as database:
        if due:
            with database.reading() as connection:
                wanted += _names(connection, counters.near_end(connection))
        if again:
            _, made = order_of(database, again)
            with database.reading() as connection:
                wanted += _names(connection, _unchanged(connection, made))
    if not wanted:
        raise RequestError("keys rotate: no meters; name some, or use --group, --due or --again")
    many = len(wanted) > FEW or any(word.startswith(("group:", "@")) for word in wanted)

    def make(meters: list[tuple[int, bytes]], **common: Any) -> Order:
        return orders.change_keys(meters, master=master, **common)

    life = not_after or (LIFE_OF_MANY if many else LIFE_OF_FEW)
    ask(make, wanted, reason, life, order, key, config, dry_run=dry_run, json_output=json_output)


@command(rotations, "status")
def status(
    order: Annotated[str | None, typer.Argument(help="One order.  [default: those made last]")] = None,
    *,
    last: Annotated[int, typer.Option("--last", help="How many orders.")] = 20,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Show how far changes of keys are, ring by ring; which meters are in doubt; whose counters run out.

    \b
    Examples:
      ipss-headend keys rotation status
      ipss-headend keys rotation status 3f1c --json
    """
    loaded, output = places.load_config(config), Output(json_output=json_output)
    desk = Desk(loaded.control, loaded.principals, loaded.rollout)
    with places.open_store(loaded) as database:
        chosen = order_of(database, order)[0] if order is not None else None
        with database.reading() as connection:
            found = (
                [row for row in (rows.order_of(connection, chosen),) if row is not None]
                if chosen is not None
                else [row for row in rows.newest_orders(connection, 1000) if row.kind == "key-change"][:last]
            )
            listed = [_progress(connection, desk, row) for row in found]
            doubt = _names(connection, rotation.in_doubt(connection))
            masters = _names(connection, rotation.masters_in_doubt(connection))
            due = _names(connection, counters.near_end(connection))
    if json_output:
        output.document({"orders": listed, "in_doubt": doubt, "masters_in_doubt": masters, "due": due})
        return
    output.table(
        ("order", "ring", "changed", "failed", "waiting", "of", "state"),
        [
            (one["order"], f"{one['ring']} of {one['rings']}", one["changed"], one["failed"], one["waiting"],
             one["meters"], one["state"])
            for one in listed
        ],
    )  # fmt: skip
    told = "master key in doubt, ask again with `keys rotate --master`"
    for title, names in (
        ("in doubt, tried at most twice in 15 minutes", doubt),
        (told, masters),
        ("counters run out", due),
    ):
        if names:
            output.line(f"{title}: {', '.join(names[:20])}{' ...' if len(names) > 20 else ''}")


@command(rotations, "resume")
def resume(
    order: OrderId, *, key: KeyFile = None, config: places.CONFIG = places.DEFAULT_CONFIG, json_output: JSON = False
) -> None:
    r"""Let a rollout go on that was halted, as a second person, in the ring where it halted.

    \b
    Example:
      ipss-headend keys rotation resume 3f1c --key bob.key
    """
    loaded = places.load_config(config)
    desk, signer = Desk(loaded.control, loaded.principals, loaded.rollout), signer_of(loaded, key)
    with places.open_store(loaded) as database:
        number, _ = order_of(database, order)
        count = transact(database, lambda connection: desk.end_quarantine(connection, number, signer))
    show(json_output, {"order": orders.shown(number), "commands": count})


def _progress(connection: Connection, desk: Desk, row: rows.OrderRow) -> dict[str, Any]:
    counted, standing = counts(connection, row.order_id), spreads.load(connection, row.order_id)
    ends = desk.rollout.ends(row.targets)
    tally = {State(state): number for state, _, number, _ in rows.tally(connection, row.order_id)}
    if standing.halted:
        state = f"halted: {standing.halted}"
    elif counted.ended >= counted.total:
        state = "over"
    else:
        state = "waits for approval" if tally.get(State.PROPOSED) else "goes on"
    return {
        "order": orders.shown(row.order_id),
        "requester": row.requester,
        "meters": row.targets,
        "ring": min(standing.ring, len(ends) - 1) + 1,
        "rings": len(ends),
        "reaches": ends[min(standing.ring, len(ends) - 1)],
        "changed": tally.get(State.CONFIRMED, 0),
        "failed": counted.failed,
        "waiting": sum(number for one, number in tally.items() if one not in FINAL),
        "state": state,
        "not_after_us": row.not_after_us,
    }


def _unchanged(connection: Connection, made: Order) -> list[int]:
    if made.kind != "key-change":
        raise RequestError(f"--again: order {orders.shown(made.order_id)} is no change of keys")
    found = rows.commands_of(connection, made.order_id)
    master = isinstance(made.effect, orders.Effect) and made.effect.value == orders.MASTER_KEY
    ended = FINAL | {State.UNKNOWN} if master else FINAL  # of a master key, the next order finds out
    return [one.meter_id for one in found if one.state in ended and one.state != State.CONFIRMED]


def _names(connection: Connection, meters: list[int]) -> list[str]:
    wanted = set(meters)
    return [meter.name for meter in registry.all_meters(connection) if meter.meter_id in wanted] if wanted else []
