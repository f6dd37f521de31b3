"""The file that meters are imported from: CSV, a meter a line, each line right or refused in words.

| column | what it says | if left out |
|---|---|---|
| `name` | what people call the meter; once only | (needed) |
| `address` | `host:port`, `host`, `[IPv6]:port`, `dlms+udp://host:port`; empty: the meter dials in | port 4059 |
|  | Modbus: `modbus+tcp://host:port/unit`, `modbus+rtu:///dev/ttyUSB0/unit?baud=9600`, ... | 502, tls 802; unit 1 |
| `system_title` | 16 hexadecimal digits | (needed with keys) |
| `logical_device_name` | what a meter that dials in calls itself (0.0.42.0.0.255): text, or `0x` and digits | `name` |
| `encryption_key`, `authentication_key`, `master_key` | 32 hexadecimal digits each, 64 in suite 2 | none |
| `password` | the secret of `low`, `hls-md5`, `hls-sha1` or `hls-sha256`, as text | none |
| `private_key`, `peer_public_key` | ours and the meter's for signatures, in hexadecimal: the number; x, y | none |
| `client`, `server` | the addresses of the association | 1 with any `auth` but `none`, else 16; 1 |
| `auth` | `none`, `low`, `hls-md5`, `-sha1`, `-gmac`, `-sha256`, `-ecdsa` | by keys `hls-gmac`, by password `low` |
| `suite` | 0, 1, 2 | 0 |
| `protection` | `none`, `auth`, `enc`, `auth+enc` | `auth+enc` with keys, else `none` |
| `dedicated` | `yes`, `no`: a fresh key for each association | `no` |
| `invocation_counter` | the first counter that was not used before, for a key that another head-end has used | 1 |
| `transport` | `tcp` (the wrapper), `udp`, `hdlc+tcp` | `tcp`, or what stands in front of the address |
| `physical` | the physical device of an HDLC address, 1 to 16383; 0: none | 0 |
| `in_flight` | requests that a Modbus device takes before it has answered, 1 to 16; 0: as its map says | 0 |
| `gateway` | the network behind a gateway and the device in it, `0/meter-7` or `0/0x30313233` | none |
| `referencing` | `ln`, `sn`: by logical or short names | `ln` |
| `model`, `group` | free text | empty |
| `node`, `phases` | where it stands in the network, by a node's name; `A`, `BN`, `ABC`, ... | not known |

Meters of one address (a concentrator, a gateway, an HDLC line) differ in `server`, `physical` or `gateway`; they share
a connection.

No message repeats a key or a password.
"""

import csv
import difflib
import re
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from ipss_headend.config import DLMS_PORT, system_title
from ipss_headend.errors import ConfigError
from ipss_headend.field.modbus_address import (
    FRAMINGS,
    LARGEST_UNIT,
    NAMES_REQUESTS,
    SERIAL,
    line_and_unit,
    needs_unit,
    no_unit,
)
from ipss_headend.network import NOWHERE, Place, phases_of
from ipss_headend.security.keystore import MeterKeys
from ipss_headend.security.mechanisms import (
    BUILT,
    COORDINATE_OCTETS,
    KEY_OCTETS,
    WITH_SECRET,
    needs_keys,
    needs_titles,
)
from ipss_headend.security.sample_keys import why_no_key
from ipss_headend.store.counters import LIMIT

COLUMNS = (
    "name",
    "address",
    "system_title",
    "encryption_key",
    "authentication_key",
    "password",
    "client",
    "server",
    "auth",
    "suite",
    "protection",
    "dedicated",
    "model",
    "group",
    "master_key",
    "invocation_counter",
    "private_key",
    "peer_public_key",
    "logical_device_name",
    "transport",
    "physical",
    "in_flight",
    "gateway",
    "referencing",
    "node",
    "phases",
)
NEEDED = ("name", "address")
KEY_COLUMNS = ("encryption_key", "authentication_key", "master_key")

PROTECTIONS = ("none", "auth", "enc", "auth+enc")
TRANSPORTS = ("tcp", "udp", "hdlc+tcp")

