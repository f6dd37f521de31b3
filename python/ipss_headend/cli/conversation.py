"""One device, asked by hand: a reactor of its own, one meter, one question after the other."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

import trio

from ipss_headend.cli.output import say
from ipss_headend.cli.targets import Target
from ipss_headend.errors import (
    AuthenticationFailed,
    ConfigError,
    HeadEndError,
    MeterGone,
    MeterTimeout,
    ProtocolViolation,
    RequestError,
)
from ipss_headend.field.connect import Quirks, endpoint, link

if TYPE_CHECKING:
    from ipss_headend._core import Item, Meter, ModbusItem, Reactor

METER = 1
"""The number of the one meter."""

GRACE_S = 2.0
"""How long after its deadline a request's end may take to reach us, and a release its answer."""

FAULTS: dict[str, type[HeadEndError]] = {
    "timed-out": MeterTimeout,
    "unreachable": MeterGone,
    "violation": ProtocolViolation,
    "authentication-failed": AuthenticationFailed,
    "counters-exhausted": AuthenticationFailed,
    "unknown": MeterTimeout,
    "impossible": RequestError,
}

REMEDIES = {
    "authentication-failed": "check the keys, the system titles, --client and --auth",
    "unreachable": "check the address, and whether the meter listens",
    "unknown": "it may have been done; read it back before doing it again",
}

TELLING = {
    "association-rejected",
    "authentication-failed",
    "tag-invalid",
    "replay-refused",
    "weaker-security",
    "system-title-mismatch",
    "protocol-violation",
    "counter-behind",
}
"""The kinds of event that say why a request failed, where its end does not."""


@dataclass(frozen=True, slots=True)
class Line:
    """What a device said to one item: cells are octets, exact integers or nothing."""

    item: int
    capture_time_us: int | None
    deviation_min: int
    clock_status: int
    cells: list[int | bytes | None]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a device said to one request."""

    lines: tuple[Line, ...]
    refusals: dict[int, int]
    """Item to the code of the device's own *no*."""
    exchanges: int

    def cell(self, item: int) -> bytes | None:
        """The octets of the first cell of an item's line; None where there is none."""
        for line in self.lines:
            if line.item == item and line.cells and isinstance(line.cells[0], bytes):
                return line.cells[0]
        return None

    def answered(self, item: int) -> bool:
        """Whether the item has a line."""
        return any(line.item == item for line in self.lines)


@dataclass
class Conversation:
    """An open conversation with one device."""

    name: str
    core: ModuleType | Any
    reactor: "Reactor"
    deadline: float
    """By trio's clock: the whole operation's end."""
    reserve: Callable[[], tuple[int, int]] | None = None
    """Another block of invocation counters, where there are any."""
    exchanges: int = 0
    peer_counter: int | None = None
    traced: list[tuple[int, str]] = field(default_factory=list)
    """What went over the line, if that was asked for: 0 received or 1 sent, hexadecimal digits."""
    _events: list[tuple[str, int, str]] = field(default_factory=list)

    async def ask(self, items: Sequence["Item"] | Sequence["ModbusItem"], *, from_us: int = 0, to_us: int = 0) -> Reply:
        """Ask these questions in one request and await the answer. The device's own *no* is part of it.

        Raises:
            MeterError, RequestError: by how the request ended.
        """
        left_s = self.deadline - trio.current_time()
        if left_s <= 0:
            raise MeterTimeout(f"{self.name}: no time left; give more with --timeout")
        modbus = bool(items) and isinstance(items[0], self.core.ModbusItem)
        request = self.reactor.submit(
            self.core.ModbusPlan(items) if modbus else self.core.Plan(items),
            [METER],
            timeout_s=left_s,
            priority="on-demand",
            attempts=1,
            from_us=from_us,
            to_us=to_us,
        )
        lines: list[Line] = []
        refusals: dict[int, int] = {}
        with trio.move_on_after(left_s + GRACE_S):
            while True:
                batch = self.reactor.take()
                if batch is None:
                    if self.reactor.finished():
                        raise RequestError(f"{self.name}: the reactor has stopped")
                    await trio.lowlevel.wait_readable(self.reactor.fileno())
                    continue
                self._hear(batch.events(), batch.peer_counters())
                lines += [Line(row[2], *row[3:]) for row in batch.answers() if row[1] == request]
                refusals.update((item, code) for _, asked, item, code in batch.refusals() if asked == request)
                for number, _, outcome, exchanges, _, detail in batch.ends():
                    if number == request:
                        self.exchanges += exchanges
                        self._check(self.core.OUTCOMES[outcome], detail)
                        return Reply(tuple(lines), refusals, exchanges)
        raise MeterTimeout(f"{self.name}: no answer in time")

    def _hear(self, events: Sequence[tuple[int, int, int, int, str]], counters: Sequence[tuple[int, int]]) -> None:
        for _, _, kind, number, detail in events:
            name = self.core.EVENT_KINDS.get(kind, str(kind))
            if name == "traced":
                self.traced.append((number, detail))
                continue
            self._events.append((name, number, detail))
            if name == "counters-low" and self.reserve is not None:
                self.reactor.grant([(METER, *self.reserve())])
        for _, counter in counters:
            self.peer_counter = max(counter, self.peer_counter or 0)

    def _check(self, outcome: str, detail: str) -> None:
        if outcome in {"done", "refused"}:
            return
        if not detail:
            telling = [f"{name} {words}".strip() for name, _, words in self._events if name in TELLING]
            detail = telling[-1] if telling else ""
        words = "; ".join(filter(None, (outcome, detail, REMEDIES.get(outcome))))
        raise FAULTS.get(outcome, HeadEndError)(f"{self.name}: {words}")


