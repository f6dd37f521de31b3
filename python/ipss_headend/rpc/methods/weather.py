"""`weather.*`: what another system observes and expects, for the rules that are asked before a supply is cut."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Literal

import msgspec
from sqlalchemy import Connection

from ipss_headend.network import unknown_node
from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import Change, Params, Result, method
from ipss_headend.rpc.faults import Fault
from ipss_headend.security.permission import Right
from ipss_headend.store import weather
from ipss_headend.store.database import now_us
from ipss_headend.store.weather import AHEAD_US, EVERYWHERE, FORECASTS, KEPT_US, OBSERVATIONS, Weather, WeatherArea

MOST_LETTERS = 200
SOON_US = 300_000_000
"""A clock that is so far ahead of ours may say what it observes."""
LIMITS: dict[str, tuple[int, int]] = {
    "temperature_c": (-100, 70),
    "feels_like_c": (-120, 90),
    "humidity_percent": (0, 100),
    "wind_m_s": (0, 150),
    "gust_m_s": (0, 150),
    "precipitation_mm": (0, 2000),
    "snow_cm": (0, 2000),
}
"""The least and the most that a value can be; what is beyond is a mistake."""


class Moment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The weather at one moment; numbers are decimal texts."""

    at_ms: int
    temperature_c: str | None = None
    feels_like_c: str | None = None
    humidity_percent: str | None = None
    wind_m_s: str | None = None
    gust_m_s: str | None = None
    precipitation_mm: str | None = None
    """Within the hour before."""
    snow_cm: str | None = None
    warning: str | None = None
    """An official warning, in words."""


class Put(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The weather of an area: a node of the network, a group of meters, or everywhere if neither is named."""

    node: str | None = None
    group: str | None = None
    source: str
    """Who says so."""
    observations: list[Moment] = msgspec.field(default_factory=list)
    """Two days back at most."""
    forecasts: list[Moment] | None = None
    """They take the place of the area's earlier ones; None: these stay. Sixteen days ahead at most."""


class Kept(Result, frozen=True):
    """What was kept."""

    observations: int
    forecasts: int


class Asked(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An area as in `weather.put`, or a meter: then it is what rules would be told of it now."""

    node: str | None = None
    group: str | None = None
    point: str | None = None


class Told(msgspec.Struct, frozen=True):
    """The weather at one moment."""

    at_ms: int
    values: dict[str, str]
    """By the names of `weather.put`."""
    source: str


class Known(Result, frozen=True):
    """What is known, by time."""

    area_kind: Literal["node", "group", "everywhere"] | None
    """None: nothing is known for this meter."""
    area: str
    observations: list[Told]
    forecasts: list[Told]


@method("weather.put", Right.MANAGE)
async def put(call: Call, params: Put) -> Kept:
    """Keep observations and forecasts of an area. Needs the right for the group, or for all meters."""
    area = _area(call, params.node, params.group)
    allowed = call.principal.may(Right.MANAGE, area.name) if area.kind == "group" else False
    if not (allowed or call.principal.everywhere(Right.MANAGE)):
        raise Fault("E_DENIED", "this area is not in your scope")
    if len(params.source) > MOST_LETTERS or not params.source.isprintable() or not params.source:
        raise Fault("E_PARAMS", f"source: say who says so, in at most {MOST_LETTERS} letters")
    now = now_us()
    seen = _moments("observations", params.observations, OBSERVATIONS, now - KEPT_US, now + SOON_US)
    ahead = _moments("forecasts", params.forecasts or [], FORECASTS, now - KEPT_US, now + AHEAD_US)
    forecasts = None if params.forecasts is None else ahead
    if not await call.services.store.change(
        lambda connection: weather.put(connection, area, seen, forecasts, params.source, now)
    ):
        raise Fault("E_BUSY", f"there is weather of {weather.AREAS} areas; no more are kept")
    return Kept(observations=len(seen), forecasts=len(ahead))


@method("weather.get", Right.VIEW, example={})
async def get(call: Call, params: Asked) -> Known:
    """The weather of an area, or the nearest that is known of a meter, as rules are told of it."""
    now = now_us()
    if params.point is not None:
        if params.node is not None or params.group is not None:
            raise Fault("E_PARAMS", "name a node, a group or a point")
        meter = call.meter(params.point, Right.VIEW)
        areas = call.services.judge.areas(meter.name, meter.group)
    else:
        area = _area(call, params.node, params.group)
        if area.kind == "group" and not call.reaches(area.name):
            raise Fault("E_UNKNOWN", f'group "{area.name}" is not in your scope')
        areas = [area]

    def known(connection: Connection) -> Known:
        for one in areas:
            seen = weather.of(connection, one, "observation", now - KEPT_US)
            ahead = weather.of(connection, one, "forecast", now)
            if seen or ahead or len(areas) == 1:
                return Known(area_kind=one.kind, area=one.name, observations=_told(seen), forecasts=_told(ahead))
        return Known(area_kind=None, area="", observations=[], forecasts=[])

    return await call.services.store.read(known)


def _area(call: Call, node: str | None, group: str | None) -> WeatherArea:
    if node is not None and group is not None:
        raise Fault("E_PARAMS", "name a node or a group")
    if node is not None:
        known = call.services.topology.now.nodes
        if node not in known:
            raise Fault("E_UNKNOWN", unknown_node(node, known))
        return WeatherArea("node", node)
    return EVERYWHERE if group is None else WeatherArea("group", group)


def _moments(name: str, given: list[Moment], most: int, least_us: int, most_us: int) -> list[Weather]:
    if len(given) > most:
        raise Fault("E_PARAMS", f"{name}: {len(given)}; at most {most}")
    found = []
    for number, one in enumerate(given, 1):
        at_us = one.at_ms * 1000
        if not least_us <= at_us <= most_us:
            raise Fault("E_PARAMS", f"{name}: {number}: at_ms {one.at_ms} is too long ago, or too far ahead")
        values: dict[str, float | str] = {
            field: _number(f"{name}: {number}: {field}", text, *limits)
            for field, limits in LIMITS.items()
            if (text := getattr(one, field)) is not None
        }
        if one.warning is not None:
            if len(one.warning) > MOST_LETTERS or not one.warning.isprintable():
                raise Fault("E_PARAMS", f"{name}: {number}: warning: at most {MOST_LETTERS} letters")
            values["warning"] = one.warning
        if not values:
            raise Fault("E_PARAMS", f"{name}: {number}: it says nothing")
        found.append(Weather(at_us, values))
    return found


def _number(where: str, text: str, least: int, most: int) -> float:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if len(text) > 24 or not value.is_finite() or not least <= value <= most:
        raise Fault("E_PARAMS", f'{where}: "{text[:24]}" is no number from {least} to {most}')
    return float(value)


def _told(found: list[Weather]) -> list[Told]:
    return [
        Told(
            one.at_us // 1000,
            {name: value if isinstance(value, str) else f"{value:.12g}" for name, value in one.values.items()},
            one.source,
        )
        for one in found
    ]
