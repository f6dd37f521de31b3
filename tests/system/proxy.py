"""A bad network between a head-end and its meters: a proxy for TCP and UDP that delays, drops, doubles, reorders,
alters, slows, resets and forgets.

It runs trio in a thread of its own, so that what it waits for never holds the head-end's loop up. What a line does is a
value that may be changed while it runs; which octet it happens to is drawn from a seed and the connection's number, so
equal traffic meets equal faults.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field

import trio

Upstream = Callable[[str], tuple[str, int]]
"""From the proxy's own address that was connected to, to where that goes."""

CHUNK = 4096
_GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


@dataclass(frozen=True, slots=True)
class Line:
    """What happens to octets and datagrams; shares are of 1."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    octets_per_s: float = 0.0
    """0: as fast as it goes."""
    corrupt: float = 0.0
    """Share of pieces in which one bit is flipped."""
    corrupt_until: int = 1 << 60
    """No more once the proxy has flipped so many in all."""
    reset: float = 0.0
    """Share of pieces of which a part arrives and then a reset (TCP)."""
    swallow: bool = False
    """Nothing arrives any more and nobody is told (TCP: as if the network had gone)."""
    refuse: bool = False
    """New connections are reset at once."""
    drop: float = 0.0
    """Share of datagrams that vanish."""
    double: float = 0.0
    reorder: float = 0.0
    """Share of datagrams that wait until the next one has passed."""


@dataclass
class Seen:
    """What the proxy did."""

    connections: int = 0
    octets: int = 0
    corrupted: int = 0
    resets: int = 0
    swallowed: int = 0
    dropped: int = 0
    doubled: int = 0
    reordered: int = 0


@dataclass(eq=False)
class _Pair:
    """One connection through the proxy."""

    near: trio.SocketStream
    far: trio.SocketStream
    rng: random.Random
    forgotten: bool = False
    """The network has lost it: both ends think that it lives."""
    left: bool = False
    """Whoever opened it has given it up."""
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class Proxy:
    """One port on every loopback address. `line` may be replaced at any time and from any thread."""

    def __init__(self, upstream: Upstream, *, seed: int = 1, line: Line | None = None) -> None:
        self.line = line or Line()
        self.seen = Seen()
        self.port = 0
        self._upstream = upstream
        self._seed = seed
        self._pairs: set[_Pair] = set()

    @property
    def open(self) -> int:
        """Connections that are not over, forgotten ones included."""
        return len(self._pairs)

    @property
    def unnoticed(self) -> int:
        """Forgotten connections that whoever opened them still thinks to be alive."""
        return sum(pair.forgotten and not pair.left for pair in list(self._pairs))

    def forget(self) -> int:
        """Lose every connection that is open, as a NAT does: nothing arrives, nothing is closed. Returns how many."""
        pairs = [pair for pair in list(self._pairs) if not pair.forgotten]
        for pair in pairs:
            pair.forgotten = True
        return len(pairs)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """TCP, until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="0.0.0.0", backlog=4096)
        self.port = listeners[0].socket.getsockname()[1]
        await trio.serve_listeners(self._carry, listeners, task_status=_Started(task_status))

    async def serve_udp(self, address: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """UDP on one address, for any number of askers, until cancelled."""
        hub = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        await hub.bind((address, 0))
        self.port = hub.getsockname()[1]
        rng = random.Random(f"{self._seed} udp")
        flows: dict[tuple[str, int], trio.socket.SocketType] = {}
        async with AsyncExitStack() as stack:
            stack.enter_context(hub)
            stack.callback(_close, flows)
            nursery = await stack.enter_async_context(trio.open_nursery())
            task_status.started()
            while True:
                octets, asker = await hub.recvfrom(65_536)
                if asker not in flows:
                    flows[asker] = flow = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    await flow.connect(self._upstream(address))
                    self.seen.connections += 1
                    nursery.start_soon(self._answers, flow, hub, asker, nursery, rng)
                self._datagram(octets, flows[asker].send, nursery, rng)

    async def _answers(
        self,
        flow: trio.socket.SocketType,
        hub: trio.socket.SocketType,
        asker: tuple[str, int],
        nursery: trio.Nursery,
        rng: random.Random,
    ) -> None:
        while True:
            with suppress(OSError):
                octets = await flow.recv(65_536)
                self._datagram(octets, lambda octets: hub.sendto(octets, asker), nursery, rng)

    def _datagram(
        self, octets: bytes, send: Callable[[bytes], object], nursery: trio.Nursery, rng: random.Random
    ) -> None:
        line = self.line
        self.seen.octets += len(octets)
        # Drawn whether it is needed or not, so that one setting does not move the draws of another.
        drop, double, late, corrupt, wait = (rng.random() for _ in range(5))
        if line.swallow or drop < line.drop:
            self.seen.dropped += 1
            return
        if corrupt < line.corrupt and self.seen.corrupted < line.corrupt_until:
            octets = self._flipped(octets, rng)
        delay_s = line.delay_s + line.jitter_s * wait
        if late < line.reorder:
            self.seen.reordered += 1
            delay_s += 0.02
        nursery.start_soon(self._later, octets, send, delay_s)
        if double < line.double:
            self.seen.doubled += 1
            nursery.start_soon(self._later, octets, send, delay_s + 0.01)

    async def _later(self, octets: bytes, send: Callable[[bytes], object], delay_s: float) -> None:
        await trio.sleep(delay_s)
        with suppress(OSError):
            await send(octets)  # type: ignore[misc]

    async def _carry(self, near: trio.SocketStream) -> None:
        number, self.seen.connections = self.seen.connections, self.seen.connections + 1
        if self.line.refuse:
            _reset(near)
            return
        host, port = self._upstream(near.socket.getsockname()[0])
        try:
            far = await trio.open_tcp_stream(host, port)
        except OSError:
            _reset(near)
            return
        pair = _Pair(near, far, random.Random(f"{self._seed} {number}"))
        self._pairs.add(pair)
        try:
            with pair.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pass_on, pair, near, far)
                    nursery.start_soon(self._pass_on, pair, far, near)
        finally:
            self._pairs.discard(pair)
            for stream in (near, far):
                with trio.CancelScope(shield=True), suppress(*_GONE):
                    await trio.aclose_forcefully(stream)

    async def _pass_on(self, pair: _Pair, source: trio.SocketStream, target: trio.SocketStream) -> None:
        while True:
            try:
                octets = await source.receive_some(CHUNK)
            except _GONE:
                octets = b""
            line = self.line
            if pair.forgotten or line.swallow:
                # Not even its end is heard of at the other side.
                self.seen.swallowed += len(octets)
                if not octets:
                    pair.left = pair.left or source is pair.near
                    return
                continue
            if not octets:
                pair.scope.cancel()
                return
            self.seen.octets += len(octets)
            corrupt, reset, wait = (pair.rng.random() for _ in range(3))
            if corrupt < line.corrupt and self.seen.corrupted < line.corrupt_until:
                octets = self._flipped(octets, pair.rng)
            delay_s = line.delay_s + line.jitter_s * wait
            if line.octets_per_s:
                delay_s += len(octets) / line.octets_per_s
            if delay_s:
                await trio.sleep(delay_s)
            if reset < line.reset:
                await _send(target, octets[: pair.rng.randrange(len(octets))])
                self.seen.resets += 1
                _reset(source)
                _reset(target)
                pair.scope.cancel()
                return
            if not await _send(target, octets):
                pair.scope.cancel()
                return

    def _flipped(self, octets: bytes, rng: random.Random) -> bytes:
        self.seen.corrupted += 1
        place = rng.randrange(len(octets))
        return octets[:place] + bytes([octets[place] ^ 1 << rng.randrange(8)]) + octets[place + 1 :]


