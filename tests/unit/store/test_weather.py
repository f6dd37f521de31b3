"""The weather is kept within bounds, and the nearest that is fresh is told, in both databases."""

import pytest

from ipss_headend.store import Database, weather
from ipss_headend.store.weather import EVERYWHERE, FRESH_US, KEPT_US, OBSERVATIONS, Weather, WeatherArea

NOW = 1_767_225_600_000_000
HOUR = 3_600_000_000
FEEDER, GROUP = WeatherArea("node", "F1"), WeatherArea("group", "east")
PATH = (WeatherArea("node", "T1"), FEEDER, GROUP, EVERYWHERE)


def at(hours: float, degrees: float) -> Weather:
    return Weather(NOW + int(hours * HOUR), {"temperature_c": degrees})


def put(database: Database, area: WeatherArea, *seen: Weather, ahead: list[Weather] | None = None) -> bool:
    with database.writing() as connection:
        return weather.put(connection, area, seen, ahead, "met", NOW)


def told(database: Database, now_us: int = NOW) -> dict[str, object]:
    with database.reading() as connection:
        return weather.nearest(connection, PATH, now_us)


def test_nearest_area_that_is_fresh_is_told(database: Database) -> None:
    assert told(database) == {}

    put(database, EVERYWHERE, at(-1, 1.0), at(-2, 2.0))
    assert told(database) == {"temperature_c": 1.0, "at_us": NOW - HOUR, "area": "", "area_kind": "everywhere"}
    put(database, GROUP, at(-2, 3.0))
    assert told(database)["temperature_c"] == 3.0
    put(database, FEEDER, at(-4, 4.0))
    assert told(database)["temperature_c"] == 3.0, "what is older than three hours is not of now"
    put(database, WeatherArea("node", "elsewhere"), at(0, 5.0))
    put(database, FEEDER, at(-0.5, 6.0), at(1, 7.0))
    assert told(database) == {"temperature_c": 6.0, "at_us": NOW - HOUR // 2, "area": "F1", "area_kind": "node"}
    assert told(database, NOW + FRESH_US) == {
        "temperature_c": 7.0,
        "at_us": NOW + HOUR,
        "area": "F1",
        "area_kind": "node",
    }
    assert told(database, NOW + 2 * FRESH_US) == {}


def test_forecasts_take_the_place_of_earlier_ones(database: Database) -> None:
    put(database, GROUP, ahead=[at(-1, 0.0), at(1, 1.0), at(2, 2.0)])
    put(database, GROUP, at(0, 9.0))
    assert told(database)["forecast"] == [
        {"temperature_c": 1.0, "at_us": NOW + HOUR}, {"temperature_c": 2.0, "at_us": NOW + 2 * HOUR},
    ]  # fmt: skip

    put(database, GROUP, ahead=[at(3, 3.0)])

    assert told(database)["forecast"] == [{"temperature_c": 3.0, "at_us": NOW + 3 * HOUR}]
    put(database, GROUP, ahead=[])
    assert "forecast" not in told(database)


def test_what_is_kept_has_bounds(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    old = at(-KEPT_US / HOUR - 1, 0.0)
    put(database, FEEDER, old)
    put(database, GROUP, *(at(-place / 10, float(place)) for place in range(OBSERVATIONS + 20)))

    with database.reading() as connection:
        assert weather.of(connection, FEEDER, "observation", 0) == []
        kept = weather.of(connection, GROUP, "observation", 0)
    assert (len(kept), kept[-1].values) == (OBSERVATIONS, {"temperature_c": 0.0})

    monkeypatch.setattr(weather, "AREAS", 1)
    assert put(database, GROUP, at(0, 1.0)), "an area that is known"
    assert not put(database, FEEDER, at(0, 1.0))
    assert told(database)["area"] == "east"


def test_of_one_moment_the_newest_stands(database: Database) -> None:
    put(database, GROUP, at(0, 1.0))
    put(database, GROUP, at(0, 2.0))

    with database.reading() as connection:
        [one] = weather.of(connection, GROUP, "observation", 0)
    assert (one.values, one.source, one.received_us) == ({"temperature_c": 2.0}, "met", NOW)
