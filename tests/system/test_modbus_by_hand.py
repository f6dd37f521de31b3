"""`read` of Modbus devices by hand: by their names in the registry, over ASCII, and what it does not write (R44)."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from tests.system.fleet import opened
from tests.system.test_modbus_scan import scan
from tests.system.test_serve import serving
from tests.system.test_transports import REGISTERS, ascii_line, mbap, tcp_device
from typer.testing import CliRunner

from ipss_headend import _core, config
from ipss_headend.cli.app import app, load_commands
from ipss_headend.field.fleet import import_meters
from ipss_headend.security.keystore import Keystore, create_key_file
from ipss_headend.server import HeadEnd

MAP = """
[map]
name = "bench-device"
title = "Bench device"
manufacturer = "Tests"
source = "tests/system/test_transports.py"

[points]
five = { address = 5, type = "uint16", unit = "V" }
energy = { address = 20, type = "uint32", unit = "Wh", poll = "slow" }
breaker = { address = 30, type = "uint16", access = "rw", effect = "switch" }
"""


@pytest.fixture
def devices() -> Iterator[_core.VirtualDevices]:
    running = _core.VirtualDevices(inverters=1, storage=1, submeters=1, first_address="127.2.13.1", port=0)
    yield running
    running.stop()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A head-end's configuration, and a map of its own."""
    create_key_file(tmp_path / "key_encryption.key")
    found = tmp_path / "head_end.toml"
    found.write_text(
        '[keystore]\nkey_file = "key_encryption.key"\n[metrics]\nport = 0\n'
        '[[plans]]\nname = "meters"\nobjects = ["1.0.1.8.0.255"]\nevery = "15min"\n',
        encoding="utf-8",
    )
    maps = config.load(found).data_directory / "maps"
    maps.mkdir(parents=True)
    (maps / "bench-device.toml").write_text(MAP, encoding="utf-8")
    return found


def headend(*arguments: object, expect: int = 0) -> str:
    """What a command says: its answer, or why there is none."""
    load_commands()
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    assert done.exit_code == expect, done.output
    return done.stdout if expect in {0, 8} else done.stderr


def items(*arguments: object) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(headend("read", *arguments, "--json"))["items"]
    return found


def enrol(path: Path, *lines: str) -> None:
    loaded = config.load(path)
    with opened(loaded) as database, database.writing() as connection:
        keystore = Keystore.open(connection, loaded.keystore)
        text = io.StringIO("".join(f"{line}\n" for line in ("name,address,model", *lines)))
        assert import_meters(connection, keystore, text, "f.csv", strict=True).mistakes == ()


def test_points_of_a_registered_device_are_read_by_their_names_in_its_map(path: Path) -> None:
    with tcp_device(mbap) as port:
        enrol(path, f"bench,modbus+tcp://127.0.0.1:{port}/9,bench-device")
        found = items("bench", "five", "energy", "holding/@7:2", "identification", "--config", path)
        unknown = headend("read", "bench", "six", "--config", path, expect=2)

    assert [(one["value"], one.get("unit")) for one in found[:2]] == [("35", "V"), (str((140 << 16) + 147), "Wh")]
    assert found[2]["value"] == [49, 56]
    assert found[3]["value"] == {"vendor_name": "Acme", "product_code": "X-1"}
    assert "has no point six; it has" in unknown


def test_points_of_a_registered_sunspec_device_are_read_by_their_names_while_the_head_end_runs(
    path: Path, devices: _core.VirtualDevices
) -> None:
    (inverter, _), _, (meter, _) = devices.devices()
    enrol(path, f"inverter-1,{inverter},sunspec", f"meter-1,{meter},")
    answers: list[list[dict[str, object]]] = []

    async def talk(_: HeadEnd) -> None:
        def ask() -> None:
            asked = ("704/WMaxLimPct", "Mn", "holding/@40000:2", "sunspec", "--config", path)
            answers.append(items("inverter-1", *asked))
            answers.append(items("meter-1", "203/W", "TotWhImp", "--config", path))

        await trio.to_thread.run_sync(ask)

    serving(path, talk)
    [of_inverter, of_meter] = answers

    assert [one["value"] for one in of_inverter[:3]] == ["100.0", "ipss-headend", [0x5375, 0x6E53]]
    assert (of_inverter[0]["unit"], of_inverter[0]["model"]) == ("Pct", 704)
    assert {one["model"] for one in of_inverter[3]["value"]} >= {1, 103, 704}  # type: ignore[attr-defined]
    assert [one["unit"] for one in of_meter] == ["W", "Wh"]


