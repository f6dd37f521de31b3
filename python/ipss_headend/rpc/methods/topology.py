"""`topology.*`: the network that meters stand in."""

from __future__ import annotations

from itertools import islice

import msgspec
from sqlalchemy import Connection

from ipss_headend.field.network_file import NetworkReport, put_nodes
from ipss_headend.network import KINDS, Network, Node, node_of, unknown_node
from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import Change, Params, Result, method
from ipss_headend.rpc.faults import Fault
from ipss_headend.security.permission import Right

LONGEST_PAGE = 10_000


class Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node of the network."""

    name: str
    kind: str
    """`region`, `substation`, `busbar`, `feeder`, `section`, `switch`, `transformer`, `cabinet`, `connection`."""
    parent: str = ""
    """What feeds it; empty: nothing that is known."""


class Told(msgspec.Struct, frozen=True):
    """A node of the network."""

    name: str
    kind: str
    parent: str
    meters: int
    """How many it feeds, of those that the caller may see."""


class Standing(msgspec.Struct, frozen=True):
    """Where a meter stands."""

    point: str
    node: str
    phases: str


class Put(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Nodes, in any order."""

    nodes: list[Given]
    replace: bool = False
    """These are the whole network: nodes that are not among them go, and one mistake keeps all as it is."""
    strict: bool = False
    """One mistake keeps all as it is."""


class Version(Result, frozen=True):
    """What came of it."""

    version: int
    taken: int
    """Nodes that are as they were given."""
    removed: int
    mistakes: list[str]
    """Each names its number in `nodes`, from 1."""


class Query(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which nodes."""

    kind: str | None = None
    cursor: str = ""
    """The name after which to go on."""
    limit: int = 1000


class Page(Result, frozen=True):
    """Nodes by name; `cursor` gives the next, None: that was the last."""

    version: int
    nodes: list[Told]
    cursor: str | None


class Traced(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A node, or a meter."""

    node: str | None = None
    point: str | None = None
    cursor: int = 0
    """How many of the nodes below it were told."""
    limit: int = 1000


class Trace(Result, frozen=True):
    """What feeds it, and what it feeds."""

    version: int
    up: list[Told]
    """What feeds it, the nearest first."""
    down: list[Told]
    """It and what it feeds, each behind what feeds it; nothing for a meter."""
    meters: list[Standing]
    """Those right at the nodes of `down`, of those that the caller may see."""
    cursor: int | None
    """Gives the next nodes; None: these were the last."""


@method("topology.put", Right.MANAGE)
async def put(call: Call, params: Put) -> Version:
    """Put nodes into the network, or change them: what each is and what feeds it. Needs the right for all meters."""
    if not call.principal.everywhere(Right.MANAGE):
        raise Fault("E_DENIED", "the network feeds meters of all groups; it is for who manages all")
    wanted: list[tuple[int, Node]] = []
    wrong: dict[int, str] = {}
    for number, one in enumerate(params.nodes, 1):
        try:
            wanted.append((number, node_of(one.name, one.kind, one.parent)))
        except ValueError as error:
            wrong[number] = f"nodes: {number}: {error}"

    def write(connection: Connection) -> NetworkReport:
        return put_nodes(connection, wanted, wrong, "nodes: ", replace=params.replace, strict=params.strict)

    report = await call.services.store.change(write)
    await call.services.topology.refresh()
    return Version(version=report.version, taken=report.taken, removed=report.removed, mistakes=list(report.mistakes))


@method("topology.get", Right.VIEW, example={"kind": "feeder"})
async def get(call: Call, params: Query) -> Page:
    """The nodes of the network."""
    if params.kind not in {None, *KINDS}:
        raise Fault("E_PARAMS", f'kind: "{params.kind}" is none of {", ".join(KINDS)}')
    network = await call.services.topology.refresh()
    limit = min(max(params.limit, 1), LONGEST_PAGE)
    found = sorted(
        name for name, node in network.nodes.items() if name > params.cursor and params.kind in {None, node.kind}
    )
    page = found[:limit]
    feeds = _Feeds(call, network)
    return Page(
        version=network.version,
        nodes=[feeds.told(name) for name in page],
        cursor=page[-1] if len(found) > limit else None,
    )


@method("topology.trace", Right.VIEW)
async def trace(call: Call, params: Traced) -> Trace:
    """What feeds a node or a meter, and what a node feeds, with the meters there."""
    network = await call.services.topology.refresh()
    if (params.node is None) == (params.point is None):
        raise Fault("E_PARAMS", "name a node or a point")
    feeds = _Feeds(call, network)
    if params.point is not None:
        path = network.path_of(call.meter(params.point, Right.VIEW).name)
        return Trace(version=network.version, up=[feeds.told(one) for one in path], down=[], meters=[], cursor=None)
    node = params.node or ""
    if node not in network.nodes:
        raise Fault("E_UNKNOWN", unknown_node(node, network.nodes))
    limit, after = min(max(params.limit, 1), LONGEST_PAGE), max(params.cursor, 0)
    page = list(islice(network.below(node), after, after + limit + 1))
    down = page[:limit]
    return Trace(
        version=network.version,
        up=[feeds.told(one) for one in network.path(node)[1:]],
        down=[feeds.told(one) for one in down],
        meters=[Standing(one, *network.place(one)) for at in down for one in network.meters.get(at, ()) if feeds(one)],
        cursor=after + limit if len(page) > limit else None,
    )


class _Feeds:
    """How many meters nodes feed, as far as a caller may know."""

    def __init__(self, call: Call, network: Network) -> None:
        self._network = network
        self._call = call
        self._whole = call.principal.everywhere(Right.VIEW)
        self._seen = None if self._whole else network.count(self)

    def __call__(self, meter: str) -> bool:
        found = self._call.services.names.get(meter)
        return self._whole or (found is not None and self._call.principal.may(Right.VIEW, found.group))

    def told(self, name: str) -> Told:
        counts = self._network.all_below if self._seen is None else self._seen
        return Told(*self._network.nodes[name], counts[name])
