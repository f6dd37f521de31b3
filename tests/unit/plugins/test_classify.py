"""Silence is an outage or a lost line, by what hangs below what."""

from __future__ import annotations

import pytest

from ipss_headend.plugins import Context, IncidentClass
from ipss_headend.plugins.dispatch.classify import SAID, TOGETHER_US, dispatch_classify

CONTEXT = Context("classify", "dispatch_classify", 1, 0, 1.0)
METERS = [f"m{place}" for place in range(10)]
INCIDENT: dict[str, object] = {"parents": dict.fromkeys(METERS, "t1"), "sizes": {"t1": 10}}


def signals(kind: str, meters: list[str], at_us: int = 1000) -> list[dict[str, object]]:
    return [{"meter": meter, "kind": kind, "at_us": at_us} for meter in meters]


def names(told: list[dict[str, object]]) -> list[str]:
    return [one.name for one in dispatch_classify(CONTEXT, [], INCIDENT, told)]


def test_all_below_a_transformer_are_an_outage() -> None:
    assert names(signals("meter-gone", METERS)) == ["outage"]
    assert names(signals("meter-gone", METERS[:9])) == ["outage"], "one is always away"


def test_some_below_a_transformer_are_a_lost_line() -> None:
    assert names(signals("meter-gone", METERS[:3])) == ["comms-loss"]


def test_a_neighbour_that_answers_later_has_power() -> None:
    assert names(signals("timeout", METERS[:9]) + signals("answered", METERS[9:], 5000)) == ["comms-loss"]
    assert names(signals("timeout", METERS[:9]) + signals("answered", METERS[9:], 500)) == ["outage"]


def test_meters_that_go_one_by_one_are_lost_lines() -> None:
    told = [one for place, meter in enumerate(METERS) for one in signals("timeout", [meter], place * TOGETHER_US)]

    assert names(told) == ["comms-loss"]


def test_a_last_gasp_tells_an_outage_of_one() -> None:
    assert names(signals("power-down", ["m1"])) == ["outage"]


@pytest.mark.parametrize("kind", SAID)
def test_what_a_meter_says_is_a_class(kind: str) -> None:
    (found,) = dispatch_classify(CONTEXT, [], {}, signals(kind, ["m2", "m1", "m1"]))

    assert (found.name, found.severity, found.evidence) == (*SAID[kind], ["m1", "m2"])


def test_what_others_found_is_kept_in_order() -> None:
    first = IncidentClass("flood", 0.99, 4)

    found = dispatch_classify(CONTEXT, [first], {"parents": None}, signals("battery-low", ["m1"]))

    assert [one.name for one in found] == ["flood", "battery"]
