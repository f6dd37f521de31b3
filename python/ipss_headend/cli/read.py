"""`ipss-headend read`: ask one device now."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import trio
import typer

from ipss_headend.cli import modbus, places, readout
from ipss_headend.cli.app import JSON, app, command, error_document
from ipss_headend.cli.asked import Wanted, check_harmless, object_list
from ipss_headend.cli.conversation import Conversation, converse
from ipss_headend.cli.modbus_target import Proof, is_modbus, registered
from ipss_headend.cli.output import Output, say
from ipss_headend.cli.profile import Rows, Span, object_name, read_profile, scaler_unit
from ipss_headend.cli.targets import Auth, Options, Protection, Referencing, Target, check_name, resolve
from ipss_headend.cli.trace import as_tree
from ipss_headend.cli.trace import documents as trace_documents
from ipss_headend.cli.values import for_people, parse_moment, parse_value, shown
from ipss_headend.errors import (
    DONE,
    REFUSED,
    MeterError,
    MeterRefused,
    ProtocolViolation,
    RequestError,
    UnknownLogicalName,
)
from ipss_headend.field.results import overall, refusal
from ipss_headend.names import ObjectName
from ipss_headend.store.database import now_us

if TYPE_CHECKING:
    from ipss_headend._core import Item

OTHER_OBJECT = {4, 9}
"""object-undefined, object-class-inconsistent: a class guessed from the catalogue may be wrong."""


@dataclass(frozen=True, slots=True)
class Change:
    """What `--set` or `--action` asks for."""

    method: int | None
    """None: write the attribute."""
    value: str | None


@dataclass
class Result:
    """What came of one object."""

    wanted: Wanted
    document: dict[str, Any] = field(default_factory=dict)
    rows: Rows | None = None
    text: str = ""
    name: str = ""
    status: int = DONE

    def fail(self, error: dict[str, Any], status: int) -> None:
        """The object has no value."""
        self.document = {"object": str(self.wanted), "ok": False, "error": error}
        self.text = str(error.get("message", ""))
        self.status = status


@dataclass
class Heard:
    """What the conversation leaves beside the results."""

    exchanges: int = 0
    traced: list[tuple[int, str]] = field(default_factory=list)


@command(app, "read")
def read(
    url: Annotated[str, typer.Argument(help="dlms+tcp://HOST:PORT, or the name of a meter in the registry.")],
    objects: Annotated[
        list[str],
        typer.Argument(
            metavar="OBJECT...", help="1-0:1.8.0*255, 1.0.1.8.0.255, CLASS/LOGICAL-NAME:ATTRIBUTE, or `objects`."
        ),
    ],
    *,
    client: Annotated[int | None, typer.Option(min=1, max=0xFFFF, help="Our address.  [default: 16]")] = None,
    server: Annotated[int | None, typer.Option(min=1, max=0xFFFF, help="The device's address.  [default: 1]")] = None,
    physical: Annotated[int | None, typer.Option(help="The device's physical address, for HDLC.")] = None,
    auth: Annotated[
        Auth | None,
        typer.Option(help="How both ends prove who they are.  [default: hls-gmac with keys, low with a password]"),
    ] = None,
    password_file: Annotated[Path | None, typer.Option(help="File with the password, one line.")] = None,
    keys: Annotated[Path | None, typer.Option(help="TOML file with keys, a table per system title.")] = None,
    suite: Annotated[int, typer.Option(min=0, max=2, help="Security suite.")] = 0,
    protection: Annotated[
        Protection | None, typer.Option(help="How APDUs are protected.  [default: auth+enc with keys]")
    ] = None,
    dedicated: Annotated[
        bool, typer.Option("--dedicated", help="Protect by a fresh key for this association.")
    ] = False,
    client_title: Annotated[
        str | None, typer.Option(metavar="HEX", help="Our system title.  [default: random, kept beside the counters]")
    ] = None,
    server_title: Annotated[
        str | None, typer.Option(metavar="HEX", help="The device's system title.  [default: the table in --keys]")
    ] = None,
    counter_file: Annotated[
        Path | None, typer.Option(help="Durable invocation counters of this client.  [default: in the data directory]")
    ] = None,
    first_counter: Annotated[
        int | None, typer.Option(min=1, max=2**32 - 2, help="Use no invocation counter below this one.")
    ] = None,
    referencing: Annotated[Referencing, typer.Option(help="By logical or short names.")] = Referencing.LN,
    from_: Annotated[str | None, typer.Option("--from", metavar="T", help="First capture time of a profile.")] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="T", help="Last capture time of a profile.")] = None,
    last: Annotated[int | None, typer.Option(min=1, metavar="N", help="The newest N entries of a profile.")] = None,
    columns: Annotated[
        list[str] | None, typer.Option(metavar="OBJECT,...", help="Columns of a profile, all if left out.")
    ] = None,
    set_value: Annotated[
        str | None, typer.Option("--set", metavar="VALUE", help="Write the attribute, e.g. long-unsigned:5.")
    ] = None,
    action: Annotated[
        int | None, typer.Option(min=1, max=127, metavar="N [VALUE]", help="Invoke a method of the object.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before --set and --action.")] = False,
    by_hand: Annotated[
        bool, typer.Option("--by-hand", help="--set on a Modbus device that no registry knows: without an order.")
    ] = False,
    ca: Annotated[Path | None, typer.Option(help="Trusted authorities, PEM, for modbus+tls://.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="Our certificate, PEM, for modbus+tls://.")] = None,
    map_name: Annotated[
        str | None,
        typer.Option("--map", metavar="NAME", help="Register map whose points are named."),
    ] = None,
    private_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="S", help="Seconds for the whole operation.")] = 30.0,
    trace: Annotated[bool, typer.Option("--trace", help="Show each frame both ways, decoded.")] = False,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> int:
    r"""Ask one device now, over a connection of its own.

    An object's value comes with its scaler and unit. Of a profile (class 7) the rows are read: all, or by --from and
    --to, or --last. Times are ISO 8601, in UTC where they have no offset, or a while ago, such as 2d.

    \b
    Examples:
      ipss-headend read dlms+tcp://192.0.2.7:4059 1.0.1.8.0.255
      ipss-headend read dlms+tcp://192.0.2.7 --client 1 --keys keys.toml objects
      ipss-headend read virtual-00001 1-0:1.8.0*255 8/0.0.1.0.0.255:2 --config data/head_end.toml
      ipss-headend read virtual-00001 1.0.99.1.0.255 --from 1d --columns 1.0.1.8.0.255 --json
      ipss-headend read dlms+tcp://192.0.2.7 --client 1 --keys keys.toml 7/1.0.99.1.0.255:4 --set 900
      ipss-headend read "dlms+hdlc+serial:///dev/ttyUSB0?baud=9600" 1.0.1.8.0.255
      ipss-headend read "iec62056-21:///dev/ttyUSB0?device=12345678" readout
      ipss-headend read modbus+tcp://192.0.2.8:502/1 holding/40001:2 identification --json
      ipss-headend read modbus+tcp://192.0.2.8:502/1 voltage_l1 active_power --map eastron-sdm120
      ipss-headend read "modbus+ascii:///dev/ttyUSB0/3?baud=19200" input/30001:2
      ipss-headend read inverter-1 701/W 704/WMaxLimPct holding/@40070:4 --config data/head_end.toml
    """
    modbus_options = modbus.Options(
        proof=Proof(ca, certificate, private_key),
        map_name=map_name,
        set_value=set_value,
        by_hand=by_hand,
        yes=yes,
        timeout_s=timeout,
        trace=trace,
        json_output=json_output,
    )
    if is_modbus(url):
        return modbus.read(url, objects, modbus_options, config)
    if "://" not in url:
        check_name(url)
        loaded = places.load_config(config)
        device = registered(url, loaded)
        if device is not None:
            return modbus.read_registered(device, objects, modbus_options, loaded)
    if readout.is_readout(url):
        return readout.read(url, objects, timeout_s=timeout, json_output=json_output)
    names, change = _arguments(objects, set_value, action)
    wanted = [Wanted.parse(name) for name in names]
    moment_us = now_us()
    if last is not None and (from_ or to):
        raise RequestError("--last and --from or --to exclude each other; give one of them")
    span = Span(
        from_us=None if from_ is None else parse_moment(from_, moment_us),
        to_us=None if to is None else parse_moment(to, moment_us),
        last=last,
    )
    chosen = [ObjectName.parse(name) for entry in columns or () for name in entry.split(",") if name.strip()]
    options = Options(
        client=client,
        server=server,
        physical=physical,
        auth=auth,
        password_file=password_file,
        keys=keys,
        suite=suite,
        protection=protection,
        dedicated=dedicated,
        client_title=client_title,
        server_title=server_title,
        counter_file=counter_file,
        first_counter=first_counter,
        referencing=referencing,
    )
    target = resolve(url, options, config)
    if change is not None:
        _confirm(_catalogued(wanted[0]), change, target, yes=yes)
    results = [Result(_catalogued(one)) for one in wanted]
    started = time.monotonic()
    heard = trio.run(_operate, target, results, change, span, chosen, timeout, trace)
    duration_s = time.monotonic() - started
    output = Output(json_output=json_output)
    if json_output:
        answer = document(target.name, results, heard.exchanges, duration_s)
        if trace:
            answer["trace"] = trace_documents(target, heard.traced)
        output.document(answer)
    else:
        for part in trace_documents(target, heard.traced):
            output.tree(as_tree(part))
        _print(output, results)
    return status(results)


def document(device: str, results: Sequence[Result], exchanges: int, duration_s: float) -> dict[str, Any]:
    """The answer as CLI.md has it."""
    from ipss_headend import _core

    rows = [row for one in results if one.rows is not None for row in one.rows.documents(str(one.wanted), _core)]
    return {
        "device": device,
        "items": [one.document for one in results],
        "rows": rows,
        "exchanges": exchanges,
        "duration_s": round(duration_s, 6),
    }


def status(results: Sequence[Result]) -> int:
    """0 when all have a value, 8 when some have, else what kept the first from having one."""
    return overall([one.status for one in results])


async def _operate(
    target: Target,
    results: list[Result],
    change: Change | None,
    span: Span,
    chosen: Sequence[ObjectName],
    timeout_s: float,
    trace: bool,
) -> Heard:
    """Fill in the results."""
    heard = Heard()
    try:
        async with converse(target, timeout_s=timeout_s, trace=trace) as conversation:
            heard.traced = conversation.traced
            try:
                if change is not None:
                    await _change(conversation, results[0], change)
                else:
                    await _read(conversation, results, span, chosen)
            finally:
                heard.exchanges = conversation.exchanges
    except MeterError as error:
        say(f"ipss-headend: {error}")
        for one in results:
            if not one.document:
                one.fail(error_document(error), error.exit_status)
    return heard


async def _read(conversation: Conversation, results: list[Result], span: Span, chosen: Sequence[ObjectName]) -> None:
    unknown = [one for one in results if one.wanted.class_id is None]
    if unknown:
        await _look_up(conversation, unknown)
    await _read_attributes(conversation, [one for one in results if not one.document and not one.wanted.is_buffer])
    doubtful = [one for one in results if one.wanted.guessed and _number_of(one) in OTHER_OBJECT]
    if doubtful:
        corrected = await _look_up(conversation, doubtful)
        await _read_attributes(conversation, [one for one in corrected if not one.wanted.is_buffer])
    for one in results:
        if one.wanted.is_buffer and not one.document:
            try:
                one.rows = await read_profile(conversation, one.wanted, span, chosen)
            except MeterRefused as error:
                one.fail(error_document(error), error.exit_status)
            except RequestError as error:
                one.fail(error_document(error), error.exit_status)
            else:
                one.document = {
                    "object": str(one.wanted),
                    "ok": True,
                    "columns": [column.document() for column in one.rows.columns],
                    "entries": len(one.rows.lines),
                }


async def _look_up(conversation: Conversation, results: list[Result]) -> list[Result]:
    """Take the classes from the association's object list; returns those that have another now."""
    core, changed = conversation.core, []
    listing = Wanted.parse("objects")
    reply = await conversation.ask([core.Item.attributes(0, [listing.descriptor])])
    octets = reply.cell(0)
    try:
        classes = (
            {} if octets is None else {one.logical_name: one.class_id for one in object_list(core.decode_data(octets))}
        )
    except ValueError as error:
        raise ProtocolViolation(f"{conversation.name}: {error}") from error
    for one in results:
        found = classes.get(one.wanted.logical_name)
        if found is not None and found != one.wanted.class_id:
            one.wanted = one.wanted.of_class(found, guessed=False)
            one.document, one.status = {}, DONE
            changed.append(one)
        elif one.wanted.class_id is None:
            where = "the object list of the association has it" if classes else "the device gives an object list"
            mistake = UnknownLogicalName(
                f"{one.wanted.text}: no class is known: neither the catalogue knows it nor {where}; "
                f"write its class too, as in 3/{one.wanted.logical_name}"
            )
            one.fail(error_document(mistake), REFUSED)
    return changed


