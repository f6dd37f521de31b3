"""Which Modbus unit a command is for: a URL with the options beside it, or a device of the registry."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qs, urlsplit

from ipss_headend.cli import places
from ipss_headend.cli.conversation import numeric
from ipss_headend.config import Config, ModbusConfig
from ipss_headend.errors import ConfigError, RequestError, StoreInUse
from ipss_headend.field.fleet_file import MODBUS_PORT, MODBUS_TLS_PORT
from ipss_headend.field.modbus import server_name, tls_proof
from ipss_headend.field.modbus_address import (
    FRAMINGS,
    LARGEST_UNIT,
    SERIAL,
    line_and_unit,
    line_settings,
    needs_unit,
    no_unit,
)
from ipss_headend.store import registry

if TYPE_CHECKING:
    from ipss_headend._core import Meter as NativeMeter
    from ipss_headend.store import Database
    from ipss_headend.store.registry import Meter


@dataclass(frozen=True, slots=True)
class ModbusTarget:
    """One unit, and all that is needed to talk to it."""

    name: str
    framing: str
    unit: int
    host: str = ""
    port: int = 0
    line: str = ""
    """The reactor's address of a serial line."""
    baud: int = 9600
    authorities: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    most: int = 125
    """Registers of one read."""
    gap_s: float = 0.0
    """Pause between requests."""

    @property
    def device_file(self) -> str:
        """The serial line's; empty: it has a host."""
        return self.line.removeprefix("serial://").partition("?")[0]


@dataclass(frozen=True, slots=True)
class Proof:
    """The files with which both ends of TLS prove who they are."""

    authorities: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None


def is_modbus(url: str) -> bool:
    """Whether a command was given a Modbus URL."""
    return url.startswith("modbus+")


def target_of(url: str, proof: Proof) -> ModbusTarget:
    """The unit that a URL names.

    Raises:
        RequestError: it names none.
    """
    target, unit = place_of(url, proof)
    if unit is None and target.line and needs_unit(target.device_file):
        raise RequestError(f"{url}: {no_unit(urlsplit(url).scheme, target.device_file)}")
    return target


