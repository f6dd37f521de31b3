from array import array
from collections.abc import Mapping

import pytest
import trio
from structlog.testing import capture_logs
from tests.unit.field.fakes import FakeReactor, by_number, fleet, meter, scaler_unit
from tests.unit.field.world import ENERGY, PROFILE, World, numbers

from ipss_headend.errors import UnknownLogicalName
from ipss_headend.field.fleet import FleetMeter
from ipss_headend.field.layouts import MOST_COLUMNS, ProfileShape, Register
from ipss_headend.field.questions import Attributes
from ipss_headend.names import ObjectName
from ipss_headend.store import Layout, LayoutColumn, Store
from ipss_headend.store.registry import all_layouts

ENERGY_OCTETS = b"\x01\x00\x01\x08\x00\xff"
VALUE = Register(3, ENERGY_OCTETS, 2)


def registers(world: World, *meters: int) -> dict[tuple[int, ...], list[int]]:
    async def main() -> dict[tuple[int, ...], list[int]]:
        async with world.pumping():
            found = await world.layouts.registers([VALUE], meters, "scheduled")
        return {layouts: list(members) for layouts, members in found.items()}

    return trio.run(main)


def profiles(world: World, *meters: int, columns: tuple[Register, ...] = ()) -> dict[ProfileShape, list[int]]:
    found: dict[ProfileShape, list[int]] = {}

    def hear(shape: ProfileShape, members: "array[int]") -> None:
        found.setdefault(shape, []).extend(members)

    async def main() -> dict[ProfileShape, list[int]]:
        async with world.pumping():
            await world.layouts.profiles(PROFILE, columns, numbers(*meters), "scheduled", hear)
        return found

    return trio.run(main)


def stored(store: Store) -> list[Layout]:
    with store.database.reading() as connection:
        return list(all_layouts(connection).values())


def world_of(store: Store, reactor: FakeReactor, meters: Mapping[int, FleetMeter]) -> World:
    return World(store, reactor, meters)


def test_scaler_is_asked_of_a_few_meters_of_each_model(store: Store, reactor: FakeReactor) -> None:
    world = world_of(store, reactor, by_number([*(meter(number) for number in range(1, 6)), meter(6, model="M2")]))

    found = registers(world, 1, 2, 3, 4, 5, 6)
    again = registers(world, 1, 2, 3, 4, 5, 6)

    assert [asked.meters for asked in world.asked("attributes")] == [[1, 2, 3, 6]]
    assert found == again == {(1,): [1, 2, 3, 4, 5, 6]}
    assert stored(store) == [
        Layout(3, ENERGY, 2, (LayoutColumn(3, ENERGY, 2, 0, -3, "Wh", "object of class 3"),)),
    ]


def test_other_meters_of_the_model_are_asked_when_the_first_fail(store: Store, reactor: FakeReactor) -> None:
    world = world_of(store, reactor, fleet(4))
    world.fleet.silent = {1, 2, 3}

    assert registers(world, 1, 2, 3, 4) == {(1,): [1, 2, 3, 4]}
    assert [asked.meters for asked in world.asked("attributes")] == [[1, 2, 3], [4]]


def test_silent_meter_keeps_no_other_waiting(store: Store, reactor: FakeReactor) -> None:
    world = world_of(store, reactor, fleet(3))
    world.fleet.hanging = {1}
    heard: list[list[int]] = []

    async def main() -> None:
        async with world.pumping():
            with trio.move_on_after(0.8) as scope:
                await world.layouts.profiles(
                    PROFILE, (), numbers(1, 2, 3), "scheduled", lambda _, members: heard.append(list(members))
                )
            assert scope.cancelled_caught
            found = await world.layouts.registers([VALUE], [1, 2, 3], "scheduled")
        assert {layouts: list(members) for layouts, members in found.items()} == {(2,): [1, 2, 3]}

    trio.run(main)

    assert heard == [[2, 3]]
    assert reactor.cancelled[0] == (1, 1)


def test_model_of_which_nobody_answers_is_left_out(store: Store, reactor: FakeReactor) -> None:
    world = world_of(store, reactor, fleet(10))
    world.fleet.silent = set(range(1, 10))

    assert registers(world, *range(1, 11)) == {}


def test_meter_without_a_model_is_a_model_of_its_own(store: Store, reactor: FakeReactor) -> None:
    world = world_of(store, reactor, fleet(2, model=""))

    registers(world, 1, 2)

    assert [asked.meters for asked in world.asked("attributes")] == [[1, 2]]


