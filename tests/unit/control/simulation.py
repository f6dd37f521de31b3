"""The command machine, its desk, budgets, audit trail and store under a simulated clock, network and process (R43).

All that decides is the head-end's own code and a real SQLite file. Simulated are time (trio's mock clock), chance (a
seed), the threads of the store (its transactions run in turn), signatures (hashes: nobody forges here), the gate and
reactor (a stand-in that keeps the rules of docs/commands.md by itself) and the meters. Before and behind every
transaction the process may die: the life's tasks end there, and another life begins with nothing but the file. What is
on its way to a meter arrives all the same.

First the safety phase: people ask, approve, cancel, stop and resume at random while lives end and lines fail. Then the
liveness phase: nothing fails any more, and everything has to come to its end. A seed replays to the bit.

A seed takes a tenth of a second: what it needs of the system is made once a process (`Ground`).
"""

from __future__ import annotations

import hashlib
import random
import shutil
import sqlite3
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self
from unittest import mock

import trio
from sqlalchemy import Connection
from trio.testing import MockClock

from ipss_headend.config import ControlConfig, PrincipalConfig
from ipss_headend.errors import HeadEndError
from ipss_headend.field.control import budgets, desk, machine, orders, task
from ipss_headend.field.control.desk import Desk, transact
from ipss_headend.field.control.machine import State
from ipss_headend.field.control.orders import Order
from ipss_headend.field.control.readback import Seen
from ipss_headend.field.reactor import Outcome
from ipss_headend.metrics import Figures
from ipss_headend.rings import Rings
from ipss_headend.security import audit, principals
from ipss_headend.security.principals import Signature, Signer
from ipss_headend.store import Database, Store, registry
from ipss_headend.store import commands as rows

METERS = 6
FUSS_S = 30.0
"""How long people act and things fail."""
QUIET_S = 180.0
"""How long everything has to come to an end: not-after, answers, read-backs and alarms are far shorter."""
ARRIVED_S = 6.0
"""What was on its way has arrived by then."""
LOOK_S = 0.8
"""In place of the head-end's 0.2 s: fewer looks for the same second."""
HEARD_S = 1.0
"""Within this a head-end knows of a stop, and of a resume (R17)."""
LIVES_S = (2.0, 8.0, 24.0)
"""How long orders may wait to be sent."""
EPOCH_US = 1_800_000_000_000_000
ALL = ("ada", "bob", "cyd")


@dataclass
class Rates:
    """How often what fails; zero in the liveness phase."""

    crash: float = 0.01
    lost_answer: float = 0.15
    undelivered: float = 0.1
    refused: float = 0.05
    unread: float = 0.3


@dataclass
class World:
    """What outlives the head-end: meters, people, the file, octets on their way; and what really happened."""

    rng: random.Random
    people: tuple[PrincipalConfig, ...]
    signers: dict[str, Signer]
    database: Database
    rates: Rates = field(default_factory=Rates)
    connected: dict[int, bool] = field(default_factory=lambda: dict.fromkeys(range(1, METERS + 1), True))
    executed: Counter[bytes] = field(default_factory=Counter)
    orders: dict[bytes, Order] = field(default_factory=dict)
    of_command: dict[bytes, Order] = field(default_factory=dict)
    approved: dict[bytes, set[tuple[str, int]]] = field(default_factory=dict)
    """Order to who approved it under which generation of the stop switch."""
    cancelled: set[bytes] = field(default_factory=set)
    protected: set[int] = field(default_factory=set)
    stopped_s: float | None = None
    generation: int = 1
    ended: dict[int, float] = field(default_factory=dict)
    """When each generation of the stop switch ended: a head-end hears of it with its next look."""
    sealed: list[tuple[float, bytes]] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    lives: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    life: trio.CancelScope | None = None
    arriving: trio.Nursery = field(init=False)

    def note(self, *what: object) -> None:
        """For the trace: the same seed gives the same one."""
        self.trace.append(" ".join(map(str, (round(trio.current_time(), 6), *what))))

    def now_us(self) -> int:
        return EPOCH_US + int(trio.current_time() * 1_000_000)

    @property
    def guest(self) -> Database:
        """The store as people have it, whose processes are not the head-end's."""
        return self.database

    def title(self, meter: int) -> bytes:
        return bytes([meter] * 8)

    async def transaction(self, work: Callable[..., Any], *arguments: object, **_: object) -> Any:
        """In place of the store's thread: whole or not at all, and the process may die on either side of it."""
        await trio.lowlevel.checkpoint()
        await self.may_die()
        done = work(*arguments)
        await self.may_die()
        return done

    async def may_die(self) -> None:
        """Perhaps the process is killed here. Nothing behind this point happens in this life."""
        if self.life is not None and self.rng.random() < self.rates.crash:
            self.note("killed")
            self.seen["kills"] += 1
            self.life.cancel()
            await trio.sleep_forever()


