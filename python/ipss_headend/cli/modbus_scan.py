"""`ipss-headend modbus scan`: who answers behind an address or in a network, and what it is."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import trio
import typer

from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, command
from ipss_headend.cli.conversation import Conversation, Reply, converse_with
from ipss_headend.cli.modbus_maps import modbus
from ipss_headend.cli.modbus_target import ModbusTarget, Proof, meter_of, place_of
from ipss_headend.cli.output import Output
from ipss_headend.config import ModbusConfig
from ipss_headend.errors import (
    DONE,
    UNREACHABLE,
    HeadEndError,
    MeterGone,
    MeterTimeout,
    ProtocolViolation,
    RequestError,
)
from ipss_headend.field.fleet_file import MODBUS_PORT

if TYPE_CHECKING:
    from ipss_headend._core import SunSpecDevice


@dataclass(frozen=True, slots=True)
class Found:
    """A unit that answered."""

    url: str
    unit: int
    vendor: str | None = None
    product: str | None = None
    revision: str | None = None
    serial_number: str | None = None
    sunspec: tuple[int, ...] = ()
    """Numbers of its models, in order."""
    register_map: str | None = None
    """The map that fits it."""
    server_id: str | None = None
    """What it answers to function 17, in hexadecimal, if it has no identification."""


@command(modbus, "scan")
def scan(
    target: Annotated[str, typer.Argument(help="A URL as for `read`, or a network: 192.0.2.0/28[:PORT].")],
    *,
    units: Annotated[str, typer.Option(help="Units to try, if the URL names none.")] = "1-247",
    wait: Annotated[float, typer.Option(min=0.01, help="Seconds to wait for each answer.")] = 0.5,
    ca: Annotated[Path | None, typer.Option(help="Trusted authorities, PEM, for modbus+tls://.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="Our certificate, PEM, for modbus+tls://.")] = None,
    private_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> int:
    r"""Find the units behind an address, on a serial line or in a network, and tell what they are.

    A unit is asked for its device identification (43/14) or, if it has none, its server id (17), for SunSpec models,
    and for the registers by which maps know their devices. Nothing is written.

    \b
    Examples:
      ipss-headend modbus scan modbus+tcp://192.0.2.7:502 --units 1-10
      ipss-headend modbus scan "modbus+rtu:///dev/ttyUSB0?baud=19200" --units 1-32
      ipss-headend modbus scan 192.0.2.0/28 --units 1 --json
    """
    addresses = _targets(target, Proof(ca, certificate, private_key))
    numbers = _numbers(units)
    rules = places.load_config(config).modbus if config.exists() else ModbusConfig()
    found = trio.run(_scan, addresses, numbers, rules, wait)
    output = Output(json_output=json_output)
    if json_output:
        output.document({"units": [asdict(unit) for unit in found]})
    else:
        rows = [
            (one.url, one.vendor or "-", one.product or "-", " ".join(map(str, one.sunspec)), one.register_map or "-")
            for one in found
        ]
        output.table(("device", "vendor", "product", "sunspec models", "map"), rows)
    return DONE if found else UNREACHABLE


@dataclass(frozen=True, slots=True)
class Address:
    """Where units may be."""

    scheme: str
    where: str
    """`HOST:PORT`, or the path of a serial line."""
    line: str
    """Its settings, with the question mark."""
    unit: int | None
    """The only one that is wanted."""
    proof: Proof

    def target(self, unit: int) -> ModbusTarget:
        """The unit of this number there."""
        return place_of(f"{self.scheme}://{self.where}/{unit}{self.line}", self.proof)[0]


async def _scan(addresses: list[Address], units: list[int], rules: ModbusConfig, wait_s: float) -> list[Found]:
    found: list[tuple[int, Found]] = []
    limit = trio.CapacityLimiter(AT_ONCE)

    async def scan_one(place: int, address: Address) -> None:
        async with limit:
            for unit in units if address.unit is None else [address.unit]:
                try:
                    one = await _unit(address.target(unit), rules, wait_s)
                except MeterGone:
                    return  # nobody there: the other units are not either
                if one is not None:
                    found.append((place, one))

    failed: list[HeadEndError] = []
    try:
        async with trio.open_nursery() as nursery:
            for place, address in enumerate(addresses):
                nursery.start_soon(scan_one, place, address)
    except* HeadEndError as group:
        failed = [error for error in group.exceptions if isinstance(error, HeadEndError)]
    if failed:
        raise failed[0]
    return [one for _, one in sorted(found, key=lambda one: (one[0], one[1].unit))]


async def _unit(target: ModbusTarget, rules: ModbusConfig, wait_s: float) -> Found | None:
    """What answers as this unit; None if nobody does.

    Raises:
        MeterGone: there is no connection.
    """
    timeout_s = CONNECT_S + wait_s * MOST_QUESTIONS
    meter = await meter_of(target, rules, timeout_s, answer_s=wait_s, retries=0)
    async with converse_with(target.name, meter, timeout_s=timeout_s) as conversation:
        try:
            reply = await conversation.ask([conversation.core.ModbusItem.ask(IDENTIFICATION)])
        except (MeterTimeout, ProtocolViolation):
            return None
        if reply.refusals.get(0) in GATEWAY_SAYS_NOBODY:
            return None
        one = _named(conversation, Found(target.name, target.unit), reply)
        device = conversation.core.SunSpecDevice()
        # It answered once: where it says no more, what it is stays what is known.
        with suppress(MeterTimeout, ProtocolViolation):
            one = await _server_id(conversation, one)
            one = await _sunspec(conversation, one, device)
            one = await _mapped(conversation, one)
        return one


async def identify(conversation: Conversation, one: Found) -> tuple[Found, SunSpecDevice]:
    """What a unit is that is known to be there, and its SunSpec models.

    Raises:
        MeterError: it does not answer reads.
    """
    # Some devices are silent where they should refuse what they do not know.
    with suppress(MeterTimeout, ProtocolViolation):
        one = _named(conversation, one, await conversation.ask([conversation.core.ModbusItem.ask(IDENTIFICATION)]))
    device = conversation.core.SunSpecDevice()
    one = await _sunspec(conversation, one, device)
    return await _mapped(conversation, one), device


def _named(conversation: Conversation, one: Found, reply: Reply) -> Found:
    """With what it says of itself (43/14)."""
    names = dict(conversation.core.modbus_identification(IDENTIFICATION[:1] + (reply.cell(0) or b"")))
    return replace(one, vendor=names.get(0), product=names.get(1), revision=names.get(2))


async def _server_id(conversation: Conversation, one: Found) -> Found:
    """What a device without identification says of itself: octets of its maker's choice, often with text in them."""
    if one.vendor is not None or one.product is not None:
        return one
    reply = await conversation.ask([conversation.core.ModbusItem.ask(REPORT_SERVER_ID)])
    said = (reply.cell(0) or b"")[1:]
    if not said:
        return one
    texts = re.findall(rb"[ -~]{3,}", said)
    product = b" ".join(text.strip() for text in texts).decode("ascii") or None
    return replace(one, product=product, server_id=said.hex())


