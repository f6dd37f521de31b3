"""Inverters, storage and sub-meters in the demo: read beside the meters, limited, and let go without a word."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import trio

from ipss_headend.cli import places
from ipss_headend.cli.output import say
from ipss_headend.config import Config
from ipss_headend.errors import ConfigError, HeadEndError
from ipss_headend.field.der.setpoints import SECOND_US, Function, SetPoint
from ipss_headend.field.fleet import import_meters
from ipss_headend.security.keystore import Keystore
from ipss_headend.store.database import now_us

if TYPE_CHECKING:
    from ipss_headend import _core
    from ipss_headend.field.fleet import FleetMeter
    from ipss_headend.server import HeadEnd

REVERT_S = 2
"""The devices' own timers."""

LIMIT_PERCENT = 40
LOOK_S = 0.1
LONGEST_S = 15.0
"""How long the demo waits for them."""

POWER = ((701, "W"), (203, "W"))
ENABLED = (704, "WMaxLimPctEna")


@contextmanager
def running(seed: int) -> Iterator[_core.VirtualDevices]:
    """A few virtual devices, until the block ends.

    Raises:
        ConfigError: no port for them.
    """
    from ipss_headend import _core

    try:
        devices = _core.VirtualDevices(inverters=3, storage=1, submeters=1, seed=seed, port=0)
    except OSError as error:
        raise ConfigError(f"the virtual inverters did not start: {error}") from error
    try:
        yield devices
    finally:
        devices.stop()


def enrol(config: Config, devices: _core.VirtualDevices) -> None:
    """Put them into the registry.

    Raises:
        ConfigError: they were refused.
    """
    counts: dict[str, int] = {}
    lines = ["name,address,model\n"]
    for url, kind in devices.devices():
        counts[kind] = counts.get(kind, 0) + 1
        lines.append(f"{kind}-{counts[kind]},{url},sunspec\n")
    with places.open_store(config) as database, database.writing() as connection:
        keystore = Keystore.open(connection, config.keystore)
        report = import_meters(connection, keystore, io.StringIO("".join(lines)), "devices")
    if report.mistakes:
        raise ConfigError(*report.mistakes)


async def show(head_end: HeadEnd, found: list[dict[str, Any]], shown: trio.Event) -> None:
    """Limit every device that can be, let go of it, and note when it went back by itself."""
    try:
        async with trio.open_nursery() as nursery:
            for meter in head_end.set_points.devices():
                row: dict[str, Any] = {
                    "device": meter.name,
                    "power_w": None,
                    "limit_percent": None,
                    "power_limited_w": None,
                    "reverted_after_s": None,
                }
                found.append(row)
                nursery.start_soon(_device, head_end, meter, row)
    finally:
        shown.set()


async def _device(head_end: HeadEnd, meter: FleetMeter, row: dict[str, Any]) -> None:
    desk = head_end.set_points
    try:
        said = await desk.read(meter, list(POWER))
        row["power_w"] = _power(said)
        if not (await desk.line(meter)).has(ENABLED):
            return
        moment_us = now_us()
        wish = SetPoint(
            Function.ACTIVE_POWER_LIMIT,
            Decimal(LIMIT_PERCENT),
            "demo",
            10,
            moment_us,
            moment_us + 60 * SECOND_US,
            REVERT_S,
        )
        kept = await desk.set(meter, wish)
        await kept.settled.wait()
        said = await desk.read(meter, [*POWER, ENABLED, (704, "WMaxLimPct")])
        if said.get(ENABLED) == 1:
            row["limit_percent"] = float(said[704, "WMaxLimPct"])
            row["power_limited_w"] = _power(said)
            say(f"{meter.name}: limited to {row['limit_percent']:g} %; letting go")
        await desk.abandon(meter)
        let_go_s = trio.current_time()
        for _ in range(int(LONGEST_S / LOOK_S)):
            await trio.sleep(LOOK_S)
            if (await desk.read(meter, [ENABLED])).get(ENABLED) != 1:
                row["reverted_after_s"] = round(trio.current_time() - let_go_s, 1)
                return
    except HeadEndError as error:
        say(f"{meter.name}: {error}")


def _power(said: dict[tuple[int, str], Decimal]) -> float | None:
    return next((float(said[place]) for place in POWER if place in said), None)
