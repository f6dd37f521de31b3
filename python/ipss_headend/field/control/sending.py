"""One command's way from released to its end: sent once, read back, and found out by reading where that is in doubt."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import trio
from sqlalchemy import Connection

from ipss_headend.config import ControlConfig
from ipss_headend.errors import HeadEndError, RequestError
from ipss_headend.field.control import machine, orders
from ipss_headend.field.control.machine import State, Step
from ipss_headend.field.control.orders import Effect, Order
from ipss_headend.field.control.readback import ReadBack, Seen
from ipss_headend.field.fleet import FleetMeter
from ipss_headend.field.reactor import Outcome
from ipss_headend.field.rekeying import Has, Rekeying
from ipss_headend.field.requests import GRACE_S, Requests
from ipss_headend.log import Logger, logger
from ipss_headend.metrics import Figures
from ipss_headend.security import audit, rotation
from ipss_headend.store import Store
from ipss_headend.store import commands as rows
from ipss_headend.store.commands import CommandRow, OrderRow
from ipss_headend.store.journal import EndRow

if TYPE_CHECKING:
    from ipss_headend import _core

ALARM_S = 45.0
"""R14: a command whose fate is not known for so long is an alarm, well within the minute."""

SLOWEST_S = 60.0
"""Between two tries to find out what became of a command."""

TEMPORARY_FAILURE = "action-result 2"


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


class Sending:
    """Sends commands that the gate lets through, and follows each."""

    def __init__(
        self,
        *,
        settings: ControlConfig,
        store: Store,
        reactor: _core.Reactor,
        gate: _core.Gate,
        requests: Requests,
        read_back: ReadBack,
        meters: Mapping[int, FleetMeter],
        figures: Figures,
        rekeying: Rekeying | None,
        rules: Rules | None,
        admit: Callable[[OrderRow], Awaitable[Order | None]],
    ) -> None:
        """`admit` gives an order once the gate has taken it; without `rekeying` no meter's keys are changed."""
        self._settings = settings
        self._store = store
        self._reactor = reactor
        self._gate = gate
        self._requests = requests
        self._read_back = read_back
        self._meters = meters
        self._figures = figures
        self._rekeying = rekeying
        self._rules = rules
        self._admit = admit
        self._log: Logger = logger("control")
        self.held_titles: set[bytes] = set()
        """Of meters that two have proved to be: one that was retired and came back has another number."""
        self.lost: set[bytes] = set()
        """Commands that are being found out by reading, for as long as a meter is silent. They take no place."""

    async def send(self, one: CommandRow) -> None:
        """Send a released command, once, and follow it to its end."""
        row = await self._store.read(lambda connection: rows.order_of(connection, one.order_id))
        order = await self._admit(row) if row is not None else None
        if order is None:
            return
        title = next((target.system_title for target in order.targets if target.meter_id == one.meter_id), b"")
        if self._gate.holds(one.meter_id) or (title and title in self.held_titles):
            await self.end(one, Step.REFUSE, "held: two have proved to be this meter; `control clear` it first")
            return
        if order.expected == "ready":
            why = await self._read_back.refuses_ready(one.meter_id)
            if why is not None:
                await self.end(one, Step.REFUSE, why)
                return
        if self._rules is not None:
            why = await self._ask_rules(self._rules, one, order)
            if why is not None:
                await self.end(one, Step.REFUSE, why)
                return
        if order.kind == "firmware" and self._read_back.firmware is not None:
            why = await self._read_back.firmware.prepare(one, order, lambda: self._goes_on(one))
            if why is None:
                return
            if why:
                await self.end(one, Step.REFUSE, why)
                return
        made = b""
        if _changes_keys(order):
            try:
                made = await self._new_keys(one, order)
            except RequestError as error:
                await self.end(one, Step.REFUSE, str(error))
                return
        devices = self._read_back.devices if order.kind in orders.DER else None
        if devices is not None:
            why = await devices.refuses(one.meter_id, order)
            if why is not None:
                await self.end(one, Step.REFUSE, why)
                return
            await devices.begin(one.meter_id, order)
        try:
            if not await self._mark_sent(one, order):
                if devices is not None:
                    await devices.end(one.meter_id, order, confirmed=False)
                return
        except RequestError as error:
            await self.end(one, Step.REFUSE, str(error))
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
            await self.end(one, Step.FAIL, f"the meter refused{detail}")
        else:
            await self.end(one, Step.LOSE, detail or outcome.label)
            await self.resolve(one)

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
            await self.end(one, Step.FAIL, f"the meter refused{detail}")
        else:
            why = "its master key is in doubt, both are kept: ask again with `keys rotate --master`"
            await self.end(one, Step.LOSE, f"{why} ({detail or outcome.label})")
            await self.resolve(one)

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
        await self.end(one, Step.FAIL, f"not sent: {why}")

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
                await self.end(one, Step.CONFIRM, "")
                return
            if trio.current_time() - started >= self._patience_s(order, self._settings.read_back_s):
                break
            await trio.sleep(pause_s)
            pause_s = min(pause_s * 2, 5.0)
        if seen is Seen.OTHERWISE:
            await self.end(one, Step.FAIL, f"the meter said yes and is not {order.expected}", alarm=True)
        else:
            await self.end(one, Step.LOSE, "the meter said yes and cannot be read")
            await self.resolve(one)

    async def resolve(self, one: CommandRow) -> None:
        """Find out what became of a command, by reading; never by sending."""
        self.lost.add(one.command_id)
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
                    await self.end(one, Step.CONFIRM, "found by reading")
                    return
                if seen is Seen.OTHERWISE and waited_s >= self._patience_s(order, self._settings.read_back_s):
                    await self.end(one, Step.FAIL, f"found by reading: not {order.expected}", alarm=True)
                    return
                await trio.sleep(pause_s)
            pause_s = min(pause_s * 2, SLOWEST_S if alarmed else 5.0)
            if not alarmed and trio.current_time() >= alarm_at_s:
                alarmed = True
                await self._store.change(lambda connection: self.alarm(connection, one), spend_reserve=True)

    async def end(self, one: CommandRow, step: Step, detail: str, *, alarm: bool = False) -> None:
        """Store what became of a command, with its audit record, and tell those who follow devices."""

        def write(connection: Connection) -> None:
            to = machine.step(machine.sources(step)[0], step)
            moved = rows.move(connection, [one.command_id], machine.sources(step), to, detail=detail)
            if moved:
                note = {"command": orders.shown(one.command_id), "meter": one.meter_id, "detail": detail}
                audit.append(connection, to, "head-end", orders.shown(one.order_id), note)
                if alarm:
                    self.alarm(connection, one)

        await self._store.change(write, spend_reserve=True)
        if step in {Step.CONFIRM, Step.FAIL} and self._read_back.devices is not None:
            row = await self._store.read(lambda connection: rows.order_of(connection, one.order_id))
            if row is not None and row.kind in orders.DER:
                await self._read_back.devices.end(
                    one.meter_id, Order.decode(row.octets), confirmed=step is Step.CONFIRM
                )
        log = self._log.warning if step is not Step.CONFIRM else self._log.info
        log("command", meter=self._name(one), state=machine.step(machine.sources(step)[0], step).value, detail=detail)

    def alarm(self, connection: Connection, one: CommandRow) -> None:
        """Somebody has to look at this command's meter; once it is stored, that is said aloud."""
        rows.alarm(connection, one.command_id)
        detail = {"command": orders.shown(one.command_id), "meter": one.meter_id}
        audit.append(connection, "alarm", "head-end", orders.shown(one.order_id), detail)
        self._figures.command_alarms += 1
        self._log.error("alarm: look at this meter", meter=self._name(one), command=orders.shown(one.command_id))

    def _name(self, one: CommandRow) -> str:
        meter = self._meters.get(one.meter_id)
        return f"#{one.meter_id}" if meter is None else meter.name


def _changes_keys(order: Order) -> bool:
    return isinstance(order.effect, Effect) and order.effect.service == "key-transfer"


def _changes_master(order: Order) -> bool:
    return isinstance(order.effect, Effect) and _changes_keys(order) and order.effect.value == orders.MASTER_KEY
