"""A meter made of gurux-dlms, served over the TCP wrapper. Runs in `.venv-gurux`, never inside the head-end.

gurux-dlms encodes the objects, the A-XDR data, the blocks and the InitiateResponse, ciphers and deciphers, and computes
the GMAC. Written here is what joins them: the wrapper, the AARE's envelope, who may ask what, row selection, counters.

Prints one JSON line with its port when it is ready, then serves until standard input ends or its time is up. Each
connection prints one JSON line when it closes: what was asked, and what was refused and why.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import socket
import socketserver
import struct
import sys
import threading
from typing import Any

from gurux_dlms._GXAPDU import _GXAPDU
from gurux_dlms.AesGcmParameter import AesGcmParameter
from gurux_dlms.ConnectionState import ConnectionState
from gurux_dlms.ecdsa.GXEcdsa import GXEcdsa
from gurux_dlms.ecdsa.GXPrivateKey import GXPrivateKey
from gurux_dlms.ecdsa.GXPublicKey import GXPublicKey
from gurux_dlms.enums import (
    AccessMode,
    Authentication,
    Command,
    Conformance,
    DataType,
    ErrorCode,
    InterfaceType,
    ObjectType,
    Security,
)
from gurux_dlms.GXByteBuffer import GXByteBuffer
from gurux_dlms.GXCiphering import GXCiphering
from gurux_dlms.GXDateTime import GXDateTime
from gurux_dlms.GXDLMS import GXDLMS
from gurux_dlms.GXDLMSLNParameters import GXDLMSLNParameters
from gurux_dlms.GXDLMSSettings import GXDLMSSettings
from gurux_dlms.GXSecure import GXSecure
from gurux_dlms.internal._GXCommon import _GXCommon
from gurux_dlms.internal._GXDataInfo import _GXDataInfo
from gurux_dlms.objects.enums import ControlState, SecuritySuite
from gurux_dlms.ValueEventArgs import ValueEventArgs
from tests.interop import gurux_transfers
from tests.interop.gurux_objects import CLOCK_NAME, COUNTER_NAME, ZONE, build_objects
from tests.interop.gurux_octets import buffer, descriptor, octets_of, reply_with

PUBLIC_CLIENT = 16
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
# No APDU that a head-end sends this meter is longer.
LONGEST_APDU = 4096
IDLE_TIMEOUT_S = 20

PLAIN_OF = {
    0xC8: "glo",
    0xC9: "glo",
    0xCB: "glo",
    0xD0: "ded",
    0xD1: "ded",
    0xD3: "ded",
    0xDB: "general-glo",
    0xDC: "general-ded",
}


class Rights:
    """The access rights that the object list shows: everything may be read, nothing promised beyond."""

    def __init__(self, settings: GXDLMSSettings) -> None:
        self.settings = settings

    def onGetAttributeAccess(self, _: Any) -> AccessMode:  # noqa: N802 - gurux-dlms calls it so
        return AccessMode.READ

    def onGetMethodAccess(self, _: Any) -> int:  # noqa: N802
        return 0


class Refused(Exception):
    """The request is answered by these octets instead: an exception-response."""

    def __init__(self, why: str, answer: bytes) -> None:
        super().__init__(why)
        self.answer = answer


class Meter:
    """What all connections share: the objects, the keys, and the counters of the global key."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.title = bytes.fromhex(options.system_title)
        self.encryption_key = bytes.fromhex(options.encryption_key)
        self.authentication_key = bytes.fromhex(options.authentication_key)
        self.objects, self.profile = build_objects(options.lines, self.title)
        self.counter: int = options.invocation_counter
        self.highest_received: dict[bytes, int] = {}
        self.lock = threading.Lock()

    def refresh(self) -> None:
        """Bring the objects that move up to date."""
        self.objects[int(ObjectType.CLOCK), CLOCK_NAME].time = GXDateTime(dt.datetime.now(ZONE).replace(microsecond=0))
        self.objects[int(ObjectType.DATA), COUNTER_NAME].value = max(self.highest_received.values(), default=0)


