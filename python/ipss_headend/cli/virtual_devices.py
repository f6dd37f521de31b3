"""Virtual Modbus devices beside the virtual meters of `simulate`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ipss_headend.cli.output import say
from ipss_headend.errors import ConfigError, RequestError

MODBUS_PORT = 5020
"""Not 502, which only root may bind."""


@contextmanager
def running_devices(
    *, inverters: int, storage: int, submeters: int, seed: int, port: int, listed: Path | None
) -> Iterator[None]:
    """The devices, until the block ends; nothing if none are wanted.

    Raises:
        RequestError: as many cannot be.
        ConfigError: the port cannot be bound, or the list cannot be written.
    """
    if inverters + storage + submeters == 0:
        yield
        return
    from ipss_headend import _core

    try:
        devices = _core.VirtualDevices(inverters=inverters, storage=storage, submeters=submeters, seed=seed, port=port)
    except (ValueError, OverflowError) as error:
        raise RequestError(f"simulate: {error}") from error
    except OSError as error:
        raise ConfigError(f"{error}; choose another --modbus-port, or 0 for any") from error
    try:
        known = devices.devices()
        if listed is not None:
            try:
                listed.write_text("".join(["address,kind\n", *(f"{url},{kind}\n" for url, kind in known)]))
            except OSError as error:
                raise ConfigError(f"{listed}: {error.strerror or error}") from error
        say(
            f"{inverters} inverters, {storage} storage and {submeters} sub-meters answer from {known[0][0]} on"
            + (f"; {listed} lists them" if listed is not None else "")
        )
        yield
    finally:
        devices.stop()
