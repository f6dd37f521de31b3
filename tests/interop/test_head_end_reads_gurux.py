"""Our head-end reads a meter that this project did not write."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from tests.interop.head_end import Told, ask, gurux_keys, name, profile_of, switch_off, utc_us
from tests.interop.peers import GuruxMeter, gurux_meter

from ipss_headend import _core

PROFILE = name("1.0.99.1.0.255")
# The gurux-dlms meter's profile begins here, in its local time, an hour ahead of UTC.
BEGIN = dt.datetime(2026, 3, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))
LINES = 192


def line(number: int) -> tuple[int, list[int]]:
    """Line `number` of the gurux-dlms meter's profile, from 0."""
    captured = BEGIN + dt.timedelta(minutes=15 * (number + 1))
    return utc_us(captured), [1_000_000 + 250 * number, 7 * number, 40_000 + 11 * number, number]


ITEMS = [
    _core.Item.attributes(0, [(3, name("1.0.1.8.0.255"), 2), (3, name("1.0.1.8.0.255"), 3)]),
    _core.Item.attributes(0, [(1, name("0.0.42.0.0.255"), 2)]),
    _core.Item.attributes(2, [(4, name("1.0.1.6.0.255"), 2), (4, name("1.0.1.6.0.255"), 5)], capture_time=1),
    _core.Item.attributes(0, [(5, name("1.0.1.4.0.255"), 3), (5, name("1.0.1.4.0.255"), 4)]),
    _core.Item.attributes(0, [(8, name("0.0.1.0.0.255"), 2)]),
    _core.Item.attributes(0, [(70, name("0.0.96.3.10.255"), 2), (70, name("0.0.96.3.10.255"), 3)]),
    _core.Item.attributes(0, [(17, name("0.0.41.0.0.255"), 2)]),
    _core.Item.attributes(0, [(15, name("0.0.40.0.0.255"), 2)]),
    _core.Item.buffer(1, PROFILE, 5),
    _core.Item.buffer(3, PROFILE, 5, select="entries", entries=(2, 5, 1, 0)),
    _core.Item.action((8, name("0.0.1.0.0.255"), 3), bytes([15, 0])),
    _core.Item.attributes(0, [(70, name("0.0.96.3.10.255"), 2)]),
    _core.Item.attributes(0, [(3, name("1.0.9.9.9.255"), 2)]),
    _core.Item.buffer(4, PROFILE, 5, select="all"),
]
FROM, TO = BEGIN + dt.timedelta(hours=1), BEGIN + dt.timedelta(hours=3)


def read(meter: GuruxMeter, profile: _core.Profile) -> Told:
    return ask(f"{meter.host}:{meter.port}", profile, ITEMS, from_us=utc_us(FROM), to_us=utc_us(TO), **gurux_keys())


def decoded(cell: Any) -> Any:
    return _core.decode_data(cell)


def check(told: Told) -> None:
    """Everything that `ITEMS` asks for has come, exactly."""
    assert told.outcome == "refused", told
    assert told.refusals == {12: 4}
    energy = told.answers[0]
    assert decoded(energy[0]) == ["double-long-unsigned", 12_345_678]
    assert decoded(energy[1]) == ["structure", [["integer", 0], ["enum", 30]]]
    assert decoded(told.answers[1][0]) == ["octet-string", b"GRX00000001".hex()]
    assert told.rows[2] == [(utc_us(BEGIN + dt.timedelta(hours=18, minutes=15)), [8123])]
    assert decoded(told.answers[3][0]) == ["double-long-unsigned", 2987]
    clock = decoded(told.answers[4][0])
    assert clock[0] == "octet-string"
    assert len(clock[1]) == 24
    assert [decoded(cell) for cell in told.answers[5]] == [["boolean", True], ["enum", 1]]
    assert decoded(told.answers[6][0])[1][0][1][0] == ["long-unsigned", 1]
    assert len(decoded(told.answers[7][0])[1]) == 14
    assert told.rows[1] == [line(number) for number in range(3, 12)]
    assert told.rows[3] == [line(number) for number in range(1, 5)]
    assert decoded(told.answers[11][0]) == ["boolean", True]
    assert told.rows[4] == [line(number) for number in range(LINES)]


