"""The file that the network is imported from: CSV with the columns name, kind, parent, a node a line, in any order.

| column | what it says | if left out |
|---|---|---|
| `name` | what people call the node; once only | (needed) |
| `kind` | one of `network.KINDS` | (needed) |
| `parent` | the node that feeds it | nothing feeds it |
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

from sqlalchemy import Connection

from ipss_headend import errors
from ipss_headend.field import fleet_file
from ipss_headend.network import Network, Node, checked, node_of
from ipss_headend.store import network

COLUMNS = ("name", "kind", "parent")


@dataclass(frozen=True, slots=True)
class NetworkReport:
    """What an import did. `mistakes` are messages for people, in the order of the file."""

    version: int
    taken: int
    """Nodes that are as the file says."""
    removed: int
    mistakes: tuple[str, ...]

    @property
    def exit_status(self) -> int:
        """0 all lines are in, 8 some are, 3 none is."""
        if not self.mistakes:
            return errors.DONE
        return errors.PARTLY_DONE if self.taken else errors.BAD_INPUT


def import_network(
    connection: Connection, lines: Iterable[str], source: str, *, replace: bool = False, strict: bool = False
) -> NetworkReport:
    """Put the good lines of a CSV file into the network, and report the others. Needs a writing transaction.

    With `replace` the file is the whole network: nodes that it does not have go, and one mistake keeps all as it is, as
    with `strict`.

    Raises:
        ConfigError: the file's first line does not name the columns.
    """
    wanted: list[tuple[int, Node]] = []
    wrong: dict[int, str] = {}
    for line, cells in fleet_file.rows(lines, source, COLUMNS, COLUMNS[:2]):
        if isinstance(cells, str):
            wrong[line] = cells
            continue
        try:
            wanted.append((line, node_of(cells["name"], cells["kind"], cells.get("parent", ""))))
        except ValueError as error:
            wrong[line] = f"{source}: line {line}: {error}"
    return put_nodes(connection, wanted, wrong, f"{source}: line ", replace=replace, strict=strict)


def put_nodes(
    connection: Connection,
    wanted: Sequence[tuple[int, Node]],
    wrong: dict[int, str],
    where: str,
    *,
    replace: bool = False,
    strict: bool = False,
) -> NetworkReport:
    """As `import_network`, of nodes with their numbers; `wrong` has the messages that refuse others.

    `where` is said before a number.
    """
    known = network.load(connection)
    good, misfits = checked({} if replace else known.nodes, wanted)
    told = wrong | {number: f"{where}{number}: {words}" for number, words in misfits.items()}
    mistakes = [told[number] for number in sorted(told)]
    gone: set[str] = set()
    if replace:
        gone = known.nodes.keys() - {node.name for node in good}
        mistakes += [
            f'"{name}" would go, but {len(known.meters[name])} meters stand there; `meters place` says where'
            for name in sorted(gone)
            if name in known.meters
        ]
    if mistakes and (strict or replace):
        return NetworkReport(known.version, 0, 0, tuple(mistakes))
    changed = [node for node in good if known.nodes.get(node.name) != node]
    version = network.put(connection, changed, sorted(gone)) if changed or gone else known.version
    return NetworkReport(version, len(good), len(gone), tuple(mistakes))


def export_network(known: Network, stream: TextIO) -> int:
    """Write the network as CSV in the columns of the import, each node behind the one that feeds it."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    count = 0
    for root in known.children.get("", ()):
        for name in known.below(root):
            writer.writerow(known.nodes[name])
            count += 1
    return count
