"""`ipss-headend read modbus+...://`, or of a Modbus device of the registry: ask one Modbus unit now."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
import typer

from ipss_headend.cli import modbus_write, places
from ipss_headend.cli.app import error_document
from ipss_headend.cli.conversation import METER, Conversation, Reply, converse_with
from ipss_headend.cli.decode import explain
from ipss_headend.cli.modbus_objects import Asked, Registers, Result, asked_of, read_sunspec, refusal
from ipss_headend.cli.modbus_target import ModbusTarget, Proof, Registered, meter_of, target_of
from ipss_headend.cli.output import Output, say
from ipss_headend.cli.trace import as_tree, joined
from ipss_headend.config import Config, ModbusConfig
from ipss_headend.errors import REFUSED, MeterError, MeterRefused, NotAuthorised, RequestError
from ipss_headend.field.devices import SUNSPEC
from ipss_headend.field.results import overall

if TYPE_CHECKING:
    from ipss_headend._core import ModbusItem

LAYERS = {
    "tcp": "modbus-tcp",
    "udp": "modbus-tcp",
    "rtu": "modbus-rtu",
    "rtu-over-tcp": "modbus-rtu",
    "ascii": "modbus-ascii",
}
"""What `decode` calls each framing."""

_IDENTIFICATION = ("vendor_name", "product_code", "revision", "vendor_url", "product_name", "model_name", "application")


@dataclass(frozen=True, slots=True)
class Options:
    """What `read` was told beside the device and the objects."""

    proof: Proof
    map_name: str | None
    set_value: str | None
    by_hand: bool
    yes: bool
    timeout_s: float
    trace: bool
    json_output: bool


def read(url: str, objects: Sequence[str], options: Options, config: Path) -> int:
    """Ask the unit that a URL names, print, and say how it went."""
    target = target_of(url, options.proof)
    loaded = places.load_config(config) if config.exists() else None
    asked = asked_of(objects, options.map_name, loaded)
    write = None
    if options.set_value is not None:
        write = modbus_write.of(asked.registers, options.set_value)
        modbus_write.check(target, loaded, by_hand=options.by_hand)
        if not options.yes:
            typer.confirm(f"{target.name}: {objects[0]}: write {options.set_value}. Do it?", abort=True, err=True)
    return _ask(target, objects, asked, write, options, loaded)


def read_registered(device: Registered, objects: Sequence[str], options: Options, config: Config) -> int:
    """Ask a device of the registry: its points by the names of its register map, or of its SunSpec models."""
    name = device.target.name
    if options.proof != Proof() or options.map_name is not None:
        raise RequestError(
            f"--map, --ca, --certificate and --private-key: the registry says how {name} is spoken to; leave them out, "
            "or give a URL"
        )
    if options.set_value is not None:
        raise NotAuthorised(modbus_write.by_order(name))
    asked = asked_of(objects, device.model or SUNSPEC, config)
    return _ask(device.target, objects, asked, None, options, config)


def _ask(
    target: ModbusTarget,
    objects: Sequence[str],
    asked: Asked,
    write: modbus_write.Write | None,
    options: Options,
    config: Config | None,
) -> int:
    if asked.points is not None:
        most, gap_ms, _ = asked.points.source.treatment
        target = dataclasses.replace(target, most=most, gap_s=gap_ms / 1000)
    rules = ModbusConfig() if config is None else config.modbus
    results = [Result(name) for name in objects]
    started = time.monotonic()
    conversation: list[Conversation] = []
    trio.run(_operate, target, rules, asked, results, write, options, conversation)
    duration_s = time.monotonic() - started
    traced = [] if not conversation else _trace(target, conversation[0].traced)
    output = Output(json_output=options.json_output)
    if options.json_output:
        document = {
            "device": target.name,
            "items": [one.document for one in results],
            "rows": [],
            "exchanges": conversation[0].exchanges if conversation else 0,
            "duration_s": round(duration_s, 6),
        }
        output.document(document | ({"trace": traced} if options.trace else {}))
    else:
        for part in traced:
            output.tree(as_tree(part))
        output.table(("object", "value"), [(one.text, one.shown) for one in results])
    return overall([one.status for one in results])


async def _operate(
    target: ModbusTarget,
    rules: ModbusConfig,
    asked: Asked,
    results: list[Result],
    write: modbus_write.Write | None,
    options: Options,
    opened: list[Conversation],
) -> None:
    try:
        meter = await meter_of(target, rules, options.timeout_s, trace=options.trace)
        async with converse_with(target.name, meter, timeout_s=options.timeout_s) as conversation:
            opened.append(conversation)
            if write is None:
                await _read(conversation, asked, results)
                return
            await modbus_write.check_harmless(conversation, write, asked.points)
            # The operator asked for these registers and no others, by hand; the gate lets nothing else through.
            conversation.reactor.open_registers(METER, [(write.first, write.last, 0)])
            reply = await conversation.ask([conversation.core.ModbusItem.ask(write.pdu)])
            if 0 in reply.refusals:
                results[0].fail(refusal(conversation, reply.refusals[0]), REFUSED)
            else:
                results[0].document = {"object": results[0].text, "ok": True, "done": True}
                results[0].shown = "done"
    except MeterError as error:
        say(f"ipss-headend: {error}")
        for one in results:
            if not one.document:
                one.fail(error_document(error), error.exit_status)


async def _read(conversation: Conversation, asked: Asked, results: Sequence[Result]) -> None:
    core = conversation.core
    registers = [(one, result) for one, result in zip(asked.registers, results, strict=True) if one is not None]
    if registers:
        reply = await conversation.ask([core.ModbusItem.read(0, [one.point]) for one, _ in registers])
        for item, (one, result) in enumerate(registers):
            _describe(conversation, reply, item, one, result)
    if asked.points is not None and asked.points.names:
        await asked.points.read(conversation, results)
    chained = [one for one in results if one.text == "sunspec" or one.text in asked.sunspec]
    if chained:
        try:
            await read_sunspec(conversation, chained, asked.sunspec)
        except MeterRefused as error:
            for one_of in chained:
                one_of.fail(error_document(error), error.exit_status)
    for result in results:
        if result.text == "identification":
            await _identification(conversation, result)


def _describe(conversation: Conversation, reply: Reply, item: int, one: Registers, result: Result) -> None:
    octets = reply.cell(item)
    if octets is None:
        result.fail(refusal(conversation, reply.refusals.get(item, 0)), REFUSED)
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
        result.fail(refusal(conversation, reply.refusals.get(0, 1)), REFUSED)
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
    layer = LAYERS[target.framing]
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
