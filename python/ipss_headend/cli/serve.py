"""`ipss-headend serve`, `check-config` and `init`: the head-end itself, and the files that it begins with."""

import secrets
from pathlib import Path
from typing import Annotated

import trio
import typer

from ipss_headend import config as configuration
from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, app, command
from ipss_headend.cli.output import Output, say
from ipss_headend.cli.simulate import raise_descriptor_limit, write_private
from ipss_headend.errors import BAD_INPUT, DONE, ConfigError
from ipss_headend.security.keystore import create_key_file
from ipss_headend.store.database import Database

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The configuration file.")]

KEY_FILE = "key_encryption.key"

ACCEPTED = "software_accepted = true"

STARTER = """\
# The head-end's configuration. Paths are relative to this file.
# `ipss-headend check-config head_end.toml` tells every mistake.

data_directory = "data"

# The zone that plans' times of day are in. Readings are stored in UTC.
time_zone = "UTC"

# This head-end's own system title: another for each head-end of a utility, never a meter's.
client_system_title = "{title}"

[database]
url = "sqlite:///head_end.sqlite"

[keystore]
# The key that wraps all meters' keys. Keep a copy of it in a safe place: without it the meters' keys are lost.
key_file = "{key_file}"
# It lies beside the store and is as safe as this machine, so `serve` warns. In production a PKCS#11 module keeps it
# (`ipss-headend keys ceremony`); who accepts it as it is says so here.
{accepted}

[reactor]
connections_per_second = 200    # new connections, the whole fleet together
attempts = 3                    # tries of a request when the line breaks under it

# Where meters that dial in arrive; uncomment if you have such.
# [[listeners]]
# host = "0.0.0.0"
# port = 4059

# What is read, how often. Objects are logical names, with class and attribute where the catalogue is to be overruled.
[[plans]]
name = "billing registers"
objects = ["1.0.1.8.0.255", "1.0.2.8.0.255"]
every = "1d at 00:10"
window = "5min"                 # meters are spread over this time

[[plans]]
name = "load profile"
profile = "1.0.99.1.0.255"
period = "15min"
every = "15min"
window = "1min"
backfill_days = 40              # how far back gaps are filled

[[plans]]
name = "clock check"
objects = ["8/0.0.1.0.0.255:2"]
every = "1h"

# How long readings stay; older months go into archives. Without this all stay. See docs/operations.md.
# [retention]
# months = 36

[metrics]
host = "127.0.0.1"              # /metrics for Prometheus, /healthz
port = 9466

[log]
level = "info"
json = false
"""


@command(app, "serve")
def serve(config: ConfigFile) -> None:
    r"""Run the head-end until SIGTERM or Ctrl-C, which finish what is under way; a second one stops at once.

    \b
    Example:
      ipss-headend serve head_end.toml
    """
    loaded = places.load_config(config)
    from ipss_headend import log, server

    raise_descriptor_limit()
    log.configure(loaded.log)
    trio.run(server.serve, loaded)


@command(app, "check-config")
def check_config(config: ConfigFile, *, json_output: JSON = False) -> int:
    r"""Tell every mistake of a configuration, with its file and key, and of the files that it names.

    Keys and certificates are looked at, plugins are looked for, ports are compared with each other; nothing is made,
    and no database, port or module is opened.

    \b
    Examples:
      ipss-headend check-config head_end.toml
      ipss-headend check-config head_end.toml --json
    """
    output = Output(json_output=json_output)
    mistakes: tuple[str, ...] = ()
    said: list[str] = []
    try:
        loaded = configuration.load(config)
    except ConfigError as error:
        mistakes = error.mistakes
    else:
        from ipss_headend.cli import config_check

        mistakes = tuple(config_check.inspected(loaded, config.name))
        said = config_check.remarks(loaded)
    if json_output:
        output.document({"file": str(config), "ok": not mistakes, "mistakes": list(mistakes), "remarks": said})
    for line in (*mistakes, *said):
        say(line)
    if not mistakes and not json_output:
        output.line(f"{config}: good")
    return BAD_INPUT if mistakes else DONE


@command(app, "init")
def init(
    directory: Annotated[Path, typer.Argument(help="Where to put the files; made if it is not there.")],
    *,
    accept_software_key: Annotated[
        bool, typer.Option("--accept-software-key", help="A key file is safe enough here; `serve` does not warn.")
    ] = False,
    json_output: JSON = False,
) -> None:
    r"""Make a configuration to begin with: a commented head_end.toml, a fresh key-encryption key, an empty store.

    \b
    Example:
      ipss-headend init /srv/head-end
      ipss-headend meters import fleet.csv --config /srv/head-end/head_end.toml
      ipss-headend serve /srv/head-end/head_end.toml
    """
    path, key_path = make_head_end(directory, accept_software_key=accept_software_key)
    output = Output(json_output=json_output)
    if json_output:
        output.document({"config": str(path), "key_file": str(key_path)})
        return
    output.line(f"{path}: the configuration, to be read and changed")
    output.line(f"{key_path}: the key that wraps the meters' keys; keep a copy of it in a safe place")
    output.line("next:")
    output.line(f"  ipss-headend meters import FLEET.csv --config {path}")
    output.line(f"  ipss-headend serve {path}")


def make_head_end(directory: Path, text: str = STARTER, *, accept_software_key: bool = False) -> tuple[Path, Path]:
    """Write a configuration with its key file and an empty store; returns where the first two are.

    `accept_software_key`: the configuration says that a key in software is wanted.

    Raises:
        ConfigError: something is there already, or cannot be written.
    """
    path, key_path = directory / places.CONFIG_NAME, directory / KEY_FILE
    for taken in (path, key_path):
        if taken.exists():
            raise ConfigError(f"{taken}: is there already; nothing was changed. Name another directory")
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        create_key_file(key_path)
    except OSError as error:
        raise ConfigError(f"{directory}: {error.strerror or error}") from error
    title = (b"IPS" + secrets.token_bytes(5)).hex()
    write_private(
        path, text.format(title=title, key_file=KEY_FILE, accepted=ACCEPTED if accept_software_key else f"# {ACCEPTED}")
    )
    loaded = configuration.load(path)
    Database(loaded.database.address, reserve_bytes=0).close()
    return path, key_path
