"""People with keys, the configuration that names them, and what they do from the command line's side."""

import functools
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection
from tests.system.fleet import opened

from ipss_headend import config
from ipss_headend.config import PrincipalConfig
from ipss_headend.field.control import machine, orders
from ipss_headend.field.control.desk import BULK, Desk, transact
from ipss_headend.field.control.machine import State
from ipss_headend.field.control.orders import Order
from ipss_headend.security import principals
from ipss_headend.security.principals import Signer
from ipss_headend.store import commands as rows
from ipss_headend.store import registry
from ipss_headend.store.database import Database, now_us

NAMES = ("ada", "bob", "cyd")


class People:
    """Ada asks, Bob and Cyd approve."""

    def __init__(self, directory: Path) -> None:
        self.files = {name: directory / f"{name}.key" for name in NAMES}
        self.keys = {name: principals.create_key_file(path) for name, path in self.files.items()}

    def config(self) -> str:
        """For the configuration file."""
        return "\n".join(
            f'[[principals]]\nname = "{name}"\npublic_key = "{key.hex()}"\napprove = true\n'
            for name, key in self.keys.items()
        )

    def principals(self) -> tuple[PrincipalConfig, ...]:
        """As the configuration has them."""
        return tuple(PrincipalConfig(name, key, may_approve=True) for name, key in self.keys.items())

    def signer(self, name: str) -> Signer:
        """One of them."""
        return principals.signer(self.principals(), principals.load_key_file(self.files[name]))


class Office:
    """What people do with a store, while a head-end runs or not."""

    def __init__(self, path: Path, people: People) -> None:
        self.config = config.load(path)
        self.people = people
        self.desk = Desk(self.config.control, self.config.principals, self.config.rollout)

    def open(self) -> Database:
        """The store, as a guest."""
        return opened(self.config)

    def ask(
        self, to: str, names: list[str], *, who: str = "ada", life_s: float = 900, order_id: bytes | None = None
    ) -> bytes:
        """Propose; returns the order's number."""
        return self._ask(functools.partial(orders.switch, to), names, who=who, life_s=life_s, order_id=order_id)  # type: ignore[arg-type]

    def ask_for_keys(self, names: list[str], *, who: str = "ada", life_s: float = 900, master: bool = False) -> bytes:
        """Propose new keys; returns the order's number."""
        return self._ask(functools.partial(orders.change_keys, master=master), names, who=who, life_s=life_s)

    def _ask(self, make: Callable[..., Order], names: list[str], *, who: str, **more: object) -> bytes:
        with self.open() as database:
            with database.reading() as connection:
                meters = [registry.meter_named(connection, name) for name in names]
            devices = [(meter.meter_id, meter.system_title or b"") for meter in meters]
            made = make(devices, reason="test", requester=who, created_us=now_us(), **more)
            signature = self.people.signer(who).sign("propose", 0, made.octets())
            transact(database, lambda connection: self.desk.propose(connection, made.octets(), signature))
        return made.order_id

    def approve(self, order_id: bytes, who: str = "bob") -> bool:
        """Approve; whether it goes."""
        with self.open() as database:
            signer = self.people.signer(who)
            return transact(database, lambda connection: self.desk.approve(connection, order_id, signer)).complete

    def switch(self, to: str, names: list[str], **options: float) -> bytes:
        """Ask and approve."""
        order_id = self.ask(to, names, **options)  # type: ignore[arg-type]
        approved = [self.approve(order_id, who) for who in ("bob", "cyd")[: 1 + (len(names) > BULK)]]
        assert approved[-1]
        return order_id

    def rekey(self, names: list[str], *, approvers: tuple[str, ...] = ("bob",), master: bool = False) -> bytes:
        """Ask for new keys, and approve."""
        order_id = self.ask_for_keys(names, master=master)
        assert [self.approve(order_id, who) for who in approvers][-1]
        return order_id

    def states(self, order_id: bytes) -> list[State]:
        """The states of an order's commands."""
        return [State(one.state) for one in self.commands(order_id)]

    def commands(self, order_id: bytes) -> list[rows.CommandRow]:
        """An order's commands."""
        with self.open() as database, database.reading() as connection:
            return rows.commands_of(connection, order_id)

    def over(self, order_id: bytes) -> bool:
        """Whether every command is at its end."""
        return all(state in machine.FINAL for state in self.states(order_id))

    def audit_kinds(self) -> list[str]:
        """The kinds of all audit records, in order."""

        def kinds(connection: Connection) -> list[str]:
            return list(connection.exec_driver_sql("SELECT kind FROM audit ORDER BY seq").scalars())

        with self.open() as database, database.reading() as connection:
            return kinds(connection)
