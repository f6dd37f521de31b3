"""What a method sees of the call beside its params: who asks, over which connection, of which head-end."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from ipss_headend.rpc.faults import Fault
from ipss_headend.security.permission import NOBODY, Principal, Right

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from ipss_headend._core import Reactor
    from ipss_headend.config import Config
    from ipss_headend.field.context import Field
    from ipss_headend.field.control.task import Control
    from ipss_headend.field.enrolment import Enrolment
    from ipss_headend.field.fleet import FleetMeter
    from ipss_headend.metrics import Figures
    from ipss_headend.rpc.idempotency import Keys
    from ipss_headend.rpc.jobs import Jobs
    from ipss_headend.rpc.methods.read import Asking, Layouts
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
    keys: Keys
    latest: Latest
    layouts: Layouts
    asking: Asking
    health: Callable[[], Awaitable[dict[str, str]]]
    registry: CollectorRegistry
    names: dict[str, FleetMeter]
    """Meters by their names."""
    control: Control | None = None
    """Critical commands; None: the audit trail forbids them."""
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
    principal: Principal = NOBODY
    client: str = ""
    """What the client calls itself."""
    errors_as_arrays: bool = False
    push: bool = False
    closed: bool = False
    streams: dict[str, object] = field(default_factory=dict)
    send: Callable[[str, object], None] | None = None
    """Puts a notification to the client into the queue; None: it takes none."""


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
