"""Where clients connect: a unix socket for this machine, TCP with TLS for others."""

from __future__ import annotations

import itertools
import os
import pwd
import socket
import stat
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio

from ipss_headend.config import RpcConfig
from ipss_headend.errors import ConfigError, StoreError, words
from ipss_headend.log import Logger, logger
from ipss_headend.rpc import methods  # noqa: F401 - fills the table
from ipss_headend.rpc.call import Services, Session
from ipss_headend.rpc.connection import Bounds, Connection, Counts
from ipss_headend.rpc.limits import RateLimit
from ipss_headend.rpc.tls import Door
from ipss_headend.rpc.wire import Hall, Wire, taken
from ipss_headend.security.permission import NOBODY, Principal, Role

CONNECTIONS = 1000
"""At once; more are closed with a word."""

Identify = Callable[[trio.SocketStream], Principal]


class Server:
    """The RPC server of one head-end."""

    def __init__(self, services: Services, *, bounds: Bounds | None = None, rate: float = 100_000) -> None:
        self._services = services
        self._bounds = bounds or Bounds()
        self._limit = RateLimit(rate, rate, trio.current_time)
        self._numbers = itertools.count(1)
        self.counts = Counts()
        self._log: Logger = logger("rpc")

    async def serve(self, listeners: list[trio.SocketListener], identify: Identify) -> None:
        """Answer on these listeners until cancelled."""

        async def handle(hall: Hall, stream: trio.SocketStream) -> None:
            principal = identify(stream)
            peer = "local" if identify is local_principal else _peer(stream)
            await self.talk(Wire(taken(stream), hall), principal, peer)

        await _welcome(listeners, handle)

    async def serve_tls(self, listeners: list[trio.SocketListener], door: Door) -> None:
        """As `serve`, for clients that prove with a certificate who they are."""

        async def handle(hall: Hall, stream: trio.SocketStream) -> None:
            try:
                peer = _peer(stream)
            except OSError:  # gone already
                await trio.aclose_forcefully(stream)
                return
            entered = await door.enter(stream, peer)
            if entered is None:
                return
            inside, fingerprint = entered
            async with inside:
                try:
                    principal = await self._services.logins.meet(fingerprint)
                except StoreError as error:
                    self._log.warning("client turned away: nobody can say who it is", peer=peer, why=str(error))
                    return
                inside.hall = hall
                await self.talk(inside, principal, peer, fingerprint)

        await _welcome(listeners, handle)

    async def talk(
        self, stream: trio.abc.Stream, principal: Principal, peer: str, fingerprint: bytes | None = None
    ) -> None:
        """Serve one connection to its end."""
        counts = self.counts
        if counts.connections >= CONNECTIONS:
            self._log.warning("too many connections", peer=peer)
            await stream.aclose()
            return
        counts.connections += 1
        counts.accepted += 1
        session = Session(next(self._numbers), peer, principal, fingerprint)
        connection = Connection(
            stream,
            session,
            self._services,
            self._services.methods,
            bounds=self._bounds,
            limit=self._limit,
            keys=self._services.keys,
            counts=counts,
        )
        if principal is not NOBODY:
            connection.known()
        self._services.logins.begin(session)
        try:
            async with stream:
                await connection.run()
        except Exception:  # noqa: BLE001 - round a subject's task
            self._log.exception("connection failed by a fault of ours", peer=peer)
        finally:
            session.closed = True
            self._services.logins.end(session)
            counts.connections -= 1


def local_principal(stream: trio.SocketStream) -> Principal:
    """Who is at the other end of a unix socket, by the kernel's word (SO_PEERCRED).

    The user that the head-end runs as, and root, who can read its files anyway, have every role; others have none.
    """
    credentials = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    if user not in {0, os.geteuid()}:
        return NOBODY
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:
        name = str(user)
    return Principal(f"local:{name}", frozenset(Role) - {Role.SERVICE})


def open_unix(path: Path) -> trio.SocketListener:
    """Listen on a unix socket that only this user and its group may connect to.

    Raises:
        ConfigError: it cannot be there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()  # whoever had it held the store's ownership, which is ours now
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.setblocking(False)
        old = os.umask(0o117)
        try:
            listening.bind(str(path))
        finally:
            os.umask(old)
        listening.listen(128)
    except OSError as error:
        raise ConfigError(f"rpc: {path}: {error.strerror or error}; choose another socket") from error
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))


async def open_tcp(config: RpcConfig) -> list[trio.SocketListener]:
    """Listen where other machines call.

    Raises:
        ConfigError: the address or port cannot be had.
    """
    try:
        return await trio.open_tcp_listeners(config.port, host=config.host)
    except OSError as error:
        raise ConfigError(
            f"rpc: {config.host}:{config.port}: {words(error)}; choose another address or port"
        ) from error


async def _welcome(
    listeners: list[trio.SocketListener], handle: Callable[[Hall, trio.SocketStream], Awaitable[None]]
) -> None:
    """Have each who comes handled, with a hall for all of them."""
    hall = Hall()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hall.run)
        await trio.serve_listeners(partial(handle, hall), listeners)


def _peer(stream: trio.SocketStream) -> str:
    name = stream.socket.getpeername()
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "local"
