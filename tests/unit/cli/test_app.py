import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.unit.cli.support import Run

from ipss_headend import errors
from ipss_headend.cli import app as root
from ipss_headend.cli.help import SECTIONS


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (errors.ConfigError("head_end.toml: x"), 3),
        (errors.MeterTimeout("m: late"), 4),
        (errors.AuthenticationFailed("m: wrong key"), 5),
        (errors.MeterRefused("m: no"), 6),
        (errors.ProtocolViolation("m: odd"), 7),
        (errors.UnknownMeter("m"), 2),
        (errors.PluginError("p: no hook in it"), 3),
        (PermissionError(13, "Permission denied", "data/head_end.sqlite"), 3),
        (ZeroDivisionError("x"), 1),
        (KeyboardInterrupt(), 130),
        (BaseExceptionGroup("nursery", [ValueError("side"), errors.MeterGone("m: gone")]), 4),
        (BaseExceptionGroup("nursery", [KeyboardInterrupt(), errors.MeterGone("m: gone")]), 130),
    ],
)
def test_each_error_has_its_exit_status_and_one_line(
    raised: BaseException, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    group = typer.Typer()

    @root.command(group, "fail")
    def fail() -> None:
        raise raised

    with pytest.raises(typer.Exit) as ended:
        fail()

    captured = capsys.readouterr()
    assert ended.value.exit_code == status
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert "Traceback" not in captured.err


def test_another_user_is_told_which_file_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    group = typer.Typer()

    @root.command(group, "fail")
    def fail() -> None:
        raise PermissionError(13, "Permission denied", "data/head_end.sqlite")

    with pytest.raises(typer.Exit):
        fail()

    assert capsys.readouterr().err == (
        "ipss-headend: data/head_end.sqlite: Permission denied to this user; run it as the head-end's user, or let "
        "this one have the file\n"
    )


def test_version_is_one_line(run: Run) -> None:
    ran = run("--version")

    assert ran.status == 0
    assert ran.out.startswith("ipss-headend ")
    assert len(ran.out.splitlines()) == 1


def test_error_under_json_is_one_document_and_a_line_for_people(run: Run, tmp_path: Path) -> None:
    ran = run("meters", "list", "--json", "--config", tmp_path / "none.toml")

    assert ran.status == 3
    error = json.loads(ran.out)["error"]
    assert (error["fault"], error["code"]) == ("local", "config-error")
    assert "none.toml" in ran.err


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by its whole name."""
    root.load_commands()
    waiting: list[tuple[tuple[str, ...], Any]] = [((), typer.main.get_command(root.app))]
    while waiting:
        path, found = waiting.pop()
        inner = getattr(found, "commands", None)
        if inner is None:
            yield " ".join(path), found
        else:
            waiting += [((*path, name), one) for name, one in inner.items()]


def test_every_command_has_help_with_an_example(run: Run) -> None:
    found = list(commands())

    assert len(found) > 80
    for name, command in found:
        assert re.search(r"^ *Examples?:$", command.help, re.MULTILINE), name
        assert f"  ipss-headend {name}" in command.help, name
        assert "\\b" not in command.help.replace("\b", ""), name
    for name in ("init", "meters import", "control switch", "store retire"):
        ran = run(*name.split(), "--help")
        assert ran.status == 0
        assert f"ipss-headend {name}" in ran.out


def test_examples_are_commands_that_exist() -> None:
    known = dict(commands())
    options = re.compile(r"(--[a-z][a-z-]*)")

    for name, command in known.items():
        for line in re.findall(r"^ *ipss-headend (.*?)(?:  +.*)?$", command.help, re.MULTILINE):
            words = line.split()
            named = next((one for end in (3, 2, 1) if (one := " ".join(words[:end])) in known), None)
            assert named is not None, (name, line)
            taken = {option for one in known[named].params for option in (*one.opts, *one.secondary_opts)}
            assert set(options.findall(line.partition("|")[0].partition("&&")[0])) <= taken | {"--help"}, (name, line)


def test_root_has_every_command_under_a_heading_and_whole_sentences(run: Run) -> None:
    named = [name for _, names in SECTIONS for name in names]

    shown = run("--help").out

    assert len(named) == len(set(named))
    assert set(named) == set(typer.main.get_command(root.app).commands)  # type: ignore[attr-defined]
    assert shown.index("First steps:") < shown.index("Operation:")
    assert "..." not in shown.partition("First steps:")[2]
    assert "More:" not in shown


def test_wrong_usage_ends_with_2(run: Run) -> None:
    assert run("decode", "--layer", "nonsense").status == 2
    assert run("no-such-command").status == 2
