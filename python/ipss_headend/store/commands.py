"""Orders, signatures, commands and their states, budgets, the never-disconnect list and the stop switch, as rows.

Which step a command may take is said by its machine, in `field/control`; here a step is one statement that moves a
command only from the states that have it, so two who step at once cannot both succeed. Callers put the audit record
into the same transaction. Every step is told in the log (`store/log.py`, topic `commands`), in its transaction, too.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, insert, select, tuple_, update

from ipss_headend.store import log
from ipss_headend.store.database import now_us
from ipss_headend.store.schema import (
    commands,
    control_state,
    meters,
    order_signatures,
    orders,
    protected,
    spends,
)
from ipss_headend.store.statements import rows as found_rows

_CHUNK = 500


class OrderRow(NamedTuple):
    """An order as stored."""

    order_id: bytes
    octets: bytes
    kind: str
    requester: str
    created_us: int
    not_after_us: int
    targets: int


class CommandRow(NamedTuple):
    """A command as stored."""

    command_id: bytes
    order_id: bytes
    meter_id: int
    state: str
    quarantined: int
    due_us: int
    changed_us: int
    alarmed: int
    detail: str


class ProtectedRow(NamedTuple):
    """A meter that is never cut."""

    meter_id: int
    system_title: bytes
    name: str
    principal: str
    reason: str
    changed_us: int
    removal_by: str
    """Who asked for its removal; a second person has to."""


class ControlRow(NamedTuple):
    """The stop switch and the budgets' clock."""

    stopped: bool
    generation: int
    budget_us: int


def add_order(connection: Connection, order: OrderRow, targets: Iterable[tuple[bytes, int]], state: str) -> None:
    """Store an order and its commands (number, meter), all in this state."""
    moment_us = now_us()
    connection.execute(insert(orders).values(order._asdict()))
    rows = [
        CommandRow(number, order.order_id, meter, state, 0, 0, moment_us, 0, "")._asdict() for number, meter in targets
    ]
    connection.execute(insert(commands), rows)
    _tell(connection, moment_us, [(row["meter_id"], row["command_id"], order.order_id) for row in rows], state, "")


def order_of(connection: Connection, order_id: bytes) -> OrderRow | None:
    """One order."""
    row = connection.execute(select(orders).where(orders.c.order_id == order_id)).one_or_none()
    return None if row is None else OrderRow(*row)


def newest_orders(connection: Connection, count: int) -> list[OrderRow]:
    """The orders made last, the newest first."""
    return [
        OrderRow(*row) for row in connection.execute(select(orders).order_by(orders.c.created_us.desc()).limit(count))
    ]


def orders_before(connection: Connection, created_us: int, order_id: bytes, count: int) -> list[OrderRow]:
    """The orders made before this one, the newest first."""
    key = tuple_(orders.c.created_us, orders.c.order_id)
    query = select(orders).where(key < (created_us, order_id))
    ordered = query.order_by(orders.c.created_us.desc(), orders.c.order_id.desc())
    return [OrderRow(*row) for row in connection.execute(ordered.limit(count))]


def command_of(connection: Connection, command_id: bytes) -> CommandRow | None:
    """One command."""
    row = connection.execute(select(commands).where(commands.c.command_id == command_id)).one_or_none()
    return None if row is None else CommandRow(*row)


def commands_of_meter(connection: Connection, meter_id: int, states: Iterable[str]) -> list[CommandRow]:
    """A meter's commands in these states."""
    chosen = (commands.c.meter_id == meter_id) & commands.c.state.in_(list(states))
    query = select(commands).where(chosen).order_by(commands.c.command_id)
    return [CommandRow(*row) for row in connection.execute(query)]


def add_signature(
    connection: Connection, order_id: bytes, purpose: str, principal: str, generation: int, octets: bytes
) -> bool:
    """Store a signature; false if this principal had said this already."""
    key = (
        (order_signatures.c.order_id == order_id)
        & (order_signatures.c.purpose == purpose)
        & (order_signatures.c.principal == principal)
        & (order_signatures.c.generation == generation)
    )
    if connection.execute(select(order_signatures.c.at_us).where(key)).first() is not None:
        return False
    connection.execute(
        insert(order_signatures).values(
            order_id=order_id,
            purpose=purpose,
            principal=principal,
            generation=generation,
            signature=octets,
            at_us=now_us(),
        )
    )
    return True


