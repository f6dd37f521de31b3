"""Orders for devices that are known by a register map: what is written, what is refused, what is read back."""

from __future__ import annotations

import re
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from ipss_headend.errors import MeterTimeout, RequestError
from ipss_headend.field.control.orders import RegisterWrite
from ipss_headend.field.der.critical import Meaning
from ipss_headend.field.der.mapped import MappedDevice, is_mapped
from ipss_headend.field.der.setpoints import Function

CONNECT, LIMIT = Function.CONNECT, Function.ACTIVE_POWER_LIMIT
METER: Any = SimpleNamespace(name="pv-7", meter_id=7, model="some-inverter", server=3)


class Map:
    """A coil that switches, and a register that takes percent."""

    def control(self, act: str, percent: str | None) -> tuple[str, int, bytes] | None:
        if act == "limit" and percent is not None:
            if "." in percent:
                raise ValueError(f"limit: {percent} cannot be said in steps of 1")
            return "holding", 40, int(percent).to_bytes(2)
        found = {"connect": b"\xff\x00", "disconnect": b"\x00\x00"}
        return ("coils", 9, found[act]) if act in found else None


class Requests:
    """Answers what it has been told to."""

    def __init__(self, cell: bytes | None) -> None:
        self.cell = cell
        self.asked: list[Any] = []

    async def ask(self, questions: list[Any], *_: Any, **__: Any) -> Any:
        self.asked.append(questions[0].points)
        row = None if self.cell is None else (0, 0, 0, 0, 0, 0, [self.cell])
        return SimpleNamespace(line=lambda _: row)


def device(cell: bytes | None = None) -> MappedDevice:
    return MappedDevice(Requests(cell), METER, Map())  # type: ignore[arg-type]


def test_each_meaning_is_one_write_of_what_the_map_declares() -> None:
    one = device()

    assert one.write(Meaning(LIMIT, Decimal(40))) == RegisterWrite(3, 40, 16, b"\0\x28")
    assert one.write(Meaning(CONNECT, Decimal(0))) == RegisterWrite(3, 9, 5, b"\0\0")
    assert one.write(Meaning(CONNECT, Decimal(1))) == RegisterWrite(3, 9, 5, b"\xff\0")


@pytest.mark.parametrize(
    ("meaning", "why"),
    [
        (Meaning(LIMIT, Decimal(40), 600), "some-inverter has no timer to go back by"),
        (Meaning(CONNECT, Decimal(0), 600), "some-inverter has no timer to go back by"),
        (Meaning(LIMIT, None), "the register map some-inverter does not say how to release it"),
        (Meaning(LIMIT, Decimal("2.5")), "2.5 cannot be said in steps of 1"),
    ],
)
def test_what_the_device_cannot_do_is_refused_by_name(meaning: Meaning, why: str) -> None:
    with pytest.raises(RequestError, match=re.escape(why)):
        device().write(meaning)


@pytest.mark.parametrize(
    ("write", "cell", "now"),
    [
        (RegisterWrite(3, 40, 16, b"\0\x28"), b"\0\x64", b"\0\x64"),
        (RegisterWrite(3, 9, 5, b"\xff\0"), b"\x01", b"\xff\0"),
        (RegisterWrite(3, 9, 5, b"\xff\0"), b"\x00", b"\0\0"),
    ],
)
def test_what_stands_there_is_told_in_the_octets_of_the_write(write: RegisterWrite, cell: bytes, now: bytes) -> None:
    assert trio.run(device(cell).now, write) == now


@pytest.mark.parametrize("cell", [None, b"\0", b"\0\0\0\0"])
def test_registers_that_are_not_told_are_no_answer(cell: bytes | None) -> None:
    with pytest.raises(MeterTimeout, match="holding 40 was not told"):
        trio.run(device(cell).now, RegisterWrite(3, 40, 16, b"\0\x28"))


def test_sunspec_devices_are_not_known_by_a_map() -> None:
    assert [is_mapped(SimpleNamespace(model=model)) for model in ("", "sunspec", "sungrow-sg")] == [False, False, True]  # type: ignore[arg-type]