def test_point_that_the_device_has_not_is_said_and_the_others_are_read(devices: _core.VirtualDevices) -> None:
    url, _ = devices.devices()[0]
    document = json.loads(headend("read", url, "701/W", "701/Nonsense", "999/W", "--json", expect=8))

    assert [one["ok"] for one in document["items"]] == [True, False, False]
    assert document["items"][2]["error"]["code"] == "no-such-point"


def test_ascii_on_a_serial_line_is_read_traced_and_scanned() -> None:
    with ascii_line() as line:
        document = json.loads(
            headend("read", f"modbus+ascii://{line}/3?baud=19200", "holding/40003:4", "--trace", "--json")
        )
        status, units = scan(f"modbus+ascii://{line}?baud=19200", "--units", "3,4", "--wait", "2")
        unnamed = headend("read", f"modbus+ascii://{line}?baud=19200", "holding/40003", expect=2)

    assert document["items"][0]["value"] == [14, 21, 28, 35]
    assert [one["outcome"] for one in document["trace"]] == ["decoded", "decoded"]
    assert status == 0
    assert [unit["url"] for unit in units] == [f"modbus+ascii://{line}/{unit}?baud=19200" for unit in (3, 4)]
    assert "the line's own number" in unnamed


def test_nothing_is_written_by_hand_to_a_device_of_the_registry(path: Path) -> None:
    before = list(REGISTERS)
    with tcp_device(mbap) as port:
        enrol(path, f"bench,modbus+tcp://localhost:{port}/9,bench-device")
        write = ("holding/@40", "--set", "1", "--yes", "--by-hand", "--config", path)
        by_name = headend("read", "bench", *write, expect=5)
        for url in (f"modbus+tcp://127.0.0.1:{port}/9", f"modbus+tcp://localhost:{port}/255"):
            assert "bench is in the registry" in headend("read", url, *write, expect=5)
        # Another unit of the gateway is another device.
        headend(
            "read",
            f"modbus+tcp://127.0.0.1:{port}/8",
            "holding/@41",
            "--set",
            "3",
            "--yes",
            "--by-hand",
            "--config",
            path,
        )

    assert "control switch bench" in by_name
    assert "control limit bench" in by_name
    assert REGISTERS[40] == before[40]
    assert REGISTERS[41] == 3


def test_a_device_outside_the_registry_is_written_by_who_says_so() -> None:
    with tcp_device(mbap) as port:
        url = f"modbus+tcp://127.0.0.1:{port}/1"
        before = REGISTERS[60]
        unsaid = headend("read", url, "holding/@60", "--set", "9", "--yes", expect=2)
        assert REGISTERS[60] == before
        headend("read", url, "holding/@60", "--set", "9", "--yes", "--by-hand")

    assert "--by-hand" in unsaid
    assert REGISTERS[60] == 9


@pytest.mark.parametrize(("object_", "effect"), [("holding/@30", "switch"), ("holding/@29:3", "switch")])
def test_register_that_its_map_marks_is_not_written_by_hand(path: Path, object_: str, effect: str) -> None:
    count = int(object_.partition(":")[2] or 1)
    before = list(REGISTERS)
    with tcp_device(mbap) as port:
        asked = (f"modbus+tcp://127.0.0.1:{port}/1", object_, "--set", " ".join("1" * count), "--yes", "--by-hand")
        refused = headend("read", *asked, "--map", "bench-device", "--config", path, expect=5)

    assert f"control {effect} DEVICE" in refused
    assert "breaker of its register map" in refused
    assert before == REGISTERS


@pytest.mark.parametrize(
    ("model", "point", "value", "command"),
    [(123, "Conn", "0", "switch"), (123, "WMaxLimPct", "0", "limit"), (704, "WMaxLimPctEna", "1", "limit")],
)
def test_sunspec_point_that_switches_or_limits_is_not_written_by_hand(
    devices: _core.VirtualDevices, model: int, point: str, value: str, command: str
) -> None:
    url, _ = devices.devices()[0]
    [before] = items(url, f"{model}/{point}")
    refused = headend("read", url, f"holding/@{before['address']}", "--set", value, "--yes", "--by-hand", expect=5)

    assert f"SunSpec model {model}" in refused
    assert command in refused
    assert items(url, f"{model}/{point}") == [before]


def test_sunspec_point_that_limits_no_power_is_written_by_hand(devices: _core.VirtualDevices) -> None:
    url, _ = devices.devices()[0]
    [before] = items(url, "705/Ena")
    headend("read", url, f"holding/@{before['address']}", "--set", "1", "--yes", "--by-hand")

    assert (before["value"], items(url, "705/Ena")[0]["value"]) == ("0", "1")
