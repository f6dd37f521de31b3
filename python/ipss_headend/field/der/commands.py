"""The command path's hands on inverters and storage: a look before, quiet meanwhile, a look after.

A command that was confirmed holds until the device goes back by itself, or another command takes it back; until then
set points leave that function of the device alone. What holds is read from the commands themselves at the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from ipss_headend.errors import HeadEndError
from ipss_headend.field.control import orders
from ipss_headend.field.control.machine import ON_WIRE, State
from ipss_headend.field.control.orders import Order
from ipss_headend.field.der.critical import Meaning
from ipss_headend.field.der.setpoints import SECOND_US
from ipss_headend.store import commands as rows
from ipss_headend.store.database import now_us

if TYPE_CHECKING:
    from ipss_headend.field.der.desk import SetPoints
    from ipss_headend.field.fleet import FleetMeter
    from ipss_headend.store import Store

FOR_EVER = 1 << 62


class DeviceCommands:
    """What `field/control/task.py` asks of devices."""

    def __init__(self, store: Store, set_points: SetPoints, meters: Mapping[int, FleetMeter]) -> None:
        self._store = store
        self._set_points = set_points
        self._meters = meters

    async def refuses(self, meter_id: int, order: Order) -> str | None:
        """Why this order is not to be sent to a device as it is now; None: it says what it meant.

        The device is asked what it has, anew: an address that was right when people approved it may be another
        point's after a change of its firmware.
        """
        meter = self._meters[meter_id]
        try:
            meaning = Meaning.of(order.expected)
            if meaning.kind != order.kind:
                return f"{order.expected} is no {order.kind}"
            written = await self._set_points.ordered(meter, meaning)
        except HeadEndError as error:
            return str(error)
        if written != order.effect:
            return "the device's registers are not those that were approved; ask for it again"
        return None

    async def begin(self, meter_id: int, order: Order) -> None:
        """It is about to be sent: set points leave the device alone."""
        await self._set_points.command(self._meters[meter_id], Meaning.of(order.expected).function, FOR_EVER)

    async def end(self, meter_id: int, order: Order, *, confirmed: bool) -> None:
        """What became of it is known."""
        meter, meaning = self._meters.get(meter_id), Meaning.of(order.expected)
        if meter is None:
            return
        if not confirmed:
            self._set_points.end_command(meter, meaning.function)
            await self.take_over(meter_id)  # an earlier one may hold still
        elif meaning.ends:
            self._set_points.end_command(meter, meaning.function)
        else:
            until_us = now_us() + meaning.revert_s * SECOND_US if meaning.revert_s else FOR_EVER
            await self._set_points.command(meter, meaning.function, until_us)

    async def look(self, meter_id: int, order: Order) -> bool | None:
        """Whether a device is as an order wants it; None: it was not told."""
        meter, meaning = self._meters.get(meter_id), Meaning.of(order.expected)
        if meter is None:
            return None
        try:
            return await self._set_points.obeys(meter, meaning)
        except HeadEndError:
            return None

    async def take_over(self, only: int | None = None) -> None:
        """What commands hold devices, or only this one, to: as the store knows it."""
        for one, order in await self._store.read(holding):
            meter, meaning = self._meters.get(one.meter_id), Meaning.of(order.expected)
            if meter is None or only not in {None, one.meter_id}:
                continue
            until_us = FOR_EVER
            if one.state == State.CONFIRMED and meaning.revert_s:
                until_us = one.changed_us + meaning.revert_s * SECOND_US
            if one.state == State.CONFIRMED and meaning.ends:
                self._set_points.end_command(meter, meaning.function)
            else:
                await self._set_points.command(meter, meaning.function, until_us)


def holding(connection: Connection) -> list[tuple[rows.CommandRow, Order]]:
    """The commands to devices that were or may have been done, in the order of time."""
    states = (*ON_WIRE, State.CONFIRMED)
    return [
        (one, Order.decode(octets)) for one, octets in rows.commands_of_kinds(connection, sorted(orders.DER), states)
    ]
