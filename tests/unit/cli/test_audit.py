"""`audit verify` where no head-end has served yet, and where one has and what it left is gone."""

import json
from pathlib import Path

import pytest
from sqlalchemy import Connection
from tests.unit.cli.support import FLEET, Run

from ipss_headend import config
from ipss_headend.security import audit
from ipss_headend.security.audit import Notary
from ipss_headend.store import Database


@pytest.fixture
def with_meters(run: Run, head_end: Path, tmp_path: Path) -> Path:
    (tmp_path / "fleet.csv").write_text(FLEET)
    assert run("meters", "import", tmp_path / "fleet.csv", "--config", head_end).status == 0
    with database(head_end) as opened, opened.writing() as connection:
        audit.append(connection, "propose", "ada", "an order before anybody serves")
    return head_end


def database(config_file: Path) -> Database:
    return Database(config_file.parent / "data" / "head_end.sqlite", reserve_bytes=0)


def test_a_store_that_never_served_is_verified_and_said_to_be_unsigned(run: Run, with_meters: Path) -> None:
    said = run("audit", "verify", "--config", with_meters)
    told = run("audit", "verify", "--config", with_meters, "--json")

    assert said.status == 0, said.err
    assert "1 records agree with each other; none is signed: no head-end has served this store" in said.out
    found = json.loads(told.out)
    assert (found["ok"], found["signed"], found["checkpoints"], found["public_key"]) == (True, False, 0, "")


def test_a_record_that_was_altered_before_anybody_served_is_found(run: Run, with_meters: Path) -> None:
    with database(with_meters) as opened, opened.writing() as connection:
        connection.exec_driver_sql("UPDATE audit SET principal = 'eve'")

    assert run("audit", "verify", "--config", with_meters).status == 5


@pytest.mark.parametrize("left", ["a record of the start", "a checkpoint", "the key"])
def test_where_a_head_end_has_served_its_key_and_copies_must_be_there(run: Run, with_meters: Path, left: str) -> None:
    def serve(connection: Connection) -> None:
        if left == "a record of the start":
            audit.append(connection, "start", "head-end", "control")
        else:
            notary.sign(connection)

    settings = config.load(with_meters).audit
    notary = Notary(settings.key_file, settings.checkpoints)
    with database(with_meters) as opened, opened.writing() as connection:
        serve(connection)
    settings.checkpoints.unlink()
    if left != "the key":
        settings.key_file.unlink()

    ran = run("audit", "verify", "--config", with_meters)

    assert ran.status not in {0, 5}
    assert "checkpoints.jsonl" in ran.err
