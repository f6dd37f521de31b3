"""`ipss-headend firmware`: images for meters, by the path of every critical command."""

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, app, command
from ipss_headend.cli.control import DryRun, KeyFile, Number, Targets, ask
from ipss_headend.cli.control_tools import order_of, order_shown, show
from ipss_headend.cli.output import Output
from ipss_headend.errors import ConfigError
from ipss_headend.field.control.firmware import Image
from ipss_headend.field.control.orders import Order
from ipss_headend.store import commands as rows

firmware = typer.Typer(name="firmware", help="Images for meters.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(firmware)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The image, as the manufacturer delivers it.")]
Identifier = Annotated[
    str, typer.Option("--identifier", help="The image's identifier, as the manufacturer states it; 0x... for octets.")
]


@command(firmware, "show")
def show_(file: File, *, identifier: Identifier = "", json_output: JSON = False) -> None:
    r"""Show an image's size and SHA-256, to be compared with what the manufacturer states.

    \b
    Example:
      ipss-headend firmware show meter-2.7.bin
    """
    image = Image.of_octets(_identifier(identifier, file), _read(file))
    show(
        json_output,
        {"file": str(file), "identifier": image.identifier.hex(), "size": image.size, "sha256": image.digest.hex()},
    )


@command(firmware, "propose")
def propose(
    file: File,
    targets: Targets,
    *,
    identifier: Identifier = "",
    reason: Annotated[str, typer.Option("--reason", help="Why; stands in the audit trail.")],
    not_after: Annotated[str, typer.Option("--not-after", help="How long it may take, at most 30d.")] = "30d",
    activate_at: Annotated[
        str,
        typer.Option("--activate-at", metavar="TIME", help="Activate then, as 2026-12-01T02:00+01:00; never before."),
    ] = "",
    order: Number = "",
    dry_run: DryRun = False,
    key: KeyFile = None,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Ask for an image to be brought to meters, verified there, and activated. Nothing happens before an approval.

    What they approve names the image: identifier, size and SHA-256. It goes out in rings; too many meters that fail or
    fall silent halt it (`control release` by a second person lets it go on). With --activate-at, meters get the image
    and verify it as soon as their ring's turn comes, and activate it at that moment; rings whose turn comes later do so
    at once.

    \b
    Example:
      ipss-headend firmware propose meter-2.7.bin group:district-3 --identifier M-2.7 --reason "security" --key ada.key
    """
    octets = _read(file)
    image = Image.of_octets(_identifier(identifier, file), octets, _moment_us(activate_at))
    if not dry_run:
        _keep(image, octets, places.load_config(config).data_directory / "firmware")

    def make(meters: list[tuple[int, bytes]], **common: Any) -> Order:
        return image.order(meters, **common)

    ask(make, targets, reason, not_after, order, key, config, dry_run=dry_run, json_output=json_output)


@command(firmware, "status")
def status(
    order: Annotated[str | None, typer.Argument(help="One order, with each meter.  [default: those made last]")] = None,
    *,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Show how firmware goes on: how many meters are at which step, and of one order each meter's blocks.

    \b
    Example:
      ipss-headend firmware status 3f1c
    """
    loaded, output = places.load_config(config), Output(json_output=json_output)
    with places.open_store(loaded) as database:
        number = None if order is None else order_of(database, order)[0]
        with database.reading() as connection:
            chosen = [rows.order_of(connection, number)] if number else rows.newest_orders(connection, 1000)
            listed = [
                order_shown(connection, row, whole=number is not None)
                for row in chosen
                if row is not None and row.kind == "firmware"
            ]
    if json_output:
        output.document({"orders": listed})
    elif number is not None:
        lines = [(one["meter"], one["state"], one["detail"]) for shown in listed for one in shown["commands"]]
        output.table(("meter", "state", "detail"), lines)
    else:
        names = ("order", "requester", "meters", "states", "reason")
        output.table(names, [tuple(shown[name] for name in names) for shown in listed])


def _moment_us(text: str) -> int:
    """When to activate, 0 for at once."""
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ConfigError(f"--activate-at: {text} is no moment; expected one with its zone, as 2026-12-01T02:00+01:00")
    return int(moment.timestamp()) * 1_000_000


def _identifier(text: str, file: Path) -> bytes:
    """What the meter is told; the file's name without its ending if nothing else is said."""
    try:
        return bytes.fromhex(text.removeprefix("0x")) if text.startswith("0x") else (text or file.stem).encode()
    except ValueError:
        raise ConfigError(f"--identifier: {text} are no hexadecimal digits") from None


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}; expected an image") from error


def _keep(image: Image, octets: bytes, directory: Path) -> None:
    """Put it where the head-end finds it, under its SHA-256: durable before anybody can approve it."""
    directory.mkdir(parents=True, exist_ok=True)
    path = image.path(directory)
    beside = path.with_suffix(".new")
    with beside.open("wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
