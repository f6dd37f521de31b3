"""The command line's root: options of all commands, and how each command ends.

Exit statuses are those of `errors.py`, the same for all commands. A command raises a `HeadEndError` or returns its
status; whatever else it raises is a fault of ours and ends with one line, or with its traceback under `--debug`.
"""

import functools
import os
import re
import sys
from collections.abc import Callable
from typing import Annotated, ParamSpec

import typer

from ipss_headend import __version__
from ipss_headend.cli.help import dress
from ipss_headend.cli.output import Output, say
from ipss_headend.errors import BAD_INPUT, FAULT, HeadEndError, MeterError, words

P = ParamSpec("P")

INTERRUPTED = 130
"""What a shell expects of a command that was ended with Ctrl-C."""

JSON = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else, on standard output.")]

app = typer.Typer(
    name="ipss-headend",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)

_debug = False


def main() -> None:
    """The command `ipss-headend`."""
    load_commands()
    app(prog_name="ipss-headend")


def load_commands() -> None:
    """Import the modules that register the commands, in the order in which --help lists them."""
    from ipss_headend.cli import (  # noqa: F401, I001
        demo,
        serve,
        simulate,
        meters,
        network,
        quarantine,
        read,
        probe,
        readings,
        sla,
        capacity,
        rpc,
        plugin,
        plugin_trial,
        flags,
        incidents,
        users,
        store,
        retention,
        backup,
        control,
        audit,
        keys,
        key_changes,
        transport_keys,
        decode,
        push,
        der,
        firmware,
        modbus_maps,
        modbus_scan,
    )

    dress(app)


def command(group: typer.Typer, name: str) -> Callable[[Callable[P, int | None]], Callable[P, None]]:
    """Register a function as a command that ends as CLI commands do; it returns its exit status, None for 0."""

    def register(function: Callable[P, int | None]) -> Callable[P, None]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            raise typer.Exit(_status(function, *args, **kwargs))

        run.__doc__ = unwrapped(function.__doc__)
        group.command(name)(run)
        return run

    return register


def unwrapped(help_text: str | None) -> str:
    r"""The help text with its \b as the character that keeps the next paragraph's lines apart."""
    return (help_text or "").replace("\\b", "\b")


def version(*, wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        sys.stdout.write(f"ipss-headend {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    *,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=lambda wanted: version(wanted=wanted)
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an unexpected fault.")] = False,
) -> None:
    r"""An open head-end for electricity meters and inverters: reads and switches them securely.

    \b
    Start here:
      ipss-headend demo                      a virtual fleet and a head-end on this machine, live
      ipss-headend init DIRECTORY            a configuration to begin with, and what to type next
      ipss-headend read METER 1.0.1.8.0.255  one value of one meter, now
      ipss-headend COMMAND --help            each command, with an example

    Exit status: 0 done, 1 a fault of ours, 2 usage, 3 configuration or input file, 4 unreachable or timed out,
    5 authentication or security, 6 the device refused, 7 the device broke its protocol, 8 partly done.
    """
    global _debug
    _debug = debug


options.__doc__ = unwrapped(options.__doc__)


def _status(function: Callable[P, int | None], *args: P.args, **kwargs: P.kwargs) -> int:
    Output.anything_printed = False
    try:
        return function(*args, **kwargs) or 0
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except BrokenPipeError:
        # Whoever read our output has seen enough. Nothing more can be written, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BaseException as error:
        if _debug:
            raise
        return _end(_cause(error), json_output=kwargs.get("json_output") is True)


def _end(error: BaseException, *, json_output: bool) -> int:
    if isinstance(error, KeyboardInterrupt):
        say("stopped")
        return INTERRUPTED
    if isinstance(error, HeadEndError):
        message, status = str(error), error.exit_status
    elif isinstance(error, PermissionError) and error.filename is not None:
        where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
        message = f"{where}: {words(error)} to this user; run it as the head-end's user, or let this one have the file"
        status = BAD_INPUT
    elif isinstance(error, Exception):
        name = type(error).__name__
        message = f"a fault of this program, {name}: {error} (ipss-headend --debug ... shows where)"
        status = FAULT
    else:
        raise error
    for line in message.splitlines() or [type(error).__name__]:
        say(f"ipss-headend: {line}")
    if json_output and not Output.anything_printed:
        Output(json_output=True).document({"error": error_document(error)})
    return status


def error_document(error: BaseException) -> dict[str, object]:
    """An error as JSON answers carry it."""
    return {
        "fault": "remote" if isinstance(error, MeterError) else "local",
        "code": re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(error).__name__).lower(),
        "message": str(error),
    }


def _cause(error: BaseException) -> BaseException:
    """Of a group, the exception that says most: the operator's Ctrl-C, then one of ours, then the first."""
    leaves = [error]
    while any(isinstance(leaf, BaseExceptionGroup) for leaf in leaves):
        leaves = [
            part for leaf in leaves for part in (leaf.exceptions if isinstance(leaf, BaseExceptionGroup) else (leaf,))
        ]
    for kind in (KeyboardInterrupt, HeadEndError):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return leaves[0]
