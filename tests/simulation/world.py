"""The whole head-end over its real reactor, with virtual meters that live on: one thread, one seed (R43).

Nothing that decides is modelled. `server._run` is the head-end: its tasks, its command machine, its campaigns, its
counters and its store; `_core.Simulation` is the rest: the reactor's real turn, DLMS sessions, the gate with real
signatures, and the meters, over a network that follows from the seed. trio's clock and the reactor's are one.

What fails, in the safety phase: the process, before and behind every transaction; the disk, whose sync fails (R4) or
which is full (R5); chunks, connections and silent lines; meters; people, who stop, resume and cancel at random. What
was on its way arrives all the same. In the liveness phase nothing fails any more, and everything has to come to its
end. `judge.py` says what must hold. A seed replays to the bit.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self
from unittest import mock

import trio
from Crypto.Signature import eddsa
from tests.simulation import judge
from tests.unit.control import simulation as core
from trio.testing import MockClock

from ipss_headend import _core, config, server
from ipss_headend.config import Config, PrincipalConfig
from ipss_headend.errors import StoreFailed
from ipss_headend.field.control import task
from ipss_headend.field.control.desk import Desk
from ipss_headend.field.control.orders import Order
from ipss_headend.field.fleet import import_meters
from ipss_headend.security.keystore import Keystore, create_key_file
from ipss_headend.security.principals import Signer
from ipss_headend.store import Database, Store, counters, database, registry
from ipss_headend.store.latest import Latest
from ipss_headend.store.records import ReadingRow
from ipss_headend.store.restore import marker_path

METERS = 4
FUSS_S = 45.0
"""How long people act and things fail."""
LIVE_S = 1500.0
"""How long everything has to come to an end; the longest pause after a failure is a part of it."""
LIVES_S = (3.0, 12.0, 40.0)
"""How long orders may wait to be sent: meters have to be connected first."""
PERIOD_S = 900
HISTORY_S = 4 * PERIOD_S
"""What the meters have captured before the head-end first asks."""
EPOCH_US = core.EPOCH_US + (PERIOD_S - 20) * 1_000_000
"""The meters capture again 20 s after the beginning."""
COUNTERS = 300
"""Invocation counters in a block: a session asks for more when fewer than 256 are left."""
AT_ONE_MOMENT = 2_000
"""Turns after which somebody asks for the same again and again without any time between."""
LOOK_S = 0.25
"""How often a simulated gate looks for its stop file."""


@dataclass
class Rates(core.Rates):
    """How often what fails; zero in the liveness phase."""

    crash: float = 0.002
    sync: float = 0.004
    """A commit's sync fails."""


@dataclass
class World(core.World):
    """What outlives the head-end, and what really happened."""

    ground: Ground = field(kw_only=True)
    native: _core.Simulation = field(kw_only=True)
    rates: Rates = field(default_factory=Rates)
    calm: bool = False
    told: trio.Event = field(default_factory=trio.Event)
    stop: server.Stop = field(default_factory=server.Stop)
    """This life's, for whoever ends it in good order."""
    full: bool = False
    failed: bool = False
    """This life's disk has failed."""
    released: dict[int, bytes] = field(default_factory=dict)
    """This life's requests, and the command of each."""
    open_seals: list[tuple[int, Order, bytes]] = field(default_factory=list)
    """Commands that left and that no meter was seen to obey, oldest first, with their meters."""
    acknowledged: Counter[tuple[object, ...]] = field(default_factory=Counter)
    """Readings that the head-end holds to be durable."""

    listed_s: dict[int, float] = field(default_factory=dict)
    """Since when each protected meter is."""

    def captured_us(self) -> range:
        """When each meter has captured a line of its load profile, until now."""
        period_us = PERIOD_S * 1_000_000
        first_us = (EPOCH_US - HISTORY_S * 1_000_000) // period_us * period_us + period_us
        return range(first_us, self.native.wall_us + 1, period_us)

    def now_us(self) -> int:
        return EPOCH_US + self.passed_us()

    def passed_us(self) -> int:
        """Since the beginning, by trio's clock, which is the reactor's."""
        return round(trio.current_time() * 1_000_000)

    @property
    def guest(self) -> Database:
        return self.ground.guest

    def title(self, meter: int) -> bytes:
        return self.ground.titles[meter]

    async def may_die(self) -> None:
        if self.life is not None and self.rng.random() < self.rates.crash:
            self.note("killed")
            self.seen["kills"] += 1
            self.die()
            await trio.sleep_forever()

    def die(self) -> None:
        """This life is over: nothing of it leaves any more."""
        self.native.kill(self.rng.random() < 0.5)
        self.released.clear()
        if self.life is not None:
            self.life.cancel()

    def commit(self, connection: Any) -> None:
        """In place of the writer's COMMIT, whose sync may fail before or behind what it does."""
        assert not self.failed, "written again after a sync had failed"
        fails = self.life is not None and self.rng.random() < self.rates.sync
        behind = fails and self.rng.random() < 0.5
        if not fails or behind:
            connection.commit()
        if fails:
            self.failed = True
            self.note("sync failed")
            self.seen["failed syncs"] += 1
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
            raise error


