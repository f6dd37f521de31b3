"""The one state machine of every critical command, as a table: what is not in it does not happen.

    PROPOSED -> APPROVED -> RELEASED -> SENT -> CONFIRMED | FAILED | UNKNOWN -> CONFIRMED | FAILED
    EXPIRED and CANCELLED from every state before SENT; a stop takes approvals back.

SENT is durable before an octet leaves. Nothing leads back from SENT: what became of it is found out by reading.
"""

from enum import StrEnum

from ipss_headend.errors import RequestError


class State(StrEnum):
    """Where a command stands."""

    PROPOSED = "proposed"
    APPROVED = "approved"
    """As many people as are needed have signed it. It may be quarantined there."""
    RELEASED = "released"
    """Its budget is spent; it leaves at its place in the stagger."""
    SENT = "sent"
    """Its octets may have left."""
    CONFIRMED = "confirmed"
    FAILED = "failed"
    """It was not done, or was not seen to be done; the detail says which."""
    UNKNOWN = "unknown"
    """It was sent and its answer was lost: being resolved by reading, never by sending."""
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class Step(StrEnum):
    """What may happen to a command."""

    APPROVE = "approve"
    VOID = "void"
    """The stop switch was set: approvals count no more."""
    RELEASE = "release"
    REFUSE = "refuse"
    """The gate, or the meter's mode, forbids it; nothing was sent."""
    SEND = "send"
    CONFIRM = "confirm"
    FAIL = "fail"
    LOSE = "lose"
    EXPIRE = "expire"
    CANCEL = "cancel"


TABLE: dict[tuple[State, Step], State] = {
    (State.PROPOSED, Step.APPROVE): State.APPROVED,
    (State.PROPOSED, Step.EXPIRE): State.EXPIRED,
    (State.PROPOSED, Step.CANCEL): State.CANCELLED,
    (State.APPROVED, Step.VOID): State.PROPOSED,
    (State.APPROVED, Step.RELEASE): State.RELEASED,
    (State.APPROVED, Step.REFUSE): State.FAILED,
    (State.APPROVED, Step.EXPIRE): State.EXPIRED,
    (State.APPROVED, Step.CANCEL): State.CANCELLED,
    (State.RELEASED, Step.VOID): State.PROPOSED,
    (State.RELEASED, Step.SEND): State.SENT,
    (State.RELEASED, Step.REFUSE): State.FAILED,
    (State.RELEASED, Step.EXPIRE): State.EXPIRED,
    (State.RELEASED, Step.CANCEL): State.CANCELLED,
    (State.SENT, Step.CONFIRM): State.CONFIRMED,
    (State.SENT, Step.FAIL): State.FAILED,
    (State.SENT, Step.LOSE): State.UNKNOWN,
    (State.UNKNOWN, Step.CONFIRM): State.CONFIRMED,
    (State.UNKNOWN, Step.FAIL): State.FAILED,
}

FINAL = frozenset({State.CONFIRMED, State.FAILED, State.EXPIRED, State.CANCELLED})
OPEN = frozenset(State) - FINAL
BEFORE_SENT = frozenset({State.PROPOSED, State.APPROVED, State.RELEASED})
ON_WIRE = frozenset({State.SENT, State.UNKNOWN})


class IllegalStep(RequestError):
    """A command was to take a step that its state does not have."""


def step(state: State, taken: Step) -> State:
    """The state after a step.

    Raises:
        IllegalStep: the state has no such step.
    """
    after = TABLE.get((state, taken))
    if after is None:
        raise IllegalStep(f"a command that is {state} does not {taken}")
    return after


def sources(taken: Step) -> tuple[State, ...]:
    """The states that have this step."""
    return tuple(state for state, one in TABLE if one is taken)
