"""R17: the stop switch and whoever takes it back, within one look of the head-end."""

from collections.abc import Iterator

import pytest
import structlog
import trio
from tests.unit.control import simulation
from tests.unit.control.simulation import Ground, ReadBack
from tests.unit.control.test_faults import House, run

from ipss_headend import log
from ipss_headend.config import LogConfig
from ipss_headend.store import commands as rows


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    log.configure(LogConfig(level="critical"))
    yield
    structlog.reset_defaults()


def test_a_resume_stands_though_no_look_saw_the_stop_before_it() -> None:
    async def stop_and_resume(house: House) -> None:
        control, world = house.control, house.world
        await trio.sleep(3.0)
        assert not control._gate.stopped

        control._gate.stop()  # as the thread does that looks for the file
        simulation.resume(world, house.office, control._settings)
        await trio.sleep(3.0)

        assert not control._gate.stopped
        assert control._gate.generation == world.generation
        with world.database.reading() as connection:
            assert not rows.control(connection).stopped

    with Ground() as ground:
        run(ground, ReadBack, stop_and_resume)


def test_a_stop_behind_a_resume_stands_though_one_look_saw_both() -> None:
    async def resume_and_stop(house: House) -> None:
        control, world = house.control, house.world
        await trio.sleep(3.0)

        simulation.resume(world, house.office, control._settings)
        control._settings.stop_file.touch()
        control._gate.stop()
        await trio.sleep(3.0)

        assert control._gate.stopped
        with world.database.reading() as connection:
            assert rows.control(connection).stopped

    with Ground() as ground:
        run(ground, ReadBack, resume_and_stop)
