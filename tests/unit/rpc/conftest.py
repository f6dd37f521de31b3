"""An RPC server without a field: its store is real, its clients are memory streams."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgpack
import pytest
import trio
import trio.testing

from ipss_headend.field.topology import Topology
from ipss_headend.metrics import Figures
from ipss_headend.rpc import methods  # noqa: F401 - fills the table
from ipss_headend.rpc.call import Services, Session
from ipss_headend.rpc.catalogue import METHODS, Method
from ipss_headend.rpc.connection import Bounds, Connection, Counts
from ipss_headend.rpc.idempotency import Keys
from ipss_headend.rpc.jobs import Jobs
from ipss_headend.rpc.limits import RateLimit
from ipss_headend.rpc.logins import Logins
from ipss_headend.rpc.methods.read import Asking, Layouts
from ipss_headend.security.permission import Principal, Role
from ipss_headend.store import Database, Store
from ipss_headend.store.latest import Latest


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    """Time that goes on when nobody has anything to do."""
    return trio.testing.MockClock(autojump_threshold=0.02)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run coroutines under trio."""
    function = pyfuncitem.obj
    if not inspect.iscoroutinefunction(function):
        return None
    given = {name: pyfuncitem.funcargs[name] for name in inspect.signature(function).parameters}
    clock: Any = pyfuncitem.funcargs.get("autojump_clock")
    trio.run(lambda: function(**given), clock=clock)
    return True


OPERATOR = Principal("op", frozenset({Role.OPERATOR, Role.ENGINEER}))


@dataclass
class Client:
    """The other end of a connection."""

    stream: trio.abc.Stream
    unpacker: msgpack.Unpacker = field(default_factory=lambda: msgpack.Unpacker(raw=False))
    said: list[list[Any]] = field(default_factory=list)

    async def send(self, *messages: object) -> None:
        await self.stream.send_all(b"".join(msgpack.packb(message) for message in messages))

    async def hear(self, count: int = 1) -> list[list[Any]]:
        """The next messages; fewer if the server closes."""
        while len(self.said) < count:
            octets = await self.stream.receive_some(65536)
            if not octets:
                break
            self.unpacker.feed(bytes(octets))
            self.said += list(self.unpacker)
        found, self.said = self.said[:count], self.said[count:]
        return found

    async def call(self, method: str, **params: Any) -> Any:
        """The result, or the error as text."""
        await self.send([0, 1, method, [params]])
        [[_, _, error, result]] = await self.hear()
        return result if error is None else error


@dataclass
class World:
    """A server's rooms."""

    services: Services
    methods: dict[str, Method]
    counts: Counts = field(default_factory=Counts)
    bounds: Bounds = field(default_factory=Bounds)
    rate: float = 1e6

    def connection(self, stream: trio.abc.Stream, principal: Principal) -> Connection:
        connection = Connection(
            stream,
            Session(1, "test", principal),
            self.services,
            self.methods,
            bounds=self.bounds,
            limit=RateLimit(self.rate, self.rate, trio.current_time),
            keys=self.services.keys,
            counts=self.counts,
        )
        if principal.roles:
            connection.known()
        return connection

    @asynccontextmanager
    async def client(self, principal: Principal = OPERATOR) -> AsyncIterator[Client]:
        ours, theirs = trio.testing.memory_stream_pair()
        connection = self.connection(theirs, principal)

        async def serve() -> None:
            await connection.run()
            await theirs.aclose()  # as the server does

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield Client(ours)
            nursery.cancel_scope.cancel()


def services(store: Store) -> Services:
    nothing = cast("Any", None)
    return Services(
        config=nothing,
        store=store,
        field=nothing,
        reactor=nothing,
        figures=Figures(),
        stop=nothing,
        jobs=Jobs(),
        enrolment=nothing,
        quarantine=nothing,
        keys=Keys(store),
        logins=Logins(store),
        latest=Latest(),
        layouts=Layouts(),
        asking=Asking(),
        health=nothing,
        registry=nothing,
        names={},
        set_points=nothing,
        plugins=nothing,
        judge=nothing,
        schedules=nothing,
        topology=Topology(store),
    )


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path / "s.sqlite", own=True, reserve_bytes=0) as found:
        yield found


@pytest.fixture
def world(database: Database) -> World:
    return World(services(Store(database)), dict(METHODS))
