"""Where virtual devices stand, and when the sun shines there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from ipss_headend.cli.virtual_devices import Place


@pytest.mark.parametrize("minutes", range(0, 24 * 60, 7))
def test_it_is_noon_at_the_chosen_place_whenever_it_is_here(minutes: int) -> None:
    now = datetime(2026, 12, 21, tzinfo=UTC) + timedelta(minutes=minutes)
    place = Place.at_noon(now)

    assert -180 <= place.longitude_deg <= 180
    assert place.clock(now) in {"12:00", "12:01", "12:02", "12:03"}


def test_the_hour_here_may_be_of_any_zone() -> None:
    now = datetime(2026, 6, 1, 3, 0, tzinfo=timezone(timedelta(hours=5)))

    assert Place.at_noon(now) == Place.at_noon(now.astimezone(UTC)) == Place(0, -150)


def test_a_place_is_told_in_words() -> None:
    assert str(Place(0, -150)) == "the equator, 150 degrees west"
    assert str(Place()) == "50 degrees north, 0 degrees east"
    assert str(Place(-35, 20)) == "35 degrees south, 20 degrees east"