MODBUS_TRANSPORTS = tuple(FRAMINGS)
MODBUS_PORT, MODBUS_TLS_PORT = 502, 802
MOST_IN_FLIGHT = 16

_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*")
_NUMERIC_HOST = re.compile(r"[\d.]+")
_LONGEST_NAME = 100
_LONGEST_DEVICE_NAME = 16
"""Octets (Blue Book, "COSEM logical device name")."""


class LineError(ValueError):
    """What is wrong with one line, in words."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a meter is spoken to. Everything in it may be shown."""

    client: int = 16
    auth: str = "none"
    suite: int = 0
    protection: str = "none"
    dedicated: bool = False
    transport: str = "tcp"
    physical: int = 0
    """The physical device of an HDLC address; 0: none."""
    line: str = ""
    """Settings of a serial line, `baud=9600&parity=even`."""
    in_flight: int = 0
    """Requests that a Modbus device takes before it has answered; 0: as its map says, or one."""
    gateway: str = ""
    """The network behind a gateway and the device in it, `0/meter-7` or `0/0x30313233`; empty: no gateway."""
    referencing: Literal["ln", "sn"] = "ln"
    """By logical or short names."""

    @property
    def is_modbus(self) -> bool:
        """A Modbus device: `server` is its unit, and its model the name of its register map, or `sunspec`."""
        return self.transport in MODBUS_TRANSPORTS

    def shown(self) -> dict[str, int | str | bool]:
        """As the registry keeps it."""
        return {slot: getattr(self, slot) for slot in self.__slots__}


@dataclass(frozen=True, slots=True)
class MeterLine:
    """One good line of the file. `keys` shows itself as a count."""

    line: int
    name: str
    host: str | None
    port: int | None
    server: int
    system_title: bytes | None
    logical_device_name: bytes | None
    model: str
    group: str
    protocol: Protocol
    keys: MeterKeys
    invocation_counter: int
    place: Place = NOWHERE

    @property
    def address(self) -> str:
        """As it is written in messages."""
        return written_address(self.host, self.port, self.server, self.protocol)


def written_address(host: str | None, port: int | None, server: int, protocol: Protocol) -> str:
    """An address as the file has it: a Modbus device's with transport and unit; empty for a meter that dials in."""
    if host is None:
        return ""
    if host.startswith("/"):
        return f"{protocol.transport}://{host}/{server}" + (f"?{protocol.line}" if protocol.line else "")
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"{protocol.transport}://{place}/{server}" if protocol.is_modbus else place


def read(lines: Iterable[str], source: str) -> Iterator[MeterLine | str]:
    """Each line of the file as a meter or as the message that refuses it, in order.

    Raises:
        ConfigError: the first line does not name the columns, so that no other can be understood.
    """
    for line, cells in rows(lines, source, COLUMNS, NEEDED):
        yield cells if isinstance(cells, str) else meter(line, cells, source)


def rows(
    lines: Iterable[str], source: str, columns: tuple[str, ...], needed: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, str] | str]]:
    """Each line of a CSV file with its number: its cells by column, or the message that refuses it.

    Raises:
        ConfigError: the first line does not name the columns.
    """
    reader = csv.reader(lines, strict=True)
    try:
        header = [name.removeprefix("\ufeff").strip() for name in next(reader, [])]
    except csv.Error as error:
        raise ConfigError(f"{source}: line 1: not CSV: {error}") from error
    check_header(header, source, columns, needed)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, f"{source}: line {reader.line_num}: not CSV: {error}"
            continue
        if not any(cell.strip() for cell in cells):
            continue
        try:
            yield reader.line_num, _named(header, cells)
        except LineError as error:
            yield reader.line_num, f"{source}: line {reader.line_num}: {error}"


def meter(line: int, cells: dict[str, str], source: str) -> MeterLine | str:
    """The meter of these columns, or the message that refuses it."""
    try:
        return _meter(line, cells)
    except LineError as error:
        return f"{source}: line {line}: {error}"


