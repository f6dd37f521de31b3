"""A long replay says how far it is, now and then."""

import pytest

from ipss_headend.cli.plugin_trial import teller
from ipss_headend.plugins.differences import Report
from ipss_headend.plugins.replay import Progress


def test_progress_is_told_every_ten_seconds_with_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter([0.0, 1.0, 11.0, 12.0, 30.0])
    tell = teller(lambda: next(clock))

    for done in (10, 110, 120, 300):
        tell(Progress(done, 400, 0))

    assert capsys.readouterr().err.splitlines() == [
        "110 of 400 entries, at 1970-01-01T00:00:00Z, 29 s left",
        "300 of 400 entries, at 1970-01-01T00:00:00Z, 10 s left",
    ]


def test_a_report_counts_all_and_keeps_some() -> None:
    report = Report("mine", "", 0, 9, most=2)

    for place in range(5):
        report.note("effect", {"key": place}, "", "x")
    report.note("effect", {"key": 5}, "x", "x")
    report.note("effect", {"key": 6}, "x", "")
    report.note("effect", {"key": 7}, "x", "y")
    for _ in range(30):
        report.fail("consume", 1, "no")

    assert report.of_kind("effect") == {"same": 1, "added": 5, "gone": 1, "changed": 1}
    assert (report.differences, len(report.items), report.failed, len(report.failures)) == (7, 2, 30, 20)
    assert report.document()["kinds"] == {"effect": report.of_kind("effect")}