class Gate:
    """The rules of docs/commands.md once more, in memory: what a life knows is lost with it."""

    def __init__(self, world: World, settings: ControlConfig) -> None:
        self.world, self.stop_file = world, settings.stop_file
        self.stopped, self.generation = True, 0
        self.spent: set[bytes] = set()
        self.protected_meters: set[int] = set()
        self.admitted: dict[bytes, Order] = {}
        self.stops = 0
        """A ticket from before a stop is void."""

    def limit(self, *_: int) -> None: ...

    def spend(self, commands: Sequence[bytes]) -> None:
        self.spent.update(commands)

    def protect(self, meters: Sequence[tuple[int, bytes]]) -> None:
        self.protected_meters |= {meter for meter, _ in meters}

    def unprotect(self, meters: Sequence[tuple[int, bytes]]) -> None:
        self.protected_meters -= {meter for meter, _ in meters}

    def hold(self, meters: Sequence[tuple[int, str]]) -> None:
        assert not meters

    def clear(self, meters: Sequence[int]) -> None:
        assert not meters

    def holds(self, _: int) -> bool:
        return False

    def awake_s(self) -> float:
        return trio.current_time()

    def lease(self, *_: float) -> None: ...

    def stop(self) -> None:
        self.stopped = True
        self.stops += 1
        self.admitted.clear()

    def resume(self, generation: int) -> bool:
        if not self.stop_file.exists():
            self.stopped, self.generation = False, generation
        return not self.stopped


