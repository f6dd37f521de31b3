from typing import Any

import pytest

from ipss_headend.cli.values import date_time_of, for_people, moment_text, parse_moment, parse_value, shown, time_text
from ipss_headend.errors import RequestError

NOW_US = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z."""


@pytest.mark.parametrize(
    ("value", "scaler", "text"),
    [
        (["double-long-unsigned", 12345678], -3, "12345.678"),
        (["long64-unsigned", 2**64 - 1], -4, "1844674407370955.1615"),
        (["long64", -(2**63)], 0, "-9223372036854775808"),
        (["long-unsigned", 5], 3, "5000"),
        (["integer", -1], None, "-1"),
        (["enum", 3], -2, "3"),
        (["visible-string", "ABC"], None, "ABC"),
        (["boolean", True], None, True),
        (["null-data", None], -3, None),
        (["structure", [["long", 1], ["octet-string", "ff"]]], None, ["1", "ff"]),
    ],
)
def test_value_is_exact_and_without_an_exponent(value: list[Any], scaler: int | None, text: Any) -> None:
    assert shown(value, scaler) == text


def test_octets_are_shown_as_what_they_look_like() -> None:
    assert for_people(["octet-string", "07ea0b160712151956ffc400"]) == "2026-11-22T18:21:25+01:00"
    assert for_people(["octet-string", b"VRT1".hex()]) == "VRT1 (56525431)"
    assert for_people(["octet-string", "0100010800ff"]) == "1.0.1.8.0.255 (0100010800ff)"
    assert for_people(["octet-string", "1b5b324a"]) == "1b5b324a"


def test_unspecified_parts_are_question_marks_and_no_guess() -> None:
    found = date_time_of(bytes.fromhex("ffff0bff07121519ff800000"))

    assert found is not None
    assert (found["year"], found["day"], found["deviation_min"]) == (None, None, None)
    assert moment_text(found) == "????-11-??T18:21:25"


def test_octets_that_can_be_no_date_are_none() -> None:
    assert date_time_of(b"twelve chars") is None


@pytest.mark.parametrize(
    ("text", "moment_us"),
    [
        ("2026-01-01", NOW_US),
        ("2026-01-01T01:00+01:00", NOW_US),
        ("2026-01-01T00:00:00Z", NOW_US),
        ("2d", NOW_US - 2 * 86_400_000_000),
        ("90min", NOW_US - 5_400_000_000),
    ],
)
def test_moments_that_operators_write(text: str, moment_us: int) -> None:
    assert parse_moment(text, NOW_US) == moment_us


def test_moment_in_words_is_refused_with_examples() -> None:
    with pytest.raises(RequestError, match="2026-01-31"):
        parse_moment("yesterday", NOW_US)


def test_time_has_the_places_that_it_needs() -> None:
    assert time_text(NOW_US) == "2026-01-01T00:00:00Z"
    assert time_text(NOW_US + 1) == "2026-01-01T00:00:00.000001Z"


@pytest.mark.parametrize(
    ("text", "like", "value"),
    [
        ("5", "long-unsigned", ["long-unsigned", 5]),
        ("double-long:-7", None, ["double-long", -7]),
        ('["structure", [["enum", 1]]]', None, ["structure", [["enum", 1]]]),
        ("octet-string:00FF", None, ["octet-string", "00ff"]),
        ("visible-string:a:b", None, ["visible-string", "a:b"]),
        ("boolean:true", None, ["boolean", True]),
        ("null-data", None, ["null-data", None]),
    ],
)
def test_values_to_write(text: str, like: str | None, value: list[Any]) -> None:
    assert parse_value(text, like) == value


@pytest.mark.parametrize("text", ["unsigned:256", "long:x", "octet-string:f", '["long"]', "[1", "5", "bit-string:012"])
def test_value_that_its_type_cannot_hold_is_refused(text: str) -> None:
    with pytest.raises(RequestError):
        parse_value(text)
