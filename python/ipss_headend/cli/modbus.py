"""`ipss-headend read modbus+...://`: ask one Modbus unit now.

Registers are named by their table and number, as manuals number them: `holding/40001`, `input/30001` and `coil/1` are
the first of their table, whose address on the wire is 0. `holding/@0` names the address itself.
"""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qs, urlsplit

import trio
import typer

from ipss_headend.cli import places
from ipss_headend.cli.app import error_document
from ipss_headend.cli.conversation import METER, Conversation, Reply, converse_with, numeric
from ipss_headend.cli.decode import explain
from ipss_headend.cli.output import Output, say
from ipss_headend.cli.targets import serial_line
from ipss_headend.cli.trace import as_tree, joined
from ipss_headend.config import Config, ModbusConfig
from ipss_headend.errors import DONE, REFUSED, MeterError, MeterRefused, RequestError
from ipss_headend.field.devices import MapSource, load_maps
from ipss_headend.field.modbus import FRAMINGS, server_name, tls_proof
from ipss_headend.field.results import overall

if TYPE_CHECKING:
    from ipss_headend._core import Meter, ModbusItem

PORT = 502
TLS_PORT = 802

TABLES = {"holding": 4, "input": 3, "discrete": 1, "coil": 0}
"""The digit in front of the numbers of each table in manuals."""

SUNSPEC_BASES = (40_000, 50_000, 0)
"""Addresses at which a SunSpec device begins (SunSpec Device Information Model Specification, clause 6.1)."""

_REGISTERS = re.compile(r"(holding|input|coil|discrete)/(@?)(\d{1,6})(?::(\d{1,5}))?")
_IDENTIFICATION = ("vendor_name", "product_code", "revision", "vendor_url", "product_name", "model_name", "application")


@dataclass(frozen=True, slots=True)
class Registers:
    """Registers or coils that were asked for."""

    text: str
    table: str
    address: int
    """On the wire, from 0."""
    count: int

    @classmethod
    def parse(cls, text: str) -> "Registers":
        """Read `holding/40001:2` and its like.

        Raises:
            RequestError: with words for the operator.
        """
        match = _REGISTERS.fullmatch(text.strip())
        if match is None:
            raise RequestError(
                f"{text}: not of the form holding/40001:2, input/1:10, coil/1, discrete/1, identification or "
                "sunspec, and a map's point only with --map NAME"
            )
        table, direct, digits, count_text = match.groups()
        number, count = int(digits), int(count_text or 1)
        address = number if direct else _address(table, digits, number)
        if not (0 <= address <= 0xFFFF and count >= 1 and address + count <= 0x10000):
            raise RequestError(f"{text}: a table has 65536 places; addresses 0 to 65535, numbers from 1")
        return cls(text, table, address, count)

    @property
    def is_bits(self) -> bool:
        """Whether it is of coils or inputs."""
        return self.table in {"coil", "discrete"}

    @property
    def point(self) -> tuple[str, int, int, str]:
        """The same for a plan."""
        return ("coils" if self.table == "coil" else self.table, self.address, self.count, "raw")


def _address(table: str, digits: str, number: int) -> int:
    prefix = TABLES[table]
    if len(digits) in {5, 6} and prefix and digits[0] == str(prefix):
        within = int(digits[1:])
        if within >= 1:
            return within - 1
    return number - 1


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


@dataclass(frozen=True, slots=True)
class Proof:
    """The files with which both ends of TLS prove who they are."""

    authorities: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None


@dataclass
class Result:
    """What came of one object."""

    text: str
    document: dict[str, Any] = field(default_factory=dict)
    shown: str = ""
    status: int = DONE

    def fail(self, error: dict[str, Any], status: int) -> None:
        """It has no value."""
        self.document = {"object": self.text, "ok": False, "error": error}
        self.shown, self.status = str(error.get("message", "")), status


def is_modbus(url: str) -> bool:
    """Whether `read` was given a Modbus URL."""
    return url.startswith("modbus+")


