"""What `init`, `check-config`, `meters` and `readings` do to files and registry."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from tests.unit.cli.support import FLEET, Run

from ipss_headend.cli.plot import plot
from ipss_headend.store import Database, Layout, LayoutColumn, WriteBatch, journal, reading_row
from ipss_headend.store.registry import intern_layouts

SECRET = "859b2ecfbfd633a7a4cb8e9a908e89fa"
CAPTURED_US = 1_767_225_600_000_000


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.csv"
    path.write_text(FLEET)
    return path


@pytest.fixture
def read(run: Run, head_end: Path, fleet: Path) -> Path:
    """A head-end that has read two registers of its first meter, one of them twice."""
    run("meters", "import", fleet, "--config", head_end)
    layouts = [
        Layout(3, name, 2, (LayoutColumn(3, name, 2, 0, -3, "kWh", "energy"),))
        for name in ("1.0.1.8.0.255", "1.0.2.8.0.255")
    ]
    path = head_end.parent / "data" / "head_end.sqlite"
    with Database(path, reserve_bytes=0) as database, database.writing() as connection:
        first, second = intern_layouts(connection, layouts)
        rows = [
            reading_row(1, first, CAPTURED_US, [12345], received_us=CAPTURED_US),
            reading_row(1, first, CAPTURED_US + 900_000_000, [12350], received_us=CAPTURED_US),
            reading_row(1, second, CAPTURED_US, [7], received_us=CAPTURED_US),
        ]
        journal.write(connection, WriteBatch(readings=rows), CAPTURED_US, 0)
    return head_end


def test_init_makes_what_check_config_calls_good(run: Run, native: Any, tmp_path: Path) -> None:
    made = run("init", tmp_path / "new", "--json")
    config = json.loads(made.out)["config"]

    checked = run("check-config", config, "--json")

    assert (made.status, checked.status) == (0, 0)
    assert json.loads(checked.out) == {"file": config, "ok": True, "mistakes": [], "remarks": []}
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"head_end.toml", "key_encryption.key", "data"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "new").iterdir())


def test_init_leaves_what_is_there_alone(run: Run, head_end: Path) -> None:
    before = head_end.read_text()

    assert run("init", head_end.parent).status == 3

    assert head_end.read_text() == before


def test_two_head_ends_have_titles_of_their_own(run: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run("init", tmp_path / name)

    titles = [
        line
        for name in ("a", "b")
        for line in (tmp_path / name / "head_end.toml").read_text().splitlines()
        if line.startswith("client_system_title")
    ]
    assert len(set(titles)) == 2


def test_check_config_tells_every_mistake_with_its_key(run: Run, head_end: Path) -> None:
    head_end.write_text(head_end.read_text().replace('"15min"', '"7min"').replace("port = 9466", "port = 99466"))

    ran = run("check-config", head_end)

    assert (ran.status, ran.out) == (3, "")
    assert "head_end.toml: metrics.port: 99466" in ran.err
    assert "plans[1].every" in ran.err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("key_encryption.key", "other.key"), "keystore.key_file: {0}/other.key: No such file or directory"),
        (
            ("[reactor]", "[[listeners]]\nport = 9466\n[reactor]"),
            "metrics: 127.0.0.1:9466 is listeners[0]'s too",
        ),
        (
            ('"1.0.2.8.0.255"', '"0.0.199.199.0.255"'),
            "plans[0].objects[1]: 0.0.199.199.0.255: the catalogue does not know",
        ),
        (("[reactor]", '[modbus]\nauthorities = "ca.pem"\n[reactor]'), "modbus.authorities: {0}/ca.pem is not there"),
        (
            ("[reactor]", '[plugins]\nenabled = ["nightrule"]\n[reactor]'),
            'plugins.enabled: no plugin "nightrule" is installed',
        ),
        (('data_directory = "data"', 'data_directory = "head_end.toml"'), "head_end.toml is no directory"),
        (
            ("[reactor]", '[[listeners]]\ntransport = "mbus"\nline = "/dev/none"\n[reactor]'),
            "listeners[0].line: /dev/none is not",
        ),
        (
            ("[reactor]", '[rpc]\nport = 4060\ncertificate = "c"\nkey = "k"\nclient_authority = "a"\n[reactor]'),
            "rpc.certificate: {0}/c: No such file or directory",
        ),
        (
            ("sqlite:///head_end.sqlite", 'postgresql://u@h/d"\npassword_file = "db.password'),
            "database.password_file: {0}/db.password is not there",
        ),
        (
            ('key_file = "key_encryption.key"', 'pkcs11_module = "p.so"\ntoken = "t"\npin_file = "pin"'),
            "keystore.pkcs11_module: {0}/p.so is not there",
        ),
        (
            ('key_file = "key_encryption.key"', 'passphrase_env = "IPSS_NO_SUCH_VARIABLE"'),
            "keystore.passphrase_env: IPSS_NO_SUCH_VARIABLE is not in the environment",
        ),
    ],
)
def test_check_config_tells_what_serve_would_stumble_over(
    run: Run, native: Any, head_end: Path, change: tuple[str, str], said: str
) -> None:
    text = head_end.read_text()
    assert change[0] in text
    head_end.write_text(text.replace(*change))

    ran = run("check-config", head_end, "--json")

    [mistake] = json.loads(ran.out)["mistakes"]
    assert (ran.status, mistake) == (3, ran.err.strip())
    assert mistake.startswith("head_end.toml: ")
    assert said.format(head_end.parent) in mistake


def test_check_config_sees_a_key_that_others_may_read(run: Run, native: Any, head_end: Path) -> None:
    (head_end.parent / "key_encryption.key").chmod(0o644)

    ran = run("check-config", head_end)

    assert ran.status == 3
    assert "chmod 600" in ran.err


def test_check_config_remarks_what_may_not_be_meant(run: Run, native: Any, head_end: Path) -> None:
    head_end.write_text(head_end.read_text().partition("[[plans]]")[0] + "[metrics]\nport = 0\n")

    ran = run("check-config", head_end)

    assert ran.status == 0
    assert ran.err.splitlines() == [
        "no [[plans]]: nothing is read by itself",
        "[metrics] port = 0: nobody is told when something goes wrong",
    ]


def test_import_refuses_lines_with_their_numbers_and_takes_the_rest(run: Run, head_end: Path, fleet: Path) -> None:
    fleet.write_text(FLEET + f"zero,192.0.2.3,4d4d4d0000000003,{'00' * 16},{'01' * 16},\n")

    ran = run("meters", "import", fleet, "--config", head_end, "--json")

    report = json.loads(ran.out)
    assert (ran.status, report["imported"], report["refused"]) == (8, 2, 1)
    assert "fleet.csv: line 4: encryption_key" in ran.err


def test_strict_import_takes_all_or_nothing(run: Run, head_end: Path, fleet: Path) -> None:
    fleet.write_text(FLEET + "again,192.0.2.1,,,,\n")

    assert run("meters", "import", fleet, "--strict", "--config", head_end).status == 3

    listed = run("meters", "list", "--json", "--config", head_end)
    assert json.loads(listed.out) == {"meters": []}


def test_no_way_of_looking_at_meters_shows_a_key(run: Run, head_end: Path, fleet: Path) -> None:
    run("meters", "import", fleet, "--config", head_end)

    for arguments in (["list"], ["list", "--json"], ["show", "oak street 1"], ["export"], ["list", "--group", "east"]):
        ran = run("meters", *arguments, "--config", head_end)
        assert ran.status == 0
        assert "oak street 1" in ran.out
        assert SECRET not in (ran.out + ran.err).lower()


def test_export_with_keys_asks_and_can_be_imported_elsewhere(
    run: Run, head_end: Path, fleet: Path, tmp_path: Path
) -> None:
    run("meters", "import", fleet, "--config", head_end)
    target = tmp_path / "with_keys.csv"

    refused = run("meters", "export", target, "--with-keys", "--config", head_end)
    assert (refused.status, target.exists()) == (2, False)

    assert run("meters", "export", target, "--with-keys", "--yes", "--config", head_end).status == 0
    assert target.stat().st_mode & 0o777 == 0o600
    assert SECRET in target.read_text()
    run("init", tmp_path / "other")
    again = run("meters", "import", target, "--strict", "--config", tmp_path / "other" / "head_end.toml")
    assert again.status == 0, again.err


def test_query_gives_the_latest_and_with_a_time_the_series(run: Run, read: Path) -> None:
    latest = json.loads(run("readings", "query", "oak street 1", "--json", "--config", read).out)["readings"]
    series = run(
        "readings", "query", "oak street 1", "1.0.1.8.0.255", "--from", "2026-01-01", "--json", "--config", read
    )

    assert [one["value"] for one in latest] == ["12.350", "0.007"]
    assert {one["object"]: (one["direction"], one["reading_type"]) for one in latest}["3/1.0.1.8.0.255:2"] == (
        "import",
        "0.0.0.1.1.1.12.0.0.0.0.0.0.0.0.0.72.0",
    )
    values = json.loads(series.out)["readings"]
    assert [(one["capture_time"], one["value"], one["unit"]) for one in values] == [
        ("2026-01-01T00:00:00Z", "12.345", "kWh"),
        ("2026-01-01T00:15:00Z", "12.350", "kWh"),
    ]


def test_query_of_the_last_values(run: Run, read: Path) -> None:
    ran = run("readings", "query", "oak street 1", "--last", "1", "--json", "--config", read)

    assert [one["value"] for one in json.loads(ran.out)["readings"]] == ["12.350", "0.007"]


def test_query_of_what_is_not_stored_says_so(run: Run, read: Path) -> None:
    assert run("readings", "query", "oak street 1", "1.0.9.9.9.255", "--config", read).status == 2
    assert run("readings", "query", "elm street", "--config", read).status == 2


def test_export_writes_each_value_once(run: Run, read: Path, tmp_path: Path) -> None:
    ran = run("readings", "export", "--config", read)
    run("readings", "export", tmp_path / "r.parquet", "--format", "parquet", "--config", read)

    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert [row["value"] for row in rows] == ["12.345", "12.350", "0.007"]
    assert parquet.read_table(tmp_path / "r.parquet").column("mantissa").to_pylist() == [12345, 12350, 7]


def test_curve_has_its_scale_and_its_shape() -> None:
    lines = plot([0, 50, 100], height=2, unit="W")

    assert lines[0] == "     100 W │  █"
    assert lines[1] == "      50 W │ ██"
    assert lines[2] == "       0 W └───"
    assert len(plot(range(1000), width=40)[0]) == len(plot(range(40), width=40)[0])
    assert plot([]) == []
    assert plot([0.0, 0.0])
