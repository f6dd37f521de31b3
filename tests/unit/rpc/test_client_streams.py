"""A stream outlives restarts of the head-end, and ends where waiting would help nobody."""

import ssl
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest
import trio

from ipss_headend import client
from ipss_headend.client import AsyncClient, CallFailed, Client, Disconnected

AWAY = Disconnected("rpc.sock: Connection refused")
FIRST, SECOND = {"cursor": 5, "events": [{"sequence": 5}]}, {"cursor": 6, "events": [{"sequence": 6}]}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "AWAY_PAUSE_S", 0)


def scripted(script: list[Any], asked: list[Any]) -> Callable[..., Any]:
    def call(_self: Any, method: str, **params: Any) -> Any:
        asked.append((method, params["cursor"]))
        said = script.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    return call


def taken(
    monkeypatch: pytest.MonkeyPatch, script: list[Any], count: int, *, is_async: bool
) -> tuple[list[int], list[Any]]:
    """The cursors of the first items, and what was asked for."""
    asked: list[Any] = []
    call = scripted(script, asked)
    if not is_async:
        monkeypatch.setattr(Client, "call", call)
        stream = Client("unix:rpc.sock").stream("readings", cursor=4)
        return [next(stream)["cursor"] for _ in range(count)], asked

    async def calls(self: Any, method: str, **params: Any) -> Any:
        return call(self, method, **params)

    monkeypatch.setattr(AsyncClient, "call", calls)

    async def main() -> list[int]:
        async with aclosing(AsyncClient("unix:rpc.sock").stream("readings", cursor=4)) as stream:
            return [(await anext(stream))["cursor"] for _ in range(count)]

    return trio.run(main), asked


@pytest.mark.parametrize("is_async", [False, True])
def test_stream_waits_for_a_head_end_that_starts_again(monkeypatch: pytest.MonkeyPatch, is_async: bool) -> None:
    script = [FIRST, CallFailed("E_DRAINING", "stopping"), AWAY, AWAY, SECOND]

    cursors, asked = taken(monkeypatch, script, 2, is_async=is_async)

    assert cursors == [5, 6]
    assert [cursor for _, cursor in asked] == [4, 5, 5, 5, 5]


@pytest.mark.parametrize("is_async", [False, True])
def test_stream_ends_where_nobody_was_ever_heard_or_waiting_is_in_vain(
    monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    shut_out = Disconnected("tls://h: the head-end says certificate revoked")
    shut_out.__cause__ = ssl.SSLError(1, "x")

    with pytest.raises(Disconnected):
        taken(monkeypatch, [AWAY], 1, is_async=is_async)
    with pytest.raises(Disconnected, match="revoked"):
        taken(monkeypatch, [FIRST, shut_out], 2, is_async=is_async)
    with pytest.raises(CallFailed, match="E_UNKNOWN"):
        taken(monkeypatch, [FIRST, CallFailed("E_UNKNOWN", "cursor")], 2, is_async=is_async)
