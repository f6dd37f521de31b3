"""gurux-dlms' notifications behind a pipe: makes them as a meter, takes them as a head-end.

Runs in `.venv-gurux`, never inside the head-end. A JSON request a line in, an answer a line out:

    {"do": "data", "time": "2026-03-01T00:15:00+01:00", "body": HEX}   a DataNotification with this A-XDR body
    {"do": "push", "time": ..., "values": [[3, "1.0.1.8.0.255", 2, 6, 4711]]}   the same, of objects' values
    {"do": "event", "time": ..., "values": [[...]]}   an EventNotification of one attribute
    {"do": "take", "apdus": [HEX]}   what gurux-dlms' client makes of notifications, and of the blocks of one
    {"do": "explain", "apdu": HEX}   a plain APDU in the XML of its translator

A value is class, logical name, attribute, type (Blue Book number), value. Each takes `keys`: `suite`, `protection`
(`none`, `auth`, `enc`, `auth+enc`), `title` of the meter, `encryption_key`, `authentication_key`, `counter`; and
`max_pdu`, `blocks` (general block transfer is agreed). The answer is a list of APDUs, or `command`, `time` (UTC) and
`value`, or the XML.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from gurux_dlms import GXByteBuffer, GXDLMSTranslator, GXReplyData
from gurux_dlms.enums import Conformance, InterfaceType, Security, TranslatorOutputType
from gurux_dlms.GXDateTime import GXDateTime
from gurux_dlms.objects import GXDLMSData, GXDLMSRegister
from gurux_dlms.objects.enums import SecuritySuite
from gurux_dlms.secure import GXDLMSSecureClient
from gurux_dlms.secure.GXDLMSSecureNotify import GXDLMSSecureNotify
from tests.interop.gurux_octets import shown

PROTECTIONS = {
    "none": Security.NONE,
    "auth": Security.AUTHENTICATION,
    "enc": Security.ENCRYPTION,
    "auth+enc": Security.AUTHENTICATION_ENCRYPTION,
}
CLASSES = {1: GXDLMSData, 3: GXDLMSRegister}
REQUEST_TIMEOUT_S = 10
"""gurux-dlms may spin on octets that it does not expect."""


def secured(end: Any, keys: dict[str, Any]) -> None:
    """Give an end its keys. Both ends cipher under the meter's title here."""
    cipher = end.ciphering
    cipher.security = PROTECTIONS[keys.get("protection", "none")]
    cipher.securitySuite = SecuritySuite(keys.get("suite", 0))
    if "title" in keys:
        cipher.systemTitle = bytearray.fromhex(keys["title"])
        cipher.blockCipherKey = bytearray.fromhex(keys["encryption_key"])
        cipher.authenticationKey = bytearray.fromhex(keys["authentication_key"])
        cipher.invocationCounter = keys.get("counter", 1)


def notifier(request: dict[str, Any]) -> GXDLMSSecureNotify:
    """The meter."""
    made = GXDLMSSecureNotify(True, 1, 1, InterfaceType.PDU)
    secured(made, request.get("keys", {}))
    made.settings.maxPduSize = request.get("max_pdu", 0xFFFF)
    conformance = Conformance.GENERAL_PROTECTION | Conformance.DATA_NOTIFICATION
    if request.get("blocks"):
        conformance |= Conformance.GENERAL_BLOCK_TRANSFER
    made.settings.negotiatedConformance = made.settings.proposedConformance = conformance
    return made


def valued(value: list[Any]) -> tuple[Any, int]:
    """An object that holds a value, and the value's attribute."""
    class_id, name, attribute, kind, content = value
    item = CLASSES[class_id](name)
    if kind == 9:
        content = bytearray.fromhex(content)
    item.value = content
    item.setDataType(attribute, kind)
    return item, attribute


def moment(request: dict[str, Any]) -> dt.datetime | None:
    text = request.get("time")
    return None if text is None else dt.datetime.fromisoformat(text)


def data(request: dict[str, Any]) -> list[str]:
    """Notifications of a body that is given."""
    body = GXByteBuffer()
    body.set(bytearray.fromhex(request["body"]))
    return told(notifier(request).generateDataNotificationMessages(moment(request), body))


def push(request: dict[str, Any]) -> list[str]:
    """Notifications whose body is a structure of objects' values, as gurux-dlms encodes them."""
    meter, body = notifier(request), GXByteBuffer()
    values = request["values"]
    body.setUInt8(2)
    body.setUInt8(len(values))
    for value in values:
        meter.addData(*valued(value), body)
    return told(meter.generateDataNotificationMessages(moment(request), body))


def event(request: dict[str, Any]) -> list[str]:
    """An event notification."""
    when = moment(request)
    [value] = request["values"]
    return told(notifier(request).generateReport(None if when is None else GXDateTime(when), [valued(value)]))


def told(messages: Any) -> list[str]:
    return [bytes(one.array() if isinstance(one, GXByteBuffer) else one).hex() for one in messages]


def take(request: dict[str, Any]) -> dict[str, Any]:
    """What gurux-dlms' client makes of notifications."""
    keys = request.get("keys", {})
    client = GXDLMSSecureClient(True, 1, 1, interfaceType=InterfaceType.PDU)
    secured(client, keys)
    if "title" in keys:
        client.settings.sourceSystemTitle = bytearray.fromhex(keys["title"])
    reply, notify = GXReplyData(), GXReplyData()
    for octets in request["apdus"]:
        whole = GXByteBuffer()
        whole.set(bytearray.fromhex(octets))
        whole.position = 0
        client.getData(whole, reply, notify)
    found = notify if int(notify.command) else reply
    time = None if found.time is None else found.time.value.astimezone(dt.UTC).isoformat()
    return {"command": int(found.command), "time": time, "value": shown(found.value)}


def explain(request: dict[str, Any]) -> str:
    """The APDU in gurux-dlms' XML: its translator understands event notifications, its client does not."""
    xml: str = GXDLMSTranslator(TranslatorOutputType.SIMPLE_XML).pduToXml(bytearray.fromhex(request["apdu"]))
    return xml


DOES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "data": data,
    "push": push,
    "event": event,
    "take": take,
    "explain": explain,
}


def out_of_time(*_: object) -> None:
    os._exit(4)


def main() -> int:
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.signal(signal.SIGALRM, out_of_time)
    for line in sys.stdin:
        request = json.loads(line)
        signal.alarm(REQUEST_TIMEOUT_S)
        try:
            answer = DOES[request["do"]](request)
            said: dict[str, Any] = {"ok": True, "answer": answer}
        except Exception as error:  # noqa: BLE001 - whatever it raises is the answer
            said = {"ok": False, "error": repr(error)}
        signal.alarm(0)
        output.write(json.dumps(said) + "\n")
        output.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
