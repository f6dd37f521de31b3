"""The server's part: picks up what the desk approved, releases it, and has it sent (`sending.py`).

One task, and one for each command on its way. The order of things is the promise:

    budget spent -> SENT with its audit record -> the gate -> octets -> answer -> read back -> the end; all durable

A crash between any two leaves a row that says no more than what happened. What was SENT when a process died becomes
UNKNOWN at the next start and is found out by reading; nothing is ever sent again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from sqlalchemy import Connection

from ipss_headend.config import Config
from ipss_headend.errors import (
    HeadEndError,
    StaleOwner,
    StoreDamaged,
    StoreError,
    StoreFailed,
    StoreFull,
    StoreUnavailable,
)
from ipss_headend.field.control import budgets, clock, clones, machine, orders, trail
from ipss_headend.field.control.desk import Desk
from ipss_headend.field.control.machine import State, Step
from ipss_headend.field.control.orders import Order
from ipss_headend.field.control.readback import ReadBack
from ipss_headend.field.control.rollout import Rollout
from ipss_headend.field.control.sending import Rules, Sending
from ipss_headend.field.fleet import FleetMeter
from ipss_headend.field.rekeying import Rekeying
from ipss_headend.field.requests import Requests
from ipss_headend.log import Logger, logger
from ipss_headend.metrics import Figures
from ipss_headend.security import audit
from ipss_headend.security.audit import AuditBroken, Notary
from ipss_headend.store import Store, log
from ipss_headend.store import commands as rows
from ipss_headend.store.commands import CommandRow, OrderRow
from ipss_headend.store.database import now_us

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ipss_headend import _core

    Work = Callable[[CommandRow], Awaitable[None]]

LOOK_S = 0.2
"""How often the rows are looked at: what the command line writes is picked up within this."""

AT_ONCE = 32
"""Commands of each of `PLACES` on their way: released, and not known to be lost."""

PLACES: tuple[tuple[str, ...], ...] = (
    tuple(sorted(orders.KINDS - budgets.CHANGES)),
    tuple(sorted(budgets.CHANGES - {"firmware"})),
    ("firmware",),
)
"""Kinds that wait for no others: an image takes hours, and supply is not to wait for one."""

FAULT_PAUSE_S = 5.0
"""After a fault of the head-end itself, before a command whose octets may have left is looked after again."""

SAY_AGAIN_S = 60.0
"""How often a trouble that stays is logged."""

CLOCK_S = 30.0
"""How often the budgets' clock is stored: a crash makes it no more than this slower."""


