"""One plugin's process, seen from the head-end: started, asked, given up on, killed, and started again.

An answer that takes longer than its hook's limit is not waited for; one that has still not come a moment later costs
the process its life. Each invocation has a number, and an answer to one that is over is dropped. A plugin that fails
again and again is asked no more for a while (the breaker), and is then given one try; so is a process that is new.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import msgspec
import trio

from ipss_headend import _core
from ipss_headend.errors import PluginError
from ipss_headend.log import Logger, logger
from ipss_headend.metrics import PluginFigures
from ipss_headend.plugins.columns import Shared
from ipss_headend.plugins.context import Effect
from ipss_headend.plugins.host import ANSWER, HELLO, MOST_OCTETS, NICE, SETTINGS
from ipss_headend.plugins.specs import HOOKS

ANSWER_OCTETS = 1 << 20
"""A longer message of a plugin ends it."""
READ_OCTETS = 65_536
START_S = 15.0
"""How long a plugin may take to be imported."""
GRACE_S = 1.0
"""How long behind its limit an invocation may last before the process is killed."""
BACKOFF_S = (0.05, 2.0)
"""R39: a plugin is back within 5 s, the second until it is killed and its import included."""
STEADY_S = 30.0
"""A process that lived so long starts again without delay."""
WAITING = 64
"""Invocations in work; more are refused at once."""
FAILURES = 5
BREAK_S = 4.0
RESTORE = "restore"
BEFORE_RESTORED = frozenset({RESTORE, "rpc_methods", "plugin_health"})
"""What a process is asked before it has got back what it kept."""
NOTED_OCTETS = 2000

_encoder = msgspec.msgpack.Encoder()


@dataclass(slots=True)
class Answer:
    """What a plugin answered."""

    value: Any
    effects: list[Effect] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Question:
    """What a plugin was asked, and when."""

    hook: str
    arguments: Mapping[str, Any]
    limit_s: float
    now_us: int
    shared: Shared | None


class Listener(Protocol):
    """Who hears what a plugin was asked and what it said. It may not wait, and keeps what it needs of `shared`."""

    def heard(self, question: Question, answer: Answer | None, error: PluginError | None, duration_s: float) -> None:
        """One question is over."""


@dataclass(slots=True)
class _Invocation:
    over: trio.Event
    limit_s: float
    kill_at: float
    answer: Answer | None = None
    error: str | None = None


@dataclass(slots=True)
class Breaker:
    """Whether a plugin is asked."""

    failures: int = 0
    until: float = -math.inf

    def allows(self, now: float) -> bool:
        """It may be asked now."""
        if self.failures < FAILURES:
            return True
        if now < self.until:
            return False
        self.until = now + BREAK_S  # one try
        return True

    def note(self, *, well: bool, now: float) -> None:
        """How an invocation ended."""
        self.failures = 0 if well else self.failures + 1
        if self.failures >= FAILURES:
            self.until = now + BREAK_S

    def renew(self) -> None:
        """The process is a new one: it has its one try now."""
        self.until = -math.inf


class PluginProcess:
    """A plugin."""

    def __init__(
        self,
        name: str,
        figures: PluginFigures,
        *,
        memory_mib: int,
        cpu_s: int,
        wall_us: Callable[[], int],
        settings: Mapping[str, Any] | None = None,
        source: str | None = None,
        known_as: str | None = None,
        nice: int = NICE,
    ) -> None:
        """`source`: where its code is, see `source.py`; `known_as`: what it is told that it is called."""
        self.name = name
        self.source = source
        self.listeners: list[Listener] = []
        self.figures = figures
        self.settings: Mapping[str, Any] = settings or {}
        self.health: Mapping[str, str] = {}
        """What it said is wrong when it was last asked."""
        self.started = trio.Event()
        """Made anew, and set, each time that its hooks are known."""
        self.hooks: Mapping[str, int] | None = None
        """Its hooks and their places, once it has said them."""
        self.told = trio.Event()
        """It has started, or failed to, at least once."""
        self.restored = False
        """It has got back what it kept, or takes nothing back: its other hooks may be asked."""
        self.fault: str | None = None
        """Why it could not be loaded."""
        self.process_id: int | None = None
        self._known_as = known_as or name
        self._nice = nice
        self._memory_mib = memory_mib
        self._cpu_s = cpu_s
        self._wall_us = wall_us
        self._breaker = Breaker()
        self._next = 1
        self._waiting: dict[int, _Invocation] = {}
        self._socket: trio.socket.SocketType | None = None
        self._sending = trio.Lock()
        self._delay_s = BACKOFF_S[0]
        self._log: Logger = logger("plugin").bind(plugin=name)

    def has(self, hook: str) -> bool:
        """It implements this hook; one that could not tell yet may."""
        if self.hooks is None:
            return HOOKS[hook].closed
        return hook in self.hooks

    async def ask(
        self, hook: str, arguments: Mapping[str, Any], *, limit_s: float, shared: Shared | None = None
    ) -> Answer:
        """Invoke a hook.

        Raises:
            PluginError: it failed, was too slow, is not there, or is not asked for a while.
        """
        began = trio.current_time()
        question = Question(hook, arguments, limit_s, self._wall_us(), shared)
        try:
            answer = await self._tried(question)
        except PluginError as error:
            self._tell(question, None, error, trio.current_time() - began)
            raise
        self._tell(question, answer, None, trio.current_time() - began)
        return answer

    def _tell(self, question: Question, answer: Answer | None, error: PluginError | None, duration_s: float) -> None:
        for listener in self.listeners:
            listener.heard(question, answer, error, duration_s)

    async def _tried(self, question: Question) -> Answer:
        now, hook = trio.current_time(), question.hook
        if not self._breaker.allows(now):
            raise self._failed(hook, "broken-off", "is broken off after its failures")
        if self._socket is None:
            raise self._failed(hook, "gone", "is not running")
        if not self.restored and hook not in BEFORE_RESTORED:
            raise self._failed(hook, "gone", "has not got back yet what it kept")
        try:
            answer = await self._ask(question)
        except PluginError:
            self._breaker.note(well=False, now=trio.current_time())
            raise
        self._breaker.note(well=True, now=trio.current_time())
        self.figures.calls[hook, "done"] += 1
        return answer

    async def _ask(self, question: Question) -> Answer:
        hook, limit_s, shared = question.hook, question.limit_s, question.shared
        if len(self._waiting) >= WAITING:
            raise self._failed(hook, "overloaded", "has too many invocations in work")
        number, self._next = self._next, (self._next + 1) & 0xFFFFFFFF
        arguments = None if shared else question.arguments
        params = [question.now_us, limit_s, arguments, shared.layout if shared else None]
        octets = _encoder.encode([0, number, hook, params])
        if len(octets) > MOST_OCTETS:
            raise self._failed(
                hook, "error", f"would be asked with {len(octets)} octets, at most {MOST_OCTETS} are sent"
            )
        now = trio.current_time()
        invocation = _Invocation(trio.Event(), limit_s, now + limit_s + GRACE_S)
        self._waiting[number] = invocation
        with trio.move_on_after(limit_s) as scope:
            await self._send(octets, shared)
            await invocation.over.wait()
        if scope.cancelled_caught:
            # It stays among those waited for: its answer is late, not unknown, until the process is killed for it.
            raise self._failed(hook, "timeout", f"gave no answer within {limit_s:g} s")
        if invocation.answer is None:
            raise self._failed(hook, "error", invocation.error or "ended")
        return invocation.answer

    def _failed(self, hook: str, outcome: str, words: str) -> PluginError:
        self.figures.calls[hook, outcome] += 1
        return PluginError(f"plugin {self.name}: {hook}: {words}")

    async def _send(self, octets: bytes, shared: Shared | None) -> None:
        where = self._socket
        if where is None:
            return
        view = memoryview(octets)
        async with self._sending:
            try:
                if shared is not None:
                    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, _descriptors(shared))
                    view = view[await where.sendmsg([view], [rights]) :]
                while view:
                    view = view[await where.send(view) :]
            except trio.Cancelled:
                if len(view) != len(octets):
                    self.kill("a message to it was cut off")
                raise
            except OSError as error:
                self.kill(f"nothing can be sent to it: {error}")

    def mend(self) -> None:
        """Forget its failures: it is not broken off."""
        self._breaker = Breaker()

    def kill(self, why: str) -> None:
        """End the process; it starts again."""
        if self.process_id is not None:
            self._log.warning("plugin killed", why=why)
            self.figures.kills += 1
            with suppress(ProcessLookupError):
                os.killpg(self.process_id, signal.SIGKILL)
            self.process_id = None

    async def reload(self) -> None:
        """End the process and wait until it has started again, or failed to: with new settings, or new code."""
        self.told = trio.Event()
        self._delay_s = BACKOFF_S[0]
        self.mend()
        self._log.info("plugin reloads")
        if self.process_id is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process_id, signal.SIGKILL)
            self.process_id = None
        with trio.move_on_after(START_S):
            await self.told.wait()

    async def run(self) -> None:
        """Keep the process alive until cancelled."""
        while True:
            began, told = trio.current_time(), self.told
            try:
                await self._live()
            except OSError as error:
                self._log.error("plugin cannot be started", why=str(error))
            told.set()
            if trio.current_time() - began > STEADY_S:
                self._delay_s = BACKOFF_S[0]
            await trio.sleep(self._delay_s)
            self._delay_s = min(self._delay_s * 2, BACKOFF_S[1])
            self.figures.restarts += 1

    async def _live(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = subprocess.Popen(  # noqa: ASYNC220, S603 - our own program; a fork and an exec, once a start
                    [sys.executable, "-m", "ipss_headend.plugins.host", self._known_as, str(theirs.fileno()),
                     str(self._memory_mib), str(self._cpu_s), str(self._nice), *([self.source] if self.source else [])],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                    pass_fds=[theirs.fileno()], env=environment(), start_new_session=True, cwd="/",
                )  # fmt: skip
        except BaseException:
            ours.close()
            raise
        self.process_id = process.pid
        assert process.stderr is not None
        ours.setblocking(False)
        connection = trio.socket.from_stdlib_socket(ours)
        said = bytearray()
        try:
            await connection.send(_encoder.encode([2, SETTINGS, [self.settings]]))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._drain, process.stderr.fileno(), said)
                nursery.start_soon(self._watch)
                await self._listen(connection)
                nursery.cancel_scope.cancel()
        finally:
            self._socket = None
            self.restored = False
            self.figures.up = 0
            connection.close()
            self.process_id = None
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.stderr.close()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(process.wait)
            for invocation in self._waiting.values():
                invocation.error = "its process ended"
                invocation.over.set()
            self._waiting.clear()
            if self.hooks is None and self.fault is None:
                last = said.decode("utf-8", "replace").strip().rpartition("\n")[2]
                self.fault = f"its process ended with status {process.returncode} while it was imported: {last}"[:500]
            self._log.warning("plugin ended", status=process.returncode, said=said.decode("utf-8", "replace"))

    async def _listen(self, connection: trio.socket.SocketType) -> None:
        scanner = _core.RpcScanner(octets=ANSWER_OCTETS, values=65_536)
        start_by = trio.current_time() + START_S
        while True:
            with trio.move_on_at(start_by if self._socket is None else math.inf) as scope:
                try:
                    octets = await connection.recv(READ_OCTETS)
                except OSError:
                    return
            if scope.cancelled_caught:
                self.kill(f"not started within {START_S:g} s")
                return
            if not octets:
                return
            calls, ended = scanner.feed(octets)
            for kind, _, name, params in calls:
                if kind != 2 or not self._hear(connection, name, params):
                    self.kill(f"it said what nobody asked for: {name[:40]}")
                    return
            if ended is not None:
                self.kill(f"it sent what is no answer: {ended[1]}")
                return
            await trio.lowlevel.checkpoint()

    def _hear(self, connection: trio.socket.SocketType, name: str, params: bytes) -> bool:
        try:
            if name == HELLO and self._socket is None:
                hooks, error = msgspec.msgpack.decode(params, type=tuple[dict[str, int] | None, str | None])
                self.fault = error
                self.told.set()
                if hooks is None:
                    self._log.error("plugin cannot be loaded", why=error)
                    return True
                self.hooks = {hook: place for hook, place in hooks.items() if hook in HOOKS}
                self._socket = connection
                # A shadow gets what its plugin gets, in the same order.
                self.restored = RESTORE not in self.hooks or self._known_as != self.name
                self.figures.up = 1
                self._breaker.renew()
                self.started.set()
                self.started = trio.Event()
                self._log.info("plugin started", hooks=sorted(self.hooks))
                return True
            if name != ANSWER or self._socket is None:
                return False
            number, error, value, effects = msgspec.msgpack.decode(params, type=_ANSWER)
        except msgspec.MsgspecError:
            return False
        invocation = self._waiting.pop(number, None)
        if invocation is None:
            return False
        for following in islice(self._waiting.values(), 1):
            following.kill_at = max(following.kill_at, trio.current_time() + following.limit_s + GRACE_S)
        invocation.error = error
        if error is None:
            invocation.answer = Answer(value, [Effect(*effect) for effect in effects])
        invocation.over.set()
        return True

    async def _watch(self) -> None:
        while True:
            await trio.sleep(0.1)
            now = trio.current_time()
            # Calls are answered in their order: the others wait for the first one.
            first = next(iter(self._waiting.values()), None)
            if first is not None and first.kill_at < now:
                self.kill("an invocation outlasted its limit")
                return

    async def _drain(self, descriptor: int, said: bytearray) -> None:
        # What it writes is kept for the log, the end of it; whoever writes without end waits.
        os.set_blocking(descriptor, False)
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            octets = os.read(descriptor, READ_OCTETS)
            if not octets:
                return
            said += octets
            del said[:-NOTED_OCTETS]
            await trio.sleep(0.02)


_ANSWER = tuple[int, str | None, Any, list[tuple[str, str, Any]]]


def _descriptors(shared: Shared) -> bytes:
    return b"".join(number.to_bytes(4, sys.byteorder) for number in (shared.descriptor, shared.answer))


def environment() -> dict[str, str]:
    """What a plugin's process may know of its surroundings: where Python is, and nothing of ours."""
    return {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join(place for place in sys.path if place),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "POLARS_MAX_THREADS": "1",
    }
