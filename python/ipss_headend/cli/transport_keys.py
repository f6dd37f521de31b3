"""`ipss-headend keys transport`: under these keys manufacturers wrap those that they ship."""

import getpass
from pathlib import Path
from typing import Annotated

import typer

from ipss_headend.cli import places
from ipss_headend.cli.app import JSON, command
from ipss_headend.cli.control_tools import show
from ipss_headend.cli.keys import keys
from ipss_headend.errors import ConfigError, RequestError
from ipss_headend.security import audit, private_file, transport
from ipss_headend.security.keystore import Keystore

transports = typer.Typer(
    name="transport", help="Manufacturers' transport keys.", no_args_is_help=True, rich_markup_mode=None
)
keys.add_typer(transports)

Name = Annotated[str, typer.Argument(metavar="NAME", help="What it is called here.")]


@command(transports, "add")
def add(
    name: Name,
    *,
    key_file: Annotated[Path, typer.Option("--key-file", help="The key in hexadecimal digits; mode 0600.")],
    config: places.CONFIG = places.DEFAULT_CONFIG,
    json_output: JSON = False,
) -> None:
    r"""Keep a transport key, wrapped like meters' keys. Destroy the file afterwards.

    \b
    Example:
      ipss-headend keys transport add acme-2026 --key-file acme.hex
    """
    loaded = places.load_config(config)
    text = private_file.private_text(key_file, "transport")
    try:
        key = bytes.fromhex(text)
    except ValueError:
        raise ConfigError(f"{key_file}: not hexadecimal digits") from None
    with places.open_store(loaded, create=True) as database, database.writing() as connection:
        transport.add(connection, Keystore.open(connection, loaded.keystore), name, key)
        audit.append(connection, "transport key added", getpass.getuser(), name, {})
    show(json_output, {"added": name})


@command(transports, "list")
def list_(*, config: places.CONFIG = places.DEFAULT_CONFIG, json_output: JSON = False) -> None:
    r"""List the transport keys by name.

    \b
    Example:
      ipss-headend keys transport list
    """
    loaded = places.load_config(config)
    with places.open_store(loaded) as database, database.reading() as connection:
        show(json_output, {"transport_keys": transport.names(connection)})


@command(transports, "remove")
def remove(name: Name, *, config: places.CONFIG = places.DEFAULT_CONFIG, json_output: JSON = False) -> None:
    r"""Forget a transport key. Meters that came under it keep theirs.

    \b
    Example:
      ipss-headend keys transport remove acme-2026
    """
    loaded = places.load_config(config)
    with places.open_store(loaded) as database, database.writing() as connection:
        if not transport.remove(connection, name):
            raise RequestError(f"no transport key is called {name}; `keys transport list` shows all")
        audit.append(connection, "transport key removed", getpass.getuser(), name, {})
    show(json_output, {"removed": name})