class Control:
    """Critical commands, while the server runs."""

    def __init__(
        self,
        *,
        config: Config,
        store: Store,
        reactor: _core.Reactor,
        gate: _core.Gate,
        requests: Requests,
        read_back: ReadBack,
        meters: Mapping[int, FleetMeter],
        figures: Figures,
        rekeying: Rekeying | None = None,
        written: Callable[[], None] = lambda: None,
        rules: Rules | None = None,
        doubted: dict[int, str] | None = None,
        wall_us: Callable[[], int] = now_us,
    ) -> None:
        """`written` is called when the log has grown, by whomever; `rules` may refuse what is approved.

        Without `rekeying` no meter's keys are changed. `doubted` are meters that two have proved to be; they are taken
        out of it once that is durable.
        """
        self.desk = Desk(config.control, config.principals, config.rollout)
        self._settings = config.control
        self._store = store
        self._reactor = reactor
        self._gate = gate
        self._meters = meters
        self._figures = figures
        self._written = written
        self._rules = rules
        self._sending = Sending(
            settings=config.control,
            store=store,
            reactor=reactor,
            gate=gate,
            requests=requests,
            read_back=read_back,
            meters=meters,
            figures=figures,
            rekeying=rekeying,
            rules=rules,
            admit=self._admit,
        )
        self._doubted = {} if doubted is None else doubted
        self._held: set[int] = set()
        self._judged: set[bytes] = set()
        self._judging: set[bytes] = set()
        self._wall_us = wall_us
        self._told = 0
        firmware = replace(
            config.rollout,
            failures_percent=config.control.firmware_failures_percent,
            rest_s=float(config.control.firmware_rest_s),
        )
        self._rollout = Rollout(store, config.rollout, wall_us, firmware)
        self._notary = Notary(config.audit.key_file, config.audit.checkpoints)
        self._log: Logger = logger("control")
        self._clock: budgets.BudgetClock
        self._budgets: budgets.Budgets
        self._orders: dict[bytes, Order] = {}
        self._admitted: set[bytes] = set()
        self._under_way: set[bytes] = set()
        self._places: tuple[set[bytes], ...] = tuple(set() for _ in PLACES)
        self._version = -1
        self._accepted: tuple[clock.Statement | None] | None = None
        self._open = False
        self._asked: str | None = None
        self._trouble: str | None = None
        self._older: audit.Checkpoint | None = None
        """The records before this one are not compared yet."""
        self._said = ("", 0.0)

    def ask_stop(self, who: str) -> None:
        """Set the stop switch, from this process: a signal, the RPC. At once; the rows follow."""
        self._gate.stop()
        self._asked = who
        touch(self._settings.stop_file)

    async def prepare(self) -> None:
        """Take over what an earlier process left. Before any meter is connected.

        Raises:
            AuditBroken: the audit trail is not what was written; somebody has to look before anything is switched.
        """
        copies = audit.load_checkpoints(self._notary.copies)
        since = self._older = trail.start(copies, self._wall_us())

        def take_over(connection: Connection) -> tuple[rows.ControlRow, budgets.Budgets, int]:
            found = audit.records(connection, since.seq - 1 if since else 0)
            verdict = audit.verify(found, copies[-1:], self._notary.public_key, since)
            if verdict.first_bad is not None:
                raise AuditBroken(f"audit trail: {verdict.problem}; `ipss-headend audit verify` shows more")
            rows.set_control(connection, trail.switch_ever(connection))
            state = rows.control(connection)
            lost = rows.commands_in(connection, (State.SENT,))
            for one in lost:
                rows.move(connection, [one.command_id], (State.SENT,), State.UNKNOWN, detail="the head-end ended")
            audit.append(connection, "start", "head-end", "control", {"unknown": len(lost)})
            return state, self.desk.spent(connection), rows.fleet_size(connection)

        state, self._budgets, fleet = await self._store.change(take_over, spend_reserve=True)
        self._clock = budgets.BudgetClock(state.budget_us, time.monotonic)
        await self._believe()
        found = await self._store.read(lambda connection: clock.doubt(connection, self.desk.people, self._wall_us()))
        if found is not None:
            self._complain(str(found))
        cut, reconnect = self.desk.limits("cut", fleet), self.desk.limits("reconnect", fleet)
        change = self.desk.limits("change", fleet)
        self._gate.limit(cut.fleet_per_day, reconnect.fleet_per_day, change.fleet_per_day)
        for name, pool in self._budgets.pools.items():
            ages_s = [age_us / 1e6 for age_us in pool.ages_us(self._clock.now_us())]
            self._reactor.count(ages_s, name)
        self._gate.spend(await self._store.read(trail.sent_ever))
        await self._mirror()
        await self._confirm_owner()

    async def run(self) -> None:
        """Do what is approved, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._checkpoints)
            nursery.start_soon(self._keep_lease)
            nursery.start_soon(trail.look_back, self._store, self._older, self.ask_stop)
            for one in await self._store.read(lambda connection: rows.commands_in(connection, (State.UNKNOWN,))):
                self._start(nursery, one, self._sending.resolve)
            while True:
                try:
                    await self._look(nursery)
                    self._trouble = None
                except (StoreFailed, StaleOwner, StoreDamaged):
                    raise
                except StoreError as error:
                    # Nothing was written, so nothing was done: the next look finds the same.
                    self._complain(f"the audit trail cannot be written: {error}")
                await trio.sleep(LOOK_S)

    async def _keep_lease(self) -> None:
        while True:
            await trio.sleep(self._settings.lease_s / 4)
            # What ends the process goes up; while the store is away, the lease runs out.
            with suppress(StoreUnavailable, StoreFull):
                await self._confirm_owner()

    async def _confirm_owner(self) -> None:
        """Have the store say that this process owns it, and tell the gate (R8)."""
        asked_s = self._gate.awake_s()
        await self._store.change(_nothing, spend_reserve=True)
        self._gate.lease(asked_s, self._settings.lease_s, self._wall_us())

    async def _look(self, nursery: trio.Nursery) -> None:
        if self._doubted:
            await self._keep_doubts()

        def view(connection: Connection) -> tuple[rows.ControlRow, dict[str, int], int, int]:
            counts = rows.counts(connection, machine.OPEN)
            return rows.control(connection), counts, rows.protected_version(connection), log.newest(connection)

        state, counts, version, told = await self._store.read(view)
        if told != self._told:
            # The command line writes as a guest of the store: whoever waits for the log hears of that, too.
            self._told = told
            self._written()
        self._figures.commands = counts
        if version != self._version:
            await self._mirror()
        if not await self._switch(state):
            return
        if any(counts.get(open_state) for open_state in machine.BEFORE_SENT):
            await self._expire()
        if counts.get(State.APPROVED):
            for order in await self._store.read(lambda connection: rows.orders_in(connection, (State.APPROVED,))):
                if await self._judged_well(nursery, order):
                    await self._release(order)
        if counts.get(State.RELEASED):
            await self._start_due(nursery)

    async def _start_due(self, nursery: trio.Nursery) -> None:
        moment_us = self._wall_us()
        for kinds, places in zip(PLACES, self._places, strict=True):
            places &= self._under_way - self._sending.lost
            if (room := AT_ONCE - len(places)) <= 0:
                continue
            waiting = await self._store.read(
                lambda connection, kinds=kinds: rows.due(  # type: ignore[misc]
                    connection, State.RELEASED, moment_us, AT_ONCE * 2, kinds
                )
            )
            for one in [one for one in waiting if one.command_id not in self._under_way][:room]:
                places.add(one.command_id)
                self._start(nursery, one, self._sending.send)

    def _start(self, nursery: trio.Nursery, one: CommandRow, work: Work) -> None:
        self._under_way.add(one.command_id)
        nursery.start_soon(self._guarded, one, work)

    async def _guarded(self, one: CommandRow, work: Work) -> None:
        """Follow a command to its end; a fault on the way, ours or brought on by a meter, leaves none open unheard."""
        number = one.command_id
        left: CommandRow | None = one
        try:
            while left is not None:
                try:
                    await work(left)
                    left = None
                except (StoreFailed, StaleOwner, StoreDamaged):
                    raise
                except Exception as error:  # noqa: BLE001 - round a subject's task: one command's fault harms no other
                    self._log.exception("a command's task failed", command=orders.shown(number))
                    left, work = (
                        await self._after_fault(number, ours=not isinstance(error, HeadEndError)),
                        self._sending.resolve,
                    )
        finally:
            self._under_way.discard(number)
            self._sending.lost.discard(number)

    async def _after_fault(self, number: bytes, *, ours: bool) -> CommandRow | None:
        """The command, if its octets may have left: it is to be found out by reading, and somebody is told."""
        while True:
            try:
                now = await self._store.read(lambda connection: rows.command_of(connection, number))
                if now is None or (now.state not in machine.ON_WIRE and not ours):
                    return None  # what has not left is tried again by a later look
                if now.state == State.RELEASED:
                    await self._sending.end(now, Step.REFUSE, "a fault of the head-end: its log tells")
                if now.state not in machine.ON_WIRE:
                    return None
                if now.state == State.SENT:
                    await self._sending.end(now, Step.LOSE, "a fault of the head-end: its log tells")
                if not now.alarmed:
                    await self._store.change(partial(self._sending.alarm, one=now), spend_reserve=True)
            except (StoreFailed, StaleOwner, StoreDamaged):
                raise
            except Exception:  # noqa: BLE001 - as above; the store may be full or away for a while
                self._log.exception("what became of a command cannot be stored", command=orders.shown(number))
                await trio.sleep(FAULT_PAUSE_S)
                continue
            self._sending.lost.add(number)
            await trio.sleep(FAULT_PAUSE_S)
            return now._replace(state=State.UNKNOWN, alarmed=1)

    # The stop switch

    async def _switch(self, state: rows.ControlRow) -> bool:
        """Follow the stop switch; whether anything may go."""
        if state.stopped and not self._gate.stopped:
            # Once only: a look that is later than a resume must not put the file back.
            self._gate.stop()
            touch(self._settings.stop_file)
        elif self._gate.stopped and not state.stopped and not self._open and self._asked is None:
            # A file that somebody took away is no resume: that is a row, and a signature.
            self._open = self._gate.resume(state.generation)
        elif self._open and not state.stopped and self._asked is None and self._gate.generation != state.generation:
            # Somebody resumed what was not seen stopped, or a stop that no look has seen: that stop is over, approvals
            # of before count no more, and later ones do.
            self._gate.stop()
            self._admitted.clear()
            self._judged.clear()
            self._open = self._gate.resume(state.generation)
        if self._gate.stopped and (self._open or self._asked or not state.stopped):
            who = self._asked or "stop file"
            held = await self._store.change(
                lambda connection: self.desk.stop(connection, who, "set while running"), spend_reserve=True
            )
            self._log.warning("stopped", by=who, held=held)
            self._asked = None
        if self._gate.stopped:
            self._open = False
            self._admitted.clear()
            self._judged.clear()
        self._figures.control_stopped = self._gate.stopped
        return self._open and self._trouble is None

    # From approved to sent

    async def _expire(self) -> None:
        moment_us = self._wall_us()

        def expire(connection: Connection) -> int:
            late = [one for one in rows.orders_in(connection, machine.BEFORE_SENT) if one.not_after_us <= moment_us]
            for one in late:
                count = rows.move_order(connection, one.order_id, machine.sources(Step.EXPIRE), State.EXPIRED)
                audit.append(connection, "expire", "head-end", orders.shown(one.order_id), {"commands": count})
            return len(late)

        if await self._store.read(
            lambda connection: any(
                one.not_after_us <= moment_us for one in rows.orders_in(connection, machine.BEFORE_SENT)
            )
        ):
            await self._store.change(expire, spend_reserve=True)

    async def _judged_well(self, nursery: trio.Nursery, row: OrderRow) -> bool:
        """Whether the rules let an order be released. They are asked beside the look, which waits for no plugin."""
        if self._rules is None or row.order_id in self._judged:
            return True
        if row.order_id not in self._judging:
            self._judging.add(row.order_id)
            nursery.start_soon(self._judge, self._rules, row)
        return False

    async def _judge(self, rules: Rules, row: OrderRow) -> None:
        try:
            order = Order.decode(row.octets)
            found = (self._meters.get(target.meter_id) for target in order.targets)
            why = await rules.asked(order.requester, order.kind, [meter.name for meter in found if meter is not None])
            if why is None:
                self._judged.add(row.order_id)
                return
            await self._store.change(
                lambda connection: self._refuse_order(connection, row.order_id, why, "rules"), spend_reserve=True
            )
        except (StoreFailed, StaleOwner, StoreDamaged):
            raise
        except Exception:  # noqa: BLE001 - round a subject's task: one order's fault harms no other
            self._log.exception("an order could not be judged; it stays approved", order=orders.shown(row.order_id))
        finally:
            self._judging.discard(row.order_id)

    async def _release(self, row: OrderRow) -> None:
        """Let through what signatures, list, rings and budgets allow; the rest waits, is refused or quarantined."""
        order = await self._admit(row)
        if order is None:
            return
        if order.kind in budgets.CHANGES:
            commands = await self._rollout.next(order)
        else:
            commands = await self._store.read(lambda connection: rows.commands_of(connection, row.order_id))
        meters = {target.command_id: target.meter_id for target in order.targets}
        going: list[bytes] = []
        held: dict[str, list[bytes]] = {}
        wrong: list[bytes] = []
        spends: list[tuple[str, str, str, int, bytes]] = []
        for one in commands:
            if one.state != State.APPROVED or one.quarantined:
                continue
            meter = self._meters.get(one.meter_id)
            if meters.get(one.command_id) != one.meter_id or meter is None:
                wrong.append(one.command_id)
                continue
            spend = budgets.Spend(order.requester, meter.group, self._clock.now_us())
            why = self._budgets.take(order.kind, spend)
            if why is None:
                going.append(one.command_id)
                spends.append((budgets.pool_of(order.kind), *spend, one.command_id))
            elif order.kind in budgets.CHANGES:
                break  # a ring takes the time that its budget wants
            else:
                held.setdefault(why, []).append(one.command_id)
        if not (going or held or wrong):
            return
        window_us = self._settings.reconnect_window_s * 1_000_000 if order.kind in orders.STAGGERED else 0
        start_us = self._wall_us()
        due_us = [start_us + window_us * place // max(len(going) - 1, 1) for place in range(len(going))]

        def write(connection: Connection) -> None:
            rows.spend(connection, spends)
            moved = rows.move(connection, going, machine.sources(Step.RELEASE), State.RELEASED, due_us=due_us)
            rows.move(connection, wrong, machine.sources(Step.REFUSE), State.FAILED, detail="no part of the order")
            for why, numbers in held.items():
                rows.quarantine(connection, numbers, f"over budget: {why}")
            rows.set_control(connection, rows.control(connection)._replace(budget_us=self._clock.now_us()))
            detail = {"released": moved, "quarantined": {why: len(numbers) for why, numbers in held.items()}}
            audit.append(connection, "release", "head-end", orders.shown(order.order_id), detail)

        try:
            await self._store.change(write, spend_reserve=True)
        except StoreError:
            # The next look takes them again: a full disk must not use the budgets up.
            for _, principal, group, at_us, _ in spends:
                self._budgets.give_back(order.kind, budgets.Spend(principal, group, at_us))
            raise
        if held:
            self._log.warning("over budget", order=orders.shown(order.order_id), held=sum(map(len, held.values())))

    async def _admit(self, row: OrderRow) -> Order | None:
        """The order, once the gate has taken it."""
        if row.order_id in self._admitted:
            return self._orders[row.order_id]
        signatures = await self._store.read(lambda connection: rows.signatures(connection, row.order_id))
        counted = [one for one in signatures if one[0] in {"propose", "approve"}]
        try:
            self._reactor.admit(row.octets, counted)
            order = Order.decode(row.octets)
        except (PermissionError, HeadEndError, ValueError) as error:
            if self._gate.stopped or "clock" in str(error):
                self._complain(str(error))
                return None
            why = str(error)
            await self._store.change(
                lambda connection: self._refuse_order(connection, row.order_id, why), spend_reserve=True
            )
            return None
        self._admitted.add(row.order_id)
        self._orders[row.order_id] = order
        return order

    def _refuse_order(self, connection: Connection, order_id: bytes, why: str, by: str = "gate") -> None:
        count = rows.move_order(connection, order_id, machine.sources(Step.REFUSE), State.FAILED, f"refused: {why}")
        audit.append(connection, "refused", by, orders.shown(order_id), {"why": why, "commands": count})
        self._log.error("order refused", order=orders.shown(order_id), why=why)

    # What protects and holds, and what witnesses

    async def _mirror(self) -> None:
        """The never-disconnect list into the gate: what the rows say and what the audit trail says, together."""
        self._version, listed, released = await self._store.read(
            lambda connection: trail.protected_ever(connection, self.desk.people)
        )
        self._gate.unprotect(released)
        self._gate.protect(listed)
        held = await self._store.read(lambda connection: clones.held(connection, self.desk.people))
        self._gate.clear([meter for meter in self._held if meter not in held])
        self._gate.hold([(hold.meter_id, hold.why) for hold in held.values()])
        self._held = set(held)
        self._sending.held_titles = {hold.system_title for hold in held.values()}
        await self._believe()

    async def _believe(self) -> None:
        """Tell the gate what time it is at least; again only when people have said that this was wrong."""
        accepted, newest_us = await self._store.read(
            lambda connection: (
                clock.accepted(connection, self.desk.people),
                clock.believed_us(connection, self.desk.people),
            )
        )
        if self._accepted is None or accepted != self._accepted[0]:
            self._accepted = (accepted,)
            self._reactor.believe(newest_us)

    async def _keep_doubts(self) -> None:
        """Meters that two have proved to be: the gate holds them already, now it is durable."""
        noted = dict(self._doubted)

        def write(connection: Connection) -> None:
            for meter_id, why in noted.items():
                meter = self._meters.get(meter_id)
                title = b"" if meter is None or meter.system_title is None else meter.system_title
                name = f"#{meter_id}" if meter is None else meter.name
                clones.find(connection, self.desk.people, meter_id, title, name, why)

        await self._store.change(write, spend_reserve=True)
        for meter_id in noted:
            self._doubted.pop(meter_id, None)

    async def _checkpoints(self) -> None:
        last_seq, last_s, stored_s = 0, 0.0, trio.current_time()
        while True:
            # On a full disk there is no new record either, and nothing critical: it is signed when there is room (R5).
            with suppress(StoreFull):
                seq, _ = await self._store.read(audit.newest)
                late = trio.current_time() - last_s >= audit.CHECKPOINT_S
                if seq > last_seq and (late or seq - last_seq >= audit.CHECKPOINT_RECORDS):
                    checkpoint = await self._store.change(self._notary.sign, spend_reserve=True)
                    if checkpoint is not None:
                        try:
                            await trio.to_thread.run_sync(self._notary.copy, checkpoint)
                        except OSError as error:
                            self._complain(f"{self._notary.copies}: no checkpoint can be copied: {error}")
                            self._gate.stop()
                    last_seq, last_s = seq, trio.current_time()
                if trio.current_time() - stored_s >= CLOCK_S:
                    await self._store.change(self._keep_clock, spend_reserve=True)
                    stored_s = trio.current_time()
            await trio.sleep(1.0)

    def _keep_clock(self, connection: Connection) -> None:
        rows.set_control(connection, rows.control(connection)._replace(budget_us=self._clock.now_us()))

    def _complain(self, why: str) -> None:
        # Each look finds the same again: it is said once, and again after a while.
        if self._trouble != why and (self._said[0] != why or trio.current_time() >= self._said[1]):
            self._log.error("no critical command leaves", why=why)
            self._said = (why, trio.current_time() + SAY_AGAIN_S)
        self._trouble = why


def _nothing(_: Connection) -> None:
    """A transaction that only finds out whether the store is ours."""


def touch(path: Path) -> None:
    """Make the stop file, if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
