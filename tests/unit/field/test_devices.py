"""What Modbus devices say, and what is stored of it."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from tests.unit.field.fakes import meter

from ipss_headend.config import ModbusConfig
from ipss_headend.field.der.critical import Meaning
from ipss_headend.field.der.desk import SetPoints
from ipss_headend.field.der.keeper import Keeper, Outcome
from ipss_headend.field.der.line import SunSpecLine
from ipss_headend.field.der.setpoints import SECOND_US, Function, SetPoint
from ipss_headend.field.devices import Devices
from ipss_headend.field.questions import Registers, WriteRegisters
from ipss_headend.field.reactor import Outcome as End
from ipss_headend.field.requests import Answer
from ipss_headend.metrics import Figures
from ipss_headend.store import Store
from ipss_headend.store.latest import Latest
from ipss_headend.store.readings import scaled, series
from ipss_headend.store.registry import all_layouts

POINTS = {
    (103, "W"): 10,
    (103, "W_SF"): 11,
    (103, "Hz"): 12,
    (103, "Hz_SF"): 13,
    (123, "WMaxLimPct_RvrtTms"): 20,
    (123, "WMaxLimPct"): 21,
    (123, "WMaxLim_Ena"): 22,
}
FACTORS = {10: 11, 12: 13}


@dataclass
class FakeDevice:
    """A device's image, as the native one: registers by address, values with the scale factors that it has."""

    image: dict[int, int] = field(default_factory=dict)

    def place(self, model: int, point: str) -> tuple[int, int]:
        if (model, point) not in POINTS:
            raise ValueError("no such point")
        return POINTS[model, point], 1

    def update(self, address: int, octets: bytes) -> bool:
        self.image[address] = int.from_bytes(octets, signed=True)
        return True

    def value(self, model: int, point: str) -> str | None:
        address = POINTS[model, point]
        if self.image.get(address, -32768) == -32768:  # not implemented
            return None
        factor = self.image.get(FACTORS.get(address, 0), 0)
        return f"{Decimal(self.image[address]).scaleb(factor if -10 <= factor <= 10 else 0):f}"

    def write(self, model: int, point: str, value: str) -> tuple[int, bytes]:
        return POINTS[model, point], int(Decimal(value)).to_bytes(2)


@dataclass
class FakeRequests:
    """Answers from registers at once; null where the device refuses."""

    registers: dict[int, int]
    refused: set[int] = field(default_factory=set)
    keeps: bool = True
    """What is written is kept."""

    def cells(self, question: Registers) -> list[int | bytes | None]:
        return [
            None if first in self.refused else self.registers[first].to_bytes(2, signed=True)
            for _, first, _ in question.points
        ]

    async def ask(self, questions: Sequence[Registers | WriteRegisters], meter_id: int, **_: object) -> Answer:
        [question] = questions
        if isinstance(question, WriteRegisters):
            if self.keeps:
                self.registers[question.address] = int.from_bytes(question.octets)
            return Answer(End.DONE, (), {}, 1, 1)
        line = (meter_id, 1, 0, None, -32768, 255, self.cells(question))
        return Answer(End.DONE, (line,), {}, 1, 1)

    async def offer(self, questions: Sequence[Registers], meters: array[int], **options: Any) -> list[object]:
        for number in meters:
            options["on_answer"]((number, 1, 0, None, -32768, 255, self.cells(questions[0])))
        return []

    async def finish(self, submissions: Iterable[object]) -> None:
        """All are over."""


def line(requests: FakeRequests) -> SunSpecLine:
    models = frozenset(model for model, _ in POINTS)
    image = dict(requests.registers)
    return SunSpecLine(requests, 1, "inverter", FakeDevice(image), models)  # type: ignore[arg-type]


def devices(store: Store, requests: FakeRequests, latest: Latest | None = None) -> Devices:
    one = line(requests)

    async def found(_: object) -> SunSpecLine:
        return one

    known = meter(1, model="")
    device = SimpleNamespace(meter_id=1, name=known.name, model="", protocol=SimpleNamespace(is_modbus=True))
    return Devices(
        store=store,
        requests=requests,  # type: ignore[arg-type]
        native=None,
        set_points=SimpleNamespace(line=found),  # type: ignore[arg-type]
        meters={1: device},  # type: ignore[dict-item]
        figures=Figures(),
        rules=ModbusConfig(),
        files=[],
        latest=latest,
    )


def powers(store: Store) -> list[Decimal | None]:
    """The stored values of the power, in order of time."""
    with store.database.reading() as connection:
        layouts = all_layouts(connection)
        places = {
            number: place
            for number, layout in layouts.items()
            for place, column in enumerate(layout.columns)
            if column.unit == "W"
        }
        lines = sorted(series(connection, [1], list(places)), key=lambda one: one.capture_time_us)
        found = []
        for one in lines:
            cell = one.cells[places[one.layout_id]]
            scaler = layouts[one.layout_id].columns[places[one.layout_id]].scaler
            found.append(scaled(cell, scaler) if isinstance(cell, int) else None)
        return found


