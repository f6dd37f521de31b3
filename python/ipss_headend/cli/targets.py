"""Whom `read` asks: a URL with the options beside it, or a meter of the registry."""

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from ipss_headend.cli import key_file, places
from ipss_headend.cli.counter_file import CounterFile
from ipss_headend.config import DLMS_PORT, Config, system_title
from ipss_headend.errors import ConfigError, RequestError, StoreInUse
from ipss_headend.field.connect import identities
from ipss_headend.field.fleet import FleetMeter, load_meter
from ipss_headend.security.keystore import Keystore, MeterKeys
from ipss_headend.security.mechanisms import KEY_OCTETS, WITH_SECRET, needs_keys, needs_titles
from ipss_headend.store import Database, counters

BLOCK = 256
"""Invocation counters taken at a time: more than a read of any object needs, and 2^32 of them are many reads."""

NETWORK_SCHEMES = ("dlms+tcp", "dlms+udp", "dlms+hdlc+tcp")
SERIAL_SCHEMES = ("dlms+hdlc+serial", "dlms+optical")


class Auth(StrEnum):
    """How both ends prove who they are."""

    NONE = "none"
    LOW = "low"
    HLS2 = "hls2"
    HLS_MD5 = "hls-md5"
    HLS_SHA1 = "hls-sha1"
    HLS_GMAC = "hls-gmac"
    HLS_SHA256 = "hls-sha256"
    HLS_ECDSA = "hls-ecdsa"


class Protection(StrEnum):
    """How APDUs are protected."""

    NONE = "none"
    AUTH = "auth"
    ENC = "enc"
    BOTH = "auth+enc"


class Referencing(StrEnum):
    """By logical names or short names."""

    LN = "ln"
    SN = "sn"


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `read` that say how to speak; None where the operator said nothing."""

    client: int | None = None
    server: int | None = None
    physical: int | None = None
    auth: Auth | None = None
    password_file: Path | None = None
    keys: Path | None = None
    suite: int = 0
    protection: Protection | None = None
    dedicated: bool = False
    client_title: str | None = None
    server_title: str | None = None
    counter_file: Path | None = None
    first_counter: int | None = None
    referencing: Referencing = Referencing.LN

    def given(self) -> list[str]:
        """The options that a meter of the registry has already answered, as the operator wrote them."""
        named = {
            "--client": self.client,
            "--server": self.server,
            "--physical": self.physical,
            "--auth": self.auth,
            "--password-file": self.password_file,
            "--keys": self.keys,
            "--suite": self.suite or None,
            "--protection": self.protection,
            "--dedicated": self.dedicated or None,
            "--client-title": self.client_title,
            "--server-title": self.server_title,
            "--counter-file": self.counter_file,
            "--first-counter": self.first_counter,
        }
        return [name for name, value in named.items() if value is not None]


@dataclass(frozen=True, slots=True)
class Target:
    """One device, and all that is needed to talk to it."""

    name: str
    host: str | None
    """None: the device dials in, at one of `listen` and as one of `identities`."""
    port: int
    client: int
    server: int
    auth: str
    suite: int
    protection: str
    dedicated: bool
    client_title: bytes
    server_title: bytes
    keys: MeterKeys
    reserve: Callable[[], tuple[int, int]] = field(repr=False)
    """A block [next, end) of invocation counters, durable when it returns."""
    peer_counter: int | None
    keep_peer_counter: Callable[[int], None] = field(repr=False)
    """Make the meter's invocation counter durable."""
    listen: tuple[str, ...] = ()
    """`host:port`, each where the device may dial in."""
    identities: tuple[bytes, ...] = ()
    """What the device may call itself when it dials in."""
    transport: str = "tcp"
    """`tcp` and `udp` (the wrapper), `hdlc+tcp`, `hdlc+serial`, `optical`."""
    line: str = ""
    """The reactor's address of a serial line; empty: `host` and `port` are the address."""
    physical: int = 0
    """The physical device of an HDLC address; 0: none."""
    referencing: Literal["ln", "sn"] = "ln"
    """By logical or by short names."""
    gateway: str = ""
    """`NETWORK/DEVICE` behind a gateway; empty: none."""

    @property
    def needs_counters(self) -> bool:
        """Whether anything is ciphered."""
        return needs_keys(self.auth, self.protection)


_HOST_AND_PORT = re.compile(r"([0-9]{1,3}(\.[0-9]{1,3}){3}|localhost|\[[0-9a-fA-F:]+\]):[0-9]+")


def check_name(device: str) -> None:
    """Whether this may be a meter's name, before a registry is looked for.

    Raises:
        RequestError: it is an address.
    """
    if _HOST_AND_PORT.fullmatch(device):
        raise RequestError(f"{device}: an address without a transport; write dlms+tcp://{device}, or a meter's name")


