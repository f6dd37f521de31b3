"""Meters' clocks beside ours. A deviation is told and stored, never corrected silently (R42)."""

from collections.abc import Callable, Mapping

from ipss_headend.field.reactor import AnswerRow, EventKind
from ipss_headend.log import Logger, logger
from ipss_headend.metrics import Figures
from ipss_headend.schedule import SECOND_US
from ipss_headend.store.database import now_us
from ipss_headend.store.journal import EventRow


class ClockCheck:
    """Compares what meters say that it is with what it is here."""

    def __init__(self, names: Mapping[int, str], figures: Figures, wall_us: Callable[[], int] = now_us) -> None:
        self._names = names
        self._figures = figures
        self._wall_us = wall_us
        self._log: Logger = logger("clock")
        self._deviating: set[int] = set()
        self._events: list[EventRow] = []

    def hear(self, answer: AnswerRow, limit_s: int) -> None:
        """Take a meter's answer to the question for its clock: a line whose capture time is the clock's.

        The answer's way to us counts as deviation; it is small beside a limit of seconds. Answers that waited for the
        store are not to be heard: `Requests.stalled_s`.
        """
        meter, _, _, clock_us, _, status, _ = answer
        self._figures.clock_checks += 1
        if clock_us is None:
            self._deviates(meter, 0, f"the meter does not know the time, clock status {status:#04x}")
            return
        ahead_us = clock_us - self._wall_us()
        if abs(ahead_us) > limit_s * SECOND_US:
            self._deviates(meter, ahead_us // 1000, f"limit {limit_s} s")
        elif meter in self._deviating:
            self._deviating.discard(meter)
            self._log.info("clock is right again", meter=self._names.get(meter))
        self._figures.clocks_deviating = len(self._deviating)

    def events(self) -> list[EventRow]:
        """What is to be stored, once."""
        events, self._events = self._events, []
        return events

    def _deviates(self, meter: int, ahead_ms: int, detail: str) -> None:
        self._events.append((meter, self._wall_us(), int(EventKind.CLOCK_DEVIATES), ahead_ms, detail))
        if meter not in self._deviating:
            self._deviating.add(meter)
            self._figures.clocks_deviating = len(self._deviating)
            self._log.warning("clock deviates", meter=self._names.get(meter), ahead_s=ahead_ms / 1000, detail=detail)
