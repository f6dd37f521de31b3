"""From what was measured and what the plans want to how many meters a machine can have."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

from ipss_headend.config import Config, PlanConfig
from ipss_headend.schedule import DAY_S
from ipss_headend.store.database import is_there
from ipss_headend.store.sqlite import free_bytes

KEPT_FREE = 0.5
"""Of processor, memory and the store's speed: for storms after an outage, gaps to fill, callers, and plugins."""

OTHER_DESCRIPTORS = 256
"""Files, callers, plugins."""

REGISTERS = 3
"""In the question that was measured."""

DISK_DAYS = 365
"""What the disk must hold where nothing is said of retention."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What the plans want of each meter."""

    requests_per_day: float
    register_lines_per_day: float
    profile_lines_per_day: float
    lines_per_day: float
    shortest_s: int
    """The shortest time between two turns."""
    kept_days: int
    """How long lines are on the disk."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What it cost here. Processor time is all of the head-end's process, whichever thread."""

    meters: int
    association_cpu_us: float
    """To connect, associate (HLS-GMAC, ciphered) and ask once."""
    request_cpu_us: float
    """A question for three registers, answered and stored."""
    line_cpu_us: float
    """A line of a profile, read in bulk and stored."""
    lines_per_second: float
    """Read and durable, on this disk, with the meters on the same machine."""
    line_octets: float
    """On the disk, with the log."""
    meter_octets: int
    """Of memory, with its standing association."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is."""

    processors: int
    memory_octets: int
    """Available now."""
    descriptors: int
    disk_octets: int
    """Free where the store is, without the reserve."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One thing that runs out."""

    what: str
    meters: int
    a_meter: str
    there_is: str


def demand(config: Config) -> Demand:
    """What the plans want of a meter; with a registry, of its average meter, else of one that is in every plan."""
    shares = _shares(config)
    requests = registers = profile = 0.0
    for plan, share in zip(config.plans, shares, strict=True):
        turns = DAY_S / plan.every.period_s
        requests += share * turns * ((1 if plan.objects else 0) + (1 if plan.profile else 0))
        registers += share * turns * len(plan.objects)
        profile += share * DAY_S / plan.period_s if plan.profile else 0
    kept = config.retention.months * 31 + 31 if config.retention.months else DISK_DAYS
    shortest = min(plan.every.period_s for plan in config.plans)
    return Demand(requests, registers, profile, registers + profile, shortest, kept)


def machine(config: Config) -> Machine:
    """What this machine has, for this process."""
    available = next(
        int(line.split()[1]) << 10
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        if line.startswith("MemAvailable:")
    )
    address = config.database.address
    directory = address.parent if isinstance(address, Path) else config.data_directory
    while not directory.exists():
        directory = directory.parent
    return Machine(
        processors=len(os.sched_getaffinity(0)),
        memory_octets=min(available, _memory_limit()),
        descriptors=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        disk_octets=max(free_bytes(directory) - (config.database.reserve_mib << 20), 0),
    )


def limits(config: Config, wanted: Demand, measured: Measured, here: Machine) -> list[Limit]:
    """Every thing that may run out, and at how many meters."""
    # A question has some registers; a profile's turn is a question too, and then its lines.
    questions = max(wanted.requests_per_day, wanted.register_lines_per_day / REGISTERS)
    cpu_us = questions * measured.request_cpu_us + wanted.profile_lines_per_day * measured.line_cpu_us
    lines_s = wanted.lines_per_day / DAY_S
    octets = wanted.lines_per_day * measured.line_octets * wanted.kept_days
    storm_us = measured.association_cpu_us
    busy = 1 - KEPT_FREE
    return [
        Limit(
            "processor time",
            _meters(busy * DAY_S * 1e6, cpu_us),
            f"{cpu_us / 1e6:.3g} s a day",
            f"{busy:.0%} of one core: {busy * DAY_S:,.0f} s a day",
        ),
        Limit(
            "associations after an outage",
            _meters(min(config.reactor.connections_per_second, busy * 1e6 / storm_us) * wanted.shortest_s, 1),
            f"{storm_us / 1e3:.3g} ms of processor",
            f"{config.reactor.connections_per_second} a second ([reactor]) for the {wanted.shortest_s} s of the "
            "shortest plan",
        ),
        Limit(
            "lines a second",
            _meters(busy * measured.lines_per_second, lines_s),
            f"{lines_s:.3g} a second",
            f"{busy:.0%} of {measured.lines_per_second:,.0f}",
        ),
        Limit("file descriptors", max(here.descriptors - OTHER_DESCRIPTORS, 0), "1", f"{here.descriptors:,}"),
        Limit(
            "memory",
            _meters(busy * here.memory_octets, measured.meter_octets),
            f"{measured.meter_octets / 1024:,.1f} KiB",
            f"{busy:.0%} of {here.memory_octets >> 20:,} MiB available",
        ),
        Limit(
            "disk",
            _meters(here.disk_octets, octets),
            f"{octets / 1e6:,.1f} MB in {wanted.kept_days} days",
            f"{here.disk_octets / 1e9:,.1f} GB free",
        ),
    ]


def _meters(there_is: float, a_meter: float) -> int:
    return int(min(there_is / a_meter, 1e9)) if a_meter > 0 else 1_000_000_000


def _shares(config: Config) -> list[float]:
    """Which share of the meters each plan reads."""
    from ipss_headend.cli import places
    from ipss_headend.store import timeliness

    groups: list[str] = []
    if is_there(config.database.address):
        with places.open_store(config) as database, database.reading() as connection:
            groups = [group for _, group, _ in timeliness.registered(connection).values()]

    def share(plan: PlanConfig) -> float:
        return sum(map(plan.selects, groups)) / len(groups) if groups else 1.0

    return [share(plan) for plan in config.plans]


def _memory_limit() -> int:
    # A service's or container's own, where it has one.
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii").strip()
        return max(int(text) - int(used), 0)
    except (OSError, ValueError):
        return 1 << 62
