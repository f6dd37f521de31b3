"""The server's part: picks up what the desk approved, releases it, sends it once, reads back, resolves what is unknown.

One task, and one for each command on its way. The order of things is the promise:

    budget spent -> SENT with its audit record -> the gate -> octets -> answer -> read back -> the end; all durable

A crash between any two leaves a row that says no more than what happened. What was SENT when a process died becomes
UNKNOWN at the next start and is found out by reading; nothing is ever sent again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import trio
from sqlalchemy import Connection

from ipss_headend.config import Config
from ipss_headend.errors import (
    HeadEndError,
    RequestError,
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
from ipss_headend.field.control.orders import Effect, Order
from ipss_headend.field.control.readback import ReadBack, Seen
from ipss_headend.field.control.rollout import Rollout
from ipss_headend.field.fleet import FleetMeter
from ipss_headend.field.reactor import Outcome
from ipss_headend.field.rekeying import Has, Rekeying
from ipss_headend.field.requests import GRACE_S, Requests
from ipss_headend.log import Logger, logger
from ipss_headend.metrics import Figures
from ipss_headend.security import audit, rotation
from ipss_headend.security.audit import AuditBroken, Notary
from ipss_headend.store import Store, log
from ipss_headend.store import commands as rows
from ipss_headend.store.commands import CommandRow, OrderRow
from ipss_headend.store.database import now_us
from ipss_headend.store.journal import EndRow

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

ALARM_S = 45.0
"""R14: a command whose fate is not known for so long is an alarm, well within the minute."""

SLOWEST_S = 60.0
"""Between two tries to find out what became of a command."""

TEMPORARY_FAILURE = "action-result 2"

SAY_AGAIN_S = 60.0
"""How often a trouble that stays is logged."""
CLOCK_S = 30.0
"""How often the budgets' clock is stored: a crash makes it no more than this slower."""


