import pytest
from structlog.testing import capture_logs

from ipss_headend.field.reactor import EventKind, Outcome
from ipss_headend.field.watch import SECURITY, Watch
from ipss_headend.metrics import Figures


class FakeCounters:
    def __init__(self) -> None:
        self.heard: list[tuple[str, int]] = []

    def low(self, meter: int) -> None:
        self.heard.append(("low", meter))

    def behind(self, meter: int, expected: int) -> None:
        self.heard.append(("behind", expected))

    def proven(self, meter: int) -> None:
        self.heard.append(("proven", meter))


def watch() -> tuple[Watch, FakeCounters, Figures]:
    counters, figures = FakeCounters(), Figures()
    return Watch({1: "meter-1"}, counters, figures), counters, figures  # type: ignore[arg-type]


def test_meter_that_goes_and_returns_is_told_once_each() -> None:
    watching, _, figures = watch()

    with capture_logs() as logs:
        for _ in range(3):
            watching.events([(1, 0, EventKind.BACKED_OFF, 60, "")])
            watching.ends([(1, 1, Outcome.UNREACHABLE, 0, 5, "connect: refused")])
        gone = figures.meters_gone
        for _ in range(3):
            watching.events([(1, 0, EventKind.ASSOCIATED, 0, "")])
            watching.ends([(1, 1, Outcome.DONE, 1, 5, "")])

    assert [(line["log_level"], line["event"], line["meter"]) for line in logs] == [
        ("warning", "meter gone", "meter-1"),
        ("info", "meter returned", "meter-1"),
    ]
    assert (gone, figures.meters_gone) == (1, 0)


@pytest.mark.parametrize("kind", sorted(SECURITY))
def test_security_is_told_each_time(kind: EventKind) -> None:
    watching, _, _ = watch()

    with capture_logs() as logs:
        watching.events([(1, 0, kind, 41, "found and expected")] * 3)

    assert [(line["event"], line["what"]) for line in logs] == [("security", kind.label)] * 3


def test_fault_is_told_once_until_the_meter_answers() -> None:
    watching, _, _ = watch()
    broken = (1, 0, int(EventKind.PROTOCOL_VIOLATION), 0, "wrapper: length")

    with capture_logs() as logs:
        watching.events([broken, broken])
        watching.ends([(1, 1, Outcome.DONE, 1, 5, "")])
        watching.events([broken])

    assert [line["event"] for line in logs] == ["meter at fault"] * 2


def test_counters_hear_of_what_concerns_them() -> None:
    watching, counters, _ = watch()

    with capture_logs():
        watching.events(
            [
                (1, 0, EventKind.COUNTERS_LOW, 10, ""),
                (1, 0, EventKind.COUNTERS_EXHAUSTED, 0, ""),
                (1, 0, EventKind.COUNTER_BEHIND, 5000, ""),
                (1, 0, EventKind.ASSOCIATED, 0, ""),
            ]
        )

    assert counters.heard == [("low", 1), ("low", 1), ("behind", 5000), ("proven", 1)]


def test_meter_that_two_have_proved_to_be_is_told_each_time_and_kept_for_the_gate() -> None:
    watching, _, figures = watch()

    with capture_logs() as logs:
        watching.events([(1, 0, EventKind.CLONE_DETECTED, 0, "from 10.0.0.7"), (1, 0, EventKind.CLONE_DETECTED, 0, "")])

    assert [line["what"] for line in logs] == ["clone-detected"] * 2
    assert watching.doubted == {1: "from 10.0.0.7"}
    assert figures.events[EventKind.CLONE_DETECTED] == 2
