"""What a method sees of the call beside its params: who asks, over which connection, of which head-end."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from ipss_headend.rpc.catalogue import METHODS, Method
from ipss_headend.rpc.faults import Fault
from ipss_headend.security.permission import NOBODY, Principal, Right

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from ipss_headend._core import Reactor
    from ipss_headend.config import Config
    from ipss_headend.field.context import Field
    from ipss_headend.field.control.task import Control
    from ipss_headend.field.der.desk import SetPoints
    from ipss_headend.field.enrolment import Enrolment
    from ipss_headend.field.fleet import FleetMeter
    from ipss_headend.field.quarantine import Quarantine
    from ipss_headend.field.schedules import Schedules
    from ipss_headend.field.topology import Topology
    from ipss_headend.metrics import Figures
    from ipss_headend.plugins.accounts import Accounts
    from ipss_headend.plugins.judge import Judge
    from ipss_headend.plugins.manager import Manager
    from ipss_headend.plugins.vee import Validation
    from ipss_headend.rpc.idempotency import Keys
    from ipss_headend.rpc.jobs import Jobs
    from ipss_headend.rpc.logins import Logins
    from ipss_headend.rpc.methods.read import Asking, Layouts
    from ipss_headend.rpc.offers import Offers
    from ipss_headend.server import Stop
    from ipss_headend.store import Store
    from ipss_headend.store.latest import Latest


@dataclass(slots=True)
class Services:
    """The rooms of the head-end that methods may use."""

    config: Config
    store: Store
    field: Field
    reactor: Reactor
    figures: Figures
    stop: Stop
    jobs: Jobs
    enrolment: Enrolment
    quarantine: Quarantine
    keys: Keys
    logins: Logins
    latest: Latest
    layouts: Layouts
    asking: Asking
    health: Callable[[], Awaitable[dict[str, str]]]
    registry: CollectorRegistry
    names: dict[str, FleetMeter]
    """Meters by their names."""
    set_points: SetPoints
    """What is wanted of inverters and storage."""
    plugins: Manager
    judge: Judge
    """Plugins' say in commands."""
    schedules: Schedules
    """Read plans."""
    topology: Topology
    """The network that meters stand in."""
    methods: dict[str, Method] = dataclasses.field(default_factory=lambda: dict(METHODS))
    """The table of this head-end, plugins' methods among it."""
    control: Control | None = None
    """Critical commands; None: the audit trail forbids them."""
    validation: Validation | None = None
    offers: Offers | None = None
    """Keeps plugins' methods in `methods`."""
    accounts: Accounts | None = None
    """What hands intervals to plugins."""
    happened: trio.Event = dataclasses.field(default_factory=trio.Event)
    """Set, and made anew, when something was written."""
    nursery: trio.Nursery | None = None

    def written(self) -> None:
        """Something was made durable: whoever waits for it looks."""
        self.happened.set()
        self.happened = trio.Event()

    def start(self, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Start a task that lives as long as the server.

        Raises:
            RuntimeError: the server is stopping.
        """
        if self.nursery is None:
            raise RuntimeError("the head-end is stopping")
        self.nursery.start_soon(work, *arguments)


@dataclass(slots=True)
class Session:
    """One connection, as far as methods see it."""

    number: int
    peer: str
    """Where it comes from, for logs and the audit trail."""
    who: Principal = NOBODY
    fingerprint: bytes | None = None
    """SHA-256 of the client's certificate; None: it came over the unix socket."""
    until: float | None = None
    """When what proved who it is runs out, on trio's clock; None: it does not."""
    known: Callable[[], None] | None = None
    """Called when it is known who this is."""
    limited: Callable[[str, str], None] | None = None
    """Takes one call, of this caller and method, of the caller's rate; raises a fault if there is none left."""
    client: str = ""
    """What the client calls itself."""
    errors_as_arrays: bool = False
    push: bool = False
    closed: bool = False
    streams: dict[str, object] = field(default_factory=dict)
    send: Callable[[str, object], None] | None = None
    """Puts a notification to the client into the queue; None: it takes none."""

    @property
    def principal(self) -> Principal:
        """Who is at the other end, at this moment."""
        if self.until is not None and trio.current_time() >= self.until:
            self.become(NOBODY)
        return self.who

    def become(self, who: Principal, until: float | None = None) -> None:
        """From now on it is this principal's, up to some time."""
        self.who, self.until = who, until
        if who is not NOBODY and self.known is not None:
            self.known()


@dataclass(slots=True)
class Call:
    """One call."""

    services: Services
    session: Session
    method: str

    @property
    def principal(self) -> Principal:
        """Who asks."""
        return self.session.principal

    def reaches(self, group: str) -> bool:
        """Whether the caller has the right that this method needs for the meters of a group."""
        return self.principal.may(self.services.methods[self.method].right, group)

    def meter(self, name: str, right: Right) -> FleetMeter:
        """The meter of this name, if the caller may do this to it.

        A meter outside the caller's scope is unknown to it: an answer that says more would tell who is a customer.

        Raises:
            Fault: no such meter for this caller.
        """
        found = self.services.names.get(name)
        if found is None or not self.principal.may(right, found.group):
            raise Fault("E_UNKNOWN", f'no meter is called "{name}"; device.list shows those that you may see')
        return found