async def _read_attributes(conversation: Conversation, results: Sequence[Result]) -> None:
    """One question an attribute, all in one request, so that one refusal leaves the others alone."""
    if not results:
        return
    core = conversation.core
    items: list[Item] = []
    places_of: list[list[int | None]] = []
    for one in results:
        class_id, name, attribute = one.wanted.descriptor
        numbers = [attribute, *one.wanted.beside()]
        own: list[int | None] = []
        for number in numbers:
            own.append(None if number is None else len(items))
            if number is not None:
                items.append(core.Item.attributes(0, [(class_id, name, number)]))
        places_of.append(own)
    reply = await conversation.ask(items)
    for one, (value, unit, capture) in zip(results, places_of, strict=True):
        assert value is not None
        if value in reply.refusals:
            one.fail(refusal(reply.refusals[value]), REFUSED)
            continue
        octets = reply.cell(value)
        raw = core.decode_data(b"\0" if octets is None else octets)
        one.name = object_name(core, one.wanted.octets)
        scaler, symbol = (None, "") if unit is None else scaler_unit(core, reply.cell(unit))
        _describe(one, raw, scaler, symbol, core)
        if raw[0] in {"array", "structure", "enum", "bit-string"} and octets is not None:
            class_id, _, attribute = one.wanted.descriptor
            # The same once more, with the names that the class gives its parts.
            one.document["named"] = json.loads(core.named_value(class_id, attribute, octets))
        if capture is not None and (stamp := reply.cell(capture)) is not None:
            one.document["capture_time"] = shown(_clock(core, core.decode_data(stamp)))


