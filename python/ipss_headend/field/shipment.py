"""What manufacturers ship beside their meters: XML or CSV with keys wrapped under a transport key.

There is no one format: each manufacturer has a schema of its own, and all say the same of a device in elements or
attributes whose names differ little. So a device is an element of `DEVICES`, and what stands in it under a name of
`NAMES` is a column of the fleet file (`fleet_file.py`); spelling, case, name spaces and nesting do not matter, and what
has another name is passed over. `<Key Name="GUEK">` and `<EncryptedKey Id="GUEK"><CipherData><CipherValue>` name their
key by the attribute. Key values are hexadecimal digits or base64, wrapped by AES key wrap (RFC 3394).

Document types and entities are refused before anything is read from them.
"""

import base64
import binascii
import csv
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any
from xml.parsers import expat

from ipss_headend.errors import ConfigError
from ipss_headend.field import fleet_file
from ipss_headend.field.fleet_file import KEY_COLUMNS, MeterLine
from ipss_headend.security import key_wrap

DEVICES = frozenset({"device", "meter", "smartmeter", "equipment", "emeter"})

NAMES: dict[str, tuple[str, ...]] = {
    "name": ("serialnumber", "devicename", "deviceidentification", "deviceid", "meterid", "meternumber", "serial"),
    "address": ("ipaddress", "hostname", "host", "ip"),
    "logical_device_name": ("cosemlogicaldevicename", "ldn"),
    "system_title": ("dlmssystemtitle", "systitle"),
    "encryption_key": ("guek", "globalunicastencryptionkey", "globalencryptionkey", "unicastencryptionkey", "ek"),
    "authentication_key": ("gak", "globalauthenticationkey", "ak"),
    "master_key": ("kek", "mk", "keyencryptionkey"),
    "password": ("llspassword", "llssecret", "lls"),
    "model": ("devicetype", "metertype", "devicemodel"),
    "suite": ("securitysuite",),
}
"""Column to the names that manufacturers have for it; the column's own counts as well."""

_NAMED = ("name", "id", "keyname", "keytype", "type", "key")
"""Attributes by which an element says what it holds."""

_COLUMN = {
    re.sub(r"[^a-z0-9]", "", spelt.lower()): column
    for column in fleet_file.COLUMNS
    for spelt in (column, *NAMES.get(column, ()))
}
_AT_ONCE = 20_000
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+")

Row = tuple[int, dict[str, str]]
"""The line where a device begins, and its columns."""


def read(text: str, source: str, transport_key: bytes | None) -> Iterator[MeterLine | str]:
    """Each device as a meter, or as the message that refuses it. Keys are unwrapped where there is a transport key.

    Raises:
        ConfigError: it is neither CSV with a first line of names nor XML without a document type.
    """
    if transport_key is None and not is_xml(text):
        yield from fleet_file.read(text.splitlines(keepends=True), source)
        return
    rows = devices(text, source) if is_xml(text) else _csv_rows(text, source)
    first = next(rows, None)
    if first is None:
        raise ConfigError(f"{source}: no devices in it; expected elements such as {', '.join(sorted(DEVICES))}")
    for part in _parts(chain((first,), rows)):
        if transport_key is not None:
            _open_keys(part, transport_key)
        for line, cells in part:
            wrong = cells.pop(_WRONG, None)
            yield f"{source}: line {line}: {wrong}" if wrong else fleet_file.meter(line, cells, source)


def is_xml(text: str) -> bool:
    """Whether it is meant to be XML."""
    return text.lstrip("\ufeff \t\r\n").startswith("<")


def devices(text: str, source: str) -> Iterator[Row]:
    """The devices of an XML file.

    Raises:
        ConfigError: it is not XML, or has a document type.
    """
    found: list[Row] = []
    reader = _Reader(found)
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    reader.line = lambda: parser.CurrentLineNumber
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text

    def refuse(*_: Any) -> None:
        raise ConfigError(f"{source}: line {parser.CurrentLineNumber}: a document type; shipment files need none")

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        for start in range(0, len(text), 1 << 20):
            parser.Parse(text[start : start + (1 << 20)], False)
            yield from found
            found.clear()
        parser.Parse("", True)
    except expat.ExpatError as error:
        raise ConfigError(f"{source}: line {error.lineno}: not XML: {expat.ErrorString(error.code)}") from error
    yield from found


