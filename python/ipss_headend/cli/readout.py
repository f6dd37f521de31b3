"""`ipss-headend read iec62056-21:///dev/ttyUSB0`: a meter read out as text (mode C)."""

import time
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import trio

from ipss_headend.cli.conversation import METER, converse_with
from ipss_headend.cli.output import Output
from ipss_headend.cli.targets import serial_line
from ipss_headend.errors import DONE, PARTLY_DONE, REFUSED, RequestError
from ipss_headend.names import ObjectName

SCHEME = "iec62056-21"
ALL = "readout"
"""Asks for every data set."""


def is_readout(url: str) -> bool:
    """Whether a URL names a meter that is read out."""
    return url.startswith(f"{SCHEME}://")


def read(url: str, objects: Sequence[str], *, timeout_s: float, json_output: bool) -> int:
    """Read the data block and show the data sets that are wanted.

    Raises:
        MeterError: there is no answer, or the check character is wrong.
        RequestError: the URL or an object cannot be.
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    device = query.pop("device", "")
    line = serial_line(urlunsplit(parts._replace(query=urlencode(query))), parts._replace(query=urlencode(query)))
    wanted = [] if ALL in objects else [str(ObjectName.parse(name).logical_name) for name in objects]
    started = time.monotonic()
    sets = trio.run(_read, url, line, device, timeout_s)
    chosen = [found for found in sets if not wanted or found["object"] in wanted]
    missing = [name for name in wanted if all(found["object"] != name for found in sets)]
    items: list[dict[str, Any]] = [{**found, "ok": True} for found in chosen]
    items += [
        {"object": name, "ok": False, "error": {"fault": "remote", "message": "the data block has no such data set"}}
        for name in missing
    ]
    output = Output(json_output=json_output)
    if json_output:
        duration_s = round(time.monotonic() - started, 6)
        output.document({"device": url, "items": items, "rows": [], "exchanges": 1, "duration_s": duration_s})
    else:
        rows = [(item["object"], item.get("value", "-"), item.get("unit", "")) for item in items]
        output.table(("object", "value", "unit"), rows)
    if not missing:
        return DONE
    return PARTLY_DONE if chosen else REFUSED


async def _read(url: str, line: str, device: str, timeout_s: float) -> list[dict[str, Any]]:
    from ipss_headend import _core

    try:
        meter = _core.Meter.readout(METER, line, device=device, idle_s=timeout_s, answer_s=timeout_s)
    except ValueError as error:
        raise RequestError(f"{url}: {error}") from error
    async with converse_with(url, meter, timeout_s=timeout_s) as conversation:
        # What is asked does not matter: a meter is read out whole.
        reply = await conversation.ask([_core.Item.attributes(0, [(1, bytes(6), 2)])])
    return [_data_set(*(cell if isinstance(cell, bytes) else b"" for cell in line.cells)) for line in reply.lines]


def _data_set(address: bytes, value: bytes, unit: bytes, logical_name: bytes) -> dict[str, Any]:
    """One data set; a number without the zeros in front of it."""
    raw = value.decode("ascii", "replace")
    try:
        shown = format(Decimal(raw), "f") if unit else raw
    except InvalidOperation:
        shown = raw
    name = address.decode("ascii", "replace") if not logical_name else ".".join(map(str, logical_name))
    return {"object": name, "value": shown, "raw": raw, "unit": unit.decode("ascii", "replace")}
