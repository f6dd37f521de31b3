"""R14, R20: commands whose meters are silent, lie, or say what is no value, and faults of the head-end's own."""

import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
import trio
from tests.unit.control import simulation
from tests.unit.control.simulation import ALL, Gate, Ground, Key, Rates, Reactor, Requests, World, stand_ins
from trio.testing import MockClock

from ipss_headend import log
from ipss_headend.config import ControlConfig, LogConfig, PrincipalConfig
from ipss_headend.errors import StoreFull
from ipss_headend.field.control import orders, readback, task
from ipss_headend.field.control.desk import Desk, transact
from ipss_headend.field.control.firmware import Firmware, Image, named
from ipss_headend.field.control.machine import State
from ipss_headend.field.control.orders import Order
from ipss_headend.field.control.readback import Seen
from ipss_headend.metrics import Figures
from ipss_headend.rings import Rings
from ipss_headend.security.audit import AuditBroken
from ipss_headend.security.principals import Signer
from ipss_headend.store import Store
from ipss_headend.store import commands as rows


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    log.configure(LogConfig(level="critical"))
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with Ground() as made:
        yield made


class House:
    """One head-end that lives, and two people."""

    def __init__(self, world: World, office: Desk, control: task.Control) -> None:
        self.world, self.office, self.control = world, office, control
        self.gate: Gate = control._gate  # type: ignore[assignment]
        self.stop_file = office.settings.stop_file
        self.broken: AuditBroken | None = None

    def approved(self, to: Any, *meters: int, life_s: float = 3_600.0) -> Order:
        """An order that two people want."""
        made = orders.switch(
            to,
            [(number, bytes([number] * 8)) for number in meters],
            reason="a fault",
            requester="ada",
            created_us=self.world.now_us(),
            life_s=life_s,
        )
        signature = self.world.signers["ada"].sign("propose", 0, made.octets())
        transact(self.world.database, lambda connection: self.office.propose(connection, made.octets(), signature))
        bob = self.world.signers["bob"]
        transact(self.world.database, lambda connection: self.office.approve(connection, made.order_id, bob))
        self.world.approved[made.order_id] = {("bob", self.world.generation)}
        self.world.of_command |= {target.command_id: made for target in made.targets}
        return made

    def commands(self, order: Order) -> list[rows.CommandRow]:
        with self.world.database.reading() as connection:
            return rows.commands_of(connection, order.order_id)

    def states(self, order: Order) -> set[str]:
        return {one.state for one in self.commands(order)}


NOTHING_FAILS = Rates(crash=0, lost_answer=0, undelivered=0, refused=0, unread=0)


def run(
    ground: Ground,
    read_back: Callable[[World], Any],
    *stories: Callable[[House], Any],
    rates: Rates = NOTHING_FAILS,
) -> None:
    """One life of a head-end after another with the same store."""
    rng = random.Random(1)
    keys = {name: Key(name.encode()) for name in ALL}
    people = tuple(PrincipalConfig(name, key.public, may_approve=True) for name, key in keys.items())
    signers = {one.name: Signer(one, keys[one.name]) for one in people}  # type: ignore[arg-type]
    with ground.afresh() as directory:
        world = World(rng, people, signers, ground.database, rates)
        settings = ControlConfig(
            stop_file=directory / "control.stop", answer_s=10.0, read_back_s=10.0, reconnect_window_s=0, lease_s=1e6
        )
        config: Any = SimpleNamespace(
            control=settings,
            principals=people,
            rollout=Rings(),
            audit=SimpleNamespace(key_file=directory / "audit.key", checkpoints=directory / "checkpoints.jsonl"),
        )

        @asynccontextmanager
        async def living() -> AsyncIterator[House]:
            async with trio.open_nursery() as world.arriving:
                with trio.CancelScope() as world.life:
                    gate = Gate(world, settings)
                    reactor = Reactor(world, gate)
                    control = task.Control(
                        config=config,
                        store=Store(world.database),
                        reactor=reactor,  # type: ignore[arg-type]
                        gate=gate,  # type: ignore[arg-type]
                        requests=Requests(reactor),  # type: ignore[arg-type]
                        read_back=read_back(world),
                        meters={one: SimpleNamespace(name=f"m{one}", group="g") for one in world.connected},  # type: ignore[misc]
                        figures=Figures(),
                        wall_us=world.now_us,
                    )
                    house = House(world, Desk(settings, people), control)
                    try:
                        await control.prepare()
                        world.arriving.start_soon(control.run)
                    except AuditBroken as error:
                        house.broken = error
                    yield house
                world.arriving.cancel_scope.cancel()

        async def main() -> None:
            for story in stories:
                world.lives += 1
                async with living() as house:
                    await story(house)

        with stand_ins(world, rng):
            trio.run(main, clock=MockClock(autojump_threshold=0))


class Silent(simulation.ReadBack):
    """Meters 1 and 2 cannot be read."""

    async def look(self, meter: int, order: Order) -> Seen:
        return Seen.NOTHING if meter <= 2 else await super().look(meter, order)


def test_meters_that_went_dark_hold_up_no_other_command(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "AT_ONCE", 2)

    async def story(house: House) -> None:
        dark = house.approved("off", 1, 2)
        await trio.sleep(120.0)
        assert house.states(dark) == {State.UNKNOWN}
        house.world.rates.lost_answer = 0.0
        other = house.approved("on", 3)
        await trio.sleep(60.0)
        assert house.states(other) == {State.CONFIRMED}
        assert all(one.alarmed for one in house.commands(dark))

    run(ground, Silent, story, rates=Rates(crash=0, lost_answer=1.0, undelivered=0, refused=0, unread=0))


