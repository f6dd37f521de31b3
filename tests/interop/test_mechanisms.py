"""Every mechanism and every suite that gurux-dlms has, in both directions.

What it cannot do stands in `differences.md`: it has no P-384 signatures, so that hls-ecdsa is tried in suite 1 alone.
"""

from __future__ import annotations

from typing import Any

import pytest
from Crypto.PublicKey import ECC
from tests.interop.head_end import ask, gurux_keys, name, profile_of
from tests.interop.peers import gurux_client, gurux_meter
from tests.interop.test_peers_read_our_meter import ENERGY, OBJECTS, PROFILE, gurux_options, virtual_meter

from ipss_headend import _core

# Mechanism, suite, protection, form.
CASES = [
    ("hls-md5", 0, "none", "glo"),
    ("hls-md5", 0, "auth+enc", "glo"),
    ("hls-md5", 1, "auth", "general-glo"),
    ("hls-md5", 2, "auth+enc", "ded"),
    ("hls-sha1", 0, "none", "glo"),
    ("hls-sha1", 0, "enc", "glo"),
    ("hls-sha1", 1, "auth+enc", "glo"),
    ("hls-sha1", 2, "auth+enc", "general-glo"),
    ("hls-gmac", 1, "auth+enc", "glo"),
    ("hls-gmac", 1, "auth", "ded"),
    ("hls-gmac", 2, "auth+enc", "glo"),
    ("hls-gmac", 2, "auth+enc", "general-glo"),
    ("hls-gmac", 2, "enc", "ded"),
    ("hls-sha256", 0, "auth+enc", "glo"),
    ("hls-sha256", 1, "enc", "general-glo"),
    ("hls-sha256", 2, "auth+enc", "ded"),
    ("hls-ecdsa", 1, "auth+enc", "glo"),
    ("hls-ecdsa", 1, "auth", "general-glo"),
    ("hls-ecdsa", 1, "auth+enc", "ded"),
]
# The Green Book has 32 to 64 octets for mechanism 7; gurux-dlms' own choice is 16, which is refused.
ECDSA_CHALLENGE = ("--challenge-length", "32")
ITEMS = [
    _core.Item.attributes(0, [(3, name("1.0.1.8.0.255"), 2), (3, name("1.0.1.8.0.255"), 3)]),
    _core.Item.attributes(0, [(1, name("0.0.42.0.0.255"), 2)]),
    _core.Item.buffer(4, name("1.0.99.1.0.255"), 5, select="all"),
]
LONG_KEYS = {"encryption_key": bytes(range(32)), "authentication_key": bytes(range(100, 132))}


def signing_keys() -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """A private key's number and its public key's x and y, twice."""

    def pair() -> tuple[bytes, bytes]:
        key = ECC.generate(curve="P-256")
        x, y = (int(number).to_bytes(32, "big") for number in (key.pointQ.x, key.pointQ.y))
        return int(key.d).to_bytes(32, "big"), x + y

    return pair(), pair()


@pytest.mark.parametrize(("mechanism", "suite", "protection", "form"), CASES)
def test_gurux_client_reads_our_meter(mechanism: str, suite: int, protection: str, form: str) -> None:
    extra = {"glo": (), "general-glo": ("--general-protection",), "ded": ("--dedicated",)}[form]
    with virtual_meter(
        authentication=mechanism, suite=suite, protection=protection, dedicated=form == "ded", history_days=2
    ) as row:
        if mechanism == "hls-ecdsa":
            extra = (*extra, "--private-key", row["private_key"], "--peer-public-key", row["peer_public_key"][:128])
            extra = (*extra, *ECDSA_CHALLENGE)
        answer = gurux_client(
            int(row["port"]),
            [ENERGY, *OBJECTS, f"{PROFILE}@entries=1-48"],
            options=(*gurux_options(row, protection=protection), "--suite", str(suite), *extra, "--max-pdu", "400"),
        )

    assert answer.get("error") is None, answer
    assert answer["released"]
    assert [item["ok"] for item in answer["items"]] == [True] * (len(OBJECTS) + 2)
    assert isinstance(answer["items"][0]["value"], int)
    assert len(answer["items"][-1]["value"]) == 48


@pytest.mark.parametrize(("mechanism", "suite", "protection", "form"), CASES)
def test_our_head_end_reads_gurux_meter(mechanism: str, suite: int, protection: str, form: str) -> None:
    keys: dict[str, Any] = gurux_keys()
    options = ["--suite", str(suite), "--lines", "48"]
    if suite == 2:
        keys |= LONG_KEYS
        options += ["--encryption-key", LONG_KEYS["encryption_key"].hex()]
        options += ["--authentication-key", LONG_KEYS["authentication_key"].hex()]
    if form == "general-glo":
        options.append("--general-protection")
    if mechanism == "hls-ecdsa":
        ours, theirs = signing_keys()
        keys |= {"private_key": ours[0], "peer_public_key": theirs[1]}
        options += ["--private-key", theirs[0].hex(), "--peer-public-key", ours[1].hex(), *ECDSA_CHALLENGE]
    ciphering = "general" if form == "general-glo" else "service"
    profile = profile_of(mechanism, protection, ciphering, dedicated=form == "ded", suite=suite)
    with gurux_meter(auth=mechanism, protection=protection, options=tuple(options)) as meter:
        told = ask(f"{meter.host}:{meter.port}", profile, ITEMS, **keys)
        log = meter.log()

    assert told.outcome == "done", (told, log)
    assert _core.decode_data(bytes(told.answers[0][0] or b"")) == ["double-long-unsigned", 12_345_678]
    assert len(told.rows[4]) == 48
    assert log["refused"] == []
    assert log["association"]["mechanism"] == _MECHANISM_NUMBERS[mechanism]


_MECHANISM_NUMBERS = {"hls-md5": 3, "hls-sha1": 4, "hls-gmac": 5, "hls-sha256": 6, "hls-ecdsa": 7}


@pytest.mark.parametrize(
    ("mechanism", "suite", "changed"),
    [
        ("hls-md5", 0, ("--password", "another secret")),
        ("hls-sha1", 1, ("--password", "another secret")),
        ("hls-sha256", 2, ("--password", "another secret")),
        ("hls-gmac", 1, ("--suite", "0")),
        ("hls-ecdsa", 1, ("--challenge-length", "16")),
        ("hls-ecdsa", 1, ("--private-key", "01" * 32)),
    ],
)
def test_our_meter_refuses_what_differs(mechanism: str, suite: int, changed: tuple[str, str]) -> None:
    with virtual_meter(authentication=mechanism, suite=suite) as row:
        options = [*gurux_options(row), "--suite", str(suite)]
        if mechanism == "hls-ecdsa":
            options += ["--private-key", row["private_key"], "--peer-public-key", row["peer_public_key"][:128]]
            options += ECDSA_CHALLENGE
        answer = gurux_client(int(row["port"]), [ENERGY], options=(*options, *changed))

    assert not answer["associated"]
    assert answer["items"] == []
