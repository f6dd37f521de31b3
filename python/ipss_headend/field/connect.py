"""From the registry to the reactor: meters with their keys and counters, and the profile that pins how each is read."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from ipss_headend import _core
from ipss_headend.config import ModbusConfig, ReactorConfig
from ipss_headend.field.fleet import FleetMeter
from ipss_headend.field.fleet_file import gateway_address
from ipss_headend.field.modbus import ModbusUnits
from ipss_headend.log import Logger, logger
from ipss_headend.metrics import Figures
from ipss_headend.security.mechanisms import needs_keys
from ipss_headend.store import CounterBlock

if TYPE_CHECKING:
    from ipss_headend._core import Gate, Link, Meter, Profile, Reactor

Quirks = tuple[tuple[str, bool | int | str], ...]
"""Names and values of `protocols/dlms/src/quirks.rs`."""

LOOK_UPS_AT_ONCE = 16
LOOK_UP_S = 10.0
LOOK_UP_AGAIN_S = 60.0
"""How long a host name without an address rests before it is looked up again."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What the store knows of the meters' counters."""

    blocks: Mapping[int, CounterBlock]
    peer_counters: Mapping[int, int]


class Connector:
    """Makes the reactor's meters. Meters with equal settings share a profile."""

    def __init__(
        self,
        limits: ReactorConfig,
        client_title: bytes,
        modbus: ModbusConfig | None = None,
        maps: list[tuple[str, str]] | None = None,
    ) -> None:
        """`maps` are a utility's own register maps, name and text of each."""
        self._modbus = ModbusUnits(modbus or ModbusConfig(), limits.answer_s, maps or [])
        self._limits = limits
        self._client_title = client_title
        self._profiles: dict[tuple[object, ...], Profile] = {}
        self._quirks: dict[str, Quirks] = {}

    def meter(self, meter: FleetMeter, address: str | None, knowledge: Knowledge, *, shared: bool = False) -> Meter:
        """The reactor's view of a meter; `shared`: others of its address take turns with it on one connection.

        Raises:
            ValueError: what does not fit together.
        """
        if meter.protocol.is_modbus:
            return self._modbus.meter(meter, address)
        block = knowledge.blocks.get(meter.meter_id)
        keys = meter.keys
        return _core.Meter(
            meter.meter_id,
            endpoint(meter.protocol.transport, address),
            self._profile(meter, shared=shared),
            system_title=meter.system_title or b"",
            encryption_key=keys.encryption_key or b"",
            authentication_key=keys.authentication_key or b"",
            password=keys.password or b"",
            private_key=keys.private_key or b"",
            peer_public_key=keys.peer_public_key or b"",
            counters=(0, 0) if block is None else (block.next, block.end),
            peer_counter=knowledge.peer_counters.get(meter.meter_id),
            identities=[] if address is not None else identities(meter),
            link=link(meter.protocol.transport, meter.protocol.physical, meter.protocol.gateway),
            shared=shared,
        )

    def _profile(self, meter: FleetMeter, *, shared: bool) -> Profile:
        settings = (meter.protocol, meter.server, self._quirks_of(meter.model), shared)
        if settings not in self._profiles:
            protocol, limits = meter.protocol, self._limits
            self._profiles[settings] = _core.Profile(
                client=protocol.client,
                server=meter.server,
                authentication=protocol.auth,  # type: ignore[arg-type]
                suite=protocol.suite,
                protection=protocol.protection,  # type: ignore[arg-type]
                dedicated=protocol.dedicated,
                client_title=self._client_title,
                heartbeat_s=limits.heartbeat_s,
                associate_s=limits.associate_s,
                answer_s=limits.answer_s,
                frame_s=limits.frame_s,
                referencing=protocol.referencing,
                quirks=settings[2],
                shared=shared,
            )
        return self._profiles[settings]

    def _quirks_of(self, model: str) -> Quirks:
        if model not in self._quirks:
            self._quirks[model] = quirks_of(model)
        return self._quirks[model]


def quirks_of(model: str) -> Quirks:
    """What the companion profile of this name says that such meters do in their own way; nothing if there is none."""
    if model not in _core.profile_names():
        return ()
    return tuple(sorted(_core.profile(model)["quirks"].items()))


