"""Work that takes longer than a call: its state, its progress, and what came of each target.

A job lives as long as the process that does it, and its answer an hour longer than it ran. What it did is durable where
it belongs: readings in the store, commands in their own journal.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import trio

from ipss_headend.log import Logger, logger

KEPT = 10_000
KEPT_EACH = 500
"""Of one owner; then those that ended first give way, and nobody else's."""
KEPT_S = 3600.0

Work = Callable[["Job"], Awaitable[None]]


@dataclass(slots=True)
class Job:
    """One job."""

    name: str
    kind: str
    owner: str
    total: int
    state: str = "running"
    """`running`, `done`, `partly-done`, `failed`, `cancelled`."""
    done: int = 0
    failed: int = 0
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What came of each target: `{"ok": true, ...}` or `{"ok": false, "error": ...}`."""
    over: trio.Event = field(default_factory=trio.Event)
    ended_at: float = 0.0
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def note(self, target: str, outcome: dict[str, Any]) -> None:
        """Write down what came of one target."""
        self.outcomes[target] = outcome
        if outcome.get("ok"):
            self.done += 1
        else:
            self.failed += 1


class Jobs:
    """The jobs of one head-end. `run` has to run for any job to."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._nursery: trio.Nursery | None = None
        self._numbers = itertools.count(1)
        self._epoch = secrets.token_hex(3)
        self._log: Logger = logger("jobs")

    async def run(self) -> None:
        """Be where jobs run, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def start(self, kind: str, owner: str, targets: Iterable[str], work: Work) -> Job:
        """Begin a job.

        Raises:
            RuntimeError: the head-end is stopping, or has too many jobs.
        """
        self._forget()
        own = [job for job in self._jobs.values() if job.owner == owner]
        if len(own) >= KEPT_EACH:
            ended = [job for job in own if job.over.is_set()]
            if not ended:
                raise RuntimeError(f"{KEPT_EACH} jobs of {owner} are under way already")
            del self._jobs[min(ended, key=lambda job: job.ended_at).name]
        if self._nursery is None:
            raise RuntimeError("the head-end is stopping")
        if len(self._jobs) >= KEPT:
            raise RuntimeError(f"{KEPT} jobs are kept already")
        job = Job(f"{self._epoch}-{next(self._numbers)}", kind, owner, sum(1 for _ in targets))
        self._jobs[job.name] = job
        self._nursery.start_soon(self._run, job, work)
        return job

    def get(self, name: str) -> Job | None:
        """The job of this name."""
        return self._jobs.get(name)

    def all(self) -> list[Job]:
        """All that are known, the oldest first."""
        return list(self._jobs.values())

    async def _run(self, job: Job, work: Work) -> None:
        try:
            with job.scope:
                await work(job)
            if job.scope.cancelled_caught:
                job.state = "cancelled"
            elif job.failed:
                job.state = "partly-done" if job.done else "failed"
            else:
                job.state = "done"
        except Exception:  # noqa: BLE001 - round a subject's task
            job.state = "failed"
            self._log.exception("job failed by a fault of ours", job=job.name, kind=job.kind)
        except trio.Cancelled:
            job.state = "cancelled"
            raise
        finally:
            job.ended_at = trio.current_time()
            job.over.set()

    def _forget(self) -> None:
        now = trio.current_time()
        for name, job in list(self._jobs.items()):
            if job.over.is_set() and now - job.ended_at > KEPT_S:
                del self._jobs[name]
