"""The network: what feeds what, and which nodes make no tree."""

import random

import pytest
from tests.unit.networks import network

from ipss_headend.network import MOST_DEPTH, Network, Node, Place, checked, node_of, phases_of


def fit(*rows: tuple[str, str, str], known: tuple[tuple[str, str, str], ...] = ()) -> tuple[list[str], dict[int, str]]:
    """The names that fit, and what is wrong with which line."""
    there = {row[0]: Node(*row) for row in known}
    good, wrong = checked(there, [(number, Node(*row)) for number, row in enumerate(rows, 2)])
    return sorted(node.name for node in good), wrong


def test_nodes_come_in_any_order() -> None:
    assert fit(("T", "transformer", "F"), ("F", "feeder", "S"), ("S", "substation", "")) == (["F", "S", "T"], {})


def test_unknown_parent_is_told_with_what_hangs_below_it() -> None:
    good, wrong = fit(
        ("Sub1", "substation", ""), ("F", "feeder", "Sub2"), ("T", "transformer", "F"), ("U", "cabinet", "Sub1")
    )

    assert good == ["Sub1", "U"]
    assert wrong == {
        3: 'parent: "Sub2" is not in the network; did you mean Sub1?',
        4: 'parent: "F" is not in the network; which line 3 does not bring',
    }


def test_node_that_stands_twice_is_told() -> None:
    good, wrong = fit(("S", "substation", ""), ("S", "region", ""))

    assert (good, wrong) == (["S"], {3: '"S" stands on line 2 too; a node has one line'})


def test_cycles_are_told_at_each_line_of_them() -> None:
    rows = [("A", "B"), ("B", "C"), ("C", "A"), ("D", "C"), ("E", "E")]

    good, wrong = fit(*((name, "section", parent) for name, parent in rows))

    assert good == []
    assert wrong[2] == 'parent: it hangs below itself: "A" below "B" below "C" below "A"'
    assert wrong[5] == 'parent: "C" is not in the network; which line 4 does not bring'
    assert wrong[6] == 'parent: it hangs below itself: "E" below "E"'


def test_change_that_would_close_a_cycle_leaves_the_node_as_it_was() -> None:
    known = (("A", "section", ""), ("B", "section", "A"))

    good, wrong = fit(("A", "section", "B"), ("C", "section", "A"), known=known)

    assert good == ["C"], "A is still there, at its root"
    assert wrong == {2: 'parent: it hangs below itself: "A" below "B" below "A"'}


def test_two_changes_may_swap_what_feeds_what() -> None:
    known = (("A", "section", ""), ("B", "section", "A"))

    assert fit(("A", "section", "B"), ("B", "section", ""), known=known) == (["A", "B"], {})


def test_chain_that_is_too_long_is_told() -> None:
    rows = [(f"n{n}", "section", f"n{n - 1}" if n else "") for n in range(MOST_DEPTH + 2)]

    good, wrong = fit(*rows)

    assert len(good) == MOST_DEPTH
    assert sorted(wrong) == [MOST_DEPTH + 2, MOST_DEPTH + 3]
    assert f"more than {MOST_DEPTH} nodes" in wrong[MOST_DEPTH + 2]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_given_what_fits_is_a_tree(seed: int) -> None:
    source = random.Random(seed)
    names = [f"n{n}" for n in range(30)]
    known: dict[str, Node] = {}
    for _ in range(5):
        wanted = [Node(source.choice(names), "section", source.choice(["", *names])) for _ in range(20)]

        good, wrong = checked(known, list(enumerate(wanted)))

        assert len(good) + len(wrong) == len(wanted)
        known |= {node.name: node for node in good}
        for node in known.values():
            above, at = set(), node
            while at.parent:
                assert at.name not in above, "a cycle"
                above.add(at.name)
                at = known[at.parent]


def test_area_is_the_transformer_below_the_feeder() -> None:
    more = [Node("mv", "section", "S0F0"), Node("hall", "connection", "mv"), Node("lone", "cabinet", "")]
    found = Network(
        2,
        [*network().nodes.values(), *more],
        {
            "a": Place("S0F1T2/c", "A"),
            "b": Place("S0F1T2", ""),
            "customer": Place("hall", "ABC"),
            "station": Place("S0/B", ""),
            "c": Place("lone", ""),
        },
    )

    assert [found.area_of(one) for one in ("a", "b", "customer", "station", "c", "nobody")] == [
        "S0F1T2", "S0F1T2", "hall", "S0/B", "lone", "",
    ]  # fmt: skip
    assert [found.feeder_of(one) for one in ("a", "customer", "station", "c")] == ["S0F1", "S0F0", "", ""]
    assert found.sizes == {"S0F1T2": 2, "hall": 1, "S0/B": 1, "lone": 1}
    assert found.path_of("customer") == ["hall", "mv", "S0F0", "S0/B", "S0/T", "S0"]


def test_what_two_have_in_common_is_the_lowest_node_above_both() -> None:
    made = network(substations=2)

    assert made.common(["S0F0T1", "S0F1T0"]) == "S0/B"
    assert made.common(["S0F0T1/c", "S0F0T1"]) == "S0F0T1"
    assert made.common(["S0F0T1", "S1F0T1"]) == ""
    assert made.common([]) == ""


def test_counts_agree_with_paths() -> None:
    made = network(substations=2, transformers=5, meters=7, seed=3)

    meters = [f"S{s}F{f}T{t}M{m}" for s in range(2) for f in range(2) for t in range(5) for m in range(7)]
    for node in made.nodes:
        fed = [one for one in meters if node in made.path_of(one)]
        assert made.all_below[node] == len(fed)
        assert made.fed[node] == len({made.area_of(one) for one in fed if node in made.path(made.area_of(one))})
        assert sorted(one for at in made.below(node) for one in made.meters.get(at, ())) == sorted(fed)


@pytest.mark.parametrize("text", ["", "A", "BN", "AC", "ABC", "ABCN", "s1", "s2N", "s12N"])
def test_phases_as_cim_writes_them(text: str) -> None:
    assert phases_of(text) == text


@pytest.mark.parametrize("text", ["L1", "CBA", "abc", "AA", "s3", "A B"])
def test_other_phases_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="are no phases; write A, AB, ABC"):
        phases_of(text)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("", "feeder", ""), "name is empty"),
        (("a" * 101, "feeder", ""), "name is longer than 100 characters"),
        (("a", "feeder", "b\x07"), "parent is longer than 100 characters or cannot be printed"),
        (("a", "transfomer", ""), 'kind: "transfomer" is unknown; did you mean transformer?'),
        (("a", "zzz", ""), "known are region, substation"),
    ],
)
def test_mistakes_of_a_node_are_told(row: tuple[str, str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("?", r"\?")):
        node_of(*row)