class Reactor:
    """Takes released commands to meters: late, once, or not at all."""

    def __init__(self, world: World, gate: Gate) -> None:
        self.world, self.gate = world, gate
        self.ends: dict[int, tuple[trio.Event, list[Outcome]]] = {}
        self.left: dict[int, bool] = {}

    def believe(self, _: int) -> None: ...

    def count(self, *_: object) -> None: ...

    def admit(self, octets: bytes, signatures: Sequence[tuple[str, str, int, bytes]]) -> None:
        order, gate = Order.decode(octets), self.gate
        if gate.stopped:
            raise PermissionError("stopped")
        who = {
            principal.name
            for one in map(Signature._make, signatures)
            if one.purpose == "approve" and one.generation == gate.generation
            if (principal := principals.fits(self.world.people, one, octets)) and principal.may_approve
        }
        if len(who - {order.requester}) < 1:
            raise PermissionError("not approved by enough people")
        gate.admitted[order.order_id] = order

    def release(self, order_id: bytes, command: bytes, _answer_s: float, _made: bytes) -> int:
        order = self.gate.admitted.get(order_id)
        if order is None or command in self.gate.spent:
            raise PermissionError("not admitted, or sent before")
        number = len(self.ends) + 1
        self.ends[number] = (trio.Event(), [])
        self.left[number] = False
        self.world.arriving.start_soon(self._carry, number, order, command, (self.world.lives, self.gate.stops))
        return number

    def settle(self, number: int) -> bool:
        return self.left[number]

    async def _carry(self, number: int, order: Order, command: bytes, ticket: tuple[int, int]) -> None:
        """The request waits for its line, is sealed, travels, is done and answered; the last in this life alone."""
        world, rng, rates = self.world, self.world.rng, self.world.rates
        meter = next(one.meter_id for one in order.targets if one.command_id == command)
        await trio.sleep(rng.uniform(0.001, 4.0))
        life, stops = ticket
        if world.lives != life or world.life is None or world.life.cancel_called:
            return  # it waited in a process that is no more
        outcome = self._seal(order, command, meter, void=stops != self.gate.stops)
        if outcome is None:
            self.left[number] = True
            await trio.sleep(rng.uniform(0.001, 1.0))
            if rng.random() < rates.undelivered:
                world.seen["undelivered"] += 1
                outcome = Outcome.UNKNOWN
            elif rng.random() < rates.refused:
                world.seen["refused"] += 1
                outcome = Outcome.REFUSED
            else:
                world.executed[command] += 1
                world.connected[meter] = order.kind == "reconnect"
                world.note("executed", command.hex())
                outcome = Outcome.UNKNOWN if rng.random() < rates.lost_answer else Outcome.DONE
                world.seen["lost answers"] += outcome is Outcome.UNKNOWN
        await trio.sleep(rng.uniform(0.001, 0.5))
        event, found = self.ends[number]
        found.append(outcome)
        event.set()

    def _seal(self, order: Order, command: bytes, meter: int, *, void: bool) -> Outcome | None:
        world, gate = self.world, self.gate
        why = (
            "stopped" if void or gate.stopped or gate.stop_file.exists()
            else "late" if world.now_us() >= order.not_after_us
            else "protected" if meter in gate.protected_meters and order.kind in orders.MAY_CUT
            else "spent" if command in gate.spent
            else ""
        )  # fmt: skip
        if why:
            world.seen[f"gate: {why}"] += 1
            return Outcome.IMPOSSIBLE
        gate.spent.add(command)
        world.sealed.append((trio.current_time(), command))
        world.note("sealed", command.hex())
        judge_seal(world, order, command, meter)
        return None


def judge_seal(world: World, order: Order, command: bytes, meter: int) -> None:
    """Safety, at the only moment at which something leaves. By the world's own book, not by the head-end's."""
    with world.database.reading() as connection:
        row = rows.command_of(connection, command)
    assert row is not None
    assert row.state == State.SENT, f"sealed while {row.state}: SENT was not durable"
    assert world.now_us() < order.not_after_us, "sealed too late"
    assert command not in world.cancelled, "sealed though cancelled"
    said = {generation for _, generation in world.approved.get(order.order_id, set())}
    valid = {world.generation} | {one for one, at_s in world.ended.items() if trio.current_time() < at_s + HEARD_S}
    assert said & valid, "sealed without a valid approval"
    assert world.stopped_s is None or trio.current_time() < world.stopped_s + HEARD_S, "sealed behind the stop switch"
    assert Counter(one for _, one in world.sealed)[command] == 1, "sealed twice"


class Requests:
    """What the machine asks of `field.requests`."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor

    def follow(self, request: int, meter: int, *, on_end: Callable[[Any], None], on_refusal: object) -> Any:
        return (request, meter, on_end)

    async def finish(self, submissions: Sequence[Any]) -> None:
        for request, meter, on_end in submissions:
            event, found = self._reactor.ends[request]
            await event.wait()
            on_end((request, meter, int(found[0]), 1, 0, ""))


class ReadBack:
    """Looks at the meters; sometimes nothing is seen."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def look(self, meter: int, order: Order) -> Seen:
        await trio.sleep(self._world.rng.uniform(0.01, 1.0))
        if self._world.rng.random() < self._world.rates.unread:
            return Seen.NOTHING
        wanted = order.kind == "reconnect"
        return Seen.AS_WANTED if self._world.connected[meter] == wanted else Seen.OTHERWISE

    async def refuses_ready(self, meter: int) -> str | None:
        return None


