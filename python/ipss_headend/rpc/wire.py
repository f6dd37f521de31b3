"""A client's socket, bare or inside TLS, and the hall where all of them wait.

trio wakes a task for each receive and one more for each send, which costs ten times what a small call does. So a task
waits for all sockets at once, and has what arrived on each answered in its turn; what can be sent at once is.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import trio

RECEIVED_OCTETS = 32_768
RECORD_OCTETS = 16_384
"""What TLS puts into one record: a send that has to wait is repeated with the same octets, so it is of one record."""

TURN_S = 0.0005
"""How long sockets are served before other tasks have their turn."""
READY = 64
"""Sockets that are asked for at once."""

NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Wire(trio.abc.Stream):
    """A connected socket that does not block."""

    def __init__(self, connected: socket.socket, hall: Hall | None = None) -> None:
        self.hall = hall
        self._socket = connected
        self._number = connected.fileno()
        self._tls = connected if isinstance(connected, ssl.SSLSocket) else None

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What has arrived, at most so much; empty at the end. Others have had their turn when it returns.

        Raises:
            BrokenResourceError: the connection broke.
            ClosedResourceError: it was closed here.
        """
        if self._number < 0:
            raise trio.ClosedResourceError("it was closed here")
        if self.holds():
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.wait_readable(self._number)
        while (octets := self.receive_now(max_bytes)) is None:
            await trio.lowlevel.wait_readable(self._number)
        return octets

    async def receive_unless(self, take: Callable[[bytes], bool]) -> bytes:
        """Have what arrives taken until `take` says no, and give what that was, or nothing at the end.

        Without a hall it takes nothing. It runs in the hall's task; what it raises is raised here.

        Raises:
            BrokenResourceError: the connection broke.
            ClosedResourceError: it was closed here.
        """
        if self.hall is None or self.holds():
            return await self.receive_some()
        return await self.hall.wait(self._number, self, take)

    def holds(self) -> bool:
        """Whether there is the rest of a record, of which the socket shows nothing any more."""
        return self._tls is not None and self._tls.pending() > 0

    def receive_now(self, max_bytes: int | None = None) -> bytes | None:
        """As `receive_some`, without a wait; None: there is nothing at the moment.

        Raises:
            BrokenResourceError: the connection broke.
            ClosedResourceError: it was closed here.
        """
        try:
            return self._socket.recv(max_bytes or RECEIVED_OCTETS)
        except NOT_NOW:
            return None
        except OSError as error:
            raise self._broken() from error

    def send_now(self, octets: bytes | bytearray | memoryview) -> int:
        """Send what can go without a wait, and say how many octets that was.

        What did not go is sent first of all the next time.

        Raises:
            BrokenResourceError: the connection broke.
            ClosedResourceError: it was closed here.
        """
        sent = 0
        try:
            if self._tls is None:
                return self._socket.send(octets)
            while sent < len(octets):
                sent += self._tls.send(bytes(octets[sent : sent + RECORD_OCTETS]))
        except NOT_NOW:
            pass
        except OSError as error:
            raise self._broken() from error
        return sent

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it.

        Raises:
            BrokenResourceError: the connection broke.
            ClosedResourceError: it was closed here.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        with memoryview(data) as view:
            sent = self.send_now(view)
            while sent < len(view):
                await trio.lowlevel.wait_writable(self._number)
                with view[sent:] as rest:
                    sent += self.send_now(rest)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until a send can be tried.

        Raises:
            ClosedResourceError: it was closed here.
        """
        await trio.lowlevel.wait_writable(self._number)

    async def aclose(self) -> None:
        """Close it. The other side is told that nothing more comes, if its socket has room for the word."""
        if self._socket.fileno() >= 0:
            if self._tls is not None:
                with suppress(OSError, ValueError):  # it does not wait for the other side's
                    self._tls.unwrap()
            trio.lowlevel.notify_closing(self._number)
            self._socket.close()
            self._number = -1  # the system may give it to somebody else
        await trio.lowlevel.checkpoint()

    def _broken(self) -> trio.BrokenResourceError | trio.ClosedResourceError:
        if self._socket.fileno() < 0:
            return trio.ClosedResourceError("it was closed here")
        return trio.BrokenResourceError("the connection broke")


@dataclass(slots=True)
class _Waiting:
    wire: Wire
    take: Callable[[bytes], bool]
    task: trio.lowlevel.Task
    found: bytes | Exception = b""


class Hall:
    """Waits for all sockets at once."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._waiting: dict[int, _Waiting] = {}

    async def run(self) -> None:
        """Serve those who wait, each in its turn, until cancelled."""
        with self._poll:
            while True:
                await trio.lowlevel.wait_readable(self._poll.fileno())
                until = trio.current_time() + TURN_S
                while ready := self._poll.poll(0, READY):
                    for number, _ in ready:
                        self._serve(number)
                        if trio.current_time() >= until:
                            await trio.lowlevel.checkpoint()
                            until = trio.current_time() + TURN_S

    async def wait(self, number: int, wire: Wire, take: Callable[[bytes], bool]) -> bytes:
        """Do what `Wire.receive_unless` promises."""
        waiting = self._waiting[number] = _Waiting(wire, take, trio.lowlevel.current_task())
        self._poll.register(number, select.EPOLLIN)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._leave(number)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        if isinstance(waiting.found, Exception):
            raise waiting.found
        return waiting.found

    def _serve(self, number: int) -> None:
        waiting = self._waiting.get(number)
        if waiting is None:
            return  # it left since
        try:
            while True:
                octets = waiting.wire.receive_now()
                if octets is None:
                    return
                if not octets or not waiting.take(octets):
                    waiting.found = octets
                    break
                if not waiting.wire.holds():
                    return
        except Exception as error:  # noqa: BLE001 - it is the waiting task's, which gets it
            waiting.found = error
        self._leave(number)
        trio.lowlevel.reschedule(waiting.task)

    def _leave(self, number: int) -> None:
        del self._waiting[number]
        with suppress(OSError, ValueError):  # the hall may have been closed first
            self._poll.unregister(number)


def taken(stream: trio.SocketStream) -> socket.socket:
    """The socket of a stream, which has it no more."""
    found = socket.socket(fileno=stream.socket.detach())
    found.setblocking(False)
    return found
