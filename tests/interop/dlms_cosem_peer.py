"""dlms-cosem as a second opinion over a pipe. Runs in `.venv-dlms-cosem`, never inside the head-end.

Reads one JSON request a line, answers one JSON line each, in order; an error is an answer too. `do` names the work,
octets are hex, KEYS are `encryption_key`, `authentication_key` and `system_title`:

    {"do": "decode", "hex": APDU}                               the APDU's class and fields
    {"do": "data", "hex": A-XDR DATA}                           the value
    {"do": "decipher", "hex": GENERAL-GLO, KEYS}                the plain APDU
    {"do": "open", "hex": GLO-* or DED-*, KEYS}                 the same for the forms without a system title
    {"do": "encipher", "plain": APDU, KEYS, "counter", "form"}  form: general-glo, glo-get-request, ...
    {"do": "gmac", KEYS, "counter", "challenge"}                f(challenge) of HLS mechanism 5
    {"do": "aarq", "mechanism", KEYS, "counter", "challenge"}   mechanism: none, low (with "password"), hls-gmac
    {"do": "aare", ...}                                         the same fields
    {"do": "get-request", "object"}                             and get-request-next, get-request-with-list, get-block,
                                                                set-request, action-request: see `encode`
    {"do": "read", "port", KEYS, "mechanism", "objects"}        as a client; objects like 3/1.0.1.8.0.255:2

dlms-cosem may never return from some octets: a request that takes too long ends the process with status 4.
"""

from __future__ import annotations

import argparse
import datetime as dt
import enum
import json
import logging
import os
import sys
import threading
from typing import Any

import attr
import structlog
from dlms_cosem import cosem, dlms_data, enumerations, security, utils
from dlms_cosem.client import DlmsClient
from dlms_cosem.connection import XDlmsApduFactory, make_conformance
from dlms_cosem.io import BlockingTcpIO, HdlcTransport, TcpTransport
from dlms_cosem.protocol import acse, xdlms

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

AUTH_ENC = 0x30
# The tags of ciphered APDUs whose content is SC, IC, text, tag without a system title in front.
GLO_TAGS = {
    "glo-initiate-request": 0x21,
    "glo-initiate-response": 0x28,
    "glo-get-request": 0xC8,
    "glo-set-request": 0xC9,
    "glo-action-request": 0xCB,
    "glo-get-response": 0xCC,
    "glo-set-response": 0xCD,
    "glo-action-response": 0xCF,
    "ded-get-request": 0xD0,
    "ded-get-response": 0xD4,
}


