"""A reactor, a native module and a fleet that a test can hold in its hand."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ipss_headend.field.fleet import FleetMeter
from ipss_headend.field.fleet_file import Protocol
from ipss_headend.security.keystore import MeterKeys
from ipss_headend.store import reading_row


@dataclass
class FakeBatch:
    """`_core.Batch`; `readings` are (meter, layout, capture_time_us, cells)."""

    readings: list[tuple[int, int, int, list[Any]]] = field(default_factory=list)
    said: list[tuple[Any, ...]] = field(default_factory=list)
    noticed: list[tuple[int, int, int, int, str]] = field(default_factory=list)
    refused: list[tuple[int, int, int, int]] = field(default_factory=list)
    ended: list[tuple[int, int, int, int, int, str]] = field(default_factory=list)
    counters: list[tuple[int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return self.lines + len(self.noticed) + len(self.refused) + len(self.ended)

    @property
    def lines(self) -> int:
        return len(self.readings) + len(self.said)

    @property
    def values(self) -> int:
        return sum(len(line[3]) for line in self.readings)

    def rows(self, received_us: int) -> list[Any]:
        return [
            reading_row(meter, layout, time_us, cells, received_us=received_us)
            for meter, layout, time_us, cells in self.readings
        ]

    def answers(self) -> list[Any]:
        return self.said

    def events(self) -> list[Any]:
        return self.noticed

    def refusals(self) -> list[Any]:
        return self.refused

    def ends(self) -> list[Any]:
        return self.ended

    def peer_counters(self) -> list[Any]:
        return self.counters


@dataclass(frozen=True)
class Asked:
    """One submission as the reactor got it."""

    first: int
    plan: Any
    meters: list[int]
    options: dict[str, Any]


class FakeReactor:
    """Keeps what it is asked; `answering`, where given, makes a batch of each submission at once."""

    def __init__(self, answering: Callable[[Asked], FakeBatch | None] | None = None) -> None:
        self.answering = answering
        self.asked: list[Asked] = []
        self.cancelled: list[tuple[int, int]] = []
        self.granted: list[tuple[int, int, int]] = []
        self.confirmed: list[tuple[int, int]] = []
        self.heard: list[tuple[int, int, bytes]] = []
        self.full = 0
        self._next = 1
        self._batches: list[FakeBatch] = []
        self._stopped = False
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK)

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)

    def put(self, batch: FakeBatch) -> None:
        self._batches.append(batch)
        os.write(self._writer, b"1")

    def end(self, outcome: int, *requests: tuple[int, int]) -> None:
        """End requests, (request, meter) each."""
        self.put(FakeBatch(ended=[(request, meter, outcome, 1, 1000, "") for request, meter in requests]))

    def stop(self) -> None:
        self._stopped = True
        os.write(self._writer, b"1")

    def fileno(self) -> int:
        return self._reader

    def take(self) -> Any:
        if not self._batches:
            with suppress(BlockingIOError):
                if not self._stopped:
                    os.read(self._reader, 4096)
            return None
        return self._batches.pop(0)

    def finished(self) -> bool:
        return self._stopped and not self._batches

    def submit(self, plan: Any, meters: Any, **options: Any) -> int:
        if self.full:
            self.full -= 1
            raise RuntimeError("too much is on its way")
        numbers = list(memoryview(meters).cast("I"))
        asked = Asked(self._next, plan, numbers, options)
        self._next += len(numbers)
        self.asked.append(asked)
        batch = self.answering(asked) if self.answering is not None else None
        if batch is not None:
            self.put(batch)
        return asked.first

    def cancel(self, requests: Sequence[tuple[int, int]]) -> None:
        self.cancelled += requests

    def grant(self, grants: Sequence[tuple[int, int, int]]) -> None:
        self.granted += grants

    def confirm(self, pushes: Sequence[tuple[int, int]]) -> None:
        self.confirmed += pushes

    def hear(self, pushes: Sequence[tuple[int, int, bytes]]) -> None:
        self.heard += pushes


class FakeItem:
    """Items as tuples that a test can read."""

    @staticmethod
    def attributes(layout: int, attributes: Any, *, capture_time: int | None = None) -> Any:
        return ("attributes", layout, tuple(attributes), capture_time)

    @staticmethod
    def buffer(layout: int, logical_name: bytes, columns: int, **options: Any) -> Any:
        return ("buffer", layout, logical_name, columns, options)


class FakeNative:
    """The module. Octets stand for values by `values`."""

    Item: Any = FakeItem
    Plan: Any = staticmethod(list)

    def __init__(self) -> None:
        self.values: dict[bytes, Any] = {}
        self.pushes: dict[tuple[bytes, str], Any] = {}
        """What each notification says, by its octets and the profile."""

    def decode_data(self, octets: bytes) -> list[Any]:
        if octets not in self.values:
            raise ValueError("no A-XDR")
        return self.values[octets]  # type: ignore[no-any-return]

    def add_profile(self, name: str, text: str) -> None:
        parent = text.removeprefix("inherits ").strip()
        if parent and parent not in self.profile_names():
            raise ValueError(f'no profile is called "{parent}"')
        self.pushes[b"", name] = ()

    def profile_names(self) -> list[str]:
        return sorted({"generic", *(profile for _, profile in self.pushes)})

    def read_push(self, apdu: bytes, profile: str) -> Any:
        if (apdu, profile) not in self.pushes:
            raise ValueError("no notification")
        return self.pushes[apdu, profile]

    def unopened_pushes(self, octets: bytes) -> list[tuple[bytes, int, int, bytes]]:
        return [(octets[:8], 1, 16, octets)] if len(octets) > 8 else []

    def unit_symbol(self, unit: int) -> str:
        return {30: "Wh", 32: "varh"}.get(unit, "")

    def catalogue(self, logical_name: bytes) -> dict[str, Any] | None:
        known = {b"\x01\x00\x01\x08\x00\xff": 3, b"\x00\x00\x01\x00\x00\xff": 8}
        class_id = known.get(logical_name)
        return None if class_id is None else {"class_id": class_id, "name": f"object of class {class_id}"}


def scaler_unit(scaler: int, unit: int) -> list[Any]:
    return ["structure", [["integer", scaler], ["enum", unit]]]


def capture_objects(*columns: tuple[int, str, int, int]) -> list[Any]:
    return [
        "array",
        [
            [
                "structure",
                [
                    ["long-unsigned", class_id],
                    ["octet-string", bytes(map(int, name.split("."))).hex()],
                    ["integer", attribute],
                    ["long-unsigned", data_index],
                ],
            ]
            for class_id, name, attribute, data_index in columns
        ],
    ]


def fleet(count: int, *, model: str = "M1", group: str = "") -> dict[int, FleetMeter]:
    return {number: meter(number, model=model, group=group) for number in range(1, count + 1)}


def meter(number: int, *, model: str = "M1", group: str = "") -> FleetMeter:
    return FleetMeter(
        number, f"meter-{number}", "127.0.0.1", 4059, 1, None, None, model, group, Protocol(), MeterKeys()
    )  # fmt: skip


def by_number(meters: Iterable[FleetMeter]) -> dict[int, FleetMeter]:
    return {one.meter_id: one for one in meters}
