"""The tutorial of docs/plugins.md does what it says: its blocks are run, in order, in an empty directory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from ipss_headend.config import parse
from ipss_headend.plugins.billing.sales import Sales

DOCUMENT = Path(__file__).parents[2] / "docs" / "plugins.md"


def run(command: str, directory: Path) -> str:
    site = directory / "site"
    programs = directory / "bin"
    programs.mkdir(exist_ok=True)
    for name, words in (
        ("ipss-headend", "-m ipss_headend.cli"),
        ("pip", "-m pip"),
        ("python", ""),
    ):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        program.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(site), *(place for place in sys.path if place)]),
        # Nothing is fetched: what builds a package is in the environment of the tests.
        "PIP_TARGET": str(site),
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
    }
    done = subprocess.run(
        ["sh", "-ec", command], cwd=directory, env=environment, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_tutorial_works_as_written(tmp_path: Path) -> None:
    said = ""
    ran = 0
    for language, body in re.findall(r"^```(\w*)\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE):
        if language in {"", "py"}:
            continue  # of a head-end that runs; tests/system/test_plugin_hooks.py does the same
        if language == "sh":
            # The kit measures: on a busy machine a plugin may take longer than a hook's milliseconds.
            said += run(body.replace("selftest ", "selftest --patience 50 "), tmp_path)
            ran += 1
        elif language == "python":
            path = tmp_path / body.splitlines()[0].removeprefix("# ")
            assert path.exists(), "the scaffold has the file"
            path.write_text(body)
        else:
            assert language == "toml"
            config = parse('[keystore]\nkey_file = "k"\n' + body, Path("x.toml"))
            assert config.plugins.enabled in {("night_rule",), ("validate", "sales")}
            assert not Sales(config.plugins.settings.get("sales", {})).wrong

    assert ran == 2
    assert "night_rule  night_rule  night_rule 0.1.0" in said
    assert "night_rule: 4 of 4 well" in said
