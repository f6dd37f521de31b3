"""Prices are exact, and mistakes in them are told."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import pytest

from ipss_headend.plugins import Context
from ipss_headend.plugins.billing import sales
from ipss_headend.plugins.billing.ledger import decoded, plain
from ipss_headend.plugins.billing.sales import Sales
from ipss_headend.plugins.billing.tariffs import PRICE_DIGITS, Tariffs

MONDAY, SUNDAY = date(2026, 3, 2), date(2026, 3, 1)


def test_the_first_period_that_fits_stands_and_the_newest_version() -> None:
    tariffs = Tariffs.of(
        {
            "default_tariff": "night",
            "feeders": {"north": "flat"},
            "accounts": {"a": "own"},
            "tariffs": [
                {"name": "night", "price": "0.30", "periods": [
                    {"hours": "22-6", "days": "mon-fri", "price": "0.19"},
                    {"hours": "2,3", "months": "3-4", "price": "-0.05"},
                ]},
                {"name": "night", "from": "2026-03-02", "periods": [{"hours": "23", "price": 1}]},
            ],
        }
    )  # fmt: skip

    def price(day: date, hour: int) -> str | None:
        found = tariffs.price("night", day, hour)
        return None if found is None else plain(found, PRICE_DIGITS)

    assert [price(SUNDAY, hour) for hour in (2, 3, 4, 23)] == ["-0.05", "-0.05", "0.3", "0.3"]
    friday = date(2026, 2, 27)
    assert [price(friday, hour) for hour in (22, 0, 5, 6, 21)] == ["0.19", "0.19", "0.19", "0.3", "0.3"]
    assert [price(MONDAY, hour) for hour in (22, 23, 0)] == [None, "1", None]
    assert tariffs.name_of("a", {"feeder": "north"}) == "own"
    assert tariffs.name_of("b", {"feeder": "north"}) == "flat"
    assert tariffs.name_of("b", {"feeder": "south"}) == "night"
    assert tariffs.name_of("a", {"feeder": "north", "tariff": "said"}) == "said"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tariffs": [{"name": "a", "price": 0.3}]}, r"tariffs\[0\].price: 0.3 is no exact price; write it as a text"),
        ({"tariffs": [{"name": "a", "price": "1.1234567890123"}]}, "no exact price"),
        ({"tariffs": [{"price": "1"}]}, r"tariffs\[0\].name: expected a text"),
        ({"tariffs": [{"name": "a", "cost": "1"}]}, r"tariffs\[0\].cost: there is no such setting"),
        ({"tariffs": [{"name": "a", "periods": [{"hours": "6-25", "price": "1"}]}]}, '"6-25" is none of 0 to 24'),
        ({"tariffs": [{"name": "a", "periods": [{"days": "fri-mon", "price": "1"}]}]}, "ends before it begins"),
        ({"tariffs": [{"name": "a"}, {"name": "a"}]}, '"a" begins twice on one day'),
        ({"tariffs": [{"name": "a", "from": "soon"}]}, "no day such as"),
        ({"accounts": {"a": 1}}, "accounts: expected names and their tariffs"),
        ({"keep_days": 0}, "keep_days: 0 is no whole number from 1"),
        ({"tarifs": []}, "tarifs: there is no such setting"),
    ],
)
def test_mistakes_are_told_and_energy_is_counted_all_the_same(settings: dict[str, Any], words: str) -> None:
    ours = Sales(settings)

    assert re.search(words, ours.wrong), ours.wrong
    ours.ledger.put("a", "1970-01-01", f"[0,86400000000,null,9,{[1] * 24},1,1,0,0,0]")
    assert ours.ledger.rows(0, 2**62, [])[0]["kwh"] == "0.024"


def test_days_that_are_old_are_dropped() -> None:
    sales._sales.clear()
    now_us = 100 * 86_400_000_000
    context = Context("sales", "billing_intervals", 1, now_us, 1.0, settings={"keep_days": 10})
    text = "[{0},{1},null,9,{2},4,4,0,0,0]"
    for day, place in (("1970-03-30", 88), ("1970-04-05", 94)):
        start = place * 86_400_000_000
        hours = text.format(start, start + 86_400_000_000, [1] * 24)
        assert len(decoded(hours)) == 24
        sales.restore(context, {f"day/{day}/a": hours})

    sales.billing_intervals(context, {}, [], "")

    assert [(effect.key, effect.content) for effect in context.effects] == [("day/1970-03-30/a", None)]
    [row] = sales.rpc_call(context, "query", {"from_ms": 0, "to_ms": 2**45, "by": ["day"]})["rows"]
    assert (row["day"], row["kwh"], row["expected"], row["complete"]) == ("1970-04-05", "0.024", 24, 24)
    assert row["unpriced_kwh"] == row["kwh"]
    sales._sales.clear()
