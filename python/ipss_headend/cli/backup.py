"""`ipss-headend store backup` and `restore`: copies of a SQLite store, made while it is used, and their way back."""

from pathlib import Path
from typing import Annotated

import typer

from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, command
from ipss_headend.cli.output import Output, say
from ipss_headend.cli.store import store
from ipss_headend.config import Config
from ipss_headend.errors import RequestError
from ipss_headend.store import backup as backups
from ipss_headend.store.database import now_us


@command(store, "backup")
def backup(
    target: Annotated[
        Path | None, typer.Argument(metavar="[TARGET]", help="A file, or a directory; without, data/backups.")
    ] = None,
    *,
    keep: Annotated[
        int | None,
        typer.Option("--keep", min=1, metavar="N", help="Then remove all but the directory's newest N."),
    ] = None,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Copy a SQLite store while the head-end runs, and read the copy back whole before it has its name.

    Best onto another disk. The copy is of one moment and knows that it is one: once restored, it sends nothing before
    `keys accept-restore`. The key-encryption key is not in it; keep that elsewhere. PostgreSQL has pg_basebackup and
    pg_dump.

    \b
    Examples:
      ipss-headend store backup /mnt/backup --keep 14
      ipss-headend store backup before-upgrade.sqlite
    """
    loaded = places.load_config(config)
    source = _file(loaded, "backup")
    with places.open_store(loaded):  # there is one, of our form
        pass
    directory = loaded.data_directory / backups.DIRECTORY if target is None else target
    if target is None or target.is_dir():
        path = directory / backups.name(source, now_us())
    elif keep is not None:
        raise RequestError(f"--keep goes with a directory, and {target} is none")
    else:
        path = directory
    made = backups.make(source, path, reserve_bytes=loaded.database.reserve_mib << 20, pause=0.5)
    gone = backups.dropped(path.parent, source, keep) if keep else []
    output = Output(json_output=json_output)
    if json_output:
        shown = {"path": str(made.path), "octets": made.octets, "lines": made.lines}
        output.document(shown | {"removed": [str(old) for old in gone]})
    else:
        output.line(f"{made.path}: {made.lines} lines, {made.octets} octets, read back")
        for old in gone:
            output.line(f"{old}: removed")


@command(store, "restore")
def restore(
    copy: Annotated[Path, typer.Argument(metavar="BACKUP", help="What `store backup` made.")],
    *,
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Put a backup where the store is; what is there is set aside. The head-end must be stopped.

    The backup is read whole first. Nothing is sent to meters before `ipss-headend keys accept-restore`; what was read
    since the backup is in the meters, and plans fill it in.

    \b
    Example:
      ipss-headend store restore /mnt/backup/head_end-20260102T030405.000000Z.sqlite
      ipss-headend keys accept-restore
    """
    loaded = places.load_config(config)
    path = _file(loaded, "restore")
    aside = backups.put_back(copy, path, now_us())
    output = Output(json_output=json_output)
    if json_output:
        output.document({"store": str(path), "set_aside": [str(old) for old in aside]})
        return
    for old in aside:
        output.line(f"{old}: what was there")
    output.line(f"{path}: put back")
    say("nothing is sent before `ipss-headend keys accept-restore`")


def _file(config: Config, what: str) -> Path:
    address = config.database.address
    if not isinstance(address, Path):
        raise RequestError(f"store {what}: PostgreSQL has its own tools, pg_basebackup with WAL archiving, or pg_dump")
    return address
