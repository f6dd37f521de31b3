"""One connection: messages in, answers out.

What has arrived is answered at once where it can be, and a task is started for each call that waits. What the socket
takes at once is sent by whoever answered; the writer sends the rest. Neither the calls in work nor the answers that
nobody reads grow without end: the reader stops when there are too many, and a client that takes no answers is cut off.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import trio

from ipss_headend import _core
from ipss_headend.log import Logger, logger
from ipss_headend.rpc.call import Call, Services, Session
from ipss_headend.rpc.catalogue import Method, Result
from ipss_headend.rpc.faults import Fault, fault_of
from ipss_headend.rpc.idempotency import Keys
from ipss_headend.rpc.limits import RateLimit
from ipss_headend.rpc.wire import Wire
from ipss_headend.security.permission import NOBODY

REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2

READ_OCTETS = 32_768
STRANGER_OCTETS = 4096
"""A message of somebody who has not said who it is (R35)."""
STRANGER_VALUES = 256
STRANGER_S = 30.0
"""How long somebody may take to say it."""
TURN_CALLS = 64
"""Calls answered before other connections have their turn."""
LONGEST_DEADLINE_MS = 600_000
DEFAULT_DEADLINE_S = 60.0
FLUSH_S = 1.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one connection may cost."""

    frame_octets: int = 1 << 20
    out_octets: int = 4 << 20
    """Answers that wait to be read; above it the reader stops, and pushed events end the connection."""
    calls: int = 256
    """Calls in work at once."""
    write_s: float = 30.0
    """A client that takes nothing for so long is gone."""


@dataclass(slots=True)
class Counts:
    """What the server's connections have done."""

    connections: int = 0
    accepted: int = 0
    calls: int = 0
    faults: int = 0
    violations: int = 0
    limited: int = 0
    cut: int = 0
    """Connections closed because their answers were not read."""


class Closed(Exception):
    """The connection is to end."""


_encoder = msgspec.msgpack.Encoder()


