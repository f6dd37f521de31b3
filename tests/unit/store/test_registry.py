"""Numbers for meters and layouts: the same content has the same one, and none is given twice."""

from dataclasses import replace

import pytest

from ipss_headend.errors import UnknownMeter
from ipss_headend.store import Database, Layout, LayoutColumn, Meter, registry

ENERGY = LayoutColumn(3, "1.0.1.8.0.255", 2, scaler=-3, unit="kWh", name="active energy import")
REGISTER = Layout(3, "1.0.1.8.0.255", 2, (ENERGY,))
PROFILE = Layout(7, "1.0.99.1.0.255", 2, (ENERGY, LayoutColumn(1, "0.0.96.10.1.255", 2)))


def meter(number: int, name: str, group: str = "") -> Meter:
    return Meter(number, name, "127.0.0.1", 4059, number, bytes([number] * 8), None, "m", group, {"client": 1})


def test_layout_has_one_number_however_often_it_is_interned(database: Database) -> None:
    with database.writing() as connection:
        first = registry.intern_layouts(connection, [REGISTER, PROFILE, REGISTER])
    with database.writing() as connection:
        again = registry.intern_layouts(connection, [PROFILE, REGISTER])
        stored = registry.all_layouts(connection)

    assert first == [1, 2, 1]
    assert again == [2, 1]
    assert stored == {1: REGISTER, 2: PROFILE}


def test_another_scaler_is_another_layout_and_another_name_is_not(database: Database) -> None:
    rescaled = replace(REGISTER, columns=(replace(ENERGY, scaler=0),))
    renamed = replace(REGISTER, columns=(replace(ENERGY, name="energy"),))

    with database.writing() as connection:
        assert registry.intern_layouts(connection, [REGISTER, rescaled, renamed]) == [1, 2, 1]


def test_layouts_are_found_by_object_and_by_column(database: Database) -> None:
    with database.writing() as connection:
        registry.intern_layouts(connection, [REGISTER, PROFILE])

        assert set(registry.layouts_with(connection, "1.0.1.8.0.255")) == {1, 2}
        assert set(registry.layouts_with(connection, "1.0.99.1.0.255")) == {2}
        assert registry.layouts_with(connection, "1.0.2.8.0.255") == {}


def test_meters_by_group_and_name(database: Database) -> None:
    with database.writing() as connection:
        registry.add_meters(connection, [meter(1, "a", "east"), meter(2, "b", "west"), meter(3, "c", "east")])

        assert [found.name for found in registry.all_meters(connection)] == ["a", "b", "c"]
        assert [found.name for found in registry.all_meters(connection, ["east"])] == ["a", "c"]
        assert registry.meter_named(connection, "b") == meter(2, "b", "west")


def test_unknown_meter_comes_with_its_near_names(database: Database) -> None:
    with database.writing() as connection:
        registry.add_meters(connection, [meter(1, "meter-0001"), meter(2, "zzz")])

        with pytest.raises(UnknownMeter, match='no meter is called "meter-001"; did you mean meter-0001'):
            registry.meter_named(connection, "meter-001")
        registry.add_meters(connection, [meter(number, f"house-{number:05d}") for number in range(3, 23)])
        with pytest.raises(UnknownMeter, match="did you mean house-00010 or house-00011 or house-00012"):
            registry.meter_named(connection, "house-0001")
        with pytest.raises(UnknownMeter, match="`ipss-headend meters list` shows all"):
            registry.meter_named(connection, "qqqqqq")


def test_number_of_a_removed_meter_is_not_given_again(database: Database) -> None:
    with database.writing() as connection:
        registry.add_meters(connection, [meter(1, "a"), meter(2, "b")])
        registry.remove_meter(connection, 2)

        assert registry.next_meter_id(connection) == 3
        assert [found.name for found in registry.all_meters(connection)] == ["a"]
