import pytest

from ipss_headend.cli.asked import Wanted, check_harmless, object_list
from ipss_headend.cli.read import Change, _arguments
from ipss_headend.errors import HeadEndError, NotAuthorised, RequestError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1-0:1.8.0*255", "1.0.1.8.0.255:2"),
        ("1.0.1.8.0.255", "1.0.1.8.0.255:2"),
        ("3/1.0.1.8.0.255:3", "3/1.0.1.8.0.255:3"),
        ("8/0.0.1.0.0.255", "8/0.0.1.0.0.255:2"),
        ("objects", "15/0.0.40.0.0.255:2"),
    ],
)
def test_objects_in_all_forms(text: str, shown: str) -> None:
    assert str(Wanted.parse(text)) == shown


@pytest.mark.parametrize("text", ["1.0.1.8.0", "1.0.1.8.0.256", "holding/40001:2", "sunspec", "3/1.0.1.8.0.255:0", ""])
def test_object_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(HeadEndError):
        Wanted.parse(text)


@pytest.mark.parametrize(
    ("text", "catalogued"),
    [
        ("70/0.0.96.3.10.255", None),
        ("0.0.96.3.10.255", 70),
        ("1/0.0.96.3.10.255", None),
        ("71/0.0.17.0.0.255", None),
        ("3/9.9.9.9.9.9", 71),
        ("64/0.0.43.0.0.255", None),
        ("9/0.0.10.0.106.255", None),
        ("115/0.0.19.40.0.255", None),
        ("18/0.0.44.0.0.255", None),
        ("15/0.0.40.0.0.255", None),
    ],
)
def test_what_switches_limits_or_changes_keys_is_refused_whatever_class_is_claimed(
    text: str, catalogued: int | None
) -> None:
    with pytest.raises(NotAuthorised, match="command path"):
        check_harmless(Wanted.parse(text), catalogued)


def test_clock_and_capture_period_may_be_written() -> None:
    check_harmless(Wanted.parse("8/0.0.1.0.0.255"), 8)
    check_harmless(Wanted.parse("7/1.0.99.1.0.255:4"), 7)


def test_value_of_a_method_stands_before_or_behind_the_object() -> None:
    clock = "8/0.0.1.0.0.255"

    assert _arguments([clock, "long:10"], None, 6) == ([clock], Change(6, "long:10"))
    assert _arguments(["long:10", clock], None, 6) == ([clock], Change(6, "long:10"))
    assert _arguments([clock], None, 1) == ([clock], Change(1, None))


@pytest.mark.parametrize(
    ("objects", "value", "method"), [(["a", "b"], "5", None), (["a"], "5", 1), (["a", "b", "c"], None, 1)]
)
def test_one_object_is_changed_at_a_time(objects: list[str], value: str | None, method: int | None) -> None:
    with pytest.raises(RequestError):
        _arguments(objects, value, method)


def test_object_list_is_read_with_its_rights() -> None:
    rights = [
        ["array", [["structure", [["integer", 2], ["enum", 1], ["null-data", None]]]]],
        ["array", [["structure", [["integer", 1], ["boolean", True]]]]],
    ]
    element = [["long-unsigned", 3], ["unsigned", 0], ["octet-string", "0100010800ff"], ["structure", rights]]

    [found] = object_list(["array", [["structure", element]]])

    assert (found.class_id, found.logical_name) == (3, "1.0.1.8.0.255")
    assert (found.attributes, found.methods) == ({2: "read-only"}, {1: "access"})


@pytest.mark.parametrize("value", [["array", 5], ["array", [["structure", []]]], ["null-data", None]])
def test_what_is_no_object_list_is_told(value: list[object]) -> None:
    with pytest.raises(ValueError, match=r"object list|unpack"):
        object_list(value)
