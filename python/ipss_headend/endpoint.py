"""`/metrics` and `/healthz` over HTTP/1.1: one answer a connection, small limits, nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import h11
import trio
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from ipss_headend.log import Logger, logger

CONNECTIONS = 16
"""At once; more wait in the listener's backlog. A scrape takes milliseconds."""

WAIT_S = 10.0
"""For the whole of a request and its answer."""

_READ_OCTETS = 4096
_HEAD_OCTETS = 16_384

Health = Callable[[], Awaitable[dict[str, str]]]
"""What is wrong now: each subject with words, nothing when all is well."""


@dataclass(frozen=True, slots=True)
class _Page:
    status: int
    content_type: str
    body: bytes


class Endpoint:
    """The pages of one head-end."""

    def __init__(self, registry: CollectorRegistry, health: Health) -> None:
        self._registry = registry
        self._health = health
        self._room = trio.CapacityLimiter(CONNECTIONS)
        self._log: Logger = logger("endpoint")

    async def serve(self, listeners: list[trio.SocketListener]) -> None:
        """Answer on these listeners until cancelled."""
        await trio.serve_listeners(self._connection, listeners)

    async def _connection(self, stream: trio.abc.Stream) -> None:
        try:
            async with self._room, stream:
                with trio.move_on_after(WAIT_S):
                    await self._answer(stream)
        except Exception:  # noqa: BLE001 - round a subject's task
            self._log.exception("page failed")

    async def _answer(self, stream: trio.abc.Stream) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_OCTETS)
        try:
            request = await _request(connection, stream)
            if request is None:
                return
            page = await self._page(request)
        except h11.RemoteProtocolError as error:
            request, page = None, _Page(error.error_status_hint, "text/plain", b"not understood\n")
        headers = [
            ("content-type", page.content_type),
            ("content-length", str(len(page.body))),
            ("connection", "close"),
        ]
        answer = connection.send(h11.Response(status_code=page.status, headers=headers)) or b""
        if request is None or request.method != b"HEAD":
            answer += connection.send(h11.Data(data=page.body)) or b""
        try:
            await stream.send_all(answer)
        except trio.BrokenResourceError:
            return  # whoever asked has gone

    async def _page(self, request: h11.Request) -> _Page:
        target = request.target.partition(b"?")[0]
        if target not in {b"/metrics", b"/healthz"}:
            return _Page(404, "text/plain", b"there are /metrics and /healthz\n")
        if request.method not in {b"GET", b"HEAD"}:
            return _Page(405, "text/plain", b"GET only\n")
        if target == b"/metrics":
            accepted = next((value for name, value in request.headers if name == b"accept"), b"")
            encode, content_type = choose_encoder(accepted.decode("ascii", "replace"))
            return _Page(200, content_type, encode(self._registry))
        wrong = await self._health()
        if not wrong:
            return _Page(200, "text/plain", b"ok\n")
        return _Page(503, "text/plain", "".join(f"{subject}: {words}\n" for subject, words in wrong.items()).encode())


async def _request(connection: h11.Connection, stream: trio.abc.Stream) -> h11.Request | None:
    """The request's head; None when the peer closes before there is one."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        try:
            octets = await stream.receive_some(_READ_OCTETS)
        except trio.BrokenResourceError:
            return None
        connection.receive_data(bytes(octets))
