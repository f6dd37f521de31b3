"""What `--help` of a group lists: its commands under headings, each with its first sentence, whole."""

from typing import Any

import typer
from typer.core import TyperGroup

SECTIONS = (
    ("First steps", ("demo", "init", "check-config", "serve", "simulate")),
    ("Meters and readings", ("meters", "read", "probe", "readings", "flags", "network", "push", "modbus", "decode")),
    ("Orders and changes", ("control", "der", "keys", "firmware")),
    ("Operation", ("store", "sla", "capacity", "incidents", "audit", "users", "rpc", "plugin")),
)
"""Of the root, in the order in which somebody new meets them."""

OTHERS = "More"


class Group(TyperGroup):
    """A group of commands, or the root. What it is handed is click's own, which typer has, or brings along."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands."""
        left = {name: command for name, command in self.commands.items() if not command.hidden}
        sections = SECTIONS if ctx.parent is None else ()
        for heading, names in sections:
            self._section(formatter, heading, {name: left.pop(name) for name in names if name in left})
        self._section(formatter, OTHERS if sections else "Commands", left)

    @staticmethod
    def _section(formatter: Any, heading: str, commands: dict[str, Any]) -> None:
        if commands:
            with formatter.section(heading):
                formatter.write_dl([(name, first_sentence(command.help or "")) for name, command in commands.items()])


def first_sentence(text: str) -> str:
    """What comes before the first full stop or semicolon of the help's first paragraph."""
    paragraph = " ".join(text.strip().partition("\n\n")[0].split())
    ends = [place for end in (". ", "; ") if (place := paragraph.find(end)) > 0]
    return paragraph[: min(ends)] if ends else paragraph.removesuffix(".")


def dress(app: typer.Typer) -> None:
    """Have the root and its groups, and theirs, list their commands so."""
    app.info.cls = Group
    for group in app.registered_groups:
        if group.typer_instance is not None:
            dress(group.typer_instance)
