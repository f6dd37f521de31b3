"""`ipss-headend capacity`: how many meters this machine can read with a configuration's plans, by measuring."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import trio
import typer

from ipss_headend.cli import demo, demo_result, places
from ipss_headend.cli.app import JSON, app, command
from ipss_headend.cli.output import Output, say
from ipss_headend.cli.reckoning import Demand, Limit, Machine, Measured, demand, limits, machine
from ipss_headend.cli.scratch import resident_octets, scratch
from ipss_headend.cli.simulate import raise_descriptor_limit
from ipss_headend.config import Config, LogConfig
from ipss_headend.errors import RequestError
from ipss_headend.store.database import is_there

if TYPE_CHECKING:
    from ipss_headend.server import HeadEnd

DAYS = 3
"""Of load profile that each virtual meter is read: what a store takes a line is seen by then."""

TURNS = 8
"""Of the same question to all, a second each."""

LOOK_S = 0.05

PLANS = {
    "registers": f"""
[[plans]]
name = "registers"
objects = [{", ".join(f'"{name}"' for name in demo_result.REGISTERS)}]
every = "1s"
priority = "on-demand"
""",
    "profile": f"""
[[plans]]
name = "profile"
profile = "{demo_result.PROFILE}"
period = "15min"
every = "15min"
backfill_days = {DAYS}
""",
}

CONFIG = """\
data_directory = "data"
client_system_title = "{{title}}"
[database]
reserve_mib = 0
[keystore]
key_file = "{{key_file}}"
{{accepted}}
[reactor]
threads = {threads}
connections_per_second = 1000
drain = "1s"
[metrics]
port = 0
[rpc]
socket = ""
{plans}
"""


@command(app, "capacity")
def capacity(
    *,
    seconds: Annotated[float, typer.Option(min=10, max=600, help="Measure for at most this time.")] = 30.0,
    meters: Annotated[int, typer.Option(min=10, max=5000, help="Virtual meters to measure with.")] = 500,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Measure how many meters this machine can read with the configuration's plans, and what runs out first.

    Virtual meters in a process of their own are read over loopback into a store on the configured disk, for half a
    minute. What a connection, a question and a line cost there is reckoned up for the plans, with half of processor,
    memory and speed kept free. Nothing is left behind; the configuration's own store, meters and keys are not touched.

    \b
    Example:
      ipss-headend capacity --config head_end.toml
    """
    loaded = places.load_config(config)
    if not loaded.plans:
        raise RequestError(f"{config}: no [[plans]]; what is read how often is what a machine's capacity depends on")
    notes = _notes(loaded)
    raise_descriptor_limit()
    address = loaded.database.address
    disk = address.parent if isinstance(address, Path) else loaded.data_directory
    while not disk.is_dir():
        disk = disk.parent
    with scratch(disk) as directory:
        measured = measure(loaded, directory, meters, seconds)
        here = machine(loaded)
    wanted = demand(loaded)
    found = limits(loaded, wanted, measured, here)
    first = min(found, key=lambda limit: limit.meters)
    output = Output(json_output=json_output)
    if json_output:
        output.document(
            {
                "meters": first.meters,
                "first": first.what,
                "limits": [
                    {"what": one.what, "meters": one.meters, "a_meter": one.a_meter, "there_is": one.there_is}
                    for one in found
                ],
                "demand": _fields(wanted),
                "measured": _fields(measured),
                "machine": _fields(here),
                "notes": notes,
            }
        )
        return
    _print(output, first, found, wanted, measured, notes)


def measure(config: Config, directory: Path, meters: int, seconds: float) -> Measured:
    """Read virtual meters, and take down what it cost. Takes at most so many seconds and some to stop.

    Raises:
        RequestError: the fleet did not start, or nothing was read.
    """
    ends = time.monotonic() + seconds
    say(f"starting {meters} virtual meters")
    with demo.running_fleet(directory, meters, 1, DAYS, "") as fleet:
        found = []
        for name in PLANS:
            own = directory / name
            text = CONFIG.format(
                threads=config.reactor.threads, plans=PLANS[name].replace("{", "{{").replace("}", "}}")
            )
            prepared = demo.enrolled(own, text, fleet, meters)
            left = (ends - time.monotonic()) * (0.5 if name == "registers" else 0.9)
            found.append(trio.run(_run, prepared, meters, max(left, 3.0), name))
    asked, read = found
    if not (asked.request_cpu_us and read.line_cpu_us and read.line_octets):
        raise RequestError(f"{seconds:g} s were too short to measure {meters} meters; give more, or fewer --meters")
    return Measured(
        meters=asked.associated,
        association_cpu_us=asked.associate_cpu_us,
        request_cpu_us=asked.request_cpu_us,
        line_cpu_us=read.line_cpu_us,
        lines_per_second=read.lines_per_second,
        line_octets=read.line_octets,
        meter_octets=asked.meter_octets,
    )


