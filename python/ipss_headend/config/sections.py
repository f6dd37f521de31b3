"""What a configuration file may say: a dataclass a section, with what is taken where a key is missing."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from ipss_headend.address import Address
from ipss_headend.errors import NotAuthorised
from ipss_headend.names import ObjectName
from ipss_headend.rings import Rings
from ipss_headend.schedule import Every

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DLMS_PORT = 4059
METRICS_PORT = 9466

LONGEST_SOCKET = 107
"""What the operating system takes as the path of a unix socket."""

LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
"""This machine itself."""

PRIORITIES = {"backfill": 0, "scheduled": 1, "on-demand": 2}
"""What a plan may ask for; `critical` (3) belongs to the command path alone."""

RESERVE_MIB = 64
"""R5: room on the disk that readings leave to counters and the audit log."""


@dataclass(frozen=True, slots=True)
class DatabaseConfig:
    """`[database]`: where readings, counters and marks live."""

    address: Address
    """SQLite's file, or a PostgreSQL database."""
    reserve_mib: int = RESERVE_MIB
    """Readings stop when SQLite's disk has less room than this; counters go on."""
    scrub_kib_per_second: int = 1024
    """How quickly what is stored is compared with its checksums; 0: never."""
    scrub_every_s: float = 86_400.0
    """From the begin of a turn through all of the store to the begin of the next."""

    @property
    def name(self) -> str:
        """For messages."""
        return str(self.address) if isinstance(self.address, Path) else self.address.name


@dataclass(frozen=True, slots=True)
class Pkcs11Config:
    """`[keystore]` with a hardware module: where the key-encryption key is, and how to reach it."""

    module: Path
    """The module's library, as its maker delivers it."""
    token: str
    pin_file: Path
    label: str = "ipss-headend"
    """Of the key in the token."""


@dataclass(frozen=True, slots=True)
class KeystoreConfig:
    """`[keystore]`: where the key-encryption key comes from. Exactly one of the first four is set."""

    key_file: Path | None = None
    passphrase_file: Path | None = None
    passphrase_env: str | None = None
    pkcs11: Pkcs11Config | None = None
    software_accepted: bool = False
    """The operator knows that a key in software is as safe as this machine: no warning at each start (R21)."""


@dataclass(frozen=True, slots=True)
class ReactorConfig:
    """`[reactor]`: how hard the head-end works, and how long it waits. Times are seconds."""

    threads: int = 0
    """0: one less than the processors, at least one."""
    connections_per_second: int = 200
    """New connections and associations, the whole fleet together (R26)."""
    batch_rows: int = 1000
    batch_ms: int = 10
    queue_batches: int = 64
    """Batches that wait for the store before the reactor stops reading sockets."""
    requests_per_meter: int = 16
    """Requests that wait for one meter before more are refused as overloaded."""
    attempts: int = 3
    """Tries of a request that may be repeated, when the line breaks under it."""
    counter_block: int = 4096
    """Invocation counters that a meter's session gets at a time; what a crash leaves unused is burnt (R7)."""
    connect_s: float = 10.0
    associate_s: float = 60.0
    answer_s: float = 30.0
    frame_s: float = 30.0
    request_s: float = 300.0
    """A planned request's absolute deadline, its waiting included."""
    heartbeat_s: float = 480.0
    """Operators drop idle TCP after 10 to 15 minutes (R28)."""
    drain_s: float = 30.0
    """How long SIGTERM waits for what is under way."""


@dataclass(frozen=True, slots=True)
class ListenerConfig:
    """`[[listeners]]`: where meters that dial in arrive."""

    host: str = "0.0.0.0"  # noqa: S104 - meters come from outside
    port: int = DLMS_PORT
    protocol: str = "dlms"
    transport: Literal["tcp", "udp", "mbus"] = "tcp"
    line: str = ""
    """With `mbus`: the serial line, `/dev/ttyUSB0?baud=2400&parity=even`."""


