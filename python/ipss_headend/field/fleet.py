"""The fleet: from the file to the registry, from the registry to the reactor.

A file is imported in one transaction, so a reader sees all of its good lines or none, and a crash leaves none.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from sqlalchemy import Connection, select

from ipss_headend import errors
from ipss_headend.field import fleet_file
from ipss_headend.field.fleet_file import KEY_COLUMNS, MeterLine, Protocol
from ipss_headend.network import LONGEST_NAME, NOWHERE, Place, unknown_node
from ipss_headend.security.keystore import BoundKeys, Keystore, MeterKeys
from ipss_headend.store import counters, network, registry
from ipss_headend.store.registry import Meter
from ipss_headend.store.schema import key_fingerprints, meter_keys
from ipss_headend.store.statements import run


@dataclass(frozen=True, slots=True)
class FleetMeter:
    """A meter of the registry with all that is needed to talk to it."""

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
    protocol: Protocol
    keys: MeterKeys

    @property
    def address(self) -> str | None:
        """`host:port` with brackets where IPv6 needs them; None: the meter dials in."""
        if self.host is None:
            return None
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def written_address(self) -> str:
        """As the fleet's file has it; empty: the meter dials in."""
        return fleet_file.written_address(self.host, self.port, self.server, self.protocol)

    @property
    def identity(self) -> bytes:
        """Which device it is, in the orders of critical commands."""
        return registry.device_identity(self.system_title, self.protocol.transport, self.host, self.port, self.server)


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did. `mistakes` are messages for people, in the order of the file, without any secret."""

    imported: int
    mistakes: tuple[str, ...]

    @property
    def exit_status(self) -> int:
        """0 all lines are in, 8 some are, 3 none is."""
        if not self.mistakes:
            return errors.DONE
        return errors.PARTLY_DONE if self.imported else errors.BAD_INPUT


def import_meters(
    connection: Connection,
    keystore: Keystore,
    lines: Iterable[str],
    source: str,
    *,
    strict: bool = False,
    client_system_title: bytes | None = None,
) -> ImportReport:
    """Put the good lines of a CSV file into the registry, and report the others.

    `source` names the file in messages. With `strict`, one bad line keeps all out. No meter may have our own
    `client_system_title` (R13). Needs a writing transaction.

    Raises:
        ConfigError: the file's first line does not name the columns.
    """
    read = fleet_file.read(lines, source)
    return import_read(connection, keystore, read, source, strict=strict, client_system_title=client_system_title)


def import_read(
    connection: Connection,
    keystore: Keystore,
    read: Iterable[MeterLine | str],
    source: str,
    *,
    strict: bool = False,
    client_system_title: bytes | None = None,
) -> ImportReport:
    """As `import_meters`, of what was read already: meters, and messages that refuse some."""
    taken = _Taken(connection, keystore, source, client_system_title)
    good: list[MeterLine] = []
    mistakes: list[str] = []
    for line in read:
        mistake = line if isinstance(line, str) else taken.refuse(line)
        if mistake is not None:
            mistakes.append(mistake)
        elif isinstance(line, MeterLine):
            good.append(line)
    if strict and mistakes:
        return ImportReport(0, tuple(mistakes))
    _add(connection, keystore, good, taken)
    return ImportReport(len(good), tuple(mistakes))


def load_fleet(connection: Connection, keystore: Keystore, groups: Iterable[str] = ()) -> list[FleetMeter]:
    """All meters with their keys, in the order of their numbers; only these groups, if any is named.

    Raises:
        KeyTampered: the keys of some were changed; nobody is loaded, so that no meter is left out silently.
    """
    return _with_keys(connection, keystore, registry.all_meters(connection, groups))


def load_meter(connection: Connection, keystore: Keystore, name: str) -> FleetMeter:
    """One meter with its keys.

    Raises:
        UnknownMeter: no meter has this name.
        KeyTampered: its keys were changed.
    """
    return _with_keys(connection, keystore, [registry.meter_named(connection, name)])[0]


def export_meters(connection: Connection, stream: TextIO, groups: Iterable[str] = ()) -> int:
    """Write the registry as CSV in the columns of the import, without any secret. Returns the number of meters."""
    columns = [name for name in fleet_file.COLUMNS if name not in {*KEY_COLUMNS, "password", "invocation_counter"}]
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    chosen = registry.all_meters(connection, groups)
    places = network.places(connection)
    for meter in chosen:
        protocol = Protocol(**meter.protocol)  # type: ignore[arg-type]
        writer.writerow(
            {
                "name": meter.name,
                "address": fleet_file.written_address(meter.host, meter.port, meter.server, protocol),
                "system_title": meter.system_title.hex().upper() if meter.system_title else "",
                "logical_device_name": fleet_file.shown_device_name(meter.logical_device_name),
                "server": meter.server,
                "model": meter.model,
                "group": meter.group,
                **places.get(meter.meter_id, NOWHERE)._asdict(),
                **{name: value for name, value in protocol.shown().items() if name in columns},
                "dedicated": "yes" if protocol.dedicated else "no",
            }
        )
    return len(chosen)


def place_meters(
    connection: Connection, rows: Iterable[tuple[int, dict[str, str] | str]], where: str, *, strict: bool = False
) -> ImportReport:
    """Say where meters stand, by rows of the columns `name`, `node` and `phases`; an empty node: that is not known.

    A row has its number, which messages say behind `where`, or is the message that refuses it. Needs a writing
    transaction.
    """
    known = network.nodes(connection)
    names = {meter.name: meter.meter_id for meter in registry.all_meters(connection)}
    good: dict[int, Place] = {}
    placed: dict[str, int] = {}
    mistakes: list[str] = []
    for number, cells in rows:
        if isinstance(cells, str):
            mistakes.append(cells)
            continue
        name, wrong = cells["name"], ""
        try:
            place = fleet_file.place(cells)
        except fleet_file.LineError as error:
            place, wrong = NOWHERE, str(error)
        if name not in names:
            wrong = f'no meter is called "{name[:LONGEST_NAME]}"; `ipss-headend meters list` shows all'
        elif name in placed:
            wrong = f'"{name}" is number {placed[name]} too; a meter has one place'
        elif place.node and place.node not in known:
            wrong = unknown_node(place.node, known)
        if wrong:
            mistakes.append(f"{where}{number}: {wrong}")
        else:
            good[names[name]], placed[name] = place, number
    if strict and mistakes:
        good = {}
    if good:
        network.place(connection, good)
    return ImportReport(len(good), tuple(mistakes))


PLACE_COLUMNS = ("name", "node", "phases")


def _with_keys(connection: Connection, keystore: Keystore, chosen: Sequence[Meter]) -> list[FleetMeter]:
    query = select(meter_keys.c.meter_id, meter_keys.c.wrapped)
    if len(chosen) == 1:
        query = query.where(meter_keys.c.meter_id == chosen[0].meter_id)
    wrapped: dict[int, bytes] = dict(connection.execute(query).all())
    # A meter whose row of keys is gone is treated as one whose keys were changed.
    bound = [BoundKeys(meter.meter_id, meter.system_title, wrapped.get(meter.meter_id, b"")) for meter in chosen]
    return [
        FleetMeter(
            meter.meter_id,
            meter.name,
            meter.host,
            meter.port,
            meter.server,
            meter.system_title,
            meter.logical_device_name,
            meter.model,
            meter.group,
            Protocol(**meter.protocol),  # type: ignore[arg-type]
            keys,
        )
        for meter, keys in zip(chosen, keystore.unwrap(bound), strict=True)
    ]


def _add(connection: Connection, keystore: Keystore, good: Sequence[MeterLine], taken: "_Taken") -> None:
    if not good:
        return
    first = registry.next_meter_id(connection)
    numbered = list(enumerate(good, first))
    registry.add_meters(
        connection,
        [
            Meter(
                number,
                line.name,
                line.host,
                line.port,
                line.server,
                line.system_title,
                line.logical_device_name,
                line.model,
                line.group,
                line.protocol.shown(),
            )
            for number, line in numbered
        ],
    )
    wrapped = keystore.wrap([(number, line.system_title, line.keys) for number, line in numbered])
    run(
        connection,
        "INSERT INTO meter_keys (meter_id, wrapped) VALUES (?, ?)",
        [(number, octets) for (number, _), octets in zip(numbered, wrapped, strict=True)],
    )
    fingerprints = [(fingerprint, number) for number, line in numbered for fingerprint in taken.fingerprints[line.line]]
    if fingerprints:
        run(connection, _OWN_FINGERPRINTS, fingerprints)
    if standing := {number: line.place for number, line in numbered if line.place != NOWHERE}:
        network.place(connection, standing)
    _go_on(connection, [(taken.retired[one], number) for one, number in fingerprints if one in taken.retired])
    counters.raise_to(
        connection,
        [(number, line.invocation_counter) for number, line in numbered if line.invocation_counter > counters.FIRST],
    )


def _go_on(connection: Connection, came_back: Sequence[tuple[int, int]]) -> None:
    """Keys of meters that were taken out (old number, new number): both ends' counters go on where they were."""
    old = sorted({before for before, _ in came_back})
    ours, theirs = counters.granted_until(connection, old), counters.peer_high_water(connection, old)
    counters.raise_to(connection, [(number, ours[before]) for before, number in came_back if before in ours])
    counters.raise_peer(connection, [(number, theirs[before]) for before, number in came_back if before in theirs])


