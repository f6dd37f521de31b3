"""What a meter's output is after a command: read, and compared with what was wanted (R20)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from ipss_headend.errors import HeadEndError
from ipss_headend.field.control.orders import CALENDAR, DISCONNECTOR, Order, RegisterWrite
from ipss_headend.field.fleet import FleetMeter
from ipss_headend.field.questions import Attributes
from ipss_headend.field.rekeying import Has, Rekeying
from ipss_headend.field.requests import Requests

if TYPE_CHECKING:
    from ipss_headend.field.control.firmware import Firmware

LOOK_S = 15.0
"""How long one look may take."""

CONNECTED, READY = 1, 2
"""control_state (Blue Book, "Disconnect control")."""

READY_MODES = frozenset({1, 3, 5, 6})
"""control_mode in which a remote reconnection makes ready, and the customer closes the switch; 2 and 4 connect."""


class Seen(Enum):
    """What a look at a meter told."""

    AS_WANTED = "as wanted"
    OTHERWISE = "otherwise"
    NOTHING = "nothing"
    """It could not be read."""


class Decoder(Protocol):
    """The part of the native module that is used here."""

    def decode_data(self, octets: bytes, /) -> list[Any]:
        """One A-XDR value as [type, value]."""


class Devices(Protocol):
    """The part of `field/der/commands.py` that is used here."""

    async def refuses(self, meter_id: int, order: Order) -> str | None:
        """Why an order is not to be sent to a device as it is now."""

    async def begin(self, meter_id: int, order: Order) -> None:
        """It is about to be sent."""

    async def end(self, meter_id: int, order: Order, *, confirmed: bool) -> None:
        """What became of it is known."""

    async def look(self, meter_id: int, order: Order) -> bool | None:
        """Whether a device is as an order wants it; None: it was not told."""


class ReadBack:
    """Looks at meters, and at devices."""

    def __init__(
        self,
        requests: Requests,
        native: Decoder,
        meters: Mapping[int, FleetMeter],
        rekeying: Rekeying | None = None,
        devices: Devices | None = None,
    ) -> None:
        self._rekeying = rekeying
        self.devices = devices
        self.firmware: Firmware | None = None
        self._requests = requests
        self._native = native
        self._meters = meters

    async def look(self, meter: int, order: Order) -> Seen:
        """Whether a meter is as an order wants it."""
        if order.expected == "done":
            return Seen.AS_WANTED  # nothing can be read back: the meter's own word is all there is
        if order.expected == "rekeyed":
            # Which keys a meter has is tried in one place alone, and told by the store.
            found = Has.EITHER if self._rekeying is None else await self._rekeying.has(meter)
            return {Has.NEW: Seen.AS_WANTED, Has.OLD: Seen.OTHERWISE, Has.EITHER: Seen.NOTHING}[found]
        if order.kind == "firmware" and order.expected != "done":
            return Seen.NOTHING if self.firmware is None else await self.firmware.look(meter, order)
        effect = order.effect
        if isinstance(effect, RegisterWrite):
            held = None if self.devices is None else await self.devices.look(meter, order)
            return Seen.NOTHING if held is None else Seen.AS_WANTED if held else Seen.OTHERWISE
        try:
            if order.expected == "written":
                [cell] = await self._cells(meter, ((effect.class_id, effect.logical_name, effect.number),))
                return Seen.AS_WANTED if cell == effect.value else Seen.OTHERWISE
            if order.expected == "activated":
                return await self._calendar(meter)
            output, control, _ = await self._disconnector(meter)
        except HeadEndError:
            return Seen.NOTHING
        if output is None or control is None:
            return Seen.NOTHING
        on = control in (CONNECTED, READY) and output == (control == CONNECTED)
        wanted = {
            "disconnected": not output and control not in (CONNECTED, READY),
            "on": on,
            # The customer may have closed the switch already.
            "ready": on,
        }
        if order.expected not in wanted:
            return Seen.NOTHING
        return Seen.AS_WANTED if wanted[order.expected] else Seen.OTHERWISE

    async def refuses_ready(self, meter: int) -> str | None:
        """Why a meter cannot be made ready for the customer to reconnect; None if it can."""
        try:
            _, _, mode = await self._disconnector(meter)
        except HeadEndError as error:
            return f"its control mode could not be read: {error}"
        if mode in READY_MODES:
            return None
        return f"control mode {mode} does not make ready for reconnection"

    async def state(self, meter: int) -> tuple[bool | None, int | None, int | None]:
        """Output state, control state and control mode of a meter's disconnect control, read now; None: not told.

        Raises:
            HeadEndError: it could not be read.
        """
        return await self._disconnector(meter)

    async def _calendar(self, meter: int) -> Seen:
        """Whether the active calendar (names, seasons, weeks, days) is the passive one."""
        cells = await self._cells(meter, tuple((20, CALENDAR, attribute) for attribute in range(2, 10)))
        if None in cells:
            return Seen.NOTHING
        return Seen.AS_WANTED if cells[:4] == cells[4:] else Seen.OTHERWISE

    async def _disconnector(self, meter: int) -> tuple[bool | None, int | None, int | None]:
        """Output state, control state and control mode."""
        cells = await self._cells(meter, tuple((70, DISCONNECTOR, attribute) for attribute in (2, 3, 4)))
        output, control, mode = (None if cell is None else self._value(cell) for cell in cells)
        return (
            output if isinstance(output, bool) else None,
            control if isinstance(control, int) and not isinstance(control, bool) else None,
            mode if isinstance(mode, int) and not isinstance(mode, bool) else None,
        )

    def _value(self, cell: bytes) -> Any:
        # A meter may say anything: what is no value of its attribute tells nothing.
        with suppress(ValueError):
            return self._native.decode_data(cell)[1]
        return None

    async def _cells(self, meter: int, attributes: tuple[tuple[int, bytes, int], ...]) -> list[bytes | None]:
        name = self._meters[meter].name if meter in self._meters else ""
        question = Attributes(0, attributes)
        answer = await self._requests.ask(
            (question,), meter, timeout_s=LOOK_S, priority="critical", attempts=2, name=name
        )
        line = answer.line(0)
        if line is None:
            return [None] * len(attributes)
        return [cell if isinstance(cell, bytes) else None for cell in line[6]]
