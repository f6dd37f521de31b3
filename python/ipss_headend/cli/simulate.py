"""`ipss-headend simulate`: virtual meters on this machine, and the file that a head-end imports them from."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import trio
import typer

from ipss_headend.cli.app import JSON, app, command
from ipss_headend.cli.output import Output, say
from ipss_headend.cli.virtual_devices import MODBUS_PORT, Place, running_devices
from ipss_headend.config import DLMS_PORT
from ipss_headend.errors import ConfigError, RequestError

if TYPE_CHECKING:
    from ipss_headend._core import VirtualFleet

FIRST_ADDRESS = "127.1.0.1"


class VirtualAuth(StrEnum):
    """What virtual meters know: all but a manufacturer's own."""

    NONE = "none"
    LOW = "low"
    HLS_MD5 = "hls-md5"
    HLS_SHA1 = "hls-sha1"
    HLS_GMAC = "hls-gmac"
    HLS_SHA256 = "hls-sha256"
    HLS_ECDSA = "hls-ecdsa"


class VirtualTransport(StrEnum):
    """How virtual meters frame what they say."""

    TCP = "tcp"
    HDLC = "hdlc"
    UDP = "udp"


FRAMINGS: dict[VirtualTransport, Literal["wrapper", "datagram", "hdlc"]] = {
    VirtualTransport.TCP: "wrapper",
    VirtualTransport.HDLC: "hdlc",
    VirtualTransport.UDP: "datagram",
}


class VirtualProtection(StrEnum):
    """What virtual meters know."""

    NONE = "none"
    AUTH = "auth"
    ENC = "enc"
    BOTH = "auth+enc"


@command(app, "simulate")
def simulate(
    *,
    meters: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many.")] = 100,
    csv: Annotated[Path | None, typer.Option(help="Write the file for `meters import` here, secrets included.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same meters, keys and consumption.")] = 1,
    first_address: Annotated[str, typer.Option(help="Address of the first meter; the others follow.")] = FIRST_ADDRESS,
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port of all; 0 for any.")] = DLMS_PORT,
    faults: Annotated[
        str, typer.Option(help="Shares of bad meters, or their numbers from 0, e.g. slow=5%,silent=#3+17.")
    ] = "",
    auth: Annotated[VirtualAuth, typer.Option(help="How they prove who they are.")] = VirtualAuth.HLS_GMAC,
    suite: Annotated[int, typer.Option(min=0, max=2, help="Security suite; hls-ecdsa needs 1 or 2.")] = 0,
    protection: Annotated[
        VirtualProtection | None, typer.Option(help="How they protect APDUs.  [default: auth+enc with hls-...]")
    ] = None,
    dedicated: Annotated[bool, typer.Option("--dedicated", help="Protect by a key for each association.")] = False,
    capture_period: Annotated[int, typer.Option(help="Seconds between entries of the load profile.")] = 900,
    days: Annotated[int, typer.Option(min=1, max=366, help="Days of load profile that they begin with.")] = 90,
    transport: Annotated[VirtualTransport, typer.Option(help="tcp, udp: the wrapper; hdlc: HDLC over TCP.")] = (
        VirtualTransport.TCP
    ),
    behind: Annotated[
        int, typer.Option(min=1, max=1000, help="Meters behind each address, as logical devices of a concentrator.")
    ] = 1,
    quirk: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="What they do in their own way; may be given more than once."),
    ] = None,
    max_pdu: Annotated[int, typer.Option(min=128, max=65535, help="Octets of their largest APDU.")] = 1024,
    dial: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Connect to a head-end that listens there, all of them.")
    ] = None,
    inverters: Annotated[int, typer.Option(min=0, help="Virtual inverters beside them: SunSpec over Modbus TCP.")] = 0,
    storage: Annotated[int, typer.Option(min=0, help="Virtual battery storage, the same way.")] = 0,
    submeters: Annotated[int, typer.Option(min=0, help="Virtual sub-meters, the same way.")] = 0,
    latitude: Annotated[
        int, typer.Option(min=-90, max=90, help="Where these stand, in degrees north: their sun.")
    ] = 50,
    longitude: Annotated[int, typer.Option(min=-180, max=180, help="The same, in degrees east.")] = 0,
    modbus_connections: Annotated[int, typer.Option(min=1, max=64, help="Connections that each takes at once.")] = 4,
    modbus_port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port of these; 0 for any.")] = MODBUS_PORT,
    devices: Annotated[Path | None, typer.Option(help="Write a list of these here: URL and kind.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="End after this time.  [default: Ctrl-C]")] = None,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between lines of figures.")] = 5.0,
    until_input_ends: Annotated[bool, typer.Option("--until-input-ends", hidden=True)] = False,
    threads: Annotated[int, typer.Option(min=1, max=64, help="Threads that answer.")] = 1,
    json_output: JSON = False,
) -> None:
    r"""Run virtual meters until Ctrl-C: households, shops and solar roofs, each at an address of its own.

    Faults: slow, silent, reset, wrong-tag, replay, truncated-block, clock-bad. With --json a line of figures each
    --every seconds is one JSON document. The keys follow from the seed: they protect nothing.

    \b
    Examples:
      ipss-headend simulate --meters 1000 --csv fleet.csv
      ipss-headend simulate --meters 20 --auth hls-ecdsa --suite 2 --protection auth+enc --csv fleet.csv
      ipss-headend simulate --meters 50 --faults slow=10%,wrong-tag=#3 --seconds 60
      ipss-headend simulate --meters 5 --transport hdlc --csv fleet.csv
      ipss-headend simulate --meters 60 --behind 20 --csv fleet.csv
      ipss-headend simulate --meters 1 --max-pdu 200 --quirk with_list_limit=1
      ipss-headend simulate --meters 20 --inverters 5 --storage 2 --submeters 3 --devices devices.csv
      ipss-headend simulate --meters 200 --dial 127.0.0.1:4060 --csv fleet.csv
    """
    if protection is None:
        high = auth not in (VirtualAuth.NONE, VirtualAuth.LOW)
        protection = VirtualProtection.BOTH if high else VirtualProtection.NONE
    from ipss_headend import _core

    raise_descriptor_limit()
    try:
        fleet = _core.VirtualFleet(
            count=meters,
            seed=seed,
            first_address=first_address,
            port=port,
            faults=faults,
            authentication=auth.value,
            suite=suite,
            protection=protection.value,
            dedicated=dedicated,
            capture_period_s=capture_period,
            history_days=days,
            threads=threads,
            transport="udp" if transport is VirtualTransport.UDP else "tcp",
            link=_core.Link(FRAMINGS[transport]),
            behind=behind,
            max_pdu=max_pdu,
            quirks=[_quirk(text) for text in quirk or ()],
        )
    except (ValueError, OverflowError) as error:
        raise RequestError(f"simulate: {error}") from error
    except OSError as error:
        raise ConfigError(f"{error}; choose another --port, or 0 for any") from error
    try:
        if csv is not None:
            text = fleet.csv(dials_in=dial is not None)
            write_private(csv, with_transport(text) if transport is VirtualTransport.HDLC else text)
        if dial is not None:
            try:
                fleet.dial(dial)
            except ValueError as error:
                raise RequestError(f"--dial: {error}") from error
        where = f"dial {dial}" if dial is not None else f"answer from {first_address} on, port {fleet.port}"
        say(f"{meters} virtual meters {where}" + (f"; {csv} lists them" if csv is not None else ""))
        with running_devices(
            inverters=inverters,
            storage=storage,
            submeters=submeters,
            seed=seed,
            port=modbus_port,
            listed=devices,
            place=Place(latitude, longitude),
            connections=modbus_connections,
        ):
            trio.run(_watch, fleet, seconds, every, Output(json_output=json_output), until_input_ends)
    finally:
        fleet.stop()