def shown(value: Any) -> Any:
    """A JSON form of dlms-cosem's objects: octets in hex, attrs classes as objects with their class name."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, (list, tuple)):
        return [shown(item) for item in value]
    if attr.has(type(value)):
        fields = {field.name: shown(getattr(value, field.name)) for field in attr.fields(type(value))}
        return {"class": type(value).__name__, **fields}
    return value if isinstance(value, (bool, int, float, str, type(None))) else repr(value)


def octets(request: dict[str, Any], name: str) -> bytes:
    return bytes.fromhex(request[name])


def control(request: dict[str, Any]) -> security.SecurityControlField:
    return security.SecurityControlField.from_bytes(bytes([request.get("security_control", AUTH_ENC)]))


def keys(request: dict[str, Any]) -> tuple[bytes, bytes]:
    return octets(request, "encryption_key"), octets(request, "authentication_key")


def name(request: dict[str, Any]) -> cosem.CosemAttribute:
    """The attribute (or method) that `object` names: CLASS/LOGICAL NAME:NUMBER."""
    return attribute(request["object"])


def attribute(text: str) -> cosem.CosemAttribute:
    class_id, rest = text.split("/")
    logical_name, index = rest.split(":")
    return cosem.CosemAttribute(
        enumerations.CosemInterface(int(class_id)),
        cosem.Obis(*(int(part) for part in logical_name.split("."))),
        int(index),
    )


def decode(request: dict[str, Any]) -> Any:
    return shown(XDlmsApduFactory.apdu_from_bytes(bytearray.fromhex(request["hex"])))


def data(request: dict[str, Any]) -> Any:
    return shown(utils.parse_as_dlms_data(octets(request, "hex")))


def decipher(request: dict[str, Any]) -> Any:
    apdu = xdlms.GeneralGlobalCipher.from_bytes(octets(request, "hex"))
    plain = apdu.to_plain_apdu(*keys(request))
    return {"plain": plain.hex(), "system_title": shown(apdu.system_title), "counter": apdu.invocation_counter}


def open_glo(request: dict[str, Any]) -> Any:
    """Decipher a glo- or ded- APDU: its envelope is read here, dlms-cosem has the general form only."""
    apdu = octets(request, "hex")
    length, rest = dlms_data.decode_variable_integer(bytearray(apdu[1:]))
    content = bytes(rest[:length])
    encryption_key, authentication_key = keys(request)
    plain = security.decrypt(
        security_control=security.SecurityControlField.from_bytes(content[:1]),
        system_title=octets(request, "system_title"),
        invocation_counter=int.from_bytes(content[1:5], "big"),
        key=encryption_key,
        cipher_text=content[5:],
        auth_key=authentication_key,
    )
    return {"plain": bytes(plain).hex(), "counter": int.from_bytes(content[1:5], "big")}


def encipher(request: dict[str, Any]) -> Any:
    encryption_key, authentication_key = keys(request)
    text = security.encrypt(
        control(request),
        system_title=octets(request, "system_title"),
        invocation_counter=request["counter"],
        key=encryption_key,
        plain_text=octets(request, "plain"),
        auth_key=authentication_key,
    )
    content = control(request).to_bytes() + request["counter"].to_bytes(4, "big") + text
    length = dlms_data.encode_variable_integer(len(content))
    form = request.get("form", "general-glo")
    if form == "general-glo":
        title = octets(request, "system_title")
        return {"hex": (bytes([0xDB, len(title)]) + title + length + content).hex()}
    return {"hex": (bytes([GLO_TAGS[form]]) + length + content).hex()}


def gmac(request: dict[str, Any]) -> Any:
    """f(challenge): security control, counter, tag, as reply_to_HLS_authentication carries it."""
    encryption_key, authentication_key = keys(request)
    only_authenticated = security.SecurityControlField(security_suite=0, authenticated=True)
    tag = security.gmac(
        security_control=only_authenticated,
        system_title=octets(request, "system_title"),
        invocation_counter=request["counter"],
        key=encryption_key,
        auth_key=authentication_key,
        challenge=octets(request, "challenge"),
    )
    return {"hex": (only_authenticated.to_bytes() + request["counter"].to_bytes(4, "big") + tag).hex()}


MECHANISMS = {
    "none": enumerations.AuthenticationMechanism.NONE,
    "low": enumerations.AuthenticationMechanism.LLS,
    "hls-gmac": enumerations.AuthenticationMechanism.HLS_GMAC,
}


def user_information(request: dict[str, Any], initiate: Any, ciphered: Any) -> Any:
    """The user-information: the initiate APDU, ciphered when a key is given."""
    if "encryption_key" not in request:
        return acse.UserInformation(content=initiate)
    encryption_key, authentication_key = keys(request)
    text = security.encrypt(
        control(request),
        system_title=octets(request, "system_title"),
        invocation_counter=request["counter"],
        key=encryption_key,
        plain_text=initiate.to_bytes(),
        auth_key=authentication_key,
    )
    content = ciphered(security_control=control(request), invocation_counter=request["counter"], ciphered_text=text)
    return acse.UserInformation(content=content)


def aarq(request: dict[str, Any]) -> Any:
    initiate = xdlms.InitiateRequest(
        proposed_conformance=make_conformance(bytes(16) if "encryption_key" in request else None, False),
        client_max_receive_pdu_size=request.get("max_pdu", 1024),
    )
    mechanism = MECHANISMS[request["mechanism"]]
    value = (
        None
        if request["mechanism"] == "none"
        else octets(request, "challenge")
        if "challenge" in request
        else request["password"].encode()
    )
    apdu = acse.ApplicationAssociationRequest(
        ciphered="encryption_key" in request,
        system_title=octets(request, "system_title") if "system_title" in request else None,
        authentication=None if request["mechanism"] == "none" else mechanism,
        authentication_value=value,
        user_information=user_information(request, initiate, xdlms.GlobalCipherInitiateRequest),
    )
    return {"hex": apdu.to_bytes().hex()}


def aare(request: dict[str, Any]) -> Any:
    initiate = xdlms.InitiateResponse(
        negotiated_conformance=make_conformance(bytes(16) if "encryption_key" in request else None, False),
        server_max_receive_pdu_size=request.get("max_pdu", 1024),
    )
    hls = request["mechanism"] == "hls-gmac"
    apdu = acse.ApplicationAssociationResponse(
        ciphered="encryption_key" in request,
        result=enumerations.AssociationResult.ACCEPTED,
        result_source_diagnostics=enumerations.AcseServiceUserDiagnostics.AUTHENTICATION_REQUIRED
        if hls
        else enumerations.AcseServiceUserDiagnostics.NULL,
        system_title=octets(request, "system_title") if "system_title" in request else None,
        authentication=MECHANISMS[request["mechanism"]] if hls else None,
        authentication_value=octets(request, "challenge") if hls else None,
        user_information=user_information(request, initiate, xdlms.GlobalCipherInitiateResponse),
    )
    return {"hex": apdu.to_bytes().hex()}


def invoke(request: dict[str, Any]) -> Any:
    return xdlms.InvokeIdAndPriority(invoke_id=request.get("invoke_id", 1), confirmed=True, high_priority=True)


def encode(request: dict[str, Any]) -> Any:
    """Encode one xDLMS APDU from its parts."""
    kind = request["do"]
    if kind == "get-request":
        apdu: Any = xdlms.GetRequestNormal(cosem_attribute=name(request), invoke_id_and_priority=invoke(request))
    elif kind == "get-request-next":
        apdu = xdlms.GetRequestNext(block_number=request["block_number"], invoke_id_and_priority=invoke(request))
    elif kind == "get-request-with-list":
        apdu = xdlms.GetRequestWithList(
            cosem_attributes_with_selection=[
                cosem.CosemAttributeWithSelection(attribute=attribute(text), access_selection=None)
                for text in request["objects"]
            ],
            invoke_id_and_priority=invoke(request),
        )
    elif kind == "get-block":
        block = xdlms.GetResponseLastBlock if request["last"] else xdlms.GetResponseWithBlock
        apdu = block(
            data=octets(request, "data"), block_number=request["block_number"], invoke_id_and_priority=invoke(request)
        )
    elif kind == "set-request":
        apdu = xdlms.SetRequestNormal(
            cosem_attribute=name(request), data=octets(request, "data"), invoke_id_and_priority=invoke(request)
        )
    else:
        item = name(request)
        apdu = xdlms.ActionRequestNormal(
            cosem_method=cosem.CosemMethod(item.interface, item.instance, item.attribute),
            data=octets(request, "data") if "data" in request else None,
            invoke_id_and_priority=invoke(request),
        )
    return {"hex": apdu.to_bytes().hex()}


def client_of(request: dict[str, Any]) -> DlmsClient:
    """A client with the association's parameters."""
    mechanism = request.get("mechanism", "hls-gmac")
    authentication: Any = security.NoSecurityAuthentication()
    if mechanism == "low":
        authentication = security.LowLevelSecurityAuthentication(request["password"].encode())
    elif mechanism == "hls-gmac":
        authentication = security.HighLevelSecurityGmacAuthentication(
            challenge_length=request.get("challenge_length", 16)
        )
    ciphered = {}
    if "encryption_key" in request:
        ciphered = {
            "encryption_key": octets(request, "encryption_key"),
            "authentication_key": octets(request, "authentication_key"),
            "client_system_title": octets(request, "system_title"),
            "client_initial_invocation_counter": request["counter"],
        }
    # Its HDLC transport is meant for serial lines; any stream does.
    transport = HdlcTransport if request.get("hdlc") else TcpTransport
    return DlmsClient(
        transport=transport(
            client_logical_address=request.get("client", 1),
            server_logical_address=request.get("server", 1),
            io=BlockingTcpIO(host=request.get("host", "127.0.0.1"), port=request["port"], timeout=5),
        ),
        authentication=authentication,
        max_pdu_size=request.get("max_pdu", 1024),
        **ciphered,
    )


