"""Who is read (meters) and what a line means (layouts). Both get the small numbers that bulk rows carry."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256

import msgpack
from sqlalchemy import Connection, delete, insert, select

from ipss_headend.errors import RequestError, UnknownMeter
from ipss_headend.network import NOWHERE
from ipss_headend.store import network
from ipss_headend.store.database import now_us
from ipss_headend.store.schema import (
    key_counters,
    key_generations,
    layout_columns,
    layouts,
    meter_keys,
    meters,
    pending_keys,
)
from ipss_headend.store.statements import given_numbers, last_number, run


@dataclass(frozen=True, slots=True)
class LayoutColumn:
    """What stands in one place of a line."""

    class_id: int
    logical_name: str
    attribute: int
    data_index: int = 0
    scaler: int | None = None
    """Power of ten for the integer; None where it has none (text, time, status)."""
    unit: str = ""
    name: str = ""
    """For people; no part of what makes two layouts the same."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The object attribute that lines are read from, and their columns."""

    class_id: int
    logical_name: str
    attribute: int
    columns: tuple[LayoutColumn, ...]

    def digest(self) -> bytes:
        """What makes two layouts the same: their content without the names."""
        content = [self.class_id, self.logical_name, self.attribute]
        columns = [
            [part.class_id, part.logical_name, part.attribute, part.data_index, part.scaler, part.unit]
            for part in self.columns
        ]
        return blake2b(msgpack.packb([content, columns]), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Meter:
    """One row of the registry, without any secret."""

    meter_id: int
    name: str
    host: str | None
    """None: the meter dials in."""
    port: int | None
    server: int
    system_title: bytes | None
    logical_device_name: bytes | None
    """What the meter calls itself when it dials in; None: as it is named here."""
    model: str
    group: str
    protocol: Mapping[str, int | str | bool]

    @property
    def identity(self) -> bytes:
        """Which device it is, in the orders of critical commands: see `device_identity`."""
        transport = str(self.protocol.get("transport", ""))
        return device_identity(self.system_title, transport, self.host, self.port, self.server)


def device_identity(title: bytes | None, transport: str, host: str | None, port: int | None, unit: int) -> bytes:
    """Eight octets that stand for a device: its system title; for a Modbus unit, which has none, a digest of its place.

    Empty for a meter without a title.
    """
    if title is not None or not transport.startswith("modbus"):
        return title or b""
    place = f"{transport}\0{host}\0{port}\0{unit}"
    return sha256(b"ipss-headend unit, form 1\0" + place.encode()).digest()[:8]


def intern_layouts(connection: Connection, wanted: Sequence[Layout]) -> list[int]:
    """The numbers of these layouts, in order; new ones get new numbers. Needs a writing transaction."""
    known: dict[bytes, int] = {digest: number for number, digest in connection.execute(_LAYOUT_DIGESTS)}
    numbers = []
    for layout in wanted:
        digest = layout.digest()
        if digest not in known:
            known[digest] = _add_layout(connection, layout, digest)
        numbers.append(known[digest])
    return numbers


def all_layouts(connection: Connection) -> dict[int, Layout]:
    """Every layout by its number."""
    columns: dict[int, list[LayoutColumn]] = {}
    for layout_id, _, *values in connection.execute(
        select(layout_columns).order_by(layout_columns.c.layout_id, layout_columns.c.place)
    ):
        columns.setdefault(layout_id, []).append(LayoutColumn(*values))
    return {
        row.layout_id: Layout(row.class_id, row.logical_name, row.attribute, tuple(columns.get(row.layout_id, ())))
        for row in connection.execute(select(layouts))
    }


def layouts_with(connection: Connection, logical_name: str) -> dict[int, Layout]:
    """The layouts that are read from this object or have a column of it."""
    return {
        number: layout
        for number, layout in all_layouts(connection).items()
        if layout.logical_name == logical_name or any(column.logical_name == logical_name for column in layout.columns)
    }


def add_meters(connection: Connection, added: Sequence[Meter]) -> None:
    """Put meters into the registry under the numbers that they carry (from `next_meter_id`)."""
    moment_us = now_us()
    places = {tuple(row) for row in connection.execute(select(meters.c.host, meters.c.port, meters.c.server))}
    rows = [
        (
            meter.meter_id,
            meter.name,
            meter.host,
            meter.port,
            _place(meter, places),
            meter.system_title,
            meter.logical_device_name,
            meter.model,
            meter.group,
            json.dumps(dict(meter.protocol), separators=(",", ":")),
            moment_us,
        )
        for meter in added
    ]
    if rows:
        run(connection, _ADD_METERS, rows)
        given_numbers(connection, "meters", max(meter.meter_id for meter in added))


def next_meter_id(connection: Connection) -> int:
    """The lowest number that no meter ever had: a number is not given twice, or old readings would change hands."""
    return last_number(connection, "meters") + 1


def all_meters(connection: Connection, groups: Iterable[str] = ()) -> list[Meter]:
    """The registry in the order of its numbers; only these groups, if any is named."""
    selected = select(meters).order_by(meters.c.meter_id)
    chosen = list(groups)
    if chosen:
        selected = selected.where(meters.c.group_name.in_(chosen))
    return [_meter(*row) for row in connection.execute(selected)]


def meter_named(connection: Connection, name: str) -> Meter:
    """One meter.

    Raises:
        UnknownMeter: with the names that are nearly this one.
    """
    row = connection.execute(select(meters).where(meters.c.name == name)).one_or_none()
    if row is None:
        near = difflib.get_close_matches(name, connection.scalars(select(meters.c.name).limit(10_000)).all(), n=100)
        near = sorted(near, key=lambda one: (-difflib.SequenceMatcher(None, one, name).ratio(), one))[:3]
        hint = f"did you mean {' or '.join(near)}?" if near else "`ipss-headend meters list` shows all"
        raise UnknownMeter(f'no meter is called "{name}"; {hint}')
    return _meter(*row)


def remove_meter(connection: Connection, meter_id: int) -> None:
    """Take a meter and its keys out of the registry. Its readings and its invocation counters stay.

    So do the fingerprints of its keys: a key that comes back goes on where its counters were (R7, R9).

    Raises:
        RequestError: it may have keys that only a row of its key change knows.
    """
    doubt = select(pending_keys.c.state).where(pending_keys.c.meter_id == meter_id)
    if connection.scalar(doubt) in {"sent", "master-sent"}:
        raise RequestError(f"meter {meter_id}: its keys are being changed; taken out now, they would be lost")
    for table in (key_generations, key_counters, pending_keys, meter_keys, meters):
        connection.execute(delete(table).where(table.c.meter_id == meter_id))
    network.place(connection, {meter_id: NOWHERE})


def _meter(
    meter_id: int,
    name: str,
    host: str | None,
    port: int | None,
    server: int,
    system_title: bytes | None,
    logical_device_name: bytes | None,
    model: str,
    group: str,
    protocol: str,
    _added_us: int,
) -> Meter:
    return Meter(
        meter_id,
        name,
        host,
        port,
        server % _SAME_SERVER,
        system_title,
        logical_device_name,
        model,
        group,
        json.loads(protocol),
    )


def _place(meter: Meter, places: set[tuple[object, ...]]) -> int:
    """The column `server`: the service access point, and a multiple of 65,536 for each that has the same one there.

    Such meters differ in their physical address, or in the device behind a gateway.
    """
    server = meter.server
    while meter.host is not None and (meter.host, meter.port, server) in places:
        server += _SAME_SERVER
    places.add((meter.host, meter.port, server))
    return server


def _add_layout(connection: Connection, layout: Layout, digest: bytes) -> int:
    number: int = connection.execute(
        insert(layouts)
        .values(digest=digest, class_id=layout.class_id, logical_name=layout.logical_name, attribute=layout.attribute)
        .returning(layouts.c.layout_id)
    ).scalar_one()
    if layout.columns:
        connection.execute(
            insert(layout_columns),
            [
                {
                    "layout_id": number,
                    "place": place,
                    "class_id": column.class_id,
                    "logical_name": column.logical_name,
                    "attribute": column.attribute,
                    "data_index": column.data_index,
                    "scaler": column.scaler,
                    "unit": column.unit,
                    "name": column.name,
                }
                for place, column in enumerate(layout.columns)
            ],
        )
    return number


_SAME_SERVER = 1 << 16
_LAYOUT_DIGESTS = select(layouts.c.layout_id, layouts.c.digest)
_ADD_METERS = (
    f"INSERT INTO meters ({', '.join(column.name for column in meters.columns)}) "  # noqa: S608 - constants
    f"VALUES ({', '.join('?' * len(meters.columns))})"
)
