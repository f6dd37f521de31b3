"""Our own side for the interop tests: ask one meter through the reactor, and record what passes on the wire."""

from __future__ import annotations

import contextlib
import datetime as dt
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
from Crypto.PublicKey import ECC
from tests.interop.peers import KEYS

from ipss_headend import _core
from ipss_headend.config import PrincipalConfig
from ipss_headend.field.control import orders
from ipss_headend.security.principals import Signer, public_key_of

ANSWER_TIMEOUT_S = 30.0


def name(text: str) -> bytes:
    """The six octets of a logical name in dots."""
    return bytes(int(part) for part in text.split("."))


def utc_us(moment: dt.datetime) -> int:
    """Microseconds of UTC since 1970."""
    return int(moment.timestamp() * 1_000_000)


def profile_of(
    authentication: str = "hls-gmac",
    protection: str = "auth+enc",
    ciphering: str = "service",
    *,
    dedicated: bool = False,
    max_pdu: int = 65535,
    suite: int = 0,
) -> _core.Profile:
    """A pinned profile with the suite's client title."""
    return _core.Profile(
        client=1,
        server=1,
        authentication=authentication,  # type: ignore[arg-type]
        protection=protection,  # type: ignore[arg-type]
        ciphering=ciphering,  # type: ignore[arg-type]
        dedicated=dedicated,
        suite=suite,
        client_title=bytes.fromhex(KEYS.client_title),
        max_pdu=max_pdu,
    )


def gurux_keys() -> dict[str, Any]:
    """What `_core.Meter` must know of the gurux-dlms meter."""
    return {
        "system_title": bytes.fromhex(KEYS.meter_title),
        "encryption_key": bytes.fromhex(KEYS.encryption_key),
        "authentication_key": bytes.fromhex(KEYS.authentication_key),
        "password": KEYS.password.encode(),
    }


@dataclass
class Told:
    """All that the reactor said of one request."""

    outcome: str = ""
    detail: str = ""
    answers: dict[int, list[int | bytes | None]] = field(default_factory=dict)
    """The cells of each item without a layout."""
    rows: dict[int, list[tuple[int, list[Any]]]] = field(default_factory=dict)
    """Capture time and cells of each line with a layout, by layout."""
    refusals: dict[int, int] = field(default_factory=dict)
    """The meter's own no, by item."""
    events: list[str] = field(default_factory=list)


