"""What a client may send and what it hears: the wire rules, the limits, one effect a key."""

from __future__ import annotations

from contextlib import suppress

import msgpack
import pytest
import trio
import trio.testing
from tests.unit.rpc.conftest import OPERATOR, World

from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import Change, Empty, Params, Result, make
from ipss_headend.rpc.connection import Bounds
from ipss_headend.rpc.faults import Fault
from ipss_headend.rpc.idempotency import Keys
from ipss_headend.security.permission import NOBODY, Principal, Right, Role


class Text(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    text: str
    times: int = 1


class Written(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    text: str


class Said(Result, frozen=True):
    said: str


def say(call: Call, params: Text) -> Said:
    """Say it back."""
    return Said(said=params.text * params.times)


async def say_later(call: Call, params: Text) -> Said:
    """Say it back after as many seconds as it has letters."""
    await trio.sleep(len(params.text))
    return Said(said=params.text)


def fall(call: Call, params: Params) -> Empty:
    """Break."""
    raise ZeroDivisionError


@pytest.fixture(autouse=True)
def methods(world: World) -> None:
    for name, handler in (("t.say", say), ("t.later", say_later), ("t.fall", fall)):
        world.methods[name] = make(name, Right.VIEW, handler)


async def test_params_are_a_map_or_values_in_order(world: World) -> None:
    async with world.client() as client:
        await client.send(
            [0, 1, "t.say", [{"text": "a", "times": 2}]], [0, 2, b"t.say", ["b", 3]], [0, 3, "t.say", ["c"]]
        )
        assert await client.hear(3) == [
            [1, 1, None, {"said": "aa"}],
            [1, 2, None, {"said": "bbb"}],
            [1, 3, None, {"said": "c"}],
        ]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ([{}], "E_PARAMS: t.say: The map missing required field `text`"),
        ([{"text": 5}], "E_PARAMS: t.say: Expected `str`, got `int` - at `text`"),
        (
            [{"text": "a", "tims": 2}],
            "E_PARAMS: t.say: The map contains unknown field `tims`; it takes text, times, deadline_ms",
        ),
        (["a", 1, 2, 3], "E_PARAMS: t.say: 4 params; it takes text, times, deadline_ms"),
        ([], "E_PARAMS: t.say: The map missing required field `text`"),
    ],
)
async def test_params_that_do_not_fit_are_named(world: World, params: list[object], words: str) -> None:
    async with world.client() as client:
        await client.send([0, 1, "t.say", params])
        assert await client.hear() == [[1, 1, words, None]]


async def test_errors_are_texts_until_a_client_wants_arrays(world: World) -> None:
    async with world.client() as client:
        assert await client.call("t.nope") == 'E_METHOD: no method is called "t.nope"; rpc.methods lists them'
        welcome = await client.call("rpc.hello", client="me", errors="array")
        assert welcome["version"] == 1
        assert (await client.call("t.nope"))[0] == "E_METHOD"


async def test_fault_of_ours_tells_nothing_and_ends_nothing(world: World) -> None:
    async with world.client() as client:
        assert await client.call("t.fall") == "E_INTERNAL: t.fall: a fault of the head-end's; its log has the rest"
        assert await client.call("t.say", text="still there") == {"said": "still there"}


async def test_unknown_notifications_and_responses_are_ignored(world: World) -> None:
    async with world.client() as client:
        await client.send([2, "nvim_error_event", [1, "x"]], [1, 99, None, None], [2, "t.say", [{"text": "x"}]])
        assert await client.call("t.say", text="a") == {"said": "a"}


async def test_answers_come_as_they_are_ready(world: World, autojump_clock: object) -> None:
    async with world.client() as client:
        await client.send(*([0, number, "t.later", [text]] for number, text in enumerate(("aaa", "a", "aa"))))
        assert [message[1] for message in await client.hear(3)] == [1, 2, 0]


async def test_deadline_ends_a_call(world: World, autojump_clock: object) -> None:
    async with world.client() as client:
        said = await client.call("t.later", text="a" * 30, deadline_ms=1500)
        assert said == "E_DEADLINE: t.later: no answer within 1.5 s"
        assert str(await client.call("t.later", text="", deadline_ms=0)).startswith("E_PARAMS: deadline_ms")


@pytest.mark.parametrize(
    "octets",
    [b"GET / HTTP/1.1\r\n", b"\x94\x00\x01\xa1m\x91\xdd\xff\xff\xff\xff", b"\x94\x00\x01\xa1m\x91\xc1", b"\x00"],
)
async def test_what_breaks_a_wire_rule_ends_the_connection(world: World, octets: bytes) -> None:
    async with world.client() as client:
        await client.send([0, 5, "t.say", ["first"]])
        await client.stream.send_all(octets)
        first, fault, *rest = await client.hear(3)
        assert first == [1, 5, None, {"said": "first"}]
        assert fault[2].startswith("E_PROTOCOL: ")
        assert rest == []
    assert world.counts.violations == 1


