"""What the head-end counts, and how Prometheus sees it. `docs/metrics.md` explains each; a test compares the two.

Counting is adding to an integer: no lock, no label look-up. Only a scrape makes samples of it.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

PREFIX = "head_end_"

BOUNDS_US = (*(int(step * 10**power) for power in range(2, 8) for step in (1, 2.5, 5)), 100_000_000, 300_000_000)
"""Upper bounds of durations, 100 us to 5 minutes."""


class Durations:
    """How long something took, in classes by `BOUNDS_US`."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_US) + 1)
        self.total_us = 0

    def add(self, duration_us: int) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS_US, duration_us)] += 1
        self.total_us += duration_us

    def quantile_s(self, share: float) -> float | None:
        """The bound, in seconds, of the class in which this share of all is reached; None if nothing was counted."""
        total = sum(self.counts)
        if not total:
            return None
        for count, bound_us in zip(accumulate(self.counts), (*BOUNDS_US, 2 * BOUNDS_US[-1]), strict=True):
            if count >= share * total:
                return bound_us / 1e6
        return None


@dataclass(slots=True)
class PlanFigures:
    """Where one read plan stands: requests of its latest turn."""

    asked: int = 0
    done: int = 0
    failed: int = 0
    turn_us: int = 0
    """When the latest turn was due."""
    turns: int = 0
    """Turns that are over."""
    backfill_pending: int = 0
    """Windows of old gaps that are asked for and not answered."""
    backfilled: int = 0
    """Windows of old gaps that were read."""

    @property
    def pending(self) -> int:
        """Asked in the latest turn and not over."""
        return self.asked - self.done - self.failed

    @property
    def completeness(self) -> float:
        """Share of the latest turn that was read, 1 when nothing was due."""
        return self.done / self.asked if self.asked else 1.0


@dataclass(slots=True)
class PluginFigures:
    """How one plugin does."""

    up: int = 0
    healthy: bool = True
    """It runs, and said nothing is wrong when it was last asked."""
    behind: dict[str, int] = field(default_factory=dict)
    """Entries of the log that it has not dealt with, by hook."""
    passed_over: int = 0
    """Entries that it was offered as often as they are, and failed at."""
    restarts: int = 0
    kills: int = 0
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Invocations by hook and how they ended: `done`, `error`, `timeout`, `gone`, `overloaded`, `broken-off`."""


@dataclass(slots=True)
class Figures:
    """Everything counted in Python. One object for each head-end; only its own trio thread writes to it."""

    lines: int = 0
    duplicate_lines: int = 0
    values: int = 0
    ends: Counter[int] = field(default_factory=Counter)
    exchanges: int = 0
    events: Counter[int] = field(default_factory=Counter)
    request_durations: Durations = field(default_factory=Durations)
    write_durations: Durations = field(default_factory=Durations)
    counter_blocks: int = 0
    meters_gone: int = 0
    meters_without_address: int = 0
    clock_checks: int = 0
    clocks_deviating: int = 0
    layouts_learnt: int = 0
    notifications: int = 0
    notifications_kept: int = 0
    pushes_quarantined: int = 0
    quarantine_dropped: int = 0
    plans: dict[str, PlanFigures] = field(default_factory=dict)
    plan_faults: Counter[str] = field(default_factory=Counter)
    store_trouble: str | None = None
    """Why the store takes no readings at the moment: `full`, `held`, `failed`; None: it takes them."""
    scrubbed_records: int = 0
    """Stored records compared with their checksums."""
    scrub_ended_us: int = 0
    """When all of them were, last."""
    damaged_records: int = 0
    """What is damaged or missing in the store."""
    loop_lag_s: float = 0.0
    commands: dict[str, int] = field(default_factory=dict)
    """Critical commands that are not at their end, by state."""
    command_alarms: int = 0
    control_stopped: bool = True
    key_changes: int = 0
    """Meters whose keys were changed."""
    keys_in_doubt: int = 0
    """Meters that may have their new keys or their old ones."""
    keys_due: int = 0
    """Meters whose invocation counters are beyond the alarm (R10)."""
    plugins: dict[str, PluginFigures] = field(default_factory=dict)
    """Shadows of plugins among them, by their own names."""
    shadow_answers: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    """Questions by plugin, its shadow, hook and verdict: see `plugins/shadow.py`."""
    validated_intervals: int = 0
    flagged_intervals: Counter[str] = field(default_factory=Counter)
    """By the flag's name, as `plugins.Flag` has it."""
    estimated_intervals: int = 0
    incidents: int = 0
    """Open ones."""
    retired_lines: int = 0
    retention_trouble: bool = False
    """Months that are kept no longer could not all be retired."""

    def plugin(self, name: str) -> PluginFigures:
        """The figures of one plugin."""
        return self.plugins.setdefault(name, PluginFigures())

    def plan(self, name: str) -> PlanFigures:
        """The figures of one plan."""
        return self.plans.setdefault(name, PlanFigures())


