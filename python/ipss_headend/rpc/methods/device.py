"""`device.*`: the registry of meters."""

from __future__ import annotations

import csv
import io

import msgspec
from sqlalchemy import Connection

from ipss_headend import _core
from ipss_headend.config import system_title
from ipss_headend.field import fleet_file
from ipss_headend.field.fleet import FleetMeter, import_meters, load_fleet, place_meters
from ipss_headend.field.quarantine import adoption_columns
from ipss_headend.network import Network
from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import Change, Empty, Params, Result, method
from ipss_headend.rpc.faults import Fault
from ipss_headend.security.keystore import Keystore
from ipss_headend.security.permission import Right
from ipss_headend.store import quarantine
from ipss_headend.store.registry import remove_meter

LONGEST_PAGE = 10_000


class Named(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A meter."""

    device: str


class Query(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which meters."""

    group: str | None = None
    model: str | None = None
    below: str | None = None
    """At this node of the network or below it."""
    cursor: str = ""
    """The name after which to go on."""
    limit: int = 1000


class Device(Result, frozen=True):
    """A meter, without any secret."""

    device: str
    address: str | None
    """None: it dials in."""
    server: int
    system_title: str | None
    logical_device_name: str | None
    model: str
    group: str
    client: int
    auth: str
    suite: int
    protection: str
    dedicated: bool
    node: str | None
    """Where it stands in the network; None: that is not known."""
    phases: str | None


class Devices(Result, frozen=True):
    """A page by name; `cursor` gives the next, None: that was the last."""

    devices: list[Device]
    cursor: str | None


class Add(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A meter: the columns of the fleet file and their texts (README, "Read a meter by hand")."""

    columns: dict[str, str]


class Import(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A fleet file."""

    csv: str
    """Its text, the first line with the names of the columns."""
    strict: bool = False
    """One bad line keeps all out."""


class Imported(Result, frozen=True):
    """What came of it."""

    imported: int
    mistakes: list[str]
    """Each names its line."""


class Unknown(Result, frozen=True):
    """Who pushed and is in no registry. Nothing of it is verified."""

    system_title: str
    """16 hexadecimal digits, as the sender says."""
    address: str
    """Where its latest push came from."""
    first_ms: int
    last_ms: int
    pushes: int
    """How many came."""
    kept: int
    """How many of them are still there."""
    wpdus: list[bytes]
    """Those, in the order in which they came, each with the wrapper's header; `ipss-headend decode` explains them."""


class Quarantined(Result, frozen=True):
    """The one heard last in front."""

    senders: list[Unknown]


class Adopt(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A quarantined sender: its title, and the other columns of the fleet file with their texts."""

    system_title: str
    columns: dict[str, str]
    """What is left out of `client` and `server` is taken from the addresses in the sender's latest push."""


class Adopted(Result, frozen=True):
    """A meter that was an unknown sender."""

    device: Device
    stored: int
    """How many of its kept pushes were opened and stored."""
    refused: list[str]
    """Why the others were not; they stay in quarantine."""


class Forget(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A quarantined sender."""

    system_title: str


class Retire(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A meter."""

    device: str


class Retired(Result, frozen=True):
    """The meter that is gone. Its readings stay."""

    device: str


class Placed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a meter stands."""

    device: str
    node: str = ""
    """A node of the network; empty: that is not known."""
    phases: str = ""
    """As CIM's PhaseCode: `A`, `BN`, `ABC`, `ABCN`, ..."""


class Place(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where meters stand."""

    places: list[Placed]
    strict: bool = False
    """One mistake keeps all as it is."""


class Placement(Result, frozen=True):
    """What came of it."""

    placed: int
    mistakes: list[str]
    """Each names its number in `places`, from 1."""
    version: int
    """Of the network."""


def described(meter: FleetMeter, network: Network) -> Device:
    """A meter as it is told."""
    protocol = meter.protocol
    place = network.place(meter.name)
    return Device(
        device=meter.name,
        address=meter.written_address or None,
        server=meter.server,
        system_title=None if meter.system_title is None else meter.system_title.hex(),
        logical_device_name=fleet_file.shown_device_name(meter.logical_device_name) or None,
        model=meter.model,
        group=meter.group,
        client=protocol.client,
        auth=protocol.auth,
        suite=protocol.suite,
        protection=protocol.protection,
        dedicated=protocol.dedicated,
        node=place.node or None,
        phases=place.phases or None,
    )


@method("device.get", Right.VIEW, example={"device": "virtual-00001"})
def get(call: Call, params: Named) -> Device:
    """One meter."""
    return described(call.meter(params.device, Right.VIEW), call.services.topology.now)


@method("device.list", Right.VIEW, example={"limit": 2})
def list_(call: Call, params: Query) -> Devices:
    """Meters by name, of the groups that the caller may see."""
    limit = min(max(params.limit, 1), LONGEST_PAGE)
    who, names, network = call.principal, call.services.names, call.services.topology.now
    found = sorted(
        name
        for name, meter in names.items()
        if name > params.cursor
        and who.may(Right.VIEW, meter.group)
        and params.group in {None, meter.group}
        and params.model in {None, meter.model}
        and (params.below is None or params.below in network.path_of(name))
    )
    page = found[:limit]
    return Devices(
        devices=[described(names[name], network) for name in page],
        cursor=page[-1] if len(found) > limit and page else None,
    )


@method("device.add", Right.MANAGE)
async def add(call: Call, params: Add) -> Device:
    """Put a meter into the registry and the engine; plans take it up at their next turn."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(params.columns), lineterminator="\n")
    writer.writeheader()
    writer.writerow(params.columns)
    report = await _import(call, text.getvalue(), "columns", strict=True)
    if report.mistakes:
        raise Fault("E_PARAMS", report.mistakes[0])
    return described(call.services.names[params.columns["name"].strip()], call.services.topology.now)


@method("device.import", Right.MANAGE)
async def import_(call: Call, params: Import) -> Imported:
    """Put the good lines of a fleet file into the registry and the engine, and tell the others line by line."""
    return await _import(call, params.csv, "csv", strict=params.strict)


@method("device.place", Right.MANAGE)
async def place(call: Call, params: Place) -> Placement:
    """Say where meters stand in the network: at which node, on which phases. One that is named without goes nowhere."""
    for one in params.places:
        call.meter(one.device, Right.MANAGE)
    services = call.services
    rows = [(n, {"name": one.device, "node": one.node, "phases": one.phases}) for n, one in enumerate(params.places, 1)]
    report = await services.store.change(
        lambda connection: place_meters(connection, rows, "places: ", strict=params.strict)
    )
    version = (await services.topology.refresh()).version
    return Placement(placed=report.imported, mistakes=list(report.mistakes), version=version)


@method("device.retire", Right.MANAGE)
async def retire(call: Call, params: Retire) -> Retired:
    """Take a meter and its keys out of the registry and the engine. Its readings and its counters stay."""
    services = call.services
    meter = call.meter(params.device, Right.MANAGE)
    await services.store.change(lambda connection: remove_meter(connection, meter.meter_id))
    services.enrolment.retire(meter)
    services.names.pop(meter.name, None)
    await services.topology.refresh()
    return Retired(device=meter.name)


@method("device.quarantine", Right.MANAGE, example={})
async def quarantined(call: Call, params: Params) -> Quarantined:
    """Senders of pushes that are in no registry. Needs the right for all meters, as theirs have no group yet."""
    _everywhere(call)

    def found(connection: Connection) -> Quarantined:
        senders = quarantine.senders(connection)
        wpdus: dict[bytes, list[bytes]] = {}
        for push in quarantine.pushes_of(connection, [sender.system_title for sender in senders]):
            wpdus.setdefault(push.system_title, []).append(push.wpdu)
        return Quarantined(
            senders=[
                Unknown(
                    system_title=sender.system_title.hex(),
                    address=sender.address,
                    first_ms=sender.first_us // 1000,
                    last_ms=sender.last_us // 1000,
                    pushes=sender.pushes,
                    kept=sender.kept,
                    wpdus=wpdus.get(sender.system_title, []),
                )
                for sender in senders
            ]
        )

    return await call.services.store.read(found)


@method("device.adopt", Right.MANAGE)
async def adopt(call: Call, params: Adopt) -> Adopted:
    """Make a quarantined sender a meter; its session opens what is kept of it, and what verifies is stored."""
    services = call.services
    title = _title(params.system_title)
    pushes = await services.store.read(lambda connection: quarantine.pushes_of(connection, [title]))
    if not pushes:
        raise Fault("E_UNKNOWN", f"{title.hex()} has no pushes in quarantine; device.quarantine shows who has")
    numbers = [push.push_id for push in pushes]
    with services.quarantine.watching(numbers) as outcome:
        device = await add(call, Add(key=params.key, columns=adoption_columns(_core, pushes[-1], params.columns)))
        stored, refused = await outcome()
    return Adopted(device=device, stored=stored, refused=refused)


@method("device.forget", Right.MANAGE)
async def forget(call: Call, params: Forget) -> Empty:
    """Drop a quarantined sender and what is kept of it. Needs the right for all meters."""
    _everywhere(call)
    title = _title(params.system_title)
    if not await call.services.store.change(lambda connection: quarantine.forget(connection, title)):
        raise Fault("E_UNKNOWN", f"{title.hex()} is not in quarantine; device.quarantine shows who is")
    return Empty()


def _everywhere(call: Call) -> None:
    if not call.principal.everywhere(Right.MANAGE):
        raise Fault("E_DENIED", "unknown senders are in no group; they are for who manages all meters")


def _title(text: str) -> bytes:
    try:
        return system_title(text)
    except ValueError as error:
        raise Fault("E_PARAMS", f"system_title: {error}") from None


async def _import(call: Call, text: str, source: str, *, strict: bool) -> Imported:
    services = call.services
    config = services.config
    refuse_groups(call, text, source)

    def write(connection: object) -> tuple[Imported, list[FleetMeter]]:
        keystore = Keystore.open(connection, config.keystore)  # type: ignore[arg-type]
        report = import_meters(
            connection,  # type: ignore[arg-type]
            keystore,
            io.StringIO(text),
            source,
            strict=strict,
            client_system_title=config.client_system_title,
        )
        fleet = load_fleet(connection, keystore) if report.imported else []  # type: ignore[arg-type]
        return Imported(imported=report.imported, mistakes=list(report.mistakes)), fleet

    report, fleet = await services.store.change(write, spend_reserve=True)
    new = [meter for meter in fleet if meter.meter_id not in services.field.meters]
    await services.enrolment.add(new)
    services.names.update({meter.name: meter for meter in new})
    await services.topology.refresh()
    return report


def refuse_groups(call: Call, text: str, source: str) -> None:
    """A caller with a scope adds meters to its groups only: the meters that the import finds, by its own reading.

    Raises:
        Fault: a line's group is outside.
        ConfigError: the first line does not name the columns.
    """
    if call.principal.everywhere(Right.MANAGE):
        return
    for line in fleet_file.read(io.StringIO(text), source):
        if not isinstance(line, str) and not call.principal.may(Right.MANAGE, line.group):
            raise Fault("E_DENIED", f'group "{line.group}" is not in your scope')