class _Reader:
    """Collects devices from expat's events."""

    def __init__(self, found: list[Row]) -> None:
        self._found = found
        self._open: list[str | None] = []
        """For each open element within a device: the column that it is about."""
        self._row: Row | None = None
        self._text: list[str] = []
        self.line: Callable[[], int] = lambda: 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        name = _plain(tag)
        self._text.clear()
        if self._row is None:
            if name in DEVICES:
                self._row = (self.line(), {"name": "", "address": ""})
                self._open = []
                self._take_attributes(attributes)
            return
        known = {_plain(key): value.strip() for key, value in attributes.items()}
        column = _COLUMN.get(name)
        if column is None:
            said = (_plain(known.get(key, "")) for key in _NAMED)
            column = next((_COLUMN[word] for word in said if word in _COLUMN), None)
        self._open.append(column)
        if column is not None and "value" in known:
            self._row[1][column] = known["value"]
        elif column is None:
            self._take_attributes(attributes)

    def text(self, part: str) -> None:
        if self._row is not None:
            self._text.append(part)

    def end(self, _tag: str) -> None:
        if self._row is None:
            return
        if self._open:
            said = "".join(self._text).strip()
            column = next((one for one in reversed(self._open) if one is not None), None)
            if said and column is not None and not self._row[1].get(column):
                self._row[1][column] = said
            self._open.pop()
        else:
            self._found.append(self._row)
            self._row = None
        self._text.clear()

    def _take_attributes(self, attributes: dict[str, str]) -> None:
        assert self._row is not None
        for key, value in attributes.items():
            column = _COLUMN.get(_plain(key))
            if column is not None and column != "name":
                self._row[1].setdefault(column, value.strip())
        if not self._open:
            own = next((value for key, value in attributes.items() if _COLUMN.get(_plain(key)) == "name"), "")
            self._row[1]["name"] = own.strip()


def _plain(name: str) -> str:
    """A name without its name space, case and punctuation."""
    return re.sub(r"[^a-z0-9]", "", re.split(r"[}:]", name)[-1].lower())


def _csv_rows(text: str, source: str) -> Iterator[Row]:
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        header = [_COLUMN.get(_plain(name), name.strip()) for name in next(reader, [])]
        fleet_file.check_header(header, source)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                named = dict(zip(header, map(str.strip, cells), strict=False))
                short = len(cells) != len(header)
                yield (
                    reader.line_num,
                    named | ({_WRONG: f"{len(cells)} columns; expected {len(header)}"} if short else {}),
                )
    except csv.Error as error:
        raise ConfigError(f"{source}: line {reader.line_num}: not CSV: {error}") from error


_WRONG = " "
"""In place of a column: why the row is refused."""


def _parts(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while part := list(islice(rows, _AT_ONCE)):
        yield part


def _open_keys(rows: Iterable[Row], transport_key: bytes) -> None:
    """Unwrap the keys of these rows in place, all at once."""
    wrapped: list[bytes] = []
    places: list[tuple[dict[str, str], str]] = []
    for _, cells in rows:
        for column in KEY_COLUMNS:
            if not cells.get(column) or _WRONG in cells:
                continue
            octets = _octets(cells[column])
            if octets is None or len(octets) not in {24, 40}:
                cells[_WRONG] = f"{column} is no key wrapped under a transport key; such have 24 or 40 octets"
                continue
            wrapped.append(octets)
            places.append((cells, column))
    for (cells, column), key in zip(places, key_wrap.unwrap_keys(transport_key, wrapped), strict=True):
        if key is None:
            cells[_WRONG] = f"{column} does not open under this transport key; it is another's, or was changed"
        else:
            cells[column] = key.hex()


def _octets(text: str) -> bytes | None:
    joined = "".join(text.split())
    if _HEX.fullmatch(joined):
        return bytes.fromhex(joined)
    try:
        return base64.b64decode(joined, validate=True)
    except (binascii.Error, ValueError):
        return None
