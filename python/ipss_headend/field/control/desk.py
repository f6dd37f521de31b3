"""The desk at which commands are asked for, approved, stopped and previewed: decisions and rows, no meter.

The command line works here as a guest of the store, the server as its owner, under the same checks. Everything that is
done is in the audit trail by the same transaction; so is a refusal that somebody should know of. What the desk lets
through, the native gate checks again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection

from ipss_headend.config import ControlConfig
from ipss_headend.errors import NotAuthorised, RequestError
from ipss_headend.field.control import budgets, machine, orders
from ipss_headend.field.control.machine import State, Step
from ipss_headend.field.control.orders import Order
from ipss_headend.field.control.rollout import counts
from ipss_headend.rings import Rings, resumed
from ipss_headend.security import audit, principals
from ipss_headend.security.principals import HandedIn, Principal, Signature, Signer
from ipss_headend.store import commands as rows
from ipss_headend.store import spreads
from ipss_headend.store.commands import ControlRow, OrderRow, ProtectedRow
from ipss_headend.store.database import Database, now_us

T = TypeVar("T")

Signs = Signer | HandedIn
"""Who signs here, or has signed elsewhere."""

BULK = 25
"""R15; a configuration may be stricter, never laxer."""


class Refused(NotAuthorised):
    """Refused, and noted in the audit trail."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What an order would do, in numbers, before anybody signs it."""

    kind: str
    effect: str
    """The one thing that is sent to each, as it is on the wire."""
    expected: str
    """What is read afterwards."""
    meters: int
    groups: dict[str, int]
    protected: tuple[str, ...]
    over_budget: int
    approvers: int
    spread_s: float
    not_after_us: int
    rings: tuple[int, ...] = ()
    """Up to how many meters each ring reaches, of what changes meters and cuts nobody."""


@dataclass(frozen=True, slots=True)
class Approved:
    """How far the approvals of an order are."""

    order_id: bytes
    approvers: tuple[str, ...]
    needed: int

    @property
    def complete(self) -> bool:
        """Whether it goes now."""
        return len(self.approvers) >= self.needed


def kept(work: Callable[[Connection], T]) -> Callable[[Connection], T | Refused]:
    """`work` for a transaction that is to be kept when it refuses aloud: the refusal is its value."""

    def attempt(connection: Connection) -> T | Refused:
        try:
            return work(connection)
        except Refused as error:
            return error

    return attempt


def transact(database: Database, work: Callable[[Connection], T]) -> T:
    """Run `work` in one durable transaction. What it refuses aloud stays in the audit trail.

    Raises:
        Refused: what `work` refused.
    """
    with database.writing(spend_reserve=True) as connection:
        found = kept(work)(connection)
    if isinstance(found, Refused):
        raise found
    return found


def removal_octets(meter_id: int, title: bytes) -> bytes:
    """What two people sign to take a meter off the never-disconnect list."""
    return b"unprotect\0" + meter_id.to_bytes(4, "big") + title


def released_by_two(
    people: Sequence[Principal], meter_id: int, title: bytes, since_us: int, said: Sequence[Sequence[str]]
) -> bool:
    """Whether two people, the second one who may approve, have signed that this protection ends."""
    asked = removal_octets(meter_id, title)
    signed = [Signature("unprotect", name, since_us, bytes.fromhex(octets)) for name, octets in said]
    who = [principals.fits(people, signature, asked) for signature in signed]
    if len(who) != 2 or who[0] is None or who[1] is None:
        return False
    return who[0].public_key != who[1].public_key and who[0].may_request and who[1].may_approve


