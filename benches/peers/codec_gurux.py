"""gurux-dlms' side of the codec bench. Runs in `.venv-gurux`: prints one JSON line."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import tomllib
from pathlib import Path
from typing import Any

from benches.timing import report
from gurux_dlms import GXByteBuffer, GXReplyData
from gurux_dlms.ConnectionState import ConnectionState
from gurux_dlms.enums import Authentication, Command, Conformance, InterfaceType, Security
from gurux_dlms.GXDLMS import GXDLMS
from gurux_dlms.GXDLMSLNParameters import GXDLMSLNParameters
from gurux_dlms.GXDLMSSettings import GXDLMSSettings
from gurux_dlms.objects import GXDLMSRegister
from gurux_dlms.objects.enums import SecuritySuite
from gurux_dlms.secure import GXDLMSSecureClient

FIXTURES = tomllib.loads((Path(__file__).parents[1] / "fixtures" / "codec.toml").read_text())
KEYS = {name: bytes.fromhex(value) for name, value in FIXTURES["keys"].items()}
REGISTER = GXDLMSRegister("1.0.1.8.0.255")


def buffer(octets: bytes) -> GXByteBuffer:
    made = GXByteBuffer()
    made.set(bytearray(octets))
    made.position = 0
    return made


def client(interface: InterfaceType = InterfaceType.PDU) -> GXDLMSSecureClient:
    made = GXDLMSSecureClient(True, 1, 1, Authentication.HIGH_GMAC, None, interface)
    made.ciphering.security = Security.AUTHENTICATION_ENCRYPTION
    made.ciphering.systemTitle = bytearray(KEYS["client_title"])
    made.ciphering.blockCipherKey = bytearray(KEYS["encryption_key"])
    made.ciphering.authenticationKey = bytearray(KEYS["authentication_key"])
    made.ciphering.invocationCounter = FIXTURES["association"]["aarq_counter"]
    made.maxReceivePDUSize = 8192
    return made


def associated(interface: InterfaceType = InterfaceType.PDU) -> GXDLMSSecureClient:
    made = client(interface)
    made.settings.sourceSystemTitle = bytearray(KEYS["meter_title"])
    made.settings.connected = ConnectionState.DLMS
    made.settings.negotiatedConformance = made.proposedConformance | Conformance.GENERAL_PROTECTION
    return made


def of_suite(suite: int) -> GXDLMSSecureClient:
    made = associated()
    made.ciphering.securitySuite = SecuritySuite(suite)
    if suite == 2:
        made.ciphering.blockCipherKey = bytearray(KEYS["encryption_key_256"])
        made.ciphering.authenticationKey = bytearray(KEYS["authentication_key_256"])
    return made


READER = associated()
HDLC_READER = associated(InterfaceType.HDLC)
SUITES = {suite: of_suite(suite) for suite in (1, 2)}


def encode_get_request() -> bytes:
    READER.ciphering.invocationCounter = FIXTURES["get-request"]["counter"]
    return bytes(READER.read(REGISTER, 2)[0])


def opened(octets: bytes, reader: GXDLMSSecureClient = READER) -> Any:
    reply = GXReplyData()
    reader.getData(buffer(octets), reply, None)
    return reply.value


def unframed(octets: bytes) -> Any:
    """The same frame each time: its numbers are the first of a link."""
    HDLC_READER.settings.resetFrameSequence()
    return opened(octets, HDLC_READER)


AARE = bytes.fromhex(FIXTURES["association"]["aare"])
METER_PROOF = b"\x09\x11" + bytes.fromhex(FIXTURES["association"]["meter_proof"])
C_TO_S = bytes.fromhex(FIXTURES["association"]["c_to_s"])


def associate() -> None:
    """AARQ ciphered and encoded; AARE decoded and deciphered; f(StoC) in its ACTION, ciphered; f(CtoS) verified."""
    made = client()
    made.settings.useCustomChallenge = True
    made.settings.ctoSChallenge = bytearray(C_TO_S)
    made.aarqRequest()
    reply = GXReplyData()
    made.getData(buffer(AARE), reply, None)
    made.parseAareResponse(reply.data)
    made.getApplicationAssociationRequest()
    made.parseApplicationAssociationResponse(buffer(METER_PROOF))


SERVER = GXDLMSSettings(True, None)
SERVER.interfaceType = InterfaceType.PDU
SERVER.setUseLogicalNameReferencing(True)
SERVER.maxPduSize = 8192
RESPONSE_DATA = bytes.fromhex(FIXTURES["get-response"]["plain"])[4:]


def encode_get_response() -> bytes:
    out = GXByteBuffer()
    GXDLMS.getLNPdu(GXDLMSLNParameters(SERVER, 0xC1, Command.GET_RESPONSE, 1, None, buffer(RESPONSE_DATA), 0), out)
    return bytes(out.array())


def main() -> None:
    get_response = bytes.fromhex(FIXTURES["get-response"]["general_glo"])
    get_response_plain = bytes.fromhex(FIXTURES["get-response"]["plain"])
    get_response_hdlc = bytes.fromhex(FIXTURES["get-response"]["hdlc"])
    suites = {suite: bytes.fromhex(FIXTURES["get-response"][f"suite_{suite}"]) for suite in (1, 2)}
    profile = bytes.fromhex(FIXTURES["profile"]["general_glo"])

    with contextlib.redirect_stdout(io.StringIO()):
        assert encode_get_request()[:11].hex() == FIXTURES["get-request"]["general_glo"][:22]
        assert encode_get_response() == get_response_plain
        assert opened(get_response) == opened(get_response_plain) == 12345678
        assert unframed(get_response_hdlc) == unframed(get_response_hdlc) == 12345678
        assert [opened(octets, SUITES[suite]) for suite, octets in suites.items()] == [12345678] * 2
        assert len(opened(profile)) == 96
        associate()

    report(
        "gurux-dlms",
        importlib.metadata.version("gurux-dlms"),
        {
            "GET request, encode and cipher": encode_get_request,
            "GET response, encode": encode_get_response,
            "GET response, decode": lambda: opened(get_response_plain),
            "GET response, decipher and decode": lambda: opened(get_response),
            "GET response in HDLC, deframe, decipher and decode": lambda: unframed(get_response_hdlc),
            "GET response, suite 1, decipher and decode": lambda: opened(suites[1], SUITES[1]),
            "GET response, suite 2, decipher and decode": lambda: opened(suites[2], SUITES[2]),
            "96 x 4 profile, decipher and decode": lambda: opened(profile),
            "association: AARQ, AARE, both proofs": associate,
        },
    )


if __name__ == "__main__":
    main()
