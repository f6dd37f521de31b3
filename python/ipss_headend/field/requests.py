"""Who asked what: rows that come back are handed to whoever waits for them.

Bulk work is a `Submission`: many meters, one plan, told of ends as they come. `ask` is for one meter and one caller.
Finding a row's submission costs a bisection over the submissions that are open; nothing is kept for each request.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import trio

from ipss_headend import errors
from ipss_headend.field.questions import Plans, Question
from ipss_headend.field.reactor import AnswerRow, Native, Outcome, Reactor
from ipss_headend.log import Logger, logger
from ipss_headend.store.journal import EndRow, RefusalRow
from ipss_headend.store.marks import MarkRow

if TYPE_CHECKING:
    from ipss_headend._core import Priority

T = TypeVar("T")

OnAnswer = Callable[[AnswerRow], None]
OnRefusal = Callable[[RefusalRow], None]
OnEnd = Callable[[EndRow], None]
Marks = Callable[[int, Outcome], Iterable[MarkRow]]
"""The marks that a meter's end justifies. Called before the end is durable, so that they are stored together."""

LARGEST_SUBMISSION = 2_000
"""Meters in one submission: a larger wave is several, so that the reactor's bound on queued work is met in steps."""

GRACE_S = 30.0
"""How long an answer may take from the reactor to its caller: the store is in between, and may be slow."""

RETRY_S = 1.0
"""How long to wait for room when the reactor takes no more and no request ends."""