class Association:
    """One connection's association, from AARQ to RLRQ."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.log: dict[str, Any] = {"requests": [], "refused": [], "tags": []}
        self.settings = GXDLMSSettings(True, None)
        self.settings.interfaceType = InterfaceType.PDU
        self.settings.setUseLogicalNameReferencing(True)
        self.settings.proposedConformance |= Conformance.PRIORITY_MGMT_SUPPORTED
        self.settings.proposedConformance &= ~Conformance.GENERAL_BLOCK_TRANSFER
        if not meter.options.access:
            self.settings.proposedConformance &= ~Conformance.ACCESS
        if not meter.options.general_protection:
            self.settings.proposedConformance &= ~Conformance.GENERAL_PROTECTION
        cipher = GXCiphering(bytearray(meter.title))
        cipher.blockCipherKey = bytearray(meter.encryption_key)
        cipher.authenticationKey = bytearray(meter.authentication_key)
        cipher.securitySuite = SecuritySuite(meter.options.suite)
        self.settings.cipher = self.cipher = cipher
        self.client = 0
        self.state = "idle"
        self.dedicated_key: bytearray | None = None
        self.dedicated_counter = 1
        self.highest_dedicated = -1
        self.before_this_apdu = -1
        self.rest: GXByteBuffer | None = None
        self.transfer = gurux_transfers.Transfer([], listed=False)

    def answer(self, client: int, apdu: bytes) -> bytes:
        """The APDU that answers `apdu`; empty to say nothing."""
        with self.meter.lock:
            if f"{apdu[0]:02x}" not in self.log["tags"]:
                self.log["tags"].append(f"{apdu[0]:02x}")
            try:
                if apdu[0] == 0x60:
                    return self.associate(client, apdu)
                if apdu[0] == 0x62:
                    self.state = "idle"
                    self.log["requests"].append("rlrq")
                    return bytes.fromhex("6303800100")
                return self.serve(apdu)
            except Refused as refused:
                self.log["refused"].append(str(refused))
                return refused.answer

    # Association

    def associate(self, client: int, apdu: bytes) -> bytes:
        """Answer an AARQ. A pinned profile is kept: another mechanism, context or protection is rejected."""
        self.client, self.state, self.dedicated_key, self.rest = client, "idle", None, None
        options, settings, cipher = self.meter.options, self.settings, self.cipher
        settings.ctoSChallenge = settings.sourceSystemTitle = settings.password = None
        settings.authentication = Authentication.NONE
        settings.connected = ConnectionState.NONE
        cipher.security, cipher.dedicatedKey = Security.NONE, None
        wanted, protection = AUTHENTICATIONS[options.auth], PROTECTIONS[options.protection]
        if client == PUBLIC_CLIENT:
            wanted, protection = Authentication.NONE, Security.NONE
        try:
            _GXAPDU.parsePDU(settings, cipher, buffer(apdu), None)
        except Exception as error:  # noqa: BLE001 - whatever gurux-dlms raises, the association is rejected
            return self.rejected(f"AARQ: {error!r}", 1)
        self.log["requests"].append("aarq")
        self.log["association"] = {
            "client": client,
            "mechanism": int(settings.authentication),
            "protection": int(cipher.security),
            "client_system_title": bytes(settings.sourceSystemTitle or b"").hex(),
            "max_pdu": settings.maxPduSize,
            "dedicated_key": bool(cipher.dedicatedKey),
        }
        if settings.authentication != wanted:
            return self.rejected("mechanism", 11)
        if cipher.security != protection:
            return self.rejected(f"security control {int(cipher.security):02x} in the AARQ", 1)
        if protection != Security.NONE and cipher.securitySuite != options.suite:
            return self.rejected(f"suite {int(cipher.securitySuite)} in the AARQ", 1)
        if cipher.security != Security.NONE:
            self.check_counter(counter_of_aarq(apdu))
            if cipher.dedicatedKey:
                self.dedicated_key, self.dedicated_counter, self.highest_dedicated = cipher.dedicatedKey, 1, -1
        if wanted == Authentication.LOW and bytes(settings.password or b"") != options.password.encode():
            return self.rejected("password", 13)
        settings.maxPduSize = min(settings.maxPduSize, options.max_pdu) or options.max_pdu
        if wanted > Authentication.LOW:
            self.state = "pending"
            settings.stoCChallenge = bytearray(os.urandom(options.challenge_length))
            return self.aare(0, 14)
        self.state = "associated"
        return self.aare(0, 0)

    def rejected(self, why: str, diagnostic: int) -> bytes:
        self.log["refused"].append(why)
        self.cipher.security = Security.NONE
        return self.aare(1, diagnostic)

    def aare(self, result: int, diagnostic: int) -> bytes:
        """The AARE: a BER envelope round the InitiateResponse that gurux-dlms encodes and ciphers."""
        settings, cipher = self.settings, self.cipher
        ciphered = cipher.security != Security.NONE
        fields = bytes([0xA1, 9, 6, 7, 0x60, 0x85, 0x74, 5, 8, 1, 3 if ciphered else 1])
        fields += bytes([0xA2, 3, 2, 1, result, 0xA3, 5, 0xA1, 3, 2, 1, diagnostic])
        if ciphered or settings.authentication >= Authentication.HIGH_GMAC:
            fields += bytes([0xA4, 10, 4, 8]) + self.meter.title
        if self.state == "pending":
            challenge = bytes(settings.stoCChallenge)
            fields += bytes.fromhex("88020780") + bytes(
                [0x89, 7, 0x60, 0x85, 0x74, 5, 8, 2, int(settings.authentication)]
            )
            fields += bytes([0xAA, 2 + len(challenge), 0x80, len(challenge)]) + challenge
        if result == 0:
            cipher.invocationCounter = self.take_counter() if ciphered else 0
            information = self.initiate_response(cipher.security)
            fields += bytes([0xBE, 2 + len(information), 4, len(information)]) + information
        return bytes([0x61, len(fields)] if len(fields) < 128 else [0x61, 0x81, len(fields)]) + fields

    def initiate_response(self, protection: Security) -> bytes:
        """The InitiateResponse as gurux-dlms encodes and ciphers it.

        It is ciphered in a step of its own: gurux-dlms' server writes suite 0 into the AARE whatever the suite is.
        """
        settings, cipher = self.settings, self.cipher
        cipher.security = Security.NONE
        plain = octets_of(_GXAPDU.getUserInformation(settings, cipher))
        cipher.security = protection
        if protection == Security.NONE:
            return plain
        title, keys = bytearray(self.meter.title), (cipher.blockCipherKey, cipher.authenticationKey)
        parameters = AesGcmParameter(Command.GLO_INITIATE_RESPONSE, title, *keys)
        parameters.security, parameters.securitySuite = protection, cipher.securitySuite
        parameters.invocationCounter = cipher.invocationCounter
        cipher.invocationCounter += 1
        return octets_of(GXCiphering.encrypt(parameters, plain))

    def take_counter(self) -> int:
        """The next invocation counter of the global key."""
        counter = self.meter.counter
        self.meter.counter = counter + 1
        return counter

    def check_counter(self, received: int) -> None:
        """Refuse a counter that this client used before, and say which one is expected."""
        title = bytes(self.settings.sourceSystemTitle)
        highest = self.meter.highest_received.get(title, self.meter.options.expected_counter - 1)
        if received <= highest:
            raise Refused(f"invocation counter {received}", bytes([0xD8, 1, 6]) + struct.pack(">I", highest + 1))
        self.before_this_apdu = highest
        self.meter.highest_received[title] = received

    def check_proof_counter(self, received: int) -> None:
        """Refuse an f(StoC) under a counter used before the APDU that carries it.

        It may be older or newer than that APDU's. The same one means that one key met one nonce twice: many meters
        take it, so it is taken here too, and the log says so.
        """
        title = bytes(self.settings.sourceSystemTitle)
        carrying = self.meter.highest_received.get(title, -1)
        if PROTECTIONS[self.meter.options.protection] == Security.NONE:
            self.check_counter(received)
        elif received <= self.before_this_apdu:
            raise Refused(f"f(StoC) under counter {received}", bytes([0xD8, 1, 6]) + struct.pack(">I", carrying + 1))
        else:
            self.log["nonce_used_twice"] = received == carrying
            self.meter.highest_received[title] = max(carrying, received)

    # Services

    def serve(self, apdu: bytes) -> bytes:
        """Decipher a request if it is ciphered, answer it, and cipher the answer the same way."""
        kind = PLAIN_OF.get(apdu[0], "plain")
        if self.state == "idle":
            raise Refused("no association", bytes([0xD8, 1, 1]))
        protection = PROTECTIONS[self.meter.options.protection] if self.client != PUBLIC_CLIENT else Security.NONE
        if (kind == "plain") != (protection == Security.NONE):
            raise Refused(f"{kind} request", bytes([0xD8, 1, 5]))
        plain = self.decipher(kind, apdu, protection) if kind != "plain" else apdu
        self.choose_protection(kind, protection)
        request = buffer(plain)
        if plain[0] == 0xD9 and self.state == "associated":
            reply = GXByteBuffer()
            gurux_transfers.access(self, request, reply)
            self.keep_counter(kind)
            return octets_of(reply)
        tag, choice, invoke_id = request.getUInt8(), request.getUInt8(), request.getUInt8()
        self.settings.updateInvokeId(invoke_id)
        reply = GXByteBuffer()
        if self.state == "pending" and plain[:1] + plain[3:12] != bytes.fromhex("c3000f0000280000ff01"):
            raise Refused("request before reply_to_HLS_authentication", bytes([0xD8, 1, 1]))
        if tag == 0xC0:
            self.get(choice, invoke_id, request, reply)
        elif tag == 0xC1:
            self.set(choice, invoke_id, request, reply)
        elif tag == 0xC3:
            self.act(choice, invoke_id, request, reply)
        else:
            raise Refused(f"tag {tag:02x}", bytes([0xD8, 2, 2]))
        self.keep_counter(kind)
        return octets_of(reply)

    def keep_counter(self, kind: str) -> None:
        """Note the counter that gurux-dlms will use next."""
        if kind in ("ded", "general-ded"):
            self.dedicated_counter = self.cipher.invocationCounter
        elif kind != "plain":
            self.meter.counter = self.cipher.invocationCounter

    def decipher(self, kind: str, apdu: bytes, protection: Security) -> bytes:
        dedicated = kind in ("ded", "general-ded")
        if dedicated and self.dedicated_key is None:
            raise Refused("no dedicated key", bytes([0xD8, 1, 5]))
        key = self.dedicated_key if dedicated else self.cipher.blockCipherKey
        parameters = AesGcmParameter(0, self.settings.sourceSystemTitle, key, self.cipher.authenticationKey)
        try:
            plain = octets_of(GXCiphering.decrypt(self.settings, parameters, buffer(apdu)))
        except Exception as error:
            raise Refused(f"deciphering: {error!r}", bytes([0xD8, 1, 5])) from error
        if (parameters.security, parameters.securitySuite) != (protection, self.meter.options.suite):
            raise Refused(f"security control {int(parameters.security):02x}", bytes([0xD8, 1, 5]))
        if dedicated:
            if parameters.invocationCounter <= self.highest_dedicated:
                raise Refused("dedicated counter", bytes([0xD8, 1, 6]) + struct.pack(">I", self.highest_dedicated + 1))
            self.highest_dedicated = parameters.invocationCounter
        else:
            self.check_counter(parameters.invocationCounter)
        return plain

    def choose_protection(self, kind: str, protection: Security) -> None:
        """Tell gurux-dlms to cipher the answer as the request was."""
        settings, cipher = self.settings, self.cipher
        cipher.security = protection
        dedicated = kind in ("ded", "general-ded")
        cipher.dedicatedKey = self.dedicated_key if dedicated else None
        cipher.invocationCounter = self.dedicated_counter if dedicated else self.meter.counter
        settings.connected = ConnectionState.DLMS
        if kind.startswith("general"):
            settings.negotiatedConformance |= Conformance.GENERAL_PROTECTION
        else:
            settings.negotiatedConformance &= ~Conformance.GENERAL_PROTECTION

    def get(self, choice: int, invoke_id: int, request: GXByteBuffer, reply: GXByteBuffer) -> None:
        settings = self.settings
        if choice == 2:
            self.log["requests"].append("get-next")
            number = request.getUInt32()
            if self.rest is None or number != settings.blockIndex:
                error = (
                    ErrorCode.NO_LONG_GET_OR_READ_IN_PROGRESS
                    if self.rest is None
                    else ErrorCode.DATA_BLOCK_NUMBER_INVALID
                )
                self.rest = None
                reply_with(
                    settings, reply, GXDLMSLNParameters(settings, invoke_id, Command.GET_RESPONSE, 1, None, None, error)
                )
                return
            settings.increaseBlockIndex()
            parameters = GXDLMSLNParameters(settings, invoke_id, Command.GET_RESPONSE, 2, None, self.rest, ErrorCode.OK)
            parameters.multipleBlocks = True
        else:
            settings.resetBlockIndex()
            self.rest = None
            self.meter.refresh()
            if choice == 1:
                status, data = self.read_attribute(request)
                content = buffer(data)
                parameters = GXDLMSLNParameters(settings, invoke_id, Command.GET_RESPONSE, 1, None, content, status)
            else:
                self.log["requests"].append("get-with-list")
                results = []
                for _ in range(_GXCommon.getObjectCount(request)):
                    status, data = self.read_attribute(request)
                    results.append(b"\x00" + data if status == 0 else bytes([1, int(status)]))
                content = buffer(bytes([len(results)]) + b"".join(results))
                parameters = GXDLMSLNParameters(settings, invoke_id, Command.GET_RESPONSE, 3, None, content, 0xFF)
        reply_with(settings, reply, parameters)
        content = parameters.data
        self.rest = (
            content if content is not None and content.position < len(content) and parameters.multipleBlocks else None
        )

    def read_attribute(self, request: GXByteBuffer) -> tuple[int, bytes]:
        """Decode one descriptor with selection, and give the attribute's status and A-XDR value."""
        class_id, name, index = descriptor(request)
        selector, parameters = 0, None
        if request.getUInt8() != 0:
            selector = request.getUInt8()
            parameters = _GXCommon.getData(self.settings, request, _GXDataInfo())
        self.log["requests"].append(f"get {class_id}/{name}:{index}" + (f" selector {selector}" if selector else ""))
        item = self.meter.objects.get((class_id, name))
        if item is None:
            return ErrorCode.UNDEFINED_OBJECT, b""
        if self.client == PUBLIC_CLIENT and name not in (COUNTER_NAME, CLOCK_NAME, "0.0.42.0.0.255"):
            return ErrorCode.READ_WRITE_DENIED, b""
        if not 1 <= index <= item.getAttributeCount():
            return ErrorCode.UNDEFINED_OBJECT, b""
        arguments = ValueEventArgs(self.settings, item, index, selector, parameters)
        arguments.skipMaxPduSize = arguments.isSkipMaxPduSize = True
        arguments.server = Rights(self.settings)
        self.settings.setCount(0)
        self.settings.setIndex(0)
        if item is self.meter.profile and index == 2:
            try:
                rows, columns = self.select(selector, parameters)
            except (ValueError, IndexError, TypeError) as error:
                self.log["refused"].append(f"selection: {error!r}")
                return ErrorCode.OTHER_REASON, b""
            value: Any = item.getData(self.settings, arguments, rows, columns)
        else:
            if item.objectType == ObjectType.ASSOCIATION_LOGICAL_NAME:
                if index == 7:
                    return ErrorCode.READ_WRITE_DENIED, b""
                self.describe(item)
            value = item.getValue(self.settings, arguments)
        self.settings.setCount(0)
        self.settings.setIndex(0)
        if arguments.error != ErrorCode.OK:
            return arguments.error, b""
        encoded = GXByteBuffer()
        if item.getDataType(index) in (DataType.ARRAY, DataType.STRUCTURE):
            encoded.set(bytearray(octets_of(value)))
        else:
            GXDLMS.appendData(self.settings, item, index, encoded, value)
        return ErrorCode.OK, octets_of(encoded)

    def describe(self, association: Any) -> None:
        """Show this association in the association object."""
        association.clientSAP = self.client
        association.associationStatus = 2
        association.applicationContextName.contextId = 1 if self.cipher.security == Security.NONE else 3
        association.authenticationMechanismName.mechanismId = int(self.settings.authentication)
        context = association.xDLMSContextInfo
        context.conformance = int(self.settings.negotiatedConformance)
        context.maxReceivePduSize = context.maxSendPduSize = self.settings.maxPduSize
        context.cypheringInfo = bytearray()

    def select(self, selector: int, parameters: Any) -> tuple[list[Any], Any]:
        """The rows and the columns that a selective access to the load profile names (Blue Book, profile generic)."""
        profile = self.meter.profile
        everything = list(profile.captureObjects)
        if selector == 0:
            return profile.buffer, everything
        if selector == 1:
            begin, end = (timestamp(self.settings, parameters[at]) for at in (1, 2))
            rows = [row for row in profile.buffer if begin <= row[0].value <= end]
            return rows, profile.getColumns(parameters[3]) if parameters[3] else everything
        if selector == 2:
            first, last, first_column, last_column = parameters
            rows = profile.buffer[max(first, 1) - 1 : last or len(profile.buffer)]
            return rows, everything[max(first_column, 1) - 1 : last_column or len(everything)]
        raise ValueError(f"selector {selector}")

    def set(self, choice: int, invoke_id: int, request: GXByteBuffer, reply: GXByteBuffer) -> None:
        """SET in every form."""
        if choice != 1:
            gurux_transfers.set_(self, choice, invoke_id, request, reply)
            return
        target = descriptor(request)
        request.getUInt8()
        status = self.write(target, _GXCommon.getData(self.settings, request, _GXDataInfo()))
        parameters = GXDLMSLNParameters(self.settings, invoke_id, Command.SET_RESPONSE, choice, None, None, status)
        reply_with(self.settings, reply, parameters)

    def write(self, target: tuple[int, str, int], value: Any) -> int:
        """A Data, Register or Clock value may be written by a client that proved who it is."""
        class_id, name, index = target
        self.log["requests"].append(f"set {class_id}/{name}:{index}")
        item = self.meter.objects.get((class_id, name))
        if item is None:
            return int(ErrorCode.UNDEFINED_OBJECT)
        if self.client == PUBLIC_CLIENT or index != 2 or name == COUNTER_NAME:
            return int(ErrorCode.READ_WRITE_DENIED)
        if class_id != int(ObjectType.CLOCK):
            item.value = value
        return int(ErrorCode.OK)

    def value(self, target: tuple[int, str, int]) -> tuple[bytes, int]:
        """An attribute's value (null if there is none) and status."""
        class_id, name, index = target
        asked = struct.pack(">H6BbB", class_id, *(int(part) for part in name.split(".")), index, 0)
        self.meter.refresh()
        status, octets = self.read_attribute(buffer(asked))
        return (octets, 0) if status == ErrorCode.OK else (b"\0", int(status))

    def act(self, choice: int, invoke_id: int, request: GXByteBuffer, reply: GXByteBuffer) -> None:
        """ACTION in every form."""
        if choice != 1:
            gurux_transfers.act(self, choice, invoke_id, request, reply)
            return
        target = descriptor(request)
        argument = _GXCommon.getData(self.settings, request, _GXDataInfo()) if request.getUInt8() else None
        content, status = bytes([0]), 0
        if target == (15, "0.0.40.0.0.255", 1):
            self.log["requests"].append("action 15/0.0.40.0.0.255:1")
            content, status = self.reply_to_hls(bytes(argument or b""))
        else:
            status = self.invoke(target, argument)
        parameters = GXDLMSLNParameters(
            self.settings, invoke_id, Command.METHOD_RESPONSE, 1, None, buffer(content), ErrorCode(status)
        )
        reply_with(self.settings, reply, parameters)

    def invoke(self, target: tuple[int, str, int], argument: Any) -> int:
        """The disconnect control's two methods; the clock's do nothing. Octets are logged by their number."""
        class_id, name, index = target
        long = f" {len(argument)} octets" if isinstance(argument, (bytes, bytearray)) else ""
        self.log["requests"].append(f"action {class_id}/{name}:{index}{long}")
        item = self.meter.objects.get((class_id, name))
        if item is None:
            return int(ErrorCode.UNDEFINED_OBJECT)
        if class_id == int(ObjectType.DISCONNECT_CONTROL) and index in (1, 2) and self.client != PUBLIC_CLIENT:
            item.outputState = index == 2
            item.controlState = ControlState.CONNECTED if index == 2 else ControlState.DISCONNECTED
        elif class_id != int(ObjectType.CLOCK) or self.client == PUBLIC_CLIENT:
            return int(ErrorCode.READ_WRITE_DENIED)
        return 0

    def reply_to_hls(self, proof: bytes) -> tuple[bytes, int]:
        """Check f(StoC), and answer f(CtoS); by GMAC under a counter of its own."""
        settings = self.settings
        gmac = settings.authentication == Authentication.HIGH_GMAC
        received = struct.unpack_from(">I", proof, 1)[0] if gmac and len(proof) == 17 else 0
        if settings.authentication == Authentication.HIGH_ECDSA:
            public = GXPublicKey.fromRawBytes(b"\4" + bytes.fromhex(self.meter.options.peer_public_key))
            genuine = GXEcdsa(public).verify(proof, self.text_of(settings.sourceSystemTitle, self.meter.title))
        else:
            genuine = proof == self.f(received, settings.stoCChallenge, settings.sourceSystemTitle, self.meter.title)
        if not genuine:
            self.log["refused"].append("f(StoC)")
            self.state = "idle"
            return bytes([0]), ErrorCode.READ_WRITE_DENIED
        if gmac:
            self.check_proof_counter(received)
        counter = self.cipher.invocationCounter
        answer = self.f(counter, settings.ctoSChallenge, self.meter.title, settings.sourceSystemTitle)
        if gmac:
            self.cipher.invocationCounter = counter + 1
            if PROTECTIONS[self.meter.options.protection] == Security.NONE:
                self.meter.counter = counter + 1
        self.state = "associated"
        return bytes([1, 0, 9, len(answer)]) + answer, ErrorCode.OK

    def text_of(self, prover: Any, verifier: Any) -> bytes:
        """What mechanism 7 signs and mechanism 6 hashes behind the secret: titles, the verifier's challenge first."""
        challenges = [bytes(self.settings.stoCChallenge), bytes(self.settings.ctoSChallenge)]
        if bytes(prover) == self.meter.title:
            challenges.reverse()
        return bytes(prover) + bytes(verifier) + b"".join(challenges)

    def f(self, counter: int, challenge: Any, prover: Any, verifier: Any) -> bytes:
        """The prover's answer to `challenge`, made by gurux-dlms by the association's mechanism."""
        secret: Any = self.meter.options.password.encode()
        if self.settings.authentication == Authentication.HIGH_GMAC:
            secret = bytearray(prover)
        elif self.settings.authentication == Authentication.HIGH_SHA256:
            secret += self.text_of(prover, verifier)
        elif self.settings.authentication == Authentication.HIGH_ECDSA:
            self.cipher.signingKeyPair = (
                GXPublicKey.fromRawBytes(b"\4" + bytes.fromhex(self.meter.options.peer_public_key)),
                GXPrivateKey.fromRawBytes(bytes.fromhex(self.meter.options.private_key)),
            )
            secret = self.text_of(prover, verifier)
        return octets_of(GXSecure.secure(self.settings, self.cipher, counter, bytes(challenge), secret))


