"""Where meters stand: nodes of the distribution network, each below another, and the node and phases of each meter.

A tree, as the network is run (CIM, IEC 61968-11: a usage point at a transformer, on a feeder, of a substation). What is
made of it: the area of an incident is a meter's transformer; sales are told by feeder.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

REGION, SUBSTATION, BUSBAR, FEEDER = "region", "substation", "busbar", "feeder"
SECTION, SWITCH, TRANSFORMER, CABINET, CONNECTION = "section", "switch", "transformer", "cabinet", "connection"
KINDS = (REGION, SUBSTATION, BUSBAR, FEEDER, SECTION, SWITCH, TRANSFORMER, CABINET, CONNECTION)
BELOW_A_FEEDER = frozenset({SECTION, SWITCH, CABINET, CONNECTION})

MOST_NODES = 1_000_000
MOST_DEPTH = 64
"""Nodes above one another: a network has some ten."""
LONGEST_NAME = 100

_PHASES = re.compile(r"(?=.)A?B?C?N?|s12?N?|s2N?")


class Node(NamedTuple):
    """One node."""

    name: str
    kind: str
    parent: str
    """What feeds it; empty: nothing that is known."""


class Place(NamedTuple):
    """Where a meter stands."""

    node: str
    """Empty: that is not known."""
    phases: str
    """As `phases_of` takes them; empty: that is not known."""


NOWHERE = Place("", "")


class Network:
    """All nodes and places at one moment. It never changes; another one takes its place."""

    def __init__(self, version: int, nodes: Iterable[Node] = (), places: Mapping[str, Place] | None = None) -> None:
        """`places` are meters' by their names. The nodes have no cycle: `checked` sees to it."""
        self.version = version
        self.nodes: Mapping[str, Node] = {node.name: node for node in nodes}
        self._places = places or {}
        self._areas: dict[str, str] = {}
        self._above: dict[tuple[str, str], str] = {}

    def prepare(self) -> Network:
        """Count all that is counted once, before somebody waits for it."""
        _ = self.sizes, self.fed, self.all_below, self.children
        for node in self.meters:
            self.above(node, FEEDER)
        return self

    def place(self, meter: str) -> Place:
        """Where a meter stands."""
        return self._places.get(meter, NOWHERE)

    def path(self, name: str) -> list[str]:
        """A node and those above it, up to the root; empty for a name of none."""
        found: list[str] = []
        while (node := self.nodes.get(name)) is not None:
            found.append(name)
            name = node.parent
        return found

    def path_of(self, meter: str) -> list[str]:
        """The nodes above a meter, the nearest first."""
        return self.path(self.place(meter).node)

    def area(self, node: str) -> str:
        """What loses power together: the transformer that a node is at or below, or else the node itself.

        A transformer above a feeder is none of those: it feeds many.
        """
        if node not in self._areas:
            at: str = node
            while (found := self.nodes.get(at)) is not None and found.kind in BELOW_A_FEEDER:
                at = found.parent
            self._areas[node] = at if found is not None and found.kind == TRANSFORMER else node
        return self._areas[node]

    def area_of(self, meter: str) -> str:
        """The area that a meter is in; empty: it is not known where it stands."""
        node = self.place(meter).node
        return self.area(node) if node in self.nodes else ""

    def above(self, node: str, kind: str) -> str:
        """The nearest node of a kind that this one is at or below; empty: there is none."""
        if (node, kind) not in self._above:
            found = next((name for name in self.path(node) if self.nodes[name].kind == kind), "")
            self._above[node, kind] = found
        return self._above[node, kind]

    def feeder_of(self, meter: str) -> str:
        """The feeder of a meter; empty: that is not known."""
        return self.above(self.place(meter).node, FEEDER)

    def common(self, nodes: Iterable[str]) -> str:
        """The lowest node that all of these are at or below; empty: there is none."""
        shared: list[str] | None = None
        for node in nodes:
            path = self.path(node)
            shared = path if shared is None else [one for one in shared if one in set(path)]
        return shared[0] if shared else ""

    def below(self, node: str) -> Iterator[str]:
        """A node and all nodes below it: each behind the one that feeds it."""
        waiting = [node] if node in self.nodes else []
        while waiting:
            name = waiting.pop()
            yield name
            waiting += reversed(self.children.get(name, ()))

    @cached_property
    def children(self) -> Mapping[str, list[str]]:
        """The nodes right below each, by name; those below nothing under the empty name."""
        found: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self.nodes):
            found[self.nodes[name].parent].append(name)
        return found

    @cached_property
    def meters(self) -> Mapping[str, list[str]]:
        """The meters right at each node, by name."""
        found: dict[str, list[str]] = defaultdict(list)
        for meter in sorted(self._places):
            found[self._places[meter].node].append(meter)
        return found

    @cached_property
    def sizes(self) -> Counter[str]:
        """How many meters are in each area."""
        found = Counter(self.area_of(meter) for meter in self._places)
        found.pop("", None)
        return found

    @cached_property
    def fed(self) -> Counter[str]:
        """How many areas with meters each node feeds."""
        return Counter(above for area in self.sizes for above in self.path(area))

    @cached_property
    def all_below(self) -> Counter[str]:
        """How many meters each node feeds."""
        return self.count(lambda _: True)

    def count(self, wanted: Callable[[str], bool]) -> Counter[str]:
        """How many of the wanted meters each node feeds."""
        found: Counter[str] = Counter()
        for node, meters in self.meters.items():
            if number := sum(map(wanted, meters)):
                for above in self.path(node):
                    found[above] += number
        return found