ReactorStats = Mapping[str, int]
Sample = tuple[tuple[str, ...], float]
_Samples = Callable[[Figures, ReactorStats], Iterable[Sample]]


@dataclass(frozen=True, slots=True)
class Shown:
    """One metric."""

    name: str
    kind: str
    help: str
    samples: _Samples
    labels: tuple[str, ...] = ()


def _one(value: Callable[[Figures], float]) -> _Samples:
    return lambda figures, _: [((), value(figures))]


def _stat(name: str) -> _Samples:
    return lambda _, stats: [((), stats.get(name, 0))]


def _plans(value: Callable[[PlanFigures], float]) -> _Samples:
    return lambda figures, _: [((name,), value(plan)) for name, plan in figures.plans.items()]


def _plan_requests(figures: Figures, _: ReactorStats) -> Iterator[Sample]:
    for name, plan in figures.plans.items():
        for state in ("done", "failed", "pending"):
            yield (name, state), getattr(plan, state)


def _open_commands(figures: Figures, _: ReactorStats) -> Iterator[Sample]:
    for state in ("proposed", "approved", "released", "sent", "unknown"):
        yield (state,), figures.commands.get(state, 0)


def metrics(outcomes: Callable[[int], str], kinds: Callable[[int], str]) -> tuple[Shown, ...]:
    """Every metric but the histograms; `outcomes` and `kinds` name the numbers of ends and events."""
    return (
        Shown("meters", "gauge", "Meters that the reactor knows.", _stat("meters")),
        Shown("meters_gone", "gauge", "Meters that cannot be reached.", _one(lambda f: f.meters_gone)),
        Shown(
            "meters_without_address",
            "gauge",
            "Meters whose host name has no address.",
            _one(lambda f: f.meters_without_address),
        ),
        Shown("connections", "gauge", "Open connections.", _stat("connections")),
        Shown("associations", "gauge", "Associations that stand.", _stat("associated")),
        Shown("connects", "counter", "Outbound connections tried.", _stat("connects")),
        Shown("connect_failures", "counter", "Outbound connections that failed.", _stat("connect_failures")),
        Shown("accepts", "counter", "Inbound connections taken.", _stat("accepts")),
        Shown("claims_refused", "counter", "Inbound connections refused.", _stat("claims_refused")),
        Shown("admission_delays", "counter", "Connections that waited for admission.", _stat("admission_delays")),
        Shown("octets_received", "counter", "Octets read from meters.", _stat("octets_in")),
        Shown("octets_sent", "counter", "Octets written to meters.", _stat("octets_out")),
        Shown("requests_queued", "gauge", "Requests that wait for their meter.", _stat("queued")),
        Shown("requests_active", "gauge", "Requests that a session works on.", _stat("active")),
        Shown("request_retries", "counter", "Tries after a broken line.", _stat("retries")),
        Shown(
            "requests",
            "counter",
            "Requests that are over.",
            lambda f, _: [((outcomes(number),), count) for number, count in f.ends.items()],
            ("outcome",),
        ),
        Shown("exchanges", "counter", "Questions asked and answered.", _one(lambda f: f.exchanges)),
        Shown(
            "events",
            "counter",
            "What sessions noticed.",
            lambda f, _: [((kinds(number),), count) for number, count in f.events.items()],
            ("kind",),
        ),
        Shown("reactor_stalls", "counter", "Times that reading stopped for a slow store.", _stat("stalls")),
        Shown("reactor_panics", "counter", "Sessions taken out of service by a fault of ours.", _stat("panics")),
        Shown("lines", "counter", "Lines stored.", _one(lambda f: f.lines)),
        Shown("duplicate_lines", "counter", "Lines that were stored already.", _one(lambda f: f.duplicate_lines)),
        Shown("values", "counter", "Values received.", _one(lambda f: f.values)),
        Shown("counter_blocks", "counter", "Blocks of invocation counters granted.", _one(lambda f: f.counter_blocks)),
        Shown("clock_checks", "counter", "Meter clocks compared with ours.", _one(lambda f: f.clock_checks)),
        Shown(
            "clocks_deviating", "gauge", "Meter clocks beyond their plan's limit.", _one(lambda f: f.clocks_deviating)
        ),
        Shown("layouts_learnt", "counter", "Layouts learnt from meters.", _one(lambda f: f.layouts_learnt)),
        Shown("notifications", "counter", "Notifications received.", _one(lambda f: f.notifications)),
        Shown("notifications_kept", "counter", "Notifications kept as events.", _one(lambda f: f.notifications_kept)),
        Shown(
            "pushes_quarantined",
            "counter",
            "Pushes kept that no session could have.",
            _one(lambda f: f.pushes_quarantined),
        ),
        Shown(
            "pushes_dropped",
            "counter",
            "Such pushes dropped, or kept no longer.",
            lambda f, stats: [((), f.quarantine_dropped + stats.get("pushes_dropped", 0))],
        ),
        Shown("plan_requests", "gauge", "Requests of a plan's latest turn.", _plan_requests, ("plan", "state")),
        Shown(
            "plan_completeness",
            "gauge",
            "Share of a plan's latest turn that was read.",
            _plans(lambda p: p.completeness),
            ("plan",),
        ),
        Shown("plan_turns", "counter", "Turns of a plan that are over.", _plans(lambda p: p.turns), ("plan",)),
        Shown(
            "plan_due_seconds",
            "gauge",
            "When a plan's latest turn was due.",
            _plans(lambda p: p.turn_us / 1e6),
            ("plan",),
        ),
        Shown(
            "plan_faults",
            "counter",
            "Turns that a fault of ours ended.",
            lambda f, _: [((name,), count) for name, count in f.plan_faults.items()],
            ("plan",),
        ),
        Shown(
            "backfill_windows_pending",
            "gauge",
            "Old gaps asked for.",
            _plans(lambda p: p.backfill_pending),
            ("plan",),
        ),
        Shown("backfill_windows", "counter", "Old gaps read.", _plans(lambda p: p.backfilled), ("plan",)),
        Shown("store_writable", "gauge", "1 while readings can be stored.", _one(lambda f: f.store_trouble is None)),
        Shown(
            "store_damaged_records",
            "gauge",
            "What is damaged or missing in the store.",
            _one(lambda f: f.damaged_records),
        ),
        Shown(
            "store_scrubbed_records",
            "counter",
            "Stored records compared with their checksums.",
            _one(lambda f: f.scrubbed_records),
        ),
        Shown(
            "store_scrub_ended_seconds",
            "gauge",
            "When all of the store had been looked through, last.",
            _one(lambda f: f.scrub_ended_us / 1e6),
        ),
        Shown(
            "commands", "gauge", "Critical commands that are not at their end, by state.", _open_commands, ("state",)
        ),
        Shown(
            "command_alarms", "counter", "Commands whose meter somebody must look at.", _one(lambda f: f.command_alarms)
        ),
        Shown("key_changes", "counter", "Meters whose keys were changed.", _one(lambda f: f.key_changes)),
        Shown("keys_in_doubt", "gauge", "Meters that may have new keys or old ones.", _one(lambda f: f.keys_in_doubt)),
        Shown("keys_due", "gauge", "Meters whose invocation counters run out.", _one(lambda f: f.keys_due)),
        Shown("control_stopped", "gauge", "1 while no critical command may leave.", _one(lambda f: f.control_stopped)),
        Shown(
            "plugin_up",
            "gauge",
            "1 while a plugin's process answers.",
            lambda f, _: [((name,), one.up) for name, one in f.plugins.items()],
            ("plugin",),
        ),
        Shown(
            "plugin_healthy",
            "gauge",
            "1 while a plugin runs and says that nothing is wrong.",
            lambda f, _: [((name,), one.healthy) for name, one in f.plugins.items()],
            ("plugin",),
        ),
        Shown(
            "plugin_behind",
            "gauge",
            "Entries of the log that a plugin has not dealt with.",
            lambda f, _: [
                ((name, hook), count) for name, one in f.plugins.items() for hook, count in one.behind.items()
            ],
            ("plugin", "hook"),
        ),
        Shown(
            "plugin_passed_over",
            "counter",
            "Entries of the log that a plugin failed at as often as they are offered.",
            lambda f, _: [((name,), one.passed_over) for name, one in f.plugins.items()],
            ("plugin",),
        ),
        Shown(
            "plugin_restarts",
            "counter",
            "Times that a plugin's process was started again.",
            lambda f, _: [((name,), one.restarts) for name, one in f.plugins.items()],
            ("plugin",),
        ),
        Shown(
            "plugin_kills",
            "counter",
            "Times that a plugin's process was killed for what it did.",
            lambda f, _: [((name,), one.kills) for name, one in f.plugins.items()],
            ("plugin",),
        ),
        Shown(
            "plugin_calls",
            "counter",
            "Invocations of a plugin's hooks, by how they ended.",
            lambda f, _: [
                ((name, hook, outcome), count)
                for name, one in f.plugins.items()
                for (hook, outcome), count in one.calls.items()
            ],
            ("plugin", "hook", "outcome"),
        ),
        Shown(
            "plugin_shadow_answers",
            "counter",
            "Questions that a plugin and its shadow were asked, by how the answers compare.",
            lambda f, _: list(f.shadow_answers.items()),
            ("plugin", "shadow", "hook", "verdict"),
        ),
        Shown(
            "validated_intervals",
            "counter",
            "Intervals handed to plugins that validate.",
            _one(lambda f: f.validated_intervals),
        ),
        Shown(
            "flagged_intervals",
            "counter",
            "Flags that plugins gave intervals.",
            lambda f, _: [((name,), count) for name, count in f.flagged_intervals.items()],
            ("flag",),
        ),
        Shown(
            "estimated_intervals",
            "counter",
            "Missing intervals that a value was estimated for.",
            _one(lambda f: f.estimated_intervals),
        ),
        Shown("incidents", "gauge", "Open incidents.", _one(lambda f: f.incidents)),
        Shown("retired_lines", "counter", "Lines moved out of the store by age.", _one(lambda f: f.retired_lines)),
        Shown(
            "retention_trouble",
            "gauge",
            "1 while old months cannot all be retired.",
            _one(lambda f: f.retention_trouble),
        ),
        Shown("loop_lag_seconds", "gauge", "How late the trio loop runs its tasks.", _one(lambda f: f.loop_lag_s)),
    )