def target_of(url: str, proof: Proof) -> ModbusTarget:
    """The unit that a URL names.

    Raises:
        RequestError: it names none.
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
    if framing == "rtu":
        return _serial(url, parts)
    unit = parts.path.strip("/") or "1"
    if not parts.hostname or port == 0 or parts.username or parts.query or parts.fragment or "/" in unit:
        raise RequestError(f"{url}: not of the form {parts.scheme}://HOST:PORT/UNIT")
    if tls and proof.authorities is None:
        raise RequestError("modbus+tls:// needs to know whom to trust; name the authority's certificate with --ca")
    return ModbusTarget(
        name=url,
        framing=framing,
        unit=_unit(url, unit),
        host=parts.hostname,
        port=port or (TLS_PORT if tls else PORT),
        authorities=proof.authorities,
        certificate=proof.certificate,
        private_key=proof.private_key,
    )


def _serial(url: str, parts: SplitResult) -> ModbusTarget:
    path, _, unit = parts.path.rpartition("/")
    if not unit.isdecimal():
        path, unit = parts.path, "1"
    line = serial_line(url, parts._replace(path=path))
    baud = parse_qs(parts.query).get("baud", ["9600"])[-1]
    if not (baud.isascii() and baud.isdecimal() and int(baud) > 0):
        raise RequestError(f"{url}: baud={baud} is not a speed")
    return ModbusTarget(name=url, framing="rtu", unit=_unit(url, unit), line=line, baud=int(baud))


def _unit(url: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= 0xFF):
        raise RequestError(f"{url}: unit {text} is none; units are 0 to 255")
    return int(text)


def read(
    url: str,
    objects: Sequence[str],
    *,
    proof: Proof,
    map_name: str | None,
    set_value: str | None,
    yes: bool,
    timeout_s: float,
    trace: bool,
    config: Path,
    json_output: bool,
) -> int:
    """Ask, print, and say how it went."""
    target = target_of(url, proof)
    loaded = places.load_config(config) if config.exists() else None
    points = None if map_name is None else _points(map_name, objects, loaded)
    wanted = [
        None if name in {"sunspec", "identification"} or (points and name in points.names) else Registers.parse(name)
        for name in objects
    ]
    pdu = None
    if set_value is not None:
        pdu = _write(wanted, set_value)
        if not yes:
            typer.confirm(f"{target.name}: {objects[0]}: write {set_value}. Do it?", abort=True, err=True)
    rules = ModbusConfig() if loaded is None else loaded.modbus
    results = [Result(name) for name in objects]
    started = time.monotonic()
    conversation: list[Conversation] = []
    trio.run(_operate, target, rules, wanted, points, results, pdu, timeout_s, trace, conversation)
    duration_s = time.monotonic() - started
    traced = [] if not conversation else _trace(target, conversation[0].traced)
    output = Output(json_output=json_output)
    if json_output:
        document = {
            "device": target.name,
            "items": [one.document for one in results],
            "rows": [],
            "exchanges": conversation[0].exchanges if conversation else 0,
            "duration_s": round(duration_s, 6),
        }
        output.document(document | ({"trace": traced} if trace else {}))
    else:
        for part in traced:
            output.tree(as_tree(part))
        output.table(("object", "value"), [(one.text, one.shown) for one in results])
    return overall([one.status for one in results])


def _write(wanted: Sequence[Registers | None], text: str) -> bytes:
    """The PDU that writes these registers (function 16)."""
    if len(wanted) != 1 or wanted[0] is None or wanted[0].table != "holding":
        raise RequestError("--set writes holding registers: give one object, such as holding/40001:2")
    try:
        values = [int(part, 0) for part in text.replace(",", " ").split()]
        octets = b"".join(value.to_bytes(2, "big") for value in values)
    except (ValueError, OverflowError):
        raise RequestError(f"--set {text}: expected numbers from 0 to 65535, one a register") from None
    if len(values) != wanted[0].count:
        raise RequestError(f"--set {text}: {len(values)} numbers for {wanted[0].count} registers")
    head = b"\x10" + wanted[0].address.to_bytes(2, "big") + len(values).to_bytes(2, "big")
    return head + bytes((len(octets) & 0xFF,)) + octets


async def _operate(
    target: ModbusTarget,
    rules: ModbusConfig,
    wanted: Sequence[Registers | None],
    points: "Points | None",
    results: list[Result],
    pdu: bytes | None,
    timeout_s: float,
    trace: bool,
    opened: list[Conversation],
) -> None:
    try:
        meter = await meter_of(target, rules, timeout_s, trace=trace)
        async with converse_with(target.name, meter, timeout_s=timeout_s) as conversation:
            opened.append(conversation)
            if pdu is None:
                await _read(conversation, wanted, points, results)
            else:
                # The operator asked for these registers and no others, by hand; the gate lets nothing else through.
                first, count = int.from_bytes(pdu[1:3]), int.from_bytes(pdu[3:5])
                conversation.reactor.open_registers(METER, [(first, first + count - 1, 0)])
                reply = await conversation.ask([conversation.core.ModbusItem.ask(pdu)])
                if 0 in reply.refusals:
                    results[0].fail(_refusal(conversation, reply.refusals[0]), REFUSED)
                else:
                    results[0].document = {"object": results[0].text, "ok": True, "done": True}
                    results[0].shown = "done"
    except MeterError as error:
        say(f"ipss-headend: {error}")
        for one in results:
            if not one.document:
                one.fail(error_document(error), error.exit_status)


class Points:
    """Points of a register map that were asked for by their names."""

    def __init__(self, source: MapSource, names: Sequence[str]) -> None:
        self._source = source
        self.names = frozenset(names)

    async def read(self, conversation: Conversation, results: Sequence[Result]) -> None:
        """Ask for the points and for what their values need, and describe them."""
        source = self._source
        asked = source.points(sorted(self.names))
        reply = await conversation.ask(
            [conversation.core.ModbusItem.read(0, [(*place, "raw")]) for place in source.registers(asked)]
        )
        said = {name: reply.cell(item) for item, name in enumerate(asked)}
        for result in results:
            if result.text not in self.names:
                continue
            octets = said[result.text]
            if octets is None:
                item = asked.index(result.text)
                result.fail(_refusal(conversation, reply.refusals.get(item, 0)), REFUSED)
                continue
            value, unit = source.value(result.text, said), source.unit(result.text)
            result.document = {
                "object": result.text,
                "ok": True,
                "value": value,
                "unit": unit or None,
                "raw": octets.hex(),
            }
            result.shown = "not there" if value is None else f"{value} {unit}".strip()


def _points(name: str, objects: Sequence[str], config: Config | None) -> Points:
    """The objects that are points of this map.

    Raises:
        RequestError: there is no such map, or an object is neither a point of it nor anything else.
    """
    from ipss_headend import _core

    own = [] if config is None else load_maps(config.data_directory / "maps")
    try:
        source = MapSource(_core, name, own)
        named = [one for one in objects if one not in {"sunspec", "identification"} and "/" not in one]
        source.points(named)
    except ValueError as error:
        raise RequestError(f"--map {name}: {error}; `ipss-headend modbus maps` lists the maps") from error
    return Points(source, named)


async def meter_of(
    target: ModbusTarget,
    rules: ModbusConfig,
    timeout_s: float,
    *,
    answer_s: float = 3.0,
    retries: int | None = None,
    trace: bool = False,
) -> "Meter":
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
        )
        return _core.Meter.modbus(
            1, address, profile, target.unit, hold_open=False, idle_s=timeout_s, tls=tls, trace=trace
        )
    except ValueError as error:
        raise RequestError(f"{target.name}: {error}") from error


async def _read(
    conversation: Conversation,
    wanted: Sequence[Registers | None],
    points: "Points | None",
    results: Sequence[Result],
) -> None:
    core = conversation.core
    asked = [(one, result) for one, result in zip(wanted, results, strict=True) if one is not None]
    if asked:
        reply = await conversation.ask([core.ModbusItem.read(0, [one.point]) for one, _ in asked])
        for item, (one, result) in enumerate(asked):
            _describe(conversation, reply, item, one, result)
    if points is not None and points.names:
        await points.read(conversation, results)
    for place, result in enumerate(results):
        if wanted[place] is None and not (points and result.text in points.names):
            try:
                await (_sunspec if result.text == "sunspec" else _identification)(conversation, result)
            except MeterRefused as error:
                result.fail(error_document(error), error.exit_status)


def _describe(conversation: Conversation, reply: Reply, item: int, one: Registers, result: Result) -> None:
    octets = reply.cell(item)
    if octets is None:
        result.fail(_refusal(conversation, reply.refusals.get(item, 0)), REFUSED)
        return
    values = list(octets) if one.is_bits else _words(octets)
    result.document = {
        "object": one.text,
        "ok": True,
        "value": values,
        "raw": octets.hex(),
        "table": one.table,
        "address": one.address,
    }
    result.shown = " ".join(map(str, values))


def _words(octets: bytes) -> list[int]:
    return [int.from_bytes(octets[at : at + 2], "big") for at in range(0, len(octets), 2)]


def _refusal(conversation: Conversation, code: int) -> dict[str, Any]:
    name = conversation.core.modbus_exception(code) or f"exception {code}"
    return {"fault": "remote", "code": name, "number": code, "message": f"the device refused: {name} ({code})"}


async def _registers(conversation: Conversation, address: int, count: int) -> bytes:
    """Holding registers; empty if the device refuses them."""
    reply = await conversation.ask([conversation.core.ModbusItem.read(0, [("holding", address, count, "raw")])])
    return reply.cell(0) or b""


async def _sunspec(conversation: Conversation, result: Result) -> None:
    """The whole chain of models, decoded."""
    for base in SUNSPEC_BASES:
        image = await _registers(conversation, base, 2)
        if image == b"SunS":
            break
    else:
        raise MeterRefused(f"{conversation.name}: no SunSpec device: no SunS at {', '.join(map(str, SUNSPEC_BASES))}")
    while base + len(image) // 2 + 2 <= 0x10000:
        header = await _registers(conversation, base + len(image) // 2, 2)
        image += header
        if len(header) < 4 or header[:2] == b"\xff\xff":
            break
        length = int.from_bytes(header[2:], "big")
        block = await _registers(conversation, base + len(image) // 2, length) if length else b""
        image += block
        if len(block) != 2 * length:
            break
    request = {"layer": "sunspec", "base_address": base, "hex": image.hex()}
    answer = json.loads("".join(explain(json.dumps(request))))
    readings = answer.get("readings", [])
    result.document = {
        "object": result.text,
        "ok": answer.get("outcome") == "decoded",
        "value": readings,
        "raw": image.hex(),
        "base_address": base,
    }
    result.shown = "\n".join(
        " ".join(str(reading[key]) for key in ("point", "name", "value", "unit") if reading.get(key) is not None)
        for reading in readings
    )


async def _identification(conversation: Conversation, result: Result) -> None:
    """Device identification (function 43, MEI type 14): the regular objects, or the basic ones."""
    found: dict[str, str] = {}
    item: ModbusItem
    for code in (2, 1):
        next_object = 0
        while True:
            item = conversation.core.ModbusItem.ask(bytes((0x2B, 0x0E, code, next_object)))
            reply = await conversation.ask([item])
            octets = reply.cell(0)
            if octets is None or len(octets) < 6:
                break
            found |= _objects(octets[6:])
            # More follows, and from where.
            if octets[3] == 0 or octets[4] <= next_object:
                break
            next_object = octets[4]
        if found:
            break
    if not found:
        result.fail(_refusal(conversation, reply.refusals.get(0, 1)), REFUSED)
        return
    result.document = {"object": result.text, "ok": True, "value": found}
    result.shown = ", ".join(f"{name}: {text}" for name, text in found.items())


def _objects(octets: bytes) -> dict[str, str]:
    found = {}
    while len(octets) >= 2 and len(octets) >= 2 + octets[1]:
        number, length = octets[0], octets[1]
        name = _IDENTIFICATION[number] if number < len(_IDENTIFICATION) else str(number)
        found[name] = octets[2 : 2 + length].decode("utf-8", "replace")
        octets = octets[2 + length :]
    return found


def _trace(target: ModbusTarget, events: Sequence[tuple[int, str]]) -> list[dict[str, Any]]:
    layer = "modbus-tcp" if target.framing in {"tcp", "udp"} else "modbus-rtu"
    found = []
    for one in joined(events):
        request = {
            "layer": layer,
            "direction": "to-meter" if one.sent else "from-meter",
            "hex": [{"from": one.sender, "hex": one.octets}],
        }
        answer = json.loads("".join(explain(json.dumps(request))))
        answer.pop("id", None)
        found.append({"from": one.sender, "hex": one.octets, **answer})
    return found
