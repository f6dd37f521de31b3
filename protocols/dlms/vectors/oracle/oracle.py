"""The cryptography of DLMS/COSEM a second time, on pyca/cryptography, and the vectors that it makes.

Written from the Green Book and NIST SP 800-56A, not from the crate. `protocols/dlms/tests/oracle.rs` compares every
octet with the crate's; `tests/interop/test_oracle.py` opens with it what our two ends say to each other.

    python protocols/dlms/vectors/oracle/oracle.py > protocols/dlms/vectors/oracle/security.toml

Everything is made from a fixed seed: the same vectors come out each time. The keys are used nowhere else.
"""

from __future__ import annotations

import hashlib
import itertools
import sys
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

TAG = 12
AUTHENTICATED, ENCRYPTED = 0x10, 0x20
PROTECTIONS = {"auth": AUTHENTICATED, "enc": ENCRYPTED, "auth+enc": AUTHENTICATED | ENCRYPTED}
KEY_OCTETS = (16, 16, 32)
CURVES: dict[int, ec.EllipticCurve] = {1: ec.SECP256R1(), 2: ec.SECP384R1()}
HASHES: dict[int, hashes.HashAlgorithm] = {1: hashes.SHA256(), 2: hashes.SHA384()}
COORDINATE = {1: 32, 2: 48}
# The AlgorithmIDs of the key derivation: AES-GCM-128, AES-GCM-256, AES-WRAP-128, AES-WRAP-256.
ALGORITHM = bytes.fromhex("60857405 0803")


class Suite(NamedTuple):
    """A suite's number and the keys of the two ends, A and B, which the vectors share."""

    number: int
    encryption_key: bytes
    authentication_key: bytes
    master: bytes
    signing: int
    agreement: int
    peer_agreement: int


def seal(key: bytes, authentication_key: bytes, control: int, title: bytes, counter: int, plain: bytes,
         beside: bytes = b"") -> bytes:  # fmt: skip
    """SC || IC || content, and a tag of 12 octets unless it is only encrypted (Green Book, "Encryption")."""
    count = counter.to_bytes(4, "big")
    head = bytes([control]) + count
    encryptor = Cipher(algorithms.AES(key), modes.GCM(title + count)).encryptor()
    if control & ENCRYPTED == 0:
        encryptor.authenticate_additional_data(bytes([control]) + authentication_key + beside + plain)
        encryptor.finalize()
        return head + plain + encryptor.tag[:TAG]
    if control & AUTHENTICATED:
        encryptor.authenticate_additional_data(bytes([control]) + authentication_key + beside)
    text = encryptor.update(plain) + encryptor.finalize()
    return head + text + (encryptor.tag[:TAG] if control & AUTHENTICATED else b"")


def unseal(key: bytes, authentication_key: bytes, title: bytes, octets: bytes, beside: bytes = b"") -> bytes:
    """The plain octets of SC || IC || content || tag. Raises InvalidTag."""
    control, count, rest = octets[0], octets[1:5], octets[5:]
    if control & AUTHENTICATED == 0:
        # Nothing vouches for it, so there is no tag to check: encrypting again gives the plain octets.
        return seal(key, authentication_key, control, title, int.from_bytes(count, "big"), rest)[5:]
    content, tag = rest[:-TAG], rest[-TAG:]
    decryptor = Cipher(algorithms.AES(key), modes.GCM(title + count, tag, min_tag_length=TAG)).decryptor()
    text = bytes([control]) + authentication_key + beside
    if control & ENCRYPTED == 0:
        decryptor.authenticate_additional_data(text + content)
        decryptor.finalize()
        return content
    decryptor.authenticate_additional_data(text)
    return decryptor.update(content) + decryptor.finalize()


def private(suite: int, number: int) -> ec.EllipticCurvePrivateKey:
    """The private key of that number."""
    return ec.derive_private_key(number, CURVES[suite])


