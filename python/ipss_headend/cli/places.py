"""Where commands find things when they are not told: the configuration file, the store, this client's own files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ipss_headend import config as configuration
from ipss_headend.config import Config
from ipss_headend.errors import ConfigError
from ipss_headend.store.database import Database, is_there

CONFIG_NAME = "head_end.toml"

CONFIG = Annotated[
    Path,
    typer.Option("--config", envvar="IPSS_HEADEND_CONFIG", help="The head-end's configuration file."),
]
DEFAULT_CONFIG = Path(CONFIG_NAME)


def client_directory() -> Path:
    """Where this user's own client keeps its invocation counters: IPSS_HEADEND_DATA, or the XDG state directory."""
    if chosen := os.environ.get("IPSS_HEADEND_DATA"):
        return Path(chosen)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "ipss-headend"


def load_config(path: Path) -> Config:
    """The configuration, or what is wrong with it and how to get one.

    Raises:
        ConfigError: all mistakes, one a line.
    """
    if not path.exists():
        raise ConfigError(
            f"{path}: no such file; name a configuration with --config, or make one with `ipss-headend init DIRECTORY`"
        )
    return configuration.load(path)


@contextmanager
def open_store(config: Config, *, create: bool = False) -> Iterator[Database]:
    """The head-end's store, as a guest beside the head-end.

    Raises:
        ConfigError: there is none, and it is not to be made.
    """
    store = config.database
    if not create and not is_there(store.address):
        raise ConfigError(f"{store.name}: no store yet; `ipss-headend meters import` or `ipss-headend serve` makes it")
    with Database(store.address, reserve_bytes=config.database.reserve_mib << 20) as database:
        yield database