class Told:
    """The simulated reactor, which has its turn as soon as it was told something."""

    def __init__(self, world: World, reactor: _core.SimulatedReactor) -> None:
        self._world, self._reactor = world, reactor
        self.fileno, self.finished, self.stats = reactor.fileno, reactor.finished, reactor.stats

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._reactor, name)

        def call(*arguments: object, **named: object) -> Any:
            self._world.native.advance(self._world.passed_us())
            self._world.told.set()
            return method(*arguments, **named)

        setattr(self, name, call)
        return call

    def release(self, order: bytes, command: bytes, timeout_s: float, made: bytes = b"") -> int:
        self._world.native.advance(self._world.passed_us())
        number = self._reactor.release(order, command, timeout_s, made)
        self._world.released[number] = command
        self._world.told.set()
        return number


async def drive(world: World) -> None:
    """The reactor's and the meters' turns, at their moments."""
    before_us, times = -1, 0
    while True:
        world.told = trio.Event()
        times = times + 1 if world.passed_us() == before_us else 0
        assert times < AT_ONE_MOMENT, "the head-end does not come to rest"
        before_us = world.passed_us()
        due_us = world.native.turn(before_us)
        judge.look(world)
        with trio.CancelScope(deadline=float("inf") if due_us is None else due_us / 1_000_000):
            await world.told.wait()


async def live(world: World, settings: Config) -> None:
    """One life of the head-end after another."""
    while True:
        world.lives += 1
        world.life, world.failed = None, False
        world.ground.reopen()
        world.stop = server.Stop()
        with trio.CancelScope() as world.life:
            try:
                await server._run(settings, world.stop, Store(world.database), trio.TASK_STATUS_IGNORED)
            except* StoreFailed:
                assert world.failed, "the head-end ended though its disk did not fail"
                world.note("ended itself")
                world.seen["ended themselves"] += 1
            else:
                assert world.stop.drain.is_set(), "the head-end ended though nobody asked"
                world.note("drained")
                world.seen["drained"] += 1
            world.die()
        await trio.sleep(world.rng.uniform(0.1, 2.0))


WORST = {
    "delay_ms": 200, "jitter_ms": 300, "split": 300, "reset": 15, "refused": 200, "unanswered": 100, "silence": 10,
    "partial_write": 100,
}  # fmt: skip
"""How the network may be: milliseconds, and per mille of connections, writes and chunks."""
WILD = {"loss": 20, "duplication": 60, "reordering": 60, "corruption": 5}
"""What TCP keeps from its users; the sessions have to survive it all the same, and a copy is refused as a replay."""


async def weather(world: World) -> None:
    """How network, meters and disk are, until cancelled."""
    rng, native = world.rng, world.native
    wild = rng.random() < 0.25
    while True:
        worst = WORST | (WILD if wild else {})
        calm = rng.random() < 0.3
        native.set_faults(**{fault: 0 if calm else rng.randrange(most) for fault, most in worst.items()})
        world.full = rng.random() < 0.15
        world.seen["full disks"] += world.full
        down = rng.randrange(METERS) if rng.random() < 0.3 else None
        if down is not None:
            native.cut(down, rng.random() < 0.5, down=True)
            world.seen["meters down"] += 1
        await trio.sleep(rng.uniform(1.0, 8.0))
        if down is not None:
            native.cut(down, rng.random() < 0.5, down=False)