def read(store: Store, requests: FakeRequests, said: Sequence[Mapping[int, int]]) -> list[Decimal | None]:
    async def main() -> None:
        reader = devices(store, requests)
        await reader._find()
        for registers in said:
            requests.registers |= registers
            await reader.read("fast")
            await trio.sleep(0.001)  # lines of one microsecond are of one moment

    trio.run(main)
    return powers(store)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([{10: 500, 11: 0}, {10: 50, 11: 1}], ["500", "500"]),
        ([{10: 500, 11: 0}, {10: 5004, 11: -1}, {10: 501, 11: 0}], ["500", "500.4", "501"]),
        ([{10: 5, 11: 2}, {10: 51, 11: 1}, {10: 5125, 11: -1}], ["500", "510", "512.5"]),
        ([{10: 5, 11: 2}, {10: 0, 11: -32768}, {10: 7, 11: 11}, {10: 51, 11: 1}], ["500", None, None, "510"]),
        ([{10: 5, 11: -32768}, {10: 4995, 11: -1}], [None, "499.5"]),
    ],
)
def test_a_scale_factor_that_changes_changes_no_value(
    store: Store, said: list[dict[int, int]], expected: list[str | None]
) -> None:
    requests = FakeRequests({10: 500, 11: 0, 12: 500, 13: -1, 20: 0, 21: 0, 22: 0} | said[0])

    assert read(store, requests, said) == [None if value is None else Decimal(value) for value in expected]


def test_the_newest_line_that_was_asked_for_once_follows_what_a_device_says(store: Store) -> None:
    requests = FakeRequests({10: 500, 11: 0, 12: 500, 13: -1, 20: 0, 21: 0, 22: 0})
    latest = Latest()

    async def main() -> list[list[int | bytes | None]]:
        reader = devices(store, requests, latest)
        await reader._find()
        await reader.read("fast")
        [(meter_id, layout_id)] = await store.read(
            lambda connection: connection.exec_driver_sql("SELECT meter_id, layout_id FROM readings").all()
        )
        await latest.fill(store, [(meter_id, layout_id)])
        found = []
        for power in (500, 600):
            requests.registers[10] = power
            await reader.read("fast")
            kept = latest.kept[meter_id, layout_id]
            found.append([] if kept is None else kept.cells[:1])
        return found

    assert trio.run(main) == [[500], [600]]


def test_what_a_device_refuses_now_is_not_stored_as_it_was_before(store: Store) -> None:
    requests = FakeRequests({10: 500, 11: 0, 12: 500, 13: -1, 20: 0, 21: 0, 22: 0}, refused={10})

    assert read(store, requests, [{}]) == [None]


def test_a_read_back_that_is_refused_proves_nothing() -> None:
    requests = FakeRequests({10: 500, 11: 0, 12: 500, 13: -1, 20: 0, 21: 100, 22: 0})
    requests.keeps = True

    async def allow(_: object) -> Outcome:
        return Outcome.DONE

    wish = SetPoint(
        function=Function.ACTIVE_POWER_LIMIT,
        value=Decimal(40),
        source="grid",
        priority=5,
        asked_us=0,
        until_us=3_600 * SECOND_US,
        revert_s=300,
    )

    async def main() -> list[Outcome]:
        keeper = Keeper(line(requests), (123,), allow)
        first = await keeper.settle([wish], 0)
        requests.keeps = False
        requests.refused = {20, 21, 22}
        renewal = await keeper.settle([wish], 150 * SECOND_US)
        return [first[wish.function], renewal[wish.function]]

    assert trio.run(main) == [Outcome.DONE, Outcome.NOT_HELD]


@pytest.mark.parametrize(("refused", "told"), [((), True), ((22,), None), ((21,), None)])
def test_whether_a_device_obeys_is_not_known_while_it_refuses_to_say(refused: tuple[int, ...], told: bool) -> None:
    requests = FakeRequests({10: 500, 11: 0, 12: 500, 13: -1, 20: 0, 21: 40, 22: 1}, set(refused))
    wishes = SetPoints(
        store=None,  # type: ignore[arg-type]
        requests=requests,  # type: ignore[arg-type]
        native=FakeDevice,  # type: ignore[arg-type]
        open_registers=lambda *_: None,
        meters={},
        load_map=lambda _: None,  # type: ignore[arg-type,return-value]
    )
    wishes._lines[1] = line(requests)

    async def main() -> bool | None:
        return await wishes.obeys(meter(1, model=""), Meaning(Function.ACTIVE_POWER_LIMIT, Decimal(40), 0))

    assert trio.run(main) is told
