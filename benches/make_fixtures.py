"""Make `fixtures/codec.toml`: the octets that the codec bench times, ciphered by dlms-cosem.

    python -m benches.make_fixtures

The octets are the same each time: nothing here is random, and the keys are the bench's own.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tests.interop.peers import dlms_cosem

KEYS = {
    "encryption_key": "7b1e52c9043d86af6019d28b44fdb66f",
    "authentication_key": "2a93ec45be1770d9328be45da60f68c1",
    "encryption_key_256": "90d1b83c47e62a05fb7d19c86e34a2f08c51e7043bd96f12a85d40be79c3162e",
    "authentication_key_256": "5c07f3912be84d6a10c6e59d73fa28b43f81d05a96e7c24b08d3719ce64a5bf2",
    "client_title": "42454e0000000001",
    "meter_title": "4950420200010001",
}
C_TO_S = "000102030405060708090a0b0c0d0e0f"
S_TO_C = "f0e0d0c0b0a090807060504030201000"
TARGET = Path(__file__).parent / "fixtures" / "codec.toml"


def profile_data() -> bytes:
    """96 lines of a day: date-time and four double-long-unsigned."""
    out = bytes([1, 96])
    begin = dt.datetime(2026, 3, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    for line in range(96):
        at = begin + dt.timedelta(minutes=15 * (line + 1))
        out += bytes([2, 5, 9, 12]) + at.year.to_bytes(2, "big")
        out += bytes([at.month, at.day, at.isoweekday(), at.hour, at.minute, 0, 0, 0xFF, 0xC4, 0])
        for column in range(4):
            out += b"\x06" + (1_000_000 * (column + 1) + 250 * line + column).to_bytes(4, "big")
    return out


def ciphered(suite: int, plain: bytes, counter: int) -> bytes:
    """general-glo-ciphering of the meter's, authenticated and encrypted, in suite 1 or 2 (Green Book, 9.2.7)."""
    size = "_256" if suite == 2 else ""
    key, authentication_key = (bytes.fromhex(KEYS[name + size]) for name in ("encryption_key", "authentication_key"))
    title, control, count = bytes.fromhex(KEYS["meter_title"]), bytes([0x30 | suite]), counter.to_bytes(4, "big")
    # Tags of 12 octets: the first 12 of the 16 that the library makes.
    text = AESGCM(key).encrypt(title + count, plain, control + authentication_key)[:-4]
    return b"\xdb\x08" + title + bytes([5 + len(text)]) + control + count + text


def check_sequence(octets: bytes) -> bytes:
    """FCS-16 of ISO/IEC 13239."""
    register = 0xFFFF
    for octet in octets:
        register ^= octet
        for _ in range(8):
            register = register >> 1 ^ (0x8408 if register & 1 else 0)
    return (register ^ 0xFFFF).to_bytes(2, "little")


def hdlc(apdu: bytes) -> bytes:
    """An information frame of server 1 to client 1 with one-octet addresses: N(S) 0, N(R) 1, final."""
    information = b"\xe6\xe7\x00" + apdu
    head = (0xA000 | 2 + 2 + 1 + 2 + len(information) + 2).to_bytes(2, "big") + b"\x03\x03\x30"
    frame = head + check_sequence(head) + information
    return b"\x7e" + frame + check_sequence(frame) + b"\x7e"


def main() -> None:
    plain = {
        "get-request": bytes.fromhex("c001c100030100010800ff0200"),
        "get-response": bytes.fromhex("c401c1000600bc614e"),
        "profile": bytes.fromhex("c401c100") + profile_data(),
    }
    text = (
        "# Made by make_fixtures.py; dlms-cosem did the ciphering. Keys of the benches, used nowhere else.\n\n[keys]\n"
    )
    text += "".join(f'{name} = "{value}"\n' for name, value in KEYS.items())
    with dlms_cosem() as peer:
        shared = {"encryption_key": KEYS["encryption_key"], "authentication_key": KEYS["authentication_key"]}
        for counter, (name, octets) in enumerate(plain.items(), start=100):
            title = KEYS["client_title" if name == "get-request" else "meter_title"]
            tag = "glo-get-request" if name == "get-request" else "glo-get-response"
            forms = {
                form: peer.ask("encipher", plain=octets.hex(), counter=counter, system_title=title, form=form, **shared)
                for form in ("general-glo", tag)
            }
            text += f'\n[{name}]\ncounter = {counter}\nplain = "{octets.hex()}"\n'
            text += f'general_glo = "{forms["general-glo"]["hex"]}"\nglo = "{forms[tag]["hex"]}"\n'
            if name == "get-response":
                text += f'hdlc = "{hdlc(bytes.fromhex(forms["general-glo"]["hex"])).hex()}"\n'
                for suite in (1, 2):
                    text += f'suite_{suite} = "{ciphered(suite, octets, counter).hex()}"\n'
        meter = {**shared, "system_title": KEYS["meter_title"]}
        aare = peer.ask("aare", counter=200, mechanism="hls-gmac", challenge=S_TO_C, max_pdu=8192, **meter)["hex"]
        # dlms-cosem puts diagnostic 14 beside what it encodes: the octets are as a meter sends them.
        proof = peer.ask("gmac", counter=201, challenge=C_TO_S, **meter)["hex"]
        client = {**shared, "system_title": KEYS["client_title"]}
        aarq = peer.ask("aarq", counter=300, mechanism="hls-gmac", challenge=C_TO_S, max_pdu=8192, **client)["hex"]
        reply = peer.ask("gmac", counter=301, challenge=S_TO_C, **client)["hex"]
    text += f'\n[association]\nc_to_s = "{C_TO_S}"\ns_to_c = "{S_TO_C}"\naare_counter = 200\naare = "{aare}"\n'
    text += f'meter_proof_counter = 201\nmeter_proof = "{proof}"\n'
    text += f'aarq_counter = 300\naarq = "{aarq}"\nclient_proof_counter = 301\nclient_proof = "{reply}"\n'
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text)
    print(TARGET)


if __name__ == "__main__":
    main()
