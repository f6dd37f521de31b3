"""Modbus devices of the registry: their addresses in the file and back, and how the reactor is told to treat them."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.field.fakes import meter

from ipss_headend import _core
from ipss_headend.config import ModbusConfig, ReactorConfig
from ipss_headend.errors import AuthenticationFailed, ConfigError, NotAuthorised
from ipss_headend.field import fleet_file
from ipss_headend.field.connect import Connector, Knowledge, numeric
from ipss_headend.field.fleet import FleetMeter, export_meters, import_meters, load_fleet
from ipss_headend.field.fleet_file import MeterLine, Protocol
from ipss_headend.security import Keystore
from ipss_headend.store import Database

TLS = Path(__file__).parents[3] / "rust" / "tests" / "tls"
NOTHING = Knowledge({}, {})
MAP = """
[map]
name = "own"
title = "Own"
manufacturer = "The utility"
source = "its manual"
most = 20
gap_ms = 250
in_flight = 4

[points]
p = { address = 1, type = "uint16" }
"""


def read_one(address: str, **cells: str) -> MeterLine | str:
    given = {"name": "d", "address": address, **cells}
    [line] = fleet_file.read(io.StringIO(f"{','.join(given)}\n{','.join(given.values())}\n"), "f.csv")
    return line


@pytest.mark.parametrize(
    ("address", "host", "port", "unit", "written"),
    [
        ("modbus+tcp://10.0.0.7/3", "10.0.0.7", 502, 3, "modbus+tcp://10.0.0.7:502/3"),
        ("modbus+tls://meter.example/3", "meter.example", 802, 3, "modbus+tls://meter.example:802/3"),
        ("modbus+tls://[2001:db8::1]:8020", "2001:db8::1", 8020, 1, "modbus+tls://[2001:db8::1]:8020/1"),
        ("modbus+udp://10.0.0.7:1502", "10.0.0.7", 1502, 1, "modbus+udp://10.0.0.7:1502/1"),
        ("modbus+rtu+tcp://10.0.0.7:4001/247", "10.0.0.7", 4001, 247, "modbus+rtu+tcp://10.0.0.7:4001/247"),
        ("modbus+rtu:///dev/ttyUSB0/9", "/dev/ttyUSB0", 0, 9, "modbus+rtu:///dev/ttyUSB0/9"),
        ("modbus+ascii:///dev/pts/0/9?baud=1200", "/dev/pts/0", 0, 9, "modbus+ascii:///dev/pts/0/9?baud=1200"),
        ("modbus+ascii+tcp://10.0.0.7:4001/9", "10.0.0.7", 4001, 9, "modbus+ascii+tcp://10.0.0.7:4001/9"),
        (
            "modbus+rtu:///dev/serial/by-id/x?baud=19200&parity=even",
            "/dev/serial/by-id/x",
            0,
            1,
            "modbus+rtu:///dev/serial/by-id/x/1?baud=19200&parity=even",
        ),
    ],
)
def test_address_of_a_device_names_its_transport_and_unit(
    address: str, host: str, port: int, unit: int, written: str
) -> None:
    line = read_one(address)

    assert isinstance(line, MeterLine), line
    assert (line.host, line.port, line.server) == (host, port, unit)
    assert line.address == written


@pytest.mark.parametrize(
    ("address", "cells", "words"),
    [
        ("modbus+rtu://ttyUSB0/1", {}, "not of the form modbus+rtu:///dev/ttyUSB0/UNIT"),
        ("modbus+rtu:///dev/ttyUSB0/1?baud=fast", {}, 'baud: "fast" is not one of 50 to 4000000'),
        ("modbus+rtu:///dev/ttyUSB0/1?parity=mark", {}, '"mark" is not one of none, even, odd'),
        ("modbus+rtu:///dev/ttyUSB0/1?speed=9600", {}, '"speed" is none of baud, data_bits, parity, stop_bits'),
        ("10.0.0.7:502", {"transport": "modbus+rtu"}, "a serial line is written modbus+rtu:///dev"),
        ("/dev/ttyUSB0", {}, "a serial line is written modbus+rtu:///dev"),
        ("modbus+tcp://10.0.0.7/1", {"in_flight": "17"}, 'in_flight: "17" is not a number from 0 to 16'),
        ("modbus+rtu+tcp://10.0.0.7:4001/1", {"in_flight": "2"}, "do not name their requests"),
        ("modbus+ascii://10.0.0.7/1", {}, "not of the form modbus+ascii:///dev/ttyUSB0/UNIT"),
        ("modbus+ascii+tcp://10.0.0.7/1", {"in_flight": "2"}, "do not name their requests"),
        ("modbus+plus://10.0.0.7/1", {}, "modbus+ascii://"),
        (
            "modbus+rtu:///dev/pts/0",
            {},
            "0 is the line's own number, and no unit is named; write modbus+rtu:///dev/pts",
        ),
        ("modbus+rtu:///dev/ttyUSB0/0", {}, "0 is all of them"),
        ("modbus+rtu:///dev/ttyUSB0/256", {}, "unit 256 is none"),
        ("modbus+tcp://10.0.0.7/256", {}, "not a number from 1 to 255"),
    ],
)
def test_what_cannot_be_is_refused_in_words(address: str, cells: dict[str, str], words: str) -> None:
    found = read_one(address, **cells)

    assert isinstance(found, str)
    assert words in found


def test_devices_of_every_transport_come_back_from_the_registry(tmp_path: Path) -> None:
    addresses = [
        "modbus+tls://device.example:802/1",
        "modbus+rtu:///dev/ttyUSB0/1?baud=19200",
        "modbus+rtu:///dev/ttyUSB0/2?baud=19200",
        "modbus+tcp://127.0.0.1:502/1",
    ]
    text = "name,address,in_flight\n" + "".join(
        f"d{number},{address},{4 if 'tcp' in address else ''}\n" for number, address in enumerate(addresses)
    )
    keystore, exported = Keystore(bytes(range(32))), io.StringIO()
    with Database(tmp_path / "s.sqlite", reserve_bytes=0) as database:
        with database.writing() as connection:
            assert import_meters(connection, keystore, io.StringIO(text), "f.csv").mistakes == ()
            again = import_meters(connection, keystore, io.StringIO(text.replace("d1,", "d9,")), "f.csv")
        with database.reading() as connection:
            export_meters(connection, exported)
            found = load_fleet(connection, keystore)

    assert 'address modbus+rtu:///dev/ttyUSB0/1?baud=19200 with server 1 is also that of "d1"' in again.mistakes[1]
    assert [one.written_address for one in found] == addresses
    assert [one.protocol.in_flight for one in found] == [0, 0, 0, 4]
    assert [numeric(one) for one in found] == [
        None,
        "serial:///dev/ttyUSB0?baud=19200",
        "serial:///dev/ttyUSB0?baud=19200",
        "127.0.0.1:502",
    ]
    with Database(tmp_path / "t.sqlite", reserve_bytes=0) as database, database.writing() as connection:
        assert import_meters(connection, keystore, io.StringIO(exported.getvalue()), "f.csv").mistakes == ()


@pytest.fixture
def treated(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What profiles were made of."""
    made: list[dict[str, Any]] = []
    profile = _core.ModbusProfile

    def keep(framing: Any, **settings: Any) -> _core.ModbusProfile:
        made.append({"framing": framing, **settings})
        return profile(framing, **settings)

    monkeypatch.setattr(_core, "ModbusProfile", keep)
    return made


