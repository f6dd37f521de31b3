"""Other people's clients read our virtual meters, and say the same as our own head-end."""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.interop.head_end import ask, name, profile_of, recorded
from tests.interop.peers import KEYS, dlms_cosem, gurux_client

from ipss_headend import _core

PROFILE = "7/1.0.99.1.0.255:2"
ENERGY = "3/1.0.1.8.0.255:2"
OBJECTS = [
    "1/0.0.42.0.0.255:2",
    "3/1.0.1.8.0.255:3",
    "8/0.0.1.0.0.255:3",
    "17/0.0.41.0.0.255:2",
    "70/0.0.96.3.10.255:2",
    "15/0.0.40.0.0.255:2",
    "7/1.0.99.1.0.255:3",
]


@contextmanager
def virtual_meter(**options: Any) -> Iterator[dict[str, str]]:
    """One virtual meter; what the import file says of it, and its host and port."""
    fleet = _core.VirtualFleet(count=1, port=0, seed=11, **options)
    try:
        row = next(csv.DictReader(io.StringIO(fleet.csv())))
        row["host"], _, row["port"] = row["address"].partition(":")
        yield row
    finally:
        fleet.stop()


def gurux_options(row: dict[str, str], *, protection: str = "auth+enc") -> tuple[str, ...]:
    """How gurux-dlms' client must be called for this meter."""
    return (
        *("--host", row["host"], "--auth", row["auth"], "--protection", protection, "--password", row["password"]),
        *("--encryption-key", row["encryption_key"], "--authentication-key", row["authentication_key"]),
    )


def keys_of(row: dict[str, str]) -> dict[str, Any]:
    """What `_core.Meter` must know of this meter."""
    return {
        "system_title": bytes.fromhex(row["system_title"]),
        "encryption_key": bytes.fromhex(row["encryption_key"]),
        "authentication_key": bytes.fromhex(row["authentication_key"]),
        "password": row["password"].encode(),
    }


def descriptor(text: str) -> tuple[int, bytes, int]:
    """What `_core` takes for CLASS/LOGICAL NAME:ATTRIBUTE."""
    class_id, _, rest = text.partition("/")
    logical_name, _, index = rest.partition(":")
    return int(class_id), name(logical_name), int(index)


def own_answers(row: dict[str, str], *, counters: tuple[int, int]) -> dict[str, str]:
    """The A-XDR octets of each of `OBJECTS` as our head-end receives them."""
    items = [_core.Item.attributes(0, [descriptor(text)]) for text in OBJECTS]
    profile = profile_of(row["auth"], row["protection"])
    told = ask(row["address"], profile, items, counters=counters, **keys_of(row))
    assert told.outcome == "done", told
    cells = {text: told.answers[item][0] for item, text in enumerate(OBJECTS)}
    return {text: bytes(cell).hex() for text, cell in cells.items() if isinstance(cell, bytes)}


@pytest.mark.parametrize("form", ["glo", "general-glo", "ded"])
@pytest.mark.parametrize("protection", ["auth+enc", "auth", "enc"])
def test_gurux_reads_our_meter_over_hls_gmac(protection: str, form: str) -> None:
    extra = {"glo": (), "general-glo": ("--general-protection",), "ded": ("--dedicated",)}[form]
    with virtual_meter(protection=protection, dedicated=form == "ded") as row:
        answer = gurux_client(
            int(row["port"]),
            [ENERGY, *OBJECTS, f"{PROFILE}@entries=1-96", "3/1.0.9.9.9.255:2"],
            options=(*gurux_options(row, protection=protection), *extra, "--max-pdu", "400"),
        )

    assert answer.get("error") is None
    assert answer["released"]
    items = {item["object"]: item for item in answer["items"]}
    assert isinstance(items[ENERGY]["value"], int)
    assert [items[text]["ok"] for text in OBJECTS] == [True] * len(OBJECTS)
    lines = items[f"{PROFILE}@entries=1-96"]["value"]
    assert len(lines) == 96
    assert {len(line) for line in lines} == {6}
    assert items["3/1.0.9.9.9.255:2"]["code"] == 4


def test_gurux_receives_what_our_head_end_receives() -> None:
    with virtual_meter() as row:
        theirs = gurux_client(int(row["port"]), OBJECTS, options=gurux_options(row))
        ours = own_answers(row, counters=(1000, 2000))

    assert {item["object"]: item["hex"] for item in theirs["items"]} == ours


def test_gurux_selects_lines_by_range() -> None:
    end = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0) - dt.timedelta(hours=2)
    begin = end - dt.timedelta(hours=6)
    with virtual_meter() as row:
        wanted = f"{PROFILE}@range={begin.isoformat()},{end.isoformat()}"
        answer = gurux_client(int(row["port"]), [wanted], options=gurux_options(row))

    lines = answer["items"][0]["value"]
    assert len(lines) == 25
    energies = [line[2] for line in lines]
    assert energies == sorted(energies)


@pytest.mark.parametrize("authentication", ["low", "none"])
def test_gurux_reads_our_meter_without_ciphering(authentication: str) -> None:
    objects = [ENERGY, *OBJECTS] if authentication == "low" else ["1/0.0.42.0.0.255:2", "8/0.0.1.0.0.255:2"]
    with virtual_meter(authentication=authentication, protection="none") as row:
        client = () if authentication == "low" else ("--client", "16")
        answer = gurux_client(int(row["port"]), objects, options=(*gurux_options(row, protection="none"), *client))

    assert [item["ok"] for item in answer["items"]] == [True] * len(objects)