async def _registers(conversation: Conversation, table: str, address: int, count: int) -> bytes | None:
    """Registers, or None if the device refuses."""
    reply = await conversation.ask([conversation.core.ModbusItem.read(0, [(table, address, count, "raw")])])
    return reply.cell(0)


async def _sunspec(conversation: Conversation, one: Found, device: SunSpecDevice) -> Found:
    while (asked := device.ask()) is not None:
        device.answered(await _registers(conversation, "holding", *asked))
    models = tuple(model for model, _, _ in device.models())
    if 1 not in models:
        return replace(one, sunspec=models)
    vendor, product = device.value(1, "Mn"), device.value(1, "Md")
    serial, revision = device.value(1, "SN"), device.value(1, "Vr")
    return replace(
        one,
        vendor=vendor or one.vendor,
        product=product or one.product,
        revision=revision or one.revision,
        serial_number=serial,
        sunspec=models,
    )


async def _mapped(conversation: Conversation, one: Found) -> Found:
    from ipss_headend import _core

    if one.vendor and (name := _core.register_map_of(one.vendor, one.product or "")) is not None:
        return replace(one, register_map=name)
    if one.sunspec:
        return one
    seen: dict[tuple[str, int], int | None] = {}
    for name, table, address, values in _core.register_map_signs():
        if (table, address) not in seen:
            octets = await _registers(conversation, table, address, 1)
            seen[table, address] = None if octets is None else int.from_bytes(octets)
        if seen[table, address] in values:
            return replace(one, register_map=name)
    return one


def _targets(target: str, proof: Proof) -> list[Address]:
    """Where to look."""
    if "://" in target:
        parts = urlsplit(target)
        one, unit = place_of(target, proof)
        where = one.device_file or (f"[{one.host}]:{one.port}" if ":" in one.host else f"{one.host}:{one.port}")
        line = f"?{parts.query}" if parts.query else ""
        return [Address(parts.scheme, where, line, unit, proof)]
    if proof != Proof():
        raise RequestError("--ca, --certificate and --private-key are for modbus+tls://, not for a network")
    network, _, port_text = target.rpartition(":") if target.count(":") == 1 else (target, "", "")
    try:
        hosts = [str(host) for host in ipaddress.ip_network(network, strict=False).hosts()]
        port = int(port_text or MODBUS_PORT)
    except ValueError as error:
        raise RequestError(f"{target}: neither a URL nor a network: {error}") from error
    if len(hosts) > MOST_HOSTS:
        raise RequestError(f"{target}: {len(hosts)} addresses; at most {MOST_HOSTS} at once")
    return [
        Address("modbus+tcp", f"[{host}]:{port}" if ":" in host else f"{host}:{port}", "", None, proof)
        for host in hosts
    ]


def _numbers(text: str) -> list[int]:
    """Units of "1-10,247"."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        try:
            numbers.update(range(int(first), int(last or first) + 1))
        except ValueError as error:
            raise RequestError(f'--units: "{part}" is no unit; write 1-10,247') from error
    if not numbers or not numbers <= set(range(256)):
        raise RequestError(f"--units: {text}: units are 0 to 255")
    return sorted(numbers)


IDENTIFICATION = bytes((0x2B, 0x0E, 0x01, 0x00))
"""Read device identification, basic, from object 0 (Modbus Application Protocol V1.1b3, 6.21)."""

REPORT_SERVER_ID = b"\x11"
"""Report server id (clause 6.13)."""

GATEWAY_SAYS_NOBODY = frozenset({0x0A, 0x0B})
"""Exceptions by which a gateway says that the unit behind it does not answer (clause 7)."""

MOST_HOSTS = 4096
AT_ONCE = 16
"""Hosts that are scanned side by side; each has a reactor of its own."""

CONNECT_S = 5.0
MOST_QUESTIONS = 200