def _quirk(text: str) -> tuple[str, bool | int | str]:
    """A named quirk of `protocols/dlms/src/quirks.rs` and its value."""
    name, equals, value = text.partition("=")
    if not equals or value in {"true", "false"}:
        return name, value != "false"
    return name, int(value) if value.isdecimal() else value


async def _watch(
    fleet: VirtualFleet, seconds: float | None, every_s: float, output: Output, until_input_ends: bool
) -> None:
    """Tell how it goes until the time is over or a signal comes."""
    started = trio.current_time()
    with (
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals,
        trio.move_on_after(float("inf") if seconds is None else seconds),
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drop, fleet)
            nursery.start_soon(_tell, fleet, every_s, output, started)
            if until_input_ends:
                nursery.start_soon(_until_input_ends, nursery.cancel_scope)
            async for _ in signals:
                nursery.cancel_scope.cancel()
                break
    if output.json_output:
        output.document(figures(fleet, trio.current_time() - started))


async def _until_input_ends(over: trio.CancelScope) -> None:
    """Whoever started us holds the other end of our standard input, and lets go of it however it ends."""
    while True:
        await trio.lowlevel.wait_readable(sys.stdin.fileno())
        if not os.read(sys.stdin.fileno(), 4096):
            over.cancel()
            return


async def _tell(fleet: VirtualFleet, every_s: float, output: Output, started: float) -> None:
    while True:
        await trio.sleep(every_s)
        now = figures(fleet, trio.current_time() - started)
        if output.json_output:
            output.document(now)
        else:
            say(
                f"{now['elapsed_s']:8.0f} s  {now['connections']} connections  {now['associated']} associations  "
                f"{now['octets_in']} octets in  {now['octets_out']} out"
            )


async def _drop(fleet: VirtualFleet) -> None:
    """Take what the meters tell; a queue that nobody empties would hold them up."""
    while True:
        while fleet.take() is not None:
            pass
        await trio.lowlevel.wait_readable(fleet.fileno())


def with_transport(text: str) -> str:
    """The fleet file of meters that are spoken to over HDLC."""
    header, *lines = text.splitlines()
    return "\n".join([f"{header},transport", *(f"{line},hdlc+tcp" for line in lines)]) + "\n"


def figures(fleet: VirtualFleet, elapsed_s: float) -> dict[str, float | int]:
    """How the fleet does."""
    return {"elapsed_s": round(elapsed_s, 3), **fleet.stats()}


def write_private(path: Path, text: str) -> None:
    """Write a file with secrets: whole or not at all, for this user only.

    Raises:
        ConfigError: it cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"{path}: {error.strerror or error}") from error


def raise_descriptor_limit() -> None:
    """Take all file descriptors that this process may have: a connection is one."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
