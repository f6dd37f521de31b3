"""The configuration file: TOML in, frozen dataclasses out, every mistake in words.

`load` reports all mistakes of a file at once. A line that the head-end does not know is a mistake, not a comment: a
misspelt limit must not silently leave the default in force. Paths are relative to the file; the database is relative
to the data directory.
"""

import difflib
import ipaddress
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from ipss_headend.address import Address, Server, redacted
from ipss_headend.errors import ConfigError, NotAuthorised, UnknownLogicalName
from ipss_headend.names import ObjectName, logical_name
from ipss_headend.rings import Rings, parse_size
from ipss_headend.schedule import DAY_S, Every, duration_s

T = TypeVar("T")

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
    metrics: MetricsConfig = MetricsConfig()
    rpc: RpcConfig = RpcConfig()
    modbus: ModbusConfig = ModbusConfig()
    plugins: PluginsConfig = PluginsConfig()
    log: LogConfig = LogConfig()


def load(path: Path) -> Config:
    """Read a configuration file.

    Raises:
        ConfigError: the file cannot be read, or has mistakes; all of them, one a line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; expected a configuration file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: octet {error.start} is no UTF-8; a configuration file is TOML, which is") from error
    return parse(text, path)


def parse(text: str, path: Path) -> Config:
    """Read the text of a configuration file; `path` names it in messages and is what its paths are relative to.

    Raises:
        ConfigError: all mistakes, one a line.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name}: not TOML: {error}") from error
    mistakes: list[str] = []
    config = _config(_Table(document, path.name, "", mistakes), path.parent)
    if mistakes:
        raise ConfigError(*mistakes)
    return config


def _config(top: "_Table", directory: Path) -> Config:
    data_directory = directory / top.text("data_directory", "data")
    config = Config(
        data_directory=data_directory,
        database=_database(top.table("database"), directory, data_directory),
        keystore=_keystore(top.table("keystore"), directory),
        time_zone=top.parsed("time_zone", "UTC", _zone),
        client_system_title=top.parsed("client_system_title", "4950530000000001", system_title),
        reactor=_reactor(top.table("reactor")),
        listeners=tuple(_listener(table) for table in top.tables("listeners")),
        plans=tuple(_plan(table) for table in top.tables("plans")),
        control=_control(top.table("control"), data_directory),
        rollout=_rollout(top.table("rollout")),
        principals=_principals(top),
        audit=_audit(top.table("audit"), data_directory),
        metrics=_metrics(top.table("metrics")),
        rpc=_rpc(top.table("rpc"), directory, data_directory),
        modbus=_modbus(top.table("modbus"), directory),
        plugins=_plugins(top.table("plugins"), directory),
        log=_log(top.table("log")),
    )
    top.finish()
    seen: dict[str, int] = {}
    for index, plan in enumerate(config.plans):
        if plan.name and plan.name in seen:
            top.mistake(
                f"plans[{index}].name", f'"{plan.name}" is also plans[{seen[plan.name]}]; give each its own name'
            )
        seen.setdefault(plan.name, index)
    return config


def _keystore(table: "_Table", directory: Path) -> KeystoreConfig:
    key_file = table.text("key_file", "")
    passphrase_file = table.text("passphrase_file", "")
    passphrase_env = table.text("passphrase_env", "")
    module = table.text("pkcs11_module", "")
    token, pin_file = table.text("token", ""), table.text("pin_file", "")
    label = table.text("label", "ipss-headend")
    sources = ("key_file", "passphrase_file", "passphrase_env", "pkcs11_module")
    given = [name for name in sources if name in table.values]
    if len(given) != 1:
        table.mistake(
            "",
            f"{' and '.join(given) if given else 'nothing'} given; "
            "write one of key_file, passphrase_file, passphrase_env and pkcs11_module",
        )
    for name, value in (("token", token), ("pin_file", pin_file)):
        if module and not value:
            table.mistake(name, "is needed with pkcs11_module")
    for name in ("token", "pin_file", "label"):
        if not module and name in table.values:
            table.mistake(name, "means something with pkcs11_module only; leave the line out")
    accepted = table.boolean("software_accepted", default=False)
    table.finish()
    return KeystoreConfig(
        key_file=directory / key_file if key_file else None,
        passphrase_file=directory / passphrase_file if passphrase_file else None,
        passphrase_env=passphrase_env or None,
        pkcs11=Pkcs11Config(directory / module, token, directory / pin_file, label) if module else None,
        software_accepted=accepted,
    )