@asynccontextmanager
async def converse(
    target: Target, *, timeout_s: float, trace: bool = False, quirks: Quirks = ()
) -> AsyncIterator[Conversation]:
    """Talk to one device; at the end the association is released and the device's counter is durable.

    Raises:
        MeterGone: the host's name has no address.
        RequestError: the target's parts do not fit together.
    """
    from ipss_headend import _core

    address = target.line or (None if target.host is None else await numeric(target.name, target.host, target.port))
    meter = _meter(_core, target, address, timeout_s, quirks, trace=trace)
    conversation: Conversation | None = None
    try:
        async with converse_with(
            target.name, meter, timeout_s=timeout_s, listen=target.listen, reserve=target.reserve
        ) as conversation:
            yield conversation
    finally:
        heard = None if conversation is None else conversation.peer_counter
        if heard is not None and target.needs_counters:
            target.keep_peer_counter(heard)


@asynccontextmanager
async def converse_with(
    name: str,
    meter: "Meter",
    *,
    timeout_s: float,
    listen: Sequence[str] = (),
    reserve: Callable[[], tuple[int, int]] | None = None,
) -> AsyncIterator[Conversation]:
    """Talk to one device that is ready for a reactor; at the end the connection is released."""
    from ipss_headend import _core

    reactor = _core.Reactor(
        threads=1,
        batch_delay_s=0.0,
        connect_timeout_s=timeout_s,
        associate_timeout_s=timeout_s,
        frame_timeout_s=timeout_s,
        release_timeout_s=GRACE_S,
    )
    conversation = Conversation(name, _core, reactor, trio.current_time() + timeout_s, reserve)
    try:
        reactor.add([meter])
        for where in listen:
            _listen(reactor, name, where)
        yield conversation
    finally:
        with trio.CancelScope(shield=True):
            await _close(conversation)


def _listen(reactor: "Reactor", name: str, where: str) -> None:
    try:
        reactor.listen(where)
    except OSError as error:
        raise ConfigError(
            f"{name} dials in at {where}, where this program cannot listen: {error.strerror or error}; "
            "another program does, or the address is not this machine's"
        ) from error
    say(f"{name} dials in; waiting for it at {where}")


async def _close(conversation: Conversation) -> None:
    reactor = conversation.reactor
    reactor.drain(GRACE_S)
    with trio.move_on_after(GRACE_S + 1):
        while not reactor.finished():
            batch = reactor.take()
            if batch is None:
                await trio.lowlevel.wait_readable(reactor.fileno())
            else:
                conversation._hear(batch.events(), batch.peer_counters())
    reactor.stop()


def _meter(core: Any, target: Target, address: str | None, timeout_s: float, quirks: Quirks, *, trace: bool) -> Any:
    try:
        profile = core.Profile(
            client=target.client,
            server=target.server,
            authentication=target.auth,
            suite=target.suite,
            protection=target.protection,
            dedicated=target.dedicated,
            client_title=target.client_title,
            associate_s=timeout_s,
            answer_s=timeout_s,
            frame_s=timeout_s,
            referencing=target.referencing,
            quirks=quirks,
        )
        return core.Meter(
            METER,
            endpoint(target.transport, address),
            profile,
            system_title=target.server_title,
            encryption_key=target.keys.encryption_key or b"",
            authentication_key=target.keys.authentication_key or b"",
            password=target.keys.password or b"",
            private_key=target.keys.private_key or b"",
            peer_public_key=target.keys.peer_public_key or b"",
            counters=target.reserve() if target.needs_counters else (0, 0),
            peer_counter=target.peer_counter,
            hold_open=False,
            idle_s=timeout_s,
            identities=list(target.identities),
            trace=trace,
            link=link(target.transport, target.physical, target.gateway),
        )
    except ValueError as error:
        raise RequestError(f"{target.name}: {error}") from error


async def numeric(name: str, host: str, port: int) -> str:
    """`host:port` with a numeric host, in brackets where IPv6 needs them.

    Raises:
        MeterGone: the host's name has no address.
    """
    try:
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    except OSError as error:
        raise MeterGone(f"{name}: {host} has no address: {error.strerror or error}") from error
    host = str(found[0][4][0])
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
