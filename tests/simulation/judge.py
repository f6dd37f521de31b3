"""What must hold in the simulated whole, by the world's own book: safety at each step, liveness at the end."""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import TYPE_CHECKING

import trio
from sqlalchemy import Connection, select
from tests.unit.control import simulation as core

from ipss_headend.field.control import machine, orders
from ipss_headend.field.reactor import EventKind
from ipss_headend.store import commands as rows
from ipss_headend.store import log, readings, schema

if TYPE_CHECKING:
    from tests.simulation.world import World

KINDS = {1: "disconnect", 2: "reconnect"}
"""Of the disconnect control's methods (Blue Book)."""

ON_THE_WAY_US = 3_000_000
"""What left in time may be this late: the network's longest delay."""

ARRIVED_S = 6.0
"""What was on its way has arrived by then."""

LOOK_S = 5
"""How often it is looked whether all has come to its end."""

PROFILE, IMPORT = "1.0.99.1.0.255", "1.0.1.8.0.255"
"""The load profile, and a column of it."""


def look(world: World) -> None:
    """Judge what happened in the last turns."""
    sealed, switched, reused = world.native.seen()
    assert not reused, f"invocation counters left twice: {reused}"
    for meter in world.protected:
        world.listed_s.setdefault(meter, trio.current_time())
    for meter, request, _ in sealed:
        _judge_seal(world, meter, world.released[request])
    for index, method, wall_us in switched:
        _judge_switch(world, index + 1, KINDS[method], wall_us)


def _judge_seal(world: World, meter: int, command: bytes) -> None:
    order = world.of_command[command]
    world.sealed.append((trio.current_time(), command))
    world.note("sealed", meter, command.hex())
    core.judge_seal(world, order, command, meter)
    [target] = [one for one in order.targets if one.command_id == command]
    assert target.meter_id == meter, "sealed for another meter"
    if order.kind in orders.MAY_CUT:
        listed_s = world.listed_s.get(meter, trio.current_time())
        assert trio.current_time() < listed_s + core.HEARD_S, "a protected meter was cut"
    world.open_seals.append((meter, order, command))


def _judge_switch(world: World, meter: int, kind: str, wall_us: int) -> None:
    world.note("executed", meter, kind)
    fits = [one for one in world.open_seals if one[0] == meter and one[1].kind == kind]
    assert fits, f"meter {meter} did a {kind} that nobody sent, or did it twice"
    _, order, command = fits[-1]
    world.open_seals.remove(fits[-1])
    world.executed[command] += 1
    assert wall_us < order.not_after_us + ON_THE_WAY_US, "done when its time was over"
    world.connected[meter] = kind == "reconnect"


async def wait(world: World, patience_s: float) -> None:
    """Wait until nothing is open and all is read; no longer than everything may take."""
    with trio.move_on_after(patience_s):
        for moment_s in count(int(trio.current_time()), LOOK_S):
            await trio.sleep_until(moment_s)
            if not _unfinished(world):
                break
        await trio.sleep(ARRIVED_S)


def _unfinished(world: World) -> bool:
    with world.guest.reading() as connection:
        return bool(rows.counts(connection, machine.OPEN)) or bool(_missing(world, connection))


def _missing(world: World, connection: Connection) -> set[tuple[int, int]]:
    """Meter and capture time of what the meters have captured and the store has not."""
    wanted = {(meter, at_us) for meter in world.connected for at_us in world.captured_us()}
    return wanted - set(_profile_lines(connection))


def _profile_lines(connection: Connection) -> dict[tuple[int, int], readings.Line]:
    lines = list(readings.series(connection, *_told(connection)))
    found = {(line.meter_id, line.capture_time_us): line for line in lines}
    assert len(found) == len(lines), "a reading is there twice"
    return found


def _told(connection: Connection) -> tuple[list[int], list[int]]:
    """The meters, and the layouts of their load profile."""
    layouts = select(schema.layouts.c.layout_id).where(schema.layouts.c.logical_name == PROFILE)
    meters = select(schema.meters.c.meter_id)
    return list(connection.scalars(meters)), list(connection.scalars(layouts))


def end(world: World) -> None:
    """Everything is at its end, and what the rows say is what happened."""
    core.judge_end(world)
    with world.guest.reading() as connection:
        missing = _missing(world, connection)
        assert not missing, f"{len(missing)} readings never came, such as {min(missing)}"
        _judge_readings(world, connection)
        for kind in connection.scalars(select(schema.events.c.kind)):
            world.seen[f"event {EventKind(kind).label}"] += 1


def _judge_readings(world: World, connection: Connection) -> None:
    stored = Counter(
        (row.meter_id, row.layout_id, row.capture_time_us, row.entry_hash)
        for row in connection.execute(select(schema.readings))
    )
    assert max(stored.values()) == 1
    lost = set(world.acknowledged) - set(stored)
    assert not lost, f"{len(lost)} acknowledged readings are not there, such as {min(lost)}"
    assert readings.verify(connection).sound
    columns = schema.layout_columns.c
    for line in _profile_lines(connection).values():
        chosen = select(columns.place).where(columns.layout_id == line.layout_id, columns.logical_name == IMPORT)
        meant = world.native.import_at(line.meter_id - 1, line.capture_time_us)
        assert line.cells[connection.scalars(chosen).one()] == meant, "a reading is not what the meter measured"
    _judge_log(connection, set(stored))
    world.seen["readings"] += len(stored)


def _judge_log(connection: Connection, stored: set[tuple[object, ...]]) -> None:
    """Whoever reads the log gets every reading, without a gap; what a meter said twice may be there twice (R6)."""
    told: set[tuple[object, ...]] = set()
    cursor = 0
    while entries := list(log.after(connection, cursor, limit=500)):
        for entry in entries:
            assert entry.sequence == cursor + 1, "the log has a gap"
            cursor = entry.sequence
            if entry.topic == log.READINGS:
                told.update(tuple(row[:4]) for row in entry.rows)
    assert told == stored, "the log and the readings differ"