def test_every_meter_is_asked_what_its_profile_captures(store: Store, reactor: FakeReactor) -> None:
    world = world_of(store, reactor, fleet(3))

    [(shape, members)] = profiles(world, 1, 2, 3).items()

    assert members == [1, 2, 3]
    assert [asked.meters for asked in world.asked("attributes")] == [[1, 2, 3], [1, 2, 3]]
    assert (shape.columns, shape.clock_column, shape.status_column, shape.period_s) == (3, 0, 1, 900)
    [layout] = stored(store)
    assert [(column.logical_name, column.scaler, column.unit) for column in layout.columns] == [
        ("0.0.96.10.1.255", None, ""),
        (ENERGY, -3, "Wh"),
    ]


def test_meters_that_capture_other_columns_get_their_own_layout_and_an_event(
    store: Store, reactor: FakeReactor
) -> None:
    world = world_of(store, reactor, fleet(3))
    world.fleet.columns[2] = b"other"

    with capture_logs() as logs:
        found = profiles(world, 1, 2, 3)

    assert {shape.columns: members for shape, members in found.items()} == {3: [1, 3], 2: [2]}
    assert "meters of one model capture different columns" in [line["event"] for line in logs]
    with store.database.reading() as connection:
        assert connection.exec_driver_sql("SELECT meter_id, kind, number FROM events").all() == [(2, 1002, 2)]


def test_capture_objects_that_make_no_sense_are_told_and_not_read(store: Store, reactor: FakeReactor) -> None:
    world = world_of(store, reactor, fleet(2))
    world.fleet.columns[2] = b"garbage"

    with capture_logs() as logs:
        found = profiles(world, 1, 2)

    assert list(found.values()) == [[1]]
    assert [line["event"] for line in logs] == ["capture objects not understood"]


@pytest.mark.parametrize(
    "entry",
    [
        [["long64-unsigned", 2**63], ["octet-string", "0100010800ff"], ["integer", 2], ["long-unsigned", 0]],
        [["long-unsigned", 3], ["octet-string", "01" * 300], ["integer", 2], ["long-unsigned", 0]],
        [["long-unsigned", 3], ["octet-string", "0100010800ff"], ["long", 1_000], ["long-unsigned", 0]],
        [["long-unsigned", 3], ["octet-string", "0100010800ff"], ["integer", 2], ["long64-unsigned", 2**64 - 1]],
        [["long-unsigned", 3], ["octet-string", "0100010800ff"], ["integer", 2]],
    ],
)
def test_r32_capture_objects_beyond_their_types_leave_that_meter_out_and_no_other(
    store: Store, reactor: FakeReactor, entry: list[list[object]]
) -> None:
    world = world_of(store, reactor, fleet(2))
    world.fleet.columns[2] = b"odd"
    world.native.values[b"odd"] = ["array", [["structure", entry]]]

    assert list(profiles(world, 1, 2).values()) == [[1]]


def test_r32_more_columns_than_a_profile_has_and_odd_periods_are_not_believed(
    store: Store, reactor: FakeReactor
) -> None:
    world = world_of(store, reactor, fleet(2))
    world.native.values[b"900"] = ["long64-unsigned", 2**63]
    world.fleet.columns[2] = b"many"
    one = ["structure", [["long-unsigned", 1], ["octet-string", "0000600a01ff"], ["integer", 2], ["long-unsigned", 0]]]
    world.native.values[b"many"] = ["array", [one] * (MOST_COLUMNS + 1)]

    [(shape, members)] = profiles(world, 1, 2).items()

    assert (members, shape.period_s) == ([1], 0)


@pytest.mark.parametrize(
    "said",
    [
        ["structure", [["integer", -3], ["long-unsigned", 300]]],
        ["structure", [["double-long", 2**31 - 1], ["enum", 30]]],
        ["structure", [["boolean", True], ["enum", 30]]],
    ],
)
def test_r32_scaler_beyond_its_type_scales_nothing_and_stops_nothing(
    store: Store, reactor: FakeReactor, said: list[object]
) -> None:
    world = world_of(store, reactor, fleet(1))
    world.native.values[b"scaler"] = said

    assert list(registers(world, 1).values()) == [[1]]
    [layout] = stored(store)
    assert (layout.columns[0].scaler, layout.columns[0].unit) == (None, "")


