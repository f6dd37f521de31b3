"""The network that meters stand in: its nodes, the meters' places, and one version of it all."""

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, select

from ipss_headend.network import NOWHERE, Network, Node, Place
from ipss_headend.store.schema import meter_places, meters, network_nodes
from ipss_headend.store.statements import last_number, run, take_numbers

OF = "network"


def version(connection: Connection) -> int:
    """The number of the newest change; 0: there was none."""
    return last_number(connection, OF)


def load(connection: Connection) -> Network:
    """All of it."""
    named = select(meters.c.name, meter_places.c.node, meter_places.c.phases).join_from(
        meters, meter_places, meters.c.meter_id == meter_places.c.meter_id
    )
    standing = {name: Place(node, phases) for name, node, phases in connection.execute(named)}
    return Network(version(connection), nodes(connection).values(), standing).prepare()


def nodes(connection: Connection) -> dict[str, Node]:
    """The nodes by their names."""
    chosen = select(network_nodes.c.name, network_nodes.c.kind, network_nodes.c.parent)
    return {row.name: Node(*row) for row in connection.execute(chosen)}


def places(connection: Connection) -> dict[int, Place]:
    """Where meters stand, by their numbers."""
    chosen = select(meter_places.c.meter_id, meter_places.c.node, meter_places.c.phases)
    return {meter_id: Place(node, phases) for meter_id, node, phases in connection.execute(chosen)}


def put(connection: Connection, wanted: Iterable[Node], gone: Iterable[str] = ()) -> int:
    """Keep these nodes, each in the place of the one of its name, and drop others. Returns the new version.

    Whether they make a tree `network.checked` has found out, in this transaction.
    """
    if rows := [tuple(node) for node in wanted]:
        run(connection, _PUT, rows)
    if names := [(name,) for name in gone]:
        run(connection, "DELETE FROM network_nodes WHERE name = ?", names)
    return take_numbers(connection, OF, 1)


def place(connection: Connection, wanted: Mapping[int, Place]) -> int:
    """Say where meters stand, by their numbers. Returns the new version."""
    if rows := [(meter_id, *one) for meter_id, one in wanted.items() if one != NOWHERE]:
        run(connection, _PLACE, rows)
    if names := [(meter_id,) for meter_id, one in wanted.items() if one == NOWHERE]:
        run(connection, "DELETE FROM meter_places WHERE meter_id = ?", names)
    return take_numbers(connection, OF, 1)


_PUT = (
    "INSERT INTO network_nodes (name, kind, parent) VALUES (?, ?, ?) "
    "ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, parent = excluded.parent"
)
_PLACE = (
    "INSERT INTO meter_places (meter_id, node, phases) VALUES (?, ?, ?) "
    "ON CONFLICT (meter_id) DO UPDATE SET node = excluded.node, phases = excluded.phases"
)