def _describe(one: Result, raw: list[Any], scaler: int | None, unit: str, core: Any) -> None:
    value = shown(raw, scaler)
    if one.wanted.is_object_list:
        try:
            listed = object_list(raw)
        except ValueError:
            listed = []
        value = [
            {
                "class_id": part.class_id,
                "version": part.version,
                "logical_name": part.logical_name,
                "name": object_name(core, bytes(map(int, part.logical_name.split(".")))),
                "attributes": {str(number): access for number, access in part.attributes.items()},
                "methods": {str(number): access for number, access in part.methods.items()},
            }
            for part in listed
        ]
    elif one.wanted.class_id == 8 and one.wanted.attribute == 2:
        value = shown(_clock(core, raw))
    one.document = {
        "object": str(one.wanted),
        "ok": True,
        "name": one.name,
        "value": value,
        "raw": raw,
        "scaler": scaler,
        "unit": unit,
    }
    one.text = for_people(raw, scaler)


def _clock(core: Any, raw: list[Any]) -> list[Any]:
    """A date-time that came as an octet string, as the date-time that it is."""
    if raw[0] == "octet-string" and len(raw[1]) == 24:
        try:
            return list(core.decode_data(b"\x19" + bytes.fromhex(raw[1])))
        except ValueError:
            return raw
    return raw


