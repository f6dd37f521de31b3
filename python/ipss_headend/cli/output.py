"""What commands print: one JSON document, or something for people; never both on standard output.

Messages and progress go to standard error. Tables and colours are for terminals; a pipe gets plain lines with tabs
between. What a meter said is shown with its control characters escaped, so that no meter writes to a terminal.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

Row = Sequence[object]


@dataclass
class Node:
    """A line of a tree and what hangs under it."""

    label: str
    style: str = ""
    children: list["Node"] = field(default_factory=list)

    def add(self, label: str, style: str = "") -> "Node":
        """Hang one more line under this one."""
        child = Node(label, style)
        self.children.append(child)
        return child


class Output:
    """Where one command prints. `json_output` is its `--json`."""

    anything_printed: ClassVar[bool] = False
    """Whether this process has printed a document: an error then is told on standard error alone."""

    def __init__(self, *, json_output: bool = False) -> None:
        self.json_output = json_output

    @property
    def is_terminal(self) -> bool:
        """Whether somebody looks at standard output and wants tables and colours."""
        return not self.json_output and sys.stdout.isatty()

    def document(self, document: object) -> None:
        """Print the JSON document, or one of many, a line each."""
        Output.anything_printed = True
        sys.stdout.write(json.dumps(document, ensure_ascii=False, separators=(", ", ": ")) + "\n")
        sys.stdout.flush()

    def line(self, text: str = "") -> None:
        """Print a line for people on standard output."""
        sys.stdout.write(text + "\n")

    def table(self, columns: Sequence[str], rows: Iterable[Row], *, title: str = "", right: Sequence[str] = ()) -> None:
        """Print rows under headings. `right` names the columns whose values stand at the right."""
        if not self.is_terminal:
            self.line("\t".join(columns))
            for row in rows:
                self.line("\t".join(printable(_text(cell)) for cell in row))
            return
        table = Table(title=title or None, title_justify="left", header_style="bold")
        for column in columns:
            table.add_column(column, justify="right" if column in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(_text(cell))) for cell in row))
        Console(highlight=False).print(table)

    def tree(self, root: Node) -> None:
        """Print a tree: with lines and colours on a terminal, indented elsewhere."""
        if self.is_terminal:
            from rich.tree import Tree

            top = Tree(Text(root.label, style=root.style))
            open_branches = [(top, root)]
            while open_branches:
                branch, node = open_branches.pop()
                open_branches += [(branch.add(Text(child.label, style=child.style)), child) for child in node.children]
            Console(highlight=False).print(top)
            return
        open_nodes = [(0, root)]
        while open_nodes:
            depth, node = open_nodes.pop()
            self.line("  " * depth + node.label)
            open_nodes.extend((depth + 1, child) for child in reversed(node.children))


def say(message: str) -> None:
    """Tell whoever runs the command, on standard error."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


def printable(text: str) -> str:
    r"""The text with everything that could move a cursor or change a colour written as \x1b."""
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell)
