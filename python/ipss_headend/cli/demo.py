"""`ipss-headend demo`: a virtual fleet and a head-end on this machine, from nothing to every meter read."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import trio
import typer

from ipss_headend import config as configuration
from ipss_headend.cli import demo_der, demo_result, demo_view, places
from ipss_headend.cli.app import JSON, app, command
from ipss_headend.cli.demo_result import Goal, Result
from ipss_headend.cli.output import Output, say
from ipss_headend.cli.serve import make_head_end
from ipss_headend.cli.simulate import raise_descriptor_limit
from ipss_headend.config import DLMS_PORT, Config, LogConfig
from ipss_headend.errors import ConfigError, HeadEndError, RequestError
from ipss_headend.field.fleet import import_meters
from ipss_headend.security.keystore import Keystore
from ipss_headend.store import registry

if TYPE_CHECKING:
    from ipss_headend.server import HeadEnd, Stop

START_S = 60.0
"""How long the fleet may take to start; a million meters take some of it."""

STOP_S = 20.0
"""How long the head-end may take to finish what is under way."""

QUIET_S = 3.0
"""When every meter was tried and no line came for this long, the rest will not come."""

LOOK_S = 0.25
"""How often the figures are looked at."""

CONFIG = """\
# The demo's head-end: {meters} virtual meters, seed {seed}.
data_directory = "data"
client_system_title = "{{title}}"

[keystore]
key_file = "{{key_file}}"
{{accepted}}

[reactor]
connections_per_second = 1000
request = "{request}s"
drain = "5s"

[[plans]]
name = "{registers_plan}"
objects = [{objects}]
every = "15min"
priority = "on-demand"

[[plans]]
name = "{profile_plan}"
profile = "{profile}"
period = "15min"
every = "15min"
backfill_days = {days}

[metrics]
port = 0
"""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The virtual meters, in a process of their own."""

    process: subprocess.Popen[bytes]
    csv: Path
    port: int