async def _change(conversation: Conversation, one: Result, change: Change) -> None:
    if one.wanted.class_id is None:
        await _look_up(conversation, [one])
        if one.document:
            return
        check_harmless(one.wanted, None)
    core = conversation.core
    class_id, name, _ = one.wanted.descriptor
    if change.method is None:
        assert change.value is not None
        item = core.Item.set(one.wanted.descriptor, await _to_write(conversation, one.wanted, change.value))
    else:
        parameters = None if change.value is None else _encoded(core, parse_value(change.value))
        item = core.Item.action((class_id, name, change.method), parameters)
    reply = await conversation.ask([item])
    if 0 in reply.refusals:
        one.fail(refusal(reply.refusals[0]), REFUSED)
    else:
        octets = reply.cell(0)
        raw = None if octets is None else core.decode_data(octets)
        one.document = {"object": str(one.wanted), "ok": True, "done": True}
        if raw is not None:
            one.document |= {"value": shown(raw), "raw": raw}
        one.text = "done" if raw is None else f"done: {for_people(raw)}"
    if change.method is not None:
        one.document |= {"object": f"{class_id}/{one.wanted.logical_name}", "method": change.method}


async def _to_write(conversation: Conversation, wanted: Wanted, text: str) -> bytes:
    """The octets of a value; one without a type gets the type of what is there."""
    core = conversation.core
    try:
        value = parse_value(text)
    except RequestError:
        reply = await conversation.ask([core.Item.attributes(0, [wanted.descriptor])])
        octets = reply.cell(0)
        if octets is None:
            raise
        value = parse_value(text, core.decode_data(octets)[0])
    return _encoded(core, value)