def counter_of_aarq(apdu: bytes) -> int:
    """The invocation counter under which an AARQ's InitiateRequest is ciphered."""
    at = 2 if apdu[1] < 0x80 else 3
    while apdu[at] != 0xBE:
        at += 2 + apdu[at + 1]
    # be LL 04 LL, then 21 LL SC IC or db 08 TITLE LL SC IC
    skipped = 7 if apdu[at + 4] == 0x21 else 16
    counter: int = struct.unpack_from(">I", apdu, at + skipped)[0]
    return counter


def timestamp(settings: GXDLMSSettings, value: Any) -> dt.datetime:
    """The moment that an octet-string or date-time of a range names."""
    if isinstance(value, (bytes, bytearray)):
        value = _GXCommon.changeType(settings, bytearray(value), DataType.DATETIME)
    moment: dt.datetime = value.value
    return moment if moment.tzinfo else moment.replace(tzinfo=ZONE)


class Connection(socketserver.BaseRequestHandler):
    """The wrapper: one WPDU in, one WPDU out."""

    def handle(self) -> None:
        meter: Meter = self.server.meter  # type: ignore[attr-defined]
        association = Association(meter)
        self.request.settimeout(IDLE_TIMEOUT_S)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while header := self.take(8):
                version, source, destination, length = struct.unpack(">4H", header)
                if version != 1 or length > LONGEST_APDU:
                    association.log["refused"].append("wrapper header")
                    break
                answer = association.answer(source, self.take(length))
                if answer:
                    self.request.sendall(struct.pack(">4H", 1, destination, source, len(answer)) + answer)
        except (OSError, ValueError, IndexError) as error:
            association.log["error"] = repr(error)
        self.server.say(association.log)  # type: ignore[attr-defined]

    def take(self, count: int) -> bytes:
        """Exactly `count` octets, or none when the peer closed."""
        octets = b""
        while len(octets) < count:
            more = self.request.recv(count - len(octets))
            if not more:
                return b""
            octets += more
        return octets


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def say(self, what: dict[str, Any]) -> None:
        """One JSON line on what was standard output; gurux-dlms prints to standard error here."""
        OUTPUT.write(json.dumps(what) + "\n")
        OUTPUT.flush()


