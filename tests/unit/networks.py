"""Seeded networks: substations, feeders, sections, transformers and meters, with names that say where they are."""

from __future__ import annotations

import random

from ipss_headend.network import Network, Node, Place


def network(
    *, substations: int = 1, feeders: int = 2, transformers: int = 4, meters: int = 10, seed: int = 1
) -> Network:
    """Feeders of sections in a chain, with a transformer at some section; meters below cabinets or at once."""
    source = random.Random(seed)
    nodes: list[Node] = []
    places: dict[str, Place] = {}
    for s in range(substations):
        nodes.append(Node(f"S{s}", "substation", ""))
        nodes.append(Node(f"S{s}/T", "transformer", f"S{s}"))
        nodes.append(Node(f"S{s}/B", "busbar", f"S{s}/T"))
        for f in range(feeders):
            feeder = f"S{s}F{f}"
            nodes.append(Node(feeder, "feeder", f"S{s}/B"))
            sections = [feeder]
            for t in range(transformers):
                if source.random() < 0.5:
                    nodes.append(Node(f"{feeder}/{t}", "section", source.choice(sections)))
                    sections.append(nodes[-1].name)
                transformer = f"{feeder}T{t}"
                nodes.append(Node(transformer, "transformer", source.choice(sections)))
                at = transformer
                for m in range(meters):
                    if m == meters // 2:
                        nodes.append(Node(f"{transformer}/c", "cabinet", transformer))
                        at = nodes[-1].name
                    places[f"{transformer}M{m}"] = Place(at, "ABC"[source.randrange(3)])
    source.shuffle(nodes)
    return Network(1, nodes, places)
