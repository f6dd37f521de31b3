"""Keys and their custodians on the command line: no key is ever printed."""

import json
import os
import re
import tomllib
from pathlib import Path

import pytest
from tests.unit.cli.support import FLEET, Run
from tests.unit.security import softhsm

from ipss_headend.security.audit import records
from ipss_headend.store import Database

ANSWERS = """\
operator = "Olga"
auditor = "Dora"
custodians = ["Anna", "Ben", "Cleo"]
confirm = true
"""
PEOPLE = ("--custodian", "Anna", "--custodian", "Ben", "--custodian", "Cleo", "--auditor", "Dora", "--operator", "Olga")


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.toml"
    path.write_text(ANSWERS)
    return path


@pytest.fixture
def with_meters(run: Run, head_end: Path, tmp_path: Path) -> Path:
    (tmp_path / "fleet.csv").write_text(FLEET)
    assert run("meters", "import", tmp_path / "fleet.csv", "--config", head_end).status == 0
    return head_end


def key_of(config: Path) -> str:
    return (config.parent / "key_encryption.key").read_text().strip()


def audited(config: Path) -> list[str]:
    path = config.parent / "data" / "head_end.sqlite"
    with Database(path, reserve_bytes=0) as database, database.reading() as connection:
        return [record.kind for record in records(connection)]


def test_any_two_of_three_shares_restore_a_lost_key_file(run: Run, with_meters: Path, tmp_path: Path) -> None:
    key = key_of(with_meters)
    shared = run("keys", "share", *PEOPLE, "--to", tmp_path / "s", "--config", with_meters, "--json")
    assert shared.status == 0, shared.err
    files = [Path(name) for name in json.loads(shared.out)["shares"]]

    for pair in ((0, 1), (0, 2), (2, 1)):
        (with_meters.parent / "key_encryption.key").unlink()
        ran = run("keys", "restore", *(files[place] for place in pair), "--config", with_meters)

        assert ran.status == 0, ran.err
        assert key_of(with_meters) == key
        assert key.lower() not in (ran.out + ran.err + shared.out + shared.err).lower()
    assert run("meters", "export", tmp_path / "x", "--with-keys", "--yes", "--config", with_meters).status == 0
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert audited(with_meters) == ["keys shared", *["keys restored"] * 3]


def test_restoring_never_writes_over_a_key_file(run: Run, with_meters: Path, tmp_path: Path) -> None:
    run("keys", "share", *PEOPLE, "--to", tmp_path / "s", "--config", with_meters)
    files = sorted((tmp_path / "s").iterdir())

    ran = run("keys", "restore", *files[:2], "--config", with_meters)

    assert ran.status == 3
    assert "File exists" in ran.err
    assert run("keys", "restore", *files[:2], "--check", "--config", with_meters).status == 0
    assert run("keys", "restore", files[0], "--check", "--config", with_meters).status == 5


def test_shares_of_another_key_are_refused(run: Run, with_meters: Path, tmp_path: Path) -> None:
    run("init", tmp_path / "other")
    other = tmp_path / "other" / "head_end.toml"
    run("keys", "share", *PEOPLE, "--to", tmp_path / "s", "--config", other)
    (with_meters.parent / "key_encryption.key").unlink()

    ran = run("keys", "restore", *sorted((tmp_path / "s").iterdir()), "--config", with_meters)

    assert ran.status == 5
    assert "bring the shares of this store's key" in ran.err
    assert not (with_meters.parent / "key_encryption.key").exists()


@pytest.mark.parametrize(
    ("role", "name"), [("operator", "ben"), ("auditor", "Cleo"), ("auditor", " Olga "), ("operator", "")]
)
def test_r25_nobody_has_two_roles(run: Run, head_end: Path, answers: Path, role: str, name: str) -> None:
    answers.write_text(re.sub(rf'{role} = ".*"', f'{role} = "{name}"', ANSWERS))

    ran = run("keys", "ceremony", "--answers", answers, "--to", answers.parent / "s", "--config", head_end)

    assert ran.status == 5
    assert "different people" in ran.err or "has no name" in ran.err
    assert not (answers.parent / "s").exists()


