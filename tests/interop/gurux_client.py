"""Read a meter with gurux-dlms' client over TCP: the wrapper, or HDLC with `--hdlc`.

Runs in `.venv-gurux`, never inside the head-end.

    gurux_client.py --port 4059 --auth hls-gmac --protection auth+enc 3/1.0.1.8.0.255:2 7/1.0.99.1.0.255:2@entries=1-4

An object is CLASS/LOGICAL NAME:ATTRIBUTE; a profile's buffer takes `@entries=FIRST-LAST` or `@range=FROM,TO`.
`action:CLASS/LOGICAL NAME:METHOD` invokes a method with integer 0, `list:OBJECT,OBJECT,...` reads in one GET with list,
`clock:LOGICAL NAME=TIME` writes a clock's time, `seasons:LOGICAL NAME=COUNT` as many seasons into a calendar's passive
half, in blocks where they are too long; `names:LOGICAL NAME=NAME,COUNT` a calendar's name and seasons in one SET with
list; `image:LOGICAL NAME=SIZE` begins an image and sends its blocks; `access:OBJECT,OBJECT,...` reads in one ACCESS.
With `--short-names` an object is its base name in decimal, CLASS/NAME:ATTRIBUTE. Prints one JSON document: an item for
each object with the A-XDR octets that were received (`hex`), or the error; and the exchanges' time.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import re
import socket
import struct
import sys
import threading
import time
from typing import Any

from gurux_dlms import GXByteBuffer, GXDLMSException, GXReplyData
from gurux_dlms.ecdsa.GXPrivateKey import GXPrivateKey
from gurux_dlms.ecdsa.GXPublicKey import GXPublicKey
from gurux_dlms.enums import (
    AccessServiceCommandType,
    Authentication,
    Conformance,
    DataType,
    InterfaceType,
    ObjectType,
    Security,
)
from gurux_dlms.GXDateTime import GXDateTime
from gurux_dlms.GXDLMSAccessItem import GXDLMSAccessItem
from gurux_dlms.GXWriteItem import GXWriteItem
from gurux_dlms.objects import GXDLMSActivityCalendar, GXDLMSImageTransfer, GXDLMSProfileGeneric
from gurux_dlms.objects.enums import SecuritySuite
from gurux_dlms.objects.GXDLMSSeasonProfile import GXDLMSSeasonProfile
from gurux_dlms.secure import GXDLMSSecureClient
from tests.interop.gurux_octets import shown

AUTHENTICATIONS = {
    "none": Authentication.NONE,
    "low": Authentication.LOW,
    "hls-md5": Authentication.HIGH_MD5,
    "hls-sha1": Authentication.HIGH_SHA1,
    "hls-gmac": Authentication.HIGH_GMAC,
    "hls-sha256": Authentication.HIGH_SHA256,
    "hls-ecdsa": Authentication.HIGH_ECDSA,
}
PROTECTIONS = {
    "none": Security.NONE,
    "auth": Security.AUTHENTICATION,
    "enc": Security.ENCRYPTION,
    "auth+enc": Security.AUTHENTICATION_ENCRYPTION,
}
OBJECT = re.compile(r"(?P<class>\d+)/(?P<name>[\d.]+):(?P<index>\d+)(?:@(?P<how>entries|range)=(?P<rows>.+))?")


class Line:
    """The TCP connection, and gurux-dlms' loop over it: send, take a WPDU, ask for the next block."""

    def __init__(self, client: GXDLMSSecureClient, host: str, port: int, timeout_s: float) -> None:
        self.client = client
        self.socket = socket.create_connection((host, port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.exchanges = 0

    def take(self, count: int) -> bytes:
        octets = b""
        while len(octets) < count:
            more = self.socket.recv(count - len(octets))
            if not more:
                raise ConnectionError("the meter closed the connection")
            octets += more
        return octets

    def exchange(self, message: bytes, reply: GXReplyData) -> None:
        self.socket.sendall(bytes(message))
        self.exchanges += 1
        if self.client.interfaceType == InterfaceType.HDLC:
            self.take_frame(reply)
            return
        header = self.take(8)
        whole = GXByteBuffer()
        whole.set(bytearray(header + self.take(struct.unpack(">4H", header)[3])))
        whole.position = 0
        reply.error = 0
        if not self.client.getData(whole, reply, GXReplyData()):
            raise ValueError("gurux-dlms wants more than the WPDU holds")
        if reply.error:
            raise GXDLMSException(reply.error)

    def take_frame(self, reply: GXReplyData) -> None:
        """Take octets until gurux-dlms has a whole frame."""
        whole, notify = GXByteBuffer(), GXReplyData()
        reply.error = 0
        while True:
            more = self.socket.recv(4096)
            if not more:
                raise ConnectionError("the meter closed the connection")
            whole.set(bytearray(more))
            if self.client.getData(whole, reply, notify):
                break
        if reply.error:
            raise GXDLMSException(reply.error)

    def ask(self, messages: Any) -> GXReplyData:
        reply = GXReplyData()
        for message in messages if isinstance(messages, list) else [messages]:
            reply.clear()
            self.exchange(message, reply)
            while reply.isMoreData():
                self.exchange(self.client.receiverReady(reply), reply)
        return reply


def make_client(options: argparse.Namespace) -> GXDLMSSecureClient:
    """A gurux-dlms client with the association's parameters."""
    client = GXDLMSSecureClient(
        not options.short_names,
        options.client,
        options.server,
        AUTHENTICATIONS[options.auth],
        options.password,
        InterfaceType.HDLC if options.hdlc else InterfaceType.WRAPPER,
    )
    if options.hdlc:
        limits = client.hdlcSettings
        limits.maxInfoTX = limits.maxInfoRX = options.information
        limits.windowSizeTX = limits.windowSizeRX = options.window
    client.ciphering.security = PROTECTIONS[options.protection]
    client.ciphering.securitySuite = SecuritySuite(options.suite)
    client.ciphering.systemTitle = bytearray.fromhex(options.client_title)
    client.ciphering.blockCipherKey = bytearray.fromhex(options.encryption_key)
    client.ciphering.authenticationKey = bytearray.fromhex(options.authentication_key)
    client.ciphering.invocationCounter = options.invocation_counter
    if options.dedicated:
        client.ciphering.dedicatedKey = bytearray(os.urandom(len(client.ciphering.blockCipherKey)))
    if options.challenge_length:
        client.ctoSChallenge = bytearray(os.urandom(options.challenge_length))
    if options.private_key:
        client.ciphering.signingKeyPair = (
            GXPublicKey.fromRawBytes(b"\4" + bytes.fromhex(options.peer_public_key)),
            GXPrivateKey.fromRawBytes(bytes.fromhex(options.private_key)),
        )
    client.maxReceivePDUSize = options.max_pdu
    if not options.general_protection:
        client.proposedConformance &= ~Conformance.GENERAL_PROTECTION
    client.autoIncreaseInvokeID = True
    return client


def associate(line: Line) -> None:
    """AARQ and AARE, then the HLS pass 3 and 4 where the mechanism has them."""
    client = line.client
    if client.interfaceType == InterfaceType.HDLC:
        client.parseUAResponse(line.ask(client.snrmRequest()).data)
    client.parseAareResponse(line.ask(client.aarqRequest()).data)
    if client.getIsAuthenticationRequired():
        client.parseApplicationAssociationResponse(line.ask(client.getApplicationAssociationRequest()).data)


def read_list(line: Line, text: str) -> dict[str, Any]:
    """Read several attributes in one GET with list; the values, in order."""
    client, items = line.client, []
    for one in text.split(","):
        match = OBJECT.fullmatch(one)
        assert match is not None, one
        item = client.createObject(ObjectType(int(match["class"])))
        item.logicalName = match["name"]
        items.append((item, int(match["index"])))
    values: list[Any] = []
    for message in client.readList(items):
        reply = line.ask(message)
        values += reply.value
    return {"object": text, "ok": True, "value": shown(values)}


def seasons(count: int) -> list[GXDLMSSeasonProfile]:
    """Seasons that begin at the first of a month, in January and on."""
    begins = [GXDateTime(dt.datetime(2026, 1 + number % 12, 1, tzinfo=dt.UTC)) for number in range(count)]
    names = [f"season-{number}".encode() for number in range(count)]
    return [GXDLMSSeasonProfile(name, begin, b"week") for name, begin in zip(names, begins, strict=True)]


def write_seasons(line: Line, text: str) -> dict[str, Any]:
    """Write a calendar's passive seasons."""
    name, _, count = text.partition("=")
    calendar = GXDLMSActivityCalendar(name)
    calendar.seasonProfilePassive = seasons(int(count))
    messages = line.client.write(calendar, 7)
    line.ask(messages)
    return {"object": text, "ok": True, "messages": len(messages)}


def write_names(line: Line, text: str) -> dict[str, Any]:
    """Write a calendar's passive name and seasons in one SET with list."""
    name, _, wanted = text.partition("=")
    passive, _, count = wanted.partition(",")
    calendar = GXDLMSActivityCalendar(name)
    calendar.calendarNamePassive = passive
    calendar.seasonProfilePassive = seasons(int(count))
    items = []
    for index, kind in ((6, DataType.OCTET_STRING), (7, DataType.ARRAY)):
        item = WriteItem(calendar, index)
        item.target, item.dataType = calendar, kind
        items.append(item)
    messages = line.client.writeList(items)
    reply = line.ask(messages)
    return {"object": text, "ok": True, "messages": len(messages), "error": int(reply.error)}


class WriteItem(GXWriteItem):  # type: ignore[misc]
    """gurux-dlms' own lacks the method that `writeList` calls."""

    def getDataType(self) -> DataType:  # noqa: N802 - gurux-dlms calls it so
        kind: DataType = self.dataType
        return kind


def send_image(line: Line, text: str) -> dict[str, Any]:
    """Begin an image and send its blocks."""
    name, _, size = text.partition("=")
    image, octets = GXDLMSImageTransfer(name), bytes(number % 251 for number in range(int(size)))
    image.imageBlockSize = 128
    line.ask(image.imageTransferInitiate(line.client, "gurux", len(octets)))
    blocks = image.imageBlockTransfer(line.client, bytearray(octets), [0])
    for messages in blocks:
        line.ask(messages)
    return {"object": text, "ok": True, "messages": sum(map(len, blocks))}


def access(line: Line, text: str) -> dict[str, Any]:
    """Read several attributes in one ACCESS."""
    items = []
    for one in text.split(","):
        match = OBJECT.fullmatch(one)
        assert match is not None, one
        item = line.client.createObject(ObjectType(int(match["class"])))
        item.logicalName = match["name"]
        items.append(GXDLMSAccessItem(AccessServiceCommandType.GET, item, int(match["index"])))
    reply = line.ask(line.client.accessRequest(None, items))
    line.client.parseAccessResponse(items, reply.data)
    values = [item.value for item in items]
    return {"object": text, "ok": True, "value": shown(values), "errors": [int(item.error) for item in items]}


def write_clock(line: Line, text: str) -> dict[str, Any]:
    """Set a clock's time to what is written in ISO 8601."""
    name, _, moment = text.partition("=")
    clock = line.client.createObject(ObjectType.CLOCK)
    clock.logicalName = name
    clock.time = GXDateTime(dt.datetime.fromisoformat(moment))
    line.ask(line.client.write(clock, 2))
    return {"object": text, "ok": True}


def read(line: Line, text: str) -> dict[str, Any]:
    """Do what one command-line object asks."""
    if text.startswith("list:"):
        return read_list(line, text.removeprefix("list:"))
    for prefix, service in SERVICES.items():
        if text.startswith(prefix):
            return service(line, text.removeprefix(prefix))
    match = OBJECT.fullmatch(text.removeprefix("action:"))
    if match is None:
        raise SystemExit(f"{text}: not CLASS/LOGICAL NAME:ATTRIBUTE")
    client = line.client
    class_id, name, index = ObjectType(int(match["class"])), match["name"], int(match["index"])
    item = client.createObject(class_id)
    if client.useLogicalNameReferencing:
        item.logicalName = name
    else:
        item.shortName = int(name)
    if text.startswith("action:"):
        request = client.method(item, index, 0, DataType.INT8)
    elif match["how"]:
        profile = GXDLMSProfileGeneric(name)
        if match["how"] == "entries":
            first, last = (int(part) for part in match["rows"].split("-"))
            request = client.readRowsByEntry(profile, first, last - first + 1)
        else:
            begin, end = (GXDateTime(dt.datetime.fromisoformat(part)) for part in match["rows"].split(","))
            request = client.readRowsByRange(profile, begin, end)
    else:
        request = client.read(item, index)
    reply = line.ask(request)
    return {"object": text, "ok": True, "hex": bytes(reply.data.array()).hex(), "value": shown(reply.value)}


SERVICES = {
    "clock:": write_clock,
    "seasons:": write_seasons,
    "names:": write_names,
    "image:": send_image,
    "access:": access,
}


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objects", nargs="*")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--client", type=int, default=1)
    parser.add_argument("--server", type=int, default=1)
    parser.add_argument("--auth", choices=AUTHENTICATIONS, default="hls-gmac")
    parser.add_argument("--password", default="12345678")
    parser.add_argument("--protection", choices=PROTECTIONS, default="auth+enc")
    parser.add_argument("--general-protection", action="store_true")
    parser.add_argument("--hdlc", action="store_true")
    parser.add_argument("--information", type=int, default=128, help="octets of information in an HDLC frame")
    parser.add_argument("--window", type=int, default=1)
    parser.add_argument("--dedicated", action="store_true")
    parser.add_argument("--short-names", action="store_true")
    parser.add_argument("--suite", type=int, default=0)
    parser.add_argument("--challenge-length", type=int, default=0, help="octets; 0 for gurux-dlms' own choice")
    parser.add_argument("--private-key", help="the client's, raw; with --peer-public-key, x and y")
    parser.add_argument("--peer-public-key")
    parser.add_argument("--client-title", default="4754540000000001")
    parser.add_argument("--encryption-key", default="0b0c0d0e0f101112131415161718191a")
    parser.add_argument("--authentication-key", default="a0a1a2a3a4a5a6a7a8a9aaabacadaeaf")
    parser.add_argument("--invocation-counter", type=int, default=1)
    parser.add_argument("--max-pdu", type=int, default=1024)
    parser.add_argument("--timeout", type=float, default=10, help="for the whole run, seconds")
    return parser


def main() -> int:
    options = arguments().parse_args()

    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # gurux-dlms may spin on octets that it does not expect: the process ends itself, whatever it is doing.
    alarm = threading.Timer(options.timeout, lambda: os._exit(4))
    alarm.daemon = True
    alarm.start()

    began = time.monotonic()
    answer: dict[str, Any] = {"associated": False, "items": []}
    status = 0
    try:
        line = Line(make_client(options), options.host, options.port, options.timeout)
        associate(line)
        answer["associated"] = True
        for text in options.objects:
            try:
                answer["items"].append(read(line, text))
            except GXDLMSException as error:
                answer["items"].append({"object": text, "ok": False, "error": str(error), "code": int(error.errorCode)})
        if request := line.client.releaseRequest():
            line.ask(request)
        if options.hdlc:
            line.ask(line.client.disconnectRequest())
        answer["released"] = True
        answer["exchanges"] = line.exchanges
    except Exception as error:  # noqa: BLE001 - the JSON document is the report
        answer["error"] = repr(error)
        status = 1
    answer["next_counter"] = options.invocation_counter
    answer["duration_s"] = round(time.monotonic() - began, 4)
    output.write(json.dumps(answer) + "\n")
    output.flush()
    return status


if __name__ == "__main__":
    sys.exit(main())
