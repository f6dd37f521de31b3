"""dlms-cosem's side of the codec bench. Runs in `.venv-dlms-cosem`: prints one JSON line."""

from __future__ import annotations

import importlib.metadata
import logging
import tomllib
from pathlib import Path
from typing import Any

import structlog
from benches.timing import report
from dlms_cosem import cosem, enumerations, security, utils
from dlms_cosem.connection import DlmsConnection, XDlmsApduFactory, make_conformance
from dlms_cosem.dlms_data import OctetStringData
from dlms_cosem.hdlc import frames
from dlms_cosem.parsers import ProfileGenericBufferParser
from dlms_cosem.protocol import acse, xdlms

# The library logs each APDU; a head-end in production would not, so it does not here either.
structlog.configure(
    wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), cache_logger_on_first_use=True
)

FIXTURES = tomllib.loads((Path(__file__).parents[1] / "fixtures" / "codec.toml").read_text())
KEYS = {name: bytes.fromhex(value) for name, value in FIXTURES["keys"].items()}
CONTROL = security.SecurityControlField(0, authenticated=True, encrypted=True)
REGISTER = cosem.CosemAttribute(enumerations.CosemInterface.REGISTER, cosem.Obis(1, 0, 1, 8, 0), 2)


def encode_get_request() -> bytes:
    plain = xdlms.GetRequestNormal(cosem_attribute=REGISTER).to_bytes()
    return protect(plain, FIXTURES["get-request"]["counter"])


def protect(plain: bytes, counter: int) -> bytes:
    text = security.encrypt(
        CONTROL, KEYS["client_title"], counter, KEYS["encryption_key"], plain, KEYS["authentication_key"]
    )
    return xdlms.GeneralGlobalCipher(KEYS["client_title"], CONTROL, counter, text).to_bytes()


CLOCK = cosem.CosemAttribute(enumerations.CosemInterface.CLOCK, cosem.Obis(0, 0, 1, 0, 0), 2)
PROFILE = ProfileGenericBufferParser(capture_objects=[CLOCK, REGISTER, REGISTER, REGISTER, REGISTER], capture_period=15)


def deciphered(octets: bytes) -> Any:
    apdu = XDlmsApduFactory.apdu_from_bytes(octets)
    plain = apdu.to_plain_apdu(KEYS["encryption_key"], KEYS["authentication_key"])
    return XDlmsApduFactory.apdu_from_bytes(plain).data


def opened(octets: bytes) -> Any:
    return utils.parse_as_dlms_data(deciphered(octets))


def opened_profile(octets: bytes) -> Any:
    """Lines with their capture times as date-times, as the library hands a profile to its user."""
    return PROFILE.parse_bytes(deciphered(octets))


def decoded(octets: bytes) -> Any:
    return utils.parse_as_dlms_data(XDlmsApduFactory.apdu_from_bytes(octets).data)


def unframed(octets: bytes) -> Any:
    """What stands after the LLC header (E6 E7 00) of an information frame."""
    return opened(frames.InformationFrame.from_bytes(octets).payload[3:])


AARE = bytes.fromhex(FIXTURES["association"]["aare"])
METER_PROOF = bytes.fromhex(FIXTURES["association"]["meter_proof"])
C_TO_S = bytes.fromhex(FIXTURES["association"]["c_to_s"])


def associate() -> bytes:
    """AARQ ciphered and encoded; AARE decoded and deciphered; f(StoC) in its ACTION, ciphered; f(CtoS) verified."""
    authentication = security.HighLevelSecurityGmacAuthentication(challenge_length=16)
    authentication.calling_authentication_value = C_TO_S
    connection = DlmsConnection(
        authentication=authentication,
        client_system_title=KEYS["client_title"],
        global_encryption_key=KEYS["encryption_key"],
        global_authentication_key=KEYS["authentication_key"],
        client_invocation_counter=FIXTURES["association"]["aarq_counter"],
        max_pdu_size=8192,
        conformance=make_conformance(KEYS["encryption_key"], False),
    )
    aarq: bytes = connection.send(connection.get_aarq())
    connection.receive_data(AARE)
    if connection.next_event().result is not enumerations.AssociationResult.ACCEPTED:
        raise AssertionError("AARE")
    proof = OctetStringData(authentication.hls_generate_reply_data(connection)).to_bytes()
    method = cosem.CosemMethod(enumerations.CosemInterface.ASSOCIATION_LN, cosem.Obis(0, 0, 40, 0, 0), 1)
    connection.send(xdlms.ActionRequestNormal(cosem_method=method, data=proof))
    if not authentication.hls_meter_data_is_valid(METER_PROOF, connection):
        raise AssertionError("f(CtoS)")
    return aarq


def main() -> None:
    get_response = bytes.fromhex(FIXTURES["get-response"]["general_glo"])
    get_response_plain = bytes.fromhex(FIXTURES["get-response"]["plain"])
    get_response_hdlc = bytes.fromhex(FIXTURES["get-response"]["hdlc"])
    profile = bytes.fromhex(FIXTURES["profile"]["general_glo"])
    aarq = bytes.fromhex(FIXTURES["association"]["aarq"])

    assert encode_get_request().hex() == FIXTURES["get-request"]["general_glo"]
    assert opened(get_response) == decoded(get_response_plain) == 12345678
    assert unframed(get_response_hdlc) == 12345678
    assert len(opened_profile(profile)) == 96
    assert associate() == aarq
    assert isinstance(XDlmsApduFactory.apdu_from_bytes(aarq), acse.ApplicationAssociationRequest)

    report(
        "dlms-cosem",
        importlib.metadata.version("dlms-cosem"),
        {
            "GET request, encode and cipher": encode_get_request,
            "GET response, decode": lambda: decoded(get_response_plain),
            "GET response, decipher and decode": lambda: opened(get_response),
            "GET response in HDLC, deframe, decipher and decode": lambda: unframed(get_response_hdlc),
            "96 x 4 profile, decipher and decode": lambda: opened_profile(profile),
            "association: AARQ, AARE, both proofs": associate,
        },
    )


if __name__ == "__main__":
    main()
