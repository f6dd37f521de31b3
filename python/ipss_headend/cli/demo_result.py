"""What the demo wants to read, what it has read, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from ipss_headend.cli import places
from ipss_headend.config import Config
from ipss_headend.errors import DONE, PARTLY_DONE, UNREACHABLE
from ipss_headend.schedule import DAY_S, SECOND_US
from ipss_headend.store import registry
from ipss_headend.store.export import Selection, time_text, values
from ipss_headend.store.marks import completeness
from ipss_headend.store.readings import latest

if TYPE_CHECKING:
    from ipss_headend.metrics import Figures
    from ipss_headend.store.registry import Layout, Meter

REGISTERS_PLAN = "registers"
PROFILE_PLAN = "load profile"
REGISTERS = ("1.0.1.8.0.255", "1.0.2.8.0.255", "1.0.32.7.0.255")
PROFILE = "1.0.99.1.0.255"
IMPORT = "1.0.1.8.0.255"
PERIOD_S = 900

SETTLED_US = 30 * SECOND_US
"""A capture time younger than this at the start is not counted as missing: a meter's clock may be behind."""

ANSWERED = (0, 1)
"""The outcomes of requests that the meter answered: done and refused."""

SAMPLE_METERS = 3


@dataclass(frozen=True, slots=True)
class Goal:
    """Every meter's registers, and its load profile of the last days."""

    meters: int
    days: int
    started_us: int

    @property
    def from_us(self) -> int:
        """The first capture time wanted. One period of slack: a quarter-hour may pass while the demo reads."""
        return self._edge_us(self.started_us) - (self.days * DAY_S - PERIOD_S) * SECOND_US

    @property
    def until_us(self) -> int:
        """Behind the last capture time that every meter must have had."""
        return self._edge_us(self.started_us - SETTLED_US)

    @property
    def lines(self) -> int:
        """How many lines that are: one a register, one a profile's entry."""
        return self.meters * (len(REGISTERS) + (self.until_us - self.from_us) // (PERIOD_S * SECOND_US))

    def is_tried(self, figures: Figures) -> bool:
        """Whether every meter was asked for everything, and has answered or failed."""
        registers, profile = figures.plan(REGISTERS_PLAN), figures.plan(PROFILE_PLAN)
        return registers.turns > 0 and profile.turns > 0 and profile.backfill_pending == 0

    def is_reached(self, figures: Figures, others: int = 0) -> bool:
        """Whether all lines are in; `others` are lines of Modbus devices."""
        return self.is_tried(figures) and figures.lines - others >= self.lines

    @staticmethod
    def _edge_us(moment_us: int) -> int:
        return moment_us // (PERIOD_S * SECOND_US) * PERIOD_S * SECOND_US + SECOND_US


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it."""

    meters: int
    associated: int
    meters_read: int
    """Meters of which nothing is missing."""
    requests: int
    succeeded: int
    outcomes: dict[str, int]
    lines: int
    values: int
    gaps: int
    """Lines that should be there and are not."""
    p50_ms: float | None
    p99_ms: float | None
    duration_s: float
    cpu_s: float
    database: str
    database_octets: int
    samples: list[dict[str, Any]] = field(default_factory=list)
    curve: list[float] = field(default_factory=list)
    """Average power of the first sample meter in each capture period, in watts, oldest first."""
    curve_of: str = ""
    ders: list[dict[str, Any]] = field(default_factory=list)
    """Inverters, storage and sub-meters, and how each was limited and went back."""

    @property
    def exit_status(self) -> int:
        """0 only if every meter was read and nothing is missing."""
        if self.meters_read == self.meters and self.gaps == 0:
            return DONE
        return PARTLY_DONE if self.lines else UNREACHABLE

    @property
    def success_percent(self) -> float:
        """Requests that their meter answered."""
        return 100 * self.succeeded / self.requests if self.requests else 0.0

    @property
    def values_per_second(self) -> float:
        """Values made durable, from the head-end's start to the last one."""
        return self.values / self.duration_s if self.duration_s else 0.0


def document(result: Result) -> dict[str, Any]:
    """The result as `--json` gives it."""
    return {
        "meters": result.meters,
        "associated": result.associated,
        "meters_read": result.meters_read,
        "requests": result.requests,
        "succeeded": result.succeeded,
        "failed": result.requests - result.succeeded,
        "success_percent": round(result.success_percent, 3),
        "outcomes": result.outcomes,
        "lines_stored": result.lines,
        "values_stored": result.values,
        "values_per_second": round(result.values_per_second, 1),
        "gaps": result.gaps,
        "p50_ms": result.p50_ms,
        "p99_ms": result.p99_ms,
        "duration_s": round(result.duration_s, 3),
        "cpu_s": round(result.cpu_s, 3),
        "database": result.database,
        "database_octets": result.database_octets,
        "samples": result.samples,
        "ders": result.ders,
    }


def result(
    config: Config,
    goal: Goal,
    figures: Figures,
    associated: int,
    duration_s: float,
    cpu_s: float,
    ders: list[dict[str, Any]],
) -> Result:
    """Count what is in the store; nothing is taken from what the head-end says of itself but the times."""
    from ipss_headend.field.reactor import Outcome

    with places.open_store(config) as database, database.reading() as connection:
        fleet = [
            one for one in registry.all_meters(connection) if not str(one.protocol["transport"]).startswith("modbus")
        ]
        layouts = registry.all_layouts(connection)
        missing = _missing(connection, goal, fleet, layouts)
        samples = _samples(connection, fleet, layouts)
        curve = _curve(connection, goal, fleet[0], layouts) if fleet else []
        octets = database.octets()
    return Result(
        meters=goal.meters,
        associated=associated,
        meters_read=sum(count == 0 for count in missing.values()),
        requests=figures.ends.total(),
        succeeded=sum(figures.ends[outcome] for outcome in ANSWERED),
        outcomes={Outcome(number).label: count for number, count in sorted(figures.ends.items())},
        lines=figures.lines,
        values=figures.values,
        gaps=sum(missing.values()),
        p50_ms=_ms(figures, 0.5),
        p99_ms=_ms(figures, 0.99),
        duration_s=duration_s,
        cpu_s=cpu_s,
        database=config.database.name,
        database_octets=octets,
        samples=samples,
        curve=curve,
        curve_of=fleet[0].name if fleet else "",
        ders=ders,
    )


def _missing(connection: Connection, goal: Goal, fleet: list[Meter], layouts: dict[int, Layout]) -> dict[int, int]:
    """For each meter, how many lines it lacks."""
    profiles = [number for number, layout in layouts.items() if layout.logical_name == PROFILE and layout.columns]
    numbers = [meter.meter_id for meter in fleet]
    missing = dict.fromkeys(numbers, 0)
    for one in completeness(connection, numbers, profiles, goal.from_us, goal.until_us, PERIOD_S * SECOND_US):
        missing[one.meter_id] += one.expected - one.found
    for name in REGISTERS:
        own = [number for number, layout in layouts.items() if layout.logical_name == name and layout.columns]
        read = {line.meter_id for line in latest(connection, numbers, own)}
        for meter_id in missing:
            missing[meter_id] += meter_id not in read
    return missing


def _ms(figures: Figures, share: float) -> float | None:
    """The duration that this share of requests stayed below, from acceptance to end, as the metrics class it."""
    seconds = figures.request_durations.quantile_s(share)
    return None if seconds is None else round(seconds * 1000, 3)


def _samples(connection: Connection, fleet: list[Meter], layouts: dict[int, Layout]) -> list[dict[str, Any]]:
    samples: list[dict[str, Any]] = []
    for meter in fleet[:SAMPLE_METERS]:
        for name in REGISTERS:
            own = {number: layout for number, layout in layouts.items() if layout.logical_name == name}
            for line in latest(connection, [meter.meter_id], list(own)):
                moment_us = line.capture_time_us
                samples += [
                    {
                        "meter": meter.name,
                        "object": f"{row.class_id}/{row.logical_name}:{row.attribute}",
                        "name": row.name,
                        "value": row.value,
                        "unit": row.unit,
                        "capture_time": time_text(moment_us),
                    }
                    for row in values(connection, Selection([meter], own, moment_us, moment_us + 1))
                ]
    return samples


def _curve(connection: Connection, goal: Goal, meter: Meter, layouts: dict[int, Layout]) -> list[float]:
    """Average import power in each capture period of the last day, from the differences of the register."""
    profiles = {number: layout for number, layout in layouts.items() if layout.logical_name == PROFILE}
    day_us = (DAY_S + PERIOD_S) * SECOND_US
    selection = Selection([meter], profiles, goal.until_us - day_us, goal.until_us, frozenset({IMPORT}))
    read = [(row.capture_time_us, row.mantissa, row.scaler or 0) for row in values(connection, selection)]
    curve = []
    for (before_us, before, _), (after_us, after, scaler) in pairwise(read):
        if before is not None and after is not None and after_us > before_us:
            hours = (after_us - before_us) / 3.6e9
            curve.append((after - before) * 10.0**scaler / hours)
    return curve
