"""What `check-config` sees beyond the file: what `serve` would stumble over later."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ipss_headend.address import Server
from ipss_headend.config import Config
from ipss_headend.errors import HeadEndError
from ipss_headend.field.devices import load_maps
from ipss_headend.plugins import source
from ipss_headend.rpc.tls import Door
from ipss_headend.security.keystore import check_source


def inspected(config: Config, name: str) -> list[str]:
    """The mistakes, in the order of the sections. `name` is the file's."""
    found = [
        *_directory(config),
        *_database(config),
        *_told(lambda: check_source(config.keystore)),
        *_listeners(config),
        *_plans(config),
        *_files("modbus", authorities=config.modbus.authorities, certificate=config.modbus.certificate),
        *_files("modbus", key=config.modbus.key),
        *_plugins(config),
    ]
    if config.rpc.port:
        found += _told(lambda: Door(config.rpc))
    found = [f"{name}: {mistake}" for mistake in found]
    return found + _told(lambda: load_maps(config.data_directory / "maps"))


def remarks(config: Config) -> list[str]:
    """What is no mistake and yet may not be meant."""
    said = []
    if not config.plans:
        said.append("no [[plans]]: nothing is read by itself")
    if config.metrics.port == 0:
        said.append("[metrics] port = 0: nobody is told when something goes wrong")
    return said


def _told(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except HeadEndError as error:
        return str(error).splitlines()
    return []


def _directory(config: Config) -> Iterator[str]:
    place = config.data_directory
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        yield f"data_directory: {place} is no directory; name one"
    elif not os.access(place, os.W_OK | os.X_OK):
        yield f"data_directory: {place} cannot be written to by this user; name another, or be the head-end's user"


def _database(config: Config) -> Iterator[str]:
    address = config.database.address
    if isinstance(address, Server) and address.password_file is not None:
        yield from _files("database", password_file=address.password_file)


def _listeners(config: Config) -> Iterator[str]:
    taken: dict[tuple[str, int], list[tuple[str, str]]] = {}

    def take(transport: str, host: str, port: int, place: str) -> Iterator[str]:
        others = taken.setdefault((transport, port), [])
        for other, where in others:
            if port and (host == other or {host, other} & _EVERYWHERE):
                yield f"{place}: {host}:{port} is {where}'s too; give each its own port"
        others.append((host, place))

    for number, listener in enumerate(config.listeners):
        if listener.transport == "mbus":
            device = Path(listener.line.partition("?")[0])
            if not device.exists():
                yield f"listeners[{number}].line: {device} is not there; is the converter plugged in?"
            continue
        yield from take(listener.transport, listener.host, listener.port, f"listeners[{number}]")
    yield from take("tcp", config.metrics.host, config.metrics.port, "metrics")
    yield from take("tcp", config.rpc.host, config.rpc.port, "rpc")


def _plans(config: Config) -> Iterator[str]:
    from ipss_headend import _core

    for number, plan in enumerate(config.plans):
        for key, names in (("objects", plan.objects), ("columns", plan.columns)):
            for place, one in enumerate(names):
                octets = bytes(map(int, one.logical_name.split(".")))
                if one.class_id is None and _core.catalogue(octets) is None:
                    yield (
                        f"plans[{number}].{key}[{place}]: {one.logical_name}: the catalogue does not know this object; "
                        f"write its class too, such as 3/{one.logical_name}"
                    )


def _plugins(config: Config) -> Iterator[str]:
    for name in config.plugins.enabled:
        for mistake in _told(lambda name=name: source.find(name)):  # type: ignore[misc]
            yield f"plugins.enabled: {mistake}"


def _files(section: str, **files: Path | None) -> Iterator[str]:
    for key, path in files.items():
        if path is None:
            continue
        if not path.is_file():
            yield f"{section}.{key}: {path} is not there; make it, or name the right file"
        elif not os.access(path, os.R_OK):
            yield f"{section}.{key}: {path} cannot be read by this user; run this as the head-end's user"


_EVERYWHERE = {"0.0.0.0", "::"}  # noqa: S104 - compared only
