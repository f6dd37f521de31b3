"""Notifications: gurux-dlms' in our decoder and our head-end, our meter's in gurux-dlms'."""

from __future__ import annotations

import json
import select
import struct
import time
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from tests.interop.environments import ROOT
from tests.interop.head_end import ask, name, profile_of, recorded
from tests.interop.peers import KEYS, PeerFailed, Piped, gurux_notify
from tests.interop.test_peers_read_our_meter import keys_of, virtual_meter

from ipss_headend import _core

TIME = "2026-03-01T00:15:00+01:00"
TIME_US = 1_772_320_500_000_000
VALUES: list[list[Any]] = [
    [1, "0.0.42.0.0.255", 2, 9, "47525830"],
    [3, "1.0.1.8.0.255", 2, 6, 4711],
    [3, "1.0.2.8.0.255", 2, 21, 2**63],
    [3, "1.0.16.7.0.255", 2, 5, -70_000],
    [3, "1.0.32.7.0.255", 2, 18, 60_000],
    [3, "1.0.31.7.0.255", 2, 16, -300],
    [1, "0.0.96.1.0.255", 2, 10, "meter 4711"],
    [1, "0.0.96.3.10.255", 2, 3, True],
    [1, "0.0.96.5.0.255", 2, 22, 5],
    [1, "0.0.96.5.1.255", 2, 15, -5],
    [1, "0.0.96.5.2.255", 2, 17, 200],
    [1, "0.0.96.5.3.255", 2, 20, -(2**40)],
    [1, "0.0.96.5.4.255", 2, 23, 1.5],
]
TYPES = {
    3: "boolean",
    5: "double-long",
    6: "double-long-unsigned",
    9: "octet-string",
    10: "visible-string",
    15: "integer",
    16: "long",
    17: "unsigned",
    18: "long-unsigned",
    20: "long64",
    21: "long64-unsigned",
    22: "enum",
    23: "float32",
}
BODY: list[Any] = ["structure", [[TYPES[kind], value] for *_, kind, value in VALUES]]
SECURED = [(protection, suite) for protection in ("auth+enc", "auth", "enc") for suite in (0, 1, 2)]
WAIT_S = 30.0


@pytest.fixture(scope="module")
def gurux() -> Iterator[Piped]:
    with gurux_notify() as peer:
        yield peer


def keys(protection: str, suite: int, counter: int = 7) -> dict[str, Any]:
    """What both ends share."""
    times = 2 if suite == 2 else 1
    return {
        "protection": protection,
        "suite": suite,
        "title": KEYS.meter_title,
        "encryption_key": KEYS.encryption_key * times,
        "authentication_key": KEYS.authentication_key * times,
        "counter": counter,
    }


def decoded(octets: str | list[str], given: dict[str, Any] | None = None, layer: str = "apdu") -> dict[str, Any]:
    """What `decode` makes of it."""
    request: dict[str, Any] = {"layer": layer, "hex": octets}
    if given:
        request["keys"] = {
            "server_system_title": given["title"],
            **{key: given[key] for key in ("encryption_key", "authentication_key")},
        }
    answer: dict[str, Any] = json.loads("".join(_core.decode(json.dumps(request))))
    assert answer["outcome"] == "decoded", answer
    return answer


def plain(answer: dict[str, Any]) -> dict[str, Any]:
    """The innermost APDU."""
    apdu: dict[str, Any] = answer["apdus"][-1]
    while "plain" in apdu:
        apdu = apdu["plain"]
    return apdu


