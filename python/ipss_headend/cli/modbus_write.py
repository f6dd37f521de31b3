"""`read --set` on Modbus registers: by hand and without an order, so for devices outside the registry alone.

What switches or limits supply is a critical command (R44): two people order it, and the head-end writes it. So nothing
is written by hand to a device that the registry has, whatever the register; and to another one only with `--by-hand`,
and not to a register that its map or its SunSpec models say to switch or to limit. It is asked what it is before.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ipss_headend.cli import places
from ipss_headend.cli.modbus_scan import Found, identify
from ipss_headend.errors import NotAuthorised, RequestError
from ipss_headend.field.fleet_file import MODBUS_PORT, MODBUS_TLS_PORT
from ipss_headend.field.modbus_address import FRAMINGS
from ipss_headend.store import registry
from ipss_headend.store.database import is_there

if TYPE_CHECKING:
    from ipss_headend.cli.conversation import Conversation
    from ipss_headend.cli.modbus_objects import Points, Registers
    from ipss_headend.cli.modbus_target import ModbusTarget
    from ipss_headend.config import Config
    from ipss_headend.store.registry import Meter

ANY_UNIT = frozenset({0, 0xFF})
"""Units that a device on TCP may take for its own, and that a line may take for all."""

SWITCHES = frozenset({703, 715, 802})
"""SunSpec models by which a device enters service, starts, stops or connects."""

BASIC_CONTROLS = 123
"""The SunSpec model that begins with the connection and its timers, and goes on with limits."""

LIMITS = frozenset({BASIC_CONTROLS, 124, 127, 132, 134, 704, 706, 711})
"""SunSpec models that limit active power, by themselves or by voltage and frequency."""


@dataclass(frozen=True, slots=True)
class Write:
    """A write of holding registers (function 16)."""

    first: int
    last: int
    pdu: bytes


def of(registers: Sequence[Registers | None], text: str) -> Write:
    """The write of `--set`.

    Raises:
        RequestError: it is none.
    """
    if len(registers) != 1 or registers[0] is None or registers[0].table != "holding":
        raise RequestError("--set writes holding registers: give one object, such as holding/40001:2")
    one = registers[0]
    try:
        values = [int(part, 0) for part in text.replace(",", " ").split()]
        octets = b"".join(value.to_bytes(2, "big") for value in values)
    except (ValueError, OverflowError):
        raise RequestError(f"--set {text}: expected numbers from 0 to 65535, one a register") from None
    if len(values) != one.count:
        raise RequestError(f"--set {text}: {len(values)} numbers for {one.count} registers")
    head = b"\x10" + one.address.to_bytes(2, "big") + len(values).to_bytes(2, "big")
    return Write(one.address, one.address + one.count - 1, head + bytes((len(octets) & 0xFF,)) + octets)


def by_order(name: str) -> str:
    """Why a device of the registry is not written by hand, and what is done instead."""
    return (
        f"{name} is in the registry, and what is there is written by order alone, never by hand; use "
        f"`ipss-headend control switch {name}` or `ipss-headend control limit {name}` (two people), or "
        f"`ipss-headend der set {name}` for set points"
    )


def check(target: ModbusTarget, config: Config | None, *, by_hand: bool) -> None:
    """Whether this device may be written by hand at all.

    Raises:
        NotAuthorised: the registry has it.
        RequestError: nobody said that it is meant.
    """
    name = None if config is None else _in_registry(target, config)
    if name is not None:
        raise NotAuthorised(f"{target.name}: {by_order(name)}")
    if not by_hand:
        raise RequestError(
            f"{target.name} is not in the registry: a write by hand has no order, no second person and no record; say "
            "--by-hand if that is meant, or import the device and use `ipss-headend control` and `der set`"
        )


def _in_registry(target: ModbusTarget, config: Config) -> str | None:
    """The name under which the registry has this device; None: it has not."""
    if not is_there(config.database.address):
        return None
    with places.open_store(config) as database, database.reading() as connection:
        known = [
            meter for meter in registry.all_meters(connection) if str(meter.protocol.get("transport", "")) in FRAMINGS
        ]
    found = next((meter for meter in known if _is_same(target, meter)), None)
    return None if found is None else found.name


def _is_same(target: ModbusTarget, meter: Meter) -> bool:
    if not (target.unit == meter.server or target.unit in ANY_UNIT or meter.server in ANY_UNIT):
        return False
    host = meter.host or ""
    if target.line or host.startswith("/"):
        return bool(target.line) and host.startswith("/") and Path(target.device_file).resolve() == Path(host).resolve()
    ports = {target.port, meter.port}
    # One device may listen at both.
    return (len(ports) == 1 or ports == {MODBUS_PORT, MODBUS_TLS_PORT}) and bool(_names(target.host) & _names(host))


def _names(host: str) -> set[str]:
    """A host by its name and its addresses."""
    try:
        addresses = {str(one[4][0]) for one in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        addresses = set()
    return {host.lower().rstrip("."), *addresses}


async def check_harmless(conversation: Conversation, write: Write, points: Points | None) -> None:
    """Ask the device what it is, and whether these registers switch or limit there.

    Raises:
        NotAuthorised: they do.
        MeterError: it did not answer.
    """
    for first, last, effect, why in await _critical(conversation, points):
        if first <= write.last and write.first <= last:
            does, command = ("switch", "switch") if effect == "switch" else ("limit power", "limit")
            raise NotAuthorised(
                f"{conversation.name}: holding registers @{write.first} to @{write.last} {does} ({why}): a critical "
                f"command, which two people order; import the device into the registry and use `ipss-headend control "
                f"{command} DEVICE`"
            )


async def _critical(conversation: Conversation, points: Points | None) -> list[tuple[int, int, str, str]]:
    """First and last register, effect and reason of what is critical in the device's holding registers."""
    found, device = await identify(conversation, Found(conversation.name, 0))
    ranges = []
    for model, address, length in device.models():
        if model == BASIC_CONTROLS:
            at, count = device.place(model, "Conn")
            ranges.append((address + 2, at + count - 1, "switch", f"SunSpec model {model}"))
        if model in SWITCHES | LIMITS:
            # The header too: nobody has business there.
            effect = "switch" if model in SWITCHES else "limit"
            ranges.append((address, address + 1 + length, effect, f"SunSpec model {model}"))
    maps = [points.source] if points is not None else []
    if found.register_map is not None:
        maps.append(conversation.core.RegisterMap(found.register_map))
    for source in maps:
        ranges += [
            (address, address + count - 1, effect, f"{name} of its register map")
            for name, table, address, count, effect in source.critical()
            if table == "holding"
        ]
    return ranges