def check_header(
    header: list[str], source: str, columns: tuple[str, ...] = COLUMNS, needed: tuple[str, ...] = NEEDED
) -> None:
    """Whether a first line names columns.

    Raises:
        ConfigError: it does not; all that is wrong with it.
    """
    if not any(header):
        raise ConfigError(f"{source}: nothing is in it; its first line names columns, {', '.join(needed)} at least")
    mistakes = []
    if len(header) == 1 and (other := next((mark for mark in ";\t|" if mark in header[0]), "")):
        what = {";": "semicolons", "\t": "tabs", "|": "bars"}[other]
        raise ConfigError(f"{source}: line 1: {what} are between the columns; write commas")
    for name in header:
        if name not in columns:
            near = difflib.get_close_matches(name, columns, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(columns)}"
            # A file without a first line of names has a meter there, and that may be its key.
            shown = f'"{name}"' if re.fullmatch(r"[a-z_]{1,24}", name) else "a column that is no name"
            mistakes.append(f"{source}: line 1: {shown} is unknown; {hint}")
        elif header.count(name) > 1:
            mistakes.append(f"{source}: line 1: {name} stands there {header.count(name)} times; once is enough")
    mistakes += [f"{source}: line 1: {name} is missing; it is needed" for name in needed if name not in header]
    if mistakes:
        raise ConfigError(*dict.fromkeys(mistakes))


def _named(header: list[str], cells: list[str]) -> dict[str, str]:
    if len(cells) != len(header):
        raise LineError(f"{len(cells)} columns; the first line names {len(header)}")
    return dict(zip(header, map(str.strip, cells), strict=True))


def _meter(line: int, cells: dict[str, str]) -> MeterLine:
    name = _name(cells["name"])
    cells = _with_transport(cells)
    host, port = _address(cells["address"])
    title = _title(cells.get("system_title", ""))
    suite = _number("suite", cells, 0, 0, 2)
    keys = MeterKeys(
        encryption_key=_key("encryption_key", cells, suite),
        authentication_key=_key("authentication_key", cells, suite),
        password=cells["password"].encode() if cells.get("password") else None,
        master_key=_key("master_key", cells, suite),
        private_key=_curve("private_key", cells, suite, 1),
        peer_public_key=_curve("peer_public_key", cells, suite, 2),
    )
    _check_own_keys_differ(keys)
    protocol = _protocol(cells, keys, suite)
    if (protocol.transport in SERIAL) != (host or "").startswith("/"):
        raise LineError("address: a serial line is written modbus+rtu:///dev/ttyUSB0/UNIT?baud=9600")
    if title is None and needs_titles(protocol.auth, protocol.protection):
        raise LineError("system_title is empty; security needs it, as 16 hexadecimal digits")
    device_name = _device_name(cells.get("logical_device_name", ""))
    if host is None and device_name is None and len(name.encode()) > _LONGEST_DEVICE_NAME:
        raise LineError(
            "address and logical_device_name are empty; a meter that dials in is known by its logical device name, and "
            f"name is too long to be one ({_LONGEST_DEVICE_NAME} octets)"
        )
    return MeterLine(
        line=line,
        name=name,
        host=host,
        port=port,
        server=_number("server", cells, 1, 1, LARGEST_UNIT if protocol.is_modbus else 0xFFFF),
        system_title=title,
        logical_device_name=device_name,
        model=_words("model", cells),
        group=_words("group", cells),
        protocol=protocol,
        keys=keys,
        invocation_counter=_number("invocation_counter", cells, 1, 0, LIMIT - 1),
        place=place(cells),
    )


def place(cells: dict[str, str]) -> Place:
    """Where a meter stands, by the columns `node` and `phases`.

    Raises:
        LineError: they cannot be.
    """
    try:
        found = Place(_words("node", cells), phases_of(cells.get("phases", "")))
    except ValueError as error:
        raise LineError(str(error) if isinstance(error, LineError) else f"phases: {error}") from None
    if found.phases and not found.node:
        raise LineError("phases are given and no node; say the node, or leave both out")
    return found


