import json
from pathlib import Path

import pytest
import typer
from tests.unit.cli.support import Run

from ipss_headend import errors
from ipss_headend.cli import app as root


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (errors.ConfigError("head_end.toml: x"), 3),
        (errors.MeterTimeout("m: late"), 4),
        (errors.AuthenticationFailed("m: wrong key"), 5),
        (errors.MeterRefused("m: no"), 6),
        (errors.ProtocolViolation("m: odd"), 7),
        (errors.UnknownMeter("m"), 2),
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


def test_every_command_has_help_with_an_example(run: Run) -> None:
    commands = [
        "init",
        "serve",
        "check-config",
        "demo",
        "simulate",
        "read",
        "decode",
        "push learn",
        "meters import",
        "meters list",
        "meters show",
        "meters export",
        "readings query",
        "readings export",
    ]
    for command in commands:
        ran = run(*command.split(), "--help")
        assert ran.status == 0, command
        assert "Example" in ran.out, command
        assert f"ipss-headend {command}" in ran.out, command
        assert "\\b" not in ran.out, command


def test_wrong_usage_ends_with_2(run: Run) -> None:
    assert run("decode", "--layer", "nonsense").status == 2
    assert run("no-such-command").status == 2