class Rules(Protocol):
    """Who else has a say in commands: it may refuse, and can send nothing (`plugins/judge.py`)."""

    @property
    def looks(self) -> bool:
        """It wants to know a device's state before a command leaves."""

    async def asked(self, actor: str, action: str, targets: Sequence[str]) -> str | None:
        """Why this may not be asked for."""

    async def leaves(
        self, command: Mapping[str, object], device_state: Mapping[str, object], reason: str, *, cuts: bool
    ) -> str | None:
        """Why a command may not leave now."""


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
        self._requests = requests
        self._read_back = read_back
        self._meters = meters
        self._figures = figures
        self._rekeying = rekeying
        self._written = written
        self._rules = rules
        self._doubted = {} if doubted is None else doubted
        self._held: set[int] = set()
        self._held_titles: set[bytes] = set()
        """Of these meters: one that was retired and came back has another number."""
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
        self._lost: set[bytes] = set()
        """Of those: what is being found out by reading, for as long as a meter is silent. It takes no place."""
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
                self._start(nursery, one, self._resolve)
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
            places &= self._under_way - self._lost
            if (room := AT_ONCE - len(places)) <= 0:
                continue
            waiting = await self._store.read(
                lambda connection, kinds=kinds: rows.due(  # type: ignore[misc]
                    connection, State.RELEASED, moment_us, AT_ONCE * 2, kinds
                )
            )
            for one in [one for one in waiting if one.command_id not in self._under_way][:room]:
                places.add(one.command_id)
                self._start(nursery, one, self._send)

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
                        self._resolve,
                    )
        finally:
            self._under_way.discard(number)
            self._lost.discard(number)

    async def _after_fault(self, number: bytes, *, ours: bool) -> CommandRow | None:
        """The command, if its octets may have left: it is to be found out by reading, and somebody is told."""
        while True:
            try:
                now = await self._store.read(lambda connection: rows.command_of(connection, number))
                if now is None or (now.state not in machine.ON_WIRE and not ours):
                    return None  # what has not left is tried again by a later look
                if now.state == State.RELEASED:
                    await self._end(now, Step.REFUSE, "a fault of the head-end: its log tells")
                if now.state not in machine.ON_WIRE:
                    return None
                if now.state == State.SENT:
                    await self._end(now, Step.LOSE, "a fault of the head-end: its log tells")
                if not now.alarmed:
                    await self._store.change(partial(self._alarm, one=now), spend_reserve=True)
            except (StoreFailed, StaleOwner, StoreDamaged):
                raise
            except Exception:  # noqa: BLE001 - as above; the store may be full or away for a while
                self._log.exception("what became of a command cannot be stored", command=orders.shown(number))
                await trio.sleep(FAULT_PAUSE_S)
                continue
            self._lost.add(number)
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

    async def _send(self, one: CommandRow) -> None:
        """Send a released command, once, and follow it to its end."""
        row = await self._store.read(lambda connection: rows.order_of(connection, one.order_id))
        order = await self._admit(row) if row is not None else None
        if order is None:
            return
        title = next((target.system_title for target in order.targets if target.meter_id == one.meter_id), b"")
        if self._gate.holds(one.meter_id) or (title and title in self._held_titles):
            await self._end(one, Step.REFUSE, "held: two have proved to be this meter; `control clear` it first")
            return
        if order.expected == "ready":
            why = await self._read_back.refuses_ready(one.meter_id)
            if why is not None:
                await self._end(one, Step.REFUSE, why)
                return
        if self._rules is not None:
            why = await self._ask_rules(self._rules, one, order)
            if why is not None:
                await self._end(one, Step.REFUSE, why)
                return
        if order.kind == "firmware" and self._read_back.firmware is not None:
            why = await self._read_back.firmware.prepare(one, order, lambda: self._goes_on(one))
            if why is None:
                return
            if why:
                await self._end(one, Step.REFUSE, why)
                return
        made = b""
        if _changes_keys(order):
            try:
                made = await self._new_keys(one, order)
            except RequestError as error:
                await self._end(one, Step.REFUSE, str(error))
                return
        devices = self._read_back.devices if order.kind in orders.DER else None
        if devices is not None:
            why = await devices.refuses(one.meter_id, order)
            if why is not None:
                await self._end(one, Step.REFUSE, why)
                return
            await devices.begin(one.meter_id, order)
        try:
            if not await self._mark_sent(one, order):
                if devices is not None:
                    await devices.end(one.meter_id, order, confirmed=False)
                return
        except RequestError as error:
            await self._end(one, Step.REFUSE, str(error))
            return
        try:
            request = self._reactor.release(one.order_id, one.command_id, self._settings.answer_s, made)
        except (PermissionError, RuntimeError) as error:
            await self._unsent(one, order, str(error))
            return
        left = True
        try:
            outcome, detail, refused = await self._await_end(request, one.meter_id)
        finally:
            # Whatever happens here, nothing of it leaves later.
            left = self._reactor.settle(request)
        if left and _changes_master(order) and self._rekeying is not None:
            await self._master_answered(self._rekeying, one, order, outcome, detail, refused)
            return
        if left and _changes_keys(order) and self._rekeying is not None:
            self._rekeying.doubt(one.meter_id, old_first=outcome is Outcome.REFUSED)
        if not left:
            await self._unsent(one, order, detail or outcome.label)
        elif outcome is Outcome.DONE or (order.kind == "firmware" and detail.endswith(TEMPORARY_FAILURE)):
            # A meter that is busy with its new firmware says so by a temporary failure.
            await self._confirm(one, order)
        elif outcome is Outcome.REFUSED:
            await self._end(one, Step.FAIL, f"the meter refused{detail}")
        else:
            await self._end(one, Step.LOSE, detail or outcome.label)
            await self._resolve(one)

    async def _master_answered(
        self,
        rekeying: Rekeying,
        one: CommandRow,
        order: Order,
        outcome: Outcome,
        detail: str,
        refused: dict[int, int],
    ) -> None:
        """Which master key the meter has, as far as its answer tells; both are kept until it does."""
        has = Has.EITHER
        if outcome in {Outcome.DONE, Outcome.REFUSED}:
            has = await rekeying.master_answered(one.meter_id, refused)
        if has is Has.NEW:
            await self._confirm(one, order)
        elif has is Has.OLD:
            await self._end(one, Step.FAIL, f"the meter refused{detail}")
        else:
            why = "its master key is in doubt, both are kept: ask again with `keys rotate --master`"
            await self._end(one, Step.LOSE, f"{why} ({detail or outcome.label})")
            await self._resolve(one)

    async def _goes_on(self, one: CommandRow) -> bool:
        """Whether a command that is being prepared may be sent: not stopped, cancelled or expired meanwhile."""
        now = await self._store.read(lambda connection: rows.command_of(connection, one.command_id))
        return not self._gate.stopped and now is not None and now.state == State.RELEASED

    def _patience_s(self, order: Order, usual_s: float) -> float:
        """How long a meter may take until it is as an order wants it."""
        return max(self._settings.activation_s, usual_s) if order.kind == "firmware" else usual_s

    async def _ask_rules(self, rules: Rules, one: CommandRow, order: Order) -> str | None:
        meter = self._meters.get(one.meter_id)
        state: dict[str, object] = {}
        if rules.looks and order.kind in {"disconnect", "reconnect"}:
            with suppress(HeadEndError):
                found = await self._read_back.state(one.meter_id)
                state = dict(zip(("output", "control_state", "control_mode"), found, strict=True))
        command = {
            "id": orders.shown(one.command_id),
            "order": orders.shown(one.order_id),
            "point": None if meter is None else meter.name,
            "group": None if meter is None else meter.group,
            "kind": order.kind,
            "requester": order.requester,
        }
        cuts = order.kind in orders.MAY_CUT
        return await rules.leaves(command, state, order.reason, cuts=cuts)

    async def _mark_sent(self, one: CommandRow, order: Order) -> int:
        """Make SENT durable, with its audit record, before an octet leaves."""
        return await self._store.change(lambda connection: self._sent(connection, one, order), spend_reserve=True)

    def _sent(self, connection: Connection, one: CommandRow, order: Order) -> int:
        moved = rows.move(connection, [one.command_id], machine.sources(Step.SEND), State.SENT)
        sending = rotation.sending_master if _changes_master(order) else rotation.sending
        if moved and _changes_keys(order) and not sending(connection, one.meter_id):
            raise RequestError("another change of its keys is under way")
        if moved:
            detail = {"command": orders.shown(one.command_id), "kind": order.kind, "meter": one.meter_id}
            audit.append(connection, "sent", "head-end", orders.shown(one.order_id), detail)
        return moved

    async def _new_keys(self, one: CommandRow, order: Order) -> bytes:
        """The parameters of a key transfer; the keys in them are durable.

        Raises:
            RequestError: the meter's keys cannot be changed.
        """
        if self._rekeying is None:
            raise RequestError("this head-end changes no keys")
        prepare = self._rekeying.prepare_master if _changes_master(order) else self._rekeying.prepare
        return await prepare(one.meter_id, order.requester)

    async def _unsent(self, one: CommandRow, order: Order, why: str) -> None:
        """It failed, and nothing of it left or ever will."""
        if _changes_keys(order):
            withdrawn = rotation.withdrawn_master if _changes_master(order) else rotation.withdrawn
            await self._store.change(lambda connection: withdrawn(connection, one.meter_id), spend_reserve=True)
        await self._end(one, Step.FAIL, f"not sent: {why}")

    async def _await_end(self, request: int, meter: int) -> tuple[Outcome, str, dict[int, int]]:
        """How it ended, in words too, and what was refused: the result of each item by its place."""
        ends: list[EndRow] = []
        codes: dict[int, int] = {}
        submission = self._requests.follow(
            request, meter, on_end=ends.append, on_refusal=lambda refusal: codes.__setitem__(refusal[2], refusal[3])
        )
        with trio.move_on_after(self._settings.answer_s + GRACE_S):
            await self._requests.finish([submission])
        if not ends:
            return Outcome.UNKNOWN, "no end was reported", {}
        outcome = Outcome(ends[0][2])
        said = f": action-result {next(iter(codes.values()))}" if codes else ends[0][5]
        return outcome, said, codes

    # From sent to the end

    async def _confirm(self, one: CommandRow, order: Order) -> None:
        """The meter said yes: see whether it is so (R20)."""
        started = trio.current_time()
        pause_s = 0.5
        while True:
            seen = await self._read_back.look(one.meter_id, order)
            if seen is Seen.AS_WANTED:
                await self._end(one, Step.CONFIRM, "")
                return
            if trio.current_time() - started >= self._patience_s(order, self._settings.read_back_s):
                break
            await trio.sleep(pause_s)
            pause_s = min(pause_s * 2, 5.0)
        if seen is Seen.OTHERWISE:
            await self._end(one, Step.FAIL, f"the meter said yes and is not {order.expected}", alarm=True)
        else:
            await self._end(one, Step.LOSE, "the meter said yes and cannot be read")
            await self._resolve(one)

    async def _resolve(self, one: CommandRow) -> None:
        """Find out what became of a command, by reading; never by sending."""
        self._lost.add(one.command_id)
        row = await self._store.read(lambda connection: rows.order_of(connection, one.order_id))
        if row is None:
            return
        order = Order.decode(row.octets)
        started = trio.current_time()
        alarm_at_s = started + self._patience_s(order, ALARM_S)
        alarmed, pause_s = bool(one.alarmed), 0.5
        while True:
            # A moment, not what is left until it: rounded, that ends before it and is asked for again at once.
            with trio.move_on_at(trio.current_time() + SLOWEST_S if alarmed else alarm_at_s):
                seen = await self._read_back.look(one.meter_id, order)
                waited_s = trio.current_time() - started
                if seen is Seen.AS_WANTED:
                    await self._end(one, Step.CONFIRM, "found by reading")
                    return
                if seen is Seen.OTHERWISE and waited_s >= self._patience_s(order, self._settings.read_back_s):
                    await self._end(one, Step.FAIL, f"found by reading: not {order.expected}", alarm=True)
                    return
                await trio.sleep(pause_s)
            pause_s = min(pause_s * 2, SLOWEST_S if alarmed else 5.0)
            if not alarmed and trio.current_time() >= alarm_at_s:
                alarmed = True
                await self._store.change(lambda connection: self._alarm(connection, one), spend_reserve=True)

    async def _end(self, one: CommandRow, step: Step, detail: str, *, alarm: bool = False) -> None:
        def write(connection: Connection) -> None:
            to = machine.step(machine.sources(step)[0], step)
            moved = rows.move(connection, [one.command_id], machine.sources(step), to, detail=detail)
            if moved:
                note = {"command": orders.shown(one.command_id), "meter": one.meter_id, "detail": detail}
                audit.append(connection, to, "head-end", orders.shown(one.order_id), note)
                if alarm:
                    self._alarm(connection, one)

        await self._store.change(write, spend_reserve=True)
        if step in {Step.CONFIRM, Step.FAIL} and self._read_back.devices is not None:
            row = await self._store.read(lambda connection: rows.order_of(connection, one.order_id))
            if row is not None and row.kind in orders.DER:
                await self._read_back.devices.end(
                    one.meter_id, Order.decode(row.octets), confirmed=step is Step.CONFIRM
                )
        log = self._log.warning if step is not Step.CONFIRM else self._log.info
        log("command", meter=self._name(one), state=machine.step(machine.sources(step)[0], step).value, detail=detail)

    def _alarm(self, connection: Connection, one: CommandRow) -> None:
        rows.alarm(connection, one.command_id)
        detail = {"command": orders.shown(one.command_id), "meter": one.meter_id}
        audit.append(connection, "alarm", "head-end", orders.shown(one.order_id), detail)
        self._figures.command_alarms += 1
        self._log.error("alarm: look at this meter", meter=self._name(one), command=orders.shown(one.command_id))

    def _name(self, one: CommandRow) -> str:
        meter = self._meters.get(one.meter_id)
        return f"#{one.meter_id}" if meter is None else meter.name

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
        self._held_titles = {hold.system_title for hold in held.values()}
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


def _changes_keys(order: Order) -> bool:
    return isinstance(order.effect, Effect) and order.effect.service == "key-transfer"


def _changes_master(order: Order) -> bool:
    return isinstance(order.effect, Effect) and _changes_keys(order) and order.effect.value == orders.MASTER_KEY


def touch(path: Path) -> None:
    """Make the stop file, if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