EMPTY = Network(0)


def phases_of(text: str) -> str:
    """Phases as CIM's PhaseCode writes them: `A`, `BN`, `ABC`, `ABCN`; `s1`, `s2`, `s12N` where one is split.

    Raises:
        ValueError: with words for people.
    """
    if text and not _PHASES.fullmatch(text):
        raise ValueError(f'"{text[:24]}" are no phases; write A, AB, ABC, each with N behind it if it is there')
    return text


def node_of(name: str, kind: str, parent: str) -> Node:
    """A node of texts.

    Raises:
        ValueError: with words for people.
    """
    if not name:
        raise ValueError("name is empty; every node has one")
    for what, text in (("name", name), ("parent", parent)):
        if len(text) > LONGEST_NAME or not text.isprintable():
            raise ValueError(f"{what} is longer than {LONGEST_NAME} characters or cannot be printed")
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(KINDS)}"
        raise ValueError(f'kind: "{kind[:24]}" is unknown; {hint}')
    return Node(name, kind, parent)


def unknown_node(name: str, known: Iterable[str]) -> str:
    """What is said of a node that is not there."""
    near = difflib.get_close_matches(name, list(known)[:10_000], n=1)
    hint = f"did you mean {near[0]}?" if near else "`ipss-headend network import` takes nodes"
    return f'node: "{name[:LONGEST_NAME]}" is not in the network; {hint}'


def checked(known: Mapping[str, Node], wanted: Sequence[tuple[int, Node]]) -> tuple[list[Node], dict[int, str]]:
    """The nodes of `wanted` that fit a network of `known` ones, and what is wrong with the others, by their numbers.

    A wanted node takes the place of a known one of its name. One that hangs below a refused one is refused too, unless
    that is known.
    """
    check = _Check(known)
    for number, node in wanted:
        check.take(number, node)
    check.refuse_orphans(check.rows)
    while check.refuse_cycles():
        pass
    return [node for _, node in check.rows.values()], check.wrong


class _Check:
    def __init__(self, known: Mapping[str, Node]) -> None:
        self.rows: dict[str, tuple[int, Node]] = {}
        self.wrong: dict[int, str] = {}
        self._known = known
        self._refused: dict[str, int] = {}
        self._below: dict[str, list[str]] = defaultdict(list)

    def take(self, number: int, node: Node) -> None:
        if node.name in self.rows:
            self.wrong[number] = f'"{node.name}" stands on line {self.rows[node.name][0]} too; a node has one line'
        elif len(self.rows) + len(self._known) >= MOST_NODES:
            self.wrong[number] = f"more than {MOST_NODES} nodes"
        else:
            self.rows[node.name] = (number, node)
            self._below[node.parent].append(node.name)

    def refuse_orphans(self, names: Iterable[str]) -> None:
        """Refuse those of these whose parent is not there, and what hangs below them."""
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            row = self.rows.get(name)
            parent = row[1].parent if row is not None else ""
            if row is None or not parent or parent in self.rows or parent in self._known:
                continue
            line = self._refused.get(parent)
            why = f"which line {line} does not bring" if line is not None else self._hint(parent)
            self._refuse(name, f'parent: "{parent}" is not in the network; {why}')
            waiting += self._below[name]

    def refuse_cycles(self) -> bool:
        """Refuse what hangs below itself, or too far below the root; false: nothing does."""
        depths: dict[str, int] = {"": 0}
        wrong: dict[str, str] = {}
        for start in self.rows:
            chain: dict[str, None] = {}
            at = start
            while at not in depths and at not in chain:
                chain[at] = None
                at = self._parent(at)
            if at in chain:
                around = list(chain)[list(chain).index(at) :]
                words = " below ".join(f'"{one}"' for one in [*around, at][:MOST_DEPTH])
                wrong |= {one: f"parent: it hangs below itself: {words}" for one in around if one in self.rows}
            depth = depths.get(at, 0)
            for one in reversed(chain):
                depth += 1
                depths[one] = depth
                if depth > MOST_DEPTH and one in self.rows:
                    wrong.setdefault(one, f"parent: more than {MOST_DEPTH} nodes are above it")
        for name, words in wrong.items():
            self._refuse(name, words)
        self.refuse_orphans([below for name in wrong for below in self._below[name]])
        return bool(wrong)

    def _parent(self, name: str) -> str:
        row = self.rows.get(name)
        return row[1].parent if row is not None else self._known[name].parent

    def _refuse(self, name: str, words: str) -> None:
        number, _ = self.rows.pop(name)
        self.wrong[number] = words
        self._refused[name] = number

    def _hint(self, name: str) -> str:
        near = difflib.get_close_matches(name, [*self.rows, *self._known][:10_000], n=1)
        return f"did you mean {near[0]}?" if near else "leave it empty for a node that nothing feeds"