def _reactor(table: "_Table") -> ReactorConfig:
    default = ReactorConfig()
    reactor = ReactorConfig(
        threads=table.integer("threads", default.threads, 0, 256),
        connections_per_second=table.integer("connections_per_second", default.connections_per_second, 1, 100_000),
        batch_rows=table.integer("batch_rows", default.batch_rows, 1, 100_000),
        batch_ms=table.integer("batch_ms", default.batch_ms, 0, 1000),
        queue_batches=table.integer("queue_batches", default.queue_batches, 1, 10_000),
        requests_per_meter=table.integer("requests_per_meter", default.requests_per_meter, 1, 10_000),
        attempts=table.integer("attempts", default.attempts, 1, 20),
        counter_block=table.integer("counter_block", default.counter_block, 10, 1_000_000),
        connect_s=table.seconds("connect", default.connect_s),
        associate_s=table.seconds("associate", default.associate_s),
        answer_s=table.seconds("answer", default.answer_s),
        frame_s=table.seconds("frame", default.frame_s),
        request_s=table.seconds("request", default.request_s),
        heartbeat_s=table.seconds("heartbeat", default.heartbeat_s),
        drain_s=table.seconds("drain", default.drain_s),
    )
    table.finish()
    return reactor


def _listener(table: "_Table") -> ListenerConfig:
    transport = table.choice("transport", "tcp", ("tcp", "udp", "mbus"))
    listener = ListenerConfig(
        host=table.text("host", ListenerConfig().host),
        port=table.port("port", DLMS_PORT, f"use {DLMS_PORT} for DLMS or leave the line out"),
        protocol=table.choice("protocol", "dlms", ("dlms",)),
        transport="udp" if transport == "udp" else "mbus" if transport == "mbus" else "tcp",
        line=table.text("line", ""),
    )
    if (transport == "mbus") != listener.line.startswith("/"):
        table.mistake("line", 'goes with transport "mbus" and begins with a device file, as "/dev/ttyUSB0?baud=2400"')
    table.finish()
    return listener


def _plan(table: "_Table") -> PlanConfig:
    plan = PlanConfig(
        name=table.text("name", None),
        every=table.parsed("every", None, Every.parse, Every(DAY_S, 0)),
        objects=tuple(table.parsed_list("objects", ObjectName.parse)),
        profile=table.parsed("profile", "", lambda text: logical_name(text) if text else None),
        columns=tuple(table.parsed_list("columns", ObjectName.parse)),
        period_s=table.parsed("period", "15min", _period),
        window_s=table.parsed("window", "0s", duration_s),
        priority=table.choice("priority", "scheduled", tuple(PRIORITIES)),
        backfill_days=table.integer("backfill_days", 30, 0, 3660),
        clock_limit_s=table.parsed("clock_limit", "60s", duration_s),
        groups=tuple(table.parsed_list("groups", str)),
    )
    if not plan.objects and plan.profile is None and not {"objects", "profile"} & table.values.keys():
        table.mistake("", "reads nothing; give it objects, a profile, or both")
    if plan.profile is None:
        for key in ("columns", "period", "backfill_days"):
            if key in table.values:
                table.mistake(key, "belongs to a profile and this plan has none; add profile or leave the line out")
    if plan.window_s > plan.every.period_s:
        table.mistake("window", f"{plan.window_s} s is longer than the {plan.every.period_s} s until the next turn")
    table.finish()
    return plan