def place_of(url: str, proof: Proof) -> tuple[ModbusTarget, int | None]:
    """What a URL names, and its unit if it names one; without one it is unit 1.

    Raises:
        RequestError: it names nothing.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RequestError(f"{url}: {error}; write modbus+tcp://HOST:PORT/UNIT") from None
    framing = FRAMINGS.get(parts.scheme)
    if framing is None:
        known = ", ".join(f"{scheme}://" for scheme in FRAMINGS)
        raise RequestError(f"{url}: {parts.scheme}:// is no transport of this program; {known} are")
    tls = parts.scheme == "modbus+tls"
    if not tls and proof != Proof():
        raise RequestError(f"--ca, --certificate and --private-key are for modbus+tls://, not {parts.scheme}://")
    if parts.scheme in SERIAL:
        return _serial(url, parts, framing)
    unit = parts.path.strip("/")
    if not parts.hostname or port == 0 or parts.username or parts.query or parts.fragment or "/" in unit:
        raise RequestError(f"{url}: not of the form {parts.scheme}://HOST:PORT/UNIT")
    if tls and proof.authorities is None:
        raise RequestError("modbus+tls:// needs to know whom to trust; name the authority's certificate with --ca")
    target = ModbusTarget(
        name=url,
        framing=framing,
        unit=_unit(url, unit) if unit else 1,
        host=parts.hostname,
        port=port or (MODBUS_TLS_PORT if tls else MODBUS_PORT),
        authorities=proof.authorities,
        certificate=proof.certificate,
        private_key=proof.private_key,
    )
    return target, target.unit if unit else None


def _serial(url: str, parts: SplitResult, framing: str) -> tuple[ModbusTarget, int | None]:
    form = f"{parts.scheme}:///dev/ttyUSB0/UNIT?baud=9600"
    if parts.netloc or parts.fragment:
        raise RequestError(f"{url}: not of the form {form}")
    try:
        line, unit = line_and_unit(parts.scheme, parts.path)
    except ValueError as error:
        raise RequestError(f"{url}: {error}") from None
    baud = parse_qs(parts.query).get("baud", ["9600"])[-1]
    if not (baud.isascii() and baud.isdecimal() and int(baud) > 0):
        raise RequestError(f"{url}: baud={baud} is not a speed")
    settings = line_settings(parts.scheme, parts.query)
    address = f"serial://{line}" + (f"?{settings}" if settings else "")
    target = ModbusTarget(name=url, framing=framing, unit=int(unit or 1), line=address, baud=int(baud))
    return target, target.unit if unit else None


def _unit(url: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= LARGEST_UNIT):
        raise RequestError(f"{url}: unit {text} is none; units are 0 to {LARGEST_UNIT}")
    return int(text)


@dataclass(frozen=True, slots=True)
class Registered:
    """A Modbus device of the registry."""

    target: ModbusTarget
    model: str
    """Its register map, or `sunspec`, or nothing."""


def registered(name: str, config: Config) -> Registered | None:
    """The Modbus device of this name; None: a meter of another kind has it.

    The head-end may run meanwhile, but for a serial line, which only one program has at a time.

    Raises:
        UnknownMeter: no meter has this name.
        StoreInUse: the head-end runs, and has the line.
    """
    with places.open_store(config) as database:
        with database.reading() as connection:
            meter = registry.meter_named(connection, name)
        transport = str(meter.protocol.get("transport", ""))
        if transport not in FRAMINGS:
            return None
        _check_line_free(database, meter, transport)
    return Registered(_of_registry(meter, transport, config.modbus), meter.model)


def _check_line_free(database: Database, meter: Meter, transport: str) -> None:
    if transport in SERIAL and database.owned_by_another():
        raise StoreInUse(
            f"{meter.name}: the running head-end has the line {meter.host}; see `ipss-headend readings query "
            f"{meter.name}` for what it read, or stop it first"
        )


def _of_registry(meter: Meter, transport: str, rules: ModbusConfig) -> ModbusTarget:
    settings = str(meter.protocol.get("line", ""))
    host = meter.host or ""
    target = ModbusTarget(name=meter.name, framing=FRAMINGS[transport], unit=meter.server)
    if transport in SERIAL:
        line = f"serial://{host}?{line_settings(transport, settings)}"
        return dataclasses.replace(target, line=line, baud=int(parse_qs(settings).get("baud", ["9600"])[-1]))
    target = dataclasses.replace(target, host=host, port=meter.port or 0)
    if transport != "modbus+tls":
        return target
    if rules.authorities is None:
        raise ConfigError(f"{meter.name}: modbus+tls:// needs to know whom to trust; name them in [modbus] authorities")
    return dataclasses.replace(
        target, authorities=rules.authorities, certificate=rules.certificate, private_key=rules.key
    )


async def meter_of(
    target: ModbusTarget,
    rules: ModbusConfig,
    timeout_s: float,
    *,
    answer_s: float = 3.0,
    retries: int | None = None,
    trace: bool = False,
) -> NativeMeter:
    """The reactor's view of a unit, held for `timeout_s`.

    Raises:
        RequestError: what does not fit together.
        NotAuthorised: it would be spoken to in the clear where that may not be.
    """
    from ipss_headend import _core

    tls, address = None, target.line
    if not target.line:
        address = await numeric(target.name, target.host, target.port)
        if target.authorities is not None:
            tls = tls_proof(target.authorities, target.certificate, target.private_key, server_name(target.host))
            address = f"tls://{address}"
        else:
            rules.check_plain(address.rpartition(":")[0].strip("[]"))
            address = f"udp://{address}" if target.framing == "udp" else address
    try:
        profile = _core.ModbusProfile(
            target.framing,  # type: ignore[arg-type]
            baud=target.baud,
            answer_s=min(answer_s, timeout_s / 2),
            retries=retries,
            gap_s=target.gap_s or None,
            max_registers=target.most,
        )
        return _core.Meter.modbus(
            1, address, profile, target.unit, hold_open=False, idle_s=timeout_s, tls=tls, trace=trace
        )
    except ValueError as error:
        raise RequestError(f"{target.name}: {error}") from error
