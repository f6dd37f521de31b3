"""Silence is an outage or a lost line, by what hangs below what."""

from __future__ import annotations

import pytest

from ipss_headend.plugins import TOGETHER_US, Context, IncidentClass, silences, together
from ipss_headend.plugins.dispatch.classify import SAID, dispatch_classify

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


def test_most_that_fell_silent_within_two_minutes_are_together() -> None:
    early, late = [(0, "a"), (5, "a")], [(2 * TOGETHER_US + place, meter) for place, meter in enumerate("bcda")]

    assert together([*late, *early]) == (2 * TOGETHER_US, frozenset("abcd"))
    assert together([]) == (0, frozenset())


def test_meter_that_went_before_the_others_is_no_witness_and_one_between_them_is() -> None:
    told = [
        *signals("meter-gone", METERS[:9], 1000),
        *signals("answered", ["m9"], 900),
        *signals("answered", ["m0"], 2000),
    ]
    assert silences(dict.fromkeys(METERS, "t1"), {"t1": 10}, told)["t1"].dark

    late = signals("meter-gone", ["m9"], 3000)
    found = silences(dict.fromkeys(METERS, "t1"), {"t1": 10}, [*told, *signals("answered", ["m9"], 2000), *late])["t1"]
    assert found.witnesses == {"m9"}
    assert not found.dark


def test_signals_that_are_not_kept_make_no_lost_lines() -> None:
    told = [*signals("meter-gone", METERS), *signals("meter-gone", ["n1"])]
    known = {"parents": {**dict.fromkeys(METERS, "t1"), "n1": "t2"}, "sizes": {"t1": 10, "t2": 9}}

    def found(dropped: int) -> list[str]:
        return [one.name for one in dispatch_classify(CONTEXT, [], {**known, "dropped": dropped}, told)]

    assert (found(0), found(7)) == (["outage", "comms-loss"], ["outage"])
