"""Commands run in this process, against a stand-in for the native module where one is needed."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tests.unit.cli.support import CATALOGUE, Ran, Run
from typer.testing import CliRunner

import ipss_headend
from ipss_headend.cli import app as root
from ipss_headend.cli.serve import make_head_end


@pytest.fixture
def run() -> Run:
    """Run a command line."""
    root.load_commands()

    def invoke(*arguments: str | Path, stdin: str | bytes | None = None) -> Ran:
        result = CliRunner().invoke(root.app, [str(argument) for argument in arguments], input=stdin)
        return Ran(result.exit_code, result.stdout, result.stderr)

    return invoke


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module in the native one's place; tests give it what they need."""
    module = ModuleType("ipss_headend._core")
    module.catalogue = CATALOGUE.get  # type: ignore[attr-defined]
    module.check_maps = lambda _: []  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ipss_headend._core", module)
    monkeypatch.setattr(ipss_headend, "_core", module, raising=False)
    return SimpleNamespace(set=lambda name, value: setattr(module, name, value))


@pytest.fixture
def head_end(tmp_path: Path) -> Path:
    """The configuration of a head-end without meters."""
    path, _ = make_head_end(tmp_path / "head-end")
    return path
