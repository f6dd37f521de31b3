"""`ipss-headend read` asks a meter that this project did not write, and answers as CLI.md says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.interop.peers import KEYS, GuruxMeter, gurux_meter

DONE, UNREACHABLE, SECURITY, PARTLY = 0, 4, 5, 8
TIMEOUT_S = 60


def read(meter: GuruxMeter, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """Exit status and JSON document of one `read`."""
    command = [sys.executable, "-m", "ipss_headend.cli", "read", f"dlms+tcp://{meter.host}:{meter.port}"]
    ran = subprocess.run(
        [*command, *map(str, arguments), "--client", "1", "--json"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ran.stdout, ran.stderr
    return ran.returncode, json.loads(ran.stdout)


@pytest.fixture
def secured(tmp_path: Path) -> list[str | Path]:
    """Options for HLS-GMAC with the suite's keys."""
    keys = tmp_path / "keys.toml"
    keys.touch(mode=0o600)
    keys.write_text(
        f'[{KEYS.meter_title}]\nencryption_key = "{KEYS.encryption_key}"\n'
        f'authentication_key = "{KEYS.authentication_key}"\nclient_system_title = "{KEYS.client_title}"\n'
    )
    return ["--keys", keys, "--counter-file", tmp_path / "counters"]


@pytest.fixture
def password(tmp_path: Path) -> list[str | Path]:
    """Options for LLS."""
    file = tmp_path / "password"
    file.touch(mode=0o600)
    file.write_text(KEYS.password + "\n")
    return ["--auth", "low", "--password-file", file]


OBJECTS = ["1-0:1.8.0*255", "1.0.32.7.0.255", "4/1.0.1.6.0.255", "5/1.0.1.4.0.255", "0-0:1.0.0*255"]


def check_objects(answer: dict[str, Any]) -> None:
    """What the gurux-dlms meter holds in `OBJECTS`."""
    energy, voltage, maximum, demand, clock = answer["items"]
    assert (energy["object"], energy["value"], energy["unit"]) == ("3/1.0.1.8.0.255:2", "12345678", "Wh")
    assert energy["raw"] == ["double-long-unsigned", 12345678]
    assert (voltage["value"], voltage["scaler"], voltage["unit"]) == ("230.4", -1, "V")
    assert (maximum["value"], maximum["capture_time"]) == ("8123", "2026-03-01T18:15:00+01:00")
    assert (demand["value"], demand["unit"]) == ("3012", "W")
    assert clock["value"].endswith("+01:00")


@pytest.mark.parametrize("protection", ["auth+enc", "auth", "enc"])
def test_registers_and_clock_over_hls_gmac(secured: list[str | Path], protection: str) -> None:
    with gurux_meter(protection=protection) as meter:
        status, answer = read(meter, *OBJECTS, *secured, "--protection", protection)

    assert status == DONE
    check_objects(answer)


def test_registers_and_clock_over_lls(password: list[str | Path]) -> None:
    with gurux_meter(auth="low", protection="none") as meter:
        status, answer = read(meter, *OBJECTS, *password)

    assert status == DONE
    check_objects(answer)


@pytest.mark.parametrize("auth", ["hls-gmac", "low"])
def test_a_profile_by_range(secured: list[str | Path], password: list[str | Path], auth: str) -> None:
    options = secured if auth == "hls-gmac" else password
    with gurux_meter(auth=auth, protection="auth+enc" if auth == "hls-gmac" else "none") as meter:
        status, answer = read(
            meter, "1.0.99.1.0.255", "--from", "2026-03-01T00:00:00Z", "--to", "2026-03-01T00:45:00Z", *options
        )

    assert status == DONE
    assert [(row["capture_time"], row["values"]) for row in answer["rows"]] == [
        (f"2026-03-01T00:{15 * line:02}:00Z", [str(value) for value in values])
        for line, values in enumerate(
            [(1000750, 21, 40033, 3), (1001000, 28, 40044, 4), (1001250, 35, 40055, 5), (1001500, 42, 40066, 6)]
        )
    ]


def test_the_newest_entries_of_one_column(secured: list[str | Path]) -> None:
    with gurux_meter() as meter:
        status, answer = read(meter, "1.0.99.1.0.255", "--last", "2", "--columns", "1.0.1.8.0.255", *secured)

    assert status == DONE
    assert [row["values"] for row in answer["rows"]] == [["1047500"], ["1047750"]]


def test_the_object_list(secured: list[str | Path]) -> None:
    with gurux_meter() as meter:
        status, answer = read(meter, "objects", *secured)

    assert status == DONE
    names = [item["logical_name"] for item in answer["items"][0]["value"]]
    assert len(names) == 14
    assert "1.0.99.1.0.255" in names


def test_counters_go_on_from_one_call_to_the_next(secured: list[str | Path]) -> None:
    with gurux_meter() as meter:
        for _ in range(3):
            status, _ = read(meter, "1.0.1.8.0.255", *secured)
            log = meter.log()

            assert status == DONE
            assert log["refused"] == []


def test_what_the_meter_refuses_is_told_beside_what_it_gives(secured: list[str | Path]) -> None:
    with gurux_meter() as meter:
        status, answer = read(meter, "1.0.1.8.0.255", "3/1.0.9.9.9.255", *secured)

    assert status == PARTLY
    assert [item["ok"] for item in answer["items"]] == [True, False]
    assert answer["items"][1]["error"]["code"] == "object-undefined"


def test_a_wrong_key_is_a_matter_of_security(secured: list[str | Path]) -> None:
    with gurux_meter(options=("--encryption-key", "00" * 15 + "07")) as meter:
        status, answer = read(meter, "1.0.1.8.0.255", *secured)

    assert status == SECURITY
    assert answer["items"][0]["error"]["code"] == "authentication-failed"
    assert KEYS.encryption_key not in json.dumps(answer)


def test_nobody_there_is_told_as_such(secured: list[str | Path]) -> None:
    with gurux_meter() as meter:
        pass

    status, answer = read(meter, "1.0.1.8.0.255", *secured, "--timeout", "3")

    assert status == UNREACHABLE
    assert not answer["items"][0]["ok"]