@pytest.mark.parametrize("form", ["glo", "general-glo", "ded", "general-ded"])
@pytest.mark.parametrize("protection", ["auth+enc", "auth", "enc"])
def test_head_end_reads_everything_over_hls_gmac(protection: str, form: str) -> None:
    options = ("--general-protection",) if form.startswith("general") else ()
    ciphering = "general" if form.startswith("general") else "service"
    with gurux_meter(protection=protection, options=options) as meter:
        told = read(meter, profile_of("hls-gmac", protection, ciphering, dedicated=form.endswith("ded")))
        log = meter.log()

    check(told)
    assert log["refused"] == []
    assert log["nonce_used_twice"] is False
    assert "get-with-list" in log["requests"]
    assert log["requests"].count("get-next") > 10
    expected = {
        "glo": ["60", "cb", "c8", "62"],
        "ded": ["60", "cb", "d0", "d3", "62"],
        "general-glo": ["60", "db", "62"],
        "general-ded": ["60", "db", "dc", "62"],
    }
    assert log["tags"] == expected[form]


@pytest.mark.parametrize("authentication", ["low", "none"])
def test_head_end_reads_everything_without_ciphering(authentication: str) -> None:
    with gurux_meter(auth=authentication, protection="none") as meter:
        told = read(meter, profile_of(authentication, "none"))
        log = meter.log()

    check(told)
    assert log["refused"] == []
    assert log["tags"] == ["60", "c0", "c3", "62"]


def test_head_end_takes_small_blocks() -> None:
    with gurux_meter(options=("--max-pdu", "128")) as meter:
        told = read(meter, profile_of())
        log = meter.log()

    check(told)
    assert log["requests"].count("get-next") > 50


@pytest.mark.parametrize(
    ("options", "changed", "outcome", "event"),
    [
        ((), {"encryption_key": bytes(15) + b"\x01"}, "authentication-failed", "association-rejected"),
        (("--auth", "low", "--protection", "none"), {}, "authentication-failed", "association-rejected"),
        (("--system-title", "4752580000000002"), {}, "authentication-failed", "system-title-mismatch"),
    ],
)
def test_head_end_refuses_another_meter_than_the_one_it_knows(
    options: tuple[str, ...], changed: dict[str, Any], outcome: str, event: str
) -> None:
    with gurux_meter(options=options) as meter:
        told = ask(f"{meter.host}:{meter.port}", profile_of(), ITEMS[:1], **{**gurux_keys(), **changed})

    assert told.answers == {}
    assert (told.outcome, event in told.events) == (outcome, True), told


def test_released_disconnection_switches_their_meter_and_a_plain_one_never_reaches_it(tmp_path: Path) -> None:
    with gurux_meter() as meter:
        address = f"{meter.host}:{meter.port}"
        plain = ask(
            address, profile_of(), [_core.Item.action((70, name("0.0.96.3.10.255"), 1), b"\x0f\x00")], **gurux_keys()
        )
        outcome, cells = switch_off(
            address, profile_of(), tmp_path / "stop", counters=(200_000, 300_000), **gurux_keys()
        )

    assert (plain.outcome, "for released commands only" in plain.detail) == ("impossible", True)
    assert (outcome, cells) == ("done", [["boolean", False]])


def test_a_wrong_password_is_told_as_such() -> None:
    with gurux_meter(auth="low", protection="none") as meter:
        keys = {**gurux_keys(), "password": b"wrong"}
        told = ask(f"{meter.host}:{meter.port}", profile_of("low", "none"), ITEMS[:1], **keys)

    assert told.answers == {}
    assert told.outcome == "authentication-failed", told


def test_a_meter_that_expects_a_higher_counter_is_told_as_such() -> None:
    with gurux_meter(options=("--expected-counter", "5000")) as meter:
        told = ask(f"{meter.host}:{meter.port}", profile_of(), ITEMS[:1], **gurux_keys())

    assert told.answers == {}
    assert "counter-behind" in told.events, told


def test_a_counter_that_the_meter_used_before_is_refused() -> None:
    with gurux_meter(options=("--invocation-counter", "1000")) as meter:
        told = ask(f"{meter.host}:{meter.port}", profile_of(), ITEMS[:1], peer_counter=4000, **gurux_keys())

    assert told.answers == {}
    assert "replay-refused" in told.events, told