class Desk:
    """The rules, for whoever has a connection."""

    def __init__(self, settings: ControlConfig, people: Sequence[Principal], rollout: Rings | None = None) -> None:
        self.settings = settings
        self.rollout = rollout or Rings()
        self.people = tuple(people)

    # Asking and approving

    def propose(self, connection: Connection, octets: bytes, signature: Signature) -> Order:
        """Take an order. The same order again is the same order, whatever became of it.

        Raises:
            Refused: its number is another order's, the signature does not fit, or a meter is protected.
            RequestError: it is none, is late, or names a meter that is not there.
        """
        order = Order.decode(octets)
        known = rows.order_of(connection, order.order_id)
        if known is not None:
            if known.octets != octets:
                raise self._refused(connection, order, signature.principal, "the number of another order")
            return order
        principal = principals.fits(self.people, signature, octets)
        if principal is None or signature.purpose != "propose" or principal.name != order.requester:
            raise self._refused(connection, order, signature.principal, "not signed by its requester")
        if not principal.may_request:
            raise self._refused(connection, order, principal.name, f"{principal.name} may not ask for commands")
        if order.not_after_us <= now_us():
            raise RequestError("not-after has passed; nothing was asked for")
        names = rows.groups_of(connection, [target.meter_id for target in order.targets])
        if len(names) != len(order.targets):
            raise RequestError(f"{len(order.targets) - len(names)} of the meters are not in the registry")
        if found := self._protected(connection, order):
            raise self._refused(connection, order, principal.name, f"protected, never cut: {', '.join(found)}")
        values = (order.kind, order.requester, order.created_us, order.not_after_us, len(order.targets))
        targets = [(target.command_id, target.meter_id) for target in order.targets]
        rows.add_order(connection, OrderRow(order.order_id, octets, *values), targets, State.PROPOSED)
        rows.add_signature(connection, order.order_id, *signature)
        self._note(connection, "propose", principal.name, order, {"meters": len(targets), "reason": order.reason})
        return order

    def approve(self, connection: Connection, order_id: bytes, signer: Signs) -> Approved:
        """Sign an order; with the last signature that it needs, it goes.

        Raises:
            Refused: the signer asked for it, or may not approve.
            RequestError: there is no such order, it is over, or the stop switch is set.
        """
        order, octets = self._order(connection, order_id)
        name = signer.principal.name
        if not signer.principal.may_approve:
            raise self._refused(connection, order, name, f"{name} may not approve commands")
        if name == order.requester or signer.principal.public_key == self._key_of(order.requester):
            raise self._refused(connection, order, name, f"{name} asked for it and cannot approve it")
        state = rows.control(connection)
        if state.stopped:
            raise RequestError("the stop switch is set; an approval would be void. Resume first")
        self._expire(connection, order)
        proposed = [one for one in rows.commands_of(connection, order_id) if one.state == State.PROPOSED]
        approved = self._approvals(connection, order, octets, state.generation)
        if not proposed and name not in approved.approvers:
            raise RequestError(f"order {orders.shown(order_id)} waits for no approval; `control list` shows its state")
        try:
            signature = signer.sign("approve", state.generation, octets)
        except NotAuthorised as error:
            raise self._refused(connection, order, name, str(error)) from error
        if rows.add_signature(connection, order_id, *signature):
            self._note(connection, "approve", name, order, {"generation": state.generation})
        approved = self._approvals(connection, order, octets, state.generation)
        if approved.complete:
            rows.move_order(connection, order_id, machine.sources(Step.APPROVE), State.APPROVED)
        return approved

    def end_quarantine(self, connection: Connection, order_id: bytes, signer: Signs) -> int:
        """Let an order's quarantined commands go on, within the budgets as ever; returns how many.

        Raises:
            Refused: the signer asked for the order, or may not approve.
        """
        order, octets = self._order(connection, order_id)
        name = signer.principal.name
        if not signer.principal.may_approve or name == order.requester:
            raise self._refused(connection, order, name, "a second person who may approve ends a quarantine")
        generation = rows.control(connection).generation
        try:
            signature = signer.sign("unquarantine", generation, octets)
        except NotAuthorised as error:
            raise self._refused(connection, order, name, str(error)) from error
        rows.add_signature(connection, order_id, *signature)
        count = rows.end_quarantine(connection, order_id)
        standing = spreads.load(connection, order_id)
        if standing.halted:
            spreads.save(connection, order_id, resumed(standing, counts(connection, order_id).failed))
        self._note(connection, "unquarantine", name, order, {"commands": count})
        return count

    def approved(self, connection: Connection, order: Order, octets: bytes) -> Approved:
        """Whose approvals of an order count now."""
        return self._approvals(connection, order, octets, rows.control(connection).generation)

    def cancel(self, connection: Connection, order_id: bytes, principal: str) -> int:
        """Take back what has not been sent of an order; returns how many commands. Anybody may: it only prevents."""
        order, _ = self._order(connection, order_id)
        count = rows.move_order(connection, order_id, machine.sources(Step.CANCEL), State.CANCELLED)
        self._note(connection, "cancel", principal, order, {"commands": count})
        return count

    def preview(self, connection: Connection, order: Order) -> Preview:
        """What it would do."""
        names = rows.groups_of(connection, [target.meter_id for target in order.targets])
        groups = Counter(names[target.meter_id][1] for target in order.targets if target.meter_id in names)
        budget, at_us = self.spent(connection), rows.control(connection).budget_us
        over = sum(
            budget.take(order.kind, budgets.Spend(order.requester, names[target.meter_id][1], at_us)) is not None
            for target in order.targets
            if target.meter_id in names
        )
        spread = self.settings.reconnect_window_s if order.kind in orders.STAGGERED and len(order.targets) > 1 else 0
        return Preview(
            kind=order.kind,
            effect=order.effect.shown(),
            expected=order.expected,
            meters=len(order.targets),
            groups=dict(groups),
            protected=tuple(self._protected(connection, order)),
            over_budget=over,
            approvers=self.approvers(len(order.targets)),
            spread_s=spread,
            not_after_us=order.not_after_us,
            rings=self.rollout.ends(len(order.targets)) if order.kind in budgets.CHANGES else (),
        )

    def approvers(self, targets: int) -> int:
        """How many people must approve an order for so many meters."""
        return 2 if targets > min(self.settings.bulk, BULK) else 1

    def spent(self, connection: Connection) -> budgets.Budgets:
        """The budgets with what was spent of them, as the store knows it."""
        state, fleet = rows.control(connection), rows.fleet_size(connection)
        spent = rows.spent_since(connection, state.budget_us - budgets.DAY_US)
        return budgets.Budgets(
            self.limits("cut", fleet),
            self.limits("reconnect", fleet),
            self.limits("change", fleet),
            ((pool, budgets.Spend(principal, group, at_us)) for pool, principal, group, at_us in spent),
        )

    def limits(self, pool: str, fleet: int) -> budgets.Limits:
        """One pool's limits for a fleet of this size."""
        said = self.settings
        if pool == "reconnect":
            day = budgets.fleet_limit(fleet, said.reconnects_per_day_percent, said.reconnects_per_day_least)
            return budgets.Limits(said.reconnects_per_minute, said.reconnects_per_hour, day)
        if pool == "change":
            day = budgets.fleet_limit(fleet, said.changes_per_day_percent, said.changes_per_day_least)
            return budgets.Limits(said.changes_per_minute, said.changes_per_hour, day)
        day = budgets.fleet_limit(fleet, said.fleet_per_day_percent, said.fleet_per_day_least)
        return budgets.Limits(said.per_minute, said.per_hour, day)

    # The stop switch

    def stop(self, connection: Connection, principal: str, reason: str) -> int:
        """Set the switch: nothing critical leaves, approvals are void. Returns how many commands are held."""
        state = rows.control(connection)
        rows.set_control(connection, state._replace(stopped=True))
        held = rows.move_all(connection, machine.sources(Step.VOID), State.PROPOSED, "held by the stop switch")
        if not state.stopped or held:
            audit.append(connection, "stop", principal, "control", {"reason": reason, "held": held})
        return held

    def resume(self, connection: Connection, signer: Signs) -> int:
        """Take the switch back: a new generation begins, and what was approved before wants approving again.

        That is so whether or not the head-end has noticed a stop that was shorter than its look.

        Raises:
            NotAuthorised: the signer may not approve, or has not signed this.
        """
        if not signer.principal.may_approve:
            raise NotAuthorised(f"{signer.principal.name} may not resume; who may approve commands may")
        state = rows.control(connection)
        signer.sign("resume", state.generation, principals.RESUME)
        rows.move_all(connection, machine.sources(Step.VOID), State.PROPOSED, "approved before a resume")
        rows.set_control(connection, ControlRow(False, state.generation + 1, state.budget_us))
        audit.append(connection, "resume", signer.principal.name, "control", {"generation": state.generation + 1})
        return state.generation + 1

    # The never-disconnect list

    def protect(self, connection: Connection, meter_id: int, title: bytes, name: str, who: str, reason: str) -> bool:
        """Put a meter on the list; false if it is there."""
        since = now_us()
        added = rows.protect(connection, ProtectedRow(meter_id, title, name, who, reason, since, ""))
        if added:
            detail = {"meter": meter_id, "title": title.hex(), "reason": reason, "since": since}
            audit.append(connection, "protect", who, name, detail)
        return added

    def unprotect(self, connection: Connection, meter_id: int, signer: Signs) -> bool:
        """Ask for a meter to be taken off the list, or, as a second person, take it off. True once it is off.

        Raises:
            Refused: the same person again, or one who may not approve.
        """
        row = next((one for one in rows.protected_meters(connection) if one.meter_id == meter_id), None)
        if row is None:
            raise RequestError("this meter is not protected")
        who = signer.principal.name
        asked = removal_octets(row.meter_id, row.system_title)
        signature = signer.sign("unprotect", row.changed_us, asked)
        shown = [who, signature.octets.hex()]
        detail: dict[str, object] = {"meter": meter_id, "title": row.system_title.hex()}
        if not row.removal_by:
            if not signer.principal.may_request:
                raise NotAuthorised(f"{who} may not ask for this")
            rows.ask_removal(connection, meter_id, json.dumps(shown))
            audit.append(connection, "unprotect-asked", who, row.name, detail)
            return False
        first = json.loads(row.removal_by)
        detail["signatures"] = [first, shown]
        if not released_by_two(self.people, meter_id, row.system_title, row.changed_us, [first, shown]):
            audit.append(connection, "refused", who, row.name, {"why": "unprotect without a second person"})
            raise Refused(f"{row.name}: {first[0]} asked for it; a second person who may approve has to agree")
        rows.unprotect(connection, meter_id)
        audit.append(connection, "unprotect", who, row.name, detail)
        return True

    # Helpers

    def _approvals(self, connection: Connection, order: Order, octets: bytes, generation: int) -> Approved:
        requester = self._key_of(order.requester)
        names: dict[bytes, str] = {}
        for signature in map(Signature._make, rows.signatures(connection, order.order_id)):
            if signature.purpose != "approve" or signature.generation != generation:
                continue
            principal = principals.fits(self.people, signature, octets)
            if principal is None or not principal.may_approve:
                continue
            if principal.name != order.requester and principal.public_key != requester:
                names[principal.public_key] = principal.name
        return Approved(order.order_id, tuple(sorted(names.values())), self.approvers(len(order.targets)))

    def _order(self, connection: Connection, order_id: bytes) -> tuple[Order, bytes]:
        row = rows.order_of(connection, order_id)
        if row is None:
            raise RequestError(f"there is no order {orders.shown(order_id)}; `control list` shows all")
        return Order.decode(row.octets), row.octets

    def _expire(self, connection: Connection, order: Order) -> None:
        if order.not_after_us <= now_us():
            raise RequestError("not-after has passed; ask for it again")

    def _protected(self, connection: Connection, order: Order) -> list[str]:
        if order.kind not in orders.MAY_CUT:
            return []
        listed = rows.protected_meters(connection)
        numbers = {row.meter_id for row in listed}
        titles = {row.system_title for row in listed if row.system_title}
        hit = [target for target in order.targets if target.meter_id in numbers or target.system_title in titles]
        names = rows.groups_of(connection, [target.meter_id for target in hit])
        return [names.get(target.meter_id, (f"#{target.meter_id}",))[0] for target in hit]

    def _key_of(self, name: str) -> bytes | None:
        return next((one.public_key for one in self.people if one.name == name), None)

    def _refused(self, connection: Connection, order: Order, who: str, why: str) -> Refused:
        self._note(connection, "refused", who, order, {"why": why})
        return Refused(f"order {orders.shown(order.order_id)}: {why}")

    def _note(self, connection: Connection, kind: str, who: str, order: Order, detail: dict[str, object]) -> None:
        subject = orders.shown(order.order_id)
        audit.append(connection, kind, who, subject, {"kind": order.kind, **detail})
