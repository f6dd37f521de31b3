"""Orders for devices with a register map that is not SunSpec: the one write that the map declares (`[control]`).

Such devices say nothing of themselves and have no timer to go back by, so what is ordered holds until somebody takes it
back, and there are no set points for them: a limit that nobody renews would stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ipss_headend.errors import MeterTimeout, RequestError
from ipss_headend.field.control.orders import RegisterWrite
from ipss_headend.field.der.line import ANSWER_S
from ipss_headend.field.der.setpoints import Function
from ipss_headend.field.devices import SUNSPEC
from ipss_headend.field.questions import Registers

if TYPE_CHECKING:
    from ipss_headend import _core
    from ipss_headend.field.der.critical import Meaning
    from ipss_headend.field.fleet import FleetMeter
    from ipss_headend.field.requests import Requests

WRITE_COIL, WRITE_REGISTERS = 5, 16

Act = Literal["connect", "disconnect", "limit", "release"]


def is_mapped(meter: FleetMeter) -> bool:
    """Whether a Modbus device is known by a register map, not by its SunSpec models."""
    return meter.model not in {"", SUNSPEC}


@dataclass(frozen=True, slots=True)
class MappedDevice:
    """One device by its register map."""

    requests: Requests
    meter: FleetMeter
    map: _core.RegisterMap

    def write(self, meaning: Meaning) -> RegisterWrite:
        """The one write that means this to the device.

        Raises:
            RequestError: its map does not know how, or the device cannot do exactly this.
        """
        name, act = self.meter.name, act_of(meaning)
        if meaning.revert_s and not meaning.ends:
            raise RequestError(f"{name}: {self.meter.model} has no timer to go back by; ask for none (--revert never)")
        percent = None if act != "limit" or meaning.value is None else f"{meaning.value:f}"
        try:
            found = self.map.control(act, percent)
        except ValueError as error:
            raise RequestError(f"{name}: {error}") from None
        if found is None:
            raise RequestError(f"{name}: the register map {self.meter.model} does not say how to {act} it ([control])")
        table, address, octets = found
        return RegisterWrite(self.meter.server, address, WRITE_COIL if table == "coils" else WRITE_REGISTERS, octets)

    async def now(self, write: RegisterWrite) -> bytes:
        """What stands where it would be written.

        Raises:
            MeterError: the device did not answer, or does not have it.
        """
        coil = write.function == WRITE_COIL
        place = ("coils", write.address, 1) if coil else ("holding", write.address, len(write.values) // 2)
        question = Registers((place,))
        answer = await self.requests.ask([question], self.meter.meter_id, timeout_s=ANSWER_S, name=self.meter.name)
        row = answer.line(0)
        cell = row[6][0] if row is not None and row[6] else None
        if not isinstance(cell, bytes) or len(cell) != (1 if coil else len(write.values)):
            raise MeterTimeout(f"{self.meter.name}: what stands at {place[0]} {write.address} was not told")
        return (b"\xff\x00" if cell[0] else b"\x00\x00") if coil else cell


def act_of(meaning: Meaning) -> Act:
    """What a map calls it."""
    if meaning.function is Function.CONNECT:
        return "connect" if meaning.value == 1 else "disconnect"
    return "release" if meaning.value is None else "limit"