def _name(text: str) -> str:
    if not text:
        raise LineError("name is empty; every meter has one")
    if len(text) > _LONGEST_NAME:
        raise LineError(f"name has {len(text)} characters; at most {_LONGEST_NAME}")
    if not text.isprintable() or "://" in text:
        raise LineError("name has characters that no name has; use letters, digits and - _ . /")
    return text


def _device_name(text: str) -> bytes | None:
    if not text:
        return None
    if text[:2].lower() == "0x":
        try:
            octets = bytes.fromhex(text[2:])
        except ValueError:
            raise LineError(f'logical_device_name: "{text[:40]}" is not 0x and pairs of hexadecimal digits') from None
    else:
        octets = text.encode()
    if not 1 <= len(octets) <= _LONGEST_DEVICE_NAME:
        raise LineError(f"logical_device_name has {len(octets)} octets; it has 1 to {_LONGEST_DEVICE_NAME}")
    return octets


def shown_device_name(octets: bytes | None) -> str:
    """A logical device name as the file has it: text where it can be read, else `0x` and digits; empty for none."""
    if octets is None:
        return ""
    text = octets.decode("utf-8", "replace")
    plain = text.isprintable() and "\ufffd" not in text and text == text.strip() and text[:2].lower() != "0x"
    return text if plain else f"0x{octets.hex().upper()}"


def _with_transport(cells: dict[str, str]) -> dict[str, str]:
    """The cells with the transport where it belongs, if it stands in front of the address."""
    scheme, found, address = cells["address"].partition("://")
    if not found:
        return cells
    if scheme in MODBUS_TRANSPORTS:
        return _with_unit(cells, scheme, address)
    transport = scheme.removeprefix("dlms+")
    if not scheme.startswith("dlms+") or transport not in TRANSPORTS:
        known = ", ".join([f"dlms+{one}://" for one in TRANSPORTS] + [f"{one}://" for one in MODBUS_TRANSPORTS])
        raise LineError(f'address: "{scheme}://" is none of {known}')
    if cells.get("transport") not in {None, "", transport}:
        raise LineError(f"address: {scheme}:// and transport {cells['transport']} contradict each other")
    return {**cells, "address": address.removesuffix("/"), "transport": transport}


def _with_unit(cells: dict[str, str], transport: str, address: str) -> dict[str, str]:
    """The cells of a Modbus device at `modbus+tcp://HOST:PORT/UNIT` or `modbus+rtu:///dev/ttyUSB0/UNIT?baud=9600`."""
    if cells.get("transport") not in {None, "", transport}:
        raise LineError(f"address: {transport}:// and transport {cells['transport']} contradict each other")
    is_line = transport in SERIAL
    place, _, unit = address.partition("/")
    line, given = "", cells.get("server", "")
    if is_line:
        path, _, line = address.partition("?")
        _check_line(line)
        try:
            place, unit = line_and_unit(transport, path)
        except ValueError as error:
            raise LineError(f"address: {error}") from None
        if not unit and not given and needs_unit(place):
            raise LineError(f"address: {no_unit(transport, place)}")
    if unit and given not in {"", unit}:
        raise LineError(f"address: unit {unit} and server {given} contradict each other")
    if not place:
        raise LineError(f"address: not of the form {transport}://HOST:PORT/UNIT")
    if not (is_line or _HAS_PORT.search(place)):
        place = f"{place}:{MODBUS_TLS_PORT if transport == 'modbus+tls' else MODBUS_PORT}"
    return {**cells, "address": place, "transport": transport, "line": line, "server": unit or given or "1"}


def _check_line(line: str) -> None:
    for pair in filter(None, line.split("&")):
        name, _, value = pair.partition("=")
        known = LINE_SETTINGS.get(name)
        if known is None:
            raise LineError(f'address: "{name[:24]}" is none of {", ".join(LINE_SETTINGS)}')
        fits = value in known if isinstance(known, tuple) else value.isdecimal() and int(value) in known
        if not fits:
            shown = ", ".join(known) if isinstance(known, tuple) else f"{known[0]} to {known[-1]}"
            raise LineError(f'address: {name}: "{value[:24]}" is not one of {shown}')