def switch_off(address: str, profile: _core.Profile, stop_file: Path, **keys: Any) -> tuple[str, list[Any]]:
    """Disconnect one meter by an order that two people signed; how it ended, and the output state read afterwards."""
    people = [ECC.generate(curve="Ed25519") for _ in range(2)]
    principals = [
        PrincipalConfig(name, public_key_of(key), may_approve=True) for name, key in zip("ab", people, strict=True)
    ]
    order = orders.switch(
        "off",
        [(1, keys["system_title"])],
        reason="test",
        requester="a",
        created_us=time.time_ns() // 1000,
        life_s=60,
    )
    octets = order.octets()
    asks, approves = (Signer(who, key) for who, key in zip(principals, people, strict=True))
    gate = _core.Gate(stop_file=stop_file, principals=[(who.name, who.public_key, True, True) for who in principals])
    reactor = _core.Reactor(threads=1, gate=gate)
    try:
        gate.limit(1, 1, 1)
        assert gate.resume(1)
        reactor.believe(0)
        gate.lease(gate.awake_s(), 600.0, time.time_ns() // 1000)
        reactor.add([_core.Meter(1, address, profile, **keys)])
        reactor.admit(octets, [asks.sign("propose", 0, octets), approves.sign("approve", 1, octets)])
        released = reactor.release(order.order_id, order.targets[0].command_id, ANSWER_TIMEOUT_S)
        item = _core.Item.attributes(0, [(70, name("0.0.96.3.10.255"), 2)])
        read = reactor.submit(_core.Plan([item]), [1], timeout_s=ANSWER_TIMEOUT_S)
        ends: dict[int, str] = {}
        cells: list[Any] = []
        while read not in ends:
            assert select.select([reactor.fileno()], [], [], ANSWER_TIMEOUT_S)[0]
            while (batch := reactor.take()) is not None:
                cells += [
                    _core.decode_data(bytes(cell or b""))
                    for answer in batch.answers()
                    for cell in answer[6]
                    if answer[1] == read
                ]
                ends.update({end[0]: _core.OUTCOMES[end[2]] for end in batch.ends()})
        assert reactor.settle(released)
        return ends[released], cells
    finally:
        reactor.stop()


def ask(
    address: str,
    profile: _core.Profile,
    items: Sequence[_core.Item],
    *,
    counters: tuple[int, int] = (1, 100_000),
    peer_counter: int | None = None,
    from_us: int = 0,
    to_us: int = 0,
    **keys: Any,
) -> Told:
    """Ask one meter one plan over a connection of its own, and release it."""
    reactor = _core.Reactor(threads=1, backoff_base_s=60.0)
    told = Told()
    try:
        reactor.add(
            [
                _core.Meter(
                    1,
                    address,
                    profile,
                    counters=counters,
                    peer_counter=peer_counter,
                    hold_open=False,
                    idle_s=0.0,
                    **keys,
                )
            ]
        )
        request = reactor.submit(
            _core.Plan(items), [1], timeout_s=ANSWER_TIMEOUT_S, attempts=1, from_us=from_us, to_us=to_us
        )
        give_up = time.monotonic() + ANSWER_TIMEOUT_S
        while time.monotonic() < give_up:
            select.select([reactor.fileno()], [], [], 0.2)
            batch = reactor.take()
            if batch is None:
                continue
            for answer in batch.answers():
                told.answers[answer[2]] = answer[6]
            for row in batch.rows(0):
                told.rows.setdefault(row[1], []).append((row[2], msgpack.unpackb(row[8])))
            for _, _, item, code in batch.refusals():
                told.refusals[item] = code
            told.events += [_core.EVENT_KINDS[event[2]] for event in batch.events()]
            for number, _, outcome, _, _, detail in batch.ends():
                if number == request:
                    told.outcome, told.detail = _core.OUTCOMES[outcome], detail
            # A request that was served is followed by the release of its association.
            if told.outcome and (told.outcome not in ("done", "refused") or "disconnected" in told.events):
                return told
        raise TimeoutError(f"no end of the request: {told}")
    finally:
        reactor.stop()


@dataclass
class Recording:
    """What passed through a recorder: whole WPDUs, by who sent them."""

    address: str
    from_head_end: list[bytes] = field(default_factory=list)
    from_meter: list[bytes] = field(default_factory=list)


def _apdus(octets: bytearray, kept: list[bytes]) -> None:
    """Move the whole WPDUs at the front of `octets` to `kept`, without their headers."""
    while len(octets) >= 8:
        end = 8 + struct.unpack_from(">H", octets, 6)[0]
        if len(octets) < end:
            return
        kept.append(bytes(octets[8:end]))
        del octets[:end]


@contextlib.contextmanager
def recorded(host: str, port: int) -> Iterator[Recording]:
    """Stand between a head-end and the meter at `host`, for one connection, and keep what both say."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(ANSWER_TIMEOUT_S)
    recording = Recording(f"127.0.0.1:{listener.getsockname()[1]}")

    def pump() -> None:
        with (
            contextlib.suppress(OSError),
            listener,
            listener.accept()[0] as near,
            socket.create_connection((host, port), timeout=ANSWER_TIMEOUT_S) as far,
        ):
            kept = {near: recording.from_head_end, far: recording.from_meter}
            rest = {near: bytearray(), far: bytearray()}
            give_up = time.monotonic() + ANSWER_TIMEOUT_S
            while time.monotonic() < give_up:
                for one in select.select([near, far], [], [], 0.2)[0]:
                    octets = one.recv(65536)
                    if not octets:
                        return
                    rest[one] += octets
                    _apdus(rest[one], kept[one])
                    (far if one is near else near).sendall(octets)

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    yield recording
    thread.join(ANSWER_TIMEOUT_S)