async def live(world: World, settings: ControlConfig, config: Any) -> None:
    """One life of the head-end after another."""
    meters = {number: SimpleNamespace(name=f"m{number}", group=f"g{number % 2}") for number in world.connected}
    while True:
        world.lives += 1
        with trio.CancelScope() as world.life:
            gate = Gate(world, settings)
            reactor = Reactor(world, gate)
            control = task.Control(
                config=config,
                store=Store(world.database),
                reactor=reactor,  # type: ignore[arg-type]
                gate=gate,  # type: ignore[arg-type]
                requests=Requests(reactor),  # type: ignore[arg-type]
                read_back=ReadBack(world),  # type: ignore[arg-type]
                meters=meters,  # type: ignore[arg-type]
                figures=Figures(),
                wall_us=world.now_us,
            )
            await control.prepare()
            await control.run()
        await trio.sleep(world.rng.uniform(0.1, 2.0))


async def act(world: World, office: Desk, settings: ControlConfig) -> None:
    """What people do, until cancelled."""
    rng = world.rng
    while True:
        await trio.sleep(rng.uniform(0.1, 3.0))
        what = rng.choices(
            ["propose", "approve", "approve own", "cancel", "stop", "resume", "release", "protect"],
            [30, 40, 5, 6, 4, 12, 6, 1],
        )[0]
        known = list(world.orders)
        with suppress(HeadEndError):
            if what == "propose":
                propose(world, office)
            elif what == "stop":
                settings.stop_file.touch()
                world.stopped_s = trio.current_time()
            elif what == "resume":
                resume(world, office, settings)
            elif what == "protect":
                protect(world, office, rng.choice(sorted(world.connected)))
            elif known:
                on(world, office, what, rng.choice(known))
            world.seen[what] += 1
        world.note(what)


def propose(world: World, office: Desk) -> None:
    rng = world.rng
    chosen = sorted(rng.sample(sorted(world.connected), rng.randrange(1, 4)))
    made = orders.switch(
        rng.choice(["off", "on"]),
        [(number, world.title(number)) for number in chosen],
        reason="simulated",
        requester="ada",
        created_us=world.now_us(),
        life_s=rng.choice(LIVES_S),
    )
    signature = world.signers["ada"].sign("propose", 0, made.octets())
    transact(world.guest, lambda connection: office.propose(connection, made.octets(), signature))
    world.orders[made.order_id] = made
    world.of_command |= {target.command_id: made for target in made.targets}


def resume(world: World, office: Desk, settings: ControlConfig) -> None:
    settings.stop_file.unlink(missing_ok=True)
    signer = world.signers["bob"]
    world.ended[world.generation] = trio.current_time()
    world.generation = transact(world.guest, lambda connection: office.resume(connection, signer))
    world.stopped_s = None


def protect(world: World, office: Desk, meter: int) -> None:
    title = world.title(meter)
    transact(world.guest, lambda connection: office.protect(connection, meter, title, f"m{meter}", "cyd", "clinic"))
    world.protected.add(meter)


def on(world: World, office: Desk, what: str, order_id: bytes) -> None:
    who = "ada" if what == "approve own" else world.rng.choice(["bob", "cyd"])
    signer = world.signers[who]

    def work(connection: Connection) -> Any:
        generation = rows.control(connection).generation
        if what == "cancel":
            before = {
                one.command_id for one in rows.commands_of(connection, order_id) if one.state in machine.BEFORE_SENT
            }
            office.cancel(connection, order_id, who)
            return before
        if what == "release":
            return office.end_quarantine(connection, order_id, signer)
        office.approve(connection, order_id, signer)
        return generation

    done = transact(world.guest, work)
    if what == "cancel":
        world.cancelled |= done
    elif what.startswith("approve"):
        assert what == "approve", "the requester approved"
        world.approved.setdefault(order_id, set()).add((who, done))


