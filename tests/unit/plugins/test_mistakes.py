"""What a plugin's author usually gets wrong is told with what to do about it."""

from __future__ import annotations

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


def test_answer_of_a_wrong_type_is_told_by_the_kit(tmp_path: Path) -> None:
    with installed(tmp_path, mine=HOOK + "def control_authorize(actor):\n    return True\n"):
        findings = trio.run(lambda: selftest("mine", patience=50))

    assert all("an answer of type bool, expected Refusal | None" in (one.fault or "") for one in findings), findings


def test_new_refuses_names_that_cannot_be_a_package(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["plugin", "new", "Night-Rule", "--directory", str(tmp_path)])

    assert done.exit_code != 0
    assert list(tmp_path.iterdir()) == []
