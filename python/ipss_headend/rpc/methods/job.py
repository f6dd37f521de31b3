"""`job.*`: work that takes longer than a call."""

from __future__ import annotations

from typing import Any

import trio

from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import Change, Params, Result, method
from ipss_headend.rpc.faults import Fault
from ipss_headend.rpc.jobs import Job
from ipss_headend.security.permission import Right, Role

LONGEST_WAIT_S = 60.0


class Named(Params, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A job."""

    job: str


class Wait(Named, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A job, and how long to wait for its end."""

    wait_ms: int = 30_000


class Cancel(Change, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A job."""

    job: str


class State(Result, frozen=True):
    """Where a job stands."""

    job: str
    kind: str
    owner: str
    state: str
    """`running`, `done`, `partly-done`, `failed` or `cancelled`."""
    total: int
    done: int
    failed: int
    outcomes: dict[str, Any]
    """What came of each target so far."""


class States(Result, frozen=True):
    """Jobs, the oldest first, without their outcomes."""

    jobs: list[State]


def state(job: Job, *, outcomes: bool = True) -> State:
    """A job as it is told."""
    return State(
        job=job.name,
        kind=job.kind,
        owner=job.owner,
        state=job.state,
        total=job.total,
        done=job.done,
        failed=job.failed,
        outcomes=dict(job.outcomes) if outcomes else {},
    )


def _of(call: Call, name: str) -> Job:
    job = call.services.jobs.get(name)
    if job is None or not _sees(call, job):
        raise Fault("E_UNKNOWN", f'no job is called "{name}"; job.list shows yours, and a restart ends all')
    return job


def _sees(call: Call, job: Job) -> bool:
    # What came of each target is told, so whoever sees others' jobs sees every group.
    return job.owner == call.principal.name or (
        Role.OPERATOR in call.principal.roles and call.principal.everywhere(Right.OPERATE)
    )


@method("job.get", Right.VIEW)
def get(call: Call, params: Named) -> State:
    """Where a job stands, with what came of each target so far."""
    return state(_of(call, params.job))


@method("job.list", Right.VIEW, example={})
def list_(call: Call, params: Params) -> States:
    """The caller's jobs; those of an operator of all groups: all."""
    return States(jobs=[state(job, outcomes=False) for job in call.services.jobs.all() if _sees(call, job)])


@method("job.wait", Right.VIEW)
async def wait(call: Call, params: Wait) -> State:
    """Where a job stands when it is over or the time is."""
    job = _of(call, params.job)
    with trio.move_on_after(min(max(params.wait_ms, 0) / 1000, LONGEST_WAIT_S)):
        await job.over.wait()
    return state(job)


@method("job.cancel", Right.READ)
def cancel(call: Call, params: Cancel) -> State:
    """Withdraw what of a job is not on the wire yet. What was done stays done."""
    job = _of(call, params.job)
    job.scope.cancel()
    return state(job)
