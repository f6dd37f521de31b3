"""Plugins that are not installed: from a directory, a package, a file, a module; and what is wrong with a place."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from tests.unit.plugins.installed import installed
from typer.testing import CliRunner

from ipss_headend.cli.app import app, load_commands
from ipss_headend.errors import PluginError
from ipss_headend.plugins.selftest import selftest
from ipss_headend.plugins.source import absolute

RULE = "from ipss_headend.plugins import hook\n\n@hook\ndef control_authorize(actor): ...\n"
DECLARED = '[project.entry-points."ipss_headend.plugins"]\n'


def asked(name: str, source: Path | str) -> set[str]:
    """The hooks that were asked, all well."""
    findings = trio.run(lambda: selftest(name, patience=50, source=str(source)))
    assert all(one.well for one in findings), findings
    return {one.hook for one in findings}


def test_scaffold_is_tested_where_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command that `plugin new` leads to, without an installation."""
    load_commands()
    monkeypatch.chdir(tmp_path)

    made = CliRunner().invoke(app, ["plugin", "new", "night_rule"])
    done = CliRunner().invoke(app, ["plugin", "selftest", "night_rule", "--source", "./night_rule", "--patience", "50"])

    assert "next: pip install ./night_rule && ipss-headend plugin selftest night_rule" in made.output
    assert done.exit_code == 0, done.output
    assert "night_rule: 4 of 4 well" in done.output


def test_each_kind_of_place_is_found(tmp_path: Path) -> None:
    single = tmp_path / "single.py"
    single.write_text(RULE)
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text(RULE)
    inside = tmp_path / "project"
    (inside / "src").mkdir(parents=True)
    (inside / "src" / "ours.py").write_text("class Rules:\n    pass\n" + RULE)
    (inside / "pyproject.toml").write_text(DECLARED + 'ours = "ours"\n')
    target = tmp_path / "target"
    target.mkdir()
    with installed(target, other=RULE):
        pass

    for place in (single, package, inside, target):
        assert asked("mine", place) == {"control_authorize"}, place
    with installed(tmp_path, other=RULE):
        assert asked("mine", "other") == {"control_authorize"}, "another entry point"
        assert asked("mine", "plugin_other") == {"control_authorize"}, "a module"


def test_path_goes_before_what_is_installed(tmp_path: Path) -> None:
    """Two versions of one module: the installed one has another hook."""
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "plugin_mine.py").write_text(RULE)
    with installed(tmp_path, mine=RULE.replace("control_authorize(actor)", "plugin_health(ctx)")):
        assert asked("mine", newer / "plugin_mine.py") == {"control_authorize"}


MISTAKES = {
    "nowhere": r"nowhere: no such directory; expected a plugin's, with its pyproject\.toml",
    "nowhere.py": r"nowhere\.py: no such file",
    "empty": r"empty: no plugin is in it; expected a pyproject\.toml with \[project\.entry-points",
    "undeclared": r"pyproject\.toml: it names no plugin; expected .* night_rule = \"night_rule\"",
    "misspelt": r"pyproject\.toml: it names no plugin; it has the group ipss_headend\.plugin; expected",
    "two": r"two: it has the plugins one, other, and none is called mine",
    "broken": r"pyproject\.toml: .*line 1",
    "no-name.py": r"no-name: no-name cannot be a module's name; rename it",
}


@pytest.mark.parametrize("place", MISTAKES)
def test_place_without_a_plugin_is_told(place: str, tmp_path: Path) -> None:
    for name, text in (
        ("undeclared", "[project]\nname = 'x'\n"),
        ("misspelt", DECLARED.replace("plugins", "plugin") + "mine = 'mine'\n"),
        ("two", DECLARED + "one = 'one'\nother = 'other'\n"),
        ("broken", "[project\n"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pyproject.toml").write_text(text)
    (tmp_path / "empty").mkdir()
    (tmp_path / "no-name.py").write_text(RULE)

    with pytest.raises(PluginError, match=MISTAKES[place]):
        trio.run(lambda: selftest("mine", source=str(tmp_path / place)))


def test_name_that_is_nothing_is_told_what_a_path_looks_like() -> None:
    words = r'xyzzy: no plugin .* and no module; a path has a "/" in it, such as \./xyzzy'
    with pytest.raises(PluginError, match=words):
        trio.run(lambda: selftest("mine", source="xyzzy"))


def test_paths_are_below_the_place_that_they_are_said_at(tmp_path: Path) -> None:
    assert absolute("./next", tmp_path) == str(tmp_path / "next")
    assert absolute("next.py", tmp_path) == str(tmp_path / "next.py")
    assert absolute("next", tmp_path) == "next", "a module"
