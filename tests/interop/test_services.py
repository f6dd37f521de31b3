"""Services beyond GET and ACTION one by one: short names, lists, writing."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from tests.interop.head_end import name
from tests.interop.peers import gurux_client
from tests.interop.test_peers_read_our_meter import OBJECTS, gurux_options, virtual_meter


def test_gurux_reads_our_meter_by_short_names() -> None:
    """The virtual meter's clock is its first object, from 0x0100 on; the association is at 0xFA00 in every meter."""
    objects = ["12/64000:1", "12/64000:2", "8/256:1", "8/256:2"]
    with virtual_meter(authentication="none", protection="none") as row:
        answer = gurux_client(
            int(row["port"]),
            objects,
            options=("--host", row["host"], "--auth", "none", "--protection", "none", "--short-names"),
        )

    assert answer.get("error") is None, answer
    items = {item["object"]: item for item in answer["items"]}
    assert items["12/64000:1"]["hex"].endswith("0000280000ff")
    listed = items["12/64000:2"]["value"]
    assert int(listed[0][0]) & 0xFFFF == 0x0100
    assert bytes.fromhex(items["8/256:1"]["hex"])[-6:] == name("0.0.1.0.0.255")
    assert len(bytes.fromhex(items["8/256:2"]["hex"])) >= 12


@pytest.mark.parametrize(("suite", "max_pdu"), [(0, 1024), (2, 1024), (1, 200)])
def test_gurux_reads_a_list_of_our_meter(suite: int, max_pdu: int) -> None:
    """One by one and in one GET with list, which with small APDUs comes in blocks."""
    asked = OBJECTS[:5]
    with virtual_meter(suite=suite) as row:
        answer = gurux_client(
            int(row["port"]),
            [*asked, "list:" + ",".join(asked)],
            options=(*gurux_options(row), "--suite", str(suite), "--max-pdu", str(max_pdu)),
        )

    assert answer.get("error") is None, answer
    *single, together = answer["items"]
    assert together["value"] == [item["value"] for item in single]


def test_gurux_sets_our_meters_clock() -> None:
    moment = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).replace(microsecond=0)
    with virtual_meter(authentication="hls-sha256", suite=1) as row:
        answer = gurux_client(
            int(row["port"]),
            [f"clock:0.0.1.0.0.255={moment.isoformat()}", "8/0.0.1.0.0.255:2"],
            options=(*gurux_options(row), "--suite", "1"),
        )

    assert answer.get("error") is None, answer
    assert [item["ok"] for item in answer["items"]] == [True, True], answer
    octets = bytes.fromhex(answer["items"][1]["hex"])[-12:]
    deviation = int.from_bytes(octets[9:11], "big", signed=True)
    month, day, _, hour, minute, second = octets[2:8]
    local = dt.datetime(int.from_bytes(octets[:2], "big"), month, day, hour, minute, second, tzinfo=dt.UTC)
    assert abs(local + dt.timedelta(minutes=deviation) - moment) < dt.timedelta(seconds=20)


CALENDAR, IMAGE = "0.0.13.0.0.255", "0.0.44.0.0.255"
SECURED = [("low", "none"), ("hls-gmac", "auth+enc")]


def served(
    objects: list[str], *, max_pdu: int, authentication: str, protection: str, more: tuple[str, ...] = ()
) -> Any:
    """What gurux-dlms' client says of one virtual meter."""
    with virtual_meter(authentication=authentication, protection=protection, max_pdu=max_pdu) as row:
        options = gurux_options(row, protection=protection)
        return gurux_client(int(row["port"]), objects, options=(*options, "--max-pdu", str(max_pdu), *more))


@pytest.mark.parametrize(("authentication", "protection"), SECURED)
@pytest.mark.parametrize(("max_pdu", "messages"), [(1024, 1), (160, 4)])
def test_gurux_writes_a_calendar_in_blocks(max_pdu: int, messages: int, authentication: str, protection: str) -> None:
    count = 12
    answer = served(
        [f"seasons:{CALENDAR}={count}", f"20/{CALENDAR}:7"],
        max_pdu=max_pdu,
        authentication=authentication,
        protection=protection,
    )

    assert answer.get("error") is None, answer
    written, back = answer["items"]
    assert (written["messages"] == 1) == (messages == 1)
    assert [bytes.fromhex(season[0]).decode() for season in back["value"]] == [f"season-{n}" for n in range(count)]


@pytest.mark.parametrize(("authentication", "protection"), SECURED)
def test_gurux_writes_a_list(authentication: str, protection: str) -> None:
    """A list that needs blocks it sends as if it needed none: see differences.md."""
    asked = [f"names:{CALENDAR}=later,2", f"20/{CALENDAR}:6", f"20/{CALENDAR}:7"]
    answer = served(asked, max_pdu=1024, authentication=authentication, protection=protection)
    cut = served([f"names:{CALENDAR}=later,12"], max_pdu=160, authentication=authentication, protection=protection)

    assert answer.get("error") is None, answer
    assert bytes.fromhex(answer["items"][1]["value"]) == b"later"
    assert len(answer["items"][2]["value"]) == 2
    assert cut["items"] == []


@pytest.mark.parametrize(("authentication", "protection"), SECURED)
@pytest.mark.parametrize("max_pdu", [1024, 128])
def test_gurux_sends_an_image_with_parameters_in_blocks(max_pdu: int, authentication: str, protection: str) -> None:
    """With 128 octets an APDU, each of the image's blocks comes in two blocks of an ACTION."""
    answer = served(
        [f"image:{IMAGE}=300", f"18/{IMAGE}:3", f"18/{IMAGE}:4"],
        max_pdu=max_pdu,
        authentication=authentication,
        protection=protection,
    )

    assert answer.get("error") is None, answer
    sent, bits, first_missing = answer["items"]
    assert (sent["messages"] > 3) == (max_pdu == 128)
    assert (bits["value"], first_missing["value"]) == ("111", 3)


@pytest.mark.parametrize(("authentication", "protection"), SECURED)
def test_gurux_reads_by_access(authentication: str, protection: str) -> None:
    """Ciphered it has a general tag alone, so general protection is agreed."""
    asked = ["1/0.0.42.0.0.255:2", "3/1.0.1.8.0.255:3", "20/0.0.13.0.0.255:6"]
    answer = served(
        [*asked, "access:" + ",".join(asked)],
        max_pdu=1024,
        authentication=authentication,
        protection=protection,
        more=("--general-protection",),
    )

    assert answer.get("error") is None, answer
    *single, together = answer["items"]
    assert together["value"] == [item["value"] for item in single]
    assert together["errors"] == [0, 0, 0]