LINE_SETTINGS: dict[str, range | tuple[str, ...]] = {
    "baud": range(50, 4_000_001),
    "data_bits": range(5, 9),
    "parity": ("none", "even", "odd"),
    "stop_bits": range(1, 3),
}
"""What may stand behind the `?` of a serial line."""


_HAS_PORT = re.compile(r"(^[^:]*|\]):[^:]+$")


def _address(text: str) -> tuple[str | None, int | None]:
    if not text:
        return None, None
    if text.startswith("/"):
        return text, 0
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise LineError(f'address: "{text}" is not an address; write [2001:db8::1]:{DLMS_PORT}')
        port_text = rest[1:] if rest else str(DLMS_PORT)
    elif text.count(":") > 1:
        host, port_text = text, str(DLMS_PORT)
    else:
        host, colon, port_text = text.partition(":")
        port_text = port_text if colon else str(DLMS_PORT)
    if not (port_text.isascii() and port_text.isdecimal() and 1 <= int(port_text) <= 0xFFFF):
        raise LineError(f'address: "{port_text}" is not a port; use {DLMS_PORT} for DLMS or leave it out')
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        host = socket.inet_ntop(family, socket.inet_pton(family, host))
    except (OSError, ValueError):
        if not _HOST_NAME.fullmatch(host) or _NUMERIC_HOST.fullmatch(host):
            raise LineError(f'address: "{host}" is neither an IP address nor a host name') from None
    return host, int(port_text)


def _title(text: str) -> bytes | None:
    if not text:
        return None
    try:
        title = system_title(text)
    except ValueError as error:
        raise LineError(f"system_title: {error}") from None
    if not any(title):
        raise LineError("system_title is all zero; take the one that is printed on the meter or in its delivery file")
    return title


def _octets(column: str, cells: dict[str, str], digits: int) -> bytes | None:
    text = cells.get(column, "")
    if not text:
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        odd = f"{len(text)} characters that are not all" if len(text) % 2 == 0 else f"an odd number, {len(text)}, of"
        raise LineError(f"{column} is {odd} hexadecimal digits; expected {digits}") from None


def _key(column: str, cells: dict[str, str], suite: int) -> bytes | None:
    digits = 2 * KEY_OCTETS[suite]
    key = _octets(column, cells, digits)
    if key is None:
        return None
    if 2 * len(key) != digits:
        raise LineError(f"{column} has {2 * len(key)} hexadecimal digits; suite {suite} has keys of {digits}")
    wrong = why_no_key(key)
    if wrong is not None:
        raise LineError(f"{column} {wrong}; give the meter a random key of its own")
    return key


def _curve(column: str, cells: dict[str, str], suite: int, numbers: int) -> bytes | None:
    """A key of the suite's curve: one number, or the two of a point."""
    if suite == 0 and cells.get(column):
        raise LineError(f"{column} is given, but suite 0 has no signatures; set suite to 1 or 2")
    digits = 2 * numbers * COORDINATE_OCTETS[suite]
    key = _octets(column, cells, digits)
    if key is not None and 2 * len(key) != digits:
        raise LineError(f"{column} has {2 * len(key)} hexadecimal digits; suite {suite} has {digits}")
    return key


def _check_own_keys_differ(keys: MeterKeys) -> None:
    given = [key for key in (keys.encryption_key, keys.authentication_key, keys.master_key) if key is not None]
    if len(set(given)) != len(given):
        raise LineError("two of the meter's keys are the same; each has its own use and its own value")


