"""Validation finds what was seeded, and little else; estimates sum to the register."""

from __future__ import annotations

import ast
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from tests.unit.plugins.series import DAY, KINDS, households, seeded

from ipss_headend.plugins import Context, billing, columns, dispatch
from ipss_headend.plugins.billing.validate import billing_estimate, billing_validate_batch

CONTEXT = Context("validate", "billing_validate_batch", 1, 0, 1.0)
SHIPPED = [
    *(Path(billing.__file__).parent / f"{name}.py" for name in ("validate", "sales", "ledger", "tariffs")),
    Path(dispatch.__file__).parent / "classify.py",
]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_eight_kinds_of_seeded_defects_are_found(seed: int) -> None:
    made = seeded(600, 14, seed)
    batch = made.batch()

    billing_validate_batch(CONTEXT, batch)

    flags = batch.numpy_flags()
    for kind in KINDS:
        there, found = (made.truth & kind) != 0, (flags & np.uint32(kind)) != 0
        assert there.any()
        both = np.count_nonzero(there & found)
        assert both / np.count_nonzero(there) >= 0.99, f"recall of {kind.name}"
        assert both / np.count_nonzero(found) >= 0.98, f"precision of {kind.name}"


def test_odd_batches_are_taken() -> None:
    for rows, first in ((0, [0]), (0, [0, 0]), (1, [0, 1]), (5, [0, 0, 2, 5]), (30, [0, 15, 30])):
        count = len(first) - 1
        made = {name: np.full(count, -1, np.int64) for name in ("parent", "register_first", "register_last")}
        made |= {name: np.zeros(count, np.int64) for name in ("modulus", "clock_s", "limit")}
        made |= {"first": np.array(first), "values": np.arange(rows), "known": np.ones(rows, np.uint8)}
        batch = columns.local({name: memoryview(column.data) for name, column in made.items()}, rows)

        billing_validate_batch(CONTEXT, batch)

        assert not any(batch.flags)


@given(
    st.lists(st.integers(0, 10_000), min_size=1, max_size=40).flatmap(
        lambda day: st.tuples(st.just(day), st.integers(0, 10**7))
    )
)
def test_estimates_sum_to_the_register(drawn: tuple[list[int], int]) -> None:
    day, total = drawn

    found = billing_estimate([5], len(day), [9], [day], total)

    assert found is not None
    assert sum(found.values) == total
    assert len(found.values) == len(day)


def test_like_days_beat_a_line() -> None:
    values = households(30, 15, 7)
    ours, line = 0.0, 0.0
    for row in values:
        for start in range(0, DAY, 12):
            span = slice(start, start + 24)
            like = [row[day * DAY :][span].tolist() for day in range(13)]
            lost = 13 * DAY + start
            before, after = row[:lost].tolist()[-4:], row[lost + 24 :].tolist()[:4]
            for days in (like, []):
                found = billing_estimate(before, 24, after, days, None)
                assert found is not None
                error = float(np.abs(np.array(found.values) - row[13 * DAY :][span]).mean())
                ours, line = (ours + error, line) if days else (ours, line + error)

    assert ours <= 0.7 * line, f"{ours / line:.2f} of a line's mean error"


def test_nothing_to_go_by_is_no_estimate() -> None:
    assert billing_estimate([], 3, [], [], None) is None


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_plugins_use_public_names_only(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [one.name for one in node.names] if isinstance(node, ast.Import) else []
        ours = {name for name in names if name.startswith("ipss_headend")}
        own = {name for name in ours if name.startswith("ipss_headend.plugins.billing.")}  # modules beside it
        assert ours - own <= {"ipss_headend", "ipss_headend.plugins"}
