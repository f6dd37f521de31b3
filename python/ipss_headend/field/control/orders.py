"""Orders as values, and their canonical octets: what people sign (docs/commands.md).

An order is one effect on one to 100,000 meters; each meter's part of it is a command. msgpack, arrays only, everything
in its shortest encoding: an order has one octet string, and an octet string is one order or none.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, NamedTuple, Self, get_args

import msgpack

from ipss_headend.errors import RequestError
from ipss_headend.field.control.budgets import CHANGES

FORM = ("ipss-headend order", 1)
MOST_TARGETS = 100_000
LONGEST_LIFE_S = 24 * 3600
"""From an order's making to its not-after at most."""
LONGEST_CHANGE_S = 30 * LONGEST_LIFE_S
"""The same for `budgets.CHANGES`, which go out in rings."""

Kind = Literal[
    "disconnect",
    "reconnect",
    "limit",
    "script",
    "firmware",
    "key-change",
    "tariff",
    "der-disconnect",
    "der-reconnect",
    "der-limit",
]
"""What an effect is about; the native gate finds it by the effect itself, but for registers, which do not tell."""

KINDS: frozenset[str] = frozenset(get_args(Kind))

DER = frozenset({"der-disconnect", "der-reconnect", "der-limit"})
"""Of Modbus devices; `field/der/critical.py` makes them."""

MAY_CUT = frozenset({"disconnect", "limit", "script"}) | DER
"""Never done to a protected meter (R18)."""

STAGGERED = frozenset({"reconnect", "der-reconnect"})
"""Spread over a window, lest all draw or feed at once (R19)."""

Expected = Literal["disconnected", "on", "ready", "written", "activated", "done", "rekeyed"]
"""What is read back: no supply; supply, or ready for the customer to close; the latter alone; the value that was
written; an active calendar that is the passive one; nothing, the meter's own word is all there is; anything, under the
new keys. Orders for registers say it in words of their own (`field/der/critical.py`)."""

DISCONNECTOR = bytes((0, 0, 96, 3, 10, 255))
LIMITER = bytes((0, 0, 17, 0, 0, 255))
CALENDAR = bytes((0, 0, 13, 0, 0, 255))
SECURITY_SETUP = bytes((0, 0, 43, 0, 0, 255))
BOTH_KEYS = bytes((0, 2))
"""Global unicast encryption key, authentication key (Blue Book, "Security setup", key_id)."""
MASTER_KEY = bytes((3,))
"""The key that wraps the others."""
NO_LIMIT = 0xFFFF_FFFF
"""The highest threshold of a limiter."""
NO_PARAMETER = bytes((15, 0))
"""integer 0: what the methods of classes 18, 20 and 70 take that take nothing."""


class Target(NamedTuple):
    """One meter of an order."""

    command_id: bytes
    meter_id: int
    system_title: bytes
    """Empty for a meter without one: the command is for this device or for nobody."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One service to one object."""

    service: Literal["action", "set", "key-transfer"]
    """The last: method 2 of a security setup, with keys that are made for each meter when its command leaves."""
    class_id: int
    logical_name: bytes
    number: int
    """Attribute or method."""
    value: bytes
    """A-XDR; of a key transfer the numbers of the keys, rising."""

    def parts(self) -> list[str | int | bytes]:
        """As it stands in the canonical octets."""
        return [self.service, self.class_id, self.logical_name, self.number, self.value]

    def shown(self) -> str:
        """For people who approve it."""
        where = f"{self.class_id}/{'.'.join(map(str, self.logical_name))}:{self.number}"
        return f"{self.service} {where} {self.value.hex()}".rstrip()


@dataclass(frozen=True, slots=True)
class RegisterWrite:
    """One write of a Modbus unit: one frame."""

    unit: int
    address: int
    """The first register, or the coil, as on the wire."""
    function: int
    """16, 6, or 5 for a coil."""
    values: bytes
    """Two octets a register; a coil has FF00 or 0000."""

    def parts(self) -> list[str | int | bytes]:
        """As it stands in the canonical octets."""
        return ["modbus", self.unit, self.address, self.function, self.values]

    def shown(self) -> str:
        """For people who approve it."""
        return f"modbus unit {self.unit} function {self.function} address {self.address} {self.values.hex(' ', 2)}"


def _effect(parts: list[Any]) -> Effect | RegisterWrite:
    return RegisterWrite(*parts[1:]) if parts[0] == "modbus" else Effect(*parts)


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for."""

    order_id: bytes
    kind: str
    effect: Effect | RegisterWrite
    expected: str
    reason: str
    created_us: int
    not_after_us: int
    requester: str
    targets: tuple[Target, ...]
    """In the order of the meters' numbers, each once."""

    def octets(self) -> bytes:
        """The canonical octets."""
        packed: bytes = msgpack.packb(
            [
                *FORM,
                self.order_id,
                self.kind,
                self.effect.parts(),
                self.expected,
                self.reason,
                self.created_us,
                self.not_after_us,
                self.requester,
                [list(target) for target in self.targets],
            ]
        )
        return packed

    @classmethod
    def decode(cls, octets: bytes) -> Self:
        """The order with these canonical octets.

        Raises:
            RequestError: they are none. Whether the gate takes it is for the gate to say.
        """
        try:
            name, form, order_id, kind, effect, *rest, targets = msgpack.unpackb(octets)
            expected, reason, created_us, not_after_us, requester = rest
            order = cls(
                order_id,
                kind,
                _effect(effect),
                expected,
                reason,
                created_us,
                not_after_us,
                requester,
                tuple(Target(*target) for target in targets),
            )
            same = (name, form) == FORM and order.octets() == octets
        except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
            raise RequestError(f"no order: {error}") from error
        if not same:
            raise RequestError("no order: another form, or not in canonical octets")
        return order