def resolve(device: str, options: Options, config_path: Path) -> Target:
    """The device that the operator named.

    Raises:
        RequestError: what was asked for cannot be, or is not built.
        ConfigError: a file is missing or wrong.
    """
    _check_built(options)
    if "://" in device:
        return from_url(device, options)
    if given := options.given():
        raise RequestError(
            f"{', '.join(given)}: the registry says how {device} is spoken to; leave it out, or give a URL"
        )
    check_name(device)
    return from_registry(device, places.load_config(config_path))


def from_url(url: str, options: Options) -> Target:
    """A device by its URL."""
    parts = _split(url)
    serial = parts.scheme in SERIAL_SCHEMES
    keys, server_title, client_title = _keys(options)
    if options.password_file is not None:
        keys = dataclasses.replace(keys, password=_password(options.password_file))
    has_keys = keys.encryption_key is not None and keys.authentication_key is not None
    auth = options.auth or (Auth.HLS_GMAC if has_keys else Auth.LOW if keys.password else Auth.NONE)
    high = auth not in (Auth.NONE, Auth.LOW)
    protection = options.protection or (Protection.BOTH if has_keys and high else Protection.NONE)
    if auth.value in WITH_SECRET and keys.password is None:
        raise RequestError(f"--auth {auth} needs a secret; put it into a file and name it with --password-file")
    keyed = needs_keys(auth.value, protection.value)
    secured = needs_titles(auth.value, protection.value)
    if keyed and not has_keys:
        raise RequestError(
            "--auth hls-gmac and --protection need encryption_key and authentication_key; name their file with --keys"
        )
    if auth is Auth.HLS_ECDSA and options.suite == 0:
        raise RequestError("--auth hls-ecdsa needs --suite 1 or 2; suite 0 has no signatures")
    if auth is Auth.HLS_ECDSA and (keys.private_key is None or keys.peer_public_key is None):
        raise RequestError(
            "--auth hls-ecdsa needs private_key (ours) and peer_public_key (the meter's); name their file with --keys"
        )
    if secured and not server_title:
        raise RequestError(
            "the device's system title is not given, and no other is to be believed; name the table in --keys by it, "
            "or use --server-title"
        )
    file = CounterFile(options.counter_file or places.client_directory() / "invocation_counters.json")
    if secured and not client_title:
        client_title = file.client_title()
    if client_title and client_title == server_title:
        raise RequestError("--client-title is the meter's own system title; a client has another")
    key = keys.encryption_key or b""
    transport = parts.scheme.removeprefix("dlms+")
    client = 16 if options.client is None else options.client
    hdlc = "hdlc" in transport or serial
    if hdlc and client > 0x7F:
        raise RequestError(f"--client {client} does not fit an HDLC address; 1 to 127 do")
    if not hdlc and options.physical is not None:
        raise RequestError(f"--physical is an HDLC address; {parts.scheme}:// has none")
    return Target(
        name=url,
        host=parts.hostname,
        port=parts.port or DLMS_PORT,
        client=client,
        server=1 if options.server is None else options.server,
        auth=auth.value,
        suite=options.suite,
        protection=protection.value,
        dedicated=options.dedicated,
        client_title=client_title,
        server_title=server_title,
        keys=keys,
        reserve=lambda: file.reserve(client_title, key, BLOCK, at_least=options.first_counter or 1),
        peer_counter=file.peer_counter(server_title, key) if keyed else None,
        keep_peer_counter=lambda counter: file.raise_peer(server_title, key, counter),
        transport=transport,
        physical=options.physical or 0,
        line=serial_line(url, parts) if serial else "",
        referencing="sn" if options.referencing is Referencing.SN else "ln",
    )


def serial_line(url: str, parts: SplitResult) -> str:
    """The reactor's address of the serial line that a URL names.

    Raises:
        RequestError: it names none.
    """
    if parts.netloc or not parts.path.startswith("/") or parts.path == "/" or parts.fragment:
        raise RequestError(f"{url}: not of the form {parts.scheme}:///dev/ttyUSB0?baud=9600")
    return f"serial://{parts.path}" + (f"?{parts.query}" if parts.query else "")


def from_registry(name: str, config: Config) -> Target:
    """A meter of the registry, with the head-end's own title and the counters of its store.

    Raises:
        StoreInUse: the head-end runs, and has this meter's association.
        UnknownMeter: no meter has this name.
    """
    with places.open_store(config) as database:
        _check_alone(database, name)
        with database.writing(spend_reserve=True) as connection:
            keystore = Keystore.open(connection, config.keystore)
            meter = load_meter(connection, keystore, name)
        with database.reading() as connection:
            peer_counter = counters.peer_high_water(connection, [meter.meter_id]).get(meter.meter_id)
    return _of_registry(meter, config, peer_counter)


