"""One effect for each idempotency key, however often a call is repeated, restarts included.

A key belongs to its principal. What the call came to is durable beside the key; a repeat with the same params gets it
again, a repeat with others is refused. A call that was begun and never ended (the process died in it) is told so: its
method says how to find out what became of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import trio
from sqlalchemy import Connection, delete, insert, select, update

from ipss_headend.rpc.catalogue import Method, Result
from ipss_headend.rpc.faults import Fault, fault_of
from ipss_headend.store.database import now_us
from ipss_headend.store.schema import rpc_keys

if TYPE_CHECKING:
    from ipss_headend.rpc.call import Call
    from ipss_headend.store import Store

LONGEST_KEY = 128
KEPT_US = 7 * 86_400 * 1_000_000
"""A key is known for a week."""


@dataclass(slots=True)
class _Work:
    digest: bytes
    over: trio.Event


class Keys:
    """The keys of one store."""

    def __init__(self, store: Store, wall_us: Callable[[], int] = now_us) -> None:
        self._store = store
        self._wall_us = wall_us
        self._working: dict[tuple[str, str], _Work] = {}

    async def once(self, call: Call, method: Method, params: Any, octets: bytes) -> Result:
        """Do it, or say what came of it the first time.

        Raises:
            Fault: the key was used with other params; or what the first time failed with.
        """
        key: str = params.key
        if not 1 <= len(key) <= LONGEST_KEY or not key.isprintable():
            raise Fault("E_PARAMS", f"key: 1 to {LONGEST_KEY} printable characters")
        name = (call.principal.name, key)
        digest = hashlib.blake2b(method.name.encode() + b"\0" + octets, digest_size=16).digest()
        while (work := self._working.get(name)) is not None:
            self._check(work.digest, digest, key)
            await work.over.wait()
        work = self._working[name] = _Work(digest, trio.Event())
        try:
            known = await self._store.change(lambda connection: self._begin(connection, name, method, digest))
            if known is not None:
                return self._again(known, digest, key, method)
            return await self._do(call, method, params, name)
        finally:
            del self._working[name]
            work.over.set()

    async def _do(self, call: Call, method: Method, params: Any, name: tuple[str, str]) -> Result:
        try:
            found: Result | Awaitable[Result] = method.handler(call, params)
            result = found if isinstance(found, Result) else await found
        except Exception as error:
            fault = fault_of(error)
            with trio.CancelScope(shield=True):
                # A fault of ours may have had an effect: the key stays begun, and a repeat is told to look.
                if fault is not None:
                    await self._end(name, {"error": [fault.code, fault.text]})
            raise
        with trio.CancelScope(shield=True):
            await self._end(name, {"result": msgspec.to_builtins(result)})
        return result

    def _begin(
        self, connection: Connection, name: tuple[str, str], method: Method, digest: bytes
    ) -> tuple[bytes, bytes | None] | None:
        moment_us = self._wall_us()
        connection.execute(delete(rpc_keys).where(rpc_keys.c.at_us < moment_us - KEPT_US))
        row = connection.execute(
            select(rpc_keys.c.digest, rpc_keys.c.answer).where(
                rpc_keys.c.principal == name[0], rpc_keys.c.key == name[1]
            )
        ).one_or_none()
        if row is not None:
            return row.digest, row.answer
        connection.execute(
            insert(rpc_keys).values(
                principal=name[0], key=name[1], method=method.name, digest=digest, at_us=moment_us, answer=None
            )
        )
        return None

    async def _end(self, name: tuple[str, str], answer: dict[str, object]) -> None:
        octets = msgspec.msgpack.encode(answer)
        await self._store.change(
            lambda connection: connection.execute(
                update(rpc_keys).where(rpc_keys.c.principal == name[0], rpc_keys.c.key == name[1]).values(answer=octets)
            )
        )

    def _again(self, known: tuple[bytes, bytes | None], digest: bytes, key: str, method: Method) -> Result:
        self._check(known[0], digest, key)
        if known[1] is None:
            raise Fault(
                "E_BUSY",
                f'key "{key}": the call was begun before the head-end stopped, and may have had its effect; look '
                "before you repeat it with another key",
            )
        answer = msgspec.msgpack.decode(known[1])
        if "error" in answer:
            raise Fault(*answer["error"])
        return msgspec.convert(answer["result"], method.result)

    @staticmethod
    def _check(known: bytes, digest: bytes, key: str) -> None:
        if known != digest:
            raise Fault("E_KEY", f'key "{key}" was used before with another method or other params; take a new one')