def parse_plan(values: Mapping[str, object]) -> PlanConfig:
    """A read plan from what a table `[[plans]]` would say.

    Raises:
        ConfigError: all mistakes.
    """
    mistakes: list[str] = []
    plan = _plan(_Table(values, "plan", "", mistakes))
    if mistakes:
        raise ConfigError(*mistakes)
    return plan


def _modbus(table: "_Table", directory: Path) -> ModbusConfig:
    files = {name: table.text(name, "") for name in ("authorities", "certificate", "key")}
    found = {name: directory / text if text else None for name, text in files.items()}
    networks = tuple(table.parsed_list("plain_networks", _network))
    modbus = ModbusConfig(
        plain_networks=networks if "plain_networks" in table.values else LOOPBACK,
        fast_s=table.seconds("fast", 10.0),
        slow_s=table.seconds("slow", 300.0),
        authorities=found["authorities"],
        certificate=found["certificate"],
        key=found["key"],
    )
    if (found["certificate"] is None) != (found["key"] is None):
        table.mistake("certificate", "a certificate and its key go together; name both, or neither")
    table.finish()
    return modbus


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f'"{text}" is not a network such as 10.20.0.0/16: {error}') from None


def _control(table: "_Table", data_directory: Path) -> ControlConfig:
    default = ControlConfig()
    control = ControlConfig(
        stop_file=data_directory / table.text("stop_file", str(default.stop_file)),
        not_after_s=table.parsed("not_after", "15min", _life),
        bulk=table.integer("bulk", default.bulk, 0, 25),
        per_minute=table.integer("per_minute", default.per_minute, 0, 100_000),
        per_hour=table.integer("per_hour", default.per_hour, 0, 1_000_000),
        fleet_per_day_percent=table.percent("fleet_per_day", "0.05%"),
        fleet_per_day_least=table.integer("fleet_per_day_least", default.fleet_per_day_least, 0, 1_000_000),
        reconnects_per_minute=table.integer("reconnects_per_minute", default.reconnects_per_minute, 0, 100_000),
        reconnects_per_hour=table.integer("reconnects_per_hour", default.reconnects_per_hour, 0, 1_000_000),
        reconnects_per_day_percent=table.percent("reconnects_per_day", "0.5%"),
        reconnects_per_day_least=table.integer(
            "reconnects_per_day_least", default.reconnects_per_day_least, 0, 1_000_000
        ),
        reconnect_window_s=table.parsed("reconnect_window", "60s", duration_s),
        changes_per_minute=table.integer("changes_per_minute", default.changes_per_minute, 0, 100_000),
        changes_per_hour=table.integer("changes_per_hour", default.changes_per_hour, 0, 1_000_000),
        changes_per_day_percent=table.percent("changes_per_day", "25%"),
        changes_per_day_least=table.integer("changes_per_day_least", default.changes_per_day_least, 0, 1_000_000),
        answer_s=table.seconds("answer", default.answer_s),
        read_back_s=table.seconds("read_back", default.read_back_s),
        lease_s=table.seconds("lease", default.lease_s),
        activation_s=table.seconds("activation", default.activation_s),
        firmware_failures_percent=table.percent("firmware_failures", "0.5%"),
        firmware_rest_s=table.parsed("firmware_rest", "1d", duration_s),
        der_critical_percent=table.percent("der_critical", "10%"),
    )
    table.finish()
    return control


def _rollout(table: "_Table") -> Rings:
    default = Rings()
    sizes = tuple(table.parsed_list("rings", parse_size))
    rings = Rings(
        sizes=sizes if "rings" in table.values else default.sizes,
        failures_percent=table.percent("failures", "5%"),
        rest_s=float(table.parsed("rest", "60s", duration_s)),
    )
    table.finish()
    return rings


