"""The peers among themselves: what our own side is held against works without it."""

from __future__ import annotations

import pytest
from tests.interop.peers import KEYS, PeerFailed, dlms_cosem, gurux_client, gurux_meter

PROFILE = "7/1.0.99.1.0.255:2"
SECURED = {
    "encryption_key": KEYS.encryption_key,
    "authentication_key": KEYS.authentication_key,
    "system_title": KEYS.client_title,
}


@pytest.mark.parametrize("tags", ["glo", "general-glo", "ded"])
@pytest.mark.parametrize("protection", ["auth+enc", "auth", "enc"])
def test_gurux_meter_serves_its_own_client_over_hls_gmac(protection: str, tags: str) -> None:
    general = ("--general-protection",) if tags == "general-glo" else ()
    dedicated = ("--dedicated",) if tags == "ded" else ()
    with gurux_meter(protection=protection, options=general) as meter:
        answer = gurux_client(
            meter.port,
            ["3/1.0.1.8.0.255:2", "3/1.0.1.8.0.255:3", f"{PROFILE}@entries=1-96"],
            options=("--protection", protection, *general, *dedicated),
        )
        log = meter.log()

    assert [item["ok"] for item in answer["items"]] == [True, True, True]
    assert answer["items"][0]["hex"] == "0600bc614e"
    assert len(answer["items"][2]["value"]) == 96
    assert log["refused"] == []
    assert log["requests"].count("get-next") > 3
    assert (
        log["tags"]
        == {"glo": ["60", "cb", "c8", "62"], "general-glo": ["60", "cb", "db", "62"], "ded": ["60", "cb", "d0", "62"]}[
            tags
        ]
    )


def test_gurux_meter_selects_by_range() -> None:
    with gurux_meter(auth="low", protection="none") as meter:
        answer = gurux_client(
            meter.port,
            [f"{PROFILE}@range=2026-03-01T01:00:00+01:00,2026-03-01T01:45:00+01:00"],
            options=("--auth", "low", "--protection", "none"),
        )

    assert [line[1] for line in answer["items"][0]["value"]] == [1000750, 1001000, 1001250, 1001500]


def test_dlms_cosem_reads_the_gurux_meter() -> None:
    with gurux_meter(options=("--general-protection",)) as meter, dlms_cosem() as peer:
        answer = peer.ask(
            "read", port=meter.port, counter=5, mechanism="hls-gmac", objects=["3/1.0.1.8.0.255:2", PROFILE], **SECURED
        )

    assert answer["items"][0]["value"] == 12345678
    assert len(answer["items"][1]["value"]) == 192


@pytest.mark.parametrize(
    "options",
    [
        ("--encryption-key", "00" * 16),
        ("--invocation-counter", "0"),
        ("--auth", "low"),
        ("--protection", "auth"),
    ],
)
def test_gurux_meter_refuses_another_security_context(options: tuple[str, ...]) -> None:
    with gurux_meter(options=("--expected-counter", "5")) as meter:
        answer = gurux_client(meter.port, ["3/1.0.1.8.0.255:2"], options=("--invocation-counter", "7", *options))
        log = meter.log()

    assert not answer["associated"]
    assert len(log["refused"]) == 1


def test_octets_that_dlms_cosem_never_returns_from_end_its_process() -> None:
    with dlms_cosem() as peer, pytest.raises(PeerFailed, match="status 4"):
        peer.ask("data", hex="0600")