def device(number: int, transport: str, model: str = "own", host: str = "127.0.0.1", **settings: Any) -> FleetMeter:
    return replace(meter(number, model=model), host=host, protocol=Protocol(transport=transport, **settings))


def test_a_device_is_treated_as_its_map_and_its_line_in_the_registry_say(treated: list[dict[str, Any]]) -> None:
    connector = Connector(ReactorConfig(), b"HEADEND1", maps=[("own.toml", MAP)])
    devices = [
        (device(1, "modbus+tcp"), "127.0.0.1:502"),
        (device(2, "modbus+tcp"), "127.0.0.1:502"),
        (device(3, "modbus+tcp", in_flight=2), "127.0.0.1:502"),
        (device(4, "modbus+udp", model="sunspec"), "127.0.0.1:502"),
        (device(5, "modbus+rtu", model="", host="/dev/x", line="baud=19200"), "serial:///dev/x?baud=19200"),
    ]

    for one, address in devices:
        connector.meter(one, address, NOTHING)

    common = {"answer_s": 3.0}
    own = {**common, "framing": "tcp", "baud": 9600, "gap_s": 0.25, "max_registers": 20}
    plain = {**common, "gap_s": 0.0, "max_registers": 125, "in_flight": 1}
    assert treated == [
        {**own, "in_flight": 4},
        {**own, "in_flight": 2},
        {**plain, "framing": "udp", "baud": 9600},
        {**plain, "framing": "rtu", "baud": 19_200},
    ], "devices that are treated alike share a profile"


def test_in_the_clear_only_in_the_networks_that_are_named_and_with_tls_anywhere() -> None:
    rules = ModbusConfig(authorities=TLS / "authority.pem", certificate=TLS / "reader.pem", key=TLS / "reader.key")
    connector = Connector(ReactorConfig(), b"HEADEND1", rules)

    for transport in ("modbus+tcp", "modbus+udp", "modbus+rtu+tcp"):
        with pytest.raises(NotAuthorised, match="use modbus"):
            connector.meter(device(1, transport, host="192.0.2.1"), "192.0.2.1:502", NOTHING)
    connector.meter(device(1, "modbus+tls", host="192.0.2.1"), "192.0.2.1:802", NOTHING)


def test_tls_wants_an_authority_and_a_role() -> None:
    nobody = ModbusConfig(authorities=TLS / "authority.pem", certificate=TLS / "nobody.pem", key=TLS / "nobody.key")
    one = device(1, "modbus+tls", host="device.example")

    with pytest.raises(ConfigError, match=r"\[modbus\] authorities"):
        Connector(ReactorConfig(), b"HEADEND1").meter(one, "192.0.2.1:802", NOTHING)
    with pytest.raises(AuthenticationFailed, match="names no role"):
        Connector(ReactorConfig(), b"HEADEND1", nobody).meter(one, "192.0.2.1:802", NOTHING)