class Preparing:
    """Images that take their time."""

    async def prepare(self, *_: object) -> str | None:
        await trio.sleep(24 * 3600.0)
        return ""

    async def look(self, *_: object) -> Seen:
        return Seen.NOTHING


def test_images_under_way_hold_up_no_supply(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "AT_ONCE", 1)

    def reading(world: World) -> Any:
        made: Any = simulation.ReadBack(world)
        made.firmware, made.devices = Preparing(), None
        return made

    async def story(house: House) -> None:
        image = Image.of_octets(b"M-2", b"image").order(
            [(number, bytes([number] * 8)) for number in range(1, 6)],
            reason="new",
            requester="ada",
            created_us=house.world.now_us(),
            life_s=86_400.0,
        )
        signature = house.world.signers["ada"].sign("propose", 0, image.octets())
        bob = house.world.signers["bob"]
        transact(house.world.database, lambda connection: house.office.propose(connection, image.octets(), signature))
        transact(house.world.database, lambda connection: house.office.approve(connection, image.order_id, bob))
        await trio.sleep(30.0)
        assert State.RELEASED in house.states(image)
        supply = house.approved("on", 6)
        await trio.sleep(60.0)
        assert house.states(supply) == {State.CONFIRMED}

    run(ground, reading, story)


class Faulty(simulation.ReadBack):
    """The first look ends in a fault of ours."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.faults = [TypeError("unhashable"), StoreFull("no room")]

    async def look(self, meter: int, order: Order) -> Seen:
        if self.faults:
            raise self.faults.pop(0)
        return await super().look(meter, order)


def test_a_fault_of_ours_leaves_no_command_open_and_is_an_alarm(ground: Ground) -> None:
    async def story(house: House) -> None:
        order = house.approved("off", 1)
        await trio.sleep(60.0)
        [one] = house.commands(order)
        assert (one.state, one.alarmed) == (State.CONFIRMED, 1)

    run(ground, Faulty, story)


def test_r5_a_full_disk_ends_no_head_end_and_is_waited_for(ground: Ground) -> None:
    async def story(house: House) -> None:
        store: Any = house.control._store
        change = store.change

        async def full(*_: object, **__: object) -> None:
            raise StoreFull("no room")

        order = house.approved("off", 1)
        store.change = full
        await trio.sleep(200.0)
        assert house.states(order) == {State.APPROVED}
        store.change = change
        await trio.sleep(120.0)
        assert house.states(order) == {State.CONFIRMED}

    run(ground, simulation.ReadBack, story)


class Answers:
    """A meter's own words, whatever they are."""

    def __init__(self, cells: list[bytes | None]) -> None:
        self.cells = cells

    async def ask(self, *_: object, **__: object) -> Any:
        return SimpleNamespace(line=lambda _: (*range(6), self.cells), refusals={})


class Native:
    """Decodes what the tests write."""

    def decode_data(self, octets: bytes) -> list[Any]:
        known: dict[bytes, Any] = {b"on": True, b"off": False, b"1": 1, b"0": 0, b"list": [["enum", 1]], b"text": "1"}
        if octets not in known:
            raise ValueError("cut off")
        return ["it", known[octets]]


@pytest.mark.parametrize(
    ("cells", "seen"),
    [
        ([b"off", b"0", b"1"], Seen.AS_WANTED),
        ([b"on", b"1", b"1"], Seen.OTHERWISE),
        ([b"off", b"list", b"1"], Seen.NOTHING),
        ([b"list", b"0", b"1"], Seen.NOTHING),
        ([b"0", b"0", b"1"], Seen.NOTHING),
        ([b"off", b"text", b"1"], Seen.NOTHING),
        ([b"cut", b"0", b"1"], Seen.NOTHING),
        ([None, b"0", b"1"], Seen.NOTHING),
    ],
)
def test_what_is_no_state_of_an_output_confirms_nothing_and_breaks_nothing(
    cells: list[bytes | None], seen: Seen
) -> None:
    order = orders.switch("off", [(1, bytes(8))], reason="x", requester="ada", created_us=0, life_s=60.0)
    reading = readback.ReadBack(Answers(cells), Native(), {})  # type: ignore[arg-type]

    assert trio.run(reading.look, 1, order) is seen


def test_expected_words_that_nobody_knows_are_no_fault() -> None:
    made = orders.switch("off", [(1, bytes(8))], reason="x", requester="ada", created_us=0, life_s=60.0)
    order = orders.order(
        "disconnect", made.effect, "purple", [(1, bytes(8))], reason="x", requester="ada", created_us=0, life_s=60.0
    )
    reading = readback.ReadBack(Answers([b"off", b"0", b"1"]), Native(), {})  # type: ignore[arg-type]

    assert trio.run(reading.look, 1, order) is Seen.NOTHING


class Greedy(Native):
    """A meter that wants an image octet by octet."""

    def decode_data(self, octets: bytes) -> list[Any]:
        return ["double-long-unsigned", 1]


def test_a_meter_that_wants_an_image_octet_by_octet_gets_none() -> None:
    image = Image.of_octets(b"M-2", bytes(200_000))
    bringing = Firmware(None, Answers([b""] * 6), Greedy(), {}, Path())  # type: ignore[arg-type]
    one: Any = SimpleNamespace(meter_id=1)

    async def bring() -> str:
        return await bringing._bring(one, image, bytes(200_000), None, resumes=False)  # type: ignore[arg-type]

    assert "200,000 blocks" in trio.run(bring)


@pytest.mark.parametrize(
    "shown", [7, "text", [["structure", 3]], [["structure", []]], [["s", [[1, 2], ["octet-string", "zz"]]]]]
)
def test_what_a_meter_shows_in_place_of_images_is_none(shown: Any) -> None:
    assert not named(shown, Image.of_octets(b"M-2", b"image"))