@dataclass(frozen=True, slots=True)
class PlanConfig:
    """`[[plans]]`: what is read from which meters, how often."""

    name: str
    every: Every
    objects: tuple[ObjectName, ...] = ()
    profile: str | None = None
    """The logical name of a profile generic whose buffer is read by range."""
    columns: tuple[ObjectName, ...] = ()
    """Which of the profile's columns; none: all."""
    period_s: int = 900
    """The profile's capture period, for gap lists."""
    window_s: int = 0
    """The plan's meters are spread over this time after each recurrence, each at its own fixed place."""
    priority: str = "scheduled"
    backfill_days: int = 30
    """How far back gaps of the profile are filled. The last day's are always."""
    clock_limit_s: int = 60
    """How far a meter's clock may be from ours before it is told, where the plan reads the clock."""
    groups: tuple[str, ...] = ()
    """Only meters of these groups; none: all."""

    def selects(self, group: str) -> bool:
        """Whether a meter of this group is in the plan."""
        return not self.groups or group in self.groups


@dataclass(frozen=True, slots=True)
class PrincipalConfig:
    """`[[principals]]`: somebody who may ask for critical commands, or approve them. Here and nowhere else."""

    name: str
    public_key: bytes
    """Ed25519, 32 octets; `ipss-headend control operator` makes a key."""
    may_request: bool = True
    may_approve: bool = False
    """Never a service's: what a program asks for, people approve (R15)."""


@dataclass(frozen=True, slots=True)
class ControlConfig:
    """`[control]`: critical commands (R14-R20). Budgets are raised here and nowhere else (R16)."""

    stop_file: Path = Path("control.stop")
    """While it is there, nothing critical leaves."""
    not_after_s: int = 900
    bulk: int = 25
    """Orders for more meters need two approvers."""
    per_minute: int = 60
    """Commands of a principal, and to a group of meters."""
    per_hour: int = 500
    fleet_per_day_percent: float = 0.05
    fleet_per_day_least: int = 10
    """What a small fleet may have in spite of its share."""
    reconnects_per_minute: int = 60
    reconnects_per_hour: int = 500
    reconnects_per_day_percent: float = 0.5
    reconnects_per_day_least: int = 50
    reconnect_window_s: int = 60
    """The reconnections of one order are spread over this time (R19)."""
    changes_per_minute: int = 600
    """Of what changes meters and cuts nobody: keys, firmware, tariffs. Their order is that of `[rollout]`."""
    changes_per_hour: int = 20_000
    changes_per_day_percent: float = 25.0
    changes_per_day_least: int = 100
    answer_s: float = 60.0
    """How long a command may wait for its meter's line and answer."""
    read_back_s: float = 30.0
    """How long a meter may take to be seen in the wanted state, before it is an alarm (R20)."""
    lease_s: float = 10.0
    """For how long the store's word that this head-end owns it holds (R8): asked for four times as often."""
    activation_s: float = 900.0
    """How long a meter may be busy with a new firmware before its silence is an alarm, and counts as a failure."""
    firmware_failures_percent: float = 0.5
    """More of a ring than this may not fail or fall silent under a new firmware."""
    firmware_rest_s: int = 86_400
    """Between two rings of a firmware."""
    der_critical_percent: float = 10.0
    """A limit of an inverter below this share of its rating is as good as switching it off: a critical command."""


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """`[audit]`: the audit trail's signed checkpoints (R40)."""

    key_file: Path = Path("audit.key")
    checkpoints: Path = Path("audit/checkpoints.jsonl")
    """The second place: best another disk, or a mount that only appends."""


@dataclass(frozen=True, slots=True)
class RetentionConfig:
    """`[retention]`: how long readings stay in the store."""

    months: int = 0
    """Whole months beside the one that runs; 0: all."""
    archive: Path = Path("archive")
    """Where SQLite's older months go; PostgreSQL's become tables by themselves."""


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """`[metrics]`: where `/metrics` and `/healthz` answer. Port 0: not at all."""

    host: str = "127.0.0.1"
    port: int = METRICS_PORT


