"""An independent implementation of the cryptography (pyca/cryptography) opens what our two ends say to each other.

The other direction, octet by octet, is `protocols/dlms/tests/oracle.rs` on the vectors that the oracle makes. R11's
random frames are `IPSS_ORACLE_FRAMES` many.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from tests.interop.environments import ROOT
from tests.interop.head_end import Recording, ask, name, profile_of, recorded
from tests.interop.peers import KEYS
from tests.interop.test_peers_read_our_meter import keys_of, virtual_meter

from ipss_headend import _core

FRAMES = int(os.environ.get("IPSS_ORACLE_FRAMES", "4000"))
BUILD_WAIT_S = 600.0
VECTORS = ROOT / "protocols" / "dlms" / "vectors" / "oracle"
ITEMS = [
    _core.Item.attributes(0, [(1, name("0.0.42.0.0.255"), 2)]),
    _core.Item.attributes(0, [(15, name("0.0.40.0.0.255"), 2)]),
    _core.Item.action((8, name("0.0.1.0.0.255"), 3), bytes([15, 0])),
]
ACTION_REPLY_TO_HLS = bytes.fromhex("000f0000280000ff01")


def _oracle() -> ModuleType:
    spec = importlib.util.spec_from_file_location("oracle", VECTORS / "oracle.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


oracle = _oracle()


def exchange(mechanism: str, suite: int, protection: str) -> tuple[dict[str, str], Recording]:
    """What passes between our head-end and our meter in one association, and the meter's row."""
    with (
        virtual_meter(authentication=mechanism, suite=suite, protection=protection, history_days=1) as row,
        recorded(row["host"], int(row["port"])) as recording,
    ):
        keys = keys_of(row)
        if mechanism == "hls-ecdsa":
            both = bytes.fromhex(row["peer_public_key"])
            keys["private_key"] = bytes.fromhex(row["private_key"])
            keys["peer_public_key"] = both[: 2 * oracle.COORDINATE[suite]]
        profile = profile_of(mechanism, protection, suite=suite, max_pdu=400)
        told = ask(recording.address, profile, ITEMS, **keys)
        assert told.outcome == "done", told
    return row, recording


def opened(row: dict[str, str], title: str, apdu: bytes) -> bytes:
    """The plain APDU of a glo-APDU."""
    length_octets = 1 if apdu[1] < 0x80 else 1 + (apdu[1] & 0x7F)
    keys = bytes.fromhex(row["encryption_key"]), bytes.fromhex(row["authentication_key"])
    plain: bytes = oracle.unseal(*keys, bytes.fromhex(title), apdu[1 + length_octets :])
    return plain


def challenge_of(apdu: bytes, tag: int) -> bytes:
    """The challenge in an AARQ (tag AC) or AARE (tag AA)."""
    at = 2 if apdu[1] < 0x80 else 3
    while apdu[at] != tag:
        at += 2 + apdu[at + 1]
    return apdu[at + 4 : at + 2 + apdu[at + 1]]


@pytest.mark.parametrize("protection", ["auth+enc", "auth", "enc"])
@pytest.mark.parametrize("suite", [0, 1, 2])
def test_the_oracle_opens_every_apdu_between_our_two_ends(suite: int, protection: str) -> None:
    row, recording = exchange("hls-gmac", suite, protection)

    title = row["system_title"]
    asked = [opened(row, KEYS.client_title, apdu) for apdu in recording.from_head_end[1:-1]]
    answered = [opened(row, title, apdu) for apdu in recording.from_meter[1:-1]]
    assert [apdu[0] for apdu in asked[:3]] == [0xC3, 0xC0, 0xC0]
    assert {apdu[0] for apdu in answered} == {0xC7, 0xC4}
    wanted = oracle.PROTECTIONS[protection] | suite
    assert {apdu[2 if apdu[1] < 0x80 else 2 + (apdu[1] & 0x7F)] for apdu in recording.from_meter[1:-1]} == {wanted}
    if protection == "enc":
        return
    forged = bytearray(recording.from_meter[2])
    forged[-1] ^= 1
    with pytest.raises(InvalidTag):
        opened(row, title, bytes(forged))