class Connection:
    """A client."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        session: Session,
        services: Services,
        methods: Mapping[str, Method],
        *,
        bounds: Bounds,
        limit: RateLimit,
        keys: Keys,
        counts: Counts,
    ) -> None:
        self._stream = stream
        self._wire = stream if isinstance(stream, Wire) else None
        self.session = session
        self._services = services
        self._methods = methods
        self._bounds = bounds
        self._limit = limit
        self._keys = keys
        self._counts = counts
        self._scanner = _core.RpcScanner(octets=STRANGER_OCTETS, values=STRANGER_VALUES)
        self._out = bytearray()
        self._left: tuple[list[tuple[int, int, str, bytes]], tuple[int | None, str] | None] | None = None
        self._nursery: trio.Nursery
        self._wake = trio.Event()
        self._room = trio.Event()
        self._working = 0
        self._sending = False
        self._log: Logger = logger("rpc").bind(session=session.number, peer=session.peer)
        session.send = self._push
        session.known = self.known
        session.limited = self._limited

    async def run(self) -> None:
        """Serve it until it closes, breaks a rule, or is cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._write)
                try:
                    await self._read()
                finally:
                    # What is in work is finished with the connection; nobody is left to hear of it.
                    self._wake.set()
                    await self._flushed()
                    nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, Closed):
            self._log.debug("connection ended")

    async def _read(self) -> None:
        stranger_until: float | None = None
        while True:
            if self.session.principal is NOBODY:
                if stranger_until is None:
                    stranger_until = trio.current_time() + STRANGER_S
                with trio.move_on_at(stranger_until) as scope:
                    octets = await self._stream.receive_some(STRANGER_OCTETS)
                if scope.cancelled_caught:
                    if self.session.principal is not NOBODY:
                        continue  # it has said it while this waited
                    self._answer(0, Fault("E_AUTH", f"nobody has said who they are within {STRANGER_S:g} s"))
                    return
            else:
                stranger_until = None
                if self._wire is not None:
                    octets = await self._wire.receive_unless(self._at_once)
                else:
                    octets = await self._stream.receive_some(READ_OCTETS)
            if not octets:
                return
            left, self._left = self._left, None
            calls, ended = left or self._scanner.feed(bytes(octets))
            for place, call in enumerate(calls, 1):
                self._take(*call, trio.current_time())
                if place % TURN_CALLS == 0 and place < len(calls):
                    self._send()
                    await trio.lowlevel.checkpoint()
                if self._full():
                    await self._wait_for_room()
            if self._out:
                self._send()
            if ended is not None:
                at_fault, words = ended
                self._counts.violations += 1
                self._log.warning("protocol violation", why=words)
                self._answer(at_fault or 0, Fault("E_PROTOCOL", words))
                return

    def _at_once(self, octets: bytes) -> bool:
        """Answer what has arrived, if it is little and of somebody who is known; the reader goes on with it if not."""
        calls, ended = self._scanner.feed(octets)
        if ended is not None or len(calls) > TURN_CALLS or self.session.principal is NOBODY:
            self._left = calls, ended
            return False
        now = trio.current_time()
        for call in calls:
            self._take(*call, now)
        if self._out:
            self._send()
        if self._full():
            self._left = [], None
            return False
        return True

    def _full(self) -> bool:
        return self._working >= self._bounds.calls or len(self._out) > self._bounds.out_octets

    def known(self) -> None:
        """It is known who this is: the limits of strangers end."""
        self._scanner.allow(octets=self._bounds.frame_octets)

    def _take(self, kind: int, number: int, name: str, octets: bytes, now: float) -> None:
        if kind == RESPONSE:
            return
        self._counts.calls += 1
        try:
            method = self._admit(name, kind, now)
            if method is None:
                return
            params = method.decode(octets)
            call = Call(self._services, self.session, name)
            if method.tasked:
                self._working += 1
                self._nursery.start_soon(self._wait, kind, number, method, call, params, octets)
                return
            result = method.handler(call, params)
            if not isinstance(result, Result):
                self._working += 1
                self._nursery.start_soon(self._await, kind, number, method, result)
                return
        except Exception as error:  # noqa: BLE001 - one call's fault is no other's
            if kind == REQUEST:
                self._answer(number, self._fault(name, error))
            return
        if kind == REQUEST:
            _encoder.encode_into((RESPONSE, number, None, result), self._out, -1)

    def _admit(self, name: str, kind: int, now: float) -> Method | None:
        """The method of a call that may go on; None: a notification that nobody knows, which is ignored.

        Raises:
            Fault: the call may not go on.
        """
        method = self._methods.get(name)
        if method is None:
            if kind == NOTIFICATION:
                return None
            raise Fault("E_METHOD", f'no method is called "{name[:128]}"; rpc.methods lists them')
        principal = self.session.principal
        if not method.open:
            if principal is NOBODY:
                raise Fault(
                    "E_AUTH",
                    f"{name}: say who you are first: connect with the certificate of an account, or auth.login",
                )
            if method.right is not None and method.right not in principal.rights:
                roles = ", ".join(sorted(principal.roles)) or "none"
                raise Fault("E_DENIED", f"{name} needs the right {method.right}; your roles are {roles}")
        # One stranger's calls are no other stranger's.
        caller = principal.name if principal is not NOBODY else f"{NOBODY.name}:{self.session.peer.rpartition(':')[0]}"
        self._limited(caller, name, now)
        return method

    def _limited(self, caller: str, name: str, now: float | None = None) -> None:
        """Take one call of the caller's rate.

        Raises:
            Fault: it may not go on.
        """
        wait_s = self._limit.take(caller, name, now)
        if wait_s:
            self._counts.limited += 1
            raise Fault("E_RATE", f"{name}: too many calls; retry_after_ms={int(wait_s * 1000) + 1}")

    async def _wait(self, kind: int, number: int, method: Method, call: Call, params: Any, octets: bytes) -> None:
        try:
            answer: Result | Fault = await self.answer(method, call, params, octets)
        except Exception as error:  # noqa: BLE001 - one call's fault is no other's
            answer = self._fault(method.name, error)
        finally:
            self._working -= 1
            self._room.set()
        if kind == REQUEST:
            self._answer(number, answer)

    async def _await(self, kind: int, number: int, method: Method, result: Awaitable[Result]) -> None:
        """As `_wait`, for a call that turned out to have to wait."""
        answer: Result | Fault = Fault("E_DEADLINE", f"{method.name}: no answer within {DEFAULT_DEADLINE_S:g} s")
        try:
            with trio.move_on_after(DEFAULT_DEADLINE_S):
                answer = await result
        except Exception as error:  # noqa: BLE001 - one call's fault is no other's
            answer = self._fault(method.name, error)
        finally:
            self._working -= 1
            self._room.set()
        if kind == REQUEST:
            self._answer(number, answer)

    async def answer(self, method: Method, call: Call, params: Any, octets: bytes) -> Result:
        """What a call comes to, within its deadline.

        Raises:
            Fault, HeadEndError: it comes to nothing.
        """
        deadline_s = DEFAULT_DEADLINE_S
        if params.deadline_ms is not None:
            if not 1 <= params.deadline_ms <= LONGEST_DEADLINE_MS:
                raise Fault("E_PARAMS", f"deadline_ms: {params.deadline_ms} is not from 1 to {LONGEST_DEADLINE_MS}")
            deadline_s = params.deadline_ms / 1000
        with trio.move_on_after(deadline_s):
            if method.changes:
                return await self._keys.once(call, method, params, octets)
            found = method.handler(call, params)
            return found if isinstance(found, Result) else await found
        raise Fault("E_DEADLINE", f"{method.name}: no answer within {deadline_s:g} s")

    def _fault(self, name: str, error: Exception) -> Fault:
        self._counts.faults += 1
        fault = fault_of(error)
        if fault is None:
            self._log.error("a fault of ours in a call", method=name, exc_info=error)
            return Fault("E_INTERNAL", f"{name}: a fault of the head-end's; its log has the rest")
        return fault

    def _answer(self, number: int, answer: Result | Fault) -> None:
        if isinstance(answer, Fault):
            said: object = (answer.code, answer.text) if self.session.errors_as_arrays else str(answer)
            self._out += _encoder.encode((RESPONSE, number, said, None))
        else:
            self._out += _encoder.encode((RESPONSE, number, None, answer))
        self._wake.set()

    def _push(self, name: str, content: object) -> None:
        """Put a notification to the client into the queue.

        Raises:
            Fault: it does not read what it was sent.
        """
        if len(self._out) > self._bounds.out_octets:
            raise Fault("E_BUSY", "the client does not read what it is sent")
        self._out += _encoder.encode((NOTIFICATION, name, (content,)))
        self._wake.set()

    async def _wait_for_room(self) -> None:
        while self._full():
            self._room = trio.Event()
            self._wake.set()
            await self._room.wait()

    def _send(self) -> None:
        """Send at once what the socket takes; the writer sends the rest.

        Raises:
            BrokenResourceError: the connection broke.
        """
        if self._wire is not None and not self._sending:
            sent = self._wire.send_now(self._out)
            if sent == len(self._out):
                self._out.clear()
                return
            del self._out[:sent]
        self._wake.set()

    async def _write(self) -> None:
        while True:
            if not self._out:
                self._wake = trio.Event()
                await self._wake.wait()
                continue
            part, self._out = self._out, bytearray()
            self._sending = True
            with trio.move_on_after(self._bounds.write_s) as scope:
                await self._stream.send_all(part)
            if scope.cancelled_caught:
                self._counts.cut += 1
                self._log.warning("client reads no answers", waited_s=self._bounds.write_s)
                raise Closed
            self._sending = False
            self._room.set()

    async def _flushed(self) -> None:
        """What was answered before the end is sent, if the client takes it soon."""
        with trio.move_on_after(FLUSH_S, shield=True):
            while self._out or self._sending:
                self._room = trio.Event()
                await self._room.wait()
