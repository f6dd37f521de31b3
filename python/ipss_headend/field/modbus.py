"""Modbus devices of the registry on their way to the reactor: framing, addresses, TLS, and what their maps ask for."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from ipss_headend import _core
from ipss_headend.config import ModbusConfig
from ipss_headend.errors import AuthenticationFailed, ConfigError
from ipss_headend.field.modbus_address import FRAMINGS, SERIAL, line_settings

if TYPE_CHECKING:
    from ipss_headend._core import Meter, ModbusProfile, Tls
    from ipss_headend.field.fleet import FleetMeter
    from ipss_headend.field.fleet_file import Protocol

LONGEST_ANSWER_S = 3.0


class ModbusUnits:
    """Makes the reactor's Modbus units. Units that are treated alike share a profile."""

    def __init__(self, rules: ModbusConfig, answer_s: float, files: list[tuple[str, str]]) -> None:
        """`files` are a utility's own register maps, name and text of each."""
        self._rules = rules
        self._answer_s = min(LONGEST_ANSWER_S, answer_s)
        self._files = files
        self._profiles: dict[tuple[Protocol, str], tuple[ModbusProfile, float]] = {}
        self._tls: dict[str | None, Tls] = {}

    def meter(self, meter: FleetMeter, address: str | None) -> Meter:
        """The reactor's view of a device; those of one address take turns on one connection.

        Raises:
            ValueError: what does not fit together.
            NotAuthorised: it would be spoken to in the clear where that may not be.
            ConfigError, AuthenticationFailed: TLS is wanted, and the configuration does not provide for it.
        """
        if address is None:
            raise ValueError(f"{meter.name}: a Modbus device has an address; it cannot dial in")
        transport = meter.protocol.transport
        framing, tls = FRAMINGS[transport], None
        if transport == "modbus+tls":
            tls = self._proof(meter)
            address = f"tls://{address}"
        elif transport in SERIAL:
            address = f"serial://{meter.host}?{line_settings(transport, meter.protocol.line)}"
        else:
            self._rules.check_plain(address.rpartition(":")[0].strip("[]"))
            address = f"udp://{address}" if framing == "udp" else address
        profile, gap_s = self._profile(meter)
        shared = framing != "udp"
        identity = meter.identity
        return _core.Meter.modbus(
            meter.meter_id, address, profile, meter.server, tls=tls, shared=shared, gap_s=gap_s, identity=identity
        )

    def _profile(self, meter: FleetMeter) -> tuple[ModbusProfile, float]:
        """How devices of this model are treated at such an address, and the silence between two turns."""
        settings = (meter.protocol, meter.model)
        if settings not in self._profiles:
            most, gap_ms, in_flight = self._treatment(meter.model)
            protocol = meter.protocol
            profile = _core.ModbusProfile(
                FRAMINGS[protocol.transport],  # type: ignore[arg-type]
                baud=int(parse_qs(protocol.line).get("baud", ["9600"])[-1]),
                answer_s=self._answer_s,
                gap_s=gap_ms / 1000,
                max_registers=most,
                in_flight=protocol.in_flight or in_flight,
            )
            self._profiles[settings] = profile, gap_ms / 1000
        return self._profiles[settings]

    def _treatment(self, model: str) -> tuple[int, int, int]:
        try:
            return _core.RegisterMap(model, self._files).treatment
        except ValueError:
            # SunSpec, or a map that is not there: reading says so, device by device.
            return NOTHING_SPECIAL

    def _proof(self, meter: FleetMeter) -> Tls:
        rules = self._rules
        if rules.authorities is None:
            raise ConfigError(
                f"{meter.name}: modbus+tls:// needs to know whom to trust; name the authorities in [modbus] authorities"
            )
        name = server_name(meter.host or "")
        if name not in self._tls:
            self._tls[name] = tls_proof(rules.authorities, rules.certificate, rules.key, name)
        return self._tls[name]


NOTHING_SPECIAL = (125, 0, 1)
"""Registers of one read, milliseconds between requests, requests at once."""


def server_name(host: str) -> str | None:
    """The name that a device's certificate must have; None: its numeric address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host
    return None


def tls_proof(authorities: Path, certificate: Path | None, key: Path | None, name: str | None) -> Tls:
    """What our end of TLS trusts and shows.

    Raises:
        ConfigError: a file is missing or wrong.
        AuthenticationFailed: our certificate names no role.
    """
    try:
        tls = _core.Tls(authorities, certificate=certificate, key=key, name=name)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if certificate is not None and tls.role is None:
        raise AuthenticationFailed(
            f"{certificate} names no role (extension 1.3.6.1.4.1.50316.802.1), and Modbus Security gives rights "
            "to roles alone; have a certificate with a role issued"
        )
    return tls