def _protocol(cells: dict[str, str], keys: MeterKeys, suite: int) -> Protocol:
    has_keys = keys.encryption_key is not None and keys.authentication_key is not None
    fallback = "hls-gmac" if has_keys else "low" if keys.password else "none"
    auth = _choice("auth", cells, fallback, BUILT)
    protection = _choice("protection", cells, "auth+enc" if has_keys else "none", PROTECTIONS)
    if needs_keys(auth, protection) and not has_keys:
        missing = "encryption_key" if keys.encryption_key is None else "authentication_key"
        raise LineError(f"{missing} is empty; {auth} with protection {protection} needs both keys")
    if auth in WITH_SECRET and keys.password is None:
        raise LineError(f"password is empty; {auth} needs one")
    if auth == "hls-ecdsa":
        if suite == 0:
            raise LineError("auth is hls-ecdsa, but suite 0 has no signatures; set suite to 1 or 2")
        if keys.private_key is None or keys.peer_public_key is None:
            missing = "private_key" if keys.private_key is None else "peer_public_key"
            raise LineError(f"{missing} is empty; hls-ecdsa needs our private key and the meter's public key")
    dedicated = _choice("dedicated", cells, "no", ("yes", "no", "true", "false", "1", "0")) in {"yes", "true", "1"}
    if dedicated and protection == "none":
        raise LineError("dedicated is yes and protection none; a dedicated key protects something or is left out")
    client = _number("client", cells, 16 if auth == "none" else 1, 1, 0xFFFF)
    transport = _choice("transport", cells, "tcp", TRANSPORTS + MODBUS_TRANSPORTS)
    if transport in MODBUS_TRANSPORTS and (has_keys or keys != MeterKeys() or auth != "none"):
        raise LineError(f"{transport} has no keys, passwords or associations; leave their columns empty")
    physical = _number("physical", cells, 0, 0, 0x3FFF)
    if physical and "hdlc" not in transport:
        raise LineError(f"physical: {transport} has no physical addresses; HDLC has")
    if "hdlc" in transport and client > 0x7F:
        raise LineError(f"client: {client} does not fit an HDLC address; 1 to 127 do")
    in_flight = _number("in_flight", cells, 0, 0, MOST_IN_FLIGHT)
    if in_flight > 1 and transport not in NAMES_REQUESTS:
        raise LineError(f"in_flight: answers over {transport} do not name their requests; leave it out")
    line = cells.get("line", "")
    gateway = cells.get("gateway", "")
    try:
        gateway_address(gateway)
    except ValueError as error:
        raise LineError(f"gateway: {error}") from None
    short = _choice("referencing", cells, "ln", ("ln", "sn")) == "sn"
    if transport in MODBUS_TRANSPORTS and (gateway or short):
        raise LineError(f"{transport} has no gateway and no names; leave their columns empty")
    return Protocol(
        client,
        auth,
        suite,
        protection,
        dedicated,
        transport,
        physical,
        line,
        in_flight,
        gateway,
        "sn" if short else "ln",
    )


def gateway_address(text: str) -> tuple[int, bytes] | None:
    """The network and the device that `NETWORK/DEVICE` names; None for an empty text.

    Raises:
        ValueError: with words for the operator.
    """
    if not text:
        return None
    network, _, device = text.partition("/")
    wrong = f'"{text[:40]}" is not of the form NETWORK/DEVICE, as 0/meter-7 or 0/0x30313233'
    if not (network.isascii() and network.isdecimal() and int(network) <= 0xFF and device):
        raise ValueError(wrong)
    if device[:2].lower() != "0x":
        octets = device.encode()
    else:
        try:
            octets = bytes.fromhex(device[2:])
        except ValueError:
            raise ValueError(wrong) from None
    if not 1 <= len(octets) <= 0xFF:
        raise ValueError(f"the device has {len(octets)} octets; it has 1 to 255")
    return int(network), octets


def _number(column: str, cells: dict[str, str], default: int, least: int, most: int) -> int:
    text = cells.get(column, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 12 and least <= int(text) <= most):
        raise LineError(f'{column}: "{text[:24]}" is not a number from {least} to {most}')
    return int(text)


def _choice(column: str, cells: dict[str, str], default: str, choices: tuple[str, ...]) -> str:
    text = cells.get(column, "").lower() or default
    if text not in choices:
        raise LineError(f'{column}: "{text[:24]}" is none of {", ".join(choices)}')
    return text


def _words(column: str, cells: dict[str, str]) -> str:
    text = cells.get(column, "")
    if not text.isprintable() or len(text) > _LONGEST_NAME:
        raise LineError(f"{column} is longer than {_LONGEST_NAME} characters or cannot be printed")
    return text
