"""The configuration file: TOML in, frozen dataclasses out, every mistake in words.

`load` reports all mistakes of a file at once. A line that the head-end does not know is a mistake, not a comment: a
misspelt limit must not silently leave the default in force. Paths are relative to the file; the database is relative
to the data directory.
"""

from ipss_headend.config.reading import load, parse, parse_plan, system_title
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

__all__ = [
    "DLMS_PORT",
    "LONGEST_SOCKET",
    "LOOPBACK",
    "METRICS_PORT",
    "PRIORITIES",
    "RESERVE_MIB",
    "AuditConfig",
    "Config",
    "ControlConfig",
    "DatabaseConfig",
    "KeystoreConfig",
    "ListenerConfig",
    "LogConfig",
    "MetricsConfig",
    "ModbusConfig",
    "Network",
    "Pkcs11Config",
    "PlanConfig",
    "PluginsConfig",
    "PrincipalConfig",
    "ReactorConfig",
    "RetentionConfig",
    "RpcConfig",
    "ShadowConfig",
    "load",
    "parse",
    "parse_plan",
    "system_title",
]