class _Seen:
    """What one head-end's run showed."""

    associated = 0
    associate_cpu_us = 0.0
    request_cpu_us = 0.0
    line_cpu_us = 0.0
    lines_per_second = 0.0
    line_octets = 0.0
    meter_octets = 0


async def _run(config: Config, meters: int, seconds: float, what: str) -> _Seen:
    from ipss_headend import log, server

    log.configure(LogConfig(level="error"))
    stop, seen = server.Stop(), _Seen()
    resident, cpu_s = resident_octets(), time.process_time()
    async with trio.open_nursery() as nursery:
        head_end: HeadEnd = await nursery.start(server.run, config, stop)
        with trio.move_on_after(seconds):
            if what == "registers":
                await _asked(head_end, meters, seconds, seen, resident, cpu_s)
            else:
                await _read(head_end, meters, seen, cpu_s)
        associated = head_end.reactor.stats()["associated"]
        seen.associated = max(seen.associated, associated)
        stop.ask()
    if not seen.associated:
        raise RequestError(f"no virtual meter was read within {seconds:.0f} s; give more --seconds or fewer --meters")
    return seen


async def _asked(head_end: HeadEnd, meters: int, seconds: float, seen: _Seen, resident: int, cpu_s: float) -> None:
    """Connections and associations first, then the same question again and again."""
    figures = head_end.figures
    began = trio.current_time()
    with trio.move_on_at(began + seconds / 2):
        await _until(lambda: head_end.reactor.stats()["associated"] >= meters)
    seen.associated = head_end.reactor.stats()["associated"]
    seen.associate_cpu_us = (time.process_time() - cpu_s) / max(seen.associated, 1) * 1e6
    # What came with the associations ends first: a turn of the plan.
    turns, asked = figures.plan("registers").turns, figures.ends.total()
    await _until(lambda: figures.plan("registers").turns > turns and figures.ends.total() >= asked + seen.associated)
    seen.meter_octets = max(resident_octets() - resident, 0) // max(seen.associated, 1)
    cpu_s, asked = time.process_time(), figures.ends.total()
    with trio.move_on_at(began + seconds * 0.95):
        await _until(lambda: figures.ends.total() >= asked + TURNS * seen.associated)
    seen.request_cpu_us = (time.process_time() - cpu_s) / max(figures.ends.total() - asked, 1) * 1e6


async def _until(met: Callable[[], bool]) -> None:
    while True:
        if met():
            return
        await trio.sleep(LOOK_S)


async def _read(head_end: HeadEnd, meters: int, seen: _Seen, cpu_s: float) -> None:
    """Days of load profile of every meter, as fast as it goes; what it cost is noted as it goes."""
    figures = head_end.figures
    octets = head_end.store.database.octets()
    began, wanted = trio.current_time(), meters * DAYS * 96 * 0.9
    while figures.lines < wanted:
        await trio.sleep(LOOK_S)
        if figures.lines:
            seen.line_cpu_us = (time.process_time() - cpu_s) / figures.lines * 1e6
            seen.lines_per_second = figures.lines / (trio.current_time() - began)
            seen.line_octets = (head_end.store.database.octets() - octets) / figures.lines


def _notes(config: Config) -> list[str]:
    notes = []
    if not isinstance(config.database.address, Path):
        notes.append("PostgreSQL is not measured: lines and disk are those of SQLite in the data directory")
    elif is_there(config.database.address):
        with places.open_store(config) as database:
            if database.owned_by_another():
                notes.append("a head-end runs with this configuration: this is what is left beside it")
    return notes


def _fields(what: Demand | Measured | Machine) -> dict[str, object]:
    return {name: getattr(what, name) for name in type(what).__slots__}


def _print(
    output: Output, first: Limit, found: list[Limit], wanted: Demand, measured: Measured, notes: list[str]
) -> None:
    output.line(f"{first.meters:,} meters; {first.what} runs out first")
    output.table(
        ("what", "a meter takes", "there is", "meters"),
        [
            (one.what, one.a_meter, one.there_is, f"{one.meters:,}")
            for one in sorted(found, key=lambda limit: limit.meters)
        ],
        right=("meters",),
    )
    asks, lines = wanted.requests_per_day, wanted.lines_per_day
    output.line(f"the plans ask each meter {asks:,.0f} times a day and store {lines:,.0f} lines")
    output.line(
        f"measured with {measured.meters} meters: {measured.association_cpu_us:,.0f} us of processor an association, "
        f"{measured.request_cpu_us:,.0f} us a question, {measured.line_cpu_us:,.1f} us a line of a profile; "
        f"{measured.lines_per_second:,.0f} lines a second, {measured.line_octets:,.0f} octets each on the disk; "
        f"{measured.meter_octets:,} octets of memory a meter"
    )
    for note in notes:
        say(note)