def judge_end(world: World) -> None:
    """Liveness: everything is at its end; and what the rows say is what happened."""
    with world.database.reading() as connection:
        trail = list(audit.records(connection))
        assert audit.verify(trail, [], b"").first_bad is None
        sent = Counter(record.detail for record in trail if record.kind == "sent")
        for order_id in world.orders:
            for one in rows.commands_of(connection, order_id):
                state, times = State(one.state), world.executed[one.command_id]
                world.seen[f"ended {state}"] += 1
                assert state in machine.FINAL, f"{one.command_id.hex()} is still {state}: {one.detail}"
                assert times <= 1, "executed twice"
                if state in {State.EXPIRED, State.CANCELLED} or "not sent" in one.detail:
                    assert times == 0, f"{state} and executed"
                if state is State.CONFIRMED and "found by reading" not in one.detail:
                    assert times == 1, "confirmed and not executed"
        assert max(sent.values(), default=1) == 1, "SENT twice"
    minutes = Counter(int(at_s // 60) for at_s, _ in world.sealed)
    assert sum(minutes.values()) <= 2 * (8 + 8), "more than the day's budgets"


async def quiet(world: World) -> None:
    """Wait until nothing is open and nothing on its way; no longer than everything may take."""
    with trio.move_on_after(QUIET_S):
        while True:
            with world.database.reading() as connection:
                if not rows.counts(connection, machine.OPEN):
                    break
            await trio.sleep(1.0)
        await trio.sleep(ARRIVED_S)


def simulate(seed: int, ground: Ground) -> World:
    """Run one seed. Raises AssertionError for what must not be."""
    rng = random.Random(seed)
    keys = {name: Key(name.encode()) for name in ALL}
    people = tuple(PrincipalConfig(name, key.public, may_approve=True) for name, key in keys.items())
    signers = {one.name: Signer(one, keys[one.name]) for one in people}  # type: ignore[arg-type]
    with ground.afresh() as directory:
        world = World(rng, people, signers, ground.database)
        settings = ControlConfig(
            stop_file=directory / "control.stop",
            per_minute=4,
            per_hour=100,
            fleet_per_day_least=16,
            reconnects_per_day_least=16,
            reconnect_window_s=5,
            answer_s=10.0,
            read_back_s=10.0,
            lease_s=1e6,  # confirmed at the start of each life
        )
        config = SimpleNamespace(
            control=settings,
            principals=people,
            rollout=Rings(),
            audit=SimpleNamespace(key_file=directory / "audit.key", checkpoints=directory / "checkpoints.jsonl"),
        )
        office = Desk(settings, people)

        async def main() -> None:
            async with trio.open_nursery() as world.arriving:
                world.arriving.start_soon(live, world, settings, config)
                with trio.move_on_after(FUSS_S):
                    await act(world, office, settings)
                world.rates = Rates(0, 0, 0, 0, 0)
                resume(world, office, settings)
                await quiet(world)
                world.life = None
                world.arriving.cancel_scope.cancel()

        with stand_ins(world, rng):
            trio.run(main, clock=MockClock(autojump_threshold=0))
            judge_end(world)
    return world


class Ground:
    """What a seed needs of the system, made once for many: a store of some meters, in memory where there is room.

    The store is set back to its beginning for each seed, by SQLite's own backup: its tables, connections and compiled
    statements stay. It is not synced: a process that dies here dies between transactions, and files outlive it.
    """

    def __init__(self) -> None:
        memory = Path("/dev/shm")
        self._files = tempfile.TemporaryDirectory(prefix="ipss-seeds-", dir=memory if memory.is_dir() else None)
        self._place = Path(self._files.name)
        self.database = Database(self._place / "s.sqlite", reserve_bytes=0)
        with self.database.writing() as connection:
            registry.add_meters(connection, [meter(number) for number in range(1, METERS + 1)])
        self._writer = self.database._writer.raw_connection()
        self._file = self._writer.driver_connection
        assert isinstance(self._file, sqlite3.Connection)
        self._file.execute("PRAGMA synchronous = OFF")
        self._beginning = sqlite3.connect(":memory:")
        self._file.backup(self._beginning)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._beginning.close()
        self._writer.close()
        self.database.close()
        self._files.cleanup()

    @contextmanager
    def afresh(self) -> Iterator[Path]:
        """The store as it was in the beginning, and an empty directory."""
        assert isinstance(self._file, sqlite3.Connection)
        self._beginning.backup(self._file)
        directory = self._place / "seed"
        directory.mkdir()
        try:
            yield directory
        finally:
            shutil.rmtree(directory)


class Key:
    """In place of an Ed25519 key, and of the module that uses it: a hash that only its holder would make."""

    def __init__(self, name: bytes) -> None:
        self.public = hashlib.sha256(name).digest()

    @staticmethod
    def new(key: Key | bytes, _: str) -> Key:
        """As `eddsa.new`."""
        if isinstance(key, Key):
            return key
        known = Key(b"")
        known.public = key
        return known

    @staticmethod
    def import_public_key(public: bytes) -> bytes:
        """As `eddsa.import_public_key`."""
        return public

    def sign(self, message: bytes) -> bytes:
        """As an Ed25519 key does."""
        return hashlib.sha512(self.public + message).digest()

    def verify(self, message: bytes, signature: bytes) -> None:
        """As an Ed25519 key does."""
        if signature != self.sign(message):
            raise ValueError("another's")


def meter(number: int) -> registry.Meter:
    return registry.Meter(
        meter_id=number,
        name=f"m{number}",
        host=f"192.0.2.{number}",
        port=4059,
        server=1,
        system_title=bytes([number] * 8),
        logical_device_name=None,
        model="",
        group=f"g{number % 2}",
        protocol={},
    )


@contextmanager
def stand_ins(world: World, rng: random.Random) -> Iterator[None]:
    """Simulated time, chance, order of tasks and threads, in place of the system's."""

    def wall_us() -> int:
        try:
            return world.now_us()
        except RuntimeError:  # before and behind the simulation
            return EPOCH_US

    def number() -> uuid.UUID:
        return uuid.UUID(int=rng.getrandbits(128), version=4)

    with ExitStack() as stack:
        for module in (desk, rows, audit):
            stack.enter_context(mock.patch.object(module, "now_us", wall_us))
        for module in (principals, audit):
            stack.enter_context(mock.patch.object(module, "eddsa", Key))
        stack.enter_context(mock.patch.object(principals, "create_key_file", return_value=b""))
        stack.enter_context(mock.patch.object(principals, "load_key_file", return_value=Key(b"notary")))
        stack.enter_context(mock.patch.object(principals, "public_key_of", lambda key: key.public))
        stack.enter_context(mock.patch.object(task, "LOOK_S", LOOK_S))
        stack.enter_context(mock.patch.object(task, "time", SimpleNamespace(monotonic=trio.current_time)))
        stack.enter_context(mock.patch.object(uuid, "uuid4", number))
        stack.enter_context(mock.patch.object(trio.to_thread, "run_sync", world.transaction))
        # The order of tasks that are ready is drawn by trio; here it is drawn from the seed (as Hypothesis has it).
        stack.enter_context(mock.patch.object(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True))
        trio._core._run._r.seed(rng.getrandbits(64))
        yield


def digest(world: World) -> str:
    """One number for all that happened."""
    return hashlib.sha256("\n".join(world.trace).encode()).hexdigest()


assert budgets.DAY_US > FUSS_S * 1e6  # the budgets of a day hold for the whole simulation
