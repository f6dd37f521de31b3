"""The client of the head-end's RPC: for trio (`AsyncClient`), and for plain programs (`Client`).

    with Client("unix:/srv/head-end/data/rpc.sock") as head_end:
        [value] = head_end.call("read.last", points=["meter-7"], items=["1.0.1.8.0.255"])["values"]

A call that changes nothing is repeated when the connection broke; one that changes something is repeated with its own
idempotency key, so it takes effect once. Streams go on from their last cursor over any number of connections.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
import ssl
import time
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import msgpack
import trio

from ipss_headend.errors import MeterGone, RequestError, words

CONNECT_S = 10.0
CALL_S = 60.0
ATTEMPTS = 4
FIRST_PAUSE_S = 0.1
AWAY_PAUSE_S = 1.0
"""Between a stream's tries while the head-end that it was heard from is away."""
LONGEST_MESSAGE = 64 << 20
"""What an answer may be long before the server is not believed any more."""
RPC_PORT = 4060

CHANGES = frozenset(
    {"device.add", "device.import", "device.retire", "device.adopt", "device.forget", "event.ack", "job.cancel"}
    | {"control.switch", "control.limit", "control.tariff", "control.keys", "control.approve"}
    | {"control.release", "control.cancel", "control.resume", "control.clear"}
    | {"auth.grant", "auth.revoke", "auth.user.add", "auth.user.certificate", "auth.user.disable"}
    | {"admin.backup", "admin.drain", "der.release", "der.set"}
    | {"plugin.configure", "plugin.disable", "plugin.enable", "plugin.reload", "plugin.replay", "plugin.selftest"}
    | {
        "vee.run",
        "vee.edit",
        "sales.recompute",
        "read.schedule.set",
        "read.schedule.remove",
        "param.plan",
        "param.apply",
        "topology.put",
        "device.place",
        "weather.put",
    }
)
"""Methods that are given an idempotency key; a caller of plugins' methods gives it."""


class CallFailed(RequestError):
    """A call came to an error. `code` begins with `E_`."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class Disconnected(MeterGone):
    """The head-end cannot be reached, or the connection broke as often as it could be tried."""


class Address:
    """Where a head-end answers: `unix:PATH`, a path, or `tls://HOST:PORT`."""

    def __init__(self, text: str) -> None:
        """Take it apart.

        Raises:
            RequestError: it is no address.
        """
        self.text = text
        self.path: str | None = None
        self.host, self.port = "", RPC_PORT
        if text.startswith("tls://"):
            host, colon, port = text[6:].rpartition(":")
            self.host = (host if colon else port).strip("[]")
            if colon and not port.isdecimal():
                raise RequestError(f"{text}: {port} is not a port; write tls://HOST:{RPC_PORT}")
            self.port = int(port) if colon else RPC_PORT
            if not self.host:
                raise RequestError(f"{text}: no host; write tls://HOST:{RPC_PORT}")
        elif "://" in text:
            raise RequestError(f"{text}: write unix:PATH or tls://HOST:PORT")
        elif re.fullmatch(r"[\w.-]+:[0-9]+", text):
            raise RequestError(f"{text}: write tls://{text}; a socket is unix:PATH")
        else:
            self.path = text.removeprefix("unix:")


class _Talk:
    """One connection's messages, without any waiting: questions to octets, octets to answers."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._unpacker = msgpack.Unpacker(raw=False, max_buffer_size=LONGEST_MESSAGE, strict_map_key=True)

    def question(self, method: str, params: Mapping[str, Any]) -> tuple[int, bytes]:
        number = next(self._numbers) & 0xFFFF_FFFF
        return number, msgpack.packb([0, number, method, [dict(params)]])

    def heard(self, octets: bytes) -> Iterator[list[Any]]:
        self._unpacker.feed(octets)
        yield from self._unpacker


def _result(message: list[Any]) -> Any:
    _, _, error, result = message
    if error is None:
        return result
    if isinstance(error, list | tuple):
        raise CallFailed(*error)
    code, colon, text = str(error).partition(": ")
    raise CallFailed(code if colon else "E_INTERNAL", text if colon else code)


def _with_key(method: str, params: dict[str, Any], changes: frozenset[str]) -> dict[str, Any]:
    if method in changes and "key" not in params:
        params["key"] = uuid.uuid4().hex
    return params