async def _send(target: trio.SocketStream, octets: bytes) -> bool:
    try:
        await target.send_all(octets)
    except _GONE:
        return False
    return True


def _close(flows: dict[tuple[str, int], trio.socket.SocketType]) -> None:
    for flow in flows.values():
        flow.close()


def _reset(stream: trio.SocketStream) -> None:
    with suppress(OSError):
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


class _Started:
    """`serve_listeners` tells its listeners; ours tells nothing."""

    def __init__(self, told: trio.TaskStatus[None]) -> None:
        self._told = told

    def started(self, _: object = None) -> None:
        self._told.started()


@contextmanager
def proxy(upstream: Upstream, *, seed: int = 1, line: Line | None = None, udp: str = "") -> Iterator[Proxy]:
    """A proxy in a thread of its own, while the block runs; `udp` is the address it takes datagrams at."""
    made = Proxy(upstream, seed=seed, line=line)
    ready = threading.Event()
    over: list[Callable[[], None]] = []
    failed: list[BaseException] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            token = trio.lowlevel.current_trio_token()
            over.append(lambda: token.run_sync_soon(nursery.cancel_scope.cancel))
            await (nursery.start(made.serve_udp, udp) if udp else nursery.start(made.serve))
            ready.set()

    def run() -> None:
        try:
            trio.run(main)
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="proxy")
    thread.start()
    ready.wait(10)
    try:
        assert not failed, failed
        yield made
    finally:
        with suppress(trio.RunFinishedError):
            over[0]()
        thread.join()
    if failed:
        raise failed[0]
