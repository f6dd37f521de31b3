"""`ipss-headend modbus scan`: who answers behind an address or in a network, and what it is."""

from __future__ import annotations

import ipaddress
from dataclasses import asdict, dataclass, replace
from typing import Annotated
from urllib.parse import urlsplit

import trio
import typer

from ipss_headend.cli.app import JSON, command
from ipss_headend.cli.conversation import METER, Conversation, converse_with, numeric
from ipss_headend.cli.modbus_maps import modbus
from ipss_headend.cli.output import Output
from ipss_headend.errors import DONE, UNREACHABLE, MeterGone, MeterTimeout, ProtocolViolation, RequestError


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


@command(modbus, "scan")
def scan(
    target: Annotated[str, typer.Argument(help="modbus+tcp://HOST:PORT[/UNIT], or a network: 192.0.2.0/28[:PORT].")],
    *,
    units: Annotated[str, typer.Option(help="Units to try.")] = "1-247",
    wait: Annotated[float, typer.Option(min=0.01, help="Seconds to wait for each answer.")] = 0.5,
    json_output: JSON = False,
) -> int:
    r"""Find the units behind an address or in a network, and tell what they are.

    A unit is asked for its device identification (43/14), for SunSpec models, and for the registers by which maps know
    their devices. Nothing is written.

    \b
    Examples:
      ipss-headend modbus scan modbus+tcp://192.0.2.7:502 --units 1-10
      ipss-headend modbus scan 192.0.2.0/28 --units 1 --json
    """
    hosts, port, only = _targets(target)
    numbers = [only] if only is not None else _numbers(units)
    found = trio.run(_scan, hosts, port, numbers, wait)
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


async def _scan(hosts: list[str], port: int, units: list[int], wait_s: float) -> list[Found]:
    found: list[Found] = []
    limit = trio.CapacityLimiter(AT_ONCE)

    async def host(name: str) -> None:
        async with limit:
            for unit in units:
                try:
                    one = await _unit(name, port, unit, wait_s)
                except MeterGone:
                    return  # nobody there: the other units are not either
                if one is not None:
                    found.append(one)

    async with trio.open_nursery() as nursery:
        for name in hosts:
            nursery.start_soon(host, name)
    return sorted(found, key=lambda one: (hosts.index(urlsplit(one.url).hostname or ""), one.unit))


async def _unit(host: str, port: int, unit: int, wait_s: float) -> Found | None:
    """What answers as this unit; None if nobody does.

    Raises:
        MeterGone: there is no connection.
    """
    from ipss_headend import _core

    url = f"modbus+tcp://{host}:{port}/{unit}"
    profile = _core.ModbusProfile(answer_s=wait_s, retries=0)
    meter = _core.Meter.modbus(METER, await numeric(url, host, port), profile, unit)
    async with converse_with(url, meter, timeout_s=CONNECT_S + wait_s * MOST_QUESTIONS) as conversation:
        try:
            reply = await conversation.ask([_core.ModbusItem.ask(IDENTIFICATION)])
        except (MeterTimeout, ProtocolViolation):
            return None
        if reply.refusals.get(0) in GATEWAY_SAYS_NOBODY:
            return None
        names = dict(_core.modbus_identification(IDENTIFICATION[:1] + (reply.cell(0) or b"")))
        one = Found(url, unit, names.get(0), names.get(1), names.get(2))
        try:
            one = await _sunspec(conversation, one)
            return await _mapped(conversation, one)
        except (MeterTimeout, ProtocolViolation):
            return one  # it answered once: what it is stays what is known


async def _registers(conversation: Conversation, table: str, address: int, count: int) -> bytes | None:
    """Registers, or None if the device refuses."""
    from ipss_headend import _core

    reply = await conversation.ask([_core.ModbusItem.read(0, [(table, address, count, "raw")])])
    return reply.cell(0)


async def _sunspec(conversation: Conversation, one: Found) -> Found:
    from ipss_headend import _core

    device = _core.SunSpecDevice()
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


def _targets(target: str) -> tuple[list[str], int, int | None]:
    """Hosts, port, and the unit if the target names one."""
    if "://" in target:
        parts = urlsplit(target)
        try:
            port, unit = parts.port or PORT, int(parts.path.strip("/") or 0)
        except ValueError as error:
            raise RequestError(f"{target}: {error}") from error
        if parts.scheme != "modbus+tcp" or not parts.hostname:
            raise RequestError(f"{target}: only modbus+tcp://HOST:PORT[/UNIT] is scanned")
        return [parts.hostname], port, unit or None
    network, _, port_text = target.rpartition(":") if target.count(":") == 1 else (target, "", "")
    try:
        hosts = [str(host) for host in ipaddress.ip_network(network, strict=False).hosts()]
        port = int(port_text or PORT)
    except ValueError as error:
        raise RequestError(f"{target}: neither a URL nor a network: {error}") from error
    if len(hosts) > MOST_HOSTS:
        raise RequestError(f"{target}: {len(hosts)} addresses; at most {MOST_HOSTS} at once")
    return hosts, port, None


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

GATEWAY_SAYS_NOBODY = frozenset({0x0A, 0x0B})
"""Exceptions by which a gateway says that the unit behind it does not answer (clause 7)."""

PORT = 502
MOST_HOSTS = 4096
AT_ONCE = 16
"""Hosts that are scanned side by side; each has a reactor of its own."""

CONNECT_S = 5.0
MOST_QUESTIONS = 200
