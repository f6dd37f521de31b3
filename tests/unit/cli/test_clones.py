"""`control held` and `control clear`: who is held, and who may end it (R29)."""

import json
from pathlib import Path

import pytest
from tests.unit.cli.support import FLEET, Run

from ipss_headend import config
from ipss_headend.field.control import clones
from ipss_headend.security import audit, principals
from ipss_headend.store import Database, quarantine

TITLE = bytes.fromhex("4d4d4d0000000001")


@pytest.fixture
def with_people(run: Run, head_end: Path, tmp_path: Path) -> Path:
    """Meters; Bob, who may approve, and Eve, who may not."""
    (tmp_path / "fleet.csv").write_text(FLEET)
    assert run("meters", "import", tmp_path / "fleet.csv", "--config", head_end).status == 0
    with head_end.open("a", encoding="utf-8") as file:
        for name, approves in (("bob", "true"), ("eve", "false")):
            key = principals.create_key_file(tmp_path / f"{name}.key").hex()
            file.write(f'\n[[principals]]\nname = "{name}"\npublic_key = "{key}"\napprove = {approves}\n')
    return head_end


def database(config_file: Path) -> Database:
    return Database(config_file.parent / "data" / "head_end.sqlite", reserve_bytes=0)


def test_held_meter_is_listed_and_cleared_by_who_may_approve_only(run: Run, with_people: Path, tmp_path: Path) -> None:
    people = config.load(with_people).principals
    with database(with_people) as opened, opened.writing() as connection:
        assert clones.find(connection, people, 1, TITLE, "oak street 1", "proved from 192.0.2.9")
        assert not clones.find(connection, people, 1, TITLE, "oak street 1", "and again")
        quarantine.keep(connection, [(TITLE, "192.0.2.9:7", 5, b"push"), (b"ANOTHER1", "h:1", 6, b"push")], 6)

    def clear(*names: str, key: str = "bob") -> int:
        settled = ("--reason", "a copy was found", "--key", tmp_path / f"{key}.key", "--config", with_people)
        return run("control", "clear", *names, *settled).status

    shown = run("control", "held", "--config", with_people, "--json")
    assert [one["meter"] for one in json.loads(shown.out)["held"]] == ["oak street 1"]
    assert "proved from 192.0.2.9" in run("control", "held", "--config", with_people).out
    assert json.loads(run("control", "status", "--config", with_people, "--json").out)["held"] == 1
    assert clear("oak street 1", key="eve") != 0
    assert clear("oak street 2") != 0
    assert clear("oak street 1", "oak street 2") != 0, "all of them or none"
    assert json.loads(run("control", "held", "--config", with_people, "--json").out)["held"] != []

    assert clear("oak street 1") == 0

    assert json.loads(run("control", "held", "--config", with_people, "--json").out)["held"] == []
    with database(with_people) as opened, opened.reading() as connection:
        kinds = [record.kind for record in audit.records(connection)]
        assert quarantine.titles(connection) == {b"ANOTHER1"}, "what the copy may have pushed is gone"
    assert [kind for kind in kinds if kind in clones.KINDS] == ["clone", "clear"]


def test_neither_a_forged_record_nor_an_earlier_clearance_ends_a_hold(with_people: Path, tmp_path: Path) -> None:
    people = config.load(with_people).principals
    signers = {
        name: principals.signer(people, principals.load_key_file(tmp_path / f"{name}.key")) for name in ("bob", "eve")
    }
    with database(with_people) as opened, opened.writing() as connection:
        clones.find(connection, people, 1, TITLE, "oak street 1", "two of it")
        first = clones.held(connection, people)[1]
        clones.clear(connection, people, 1, signers["bob"], "one was a copy")
        assert clones.held(connection, people) == {}
        clones.find(connection, people, 1, TITLE, "oak street 1", "two of it")
        again = clones.held(connection, people)[1]
        assert again.record > first.record
        octets = clones.octets(1, TITLE)
        said = [
            ("bob", signers["bob"].sign("clear", first.record, octets).octets),
            ("eve", signers["eve"].sign("clear", again.record, octets).octets),
            ("bob", signers["eve"].sign("clear", again.record, octets).octets),
            ("bob", signers["bob"].sign("approve", again.record, octets).octets),
            ("bob", bytes(64)),
        ]

        for name, signature in said:
            detail = {"meter": 1, "signature": [name, signature.hex()]}
            audit.append(connection, "clear", name, "oak street 1", detail)

            assert clones.held(connection, people) == {1: again}