def _principals(top: "_Table") -> tuple[PrincipalConfig, ...]:
    found: list[PrincipalConfig] = []
    for table in top.tables("principals"):
        kind = table.choice("kind", "person", ("person", "service"))
        principal = PrincipalConfig(
            name=table.text("name", None),
            public_key=table.parsed("public_key", None, _public_key, bytes(32)),
            may_request=table.boolean("request", default=True),
            may_approve=table.boolean("approve", default=False),
        )
        if kind == "service" and principal.may_approve:
            table.mistake("approve", "a service only asks for commands; people approve them")
        if len(principal.name.encode()) > 64 or "\0" in principal.name:
            table.mistake("name", "too long, or with a null character; use at most 64 octets")
        for other in found:
            # Two names with one key would be two people for whoever has it.
            if principal.name == other.name or principal.public_key == other.public_key:
                table.mistake("name", f'"{other.name}" has the same name or key; each principal has its own')
        found.append(principal)
        table.finish()
    return tuple(found)


def _audit(table: "_Table", data_directory: Path) -> AuditConfig:
    default = AuditConfig()
    audit = AuditConfig(
        key_file=data_directory / table.text("key_file", str(default.key_file)),
        checkpoints=data_directory / table.text("checkpoints", str(default.checkpoints)),
    )
    table.finish()
    return audit


def _life(text: str) -> int:
    life_s = duration_s(text)
    if not 0 < life_s <= DAY_S:
        raise ValueError(f'"{text}" is no life for a command; it is more than nothing and at most 1d')
    return life_s


def _public_key(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ValueError("not a public key; it is 64 hexadecimal digits, see `ipss-headend control operator --help`")
    return key


def _metrics(table: "_Table") -> MetricsConfig:
    metrics = MetricsConfig(
        host=table.text("host", MetricsConfig().host),
        port=table.port("port", METRICS_PORT, f"use {METRICS_PORT}, or 0 for no metrics", least=0),
    )
    table.finish()
    return metrics


def _rpc(table: "_Table", directory: Path, data_directory: Path) -> RpcConfig:
    path = table.text("socket", "rpc.sock")
    files = {name: table.text(name, "") for name in ("certificate", "key", "client_authority", "revoked")}
    found = {name: directory / text if text else None for name, text in files.items()}
    rpc = RpcConfig(
        socket=data_directory / path if path else None,
        host=table.text("host", RpcConfig().host),
        port=table.port("port", 0, "use 4060, or leave the line out for none", least=0),
        certificate=found["certificate"],
        key=found["key"],
        client_authority=found["client_authority"],
        revoked=found["revoked"],
        calls_per_second=table.integer("calls_per_second", RpcConfig().calls_per_second, 1, 10_000_000),
        log_days=table.integer("log_days", RpcConfig().log_days, 1, 3660),
    )
    if rpc.socket is not None and len(str(rpc.socket.absolute())) > LONGEST_SOCKET:
        table.mistake("socket", f"{rpc.socket} is longer than the {LONGEST_SOCKET} characters a socket may have")
    missing = [name for name in ("certificate", "key", "client_authority") if not files[name]]
    if rpc.port and missing:
        table.mistake("port", f"{rpc.port} needs {', '.join(missing)}: over TCP both sides prove who they are")
    table.finish()
    return rpc


def _plugins(table: "_Table", directory: Path) -> PluginsConfig:
    default = PluginsConfig()
    enabled = tuple(dict.fromkeys(table.parsed_list("enabled", str)))
    plugins = PluginsConfig(
        enabled=enabled,
        memory_mib=table.integer("memory_mib", default.memory_mib, 128, 1 << 20),
        cpu_s=table.seconds("cpu", default.cpu_s),
        patience=table.integer("patience", default.patience, 1, 1000),
        holidays=frozenset(table.parsed_list("holidays", _day)),
        estimate_after_s=table.seconds("estimate_after", default.estimate_after_s),
        settings=_plugin_settings(table.table("settings")),
        shadows=_shadows(table.table("shadows"), enabled, directory),
    )
    table.finish()
    return plugins


def _shadows(table: "_Table", enabled: tuple[str, ...], directory: Path) -> dict[str, ShadowConfig]:
    found = {}
    for name in table.values:
        one = table.table(name)
        shadow = ShadowConfig(one.text("shadow_of", None), one.text("source", name))
        one.finish()
        if name in enabled:
            table.mistake(name, "is enabled too, and would be obeyed; leave it out of enabled, or give it another name")
        if shadow.shadow_of == name:
            table.mistake(name, "cannot be its own shadow; give the other version a name, and say its source")
        from ipss_headend.plugins.source import absolute  # what plugins are made of is loaded where there are some

        found[name] = replace(shadow, source=absolute(shadow.source, directory))
    return found


def _plugin_settings(table: "_Table") -> dict[str, Mapping[str, object]]:
    found: dict[str, Mapping[str, object]] = {}
    for name in table.values:
        values = table.table(name).values
        try:
            json.dumps(dict(values))
        except TypeError:
            table.mistake(name, "has a date or a time; write it as a text in quotes")
        found[name] = dict(values)
    return found


def _day(text: str) -> str:
    try:
        date.fromisoformat(text if len(text) == 10 else f"2000-{text}")
    except ValueError:
        raise ValueError(f'"{text}" is no day; write "2026-12-25", or "12-25" for every year') from None
    return text


def _log(table: "_Table") -> LogConfig:
    log = LogConfig(
        level=table.choice("level", "info", ("debug", "info", "warning", "error")),
        json=table.boolean("json", default=False),
    )
    table.finish()
    return log


def _database(table: "_Table", directory: Path, data_directory: Path) -> DatabaseConfig:
    url = table.parsed("url", "sqlite:///head_end.sqlite", _database_url)
    password_file = table.text("password_file", "")
    address: Address = data_directory / url.removeprefix("sqlite:///")
    if not url.startswith("sqlite:///"):
        address = Server(url, data_directory / "head_end.marker", directory / password_file if password_file else None)
    elif password_file:
        table.mistake("password_file", "SQLite has no password; leave it out")
    database = DatabaseConfig(address, table.integer("reserve_mib", RESERVE_MIB, 0, 1 << 20))
    table.finish()
    return database


def _database_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme == "sqlite" and url.startswith("sqlite:///") and url != "sqlite:///":
        return url
    if parts.scheme not in ("postgresql", "postgres") or parts.path in ("", "/"):
        raise ValueError(
            f'"{redacted(url)}" is not a database this version knows; write sqlite:///head_end.sqlite or '
            "postgresql://user@host/database"
        )
    if parts.password is not None or "password=" in parts.query:
        raise ValueError(
            f'"{redacted(url)}" has a password in it; put it into a file and name that in password_file, or use '
            "~/.pgpass or PGPASSWORD"
        )
    return url


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f'"{name}" is not a time zone of this system; write a name such as Europe/Prague') from None