def _encoded(core: Any, value: list[Any]) -> bytes:
    try:
        return bytes(core.encode_data(value))
    except (ValueError, TypeError, OverflowError) as error:
        raise RequestError(f"{json.dumps(value)}: {error}") from error


def _arguments(objects: Sequence[str], set_value: str | None, action: int | None) -> tuple[list[str], Change | None]:
    """The objects, and what is to be done with them; a method's VALUE stands among the objects."""
    if set_value is None and action is None:
        return list(objects), None
    if set_value is not None and action is not None:
        raise RequestError("--set and --action exclude each other; give one of them")
    value, names = set_value, list(objects)
    if action is not None and len(names) == 2:
        # `--action N VALUE OBJECT` and `OBJECT --action N VALUE` both put the value among the objects.
        value = names.pop(0 if _is_object(names[1]) and not _is_object(names[0]) else 1)
    if len(names) != 1:
        raise RequestError(f"{len(names)} objects to change; --set and --action take one")
    return names, Change(action, value)


def _is_object(text: str) -> bool:
    try:
        ObjectName.parse(text)
    except UnknownLogicalName:
        return False
    return True


def _confirm(wanted: Wanted, change: Change, target: Target, *, yes: bool) -> None:
    """Refuse what is critical, and have the operator agree to the rest."""
    from ipss_headend import _core

    known = _core.catalogue(wanted.octets)
    check_harmless(wanted, None if known is None else int(known["class_id"]))
    if change.value is not None and change.value.lstrip().startswith("["):
        parse_value(change.value)
    if yes:
        return
    if not sys.stdin.isatty():
        raise RequestError("--set and --action ask before they do anything, and nobody is here to answer; add --yes")
    what = f"set to {change.value}" if change.method is None else f"method {change.method}"
    typer.confirm(f"{target.name}: {wanted}: {what}. Do it?", abort=True, err=True)


def _catalogued(wanted: Wanted) -> Wanted:
    """The object with its class, as far as the catalogue knows it."""
    if wanted.class_id is not None:
        return wanted
    from ipss_headend import _core

    known = _core.catalogue(wanted.octets)
    return wanted if known is None else wanted.of_class(int(known["class_id"]), guessed=True)


def _number_of(one: Result) -> int | None:
    error = one.document.get("error")
    return error.get("number") if isinstance(error, dict) else None


def _print(output: Output, results: Sequence[Result]) -> None:
    for one in results:
        if one.wanted.is_object_list and one.status == DONE and isinstance(one.document.get("value"), list):
            listed = one.document["value"]
            output.table(
                ("object", "version", "name", "readable attributes"),
                [
                    (
                        f"{part['class_id']}/{part['logical_name']}",
                        part["version"],
                        part["name"],
                        " ".join(number for number, access in part["attributes"].items() if "read" in access),
                    )
                    for part in listed
                ],
            )
    values = [one for one in results if one.rows is None and not (one.wanted.is_object_list and one.status == DONE)]
    if values:
        output.table(
            ("object", "name", "value", "unit", "captured"),
            [
                (
                    str(one.wanted),
                    one.name,
                    one.text,
                    one.document.get("unit", ""),
                    one.document.get("capture_time", ""),
                )
                for one in values
            ],
            right=("value",),
        )
    for one in results:
        if one.rows is not None:
            _print_rows(output, one)


def _print_rows(output: Output, one: Result) -> None:
    from ipss_headend import _core

    assert one.rows is not None
    headings = [
        " ".join(filter(None, (column.name or column.dotted, f"[{column.unit}]" if column.unit else "")))
        for column in one.rows.columns
    ]
    rows = one.rows.documents(str(one.wanted), _core)
    output.table(
        ("captured (UTC)", *headings),
        [(row["capture_time"], *row["values"]) for row in rows],
        title=f"{one.wanted}: {len(rows)} entries",
        right=headings,
    )