def switch(
    to: Literal["on", "off", "arm"],
    meters: Sequence[tuple[int, bytes]],
    *,
    reason: str,
    requester: str,
    created_us: int,
    life_s: float,
    order_id: bytes | None = None,
) -> Order:
    """An order to switch supply of these meters (number, system title).

    `on` invokes remote_reconnect: a meter whose control mode has it only makes ready, and the customer closes the
    switch (R19). `arm` insists on that: a meter that would connect by itself is left alone.
    """
    method, kind, expected = {
        "off": (1, "disconnect", "disconnected"),
        "on": (2, "reconnect", "on"),
        "arm": (2, "reconnect", "ready"),
    }[to]
    effect = Effect("action", 70, DISCONNECTOR, method, NO_PARAMETER)
    return order(
        kind,
        effect,
        expected,
        meters,
        reason=reason,
        requester=requester,
        created_us=created_us,
        life_s=life_s,
        order_id=order_id,
    )


def limit(
    threshold: int | None,
    meters: Sequence[tuple[int, bytes]],
    *,
    reason: str,
    requester: str,
    created_us: int,
    life_s: float,
    order_id: bytes | None = None,
) -> Order:
    """An order to write the limiter's normal threshold (class 71, attribute 4); None: the highest, which never limits.

    `threshold` is in the unit and scaler of the register that the limiter monitors, a double-long-unsigned. The meter
    cuts supply by itself while more is drawn, so this is as critical as switching off, the release included: whoever
    releases one who is protected takes the meter off that list first.

    Raises:
        RequestError: not a double-long-unsigned; and as `order`.
    """
    if threshold is not None and not 0 <= threshold < NO_LIMIT:
        raise RequestError(f"a limit of {threshold} does not fit; 0 to {NO_LIMIT - 1} does, --release takes it away")
    value = bytes((6,)) + (NO_LIMIT if threshold is None else threshold).to_bytes(4, "big")
    return order(
        "limit",
        Effect("set", 71, LIMITER, 4, value),
        "written",
        meters,
        reason=reason,
        requester=requester,
        created_us=created_us,
        life_s=life_s,
        order_id=order_id,
    )


def change_keys(
    meters: Sequence[tuple[int, bytes]],
    *,
    reason: str,
    requester: str,
    created_us: int,
    life_s: float,
    order_id: bytes | None = None,
    master: bool = False,
) -> Order:
    """An order for new global keys (class 64, key_transfer of the unicast encryption and the authentication key).

    The keys are made for each meter when its command leaves, and go wrapped under the meter's own master key. `master`:
    for a new master key in place of these, wrapped under the one that it has, and under itself as the proof.
    """
    return order(
        "key-change",
        Effect("key-transfer", 64, SECURITY_SETUP, 2, MASTER_KEY if master else BOTH_KEYS),
        "rekeyed",
        meters,
        reason=reason,
        requester=requester,
        created_us=created_us,
        life_s=life_s,
        order_id=order_id,
    )


def tariff(
    meters: Sequence[tuple[int, bytes]],
    *,
    reason: str,
    requester: str,
    created_us: int,
    life_s: float,
    order_id: bytes | None = None,
) -> Order:
    """An order for the passive activity calendar to become the active one (class 20, method 1)."""
    return order(
        "tariff",
        Effect("action", 20, CALENDAR, 1, NO_PARAMETER),
        "activated",
        meters,
        reason=reason,
        requester=requester,
        created_us=created_us,
        life_s=life_s,
        order_id=order_id,
    )


def order(
    kind: str,
    effect: Effect | RegisterWrite,
    expected: str,
    meters: Sequence[tuple[int, bytes]],
    *,
    reason: str,
    requester: str,
    created_us: int,
    life_s: float,
    order_id: bytes | None = None,
) -> Order:
    """Any order. The same `order_id` is the same order: a second one changes nothing.

    Raises:
        RequestError: without a reason or a meter, for too many, or for too long.
    """
    if not reason.strip() or len(reason.encode()) > 1024:
        raise RequestError("a critical command needs a reason of at most 1,024 octets; say why with --reason")
    if not 1 <= len(meters) <= MOST_TARGETS:
        raise RequestError(f"an order is for 1 to {MOST_TARGETS:,} meters, not for {len(meters):,}")
    longest_s = LONGEST_CHANGE_S if kind in CHANGES else LONGEST_LIFE_S
    if not 0 < life_s <= longest_s:
        most = f"{longest_s // 3600} hours"
        raise RequestError(f"not-after is {life_s:g} s ahead; more than nothing and at most {most} are possible")
    number = order_id or uuid.uuid4().bytes
    targets = tuple(
        Target(command_id(number, meter_id), meter_id, title) for meter_id, title in sorted(dict(meters).items())
    )
    return Order(number, kind, effect, expected, reason, created_us, created_us + int(life_s * 1e6), requester, targets)


def command_id(order_id: bytes, meter_id: int) -> bytes:
    """The number of a meter's command within an order, a UUID of version 8 (RFC 9562: made by the application)."""
    octets = bytearray(sha256(order_id + meter_id.to_bytes(4, "big")).digest()[:16])
    octets[6] = octets[6] & 0x0F | 0x80
    octets[8] = octets[8] & 0x3F | 0x80
    return bytes(octets)


def shown(number: bytes) -> str:
    """A UUID as people write it."""
    return str(uuid.UUID(bytes=number))