OUTPUT = sys.stdout


def wait_for_end_of_input(ended: threading.Event) -> None:
    """Set `ended` when whoever started this closed the pipe."""
    sys.stdin.buffer.read()
    ended.set()


def main() -> int:
    global OUTPUT
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--auth", choices=AUTHENTICATIONS, default="hls-gmac")
    parser.add_argument("--password", default="12345678")
    parser.add_argument("--protection", choices=PROTECTIONS, default="auth+enc")
    parser.add_argument("--general-protection", action="store_true", help="offer general-glo and general-ded")
    parser.add_argument("--access", action="store_true", help="offer ACCESS")
    parser.add_argument("--system-title", default="4752580000000001")
    parser.add_argument("--encryption-key", default="0b0c0d0e0f101112131415161718191a")
    parser.add_argument("--authentication-key", default="a0a1a2a3a4a5a6a7a8a9aaabacadaeaf")
    parser.add_argument("--invocation-counter", type=int, default=1000, help="the meter's own next counter")
    parser.add_argument("--expected-counter", type=int, default=0, help="the lowest counter taken from a client")
    parser.add_argument("--challenge-length", type=int, default=16)
    parser.add_argument("--suite", type=int, default=0)
    parser.add_argument("--private-key", default="", help="the meter's, raw, for hls-ecdsa")
    parser.add_argument("--peer-public-key", default="", help="x and y of the client's")
    parser.add_argument("--max-pdu", type=int, default=512)
    parser.add_argument("--lines", type=int, default=192, help="lines in the load profile")
    parser.add_argument("--seconds", type=float, default=60, help="stop after so long, whatever happens")
    options = parser.parse_args()

    OUTPUT = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    server = Server(("127.0.0.1", options.port), Connection)
    server.meter = Meter(options)  # type: ignore[attr-defined]
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    serving.start()
    server.say({"ready": True, "host": "127.0.0.1", "port": server.server_address[1]})
    ended = threading.Event()
    threading.Thread(target=wait_for_end_of_input, args=(ended,), daemon=True).start()
    ended.wait(options.seconds)
    server.shutdown()
    OUTPUT.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