@pytest.mark.parametrize(
    "options",
    [("--encryption-key", "01" * 16), ("--authentication-key", "01" * 16), ("--protection", "auth"), ("--auth", "low")],
)
def test_our_meter_refuses_another_security_context(options: tuple[str, ...]) -> None:
    with virtual_meter() as row:
        answer = gurux_client(int(row["port"]), [ENERGY], options=(*gurux_options(row), *options))

    assert not answer["associated"]
    assert answer["items"] == []


def test_dlms_cosem_reads_our_meter() -> None:
    with virtual_meter() as row, dlms_cosem() as peer:
        answer = peer.ask(
            "read",
            host=row["host"],
            port=int(row["port"]),
            mechanism="hls-gmac",
            counter=5,
            max_pdu=400,
            system_title=KEYS.client_title,
            encryption_key=row["encryption_key"],
            authentication_key=row["authentication_key"],
            objects=[ENERGY, *OBJECTS],
        )
        ours = own_answers(row, counters=(1000, 2000))

    assert isinstance(answer["items"][0]["value"], int)
    assert {item["object"]: item["hex"] for item in answer["items"][1:]} == ours


@pytest.mark.parametrize("suite", [0, 1, 2])
def test_dlms_cosem_opens_and_decodes_each_apdu_between_our_two_ends(suite: int) -> None:
    items = [
        *(_core.Item.attributes(0, [descriptor(text)]) for text in OBJECTS),
        _core.Item.buffer(1, name("1.0.99.1.0.255"), 6, select="all"),
        _core.Item.action((8, name("0.0.1.0.0.255"), 3), bytes([15, 0])),
    ]
    # dlms-cosem decodes no selection by entry, so the whole buffer is read: a day's.
    with virtual_meter(history_days=1, suite=suite) as row, recorded(row["host"], int(row["port"])) as recording:
        told = ask(recording.address, profile_of(max_pdu=400, suite=suite), items, **keys_of(row))
    assert told.outcome == "done", told

    with dlms_cosem() as peer:
        shared = {"encryption_key": row["encryption_key"], "authentication_key": row["authentication_key"]}

        def opened(apdu: bytes, title: str) -> tuple[int, dict[str, Any]]:
            found = peer.ask("open", hex=apdu.hex(), system_title=title, **shared)
            return found["counter"], peer.ask("decode", hex=found["plain"])

        aarq, aare = (peer.ask("decode", hex=sent[0].hex()) for sent in (recording.from_head_end, recording.from_meter))
        rlrq, rlre = (
            peer.ask("decode", hex=sent[-1].hex()) for sent in (recording.from_head_end, recording.from_meter)
        )
        asked = [opened(apdu, KEYS.client_title) for apdu in recording.from_head_end[1:-1]]
        answered = [opened(apdu, row["system_title"]) for apdu in recording.from_meter[1:-1]]

    assert (aarq["class"], aarq["authentication"]) == ("ApplicationAssociationRequest", "HLS_GMAC")
    assert (aare["class"], aare["result"]) == ("ApplicationAssociationResponse", "ACCEPTED")
    assert aare["system_title"] == row["system_title"]
    assert (rlrq["class"], rlre["class"]) == ("ReleaseRequest", "ReleaseResponse")
    for direction in (asked, answered):
        counters = [counter for counter, _ in direction]
        assert counters == sorted(set(counters))
    assert {apdu["class"] for _, apdu in asked} == {"ActionRequestNormal", "GetRequestNormal", "GetRequestNext"}
    values = [apdu for _, apdu in answered if apdu["class"].startswith("GetResponse")]
    assert values[0]["data"] == bytes(told.answers[0][0] or b"").hex()
    assert "GetResponseWithBlock" in {apdu["class"] for apdu in values}
    assert "GetResponseLastBlock" in {apdu["class"] for apdu in values}


def test_our_codec_and_dlms_cosem_give_data_the_same_meaning() -> None:
    values = {
        "00": None,
        "0301": True,
        "05fffffffe": -2,
        "0600bc614e": 12345678,
        "0903010203": "010203",
        "0a03414243": "414243",
        "0ffe": -2,
        "10fffe": -2,
        "11fe": 254,
        "12fffe": 65534,
        "14fffffffffffffffe": -2,
        "15fffffffffffffffe": 2**64 - 2,
        "1605": 5,
        "0102020211011202000202110212ffff": [[1, 512], [2, 65535]],
    }

    def meaning(value: Any) -> Any:
        kind, content = value
        if kind in ("array", "structure"):
            return [meaning(element) for element in content]
        return content.encode().hex() if kind == "visible-string" else content

    with dlms_cosem() as peer:
        theirs = {octets: peer.ask("data", hex=octets) for octets in values}
    ours = {octets: meaning(_core.decode_data(bytes.fromhex(octets))) for octets in values}

    assert ours == values
    assert {octets: value for octets, value in theirs.items() if octets != "0a03414243"} == {
        octets: value for octets, value in values.items() if octets != "0a03414243"
    }
