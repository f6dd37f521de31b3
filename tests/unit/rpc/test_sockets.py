"""Over real sockets: what goes at once, what has to wait, and how a connection ends."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgpack
import pytest
import trio
from tests.unit.rpc.conftest import OPERATOR, Client, World
from tests.unit.rpc.test_connection import Said, Text, say_later
from tests.unit.rpc.test_tls import Site, connect, listening, register

from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import make
from ipss_headend.rpc.tls import Door
from ipss_headend.rpc.wire import Hall, Wire
from ipss_headend.security.permission import Right, Role

LIMIT_S = 60
LONG = 700_000
"""Octets, more than a socket of this machine takes at once."""


def repeat(call: Call, params: Text) -> Said:
    """Say it back."""
    return Said(said=params.text * params.times)


@pytest.fixture(autouse=True)
def methods(world: World) -> None:
    for name, handler in (("t.say", repeat), ("t.later", say_later)):
        world.methods[name] = world.services.methods[name] = make(name, Right.VIEW, handler)


@asynccontextmanager
async def bare(world: World) -> AsyncIterator[Client]:
    """A client of a connection over a pair of sockets with little room."""
    ours, theirs = socket.socketpair()
    for one in (ours, theirs):
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    hall = Hall()
    wire = Wire(theirs, hall)

    async def serve() -> None:
        async with wire:
            await world.connection(wire, OPERATOR).run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hall.run)
        nursery.start_soon(serve)
        with trio.fail_after(LIMIT_S):
            async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as stream:
                yield Client(stream)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def secured(world: World, directory: Path) -> AsyncIterator[Client]:
    """A client over TLS."""
    site = Site(directory)
    shown = site.authority.issue("billing")
    await register(world, "billing", shown, Role.SERVICE)
    async with listening(world, Door(site.config)) as port, connect(port, site.context(shown)) as client:
        yield client


@pytest.mark.parametrize("kind", ["bare", "TLS"])
async def test_long_questions_and_answers_pass_whole_between_short_ones(
    world: World, tmp_path: Path, kind: str
) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    async with bare(world) if kind == "bare" else secured(world, tmp_path) as client:
        long = letters * (LONG // len(letters))
        asked = [[0, 1, "t.say", ["short"]], [0, 2, "t.say", [long]], [0, 3, "t.say", ["!", LONG]]]
        asked += [[0, number, "t.say", [str(number)]] for number in range(4, 1000)]
        heard: list[list[object]] = []

        async def hear() -> None:
            heard.extend(await client.hear(len(asked)))

        async with trio.open_nursery() as both:
            both.start_soon(hear)
            await client.send(*asked)

        wanted = ["short", long, "!" * LONG, *(str(number) for number in range(4, 1000))]
        assert [answer[3] for answer in heard] == [{"said": words} for words in wanted]


@pytest.mark.parametrize("kind", ["bare", "TLS"])
async def test_answers_that_had_to_wait_and_answers_at_once_do_not_mix(world: World, tmp_path: Path, kind: str) -> None:
    async with bare(world) if kind == "bare" else secured(world, tmp_path) as client:
        for number in range(100):
            # Nobody reads yet: the long answer fills the socket, and the others come behind it.
            await client.send([0, 1, "t.say", ["x", LONG // 10]], [0, 2, "t.later", [""]], [0, 3, "t.say", ["a"]])
            await client.send([0, 4, "t.say", ["b"]])
            answers = {answer[1]: answer[2:] for answer in await client.hear(4)}
            assert answers == {
                1: [None, {"said": "x" * (LONG // 10)}],
                2: [None, {"said": ""}],
                3: [None, {"said": "a"}],
                4: [None, {"said": "b"}],
            }, number


async def test_what_arrived_before_the_end_is_answered_before_the_end(world: World) -> None:
    async with bare(world) as client:
        await client.send([0, 1, "t.say", ["x", LONG]])
        await client.stream.send_all(b"\x00")
        answer, fault, *rest = await client.hear(3)
        assert answer[3] == {"said": "x" * LONG}
        assert str(fault[2]).startswith("E_PROTOCOL")
        assert rest == []
    assert world.counts.violations == 1


async def test_client_that_goes_ends_its_connection_alone(world: World) -> None:
    async with bare(world) as client:
        async with bare(world) as other:
            await other.send([0, 1, "t.say", ["x", LONG]])
            await other.stream.aclose()
        assert await client.call("t.say", text="still there") == {"said": "still there"}


async def test_wire_says_how_it_ended() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    wire = Wire(ours)
    theirs.close()
    assert await wire.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        wire.send_now(b"x")
    with pytest.raises(trio.BrokenResourceError):
        await wire.send_all(b"x")
    await wire.aclose()
    await wire.aclose()
    with pytest.raises(trio.ClosedResourceError):
        wire.send_now(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await wire.receive_some()


@pytest.mark.parametrize("calls", [10, 5000], ids=["few at a time", "many at a time"])
async def test_flood_of_one_client_leaves_others_their_turns(world: World, calls: int) -> None:
    flood = msgpack.packb([0, 1, "t.say", ["x"]]) * calls
    heard = 0

    async with bare(world) as flooder, bare(world) as other, trio.open_nursery() as nursery:

        async def send() -> None:
            while True:
                await flooder.stream.send_all(flood)

        async def hear() -> None:
            nonlocal heard
            while await flooder.stream.receive_some(65536):
                heard += 1

        nursery.start_soon(send)
        nursery.start_soon(hear)
        for number in range(200):
            assert await other.call("t.say", text=str(number)) == {"said": str(number)}
        assert heard
        nursery.cancel_scope.cancel()