async def fate(world: World) -> None:
    """Ends lives at any moment, one way or the other, until cancelled."""
    while True:
        await trio.sleep(world.rng.uniform(5.0, 60.0))
        if world.rng.random() < 0.5:
            world.note("asked to end")
            world.stop.ask()
        elif world.life is not None:
            world.note("killed in the midst")
            world.seen["kills in the midst"] += 1
            world.die()


def clear_up(world: World) -> None:
    """From now on nothing fails."""
    world.rates = Rates(*[0.0] * 6)
    world.full, world.calm = False, True
    world.native.set_faults()
    for meter in range(METERS):
        # What a silent line has swallowed is not waited for: that is R28's, and takes its heartbeats.
        world.native.cut(meter, reset=True, down=False)


def simulate(seed: int, ground: Ground) -> World:
    """Run one seed. Raises AssertionError for what must not be."""
    rng = random.Random(seed)
    native = _core.Simulation(
        seed=seed, wall_us=EPOCH_US, meters=METERS, history_s=HISTORY_S, capture_period_s=PERIOD_S
    )
    with ground.afresh():
        world = World(rng, ground.people, ground.signers, ground.database, ground=ground, native=native)
        world.connected = dict.fromkeys(ground.titles, True)
        ground.world = world
        office = Desk(ground.config.control, ground.people)

        async def main() -> None:
            async with trio.open_nursery() as world.arriving:
                world.arriving.start_soon(drive, world)
                world.arriving.start_soon(live, world, ground.config)
                with trio.move_on_after(FUSS_S):
                    async with trio.open_nursery() as fuss:
                        fuss.start_soon(weather, world)
                        fuss.start_soon(fate, world)
                        await core.act(world, office, ground.config.control)
                clear_up(world)
                core.resume(world, office, ground.config.control)
                await judge.wait(world, LIVE_S)
                world.life = None
                world.arriving.cancel_scope.cancel()

        try:
            with stand_ins(world):
                trio.run(main, clock=MockClock(autojump_threshold=0))
                judge.end(world)
        finally:
            ground.world = None
    return world


class Noted(Latest):
    """What the head-end says is durable, as it says so."""

    world: World

    def note(self, rows: Any) -> None:
        self.world.acknowledged.update(key(row) for row in rows)
        super().note(rows)


def key(row: ReadingRow) -> tuple[object, ...]:
    """A reading, whoever tells of it: meter, layout, capture time, entry hash."""
    return tuple(row[:4])