def _period(text: str) -> int:
    period_s = duration_s(text)
    if period_s <= 0 or DAY_S % period_s:
        raise ValueError(f'"{text}" does not divide a day; a profile captures every 15min, 30min, 1h or alike')
    return period_s


def system_title(text: str) -> bytes:
    """Eight octets written as 16 hexadecimal digits.

    Raises:
        ValueError: with words for the operator.
    """
    try:
        title = bytes.fromhex(text)
    except ValueError:
        raise ValueError(f'"{text}" is not hexadecimal; a system title is 16 hexadecimal digits') from None
    if len(title) != 8:
        raise ValueError(f'"{text}" has {len(title)} octets; a system title has 8')
    return title


class _Table:
    """One TOML table, read key by key; a mistake is noted and the default goes on, so that all are found at once."""

    def __init__(self, values: Mapping[str, object], file: str, path: str, mistakes: list[str]) -> None:
        self.values = values
        self._file = file
        self._path = path
        self._mistakes = mistakes
        self._known: list[str] = []

    def mistake(self, key: str, words: str) -> None:
        place = ".".join(part for part in (self._path, key) if part)
        self._mistakes.append(f"{self._file}: {place}: {words}")

    def finish(self) -> None:
        """Refuse what was not asked for."""
        for key in self.values:
            if key not in self._known:
                near = difflib.get_close_matches(key, self._known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(self._known))}"
                self.mistake(key, f"unknown; {hint}")

    def text(self, key: str, default: str | None) -> str:
        """A text; without a default it must be there and say something."""
        return self._take(key, default, str, "a text in quotes", "")

    def integer(self, key: str, default: int, least: int, most: int) -> int:
        number = self._take(key, default, int, "a whole number", default)
        if not least <= number <= most:
            self.mistake(key, f"{number} is out of range; use {least} to {most}, or leave the line out for {default}")
            return default
        return number

    def port(self, key: str, default: int, hint: str, least: int = 1) -> int:
        number = self._take(key, default, int, "a whole number", default)
        if not least <= number <= 65535:
            self.mistake(key, f"{number} is not a port; {hint}")
            return default
        return number

    def boolean(self, key: str, *, default: bool) -> bool:
        return self._take(key, default, bool, "true or false", default)

    def choice(self, key: str, default: str, choices: tuple[str, ...]) -> str:
        chosen = self._take(key, default, str, "a text in quotes", default)
        if chosen not in choices:
            self.mistake(key, f'"{chosen}" is none of {", ".join(choices)}')
            return default
        return chosen

    def percent(self, key: str, default: str) -> float:
        """A share, written with its sign."""

        def share(text: str) -> float:
            number = float(text.removesuffix("%")) if text.endswith("%") else -1.0
            if not 0 <= number <= 100:
                raise ValueError(f'"{text}" is no share; write "{default}"')
            return number

        return self.parsed(key, default, share)

    def seconds(self, key: str, default: float) -> float:
        """A time to wait, more than nothing."""

        def wait_s(text: str) -> float:
            seconds = duration_s(text)
            if seconds <= 0:
                raise ValueError(f'"{text}" is no time to wait; write "{default:g}s" or leave the line out')
            return float(seconds)

        return self.parsed(key, f"{default:g}s", wait_s)

    def parsed(self, key: str, default: str | None, parser: Callable[[str], T], fallback: T | None = None) -> T:
        """A text with a meaning. `fallback` stands in where there is no default to parse."""
        text = self._take(key, default, str, "a text in quotes", "")
        try:
            if text or default is not None:
                return parser(text)
        except (ValueError, UnknownLogicalName) as error:
            self.mistake(key, str(error))
        if default is not None:
            return parser(default)
        assert fallback is not None, "a key without a default has a fallback"
        return fallback

    def parsed_list(self, key: str, parser: Callable[[str], T]) -> Iterator[T]:
        for index, entry in enumerate(self._take(key, [], list, "a list", [])):
            if not isinstance(entry, str):
                self.mistake(f"{key}[{index}]", f"{_shown(entry)} is no text in quotes")
                continue
            try:
                yield parser(entry)
            except (ValueError, UnknownLogicalName) as error:
                self.mistake(f"{key}[{index}]", str(error))

    def table(self, key: str) -> "_Table":
        values = self._take(key, {}, dict, f"a table; write [{key}]", {})
        return _Table(values, self._file, f"{self._path}.{key}" if self._path else key, self._mistakes)

    def tables(self, key: str) -> Iterator["_Table"]:
        for index, values in enumerate(self._take(key, [], list, f"a list of tables; write [[{key}]]", [])):
            path = f"{key}[{index}]"
            if isinstance(values, dict):
                yield _Table(values, self._file, path, self._mistakes)
            else:
                self.mistake(path, f"{_shown(values)} is no table; write [[{key}]]")

    def _take(self, key: str, default: T | None, kind: type[T], expected: str, fallback: T) -> T:
        self._known.append(key)
        if key not in self.values:
            if default is not None:
                return default
            self.mistake(key, f"missing; expected {expected}")
            return fallback
        value = self.values[key]
        # In Python a bool is an int; in a configuration file `port = true` is a mistake.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.mistake(key, f"{_shown(value)} is not {expected}")
            return default if default is not None else fallback
        if default is None and not value:
            self.mistake(key, f"empty; expected {expected}")
        return value


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, dict):
        return "a table"
    return "a list" if isinstance(value, list) else str(value)
