"""From nothing to the first reading: a key in a token, its shares, a fleet, and a meter that answers (R25)."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.system import test_cli
from tests.unit.security import softhsm

fleet = test_cli.fleet
"""Virtual meters that answer."""

ANSWERS = 'operator = "Olga"\nauditor = "Dora"\ncustodians = ["Anna", "Ben", "Cleo"]\nconfirm = true\n'


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTHSM2_CONF", "")
    softhsm.prepare(tmp_path / "hsm")


def ipss(*arguments: str | Path, status: int = 0) -> Any:
    command = [sys.executable, "-m", "ipss_headend.cli", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


@pytest.mark.usefixtures("environment")
def test_r25_ceremony_in_a_token_from_zero_to_the_first_reading(fleet: test_cli.Fleet, tmp_path: Path) -> None:
    token = softhsm.make_token("ceremony", tmp_path).pkcs11
    assert token is not None
    config = tmp_path / "head_end.toml"
    config.write_text(
        f'[keystore]\npkcs11_module = "{token.module}"\ntoken = "ceremony"\npin_file = "{token.pin_file}"\n'
    )
    (tmp_path / "answers.toml").write_text(ANSWERS)
    places = ("--to", tmp_path / "shares", "--protocol", tmp_path / "protocol.md", "--config", config)

    held = ipss("keys", "ceremony", "--answers", tmp_path / "answers.toml", *places)
    imported = ipss("meters", "import", fleet.csv, "--config", config)
    name = next(csv.DictReader(fleet.csv.read_text().splitlines()))["name"]
    first = ipss("read", name, "1.0.1.8.0.255", "--config", config)
    status = ipss("keys", "status", "--config", config)

    assert imported["imported"] == 4
    assert first["items"][0]["ok"]
    assert status["check_value"] == held["check_value"]
    assert (status["kind"], status["meters"]) == ("pkcs11", 4)
    assert "made there: AES-256, sensitive, not extractable" in (tmp_path / "protocol.md").read_text()
    proven = ipss("keys", "restore", *sorted((tmp_path / "shares").iterdir())[1:], "--check", "--config", config)
    assert proven["check_value"] == held["check_value"]
    token.pin_file.write_text("0000\n")
    refused = ipss("read", name, "1.0.1.8.0.255", "--config", config, status=5)
    assert refused["error"]["code"] == "token-error"
    assert os.environ["SOFTHSM2_CONF"]