@dataclass(frozen=True, slots=True)
class RpcConfig:
    """`[rpc]`: where other systems call."""

    socket: Path | None = None
    """A unix socket for this machine; None: none."""
    host: str = "0.0.0.0"  # noqa: S104 - with mTLS alone, and only where a port is given
    port: int = 0
    """Where TLS 1.3 with certificates on both sides is spoken; 0: not at all."""
    certificate: Path | None = None
    """The head-end's own, PEM, with what leads to its authority."""
    key: Path | None = None
    """Its private key, PEM."""
    client_authority: Path | None = None
    """The authority that signs clients' certificates, PEM. Nobody else's get in."""
    revoked: Path | None = None
    """Its revocation list (CRL), PEM; None: certificates end only by their date, or by being taken from their user."""
    calls_per_second: int = 100_000
    """Of one caller and method (R38)."""
    log_days: int = 30
    """How long readers' cursors into the log of readings and events stay good."""


@dataclass(frozen=True, slots=True)
class ModbusConfig:
    """`[modbus]`: anybody on the way may read and change what is neither ciphered nor signed."""

    plain_networks: tuple[Network, ...] = LOOPBACK
    """Where Modbus may be spoken without TLS; on a serial line it always is."""
    fast_s: float = 10.0
    """How often what moves by the second is read of Modbus devices: powers, voltages, limits."""
    slow_s: float = 300.0
    """How often what moves by the minute is read of them: energies, temperatures."""
    authorities: Path | None = None
    """Whose certificates devices at `modbus+tls://` show, PEM."""
    certificate: Path | None = None
    """Ours towards them, PEM; it names our role."""
    key: Path | None = None
    """Its private key, PEM."""

    def check_plain(self, host: str) -> None:
        """Refuse a numeric address outside them.

        Raises:
            NotAuthorised: with the remedy.
        """
        address = ipaddress.ip_address(host)
        if not any(address in network for network in self.plain_networks):
            raise NotAuthorised(
                f"{host} is in none of the networks where Modbus may be spoken in the clear; use modbus+tls://, "
                "or name its network in [modbus] plain_networks"
            )


@dataclass(frozen=True, slots=True)
class PluginsConfig:
    """`[plugins]`: which run, and what each may use."""

    enabled: tuple[str, ...] = ()
    memory_mib: int = 1024
    """Address space of each plugin's process."""
    cpu_s: float = 60.0
    """Processor time that a plugin may use for one invocation and what follows it."""
    patience: int = 1
    """The hooks' time limits are multiplied by this, for slow machines."""
    holidays: frozenset[str] = frozenset()
    """Days for the `calendar` of control hooks, `2026-12-25`, or `12-25` for every year."""
    regional_holidays: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """More of these for groups of meters and nodes of the network, by their names."""
    estimate_after_s: float = 6 * 3600.0
    """How long an interval may be missing before a value is estimated for it."""
    settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """What each plugin is told as `ctx.settings`."""
    shadows: Mapping[str, "ShadowConfig"] = field(default_factory=dict)
    """Versions that are asked beside plugins and not obeyed, by their names."""


@dataclass(frozen=True, slots=True)
class ShadowConfig:
    """`[plugins.shadows.NAME]`."""

    shadow_of: str
    """The plugin that it stands beside."""
    source: str
    """Where its code is; a path is absolute."""


@dataclass(frozen=True, slots=True)
class LogConfig:
    """`[log]`."""

    level: str = "info"
    json: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file."""

    data_directory: Path
    database: DatabaseConfig
    keystore: KeystoreConfig
    time_zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    """The zone that plans' times of day are in. Stored readings are in UTC."""
    client_system_title: bytes = b"IPS\x00\x00\x00\x00\x01"
    """Our own system title, 8 octets: never a meter's, and another for each head-end of a utility (R8)."""
    reactor: ReactorConfig = ReactorConfig()
    listeners: tuple[ListenerConfig, ...] = ()
    plans: tuple[PlanConfig, ...] = ()
    control: ControlConfig = ControlConfig()
    rollout: Rings = field(default_factory=Rings)
    """`[rollout]`: how changes of keys, firmware and tariffs spread over their meters."""
    principals: tuple[PrincipalConfig, ...] = ()
    audit: AuditConfig = AuditConfig()
    retention: RetentionConfig = RetentionConfig()
    metrics: MetricsConfig = MetricsConfig()
    rpc: RpcConfig = RpcConfig()
    modbus: ModbusConfig = ModbusConfig()
    plugins: PluginsConfig = PluginsConfig()
    log: LogConfig = LogConfig()