def _called(meter: MeterLine | Meter) -> bytes | None:
    """The logical device name that this meter may say; None: it does not dial in and none is given."""
    return meter.logical_device_name or (meter.name.encode() if meter.host is None else None)


def _keys_of(line: MeterLine) -> list[tuple[str, bytes]]:
    """The keys that no other meter may have, and their columns. A password is no key: many meters share one."""
    return [(column, getattr(line.keys, column)) for column in KEY_COLUMNS if getattr(line.keys, column) is not None]


@dataclass
class _Taken:
    """What the registry and the earlier good lines have, so that nothing is given twice."""

    connection: Connection
    keystore: Keystore
    source: str
    client_system_title: bytes | None
    fingerprints: dict[int, list[object]] = field(default_factory=dict)
    """Of the keys of each line that was taken."""
    retired: dict[object, int] = field(default_factory=dict)
    """Fingerprints of keys that a meter had which is in the registry no more, and its number."""
    _owners: dict[tuple[str, object], str] = field(default_factory=dict)
    _nodes: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        named = {}
        self._nodes = frozenset(network.nodes(self.connection))
        for meter in registry.all_meters(self.connection):
            owner = f'"{meter.name}", which is in the registry'
            named[meter.meter_id] = owner
            self._owners["name", meter.name] = owner
            parts = meter.protocol.get("physical", 0), meter.protocol.get("gateway", "")
            self._owners["address", (meter.host, meter.port, meter.server, *parts)] = owner
            self._owners["system_title", meter.system_title] = owner
            self._owners["logical_device_name", _called(meter)] = owner
        for fingerprint, meter_id in self.connection.execute(select(key_fingerprints)):
            if meter_id in named:
                self._owners["key", fingerprint] = named[meter_id]
            elif meter_id == counters.USED_UP:
                self._owners["key", fingerprint] = "a meter whose counters under it were used up"
            else:
                self.retired[fingerprint] = meter_id

    def refuse(self, line: MeterLine) -> str | None:
        """Why this line cannot be taken, None if it can; then what it has is taken from now on."""
        claims = self._claims(line)
        mistake = self._mistake(line, claims)
        if mistake is not None:
            return f"{self.source}: line {line.line}: {mistake}"
        self._owners.update(dict.fromkeys(claims.values(), f"line {line.line}"))
        self.fingerprints[line.line] = [claim for kind, claim in claims.values() if kind == "key"]
        return None

    def _mistake(self, line: MeterLine, claims: dict[str, tuple[str, object]]) -> str | None:
        if line.system_title is not None and line.system_title == self.client_system_title:
            return "system_title is the head-end's own; a meter has another"
        if line.place.node and line.place.node not in self._nodes:
            return unknown_node(line.place.node, self._nodes)
        for column, claim in claims.items():
            owner = self._owners.get(claim)
            if owner is not None:
                found = {
                    "name": f'name "{line.name}"',
                    "address": f"address {line.address} with server {line.server}",
                    "logical_device_name": f"logical_device_name {fleet_file.shown_device_name(_called(line))}",
                }.get(column, column)
                needs = {
                    "name": "a name",
                    "address": "an address",
                    "system_title": "a system title",
                    "logical_device_name": "a logical device name",
                }.get(column, "a key")
                return f"{found} is also that of {owner}; every meter has {needs} of its own"
        return None

    def _claims(self, line: MeterLine) -> dict[str, tuple[str, object]]:
        claims: dict[str, tuple[str, object]] = {"name": ("name", line.name)}
        if line.host is not None:
            parts = line.protocol.physical, line.protocol.gateway
            claims["address"] = ("address", (line.host, line.port, line.server, *parts))
        if line.system_title is not None:
            claims["system_title"] = ("system_title", line.system_title)
        if (called := _called(line)) is not None:
            claims["logical_device_name"] = ("logical_device_name", called)
        for column, key in _keys_of(line):
            claims[column] = ("key", self.keystore.fingerprint(key))
        return claims


_OWN_FINGERPRINTS = (
    "INSERT INTO key_fingerprints (fingerprint, meter_id) VALUES (?, ?) "
    "ON CONFLICT (fingerprint) DO UPDATE SET meter_id = excluded.meter_id"
)