@command(app, "demo")
def demo(
    *,
    meters: Annotated[int, typer.Option(min=1, max=100_000, help="How many virtual meters.")] = 1000,
    days: Annotated[int, typer.Option(min=1, max=90, help="Days of load profile to read of each.")] = 3,
    seconds: Annotated[float, typer.Option(min=1, help="Read for at most this time.")] = 120.0,
    directory: Annotated[
        Path | None, typer.Option(help="Where configuration and database go.  [default: a temporary directory]")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep/--no-keep", help="Keep the temporary directory.")] = True,
    faults: Annotated[str, typer.Option(help="Bad meters, as `simulate` takes them, e.g. slow=5%,silent=1%.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same meters.")] = 1,
    json_output: JSON = False,
) -> int:
    r"""Start virtual meters and a head-end, read every meter once in full, and show what came of it.

    The head-end keeps one authenticated, ciphered association with each meter (HLS-GMAC, suite 0), reads registers and
    the load profile of the last days, and stores every value durably in SQLite. The exit status is 0 only if every
    meter was read and nothing is missing, 8 if some were.

    \b
    Examples:
      ipss-headend demo
      ipss-headend demo --meters 200 --directory first-look
      ipss-headend demo --meters 50 --faults silent=#3,wrong-tag=#7 --seconds 20 --json
    """
    if directory is not None and (directory / places.CONFIG_NAME).exists():
        raise ConfigError(f"{directory}: has a head-end already; name another --directory")
    raise_descriptor_limit()
    output = Output(json_output=json_output)
    chosen = directory or Path(tempfile.mkdtemp(prefix="ipss-headend-demo-"))
    try:
        say(f"starting {meters} virtual meters")
        with running_fleet(chosen, meters, seed, days, faults) as fleet, demo_der.running(seed) as devices:
            config = prepare(chosen, fleet, meters, seed, days, seconds)
            demo_der.enrol(config, devices)
            goal = Goal(meters, days, time.time_ns() // 1000)
            result = trio.run(_operate, config, goal, fleet, seconds, output)
        if json_output:
            output.document(demo_result.document(result))
        else:
            demo_view.summary(output, result, commands(result, chosen, fleet.port, seed) if keep else [])
        return result.exit_status
    finally:
        if not keep and directory is None:
            shutil.rmtree(chosen, ignore_errors=True)


@contextmanager
def running_fleet(directory: Path, meters: int, seed: int, days: int, faults: str) -> Iterator[Fleet]:
    """The virtual meters, until the block ends; should this process die, they see it and end too.

    Raises:
        RequestError, ConfigError: they did not start, and why.
    """
    directory.mkdir(parents=True, exist_ok=True)
    csv, port = directory / "fleet.csv", _free_port()
    csv.unlink(missing_ok=True)
    with (directory / "fleet.log").open("w+b") as log:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [
                *(sys.executable, "-m", "ipss_headend.cli", "simulate", "--until-input-ends", "--every", "5"),
                *("--meters", str(meters), "--seed", str(seed), "--port", str(port), "--days", str(days + 1)),
                *("--csv", str(csv), "--faults", faults),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the head-end, which drains while its meters still answer
        )
        try:
            deadline = time.monotonic() + START_S
            while not csv.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    words = log.read(4000).decode(errors="replace").strip() or f"none within {START_S:g} s"
                    raise RequestError(f"the virtual meters did not start: {words.removeprefix('ipss-headend: ')}")
                time.sleep(0.02)
            yield Fleet(process, csv, port)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()


def prepare(directory: Path, fleet: Fleet, meters: int, seed: int, days: int, seconds: float) -> Config:
    """A configuration, its store, and the fleet in the registry.

    Raises:
        ConfigError: the directory cannot be written to, or the fleet's file was refused.
    """
    text = CONFIG.format(
        meters=meters,
        seed=seed,
        days=days,
        request=int(max(seconds / 4, 5)),
        registers_plan=demo_result.REGISTERS_PLAN,
        profile_plan=demo_result.PROFILE_PLAN,
        profile=demo_result.PROFILE,
        objects=", ".join(f'"{name}"' for name in demo_result.REGISTERS),
    )
    return enrolled(directory, text, fleet, meters)


def enrolled(directory: Path, text: str, fleet: Fleet, meters: int) -> Config:
    """The configuration of this text, its store, and the fleet in the registry.

    Raises:
        ConfigError: the directory cannot be written to, or the fleet's file was refused.
    """
    path, _ = make_head_end(directory, text)
    config = configuration.load(path)
    with places.open_store(config) as database, database.writing() as connection:
        keystore = Keystore.open(connection, config.keystore)
        with fleet.csv.open(encoding="utf-8", newline="") as lines:
            report = import_meters(
                connection, keystore, lines, fleet.csv.name, client_system_title=config.client_system_title
            )
        count = len(registry.all_meters(connection))
    if report.mistakes or count != meters:
        raise ConfigError(*(report.mistakes or (f"{fleet.csv}: {count} meters, expected {meters}",)))
    say(f"{count} meters imported, their keys wrapped")
    return config


async def _operate(config: Config, goal: Goal, fleet: Fleet, seconds: float, output: Output) -> Result:
    """Be the head-end until all is read, the time is over, or somebody asks to stop."""
    from ipss_headend import log, server

    log.configure(LogConfig(level="error"))
    stop, over = server.Stop(), trio.Event()
    cpu_s, started_s = time.process_time(), trio.current_time()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hear, signals, stop)
            head_end: HeadEnd = await nursery.start(_serve, config, stop, over)
            show = demo_der.Show(head_end.set_points)
            nursery.start_soon(show.run)
            with demo_view.View(output, goal, show.devices) as view:
                show.redraw = view.redraw
                await _watch(head_end, goal, view, fleet, seconds)
                duration_s = trio.current_time() - started_s
                cpu_s = time.process_time() - cpu_s
                await _look_on(head_end, goal, view, show, duration_s)
            show.end()
            associated = head_end.reactor.stats()["associated"] - len(head_end.devices)
            stop.drain.set()
            with trio.move_on_after(STOP_S):
                await over.wait()
            nursery.cancel_scope.cancel()
    ders = [device.document() for device in show.devices]
    return demo_result.result(config, goal, head_end.figures, associated, duration_s, cpu_s, ders)


async def _serve(config: Config, stop: Stop, over: trio.Event, task_status: trio.TaskStatus[HeadEnd]) -> None:
    from ipss_headend import server

    try:
        await server.run(config, stop, task_status=task_status)
    finally:
        over.set()


async def _hear(signals: AsyncIterator[int], stop: Stop) -> None:
    async for _ in signals:
        stop.ask()


async def _watch(head_end: HeadEnd, goal: Goal, view: demo_view.View, fleet: Fleet, seconds: float) -> None:
    """Show how it goes until it is over."""
    started_s = grown_s = trio.current_time()
    lines = 0
    while True:
        elapsed_s = trio.current_time() - started_s
        if head_end.figures.lines != lines:
            lines, grown_s = head_end.figures.lines, trio.current_time()
        is_stuck = goal.is_tried(head_end.figures) and trio.current_time() - grown_s > QUIET_S
        now = demo_view.Now.of(head_end, goal, elapsed_s)
        view.show(now)
        if (goal.is_reached(head_end.figures, head_end.devices.lines) and len(head_end.requests) == 0) or is_stuck:
            return
        if elapsed_s >= seconds or head_end.stop.drain.is_set():
            return
        if fleet.process.poll() is not None:
            raise HeadEndError(f"the virtual meters ended with status {fleet.process.returncode}")
        await trio.sleep(LOOK_S)


async def _look_on(head_end: HeadEnd, goal: Goal, view: demo_view.View, show: demo_der.Show, elapsed_s: float) -> None:
    """Show on until every device has gone back by itself."""
    started_s = trio.current_time() - elapsed_s
    with trio.move_on_after(demo_der.LONGEST_S):
        while not show.over.is_set() and not head_end.stop.drain.is_set():
            view.show(demo_view.Now.of(head_end, goal, trio.current_time() - started_s))
            await trio.sleep(LOOK_S)
    view.show(demo_view.Now.of(head_end, goal, trio.current_time() - started_s), last=True)


def commands(result: Result, directory: Path, port: int, seed: int) -> list[str]:
    """What to try next; each works as it stands."""
    config = directory / places.CONFIG_NAME
    meter = result.samples[0]["meter"] if result.samples else "virtual-00001"
    fleet = f"ipss-headend simulate --meters {result.meters} --seed {seed}"
    return [
        f"ipss-headend readings query {meter} 1.0.1.8.0.255 --config {config}",
        f"ipss-headend readings export readings.parquet --format parquet --config {config}",
        fleet + (f" --port {port} &" if port != DLMS_PORT else " &"),
        f"ipss-headend read {meter} 1.0.1.8.0.255 0.0.1.0.0.255 --config {config}",
        f"ipss-headend serve {config}",
        f"rm -r {directory}",
    ]


def _free_port() -> int:
    """The registered port of DLMS if nobody has it, else any."""
    for port in (DLMS_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("0.0.0.0", port))  # noqa: S104 - where the fleet will listen
                return int(probe.getsockname()[1])
    raise ConfigError(f"no free port: {os.strerror(98)}")
