"""Observations and forecasts of the weather, as others put them, by area; kept within bounds.

An area is a node of the network, a group of meters, or everywhere. Who asks for a meter gets the nearest area's that is
fresh: up its path, then its group's, then everywhere's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgpack
from sqlalchemy import Connection, delete, func, select

from ipss_headend.store.schema import weather
from ipss_headend.store.statements import run

AreaKind = Literal["node", "group", "everywhere"]
Kind = Literal["observation", "forecast"]

FRESH_US = 3 * 3_600_000_000
"""An observation is of now for so long."""
KEPT_US = 2 * 86_400_000_000
"""Older observations and forecasts are dropped."""
AHEAD_US = 16 * 86_400_000_000
"""No forecast is for later than this."""
OBSERVATIONS = 200
"""The newest of an area that are kept."""
FORECASTS = 400
"""Of an area: hours of sixteen days, with some room."""
AREAS = 20_000
"""More areas are refused."""


class WeatherArea(NamedTuple):
    """Where a weather is."""

    kind: AreaKind
    name: str
    """Empty: everywhere."""


EVERYWHERE = WeatherArea("everywhere", "")


class Weather(NamedTuple):
    """The weather at one moment."""

    at_us: int
    values: Mapping[str, float | str]
    """By names that say their units, `temperature_c`, and `warning`, a text."""
    source: str = ""
    received_us: int = 0


def put(
    connection: Connection,
    area: WeatherArea,
    observations: Sequence[Weather],
    forecasts: Sequence[Weather] | None,
    source: str,
    now_us: int,
) -> bool:
    """Keep observations, and forecasts in the place of the area's earlier ones; None: these stay.

    Of one moment the newest stands. False: there are too many areas, and nothing was kept.
    """
    run(connection, "DELETE FROM weather WHERE at_us < ?", (now_us - KEPT_US,))
    here = (weather.c.area_kind == area.kind) & (weather.c.area == area.name)
    if not connection.scalar(select(func.count()).select_from(weather).where(here)) and _areas(connection) >= AREAS:
        return False
    if forecasts is not None:
        connection.execute(delete(weather).where(here & (weather.c.kind == "forecast")))
    rows = [
        (area.kind, area.name, kind, one.at_us, msgpack.packb(dict(one.values)), source, now_us)
        for kind, found in (("observation", observations), ("forecast", forecasts or ()))
        for one in found
    ]
    if rows:
        run(connection, _PUT, rows)
    for kind, most in (("observation", OBSERVATIONS), ("forecast", FORECASTS)):
        own = here & (weather.c.kind == kind)
        chosen = select(weather.c.at_us).where(own).order_by(weather.c.at_us.desc()).offset(most).limit(1)
        beyond = connection.scalar(chosen)
        if beyond is not None:
            connection.execute(delete(weather).where(own & (weather.c.at_us <= beyond)))
    return True


def of(connection: Connection, area: WeatherArea, kind: Kind, since_us: int) -> list[Weather]:
    """What is known of an area from this moment on, by time."""
    chosen = select(weather).where(
        weather.c.area_kind == area.kind,
        weather.c.area == area.name,
        weather.c.kind == kind,
        weather.c.at_us >= since_us,
    )
    return [
        Weather(row.at_us, msgpack.unpackb(row.content), row.source, row.received_us)
        for row in connection.execute(chosen.order_by(weather.c.at_us))
    ]


def nearest(connection: Connection, areas: Sequence[WeatherArea], now_us: int) -> dict[str, Any]:
    """The weather as hooks are told of it: the nearest area's that is fresh; empty: none is known.

    The newest observation's values stand for themselves, with `at_us` and `area`; `forecast` has the hours from now on.
    """
    told: dict[str, Any] = {}
    for area in areas:
        seen = [one for one in of(connection, area, "observation", now_us - FRESH_US) if one.at_us <= now_us]
        if seen:
            told = {**seen[-1].values, "at_us": seen[-1].at_us, "area": area.name, "area_kind": area.kind}
            break
    for area in areas:
        ahead = of(connection, area, "forecast", now_us)
        if ahead:
            told["forecast"] = [{**one.values, "at_us": one.at_us} for one in ahead]
            break
    return told


def _areas(connection: Connection) -> int:
    own = select(weather.c.area_kind, weather.c.area).distinct().subquery()
    return connection.scalar(select(func.count()).select_from(own)) or 0


_PUT = (
    "INSERT INTO weather (area_kind, area, kind, at_us, content, source, received_us) VALUES (?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (area_kind, area, kind, at_us) DO UPDATE SET content = excluded.content, source = excluded.source, "
    "received_us = excluded.received_us"
)