def test_r25_role_matrix_of_shares(run: Run, head_end: Path, tmp_path: Path) -> None:
    people = list(PEOPLE)
    people[-1] = "Anna"

    ran = run("keys", "share", *people, "--to", tmp_path / "s", "--config", head_end)

    assert ran.status == 5
    assert '"Anna" is operator and custodian' in ran.err


def test_a_ceremony_that_the_auditor_does_not_confirm_keeps_no_share(run: Run, head_end: Path, answers: Path) -> None:
    answers.write_text(ANSWERS.replace("confirm = true", "confirm = false"))
    where = ("--to", answers.parent / "s", "--protocol", answers.parent / "p.md", "--config", head_end)

    ran = run("keys", "ceremony", "--answers", answers, *where)

    assert ran.status == 5
    assert list((answers.parent / "s").iterdir()) == []
    assert not (answers.parent / "p.md").exists()
    answers.write_text(ANSWERS)
    assert run("keys", "ceremony", "--answers", answers, *where).status == 0


def test_a_ceremony_in_software_is_written_down(run: Run, head_end: Path, answers: Path) -> None:
    protocol = answers.parent / "p.md"
    where = ("--to", answers.parent / "s", "--protocol", protocol, "--config", head_end)

    ran = run("keys", "ceremony", "--answers", answers, *where)

    assert ran.status == 0, ran.err
    text = protocol.read_text()
    check = json.loads(run("keys", "status", "--json", "--config", head_end).out)["check_value"]
    assert check in text
    assert check in ran.out
    for name in (
        "Olga",
        "Dora",
        "Anna",
        "Ben",
        "Cleo",
        "groups of 2 shares that were read back and restored the key: 3",
    ):
        assert name in text
    assert key_of(head_end) not in text + ran.out + ran.err
    assert audited(head_end) == ["key ceremony"]
    again = run("keys", "ceremony", "--answers", answers, *where[:2], "--protocol", "q.md", *where[4:])
    assert again.status == 3
    assert "has its key already" in again.err


def test_a_ceremony_asks_nobody_who_is_not_there(run: Run, head_end: Path) -> None:
    ran = run("keys", "ceremony", "--config", head_end)

    assert ran.status == 2
    assert "add --answers" in ran.err


def test_keys_migrate_into_a_token_and_not_back(
    run: Run, with_meters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOFTHSM2_CONF", "")
    softhsm.prepare(tmp_path / "hsm")
    config = softhsm.make_token("migrated", tmp_path).pkcs11
    assert config is not None
    software = with_meters.read_text()
    text = re.sub(
        r"key_file = .*",
        f'pkcs11_module = "{config.module}"\ntoken = "migrated"\npin_file = "{config.pin_file}"',
        software,
    )
    tomllib.loads(text)
    old = with_meters.parent / "key_encryption.key"
    exported = run("meters", "export", tmp_path / "before.csv", "--with-keys", "--yes", "--config", with_meters)
    assert exported.status == 0
    with_meters.write_text(text)

    moved = run("keys", "migrate", "--from-key-file", old, "--config", with_meters, "--json")

    assert moved.status == 0, moved.err
    assert json.loads(moved.out)["meters"] == 2
    assert run("meters", "export", tmp_path / "after.csv", "--with-keys", "--yes", "--config", with_meters).status == 0
    assert (tmp_path / "after.csv").read_text() == (tmp_path / "before.csv").read_text()
    twin = run("meters", "import", tmp_path / "fleet.csv", "--config", with_meters)
    assert twin.status == 3
    with_meters.write_text(software)
    back = run("keys", "status", "--config", with_meters)
    assert back.status == 3
    assert "under a key from a pkcs11, the configuration gives a file" in back.err
    out = run("keys", "migrate", "--from-key-file", old, "--config", with_meters)
    assert out.status == 3
    assert "not out of it" in out.err
    assert os.environ["SOFTHSM2_CONF"]
