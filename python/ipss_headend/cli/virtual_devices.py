"""Virtual Modbus devices beside the virtual meters of `simulate`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from ipss_headend.cli.output import say
from ipss_headend.errors import ConfigError, RequestError

MODBUS_PORT = 5020
"""Not 502, which only root may bind."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where on earth virtual devices stand: the sun follows from it."""

    latitude_deg: int = 50
    longitude_deg: int = 0

    @classmethod
    def at_noon(cls, now: datetime) -> Self:
        """A place on the equator where it is noon: there is sun for hours, whatever the hour and the season here."""
        minutes = now.astimezone(UTC).hour * 60 + now.astimezone(UTC).minute
        return cls(0, -(-(12 * 60 - minutes) // 4))

    def clock(self, now: datetime) -> str:
        """The time of day there by the sun, `12:03`."""
        return f"{now.astimezone(UTC) + timedelta(minutes=4 * self.longitude_deg):%H:%M}"

    def __str__(self) -> str:
        """In words: `the equator, 33 degrees east`."""
        north = f"{abs(self.latitude_deg)} degrees {'north' if self.latitude_deg > 0 else 'south'}"
        east = f"{abs(self.longitude_deg)} degrees {'east' if self.longitude_deg >= 0 else 'west'}"
        return f"{north if self.latitude_deg else 'the equator'}, {east}"


@contextmanager
def running_devices(
    *,
    inverters: int,
    storage: int,
    submeters: int,
    seed: int,
    port: int,
    listed: Path | None,
    place: Place = Place(),
    connections: int = 4,
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
        devices = _core.VirtualDevices(
            inverters=inverters,
            storage=storage,
            submeters=submeters,
            seed=seed,
            port=port,
            latitude_deg=place.latitude_deg,
            longitude_deg=place.longitude_deg,
            connections=connections,
        )
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
        say(f"they stand at {place}, where it is {place.clock(datetime.now(UTC))} by the sun")
        say(f"each takes {connections} connection{'s' if connections > 1 else ''} at once")
        yield
    finally:
        devices.stop()
