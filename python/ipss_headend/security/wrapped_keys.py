"""All wrapped keys of a store, opened and wrapped anew: for another master key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, select, update

from ipss_headend.security import transport
from ipss_headend.security.keystore import BoundKeys, Keystore, MeterKeys
from ipss_headend.store.schema import meter_keys, pending_keys, transport_keys


@dataclass(frozen=True, slots=True)
class OpenedKeys:
    """The keys of one row. Shows itself as a count."""

    meter_id: int
    system_title: bytes | None
    keys: MeterKeys
    pending: bool = False
    """New keys on their way to the meter."""
    transport: str | None = None
    """The name of a transport key: no meter's."""


def opened(connection: Connection, keystore: Keystore, titles: Mapping[int, bytes | None]) -> list[OpenedKeys]:
    """Every row's keys; `titles` are the meters' system titles.

    Raises:
        KeyTampered: at least one does not open, or belongs to no meter.
    """
    found = []
    for table in (meter_keys, pending_keys):
        rows = connection.execute(select(table.c.meter_id, table.c.wrapped)).all()
        bound = [BoundKeys(meter_id, titles.get(meter_id), wrapped) for meter_id, wrapped in rows]
        found += [
            OpenedKeys(one.meter_id, one.system_title, keys, pending=table is pending_keys)
            for one, keys in zip(bound, keystore.unwrap(bound), strict=True)
        ]
    kept = connection.execute(select(transport_keys.c.name, transport_keys.c.wrapped)).all()
    bound = [BoundKeys(transport.NOBODY, transport.bound(name), wrapped) for name, wrapped in kept]
    found += [
        OpenedKeys(transport.NOBODY, one.system_title, keys, transport=name)
        for (name, _), one, keys in zip(kept, bound, keystore.unwrap(bound), strict=True)
    ]
    return found


def replace(connection: Connection, keystore: Keystore, found: Sequence[OpenedKeys]) -> None:
    """Write them again, under this keystore."""
    wrapped = keystore.wrap([(one.meter_id, one.system_title, one.keys) for one in found])
    for table in (meter_keys, pending_keys):
        rows = [
            {"number": one.meter_id, "octets": octets}
            for one, octets in zip(found, wrapped, strict=True)
            if one.transport is None and one.pending == (table is pending_keys)
        ]
        if rows:
            chosen = table.c.meter_id == bindparam("number")
            connection.execute(update(table).where(chosen).values(wrapped=bindparam("octets")), rows)
    for one, octets in zip(found, wrapped, strict=True):
        if one.transport is not None:
            chosen = transport_keys.c.name == one.transport
            connection.execute(update(transport_keys).where(chosen).values(wrapped=octets))