def heard(apdus: list[str], profile: _core.Profile, **given: Any) -> tuple[list[bytes], list[str]]:
    """The pushes that our head-end takes, each a WPDU: the plain APDUs, and how each ended."""
    reactor = _core.Reactor(threads=1)
    try:
        reactor.add([_core.Meter(1, "127.0.0.1:9", profile, **given)])
        wpdus = [struct.pack(">4H", 1, 1, 1, len(apdu) // 2) + bytes.fromhex(apdu) for apdu in apdus]
        reactor.hear([(1, number, wpdu) for number, wpdu in enumerate(wpdus)])
        taken: list[bytes] = []
        ended: list[str] = []
        give_up = time.monotonic() + WAIT_S
        while len(ended) < len(apdus):
            assert time.monotonic() < give_up, ended
            select.select([reactor.fileno()], [], [], 0.2)
            while (batch := reactor.take()) is not None:
                taken += [bytes(cell) for line in batch.answers() for cell in line[6] if isinstance(cell, bytes)]
                ended += [one[4] for one in batch.events() if _core.EVENT_KINDS[one[2]] == "push-heard"]
        return taken, ended
    finally:
        reactor.stop()


@pytest.mark.parametrize("at", [TIME, None])
def test_our_decoder_reads_gurux_data_notification(gurux: Piped, at: str | None) -> None:
    [octets] = gurux.ask("push", time=at, values=VALUES)
    apdu = plain(decoded(octets))

    assert (apdu["apdu"], apdu["data"]) == ("data-notification", BODY)
    assert (apdu["date_time"] is None) == (at is None)
    if at:
        assert [apdu["date_time"][part] for part in ("year", "month", "day", "hour", "minute")] == [2026, 3, 1, 0, 15]
        assert apdu["date_time"]["deviation_min"] == -60


@pytest.mark.parametrize(("protection", "suite"), SECURED)
def test_our_head_end_takes_gurux_ciphered_push_once(gurux: Piped, protection: str, suite: int) -> None:
    given = keys(protection, suite)
    [octets] = gurux.ask("push", time=TIME, values=VALUES, keys=given)
    [wrong] = gurux.ask("push", time=TIME, values=VALUES, keys={**given, "counter": 9, "encryption_key": "00" * 16})

    ours = {
        "system_title": bytes.fromhex(given["title"]),
        "encryption_key": bytes.fromhex(given["encryption_key"]),
        "authentication_key": bytes.fromhex(given["authentication_key"]),
    }
    profile = profile_of("none", protection, "general", suite=suite)
    taken, ended = heard([octets, octets, wrong], profile, **ours)

    assert plain(decoded(octets, given))["data"] == BODY
    assert ended[0] == ""
    assert ended[1].startswith("replay")
    assert ended[2], "under another key"
    assert len(taken) == 1
    assert plain(decoded(taken[0].hex()))["data"] == BODY
    moment, deviation, *_ = _core.read_push(taken[0], "generic")
    assert (moment, deviation) == (TIME_US, -60)


def test_our_decoder_puts_gurux_general_blocks_together(gurux: Piped) -> None:
    """A push in blocks, in the clear and with the ciphered APDU inside the blocks."""
    for given in (None, keys("auth+enc", 0)):
        more = {} if given is None else {"keys": given}
        blocks = gurux.ask("push", time=TIME, values=VALUES * 3, blocks=True, max_pdu=128, **more)
        assert len(blocks) > 1
        assert all(block.startswith("e0") for block in blocks)

        apdu = plain(decoded(blocks, given))

        assert apdu["data"] == ["structure", BODY[1] * 3]
    assert gurux.ask("take", apdus=gurux.ask("push", values=VALUES * 3, blocks=True, max_pdu=128))["command"] == 15


@pytest.mark.parametrize("at", [TIME, None])
def test_our_head_end_takes_gurux_event_notification(gurux: Piped, at: str | None) -> None:
    """Its time is marked as an octet string (quirk 17). Ciphered it makes none: see differences.md."""
    [octets] = gurux.ask("event", time=at, values=VALUES[1:2])
    apdu = plain(decoded(octets))
    taken, ended = heard([octets], profile_of("none", "none"))

    assert apdu["apdu"] == "event-notification-request"
    assert (apdu["class_id"], apdu["logical_name"], apdu["attribute"]) == (3, "1.0.1.8.0.255", 2)
    assert apdu["data"] == ["double-long-unsigned", 4711]
    assert (apdu["time"] is None) == (at is None)
    assert (ended, taken) == ([""], [bytes.fromhex(octets)])
    assert _core.read_push(taken[0], "generic")[0] == (TIME_US if at else None)
    with pytest.raises(PeerFailed, match="Invalid GLO command"):
        gurux.ask("event", time=at, values=VALUES[1:2], keys=keys("auth+enc", 0))


@pytest.mark.parametrize(("protection", "suite"), SECURED)
def test_gurux_takes_our_meters_push(gurux: Piped, protection: str, suite: int) -> None:
    push = _core.Item.action((40, name("0.0.25.9.0.255"), 1), bytes([15, 0]))
    with (
        virtual_meter(protection=protection, suite=suite, history_days=1) as row,
        recorded(row["host"], int(row["port"])) as recording,
    ):
        told = ask(recording.address, profile_of(protection=protection, suite=suite), [push, push], **keys_of(row))
    assert told.outcome == "done", told

    given = {**keys(protection, suite), "title": row["system_title"]}
    given.update({key: row[key] for key in ("encryption_key", "authentication_key")})
    pushes = [apdu.hex() for apdu in recording.from_meter if apdu[0] == 0xDB]
    assert len(pushes) == 2
    for octets in pushes:
        ours = plain(decoded(octets, given))
        theirs = gurux.ask("take", apdus=[octets], keys=given)
        assert theirs["command"] == 15
        values = [value for _, value in ours["data"][1]]
        assert [theirs["value"][0], *theirs["value"][2:]] == [values[0], *values[2:]]
        # The clock: gurux-dlms shows its octets, or what it takes them for.
        assert theirs["value"][1]


def test_gurux_explains_our_event_notifications(gurux: Piped) -> None:
    text = (ROOT / "protocols" / "dlms" / "vectors" / "xdlms.toml").read_text()
    events = [one for one in tomllib.loads(text)["vector"] if "event-notification-request" in one["name"]]
    assert len(events) == 2
    for one in events:
        means = json.loads(one["means"])
        xml = gurux.ask("explain", apdu=one["bytes"].replace(" ", ""))

        assert f'<InstanceId Value="{name(means["logical_name"]).hex().upper()}" />' in xml
        assert f'<UInt8 Value="{means["data"][1]:02X}" />' in xml
        shown = "" if means["time"] is None else f'<Time Value="{means["time"]["raw"].upper()}" />'
        assert shown in xml
        assert ("<Time " in xml) == bool(shown)
