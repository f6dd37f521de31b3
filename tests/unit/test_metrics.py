import re
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from ipss_headend import metrics
from ipss_headend.metrics import Durations, Figures, PlanFigures

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def page(figures: Figures, stats: dict[str, int] | None = None) -> str:
    shown = metrics.metrics(lambda number: f"outcome-{number}", lambda number: f"kind-{number}")
    return generate_latest(metrics.registry(figures, lambda: stats or {}, shown)).decode()


def test_every_metric_is_documented_and_no_other() -> None:
    documented = set(re.findall(r"^\| `(\w+)` \| (\w+) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE))
    exported = set(re.findall(r"^# TYPE (\w+) (\w+)$", page(Figures()), re.MULTILINE))

    assert documented == exported


def test_labels_in_the_document_are_the_exported_ones() -> None:
    rows = re.findall(r"^\| `head_end_(\w+?)(?:_total)?` \| \w+ \|([^|]*)\|", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    documented = {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels in rows}

    for metric in metrics.metrics(str, str):
        assert documented[metric.name] == metric.labels


def test_samples_carry_the_figures_and_the_reactors_numbers() -> None:
    figures = Figures(lines=7, store_trouble="full")
    figures.ends[2] += 3
    figures.plans["billing"] = PlanFigures(asked=10, done=7, failed=1)

    text = page(figures, {"associated": 5})

    assert "head_end_lines_total 7.0" in text
    assert "head_end_associations 5.0" in text
    assert "head_end_store_writable 0.0" in text
    assert 'head_end_requests_total{outcome="outcome-2"} 3.0' in text
    assert 'head_end_plan_requests{plan="billing",state="pending"} 2.0' in text
    assert 'head_end_plan_completeness{plan="billing"} 0.7' in text


def test_turn_with_nothing_due_is_complete() -> None:
    assert PlanFigures().completeness == 1.0


def test_durations_are_cumulative_in_the_histogram() -> None:
    figures = Figures()
    for duration_us in (50, 100, 101, 10**12):
        figures.request_durations.add(duration_us)

    text = page(figures)

    assert 'head_end_request_duration_seconds_bucket{le="0.0001"} 2.0' in text
    assert 'head_end_request_duration_seconds_bucket{le="0.00025"} 3.0' in text
    assert 'head_end_request_duration_seconds_bucket{le="+Inf"} 4.0' in text
    assert "head_end_request_duration_seconds_count 4.0" in text


@pytest.mark.parametrize(("share", "expected"), [(0.5, 0.001), (0.99, 0.5), (1.0, 0.5)])
def test_quantile_is_the_bound_of_its_class(share: float, expected: float) -> None:
    durations = Durations()
    for _ in range(90):
        durations.add(900)
    for _ in range(10):
        durations.add(400_000)

    assert durations.quantile_s(share) == expected


def test_quantile_of_nothing_is_unknown() -> None:
    assert Durations().quantile_s(0.5) is None
