"""`ipss-headend push`: layouts of pushes, learnt from an object list or from a sample that somebody labelled."""

from pathlib import Path
from typing import Annotated

import typer

from ipss_headend.cli.app import app, command
from ipss_headend.cli.output import Output
from ipss_headend.errors import DONE, ConfigError, words

push = typer.Typer(name="push", help="Layouts of what meters push.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(push)


@command(push, "learn")
def learn(
    file: Annotated[Path, typer.Argument(help="Hexadecimal digits of one A-XDR value.")],
    *,
    name: Annotated[str, typer.Option(help="What the list is called.")] = "list",
    label: Annotated[
        list[str] | None, typer.Option(help='What stands in the sample: "3/1.0.1.7.0.255 0 W = 560"; once a value.')
    ] = None,
) -> int:
    r"""Learn a push layout and print it as a meter profile has it.

    Without labels FILE is a push setup's object list (class 40, attribute 2, as `read 40/0.0.25.9.0.255:2` gives it).
    With labels it is the body of a push, and each label says which value people see in it for which attribute.

    \b
    Examples:
      ipss-headend push learn object_list.hex --name "list 1"
      ipss-headend push learn body.hex --label "3/1.0.1.7.0.255 0 W = 560" --label "3/1.0.32.7.0.255 -1 V = 230.1"
    """
    from ipss_headend import _core

    try:
        text = "\n".join(line.partition("#")[0] for line in file.read_text("ascii").splitlines())
        octets = bytes.fromhex("".join(text.split()))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: {words(error)}; expected hexadecimal digits") from error
    labels = None if label is None else [_label(one) for one in label]
    try:
        layout = _core.learn_push(name, octets, labels)
    except ValueError as error:
        raise ConfigError(f"{file}: {words(error)}") from error
    Output(json_output=False).line(layout.rstrip())
    return DONE


def _label(text: str) -> tuple[str, str]:
    column, equals, value = text.rpartition("=")
    if not equals or not column.strip() or not value.strip():
        raise ConfigError(f'--label "{text}": expected "CLASS/LOGICAL NAME SCALER UNIT = VALUE"')
    return column.strip(), value.strip()