def read(request: dict[str, Any]) -> Any:
    """Associate, read each object, release; the A-XDR octets that were received, and the value."""
    client = client_of(request)
    items = []
    with client.session() as session:
        for text in request["objects"]:
            try:
                received = session.get(attribute(text))
                items.append(
                    {
                        "object": text,
                        "ok": True,
                        "hex": received.hex(),
                        "value": shown(utils.parse_as_dlms_data(received)),
                    }
                )
            except Exception as error:  # noqa: BLE001 - the meter's own no, as dlms-cosem tells it
                items.append({"object": text, "ok": False, "error": repr(error)})
    return {"items": items, "next_counter": client.client_invocation_counter}


WORK = {
    "decode": decode,
    "data": data,
    "decipher": decipher,
    "open": open_glo,
    "encipher": encipher,
    "gmac": gmac,
    "aarq": aarq,
    "aare": aare,
    "read": read,
    **dict.fromkeys(
        ["get-request", "get-request-next", "get-request-with-list", "get-block", "set-request", "action-request"],
        encode,
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--request-timeout", type=float, default=5, help="seconds for one request")
    options = parser.parse_args()
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    for line in sys.stdin:
        alarm = threading.Timer(options.request_timeout, lambda: os._exit(4))
        alarm.daemon = True
        alarm.start()
        try:
            request = json.loads(line)
            answer = {"id": request.get("id"), "ok": True, "answer": WORK[request["do"]](request)}
        except Exception as error:  # noqa: BLE001 - the line is the report
            answer = {"ok": False, "error": repr(error)}
        alarm.cancel()
        output.write(json.dumps(answer) + "\n")
        output.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