@pytest.mark.parametrize("suite", [0, 1, 2])
def test_the_oracle_makes_the_same_proofs_by_gmac(suite: int) -> None:
    row, recording = exchange("hls-gmac", suite, "auth+enc")

    keys = bytes.fromhex(row["encryption_key"]), bytes.fromhex(row["authentication_key"])
    proofs = {
        KEYS.client_title: (recording.from_head_end[1], recording.from_meter[0], 0xAA),
        row["system_title"]: (recording.from_meter[1], recording.from_head_end[0], 0xAC),
    }
    for title, (carrier, challenger, tag) in proofs.items():
        proof = opened(row, title, carrier)[-17:]
        challenge, counter = challenge_of(challenger, tag), int.from_bytes(proof[1:5], "big")
        sealed = oracle.seal(*keys, oracle.AUTHENTICATED | suite, bytes.fromhex(title), counter, challenge)
        assert proof == sealed[:5] + sealed[-12:]


@pytest.mark.parametrize("suite", [1, 2])
def test_the_oracle_verifies_the_signatures_of_both_ends(suite: int) -> None:
    row, recording = exchange("hls-ecdsa", suite, "auth+enc")

    octets = oracle.COORDINATE[suite]
    titles = bytes.fromhex(KEYS.client_title), bytes.fromhex(row["system_title"])
    from_client, from_meter = (
        challenge_of(recording.from_head_end[0], 0xAC),
        challenge_of(recording.from_meter[0], 0xAA),
    )
    proof = opened(row, KEYS.client_title, recording.from_head_end[1])
    assert proof[3:12] == ACTION_REPLY_TO_HLS
    answer = opened(row, row["system_title"], recording.from_meter[1])
    own = oracle.point(suite, int(row["private_key"], 16))
    meters = bytes.fromhex(row["peer_public_key"])[: 2 * octets]

    oracle.verify(suite, own, titles[0] + titles[1] + from_meter + from_client, proof[-2 * octets :])
    oracle.verify(suite, meters, titles[1] + titles[0] + from_client + from_meter, answer[-2 * octets :])
    with pytest.raises(InvalidSignature):
        oracle.verify(suite, meters, titles[1] + titles[0] + from_meter + from_client, answer[-2 * octets :])


def test_the_vectors_are_what_the_oracle_makes() -> None:
    assert (VECTORS / "security.toml").read_text() == oracle.vectors()


@pytest.fixture(scope="module")
def frames() -> str:
    """The crate's own example, which seals and opens by request."""
    cargo = shutil.which("cargo")
    assert cargo is not None, "cargo is needed, as for the extension"
    command = [cargo, "build", "--quiet", "--locked", "-p", "ipss-dlms", "--example", "frames"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=BUILD_WAIT_S)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return str(target / "debug" / "examples" / "frames")


def test_r11_random_frames_come_out_and_open_as_the_oracles(frames: str) -> None:
    """Each frame is sealed by both; whole or bent, both open it or neither does."""
    chance = random.Random(11)
    asked, expected = [], []
    for number in range(FRAMES):
        suite, protection = chance.randrange(3), chance.choice((0x10, 0x20, 0x30))
        key, beside = (chance.randbytes(oracle.KEY_OCTETS[suite]) for _ in range(2))
        title, counter = chance.randbytes(8), chance.choice((0, 1, chance.getrandbits(31), 2**32 - 2))
        plain = chance.randbytes(chance.choice((0, 1, 15, 16, 17, chance.randrange(300))))
        head = f"{suite} {protection} {key.hex()} {beside.hex()} {title.hex()}"
        frame = oracle.seal(key, beside, protection | suite, title, counter, plain)
        asked.append(f"seal {head} {counter} {plain.hex()}")
        expected.append(frame.hex())

        sent = bytearray(frame)
        match number % 4:
            case 0:
                sent[chance.randrange(1, len(sent))] ^= 1 << chance.randrange(8)
            case 1:
                del sent[chance.randrange(5, len(sent) + 1) :]
            case 2:
                sent[1:] = chance.randbytes(len(sent) - 1)
        asked.append(f"open {head} {sent.hex()}")
        verdict = "!"
        if len(sent) >= 5 + (protection & 0x10 and oracle.TAG):
            with contextlib.suppress(InvalidTag):
                verdict = oracle.unseal(key, beside, title, bytes(sent)).hex()
        expected.append(verdict)

    run = subprocess.run(
        [frames], input="\n".join(asked) + "\n", capture_output=True, text=True, timeout=BUILD_WAIT_S, check=True
    )

    told = [line[:1] if line.startswith("!") else line for line in run.stdout.split("\n")[:-1]]
    assert len(told) == 2 * FRAMES
    assert [(ask, one, two) for ask, one, two in zip(asked, told, expected, strict=True) if one != two] == []
    assert expected.count("!") > FRAMES // 3