def _hint(address: Address, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"{address.text}: {words(error)}; here the user that the head-end runs as may call, and root"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{address.text}: {error.verify_message}; --authority names whose certificate it has to be"
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        said = (error.reason or "").rpartition("ALERT_")[2].lower().replace("_", " ")
        return f"{address.text}: the head-end says {said}; it lets in certificates of its [rpc] client_authority alone"
    return f"{address.text}: {words(error)}; is the head-end running, and is this where it answers (its [rpc])?"


def _is_away(error: Disconnected | CallFailed) -> bool:
    if isinstance(error, CallFailed):
        return error.code in {"E_DRAINING", "E_BUSY"}
    return not isinstance(error.__cause__, ssl.SSLError | PermissionError)


class Client:
    """A client that waits in place, for one thread."""

    def __init__(
        self, address: str, *, tls: ssl.SSLContext | None = None, name: str = "", timeout_s: float = CALL_S
    ) -> None:
        """Nothing is connected before the first call. `tls` has this client's certificate (see `tls_context`)."""
        self._address = Address(address)
        self._tls = tls
        self._name = name or f"python {os.getpid()}"
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._talk = _Talk()
        self._changes = CHANGES

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection; the next call makes another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def call(self, method: str, /, **params: Any) -> Any:
        """Call a method and give its result.

        Raises:
            CallFailed: it came to an error.
            Disconnected: the head-end cannot be reached.
        """
        _with_key(method, params, self._changes)
        for attempt in itertools.count(1):
            try:
                return _result(self._once(method, params))
            except (OSError, EOFError) as error:
                self.close()
                if attempt >= ATTEMPTS:
                    raise Disconnected(_hint(self._address, error)) from error
                time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
            except CallFailed as error:
                if error.code != "E_RATE" or attempt >= ATTEMPTS:
                    raise
                time.sleep(_retry_after_s(error.text))
        raise AssertionError

    def stream(self, *topics: str, cursor: int | None = None) -> Iterator[dict[str, Any]]:
        """What happens, for ever: each item has `cursor` beside `events`; keep it once the item is dealt with.

        Once the head-end has answered, the stream waits for it whenever it is away: a restart, an upgrade.

        Raises:
            CallFailed: it may not be heard, or the cursor is no longer kept.
            Disconnected: the head-end could not be reached at first, or takes this client in no more.
        """
        heard = False
        if cursor is None or cursor == 0:
            cursor = self.call("stream.open", topics=list(topics) or ["readings", "events"], cursor=cursor)["cursor"]
        while True:
            try:
                found = self.call("stream.poll", topics=list(topics) or ["readings", "events"], cursor=cursor)
            except (Disconnected, CallFailed) as error:
                if not heard or not _is_away(error):
                    raise
                time.sleep(AWAY_PAUSE_S)
                continue
            heard = True
            cursor = found["cursor"]
            if found["events"]:
                yield found

    def _once(self, method: str, params: Mapping[str, Any]) -> list[Any]:
        if self._socket is None:
            self._connect()
        number, octets = self._talk.question(method, params)
        assert self._socket is not None
        self._socket.sendall(octets)
        return self._answer(number)

    def _answer(self, number: int) -> list[Any]:
        assert self._socket is not None
        while True:
            octets = self._socket.recv(65_536)
            if not octets:
                raise EOFError("the head-end closed the connection")
            for message in self._talk.heard(octets):
                if message[0] == 1 and message[1] == number:
                    return message

    def _connect(self) -> None:
        address = self._address
        self._talk = _Talk()
        if address.path is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.settimeout(CONNECT_S)
            self._socket.connect(address.path)
        else:
            plain = socket.create_connection((address.host, address.port), CONNECT_S)
            self._socket = (self._tls or tls_context()).wrap_socket(plain, server_hostname=address.host)
        self._socket.settimeout(self._timeout_s)
        number, octets = self._talk.question("rpc.hello", {"client": self._name, "errors": "array"})
        self._socket.sendall(octets)
        _result(self._answer(number))


class AsyncClient:
    """A client under trio: any number of calls at once over one connection.

    async with AsyncClient("unix:rpc.sock") as head_end:
        values = await head_end.call("read.now", device="meter-7", items=["1.0.1.8.0.255"])
    """

    def __init__(self, address: str, *, tls: ssl.SSLContext | None = None, name: str = "") -> None:
        self._address = Address(address)
        self._tls = tls
        self._name = name or f"python {os.getpid()}"
        self._talk = _Talk()
        self._stream: trio.abc.Stream | None = None
        self._sending = trio.Lock()
        self._connecting = trio.Lock()
        self._waiting: dict[int, _Waiter] = {}
        self._nursery_manager: Any = None
        self._nursery: trio.Nursery | None = None
        self._changes = CHANGES

    async def __aenter__(self) -> Self:
        self._nursery_manager = trio.open_nursery()
        self._nursery = await self._nursery_manager.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> bool | None:
        assert self._nursery is not None
        if self._stream is not None:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)
        self._nursery.cancel_scope.cancel()
        return await self._nursery_manager.__aexit__(kind, error, where)  # type: ignore[no-any-return]

    async def call(self, method: str, /, **params: Any) -> Any:
        """Call a method and give its result. Cancelling it lets go of the answer, not of the effect.

        Raises:
            CallFailed: it came to an error.
            Disconnected: the head-end cannot be reached.
        """
        _with_key(method, params, self._changes)
        for attempt in itertools.count(1):
            try:
                return _result(await self._once(method, params))
            except (OSError, EOFError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                if attempt >= ATTEMPTS:
                    raise Disconnected(_hint(self._address, error)) from error
                await trio.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
            except CallFailed as error:
                if error.code != "E_RATE" or attempt >= ATTEMPTS:
                    raise
                await trio.sleep(_retry_after_s(error.text))
        raise AssertionError

    async def stream(self, *topics: str, cursor: int | None = None) -> AsyncGenerator[dict[str, Any], None]:
        """As `Client.stream`."""
        heard = False
        wanted = list(topics) or ["readings", "events"]
        if cursor is None or cursor == 0:
            cursor = (await self.call("stream.open", topics=wanted, cursor=cursor))["cursor"]
        while True:
            try:
                found = await self.call("stream.poll", topics=wanted, cursor=cursor)
            except (Disconnected, CallFailed) as error:
                if not heard or not _is_away(error):
                    raise
                await trio.sleep(AWAY_PAUSE_S)
                continue
            heard = True
            cursor = found["cursor"]
            if found["events"]:
                yield found

    async def _once(self, method: str, params: Mapping[str, Any]) -> list[Any]:
        async with self._connecting:
            if self._stream is None:
                await self._connect()
        return await self._ask(method, params)

    async def _ask(self, method: str, params: Mapping[str, Any]) -> list[Any]:
        stream = self._stream
        if stream is None:
            raise EOFError("the head-end closed the connection")
        number, octets = self._talk.question(method, params)
        waiter = self._waiting[number] = _Waiter()
        try:
            async with self._sending:
                await stream.send_all(octets)
            await waiter.over.wait()
        finally:
            self._waiting.pop(number, None)
        if waiter.message is None:
            raise EOFError("the head-end closed the connection")
        return waiter.message

    async def _connect(self) -> None:
        assert self._nursery is not None, "use it with async with"
        address = self._address
        with trio.fail_after(CONNECT_S):
            if address.path is not None:
                self._stream = await trio.open_unix_socket(address.path)
            else:
                plain = await trio.open_tcp_stream(address.host, address.port)
                self._stream = trio.SSLStream(plain, self._tls or tls_context(), server_hostname=address.host)
        self._talk = _Talk()
        self._nursery.start_soon(self._hear, self._stream)
        _result(await self._ask("rpc.hello", {"client": self._name, "errors": "array"}))

    async def _hear(self, stream: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for octets in stream:
                for message in self._talk.heard(bytes(octets)):
                    waiter = self._waiting.get(message[1]) if message[0] == 1 else None
                    if waiter is not None:
                        waiter.message = message
                        waiter.over.set()
        if self._stream is stream:
            self._stream = None
        for waiter in self._waiting.values():
            waiter.over.set()


class _Waiter:
    def __init__(self) -> None:
        self.over = trio.Event()
        self.message: list[Any] | None = None


def _retry_after_s(text: str) -> float:
    _, found, milliseconds = text.partition("retry_after_ms=")
    return min(float(milliseconds) / 1000 if found and milliseconds.isdecimal() else 1.0, CALL_S)


def sign_order(
    octets: bytes | str,
    private_key: Path | str,
    *,
    signer: str,
    purpose: Literal["propose", "approve", "unquarantine", "resume", "clear"] = "approve",
    generation: int = 0,
    passphrase: str | None = None,
) -> str:
    """Sign what `control.preview` or `control.order` gave (octets, or their hexadecimal digits); for `control.*`.

    `private_key` is a file that `ipss-headend control operator` made; `generation` is 0 to propose and control.order's
    to approve. Look at what you sign: `ipss_headend.field.control.orders.Order.decode(octets)`.

    Raises:
        ConfigError: the file has no such key, or others may read it.
    """
    from ipss_headend.config import PrincipalConfig
    from ipss_headend.security import principals

    key = principals.load_key_file(Path(private_key), passphrase)
    person = principals.Signer(PrincipalConfig(signer, principals.public_key_of(key)), key)
    said = bytes.fromhex(octets) if isinstance(octets, str) else octets
    return person.sign(purpose, generation, said).octets.hex()


def tls_context(
    *, certificate: str | None = None, key: str | None = None, authority: str | None = None
) -> ssl.SSLContext:
    """TLS as the head-end wants it: version 1.3, its certificate checked by `authority`, ours shown."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


__all__ = ["Address", "AsyncClient", "CallFailed", "Client", "Disconnected", "sign_order", "tls_context"]