@contextmanager
def stand_ins(world: World) -> Iterator[None]:
    """Simulated time, chance, order of tasks, threads, reactor and gate, in place of the system's."""

    def wall_ns() -> int:
        try:
            return world.now_us() * 1_000
        except RuntimeError:  # before and behind the simulation
            return EPOCH_US * 1_000

    def number() -> uuid.UUID:
        return uuid.UUID(int=world.rng.getrandbits(128), version=4)

    def reactor(limits: Any, gate: Any) -> Told:
        return Told(
            world,
            world.native.start(
                gate,
                batch_rows=limits.batch_rows,
                batches=limits.queue_batches,
                queue=limits.requests_per_meter,
                connect_timeout_s=limits.connect_s,
                associate_timeout_s=limits.associate_s,
                frame_timeout_s=limits.frame_s,
                backoff_cap_s=20.0,
                authentication_pause_s=60.0,
            ),
        )

    def gate(settings: Config) -> _core.Gate:
        people = [(one.name, one.public_key, one.may_request, one.may_approve) for one in settings.principals]
        made = _core.Gate.simulated(stop_file=settings.control.stop_file, principals=people)
        world.arriving.start_soon(watch, world, made, world.lives)
        return made

    time = SimpleNamespace(time_ns=wall_ns, monotonic=trio.current_time)
    collector = SimpleNamespace(collect=int, freeze=int, unfreeze=int)
    with ExitStack() as stack:
        for module, name, stand_in in (
            (database, "time", time),
            (counters, "time", time),
            (task, "time", time),
            (task, "LOOK_S", core.LOOK_S),
            (core, "LIVES_S", LIVES_S),
            (server, "make_reactor", reactor),
            (server, "make_gate", gate),
            (server, "Latest", type("NotedHere", (Noted,), {"world": world})),
            (server, "gc", collector),
            (uuid, "uuid4", number),
            (trio.to_thread, "run_sync", world.transaction),
            (trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        ):
            stack.enter_context(mock.patch.object(module, name, stand_in))
        trio._core._run._r.seed(world.rng.getrandbits(64))
        yield


async def watch(world: World, gate: _core.Gate, life: int) -> None:
    """The stop switch's thread."""
    while world.lives == life and not world.calm:
        gate.look()
        await trio.sleep(LOOK_S)


class Ground:
    """What a seed needs of the system, made once for many: a head-end's directory, its store set back for each seed.

    As in the simulated core (`tests/unit/control/simulation.py`), SQLite's own backup sets it back, and it is not
    synced: a process that dies here dies between transactions.
    """

    def __init__(self) -> None:
        memory = Path("/dev/shm")
        self._files = tempfile.TemporaryDirectory(prefix="ipss-whole-", dir=memory if memory.is_dir() else None)
        place = Path(self._files.name)
        self.world: World | None = None
        keys = {name: eddsa.import_private_key(hashlib.sha256(name.encode()).digest()) for name in core.ALL}
        people = "".join(
            f'[[principals]]\nname = "{name}"\npublic_key = "{key.public_key().export_key(format="raw").hex()}"\n'
            "approve = true\n"
            for name, key in keys.items()
        )
        create_key_file(place / "key_encryption.key")
        (place / "head_end.toml").write_text(SETTINGS + people, encoding="utf-8")
        self.config = config.load(place / "head_end.toml")
        self.people: tuple[PrincipalConfig, ...] = self.config.principals
        self.signers = {one.name: Signer(one, keys[one.name]) for one in self.people}
        path = self.config.database.address
        assert isinstance(path, Path)
        self.database = Database(path, own=True, free=self._free)
        self.guest = Database(path, reserve_bytes=0)
        fleet = _core.Simulation(seed=0, wall_us=EPOCH_US, meters=METERS).csv()
        with self.database.writing(spend_reserve=True) as connection:
            keystore = Keystore.open(connection, self.config.keystore)
            report = import_meters(connection, keystore, fleet.splitlines(keepends=True), "fleet.csv", strict=True)
            assert report.mistakes == ()
            self.titles = {one.meter_id: one.system_title or b"" for one in registry.all_meters(connection)}
        self.database._writer.dialect.do_commit = self._commit  # type: ignore[method-assign,assignment]
        self._writer = self.database._writer.raw_connection()
        self._file = self._writer.driver_connection
        assert isinstance(self._file, sqlite3.Connection)
        self._file.execute("PRAGMA synchronous = OFF")
        self._beginning = sqlite3.connect(":memory:")
        self._file.backup(self._beginning)
        self._marker = marker_path(path)
        self._marked = self._marker.read_bytes()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._beginning.close()
        self._writer.close()
        self.guest.close()
        self.database.close()
        self._files.cleanup()

    def reopen(self) -> None:
        """The store as the next process finds it: whoever had it before is fenced."""
        self.database._failed = self.database.epoch = None
        self.database._prepare(own=True, upgrade=False)

    @contextmanager
    def afresh(self) -> Iterator[None]:
        """Everything as it was in the beginning."""
        assert isinstance(self._file, sqlite3.Connection)
        self._beginning.backup(self._file)
        self._marker.write_bytes(self._marked)
        self.config.control.stop_file.unlink(missing_ok=True)
        self.config.audit.checkpoints.unlink(missing_ok=True)
        yield

    def _free(self, _: Path) -> int:
        return 0 if self.world is not None and self.world.full else 1 << 40

    def _commit(self, connection: Any) -> None:
        if self.world is None:
            connection.commit()
        else:
            self.world.commit(connection)


SETTINGS = f"""
[keystore]
key_file = "key_encryption.key"
[metrics]
port = 0
[reactor]
counter_block = {COUNTERS}
request = "60s"
answer = "8s"
associate = "20s"
heartbeat = "40s"
[control]
per_minute = 4
per_hour = 100
fleet_per_day_least = 16
reconnects_per_day_least = 16
reconnect_window = "5s"
answer = "10s"
read_back = "10s"
[[plans]]
name = "all"
every = "10s"
objects = ["1.0.1.8.0.255", "0.0.1.0.0.255"]
profile = "1.0.99.1.0.255"
period = "{PERIOD_S}s"
"""


def digest(world: World) -> str:
    """One number for all that happened, in the head-end and on its network."""
    told = "\n".join([*world.trace, str(world.native.trace)])
    return hashlib.sha256(told.encode()).hexdigest()