def _of_registry(meter: FleetMeter, config: Config, peer_counter: int | None) -> Target:
    listen = tuple(
        f"[{one.host}]:{one.port}" if ":" in one.host else f"{one.host}:{one.port}"
        for one in config.listeners
        if one.transport != "mbus"
    )
    if meter.host is None and not listen:
        raise ConfigError(f"{meter.name} dials in, and the configuration has no [[listeners]] where it could arrive")

    def reserve() -> tuple[int, int]:
        with places.open_store(config) as database, database.writing(spend_reserve=True) as connection:
            [block] = counters.reserve(connection, [meter.meter_id], BLOCK)
            return block.next, block.end

    def keep(counter: int) -> None:
        with places.open_store(config) as database, database.writing(spend_reserve=True) as connection:
            counters.raise_peer(connection, [(meter.meter_id, counter)])

    return Target(
        name=meter.name,
        host=meter.host,
        port=meter.port or 0,
        client=meter.protocol.client,
        server=meter.server,
        auth=meter.protocol.auth,
        suite=meter.protocol.suite,
        protection=meter.protocol.protection,
        dedicated=meter.protocol.dedicated,
        client_title=config.client_system_title,
        server_title=meter.system_title or b"",
        keys=meter.keys,
        reserve=reserve,
        peer_counter=peer_counter,
        keep_peer_counter=keep,
        listen=listen if meter.host is None else (),
        identities=tuple(identities(meter)) if meter.host is None else (),
        transport=meter.protocol.transport,
        physical=meter.protocol.physical,
        referencing=meter.protocol.referencing,
        gateway=meter.protocol.gateway,
    )


def _check_alone(database: Database, name: str) -> None:
    """Refuse while the head-end runs.

    It holds the meter's association and a block of counters below ours: after our frames the meter would take the
    head-end's for replays.
    """
    if database.owned_by_another():
        raise StoreInUse(
            f"{name}: the running head-end has this meter's association; see `ipss-headend readings query {name}` for "
            "what it read, or stop it first"
        )


def _check_built(options: Options) -> None:
    if options.auth is Auth.HLS2:
        raise RequestError("--auth hls2 is a manufacturer's own procedure, and this program has none of them")


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RequestError(f"{url}: {error}; write dlms+tcp://HOST:PORT") from None
    if parts.scheme in SERIAL_SCHEMES:
        return parts
    if parts.scheme not in NETWORK_SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in NETWORK_SCHEMES + SERIAL_SCHEMES)
        raise RequestError(f"{url}: {parts.scheme}:// is no transport of this program; {known} and modbus+tcp:// are")
    if not parts.hostname or port == 0 or parts.username or parts.path.strip("/") or parts.query or parts.fragment:
        raise RequestError(f"{url}: not of the form {parts.scheme}://HOST:PORT")
    return parts


def _keys(options: Options) -> tuple[MeterKeys, bytes, bytes]:
    """The keys, the meter's title and ours, as far as options and files give them."""
    entries: dict[str, str] = {}
    if options.keys is not None:
        loaded = key_file.load(options.keys)
        if options.server_title is not None and options.server_title.lower() in loaded.tables:
            entries = loaded.of(options.server_title.lower())
        else:
            chosen = loaded.only()
            if chosen is None:
                titles = ", ".join(loaded.tables)
                raise RequestError(f"{options.keys} has keys for {titles}; choose one with --server-title")
            entries = chosen
    title = options.server_title or entries.get("server_system_title", "")
    client_title = options.client_title or entries.get("client_system_title", "")
    keys = MeterKeys(
        encryption_key=bytes.fromhex(entries.get("encryption_key", "")) or None,
        authentication_key=bytes.fromhex(entries.get("authentication_key", "")) or None,
        private_key=bytes.fromhex(entries.get("private_key", "")) or None,
        peer_public_key=bytes.fromhex(entries.get("peer_public_key", "")) or None,
    )
    for name, key in (("encryption_key", keys.encryption_key), ("authentication_key", keys.authentication_key)):
        wanted = KEY_OCTETS[options.suite]
        if key is not None and len(key) != wanted:
            raise ConfigError(
                f"{options.keys}: {name} has {len(key)} octets; suite {options.suite} has keys of {wanted}"
            )
    return keys, _title(title, "--server-title"), _title(client_title, "--client-title")


def _title(text: str, option: str) -> bytes:
    if not text:
        return b""
    try:
        return system_title(text)
    except ValueError as error:
        raise RequestError(f"{option}: {error}") from None


def _password(path: Path) -> bytes:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; expected a file with the password") from error
    password = text.removesuffix(b"\n").removesuffix(b"\r")
    if not password or b"\n" in password:
        raise ConfigError(f"{path}: expected one line, the password")
    return password
