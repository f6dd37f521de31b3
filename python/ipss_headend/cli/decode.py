"""`ipss-headend decode`: explain octets. All of the explaining is in the native module."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from ipss_headend import pcap
from ipss_headend.cli import key_file
from ipss_headend.cli.app import JSON, app, command
from ipss_headend.cli.key_file import KeyFile
from ipss_headend.cli.output import Node, Output, printable
from ipss_headend.errors import BAD_INPUT, DONE, PROTOCOL, SECURITY, ConfigError, RequestError

LARGEST_FILE = 64 << 20
"""A capture longer than this is no frame to explain; it is to be cut up and given as --jsonl."""


class Layer(StrEnum):
    """What the first octet is."""

    AUTO = "auto"
    HDLC = "hdlc"
    WRAPPER = "wrapper"
    MBUS = "mbus"
    WMBUS = "wmbus"
    LLC = "llc"
    LLC_61334 = "llc-61334"
    APDU = "apdu"
    DATA = "data"
    MODBUS_TCP = "modbus-tcp"
    MODBUS_RTU = "modbus-rtu"
    MODBUS_ASCII = "modbus-ascii"
    SUNSPEC = "sunspec"


class Direction(StrEnum):
    """Who sent it, where the octets alone do not tell."""

    FROM_METER = "from-meter"
    TO_METER = "to-meter"


@command(app, "decode")
def decode(
    file: Annotated[
        str, typer.Argument(metavar="[FILE | -]", help="Hexadecimal text, binary or pcap; - is standard input.")
    ] = "-",
    *,
    layer: Annotated[Layer, typer.Option(help="What the first octet is.")] = Layer.AUTO,
    keys: Annotated[Path | None, typer.Option(help="TOML file with keys, a table per system title.")] = None,
    direction: Annotated[Direction | None, typer.Option(help="Who sent it, where the octets do not tell.")] = None,
    profile: Annotated[str | None, typer.Option(help="Name of a meter profile: its quirks and push layout.")] = None,
    base_address: Annotated[int | None, typer.Option(help="Address of the first register, for sunspec.")] = None,
    json_output: JSON = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One request a line in, one answer a line out.")] = False,
) -> int:
    r"""Explain the octets of a frame, an APDU or a value.

    FILE holds hexadecimal digits (white space and # comments are ignored) or the octets themselves, or it is a pcap or
    pcapng capture, whose payloads are explained. With --jsonl it
    holds a request a line, {"id": ..., "layer": ..., "hex": ..., "keys": {...}}, and each gets its answer, in order.

    \b
    Examples:
      echo '0001 0001 0010 0009 c4 01 c1 00 06 00 00 30 39' | ipss-headend decode
      ipss-headend decode push.hex --layer hdlc --keys keys.toml --json
      ipss-headend decode requests.jsonl --jsonl > answers.jsonl
    """
    known = key_file.load(keys) if keys is not None else None
    output = Output(json_output=json_output)
    if jsonl:
        defaults = {"layer": layer.value} if layer is not Layer.AUTO else {}
        with closing(_open(file)) as requests:
            _answer_all(requests, known, defaults)
        return DONE
    octets = _octets(file, layer)
    request: dict[str, Any] = {"id": Path(file).name if file != "-" else "standard input", "layer": layer.value}
    request["hex"] = octets
    if known is not None:
        request["keys"] = known.matching(_digits(octets))
    hints = {"direction": direction, "profile": profile, "base_address": base_address}
    request |= {name: value for name, value in hints.items() if value is not None}
    return _answer_one(request, output)


def explain(request: str) -> Iterator[str]:
    """The native module's answer to one request, in pieces."""
    from ipss_headend import _core

    return iter(_core.decode(request))


def _answer_one(request: dict[str, Any], output: Output) -> int:
    pieces = explain(json.dumps(request))
    if output.json_output:
        head = _copy(pieces, sys.stdout)
        answer = json.loads(head) if head is not None else {}
    else:
        answer = json.loads("".join(pieces))
        output.tree(tree(answer))
    return status_of(answer)


def status_of(answer: dict[str, Any]) -> int:
    """The exit status for one answer: what could be explained was, or who is at fault that it was not."""
    error = answer.get("error")
    if answer.get("outcome") != "error" or not isinstance(error, dict):
        return DONE
    if error.get("layer") in {"ciphering", "security"}:
        return SECURITY
    return BAD_INPUT if error.get("fault") == "local" else PROTOCOL


def _copy(pieces: Iterable[str], to: IO[str]) -> str | None:
    """Write the pieces as they come; keep them all for the exit status as long as they are few."""
    Output.anything_printed = True
    kept: list[str] | None = []
    size = 0
    for piece in pieces:
        to.write(piece)
        size += len(piece)
        if kept is not None:
            kept.append(piece)
            if size > 1 << 20:
                kept = None
    to.write("\n")
    to.flush()
    return None if kept is None else "".join(kept)


def _answer_all(requests: IO[bytes], known: KeyFile | None, defaults: dict[str, str]) -> None:
    """Answer each line; a bad one is answered too."""
    Output.anything_printed = True
    for line in requests:
        text = line.decode("utf-8", errors="replace").strip()
        if not text:
            continue
        begun = False
        try:
            for piece in explain(_completed(text, known, defaults)):
                sys.stdout.write(piece)
                begun = True
        except (ValueError, RequestError) as error:
            if not begun:
                sys.stdout.write(json.dumps(_bad_request(str(error))))
        sys.stdout.write("\n")
        sys.stdout.flush()


def _completed(text: str, known: KeyFile | None, defaults: dict[str, str]) -> str:
    """The request with the command line's keys and layer, where it names none itself."""
    if known is None and not defaults:
        return text
    try:
        request = json.loads(text)
    except ValueError:
        return text  # the native module says what is wrong with it
    if not isinstance(request, dict):
        return text
    if known is not None and "keys" not in request:
        request["keys"] = known.matching(_digits(request.get("hex")))
    return json.dumps({**defaults, **request})


def _digits(octets: object) -> str:
    """The digits of a request's `hex`: a text, or a list of texts and of objects that have one."""
    if isinstance(octets, dict):
        octets = octets.get("hex")
    if isinstance(octets, list):
        return "".join(_digits(part) if not isinstance(part, list) else "" for part in octets)
    return "".join(octets.split()) if isinstance(octets, str) else ""


def _bad_request(message: str) -> dict[str, Any]:
    error = {"fault": "local", "layer": "request", "offset": 0, "code": "bad-request", "message": message}
    return {"id": None, "outcome": "error", "frames": [], "apdus": [], "readings": [], "warnings": [], "error": error}


def _open(file: str) -> IO[bytes]:
    if file == "-":
        return sys.stdin.buffer
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error


def _transmissions(content: bytes, file: str) -> list[str | dict[str, str]]:
    """The payloads of a capture, as a request has them. Who asked first is the head-end, unless it was a push."""
    found = list(pcap.payloads(content))
    if not found:
        raise ConfigError(f"{file}: a capture without any payload of TCP, UDP or another known layer")
    head_end: object = None
    transmissions: list[str | dict[str, str]] = []
    for payload in found:
        if payload.source is None:
            transmissions.append(payload.octets.hex())
            continue
        if head_end is None:
            ports = (payload.source[1], payload.destination[1] if payload.destination else 0)
            # The end with the lower port was dialled; of a meter that dials in this is the head-end.
            head_end = payload.source if ports[0] > ports[1] else payload.destination
        sender = "head-end" if payload.source == head_end else "meter"
        transmissions.append({"from": sender, "hex": payload.octets.hex()})
    return transmissions


def _octets(file: str, layer: Layer) -> str | list[str | dict[str, str]]:
    """The file's octets as hexadecimal digits; of a capture, those of each payload."""
    with closing(_open(file)) as opened:
        content = opened.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise ConfigError(f"{file}: more than {LARGEST_FILE >> 20} MiB; cut it up and use --jsonl")
    if not content.strip():
        raise ConfigError(f"{file}: empty; expected hexadecimal digits or octets")
    if pcap.is_capture(content):
        return _transmissions(content, file)
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError:
        return content.hex()
    if not all(letter.isprintable() or letter.isspace() for letter in text):
        return content.hex()
    lines = [line.partition("#")[0] for line in text.splitlines()]
    digits = "".join("".join(lines).split())
    try:
        return bytes.fromhex(digits).hex()
    except ValueError:
        if layer is Layer.MODBUS_ASCII or text.startswith(":"):
            return content.hex()  # this layer is text itself
    for number, line in enumerate(lines, start=1):
        for column, letter in enumerate(line, start=1):
            if not letter.isspace() and letter not in "0123456789abcdefABCDEF":
                raise ConfigError(
                    f'{file}: line {number}, column {column}: "{letter}" is not hexadecimal; '
                    "write digits, white space and # comments, or give the octets themselves"
                )
    raise ConfigError(f"{file}: {len(digits)} hexadecimal digits; an octet has two, so one is missing")


def tree(answer: dict[str, Any]) -> Node:
    """The answer as people read it."""
    outcome = str(answer.get("outcome", "error"))
    root = Node(outcome, {"decoded": "bold green", "error": "bold red"}.get(outcome, "bold yellow"))
    for name in ("frames", "apdus"):
        for part in answer.get(name, ()):
            _part(root, name, part)
    if readings := answer.get("readings"):
        node = root.add("readings", "bold")
        for reading in readings:
            node.add(_reading(reading))
    for part in answer.get("attributes", ()):
        node = root.add(f"{part.get('class')} {part.get('logical_name')}", "bold")
        _hang(node, str(part.get("name")), part.get("value"))
    for warning in answer.get("warnings", ()):
        root.add(f"warning: {printable(str(warning))}", "yellow")
    if isinstance(error := answer.get("error"), dict):
        place = f"{error.get('layer')}, octet {error.get('offset')}"
        root.add(f"{error.get('fault')} fault, {place}: {error.get('code')}: {error.get('message')}", "red")
    return root


def _part(root: Node, name: str, part: dict[str, Any]) -> None:
    title = part.get("layer" if name == "frames" else "apdu", name)
    flat = {key: value for key, value in part.items() if key not in {"layer", "apdu"} and _is_flat(value)}
    words = "  ".join(f"{key.replace('_', ' ')} {_flat(value)}" for key, value in flat.items())
    node = root.add(f"{title}  {words}".rstrip(), "bold" if name == "apdus" else "")
    for key, value in part.items():
        if key not in {"layer", "apdu"} and not _is_flat(value):
            _hang(node, key.replace("_", " "), value)


def _hang(node: Node, label: str, value: Any) -> None:
    """Hang a value under a node; without recursion over lists of values, which a meter may nest."""
    waiting: list[tuple[Node, str, Any]] = [(node, label, value)]
    while waiting:
        under, name, content = waiting.pop(0)
        if _is_flat(content):
            under.add(f"{name} {_flat(content)}".strip())
        elif is_value(content):
            kind, inner = content
            if kind in {"structure", "array"}:
                branch = under.add(f"{name} {kind} of {len(inner)}".strip())
                waiting[:0] = [(branch, "", element) for element in inner]
            else:
                under.add(f"{name} {kind} {date_time(inner) if isinstance(inner, dict) else _flat(inner)}".strip())
        elif isinstance(content, dict):
            if {"year", "raw"} <= content.keys():
                under.add(f"{name} {date_time(content)}".strip())
                continue
            branch = under.add(f"{name} {content.get('apdu', '')}".strip(), "bold" if "apdu" in content else "")
            waiting[:0] = [(branch, key.replace("_", " "), inner) for key, inner in content.items() if key != "apdu"]
        else:
            branch = under.add(name)
            waiting[:0] = [(branch, f"[{index}]", inner) for index, inner in enumerate(content)]


def is_value(content: object) -> bool:
    """Whether this is a COSEM value, [type, value]."""
    return isinstance(content, list) and len(content) == 2 and isinstance(content[0], str) and content[0].islower()


def date_time(value: dict[str, Any]) -> str:
    """A COSEM date-time, date or time for people; question marks where it is unspecified."""

    def part(name: str, width: int) -> str:
        number = value.get(name)
        return "?" * width if number is None else f"{number:0{width}}"

    day = f"{part('year', 4)}-{part('month', 2)}-{part('day', 2)}" if "year" in value else ""
    clock = f"{part('hour', 2)}:{part('minute', 2)}:{part('second', 2)}" if "hour" in value else ""
    text = " ".join(filter(None, (day, clock)))
    deviation = value.get("deviation_min")
    if deviation is not None:
        sign = "-" if deviation > 0 else "+"
        text += f" UTC{sign}{abs(deviation) // 60:02}:{abs(deviation) % 60:02}"
    return text


def _reading(reading: dict[str, Any]) -> str:
    if "point" in reading:
        value = f"{_flat(reading.get('value'))} {reading.get('unit') or ''}".strip()
        status = reading.get("status")
        return f"{reading.get('model')}.{reading['point']}  {value}" + ("" if status == "good" else f"  ({status})")
    name = reading.get("logical_name", "")
    words = [f"{reading.get('class_id', '?')}/{name}:{reading.get('attribute', '?')}"]
    words.append(f"{_flat(reading.get('value'))} {reading.get('unit') or ''}".strip())
    if reading.get("capture_time"):
        words.append(f"captured {reading['capture_time']}")
    return "  ".join(words)


def _is_flat(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def _flat(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return printable(str(value))