def signatures(connection: Connection, order_id: bytes) -> list[tuple[str, str, int, bytes]]:
    """The signatures of an order: purpose, principal, generation, octets."""
    columns = order_signatures.c
    found = select(columns.purpose, columns.principal, columns.generation, columns.signature)
    found = found.where(columns.order_id == order_id).order_by(columns.purpose, columns.principal, columns.generation)
    return [(row[0], row[1], row[2], row[3]) for row in connection.execute(found)]


def commands_in(connection: Connection, states: Iterable[str], limit: int = 1_000_000) -> list[CommandRow]:
    """The commands in these states, by the time at which they are due."""
    query = select(commands).where(commands.c.state.in_(list(states))).order_by(commands.c.due_us).limit(limit)
    return [CommandRow(*row) for row in connection.execute(query)]


def due(connection: Connection, state: str, now_us: int, limit: int, kinds: Sequence[str]) -> list[CommandRow]:
    """The commands in a state, of orders of these kinds, whose time has come."""
    query = select(commands).join(orders, orders.c.order_id == commands.c.order_id)
    query = query.where(commands.c.state == state, commands.c.due_us <= now_us, orders.c.kind.in_(kinds))
    return [CommandRow(*row) for row in connection.execute(query.order_by(commands.c.due_us).limit(limit))]


def commands_of(connection: Connection, order_id: bytes) -> list[CommandRow]:
    """An order's commands in the order of their meters."""
    query = select(commands).where(commands.c.order_id == order_id).order_by(commands.c.meter_id)
    return [CommandRow(*row) for row in connection.execute(query)]


def orders_in(connection: Connection, states: Iterable[str]) -> list[OrderRow]:
    """The orders that have a command in one of these states, the oldest first."""
    chosen = tuple(map(str, states))
    return [OrderRow(*row) for row in found_rows(connection, _ORDERS_IN.format(_places(len(chosen))), chosen)]


def move(
    connection: Connection,
    command_ids: Sequence[bytes],
    sources: Iterable[str],
    to: str,
    *,
    detail: str = "",
    due_us: Sequence[int] | None = None,
) -> int:
    """Move these commands to a state, those that are in one of the `sources`; returns how many were."""
    moment_us = now_us()
    values: dict[str, object] = {"state": to, "changed_us": moment_us, "detail": detail}
    if due_us is not None:
        values["due_us"] = bindparam("due")
    statement = (
        update(commands)
        .where(commands.c.command_id == bindparam("number"), commands.c.state.in_(list(sources)))
        .values(values)
    )
    moved = []
    for place, number in enumerate(command_ids):
        parameters: dict[str, object] = {"number": number}
        if due_us is not None:
            parameters["due"] = due_us[place]
        if connection.execute(statement, parameters).rowcount:
            moved.append(number)
    told = []
    for start in range(0, len(moved), _CHUNK):
        told += _numbers(connection, commands.c.command_id.in_(moved[start : start + _CHUNK]))
    _tell(connection, moment_us, told, to, detail)
    return len(moved)


def move_order(connection: Connection, order_id: bytes, sources: Iterable[str], to: str, detail: str = "") -> int:
    """Move all commands of an order that are in one of the `sources`; returns how many were."""
    return _move_where(connection, (commands.c.order_id == order_id) & commands.c.state.in_(list(sources)), to, detail)


def move_all(connection: Connection, sources: Iterable[str], to: str, detail: str = "") -> int:
    """Move every command that is in one of the `sources`; returns how many were."""
    return _move_where(connection, commands.c.state.in_(list(sources)), to, detail)


def _move_where(connection: Connection, chosen: ColumnElement[bool], to: str, detail: str) -> int:
    # In a writing transaction nobody steps between the two statements.
    moving, moment_us = _numbers(connection, chosen), now_us()
    connection.execute(update(commands).where(chosen).values(state=to, changed_us=moment_us, detail=detail))
    _tell(connection, moment_us, moving, to, detail)
    return len(moving)


def _numbers(connection: Connection, chosen: ColumnElement[bool]) -> list[tuple[int, bytes, bytes]]:
    """Meter, command and order of these commands."""
    columns = commands.c
    found = select(columns.meter_id, columns.command_id, columns.order_id).where(chosen).order_by(columns.meter_id)
    return [(row[0], row[1], row[2]) for row in connection.execute(found)]