HISTOGRAMS: tuple[tuple[str, str, Callable[[Figures], Durations]], ...] = (
    ("request_duration_seconds", "From a request's acceptance to its end.", lambda f: f.request_durations),
    ("store_write_duration_seconds", "One durable transaction.", lambda f: f.write_durations),
)


class HeadEndCollector(Collector):
    """Makes samples of the figures when Prometheus asks."""

    def __init__(self, figures: Figures, stats: Callable[[], ReactorStats], shown: Sequence[Shown]) -> None:
        self._figures = figures
        self._stats = stats
        self._shown = shown

    def collect(self) -> Iterator[Metric]:
        """All metrics as they are now."""
        stats = self._stats()
        for metric in self._shown:
            family = _FAMILIES[metric.kind](PREFIX + metric.name, metric.help, labels=metric.labels)
            for labels, value in metric.samples(self._figures, stats):
                family.add_metric(labels, float(value))
            yield family
        for name, words, durations in HISTOGRAMS:
            yield _histogram(PREFIX + name, words, durations(self._figures))


def registry(figures: Figures, stats: Callable[[], ReactorStats], shown: Sequence[Shown]) -> CollectorRegistry:
    """A registry of one head-end, so that two in one process do not meet."""
    found = CollectorRegistry()
    found.register(HeadEndCollector(figures, stats, shown))
    return found


def _histogram(name: str, words: str, durations: Durations) -> HistogramMetricFamily:
    bounds = [*(repr(bound / 1e6) for bound in BOUNDS_US), "+Inf"]
    buckets = list(zip(bounds, map(float, accumulate(durations.counts)), strict=True))
    return HistogramMetricFamily(name, words, buckets=buckets, sum_value=durations.total_us / 1e6)


_FAMILIES: dict[str, type[CounterMetricFamily] | type[GaugeMetricFamily]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
}
