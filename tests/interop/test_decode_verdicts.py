"""Which octets are an APDU: our `decode`, gurux-dlms and dlms-cosem judge the same frames; every difference is known.

`IPSS_VERDICTS=100000` judges that many; `IPSS_VERDICTS_SEED` chooses others. A class of differences is what the peer
said and what we said; `differences.md` explains each, and a class that is not there fails the test.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from tests.interop.environments import ROOT, make

from ipss_headend.explain import decode

FRAMES = int(os.environ.get("IPSS_VERDICTS", "2000"))
SEED = int(os.environ.get("IPSS_VERDICTS_SEED", "3"))
# For a thousand frames; what hangs takes a second each.
BATCH_TIMEOUT_S = 120.0
BATCH = 1000
VECTORS = ROOT / "protocols" / "dlms" / "vectors"
DIFFERENCES = Path(__file__).with_name("differences.md")
# What both peers can decode at all: APDUs in the clear, by tag.
XDLMS_TAGS = frozenset([0x01, 0x08, 0x0E, 0x0F, 0xC0, 0xC1, 0xC3, 0xC4, 0xC5, 0xC7, 0xD8, 0x60, 0x61, 0x62, 0x63])


def seeds() -> list[bytes]:
    """The APDUs of the vectors, and APDUs about the values of the vectors."""
    found = []
    for name in ("xdlms", "acse"):
        for vector in tomllib.loads((VECTORS / f"{name}.toml").read_text())["vector"]:
            octets = bytes.fromhex(vector["bytes"])
            if vector["layer"] == "apdu" and octets[0] in XDLMS_TAGS:
                found.append(octets)
    for vector in tomllib.loads((VECTORS / "data.toml").read_text())["vector"]:
        value = bytes.fromhex(vector["bytes"])
        found += [bytes.fromhex("c401c100") + value, bytes.fromhex("c101c100030000010000ff0200") + value]
        found.append(bytes.fromhex("0f4000000000") + value)
    return found


def mutated(octets: bytes, chance: random.Random) -> bytes:
    """The frame with up to three octets bent, cut, doubled or put in between; sometimes as it is."""
    frame = bytearray(octets)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
        at = chance.randrange(len(frame))
        match chance.randrange(6):
            case 0:
                frame[at] ^= 1 << chance.randrange(8)
            case 1:
                frame[at] = chance.choice((0, 1, 2, 9, 0x7F, 0x80, 0x81, 0x82, 0xFF))
            case 2:
                del frame[max(at, 1) :]
            case 3:
                frame[at:at] = frame[at : at + chance.randrange(1, 5)]
            case 4:
                frame.insert(at, chance.randrange(256))
            case _:
                frame += bytes([chance.randrange(256)])
    # Another kind of APDU is another frame: the tag stays.
    return bytes([octets[0]]) + bytes(frame[1:])


def frames() -> list[bytes]:
    chance, found = random.Random(SEED), seeds()
    return found + [mutated(chance.choice(found), chance) for _ in range(FRAMES - len(found))]


def ours(frame: bytes) -> str:
    answer = decode(frame, layer="apdu")
    if answer["outcome"] == "error":
        return str(answer["error"]["code"])
    return {"decoded": "accepts", "protected": "accepts"}.get(answer["outcome"], "incomplete")


def theirs(peer: str, judged: list[bytes]) -> list[str]:
    verdicts: list[str] = []
    for first in range(0, len(judged), BATCH):
        run = subprocess.run(
            [str(make(peer)), "-W", "ignore", "-m", "tests.interop.decode_peer", peer],
            cwd=ROOT,
            input="".join(f"{frame.hex()}\n" for frame in judged[first : first + BATCH]),
            capture_output=True,
            text=True,
            timeout=BATCH_TIMEOUT_S,
            check=True,
        )
        verdicts += run.stdout.split()
    assert len(verdicts) == len(judged)
    return verdicts


def explained(peer: str) -> set[tuple[str, str]]:
    """The peer's and our verdict of each class in the file, a row each."""
    row = re.compile(rf"^\| {peer} \| `(.+?)` \| `(.+?)` \|", re.MULTILINE)
    return {(match[1], match[2]) for match in row.finditer(DIFFERENCES.read_text())}


@pytest.mark.parametrize("peer", ["gurux", "dlms-cosem"])
def test_every_difference_of_verdicts_is_explained(peer: str) -> None:
    judged = frames()
    own = [ours(frame) for frame in judged]
    classes: Counter[tuple[str, str]] = Counter()
    example: dict[tuple[str, str], str] = {}
    for frame, their_verdict, our_verdict in zip(judged, theirs(peer, judged), own, strict=True):
        if (their_verdict == "accepts") != (our_verdict == "accepts"):
            kind = (their_verdict, our_verdict)
            classes[kind] += 1
            example.setdefault(kind, frame.hex())

    unexplained = {kind: (count, example[kind]) for kind, count in classes.items() if kind not in explained(peer)}
    assert unexplained == {}
    assert own.count("accepts") > FRAMES // 10