async def test_strangers_get_little(world: World, autojump_clock: object) -> None:
    async with world.client(NOBODY) as client:
        assert str(await client.call("t.say", text="a")).startswith("E_AUTH: t.say: say who you are first")
        assert "now_ms" in await client.call("rpc.ping")
        await client.send([0, 1, "rpc.hello", [{"client": "x" * 5000}]])
        assert "4096 octets" in (await client.hear())[0][2]
    async with world.client(NOBODY) as client:
        [[_, _, error, _]] = await client.hear()
        assert error == "E_AUTH: nobody has said who they are within 30 s"


async def test_right_that_is_missing_is_named(world: World) -> None:
    async with world.client(Principal("s", frozenset({Role.SECAUD}))) as client:
        assert await client.call("t.say", text="a") == "E_DENIED: t.say needs the right view; your roles are SECAUD"


async def test_too_many_calls_are_told_when_to_come_again(world: World, autojump_clock: object) -> None:
    world.rate = 5
    async with world.client() as client:
        said = [await client.call("t.say", text="a") for _ in range(6)]
        assert said[:5] == [{"said": "a"}] * 5
        assert said[5] == "E_RATE: t.say: too many calls; retry_after_ms=201"
        await trio.sleep(0.3)
        assert await client.call("t.say", text="a") == {"said": "a"}


async def test_client_that_reads_nothing_is_not_read_and_then_cut(world: World, autojump_clock: object) -> None:
    world.bounds = Bounds(out_octets=100_000)
    ours, theirs = trio.testing.lockstep_stream_pair()  # it takes an octet only when the other end does
    question = msgpack.packb([0, 1, "t.say", ["x" * 10_000]])
    sent = 0

    async def send() -> None:
        nonlocal sent
        with suppress(trio.BrokenResourceError):
            while True:
                await ours.send_all(question)
                sent += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        started = trio.current_time()
        await world.connection(theirs, OPERATOR).run()
        nursery.cancel_scope.cancel()
    assert world.counts.cut == 1
    assert 29 < trio.current_time() - started < 33
    assert 10 <= sent <= 40


async def once(world: World, effects: list[str]) -> None:
    async def write(call: Call, params: Written) -> Said:
        """Write it down."""
        if params.text == "refuse":
            raise Fault("E_REFUSED", "no")
        await trio.sleep(0.01)
        effects.append(params.text)
        return Said(said=params.text)

    world.methods["t.write"] = make("t.write", Right.VIEW, write)


async def test_key_has_one_effect(world: World) -> None:
    effects: list[str] = []
    await once(world, effects)
    async with world.client() as client, world.client() as other:
        for number in range(20):
            await client.send([0, number, "t.write", [{"text": "a", "key": "k1"}]])
            await other.send([0, number, "t.write", [{"text": "a", "key": "k1"}]])
        answers = await client.hear(20) + await other.hear(20)
        assert all(answer[2:] == [None, {"said": "a"}] for answer in answers)
        assert effects == ["a"]
        assert str(await client.call("t.write", text="b", key="k1")).startswith('E_KEY: key "k1" was used before')
        assert await client.call("t.write", text="b", key="k2") == {"said": "b"}
        assert await client.call("t.write", text="b") == ("E_PARAMS: t.write: The map missing required field `key`")
    assert effects == ["a", "b"]


async def test_key_outlives_the_process_and_an_unfinished_call_is_told(world: World) -> None:
    effects: list[str] = []
    await once(world, effects)
    async with world.client() as client:
        assert await client.call("t.write", text="refuse", key="r") == "E_REFUSED: no"
        assert await client.call("t.write", text="a", key="k") == {"said": "a"}
    world.services.keys = Keys(world.services.store)
    async with world.client() as client:
        assert await client.call("t.write", text="a", key="k") == {"said": "a"}
        assert await client.call("t.write", text="refuse", key="r") == "E_REFUSED: no"
    assert effects == ["a"]
    # As a process leaves it that dies in the call.
    await world.services.store.change(
        lambda connection: connection.exec_driver_sql("UPDATE rpc_keys SET answer = NULL WHERE key = 'k'")
    )
    async with world.client() as client:
        assert str(await client.call("t.write", text="a", key="k")).startswith('E_BUSY: key "k": the call was begun')
    assert effects == ["a"]


async def test_keys_belong_to_their_principal(world: World) -> None:
    effects: list[str] = []
    await once(world, effects)
    async with world.client() as client, world.client(Principal("other", OPERATOR.roles)) as other:
        assert await client.call("t.write", text="a", key="k") == {"said": "a"}
        assert await other.call("t.write", text="b", key="k") == {"said": "b"}


async def test_batch_answers_each_call(world: World) -> None:
    async with world.client() as client:
        calls = [{"method": "rpc.ping"}, {"method": "rpc.nope"}, {"method": "device.list", "params": {"limit": 1}}]
        said = await client.call("rpc.batch", calls=calls)
        assert [answer[0] is None for answer in said["answers"]] == [True, False, True]
        assert said["answers"][2][1] == {"devices": [], "cursor": None}
