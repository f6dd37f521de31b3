"""What a plugin's author usually gets wrong is told with what to do about it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio
from tests.unit.plugins.installed import installed
from typer.testing import CliRunner

from ipss_headend.cli.app import app
from ipss_headend.errors import PluginError
from ipss_headend.plugins.selftest import selftest

HOOK = "from ipss_headend.plugins import hook\n\n@hook\n"
MISTAKES = {
    "no hook": ("x = 1\n", r"no hook in it; mark one with @hook, from ipss_headend.plugins import hook"),
    "not marked": ("def control_authorize(actor): ...\n", r"no hook in it; mark one with @hook"),
    "wrong name": (
        HOOK + "def control_authorise(actor): ...\n",
        r"called control_authorise; did you mean control_authorize\?",
    ),
    "unknown name": (HOOK + "def xyzzy(): ...\n", r"no hook is called xyzzy; there are: billing_validate_batch, "),
    "wrong argument": (
        HOOK + "def control_authorize(target): ...\n",
        r"takes no target; did you mean targets\?.* ctx, actor",
    ),
    "async": (
        HOOK + "async def control_authorize(actor): ...\n",
        r"control_authorize is async; a hook is a plain function",
    ),
    "raises at import": ("x = 1\n\n1 / 0\n", r"import failed in .*plugin_mine\.py, line 3: ZeroDivisionError"),
    "syntax": ("def f(:\n", r"import failed in .*plugin_mine\.py, line 1: SyntaxError"),
    "missing dependency": (
        "import lightgbm_\n",
        r"needs the module lightgbm_, which is not installed; name its package",
    ),
    "not marked, with its name": (
        "def control_authorize(actor): ...\n",
        r"control_authorize has a hook's name and is not marked, from ipss_headend.plugins import hook",
    ),
    "marked for another": (
        "import pluggy\n@pluggy.HookimplMarker('tox')\ndef control_authorize(actor): ...\n",
        r"control_authorize is marked for tox: mark it with @hook",
    ),
    "any arguments": (
        HOOK + "def control_authorize(ctx, **others): ...\n",
        r"control_authorize takes no others; .*It may take ctx, actor, action, targets",
    ),
    "imports what is not there": (
        "from ipss_headend.plugins import hooks\n",
        r"import failed in .*plugin_mine\.py, line 1: ImportError: cannot import name 'hooks'",
    ),
    "uses what is not there at import": (
        "import os\nos.nothing\n",
        r"import failed in .*plugin_mine\.py, line 2: AttributeError: module 'os' has no attribute 'nothing'",
    ),
    "exits at import": ("import os\nos._exit(3)\n", r"its process ended with status 3 while it was imported"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_told_with_its_remedy(mistake: str, tmp_path: Path) -> None:
    source, words = MISTAKES[mistake]

    with installed(tmp_path, mine=source), pytest.raises(PluginError, match=words):
        trio.run(lambda: selftest("mine"))


def test_entry_point_to_nowhere_is_told(tmp_path: Path) -> None:
    with installed(tmp_path, mine="") as _:
        (tmp_path / "plugin_mine.py").unlink()
        with pytest.raises(
            PluginError, match=r"its entry point names plugin_mine, and no module is called plugin_mine"
        ):
            trio.run(lambda: selftest("mine"))


def test_entry_point_to_an_object_that_is_not_there_is_told(tmp_path: Path) -> None:
    with installed(tmp_path, mine="x = 1\n"):
        entry_points = next(tmp_path.glob("*.dist-info")) / "entry_points.txt"
        entry_points.write_text(entry_points.read_text().replace("plugin_mine", "plugin_mine:rules"))
        with pytest.raises(
            PluginError, match=r"names plugin_mine:rules, and plugin_mine has no rules; correct \[project\.entry-points"
        ):
            trio.run(lambda: selftest("mine"))


def test_entry_point_to_a_class_that_takes_arguments_is_told(tmp_path: Path) -> None:
    source = "class Rules:\n    def __init__(self, zone): ...\n"
    with installed(tmp_path, mine=source):
        entry_points = next(tmp_path.glob("*.dist-info")) / "entry_points.txt"
        entry_points.write_text(entry_points.read_text().replace("plugin_mine", "plugin_mine:Rules"))
        with pytest.raises(
            PluginError,
            match=r"the class plugin_mine:Rules, which is made without arguments, and that failed: TypeError",
        ):
            trio.run(lambda: selftest("mine"))


PACKAGES = {
    "": r'the package "test-plugins" is installed and is no plugin: it has no entry point for us\. Its pyproject\.toml '
    r'needs \[project\.entry-points\."ipss_headend\.plugins"\] with the line test-plugins = "test-plugins"',
    "[ipss_headend.plugin]\nmine = plugin_mine\n": "its entry points are in the group ipss_headend.plugin. ",
    "[ipss_headend.plugins]\nmine = plugin_mine\n": "is installed, and its plugins are called mine; use that name",
}


@pytest.mark.parametrize("declared", PACKAGES)
def test_package_that_names_no_plugin_is_told(declared: str, tmp_path: Path) -> None:
    with installed(tmp_path, mine=HOOK + "def control_authorize(actor): ...\n"):
        (next(tmp_path.glob("*.dist-info")) / "entry_points.txt").write_text(declared)
        with pytest.raises(PluginError, match=PACKAGES[declared]):
            trio.run(lambda: selftest("test-plugins"))


def test_name_that_is_nearly_right_is_told() -> None:
    with pytest.raises(PluginError, match=r'no plugin "valdate" is installed .*; did you mean validate\? There are: '):
        trio.run(lambda: selftest("valdate"))


def test_answer_of_a_wrong_type_is_told_by_the_kit(tmp_path: Path) -> None:
    with installed(tmp_path, mine=HOOK + "def control_authorize(actor):\n    return True\n"):
        findings = trio.run(lambda: selftest("mine", patience=50))

    assert all("an answer of type bool, expected Refusal | None" in (one.fault or "") for one in findings), findings
    assert all('to refuse, return Refusal("why"); else nothing' in (one.fault or "") for one in findings)


def test_exception_in_a_hook_is_told_with_its_line(tmp_path: Path) -> None:
    with installed(tmp_path, mine=HOOK + "def control_authorize(actor):\n    return actor.uper()\n"):
        findings = trio.run(lambda: selftest("mine", patience=50))

    assert len(findings) == 4
    for one in findings:
        assert re.search(r"AttributeError: .*'uper' in .*plugin_mine\.py, line 5$", one.fault or ""), one


def test_new_refuses_names_that_cannot_be_a_package(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["plugin", "new", "Night-Rule", "--directory", str(tmp_path)])

    assert done.exit_code != 0
    assert list(tmp_path.iterdir()) == []