def point(suite: int, number: int) -> bytes:
    """Give x and y of the public key to a private one."""
    public = private(suite, number).public_key().public_numbers()
    octets = COORDINATE[suite]
    return public.x.to_bytes(octets, "big") + public.y.to_bytes(octets, "big")


def public(suite: int, octets: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of x and y."""
    return ec.EllipticCurvePublicKey.from_encoded_point(CURVES[suite], b"\4" + octets)


def sign(suite: int, number: int, message: bytes) -> bytes:
    """Give r and s, each as long as a coordinate; RFC 6979 chooses the nonce."""
    made = private(suite, number).sign(message, ec.ECDSA(HASHES[suite], deterministic_signing=True))
    octets = COORDINATE[suite]
    return b"".join(part.to_bytes(octets, "big") for part in decode_dss_signature(made))


def verify(suite: int, octets: bytes, message: bytes, signature: bytes) -> None:
    """Raises InvalidSignature."""
    half = COORDINATE[suite]
    r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
    public(suite, octets).verify(encode_dss_signature(r, s), message, ec.ECDSA(HASHES[suite]))


def agree(suite: int, number: int, peer: bytes) -> bytes:
    """The shared secret Z: the x of the common point."""
    return private(suite, number).exchange(ec.ECDH(), public(suite, peer))


def derive(suite: int, wrapping: bool, z: bytes, party_u: bytes, party_v: bytes) -> bytes:
    """The single-step key derivation of NIST SP 800-56A with the suite's hash."""
    algorithm = ALGORITHM + bytes([2 * wrapping + suite - 1])
    name = "sha256" if suite == 1 else "sha384"
    return hashlib.new(name, b"\0\0\0\1" + z + algorithm + party_u + party_v).digest()[: KEY_OCTETS[suite]]


def string(octets: bytes) -> bytes:
    """An A-XDR octet-string's length and octets."""
    count = len(octets)
    if count < 0x80:
        return bytes([count]) + octets
    return (bytes([0x81, count]) if count < 0x100 else b"\x82" + count.to_bytes(2, "big")) + octets


def octets_of(seed: str, count: int) -> bytes:
    """So many octets that look like chance and are the same each time."""
    return hashlib.shake_256(seed.encode()).digest(count)


def suite_of(number: int) -> Suite:
    """The keys of a suite."""
    keys = [
        octets_of(f"suite {number} {name}", KEY_OCTETS[number]) for name in ("encryption", "authentication", "master")
    ]
    pairs = [
        int.from_bytes(octets_of(f"suite {number} {name}", COORDINATE.get(number, 32) - 1), "big")
        for name in ("signing", "agreement", "peer agreement")
    ]
    return Suite(number, *keys, *pairs)


A_TITLE, B_TITLE = b"IPS\0\0\0\0A", b"IPS\0\0\0\0B"
PLAINS = {
    "get-request-normal": bytes.fromhex("c001c100030100010800ff0200"),
    "get-response-normal": bytes.fromhex("c401c1000600bc614e"),
    "action-request with 200 octets": bytes.fromhex("c301c100460000600300ff0101 0981c8") + octets_of("long", 200),
}
SERVICE_TAGS = {0xC0: 0xC8, 0xC4: 0xCC, 0xC3: 0xCB}


def protect(suite: Suite, form: str, control: int, counter: int, plain: bytes) -> tuple[bytes, bytes]:
    """What A sends B, and the random octets that it takes, in the order in which the crate asks for them."""
    number, key, authentication_key = suite.number, suite.encryption_key, suite.authentication_key
    if form == "service":
        return bytes([SERVICE_TAGS[plain[0]]]) + string(
            seal(key, authentication_key, control, A_TITLE, counter, plain)
        ), b""
    if form == "general":
        sealed = seal(key, authentication_key, control, A_TITLE, counter, plain)
        return b"\xdb" + string(A_TITLE) + string(sealed), b""

    transaction = chance = octets_of(f"{form} {counter}", 8)
    header = string(transaction) + string(A_TITLE) + string(B_TITLE) + b"\0\0"
    if form == "signed":
        inner = b"\xdb" + string(A_TITLE) + string(seal(key, authentication_key, control, A_TITLE, counter, plain))
        return b"\xdf" + header + string(inner) + string(sign(number, suite.signing, header + inner)), chance
    if form == "identified":
        info = bytes([1, 0, 0])
    elif form == "wrapped":
        key = octets_of(f"fresh {counter}", KEY_OCTETS[number])
        chance += key
        info = bytes([1, 1, 0]) + string(keywrap.aes_key_wrap(suite.master, key))
    elif form == "one-pass":
        drawn = b"\0" + octets_of(f"ephemeral {counter}", COORDINATE[number] - 1)
        chance += drawn
        ephemeral = int.from_bytes(drawn, "big")
        z = agree(number, ephemeral, point(number, suite.peer_agreement))
        key = derive(number, False, z, A_TITLE, B_TITLE)
        shown = point(number, ephemeral)
        info = bytes([1, 2]) + string(b"\1") + string(shown + sign(number, suite.signing, shown))
    else:
        z = agree(number, suite.agreement, point(number, suite.peer_agreement))
        key = derive(number, False, z, A_TITLE + string(transaction), B_TITLE)
        info = bytes([1, 2]) + string(b"\2") + string(b"")
    sealed = seal(key, authentication_key, control, A_TITLE, counter, plain, beside=header)
    return b"\xdd" + header + info + string(sealed), chance


def table(kind: str, fields: dict[str, str | int | bytes]) -> str:
    """One TOML table of an array."""
    lines = [f"[[{kind}]]"]
    for name, value in fields.items():
        shown = value if isinstance(value, int) else f'"{value.hex() if isinstance(value, bytes) else value}"'
        lines.append(f"{name} = {shown}")
    return "\n".join(lines) + "\n"


def vectors() -> str:
    """The whole file."""
    out = ["# Made by oracle.py beside this file, with pyca/cryptography. Not to be edited.\n"]
    counters = itertools.count(1_000, 77)
    for suite in map(suite_of, (0, 1, 2)):
        octets = COORDINATE.get(suite.number, 32)
        pairs = ("signing", "agreement", "peer_agreement")
        keys = suite._asdict() | {name: getattr(suite, name).to_bytes(octets, "big") for name in pairs}
        out.append(table("suite", keys))
        forms = ["service", "general", "identified", "wrapped"]
        forms += ["one-pass", "static-unified", "signed"] if suite.number else []
        for form, (protection, bits), (name, plain) in itertools.product(forms, PROTECTIONS.items(), PLAINS.items()):
            counter = next(counters)
            protected, chance = protect(suite, form, bits | suite.number, counter, plain)
            what = {"suite": suite.number, "form": form, "protection": protection, "what": name, "counter": counter}
            out.append(table("frame", what | {"random": chance, "plain": plain, "protected": protected}))
        for length in (8, 16, 32, 64):
            counter, challenge = next(counters), octets_of(f"challenge {length}", length)
            control = AUTHENTICATED | suite.number
            sealed = seal(suite.encryption_key, suite.authentication_key, control, A_TITLE, counter, challenge)
            proof = sealed[:5] + sealed[-TAG:]
            out.append(
                table("proof", {"suite": suite.number, "counter": counter, "challenge": challenge, "proof": proof})
            )
        if suite.number:
            z = agree(suite.number, suite.agreement, point(suite.number, suite.peer_agreement))
            for wrapping in (False, True):
                key = derive(suite.number, wrapping, z, A_TITLE, B_TITLE)
                fields = {"suite": suite.number, "wrapping": int(wrapping), "z": z, "key": key}
                out.append(table("derivation", fields))
    return "\n".join(out)


if __name__ == "__main__":
    sys.stdout.write(vectors())