@pytest.mark.parametrize("liar", [1, 2, 3])
def test_r32_one_meter_scales_no_others_values(store: Store, reactor: FakeReactor, liar: int) -> None:
    world = world_of(store, reactor, fleet(6))
    world.fleet.scalers[liar] = b"lie"
    world.native.values[b"lie"] = scaler_unit(3, 30)

    with capture_logs() as logs:
        registers(world, 1, 2, 3, 4, 5, 6)

    [layout] = stored(store)
    assert layout.columns[0].scaler == -3
    assert liar == 3 or "meters of one model scale differently" in [line["event"] for line in logs]


def test_a_scaler_that_cannot_be_said_now_is_asked_again_and_nothing_is_stored_without_it(
    store: Store, reactor: FakeReactor
) -> None:
    world = world_of(store, reactor, fleet(2))
    world.fleet.refusing_scalers = {1: 2, 2: 2}

    unknown = registers(world, 1, 2)
    world.fleet.refusing_scalers = {}
    known = registers(world, 1, 2)

    assert (unknown, list(known.values())) == ({}, [[1, 2]])
    [layout] = stored(store)
    assert (layout.columns[0].scaler, layout.columns[0].unit) == (-3, "Wh")


def test_an_object_without_a_scaler_is_read_without_one(store: Store, reactor: FakeReactor) -> None:
    world = world_of(store, reactor, fleet(1))
    world.fleet.refusing_scalers = {1: 4}

    assert list(registers(world, 1).values()) == [[1]]
    [layout] = stored(store)
    assert (layout.columns[0].scaler, layout.columns[0].unit) == (None, "")


def test_r32_where_two_differ_others_are_asked(store: Store, reactor: FakeReactor) -> None:
    world = world_of(store, reactor, fleet(6))
    world.fleet.silent.add(1)
    world.fleet.scalers[2] = b"lie"
    world.native.values[b"lie"] = scaler_unit(3, 30)

    registers(world, 1, 2, 3, 4, 5, 6)

    assert [asked.meters for asked in world.asked("attributes")] == [[1, 2, 3], [4, 5, 6]]
    [layout] = stored(store)
    assert layout.columns[0].scaler == -3


def test_forgotten_meter_is_asked_again(store: Store, reactor: FakeReactor) -> None:
    world = world_of(store, reactor, fleet(2))
    profiles(world, 1, 2)
    world.asked("attributes")
    world.fleet.columns[2] = b"other"

    world.layouts.forget(2)
    found = profiles(world, 1, 2)

    assert [asked.meters for asked in world.asked("attributes")] == [[2]]
    assert sorted(found.values()) == [[1], [2]]


def test_chosen_columns_are_selected_with_clock_and_status(store: Store, reactor: FakeReactor) -> None:
    world = world_of(store, reactor, fleet(1))

    [shape] = profiles(world, 1, columns=(VALUE,))

    assert shape.selected == (
        (8, b"\x00\x00\x01\x00\x00\xff", 2, 0),
        (1, b"\x00\x00\x60\x0a\x01\xff", 2, 0),
        (3, ENERGY_OCTETS, 2, 0),
    )


@pytest.mark.parametrize(
    ("register", "expected"),
    [
        (VALUE, Attributes(7, ((3, ENERGY_OCTETS, 2),))),
        (
            Register(4, ENERGY_OCTETS, 2),
            Attributes(7, ((4, ENERGY_OCTETS, 2), (4, ENERGY_OCTETS, 5)), capture_time=1),
        ),
        (
            Register(5, ENERGY_OCTETS, 3),
            Attributes(7, ((5, ENERGY_OCTETS, 3), (5, ENERGY_OCTETS, 6)), capture_time=1),
        ),
    ],
)
def test_question_asks_for_the_capture_time_where_the_class_has_one(register: Register, expected: Attributes) -> None:
    assert register.question(7) == expected


def test_object_without_class_is_looked_up(store: Store, reactor: FakeReactor) -> None:
    world = world_of(store, reactor, fleet(1))

    assert world.layouts.register(ObjectName.parse(ENERGY)) == VALUE
    with pytest.raises(UnknownLogicalName, match=r"write its class too, such as 3/1\.2\.3\.4\.5\.6"):
        world.layouts.register(ObjectName.parse("1.2.3.4.5.6"))
