"""Orders that change meters and cut nobody go out in rings: a canary first, and a halt when too many fail.

`ipss_headend.rings` decides, from rows alone, so that a restart changes nothing. A halt quarantines what has not left;
a second person lets it go on (`control release`), from the ring where it halted.
"""

from collections.abc import Callable

import trio
from sqlalchemy import Connection

from ipss_headend.field.control import machine, orders
from ipss_headend.field.control.orders import Order
from ipss_headend.log import Logger, logger
from ipss_headend.rings import Counts, Go, Halt, Open, Rings, Verdict, halted, look, place
from ipss_headend.security import audit
from ipss_headend.store import Store, spreads
from ipss_headend.store import commands as rows
from ipss_headend.store.commands import CommandRow

LOOK_S = 1.0
"""How often an order's rings are looked at."""

AT_ONCE = 500
"""Commands that a look lets start at most."""


class Rollout:
    """What of such orders may start."""

    def __init__(self, store: Store, rings: Rings, wall_us: Callable[[], int], firmware: Rings | None = None) -> None:
        """`firmware`: the rings of its orders, if they are others."""
        self._store = store
        self._rings = rings
        self._firmware = firmware or rings
        self._wall_us = wall_us
        self._members: dict[bytes, list[bytes]] = {}
        self._looked: dict[bytes, float] = {}
        self._log: Logger = logger("control")

    async def next(self, order: Order) -> list[CommandRow]:
        """The approved commands of the order that may start now; a ring is opened, or the order halted, on the way."""
        now = trio.current_time()
        if now - self._looked.get(order.order_id, -LOOK_S) < LOOK_S:
            return []
        self._looked[order.order_id] = now
        verdict = await self._store.read(lambda connection: self._verdict(connection, order))
        if isinstance(verdict, Open | Halt):
            verdict = await self._store.change(lambda connection: self._turn(connection, order), spend_reserve=True)
        if not isinstance(verdict, Go):
            return []
        if order.order_id not in self._members:
            mixed = sorted(order.targets, key=lambda target: place(order.order_id, target.meter_id))
            self._members[order.order_id] = [target.command_id for target in mixed]
        members = self._members[order.order_id][: verdict.until]
        return await self._store.read(lambda connection: rows.startable(connection, members, AT_ONCE))

    def forget(self, order_id: bytes) -> None:
        """The order has ended."""
        self._members.pop(order_id, None)
        self._looked.pop(order_id, None)

    def _of(self, order: Order) -> Rings:
        return self._firmware if order.kind == "firmware" else self._rings

    def _verdict(self, connection: Connection, order: Order) -> Verdict:
        standing = spreads.load(connection, order.order_id)
        return look(self._of(order), standing, counts(connection, order.order_id), self._wall_us())

    def _turn(self, connection: Connection, order: Order) -> Verdict:
        """Store what the verdict changes, with its audit record."""
        verdict, shown = self._verdict(connection, order), orders.shown(order.order_id)
        standing = spreads.load(connection, order.order_id)
        match verdict:
            case Open(opened):
                spreads.save(connection, order.order_id, opened)
                reach = self._of(order).ends(len(order.targets))[opened.ring]
                audit.append(connection, "ring", "head-end", shown, {"ring": opened.ring + 1, "reaches": reach})
                self._log.info("next ring", order=shown, ring=opened.ring + 1, reaches=reach)
                return self._verdict(connection, order)
            case Halt(why):
                held = rows.quarantine_order(connection, order.order_id, f"halted: {why}")
                if held or not standing.halted:
                    spreads.save(connection, order.order_id, halted(standing, why))
                    audit.append(connection, "halt", "head-end", shown, {"why": why, "held": held})
                    self._log.error("rollout halted", order=shown, why=why, held=held)
        return verdict


def counts(connection: Connection, order_id: bytes) -> Counts:
    """How an order's commands stand, as rings count them. One whose fate is not known in time counts as failed."""
    total, started, ended, failed, newest_us = 0, 0, 0, 0, 0
    for state, alarmed, number, changed_us in rows.tally(connection, order_id):
        total += number
        lost = state == machine.State.UNKNOWN and bool(alarmed)
        if state not in {machine.State.PROPOSED, machine.State.APPROVED}:
            started += number
        if state in machine.FINAL or lost:
            ended += number
            newest_us = max(newest_us, changed_us)
        if state == machine.State.FAILED or lost:
            failed += number
    return Counts(total, started, ended, failed, newest_us)
