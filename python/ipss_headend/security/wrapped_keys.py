"""All wrapped keys of a store, opened and wrapped anew: for another master key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from ipss_headend.security.keystore import BoundKeys, Keystore, MeterKeys
from ipss_headend.store.schema import meter_keys


@dataclass(frozen=True, slots=True)
class OpenedKeys:
    """The keys of one row. Shows itself as a count."""

    meter_id: int
    system_title: bytes | None
    keys: MeterKeys


def opened(connection: Connection, keystore: Keystore, titles: Mapping[int, bytes | None]) -> list[OpenedKeys]:
    """Every row's keys; `titles` are the meters' system titles.

    Raises:
        KeyTampered: at least one does not open, or belongs to no meter.
    """
    rows = connection.execute(select(meter_keys.c.meter_id, meter_keys.c.wrapped)).all()
    bound = [BoundKeys(meter_id, titles.get(meter_id), wrapped) for meter_id, wrapped in rows]
    return [
        OpenedKeys(one.meter_id, one.system_title, keys)
        for one, keys in zip(bound, keystore.unwrap(bound), strict=True)
    ]


def replace(connection: Connection, keystore: Keystore, found: Sequence[OpenedKeys]) -> None:
    """Write them again, under this keystore."""
    wrapped = keystore.wrap([(one.meter_id, one.system_title, one.keys) for one in found])
    if found:
        connection.exec_driver_sql(
            "UPDATE meter_keys SET wrapped = ? WHERE meter_id = ?",
            [(octets, one.meter_id) for one, octets in zip(found, wrapped, strict=True)],
        )
