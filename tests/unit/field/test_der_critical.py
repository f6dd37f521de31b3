"""What switches supply over Modbus: its words, its one write, and what set points leave alone meanwhile."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipss_headend.errors import RequestError
from ipss_headend.field.control.orders import Order, RegisterWrite, order
from ipss_headend.field.der.critical import LONGEST_REVERT_S, Meaning
from ipss_headend.field.der.keeper import is_critical
from ipss_headend.field.der.setpoints import Function

CONNECT, LIMIT = Function.CONNECT, Function.ACTIVE_POWER_LIMIT
SECONDS = st.integers(0, LONGEST_REVERT_S)
MEANINGS = st.builds(Meaning, st.just(CONNECT), st.sampled_from([Decimal(0), Decimal(1)]), SECONDS) | st.builds(
    Meaning, st.just(LIMIT), st.none() | st.decimals(0, 100, places=2), SECONDS
)


@given(MEANINGS)
def test_words_say_exactly_what_is_meant(meaning: Meaning) -> None:
    assert Meaning.of(meaning.text()) == meaning
    assert meaning.kind in {"der-disconnect", "der-reconnect", "der-limit"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "connect",
        "connect 2",
        "connect off",
        "active-power-limit 101",
        "active-power-limit 1.2.3",
        "volt-var 1",
        "connect 0 for 3600",
        "connect 0 for 3600 s ",
        "active-power-limit -1",
        f"connect 0 for {1 << 32} s",
    ],
)
def test_other_words_mean_nothing(text: str) -> None:
    with pytest.raises(RequestError):
        Meaning.of(text)


@pytest.mark.parametrize(
    ("function", "value", "critical"),
    [
        (CONNECT, 0, True),
        (CONNECT, 1, True),
        (LIMIT, 0, True),
        (LIMIT, 9, True),
        (LIMIT, 10, False),
        (LIMIT, 40, False),
        (Function.STORAGE_POWER, 0, False),
        (Function.POWER_FACTOR, 1, False),
    ],
)
def test_what_takes_two_people(function: Function, value: int, critical: bool) -> None:
    assert is_critical(function, Decimal(value), Decimal(10)) is critical
    assert is_critical(LIMIT, Decimal(0), Decimal(0)) is True


def test_a_device_is_judged_by_its_values_and_not_by_its_timers() -> None:
    limit, models = Meaning(LIMIT, Decimal(5), 600), {1, 123, 704}
    held = {(704, "WMaxLimPctEna"): Decimal(1), (704, "WMaxLimPct"): Decimal(5)}

    assert limit.places(models)[:2] == list(held)
    assert limit.held(held | {(704, "WMaxLimPctRvrtTms"): Decimal(17)}, models)
    assert not limit.held(held | {(704, "WMaxLimPct"): Decimal(6)}, models)
    assert not limit.held({}, models)
    assert Meaning(LIMIT, None).held({(123, "WMaxLim_Ena"): Decimal(0)}, {123})
    assert not Meaning(CONNECT, Decimal(0)).held({(123, "Conn"): Decimal(1)}, {123})
    with pytest.raises(RequestError, match="no model"):
        limit.places({1, 103})


def test_a_write_stands_in_the_canonical_octets_as_it_is() -> None:
    write = RegisterWrite(3, 40_242, 16, bytes.fromhex("000100000000"))
    made = order(
        "der-limit",
        write,
        Meaning(LIMIT, Decimal(0), 600).text(),
        [(7, b"12345678")],
        reason="test",
        requester="ada",
        created_us=1,
        life_s=900,
        order_id=bytes(16),
    )

    assert Order.decode(made.octets()) == made
    assert write.shown() == "modbus unit 3 function 16 address 40242 0001 0000 0000"
    for cut in (b"", made.octets()[:-1], made.octets() + b"\0"):
        with pytest.raises(RequestError):
            Order.decode(cut)