@dataclass(slots=True, eq=False)
class Submission:
    """Requests of one plan to many meters, in the order of `meters` from request `first` on."""

    first: int
    meters: array[int]
    on_answer: OnAnswer | None = None
    on_refusal: OnRefusal | None = None
    on_end: OnEnd | None = None
    marks: Marks | None = None
    pending: int = 0
    over: trio.Event = field(default_factory=trio.Event)
    """Set when the last request has ended and all its rows are durable."""

    def __post_init__(self) -> None:
        self.pending = len(self.meters)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one meter said to one request."""

    outcome: Outcome
    """`DONE`, or `REFUSED` when some items have a refusal in place of a line."""
    lines: tuple[AnswerRow, ...]
    refusals: dict[int, int]
    """Item to data-access-result or action-result."""
    exchanges: int
    duration_us: int

    def line(self, item: int) -> AnswerRow | None:
        """The first line of an item, None where the meter refused it."""
        return next((line for line in self.lines if line[2] == item), None)


class Requests:
    """The requests that are open."""

    def __init__(self, reactor: Reactor, native: Native) -> None:
        self._reactor = reactor
        self._plans = Plans(native)
        self._firsts: list[int] = []
        self._submissions: list[Submission] = []
        self._room = trio.Event()
        self._draining = False
        self.stalled_s = float("-inf")
        """When (`trio.current_time`) rows last had waited for the store for long: an answer to what was asked before
        says nothing of when the meter said it."""
        self._log: Logger = logger("requests")

    def drain(self) -> None:
        """From now on nothing is withdrawn: the reactor finishes what is in work, and its marks are still made."""
        self._draining = True

    def __len__(self) -> int:
        """How many submissions are open."""
        return len(self._submissions)

    def submit(
        self,
        questions: Sequence[Question],
        meters: array[int],
        *,
        timeout_s: float,
        priority: Priority = "scheduled",
        attempts: int = 3,
        from_us: int = 0,
        to_us: int = 0,
        on_answer: OnAnswer | None = None,
        on_refusal: OnRefusal | None = None,
        on_end: OnEnd | None = None,
        marks: Marks | None = None,
    ) -> Submission:
        """Ask all of these meters. The callbacks run after the rows are durable, and must not wait.

        Raises:
            RuntimeError: the reactor has stopped, or takes no more at the moment.
        """
        first = self._reactor.submit(
            self._plans.of(questions),
            meters.tobytes(),
            timeout_s=timeout_s,
            priority=priority,
            attempts=attempts,
            from_us=from_us,
            to_us=to_us,
        )
        submission = Submission(first, meters, on_answer, on_refusal, on_end, marks)
        if submission.pending == 0:
            submission.over.set()
        else:
            self._firsts.append(first)
            self._submissions.append(submission)
        return submission

    def follow(self, request: int, meter: int, *, on_end: OnEnd, on_refusal: OnRefusal | None = None) -> Submission:
        """Hear of a request that the reactor was given otherwise (`Reactor.release`). Right after it was."""
        submission = Submission(request, array("I", (meter,)), on_refusal=on_refusal, on_end=on_end)
        self._firsts.append(request)
        self._submissions.append(submission)
        return submission

    async def offer(
        self,
        questions: Sequence[Question],
        meters: array[int],
        *,
        timeout_s: float,
        priority: Priority = "scheduled",
        attempts: int = 3,
        from_us: int = 0,
        to_us: int = 0,
        on_answer: OnAnswer | None = None,
        on_refusal: OnRefusal | None = None,
        on_end: OnEnd | None = None,
        marks: Marks | None = None,
    ) -> list[Submission]:
        """As `submit`, in several parts where there are many meters, waiting while the reactor takes no more."""
        submissions = []
        for start in range(0, len(meters), LARGEST_SUBMISSION):
            part = meters[start : start + LARGEST_SUBMISSION]
            while True:
                try:
                    submission = self.submit(
                        questions,
                        part,
                        timeout_s=timeout_s,
                        priority=priority,
                        attempts=attempts,
                        from_us=from_us,
                        to_us=to_us,
                        on_answer=on_answer,
                        on_refusal=on_refusal,
                        on_end=on_end,
                        marks=marks,
                    )
                except RuntimeError:
                    with trio.move_on_after(RETRY_S):
                        await self._room.wait()
                else:
                    break
            submissions.append(submission)
        return submissions

    async def finish(self, submissions: Iterable[Submission]) -> None:
        """Wait until all are over. Cancelled, it withdraws what is not; but see `drain`."""
        remaining = list(submissions)
        try:
            for submission in remaining:
                await submission.over.wait()
        finally:
            for submission in remaining:
                self.withdraw(submission)

    def withdraw(self, submission: Submission) -> None:
        """Nobody waits for it any more. What is not on the wire yet is not sent; later rows are stored, not told."""
        if submission.over.is_set() or self._draining:
            return
        with suppress(RuntimeError):  # a reactor that has stopped has ended them already
            self._reactor.cancel([(meter, submission.first + place) for place, meter in enumerate(submission.meters)])
        self._forget(submission)

    async def ask(
        self,
        questions: Sequence[Question],
        meter: int,
        *,
        timeout_s: float,
        priority: Priority = "on-demand",
        attempts: int = 1,
        from_us: int = 0,
        to_us: int = 0,
        name: str = "",
    ) -> Answer:
        """Ask one meter and await what it says. Cancelling the caller withdraws the request.

        A meter's own *no* to an item is part of the answer. `name` stands in messages.

        Raises:
            MeterTimeout, MeterGone, ProtocolViolation, AuthenticationFailed: by how the request ended.
            RequestError: the reactor did not take it, or it asks for what cannot be.
        """
        lines: list[AnswerRow] = []
        refusals: dict[int, int] = {}
        ends: list[EndRow] = []
        try:
            submission = self.submit(
                questions,
                array("I", (meter,)),
                timeout_s=timeout_s,
                priority=priority,
                attempts=attempts,
                from_us=from_us,
                to_us=to_us,
                on_answer=lines.append,
                on_refusal=lambda refusal: refusals.__setitem__(refusal[2], refusal[3]),
                on_end=ends.append,
            )
        except RuntimeError as error:
            raise errors.RequestError(f"{name or meter}: not asked: {error}; try again later") from error
        with trio.move_on_after(timeout_s + GRACE_S):
            await self.finish([submission])
        if not ends:
            raise errors.MeterTimeout(f"{name or meter}: no end within {timeout_s + GRACE_S:g} s; is the store slow?")
        exchanges, duration_us = ends[0][3:5]
        outcome = answered(name or str(meter), ends[0])
        return Answer(outcome, tuple(lines), refusals, exchanges, duration_us)

    def marks(self, ends: Iterable[EndRow]) -> list[MarkRow]:
        """What these ends justify to be marked as read whole."""
        found: list[MarkRow] = []
        for end in ends:
            submission = self._find(end[0])
            if submission is not None and submission.marks is not None:
                try:
                    found += submission.marks(end[1], Outcome(end[2]))
                except Exception:  # noqa: BLE001 - as in `_tell`
                    self._log.exception("what was read cannot be marked", meter_id=end[1])
        return found

    def route(self, answers: Iterable[AnswerRow], refusals: Iterable[RefusalRow], ends: Iterable[EndRow]) -> None:
        """Tell whoever waits. The rows are durable."""
        for answer in answers:
            submission = self._find(answer[1])
            if submission is not None and submission.on_answer is not None:
                self._tell(submission.on_answer, answer, answer[0])
        for refusal in refusals:
            submission = self._find(refusal[1])
            if submission is not None and submission.on_refusal is not None:
                self._tell(submission.on_refusal, refusal, refusal[0])
        ended = False
        for end in ends:
            ended = True
            submission = self._find(end[0])
            if submission is None:
                continue
            if submission.on_end is not None:
                self._tell(submission.on_end, end, end[1])
            submission.pending -= 1
            if submission.pending == 0:
                submission.over.set()
                self._forget(submission)
        if ended:
            self._room.set()
            self._room = trio.Event()

    def _tell(self, callback: Callable[[T], None], row: T, meter: int) -> None:
        """What one meter says, and what somebody makes of it, stops nobody else's answers (R32)."""
        try:
            callback(row)
        except Exception:  # noqa: BLE001 - round a subject's callback
            self._log.exception("an answer could not be taken", meter_id=meter)

    def _find(self, request: int) -> Submission | None:
        place = bisect_right(self._firsts, request) - 1
        if place < 0:
            return None
        submission = self._submissions[place]
        return submission if request < submission.first + len(submission.meters) else None

    def _forget(self, submission: Submission) -> None:
        place = bisect_right(self._firsts, submission.first) - 1
        if place >= 0 and self._submissions[place] is submission:
            del self._firsts[place], self._submissions[place]


def answered(name: str, end: EndRow) -> Outcome:
    """How a request ended that the meter answered, be it with a *no*. `name` is the meter's, for messages.

    Raises:
        MeterTimeout, MeterGone, ProtocolViolation, AuthenticationFailed, RequestError: it was not answered.
    """
    outcome, detail = Outcome(end[2]), end[5]
    if outcome not in {Outcome.DONE, Outcome.REFUSED}:
        said = f": {detail}" if detail else ""
        raise _FAULTS.get(outcome, errors.RequestError)(f"{name}: {outcome.label}{said}")
    return outcome


_FAULTS: dict[Outcome, type[errors.HeadEndError]] = {
    Outcome.TIMED_OUT: errors.MeterTimeout,
    Outcome.UNREACHABLE: errors.MeterGone,
    Outcome.VIOLATION: errors.ProtocolViolation,
    Outcome.AUTHENTICATION_FAILED: errors.AuthenticationFailed,
    Outcome.COUNTERS_EXHAUSTED: errors.AuthenticationFailed,
    Outcome.UNKNOWN: errors.MeterGone,
}
