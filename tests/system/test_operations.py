"""docs/operations.md, as a new operator types it: every block of commands, in order, against a fleet."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.system.fleet import fleet

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
TIMEOUT_S = 400


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.timeout(TIMEOUT_S + 60)
def test_operations_page_does_what_it_says(tmp_path: Path) -> None:
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    command = bin_directory / "ipss-headend"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m ipss_headend.cli "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{bin_directory}:{os.environ['PATH']}", "NO_COLOR": "1"}
    environment["IPSS_HEADEND_DATA"] = str(tmp_path / "client")
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
        ran = subprocess.run(
            ["sh", "-eu", "-c", 'trap "kill ${server:-} 2>/dev/null || true" EXIT\n' + script],
            cwd=utility,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

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