def _tell(
    connection: Connection, moment_us: int, moved: Iterable[tuple[int, bytes, bytes]], state: str, detail: str
) -> None:
    told = [(meter_id, moment_us, number, order_id, str(state), detail) for meter_id, number, order_id in moved]
    log.append(connection, moment_us, {log.COMMANDS: told})


def quarantine(connection: Connection, command_ids: Sequence[bytes], why: str) -> None:
    """Hold these approved commands until a second person says that they may go on."""
    if command_ids:
        statement = update(commands).where(commands.c.command_id == bindparam("number"))
        rows = [{"number": number} for number in command_ids]
        connection.execute(statement.values(quarantined=1, detail=why), rows)


def end_quarantine(connection: Connection, order_id: bytes) -> int:
    """Let an order's commands go on, within the budget as ever; returns how many were held."""
    held = (commands.c.order_id == order_id) & (commands.c.quarantined == 1)
    return connection.execute(update(commands).where(held).values(quarantined=0, detail="")).rowcount


def quarantine_order(connection: Connection, order_id: bytes, why: str) -> int:
    """Hold all approved commands of an order; returns how many were not held."""
    chosen = (commands.c.order_id == order_id) & (commands.c.state == "approved") & (commands.c.quarantined == 0)
    return connection.execute(update(commands).where(chosen).values(quarantined=1, detail=why)).rowcount


def startable(connection: Connection, command_ids: Sequence[bytes], most: int) -> list[CommandRow]:
    """The first of these, in the order given, that are approved and not held."""
    found: list[CommandRow] = []
    for start in range(0, len(command_ids), _CHUNK):
        part = command_ids[start : start + _CHUNK]
        chosen = commands.c.command_id.in_(part) & (commands.c.state == "approved") & (commands.c.quarantined == 0)
        known = {row.command_id: CommandRow(*row) for row in connection.execute(select(commands).where(chosen))}
        found += [known[number] for number in part if number in known]
        if len(found) >= most:
            return found[:most]
    return found


def tally(connection: Connection, order_id: bytes) -> list[tuple[str, int, int, int]]:
    """An order's commands by state and alarm: both, how many, and when the newest of them changed."""
    columns = commands.c
    grouped = select(columns.state, columns.alarmed, func.count(), func.max(columns.changed_us))
    chosen = grouped.where(columns.order_id == order_id).group_by(columns.state, columns.alarmed)
    return [(row[0], row[1], row[2], row[3]) for row in connection.execute(chosen)]


def progress(connection: Connection, command_id: bytes, text: str, due_us: int | None = None) -> None:
    """How far a released command's preparation is; with `due_us`, that it goes on then and not before."""
    chosen = (commands.c.command_id == command_id) & (commands.c.state == "released")
    values: dict[str, Any] = {"detail": text, "changed_us": now_us()}
    if due_us is not None:
        values["due_us"] = due_us
    connection.execute(update(commands).where(chosen).values(values))


def alarm(connection: Connection, command_id: bytes) -> None:
    """Somebody was told that this command's fate is not known."""
    connection.execute(update(commands).where(commands.c.command_id == command_id).values(alarmed=1))


def commands_of_kinds(
    connection: Connection, kinds: Sequence[str], states: Iterable[str]
) -> list[tuple[CommandRow, bytes]]:
    """The commands of orders of these kinds that are in one of the states, with the order's octets, by their change."""
    chosen = orders.c.kind.in_(kinds) & commands.c.state.in_(list(states))
    query = select(commands, orders.c.octets).join(orders, orders.c.order_id == commands.c.order_id)
    found = connection.execute(query.where(chosen).order_by(commands.c.changed_us))
    return [(CommandRow(*row[:-1]), row[-1]) for row in found]


def counts(connection: Connection, states: Iterable[str]) -> dict[str, int]:
    """How many commands are in each of these states."""
    chosen = tuple(map(str, states))
    return {row[0]: row[1] for row in found_rows(connection, _COUNTS.format(_places(len(chosen))), chosen)}


def held(connection: Connection) -> int:
    """How many commands are quarantined and could still go."""
    chosen = (commands.c.quarantined == 1) & (commands.c.state == "approved")
    return connection.scalar(select(func.count()).where(chosen).select_from(commands)) or 0


def alarmed(connection: Connection) -> int:
    """How many commands somebody was alarmed about whose fate is not known yet."""
    chosen = (commands.c.alarmed == 1) & (commands.c.state == "unknown")
    return connection.scalar(select(func.count()).where(chosen).select_from(commands)) or 0