def link(transport: str, physical: int, gateway: str = "") -> Link:
    """What carries the APDUs over a transport.

    `physical` is the physical device of an HDLC address, 0 for none; `gateway` the column of the fleet file.
    """
    framing = {"udp": "datagram", "optical": "optical"}.get(transport, "hdlc" if "hdlc" in transport else "wrapper")
    return _core.Link(framing, physical=physical or None, gateway=gateway_address(gateway))  # type: ignore[arg-type]


def endpoint(transport: str, address: str | None) -> str | None:
    """The reactor's address of a meter at `host:port` that is reached over this transport."""
    return f"udp://{address}" if transport == "udp" and address is not None else address


def identities(meter: FleetMeter) -> list[bytes]:
    """What a meter that dials in may call itself: its logical device name or its system title."""
    found = [meter.logical_device_name or meter.name.encode()]
    if meter.system_title is not None:
        found.append(meter.system_title)
    return found


def place(meter: FleetMeter) -> tuple[str, str, int] | None:
    """What meters have in common that share a connection; None: it dials in, or is a Modbus device."""
    if meter.host is None or meter.port is None or meter.protocol.is_modbus:
        return None
    return (meter.protocol.transport, meter.host, meter.port)


def needs_counters(meter: FleetMeter) -> bool:
    """Whether anything that is sent to the meter is protected by a lasting key."""
    return needs_keys(meter.protocol.auth, meter.protocol.protection)


def make_reactor(limits: ReactorConfig, gate: Gate | None = None) -> Reactor:
    """A reactor as the configuration wants it. Its threads run; it knows no meter. No gate: nothing critical leaves."""
    return _core.Reactor(
        threads=limits.threads or None,
        batch_rows=limits.batch_rows,
        batch_delay_s=limits.batch_ms / 1000,
        batches=limits.queue_batches,
        connects_per_second=limits.connections_per_second,
        queue=limits.requests_per_meter,
        connect_timeout_s=limits.connect_s,
        associate_timeout_s=limits.associate_s,
        frame_timeout_s=limits.frame_s,
        gate=gate,
    )


def numeric(meter: FleetMeter) -> str | None:
    """The meter's address if it is numeric, with brackets where IPv6 needs them; None: its name has to be looked up.

    A serial line's is `serial:///dev/ttyUSB0?baud=9600`.
    """
    if meter.host is None:
        return None
    if meter.host.startswith("/"):
        return f"serial://{meter.host}" + (f"?{meter.protocol.line}" if meter.protocol.line else "")
    try:
        ipaddress.ip_address(meter.host)
    except ValueError:
        return None
    return meter.address


class Addresses:
    """Looks up the host names of meters, again and again for those that have no address, and adds what it finds."""

    def __init__(self, meters: Iterable[FleetMeter], add: Callable[[FleetMeter, str], None], figures: Figures) -> None:
        self._open = list(meters)
        self._add = add
        self._figures = figures
        self._log: Logger = logger("field")

    async def run(self) -> None:
        """Until all have an address."""
        said = False
        while self._open:
            missing: list[FleetMeter] = []
            room = trio.CapacityLimiter(LOOK_UPS_AT_ONCE)
            async with trio.open_nursery() as nursery:
                for meter in self._open:
                    nursery.start_soon(self._look_up, meter, missing, room)
            self._open = missing
            self._figures.meters_without_address = len(missing)
            if missing and not said:
                some = ", ".join(meter.name for meter in missing[:5])
                self._log.warning("meters without address", count=len(missing), some=some)
                said = True
            if missing:
                await trio.sleep(LOOK_UP_AGAIN_S)

    async def _look_up(self, meter: FleetMeter, missing: list[FleetMeter], room: trio.CapacityLimiter) -> None:
        async with room:
            with trio.move_on_after(LOOK_UP_S):
                try:
                    found = await trio.socket.getaddrinfo(meter.host, meter.port, type=socket.SOCK_STREAM)
                except OSError:
                    found = []
                if found:
                    host = str(found[0][4][0])
                    self._add(meter, f"[{host}]:{meter.port}" if ":" in host else f"{host}:{meter.port}")
                    return
        missing.append(meter)
