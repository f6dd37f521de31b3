"""Who fell silent together below a node, who said that power was going, and who answered all the same."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

SILENT = frozenset({"meter-gone", "timeout"})
GOING = "power-down"
ANSWERED = "answered"
TOGETHER_US = 120_000_000
"""Meters that lose power together are noticed within this time."""
SHARE = 0.8
"""So many of those below a node are all of them: some are always away."""


class Silence(NamedTuple):
    """What is known of the meters below one node."""

    size: int
    """How many meters are there; 0: that is not known."""
    silent: frozenset[str]
    """Those that fell silent together: most of them within two minutes."""
    from_us: int
    """When the first of these did, or the first that said that power was going."""
    away: frozenset[str]
    """All that fell silent, together or not."""
    going: frozenset[str]
    """Those that said that power was going (last gasps)."""
    witnesses: frozenset[str]
    """Those that answered after that, and had not been silent before."""

    @property
    def whole(self) -> bool:
        """All below the node fell silent together, and none of them was heard after that."""
        return 0 < self.size * SHARE <= len(self.silent) and not self.witnesses

    @property
    def dark(self) -> bool:
        """The node has no power: somebody said so, or all of several meters fell silent together."""
        return bool(self.going and not self.witnesses) or (self.whole and self.size > 1)


def together(silent: Iterable[tuple[int, str]]) -> tuple[int, frozenset[str]]:
    """Of moments and meters: the two minutes in which most meters fell silent, by their first moment, and these."""
    window: deque[tuple[int, str]] = deque()
    counts: Counter[str] = Counter()
    best: tuple[int, frozenset[str]] = (0, frozenset())
    for at_us, meter in sorted(silent):
        window.append((at_us, meter))
        counts[meter] += 1
        while window[0][0] < at_us - TOGETHER_US:
            _, gone = window.popleft()
            counts[gone] -= 1
            if not counts[gone]:
                del counts[gone]
        if len(counts) > len(best[1]):
            best = (window[0][0], frozenset(counts))
    return best


def silences(
    parents: Mapping[str, str], sizes: Mapping[str, int], signals: Iterable[Mapping[str, Any]]
) -> dict[str, Silence]:
    """What the signals of an incident say of each node that meters are below.

    `parents`: the node of each meter; one that has none is below itself. `sizes`: how many meters are below each node.
    """
    silent: dict[str, list[tuple[int, str]]] = defaultdict(list)
    going: dict[str, dict[str, int]] = defaultdict(dict)
    answered: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for signal in signals:
        meter, kind, at_us = str(signal.get("meter")), signal.get("kind"), int(signal.get("at_us") or 0)
        node = str(parents.get(meter, meter))
        if kind in SILENT:
            silent[node].append((at_us, meter))
        elif kind == GOING:
            going[node].setdefault(meter, at_us)
        elif kind == ANSWERED:
            answered[node].append((at_us, meter))
    found = {}
    for node in sorted({*silent, *going}):
        from_us, members = together(silent[node])
        if not members:
            from_us = min(going[node].values())
        first: dict[str, int] = {}
        for at_us, meter in sorted(silent[node]):
            if at_us >= from_us:
                first.setdefault(meter, at_us)
        size: object = sizes.get(node, 0)
        found[node] = Silence(
            size if isinstance(size, int) else 0,
            members,
            from_us,
            frozenset(meter for _, meter in silent[node]),
            frozenset(going[node]),
            frozenset(meter for at_us, meter in answered[node] if from_us <= at_us < first.get(meter, at_us + 1)),
        )
    return found
