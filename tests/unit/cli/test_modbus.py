"""Modbus URLs and the names of registers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ipss_headend.cli.modbus_objects import Registers, SunSpecPoint, asked_of
from ipss_headend.cli.modbus_target import Proof, place_of, target_of
from ipss_headend.errors import RequestError


@pytest.mark.parametrize(
    ("text", "table", "address", "count"),
    [
        ("holding/40001:2", "holding", 0, 2),
        ("holding/400001", "holding", 0, 1),
        ("holding/1", "holding", 0, 1),
        ("holding/@40000:3", "holding", 40_000, 3),
        ("holding/465536", "holding", 65_535, 1),
        ("input/30010", "input", 9, 1),
        ("input/1:10", "input", 0, 10),
        ("discrete/10001", "discrete", 0, 1),
        ("coil/17", "coil", 16, 1),
        # No number of its table: the place itself.
        ("input/40001", "input", 40_000, 1),
        ("holding/40000", "holding", 39_999, 1),
    ],
)
def test_register_has_the_address_that_its_number_means(text: str, table: str, address: int, count: int) -> None:
    parsed = Registers.parse(text)

    assert (parsed.table, parsed.address, parsed.count) == (table, address, count)


@pytest.mark.parametrize("text", ["holding/0", "holding/", "coils/1", "holding/@65535:2", "input/1:0", "1.0.1.8.0.255"])
def test_register_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RequestError):
        Registers.parse(text)


@pytest.mark.parametrize(
    ("url", "framing", "where", "unit"),
    [
        ("modbus+tcp://192.0.2.1/7", "tcp", ("192.0.2.1", 502, ""), 7),
        ("modbus+tcp://192.0.2.1:1502", "tcp", ("192.0.2.1", 1502, ""), 1),
        ("modbus+udp://[2001:db8::1]/0", "udp", ("2001:db8::1", 502, ""), 0),
        ("modbus+rtu+tcp://h:4001/247", "rtu-over-tcp", ("h", 4001, ""), 247),
        ("modbus+rtu:///dev/ttyUSB0/3?baud=19200", "rtu", ("", 0, "serial:///dev/ttyUSB0?baud=19200"), 3),
        ("modbus+rtu:///dev/ttyUSB0", "rtu", ("", 0, "serial:///dev/ttyUSB0"), 1),
        ("modbus+rtu:///dev/pts/0/7", "rtu", ("", 0, "serial:///dev/pts/0"), 7),
        ("modbus+ascii+tcp://h:4001/3", "ascii", ("h", 4001, ""), 3),
        # ASCII has 7 data bits and even parity where the URL says nothing else.
        ("modbus+ascii:///dev/ttyS1/9", "ascii", ("", 0, "serial:///dev/ttyS1?data_bits=7&parity=even"), 9),
        (
            "modbus+ascii:///dev/pts/12/9?baud=1200&parity=none",
            "ascii",
            ("", 0, "serial:///dev/pts/12?baud=1200&parity=none&data_bits=7"),
            9,
        ),
    ],
)
def test_url_names_a_unit(url: str, framing: str, where: tuple[str, int, str], unit: int) -> None:
    target = target_of(url, Proof())

    assert (target.framing, (target.host, target.port, target.line), target.unit) == (framing, where, unit)


@pytest.mark.parametrize(
    "url",
    [
        "modbus+tcp://h/256",
        "modbus+tcp://h/1/2",
        "modbus+tcp:///1",
        "modbus+tcp://h:0/1",
        "modbus+rtu://h/1",
        "modbus+rtu:///dev/ttyUSB0/1?baud=fast",
        "modbus+ascii://h/1",
        "modbus+ascii+tcp:///dev/ttyUSB0/1",
        "modbus+rtu:///dev/ttyUSB0/0",
        "modbus+rtu:///dev/ttyUSB0/256",
        "modbus+tls://h/1",
    ],
)
def test_url_that_names_no_unit_is_refused(url: str) -> None:
    with pytest.raises(RequestError):
        target_of(url, Proof())


@pytest.mark.parametrize("scheme", ["modbus+rtu", "modbus+ascii"])
@pytest.mark.parametrize("line", ["/dev/pts/0", "/dev/pts/247", "/dev/3", "/dev/tts/1"])
def test_number_of_a_line_is_never_taken_for_a_unit(scheme: str, line: str) -> None:
    with pytest.raises(RequestError, match=re.escape(f"no unit is named; write {scheme}://{line}/UNIT")):
        target_of(f"{scheme}://{line}?baud=9600", Proof())

    assert target_of(f"{scheme}://{line}/5", Proof()).unit == 5
    # A scan names the line alone.
    assert place_of(f"{scheme}://{line}", Proof())[1] is None


def test_unit_0_of_a_line_is_all_of_them_and_none_answers() -> None:
    with pytest.raises(RequestError, match="0 is all of them"):
        target_of("modbus+rtu:///dev/ttyUSB0/0", Proof())


@pytest.mark.parametrize(
    ("model", "text", "model_number", "point"),
    [
        (None, "701/W", 701, "W"),
        ("sunspec", "705/Crv[1].Pt[3].V", 705, "Crv[1].Pt[3].V"),
        ("sunspec", "WMaxLimPct", None, "WMaxLimPct"),
    ],
)
def test_point_of_a_sunspec_model_is_named(model: str | None, text: str, model_number: int | None, point: str) -> None:
    asked = asked_of([text, "holding/1", "sunspec"], model, None)

    assert asked.sunspec == {text: SunSpecPoint(model_number, point)}
    assert [one is not None for one in asked.registers] == [False, True, False]


def test_point_without_a_model_is_refused_where_nobody_knows_the_device() -> None:
    with pytest.raises(RequestError, match="only with --map NAME"):
        asked_of(["W"], None, None)


def test_tls_has_a_port_of_its_own() -> None:
    assert target_of("modbus+tls://h/1", Proof(authorities=Path("ca.pem"))).port == 802