def spend(connection: Connection, rows: Sequence[tuple[str, str, str, int, bytes]]) -> None:
    """Note what was taken from the budgets: pool, principal, group, moment on the budgets' clock, command."""
    if rows:
        names = ("pool", "principal", "group_name", "budget_us", "command_id")
        connection.execute(insert(spends), [dict(zip(names, row, strict=True)) for row in rows])


def spent_since(connection: Connection, budget_us: int) -> list[tuple[str, str, str, int]]:
    """What was taken from the budgets behind this moment of their clock, in the order of time."""
    columns = spends.c
    query = select(columns.pool, columns.principal, columns.group_name, columns.budget_us)
    ordered = query.where(columns.budget_us > budget_us).order_by(columns.budget_us, columns.spend_id)
    return [(row[0], row[1], row[2], row[3]) for row in connection.execute(ordered)]


def control(connection: Connection) -> ControlRow:
    """The stop switch and the budgets' clock."""
    found = found_rows(connection, _CONTROL)
    return ControlRow(bool(found[0][0]), *found[0][1:]) if found else ControlRow(False, 1, 0)


def set_control(connection: Connection, row: ControlRow) -> None:
    """Store them. Neither the generation nor the clock ever falls."""
    known = control(connection)
    values = {
        "stopped": int(row.stopped),
        "generation": max(row.generation, known.generation),
        "budget_us": max(row.budget_us, known.budget_us),
        "changed_us": now_us(),
    }
    if connection.execute(update(control_state).values(values)).rowcount == 0:
        connection.execute(insert(control_state).values(id=1, **values))


def protected_meters(connection: Connection) -> list[ProtectedRow]:
    """The never-disconnect list."""
    return [ProtectedRow(*row) for row in connection.execute(select(protected).order_by(protected.c.name))]


def protected_version(connection: Connection) -> int:
    """Another number whenever the list, or what the audit trail says of it, of held meters or the clock, may differ."""
    return hash(found_rows(connection, _PROTECTED)[0])


def protect(connection: Connection, row: ProtectedRow) -> bool:
    """Put a meter on the list; false if it is there."""
    if connection.execute(select(protected.c.name).where(protected.c.meter_id == row.meter_id)).first():
        return False
    connection.execute(insert(protected).values(row._asdict()))
    return True


def ask_removal(connection: Connection, meter_id: int, principal: str) -> None:
    """Note who wants a meter off the list."""
    connection.execute(update(protected).where(protected.c.meter_id == meter_id).values(removal_by=principal))


def unprotect(connection: Connection, meter_id: int) -> None:
    """Take a meter off the list."""
    connection.execute(delete(protected).where(protected.c.meter_id == meter_id))


def groups_of(connection: Connection, meter_ids: Sequence[int]) -> dict[int, tuple[str, str]]:
    """Name and group of these meters."""
    found: dict[int, tuple[str, str]] = {}
    for start in range(0, len(meter_ids), _CHUNK):
        query = select(meters.c.meter_id, meters.c.name, meters.c.group_name)
        chosen = query.where(meters.c.meter_id.in_(meter_ids[start : start + _CHUNK]))
        found.update({row[0]: (row[1], row[2]) for row in connection.execute(chosen)})
    return found


def fleet_size(connection: Connection) -> int:
    """How many meters there are."""
    return int(connection.scalar(select(func.count()).select_from(meters)) or 0)


def _places(count: int) -> str:
    return ", ".join("?" * count)


# What a head-end looks at several times a second: written out, as SQLAlchemy takes longer to write these than a
# database to answer them.
_ORDERS_IN = (
    f"SELECT {', '.join(OrderRow._fields)} FROM orders "  # noqa: S608 - names of ours
    "WHERE order_id IN (SELECT order_id FROM commands WHERE state IN ({})) ORDER BY created_us, order_id"
)
_COUNTS = "SELECT state, COUNT(*) FROM commands WHERE state IN ({}) GROUP BY state"
_CONTROL = "SELECT stopped, generation, budget_us FROM control_state"
_PROTECTED = (
    "SELECT COUNT(*), MAX(changed_us), "
    "(SELECT COUNT(*) FROM audit WHERE kind IN ('protect', 'unprotect', 'clone', 'clear', 'clock-accepted')) "
    "FROM protected"
)
