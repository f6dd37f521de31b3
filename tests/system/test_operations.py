"""docs/operations.md, as a new operator types it: every block of commands, in order, against a fleet."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.system.fleet import fleet
from tests.system.walks import walked

from ipss_headend.cli.serve import make_head_end
from ipss_headend.config import load
from ipss_headend.security import audit
from ipss_headend.store import Database, WriteBatch, archive, journal, reading_row, readings
from ipss_headend.store.database import now_us

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
TIMEOUT_S = 400


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.timeout(TIMEOUT_S + 60)
def test_operations_page_does_what_it_says(tmp_path: Path) -> None:
    utility = tmp_path / "utility"
    utility.mkdir()
    # `capacity` has a test of its own.
    first, *others = (block for block in blocks("sh") if not block.startswith("ipss-headend capacity"))
    # The metrics' port is everybody's on this machine; a head-end answers when its socket is there.
    no_port = "sed -i 's/port = 9466/port = 0/' head_end.toml\n"
    first = first.replace("ipss-headend check-config", f"{no_port}ipss-headend check-config", 1)
    waits = "until [ -S data/rpc.sock ]; do sleep 0.1; done\n"
    script = "\n".join((first.replace("& server=$!\n", f"& server=$!\n{waits}"), *others))

    with fleet(3, "127.57.0.1") as running:
        (utility / "fleet.csv").write_text(running.meters.csv())
        ran = walked(script, tmp_path, cwd=utility, timeout_s=TIMEOUT_S)

    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said
    assert "read back" in ran.stdout
    assert "put back" in ran.stdout
    assert "ok: True" in ran.stdout
    assert (utility / "before-upgrade.sqlite").is_file()


def test_units_of_the_page_run_commands_that_exist() -> None:
    units = "\n".join(blocks("ini"))
    started = re.findall(r"^Exec\w+=/opt/ipss-headend/bin/ipss-headend (.*)$", units, re.MULTILINE)

    assert len(started) == 3
    for line in started:
        words = line.split()
        named = words[: 2 if words[0] == "store" else 1]
        helped = subprocess.run(
            [sys.executable, "-m", "ipss_headend.cli", *named, "--help"], capture_output=True, text=True, check=True
        )
        for option in (word for word in words if word.startswith("--")):
            assert option in helped.stdout, option


@pytest.mark.timeout(180)
def test_head_end_with_retention_retires_what_is_too_old_and_says_so(tmp_path: Path) -> None:
    ipss = (sys.executable, "-m", "ipss_headend.cli")
    path, _ = make_head_end(tmp_path / "utility", accept_software_key=True)
    text = path.read_text().replace("# [retention]\n# months = 36", "[retention]\nmonths = 2")
    path.write_text(text.replace("port = 9466", "port = 0").replace("backfill_days = 40", "backfill_days = 30"))
    month_us = 31 * 86_400_000_000
    with (
        Database(load(path).database.address, own=True, reserve_bytes=0) as database,
        database.writing() as connection,
    ):
        rows = [reading_row(1, 1, now_us() - age * month_us, [age], received_us=1) for age in range(12)]
        journal.write(connection, WriteBatch(rows), 1, database.epoch or 0)

    with subprocess.Popen([*ipss, "serve", str(path)], stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            said = next(line for line in server.stderr if "readings retired" in line)
            server.terminate()
            assert server.wait(60) == 0
        finally:
            server.kill()

    archives = sorted((path.parent / "data" / "archive").glob("readings-*.sqlite"))
    with Database(load(path).database.address, reserve_bytes=0) as database, database.reading() as connection:
        assert readings.verify(connection).sound
        left = readings.line_count(connection)
        noted = [one.subject for one in audit.records(connection) if one.kind == "retire"]
    assert f"lines={12 - left}" in re.sub(r"\x1b\[[0-9;]*m", "", said)
    assert left in (2, 3)
    assert noted == [one.name.removeprefix("readings-").removesuffix(".sqlite") for one in archives]
    assert sum(archive.check(one).readings for one in archives) == 12 - left
