"""From a file's text to its sections; all mistakes are found before any is told."""

import ipaddress
import json
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from ipss_headend.address import Address, Server, redacted
from ipss_headend.config.sections import (
    DLMS_PORT,
    LONGEST_SOCKET,
    LOOPBACK,
    METRICS_PORT,
    PRIORITIES,
    RESERVE_MIB,
    AuditConfig,
    Config,
    ControlConfig,
    DatabaseConfig,
    KeystoreConfig,
    ListenerConfig,
    LogConfig,
    MetricsConfig,
    ModbusConfig,
    Network,
    Pkcs11Config,
    PlanConfig,
    PluginsConfig,
    PrincipalConfig,
    ReactorConfig,
    RetentionConfig,
    RpcConfig,
    ShadowConfig,
)
from ipss_headend.config.table import Table
from ipss_headend.errors import ConfigError
from ipss_headend.names import ObjectName, logical_name
from ipss_headend.rings import Rings, parse_size
from ipss_headend.schedule import DAY_S, Every, duration_s


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
    config = _config(Table(document, path.name, "", mistakes), path.parent)
    if mistakes:
        raise ConfigError(*mistakes)
    return config


def _config(top: Table, directory: Path) -> Config:
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
        retention=_retention(top.table("retention"), data_directory),
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
        if 0 < config.retention.months * 28 < plan.backfill_days:
            top.mistake(
                f"plans[{index}].backfill_days",
                f"{plan.backfill_days} days are more than the {config.retention.months} months of [retention]: what is "
                "retired would be read again; keep more months or fill fewer days",
            )
    return config


def _keystore(table: Table, directory: Path) -> KeystoreConfig:
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


def _reactor(table: Table) -> ReactorConfig:
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


def _listener(table: Table) -> ListenerConfig:
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


def _plan(table: Table) -> PlanConfig:
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
    plan = _plan(Table(values, "plan", "", mistakes))
    if mistakes:
        raise ConfigError(*mistakes)
    return plan


def _modbus(table: Table, directory: Path) -> ModbusConfig:
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


def _control(table: Table, data_directory: Path) -> ControlConfig:
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


def _rollout(table: Table) -> Rings:
    default = Rings()
    sizes = tuple(table.parsed_list("rings", parse_size))
    rings = Rings(
        sizes=sizes if "rings" in table.values else default.sizes,
        failures_percent=table.percent("failures", "5%"),
        rest_s=float(table.parsed("rest", "60s", duration_s)),
    )
    table.finish()
    return rings


def _principals(top: Table) -> tuple[PrincipalConfig, ...]:
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


def _audit(table: Table, data_directory: Path) -> AuditConfig:
    default = AuditConfig()
    audit = AuditConfig(
        key_file=data_directory / table.text("key_file", str(default.key_file)),
        checkpoints=data_directory / table.text("checkpoints", str(default.checkpoints)),
    )
    table.finish()
    return audit


def _retention(table: Table, data_directory: Path) -> RetentionConfig:
    default = RetentionConfig()
    retention = RetentionConfig(
        months=table.integer("months", default.months, 0, 1200),
        archive=data_directory / table.text("archive", str(default.archive)),
    )
    table.finish()
    return retention


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


def _metrics(table: Table) -> MetricsConfig:
    metrics = MetricsConfig(
        host=table.text("host", MetricsConfig().host),
        port=table.port("port", METRICS_PORT, f"use {METRICS_PORT}, or 0 for no metrics", least=0),
    )
    table.finish()
    return metrics


def _rpc(table: Table, directory: Path, data_directory: Path) -> RpcConfig:
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


def _plugins(table: Table, directory: Path) -> PluginsConfig:
    default = PluginsConfig()
    enabled = tuple(dict.fromkeys(table.parsed_list("enabled", str)))
    plugins = PluginsConfig(
        enabled=enabled,
        memory_mib=table.integer("memory_mib", default.memory_mib, 128, 1 << 20),
        cpu_s=table.seconds("cpu", default.cpu_s),
        patience=table.integer("patience", default.patience, 1, 1000),
        holidays=frozenset(table.parsed_list("holidays", _day)),
        regional_holidays=_regional(table.table("regional_holidays")),
        estimate_after_s=table.seconds("estimate_after", default.estimate_after_s),
        settings=_plugin_settings(table.table("settings")),
        shadows=_shadows(table.table("shadows"), enabled, directory),
    )
    table.finish()
    return plugins


def _regional(table: Table) -> dict[str, frozenset[str]]:
    found = {name: frozenset(table.parsed_list(name, _day)) for name in table.values}
    table.finish()
    return found


def _shadows(table: Table, enabled: tuple[str, ...], directory: Path) -> dict[str, ShadowConfig]:
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


def _plugin_settings(table: Table) -> dict[str, Mapping[str, object]]:
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


def _log(table: Table) -> LogConfig:
    log = LogConfig(
        level=table.choice("level", "info", ("debug", "info", "warning", "error")),
        json=table.boolean("json", default=False),
    )
    table.finish()
    return log


def _database(table: Table, directory: Path, data_directory: Path) -> DatabaseConfig:
    url = table.parsed("url", "sqlite:///head_end.sqlite", _database_url)
    password_file = table.text("password_file", "")
    address: Address = data_directory / url.removeprefix("sqlite:///")
    if not url.startswith("sqlite:///"):
        address = Server(url, data_directory / "head_end.marker", directory / password_file if password_file else None)
    elif password_file:
        table.mistake("password_file", "SQLite has no password; leave it out")
    database = DatabaseConfig(
        address,
        reserve_mib=table.integer("reserve_mib", RESERVE_MIB, 0, 1 << 20),
        scrub_kib_per_second=table.integer("scrub_kib_per_second", 1024, 0, 1 << 20),
        scrub_every_s=table.seconds("scrub_every", 86_400.0),
    )
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
