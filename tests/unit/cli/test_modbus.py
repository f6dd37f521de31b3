"""Modbus URLs and the names of registers."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipss_headend.cli.modbus import Proof, Registers, target_of
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
        "modbus+tls://h/1",
    ],
)
def test_url_that_names_no_unit_is_refused(url: str) -> None:
    with pytest.raises(RequestError):
        target_of(url, Proof())


def test_tls_has_a_port_of_its_own() -> None:
    assert target_of("modbus+tls://h/1", Proof(authorities=Path("ca.pem"))).port == 802
