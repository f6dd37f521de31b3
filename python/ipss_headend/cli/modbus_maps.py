"""`ipss-headend modbus`: the register maps that the head-end knows, and a check of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ipss_headend.cli.app import JSON, app, command
from ipss_headend.cli.output import Output, say
from ipss_headend.errors import BAD_INPUT, DONE, ConfigError

modbus = typer.Typer(name="modbus", help="Modbus devices and their maps.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(modbus)


@command(modbus, "maps")
def maps(*, json_output: JSON = False) -> None:
    r"""List the register maps that come with the head-end.

    \b
    Example:
      ipss-headend modbus maps
    """
    from ipss_headend import _core

    names = ("name", "manufacturer", "title", "source", "points")
    found = [dict(zip(names, known, strict=True)) for known in _core.register_maps()]
    output = Output(json_output=json_output)
    if json_output:
        output.document({"maps": found})
        return
    shown = ("name", "manufacturer", "title", "points")
    output.table(shown, [tuple(known[name] for name in shown) for known in found], right=("points",))


@command(modbus, "check")
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Register maps, TOML.")],
    *,
    json_output: JSON = False,
) -> int:
    r"""Check register maps of your own: alone, and with what they inherit.

    \b
    Example:
      ipss-headend modbus check my-meter.toml
    """
    from ipss_headend import _core

    mistakes = _core.check_maps([(str(path), _text(path)) for path in files])
    if json_output:
        Output(json_output=True).document({"files": [str(path) for path in files], "mistakes": mistakes})
    else:
        for mistake in mistakes:
            say(mistake)
        if not mistakes:
            say(f"{len(files)} register {'map is' if len(files) == 1 else 'maps are'} good")
    return BAD_INPUT if mistakes else DONE


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "no UTF-8"
        raise ConfigError(f"{path}: {words}") from error
