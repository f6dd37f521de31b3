"""Our head-end writes, invokes and asks by ACCESS in every form; the gurux-dlms meter takes it and shows it again."""

from __future__ import annotations

from typing import Any

import pytest
from tests.interop.head_end import ask, gurux_keys, name, profile_of
from tests.interop.peers import gurux_meter

from ipss_headend import _core

DEVICE = (1, name("0.0.42.0.0.255"), 2)
ENERGY = (3, name("1.0.1.8.0.255"), 2)
REACTIVE = (3, name("1.0.3.8.0.255"), 2)
ABSENT = (3, name("1.0.9.9.9.255"), 2)
CLOCK = (8, name("0.0.1.0.0.255"))
LONG = bytes(number % 251 for number in range(400))
SECURED = [("low", "none", "service"), ("hls-gmac", "auth+enc", "service"), ("hls-gmac", "auth+enc", "general")]


def octets(value: bytes) -> bytes:
    """A-XDR."""
    return (bytes([9, len(value)]) if len(value) < 128 else b"\x09\x82" + len(value).to_bytes(2)) + value


def number(value: int) -> bytes:
    """A-XDR, double-long-unsigned."""
    return b"\x06" + value.to_bytes(4)


def told(
    items: list[_core.Item], authentication: str, protection: str, ciphering: str, *more: str
) -> tuple[Any, list[str]]:
    """What our head-end was told, and what the meter was asked."""
    general = ("--general-protection",) if ciphering == "general" else ()
    with gurux_meter(auth=authentication, protection=protection, options=(*general, *more)) as meter:
        answer = ask(
            f"{meter.host}:{meter.port}", profile_of(authentication, protection, ciphering), items, **gurux_keys()
        )
        log = meter.log()
    assert log["refused"] == [], log
    return answer, log["requests"]


@pytest.mark.parametrize(("authentication", "protection", "ciphering"), SECURED)
def test_a_long_value_goes_out_in_blocks(authentication: str, protection: str, ciphering: str) -> None:
    items = [_core.Item.set(DEVICE, octets(LONG)), _core.Item.attributes(0, [DEVICE])]
    answer, asked = told(items, authentication, protection, ciphering, "--max-pdu", "128")

    assert answer.outcome == "done", answer
    assert asked.count("set-block") > 3
    assert _core.decode_data(answer.answers[1][0]) == ["octet-string", LONG.hex()]


@pytest.mark.parametrize("max_pdu", [1024, 128])
@pytest.mark.parametrize(("authentication", "protection", "ciphering"), SECURED)
def test_a_list_is_written_at_once_or_in_blocks(
    authentication: str, protection: str, ciphering: str, max_pdu: int
) -> None:
    values = [(DEVICE, octets(LONG[:150])), (ENERGY, number(77)), (ABSENT, number(1)), (REACTIVE, number(78))]
    items = [
        _core.Item.set_list(values),
        _core.Item.attributes(0, [DEVICE]),
        _core.Item.attributes(0, [ENERGY, REACTIVE]),
    ]
    answer, asked = told(items, authentication, protection, ciphering, "--max-pdu", str(max_pdu))

    assert answer.outcome == "refused", answer
    assert ("set-with-list" in asked) == (max_pdu == 1024)
    assert ("set-block" in asked) == (max_pdu == 128)
    assert answer.answers[0] == [0, 0, 4, 0]
    assert _core.decode_data(answer.answers[1][0]) == ["octet-string", LONG[:150].hex()]
    assert [_core.decode_data(cell)[1] for cell in answer.answers[2]] == [77, 78]


@pytest.mark.parametrize(("authentication", "protection", "ciphering"), SECURED)
def test_parameters_of_a_method_go_out_in_blocks_and_methods_in_a_list(
    authentication: str, protection: str, ciphering: str
) -> None:
    items = [
        _core.Item.action((*CLOCK, 3), octets(LONG)),
        _core.Item.actions([((*CLOCK, 1), bytes([15, 0])), ((*CLOCK, 3), octets(LONG[:20]))]),
    ]
    answer, asked = told(items, authentication, protection, ciphering, "--max-pdu", "160")

    assert answer.outcome == "done", answer
    assert asked.count("action-block") > 2
    assert "action 8/0.0.1.0.0.255:3 400 octets" in asked
    assert "action-with-list" in asked
    assert "action 8/0.0.1.0.0.255:3 20 octets" in asked


@pytest.mark.parametrize(
    ("authentication", "protection", "ciphering"), [one for one in SECURED if one[1:] != ("auth+enc", "service")]
)
def test_access_reads_writes_and_invokes_in_order(authentication: str, protection: str, ciphering: str) -> None:
    parts: list[Any] = [
        ("get", ENERGY, None),
        ("set", ENERGY, number(99)),
        ("get", ENERGY, None),
        ("get", ABSENT, None),
        ("action", (*CLOCK, 3), bytes([15, 0])),
    ]
    items = [_core.Item.access(parts)]
    answer, asked = told(items, authentication, protection, ciphering, "--access")

    assert answer.outcome == "refused", answer
    assert "access" in asked
    before, _, after, absent, _ = answer.answers[0]
    assert [_core.decode_data(cell)[1] for cell in (before, after)] == [12_345_678, 99]
    assert absent is None
