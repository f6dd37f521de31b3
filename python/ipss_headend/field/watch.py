"""What happens to meters, told once: one warning when a meter goes, one info when it returns, security always."""

from collections.abc import Iterable, Mapping

from ipss_headend.field.counters import Counters
from ipss_headend.field.reactor import EventKind, Outcome
from ipss_headend.log import Logger, logger
from ipss_headend.metrics import Figures
from ipss_headend.store.journal import NOBODY, EndRow, EventRow

SECURITY = frozenset(
    {
        EventKind.AUTHENTICATION_FAILED,
        EventKind.TAG_INVALID,
        EventKind.REPLAY_REFUSED,
        EventKind.WEAKER_SECURITY,
        EventKind.SYSTEM_TITLE_MISMATCH,
        EventKind.COUNTER_JUMP,
        EventKind.CLAIM_REFUSED,
        EventKind.CLONE_DETECTED,
    }
)
"""Logged each time, and stored."""

FAULTS = frozenset({EventKind.ASSOCIATION_REJECTED, EventKind.PROTOCOL_VIOLATION, EventKind.COUNTER_BEHIND})
"""Logged once until the meter answers again, and stored."""

STORED = SECURITY | FAULTS | {EventKind.COUNTERS_EXHAUSTED, EventKind.BACKED_OFF}
"""Connections that come and go are counted, not stored: they would be most of the table."""

_HEARD = frozenset({Outcome.DONE, Outcome.REFUSED})


class Watch:
    """Which meters are gone, and what was said about them already."""

    def __init__(self, names: Mapping[int, str], counters: Counters, figures: Figures) -> None:
        self._names = names
        self._counters = counters
        self._figures = figures
        self._log: Logger = logger("field")
        self._gone: dict[int, str] = {}
        self._said: dict[int, set[EventKind]] = {}
        self._followed: dict[int, int] = {}
        self.doubted: dict[int, str] = {}
        """Meters that two have proved to be, until somebody has taken note of them."""

    def follow(self, meter: int) -> None:
        """Count the meter's connections from now on, for who has to know whether it was reached at all."""
        self._followed[meter] = 0

    def reached(self, meter: int) -> bool:
        """Whether it was connected since `follow`; it is followed no more."""
        return self._followed.pop(meter, 0) > 0

    def events(self, events: Iterable[EventRow]) -> None:
        """Note what sessions noticed."""
        for meter, _, number, value, detail in events:
            kind = EventKind(number)
            self._figures.events[kind] += 1
            if kind in SECURITY:
                self._log.warning("security", what=kind.label, meter=self._name(meter), number=value, detail=detail)
                if kind is EventKind.CLONE_DETECTED:
                    self.doubted.setdefault(meter, detail)
            elif kind in FAULTS:
                self._fault(meter, kind, value, detail)
            elif kind is EventKind.BACKED_OFF:
                self._goes(meter, f"left alone for {value} s after failures")
            elif kind is EventKind.CONNECTED and meter in self._followed:
                self._followed[meter] += 1
            elif kind is EventKind.ASSOCIATED:
                self._counters.proven(meter)
                self._returns(meter)
            elif kind in {EventKind.COUNTERS_LOW, EventKind.COUNTERS_EXHAUSTED}:
                self._counters.low(meter)

    def ends(self, ends: Iterable[EndRow]) -> None:
        """Note how requests ended."""
        for _, meter, outcome, exchanges, duration_us, detail in ends:
            self._figures.ends[outcome] += 1
            self._figures.exchanges += exchanges
            self._figures.request_durations.add(duration_us)
            if outcome == Outcome.UNREACHABLE:
                self._goes(meter, detail or "unreachable")
            elif outcome in _HEARD and (meter in self._gone or meter in self._said):
                self._returns(meter)

    def _fault(self, meter: int, kind: EventKind, value: int, detail: str) -> None:
        if kind is EventKind.COUNTER_BEHIND:
            self._counters.behind(meter, value)
        said = self._said.setdefault(meter, set())
        if kind not in said:
            said.add(kind)
            self._log.warning("meter at fault", what=kind.label, meter=self._name(meter), number=value, detail=detail)

    def _goes(self, meter: int, why: str) -> None:
        if meter not in self._gone:
            self._gone[meter] = why
            self._figures.meters_gone = len(self._gone)
            self._log.warning("meter gone", meter=self._name(meter), why=why)

    def _returns(self, meter: int) -> None:
        self._said.pop(meter, None)
        if self._gone.pop(meter, None) is not None:
            self._figures.meters_gone = len(self._gone)
            self._log.info("meter returned", meter=self._name(meter))

    def _name(self, meter: int) -> str:
        return "unknown" if meter == NOBODY else self._names.get(meter, f"#{meter}")
