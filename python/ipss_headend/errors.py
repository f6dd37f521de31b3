"""Every exception that the head-end raises on purpose, by who is at fault.

A message names the thing, what was found, what was expected, and the remedy if there is one. It never carries a key,
a password or a customer's value. `exit_status` is what a command ends with when the exception reaches it.
"""

from collections.abc import MutableMapping
from typing import Any, ClassVar

DONE = 0
FAULT = 1
USAGE = 2
BAD_INPUT = 3
UNREACHABLE = 4
SECURITY = 5
REFUSED = 6
PROTOCOL = 7
PARTLY_DONE = 8


def words(error: Exception) -> str:
    """What an exception of Python's own says, for people: the system's words without its number, and no second path."""
    if isinstance(error, UnicodeDecodeError):
        return f"octet {error.start} is no text ({error.encoding.upper()})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


class HeadEndError(Exception):
    """The root of all of them."""

    exit_status: ClassVar[int] = FAULT


class MeterError(HeadEndError):
    """Something at or on the way to a meter."""

    exit_status = UNREACHABLE


class ProtocolViolation(MeterError):
    """The meter broke its protocol."""

    exit_status = PROTOCOL


class AuthenticationFailed(MeterError):
    """The meter could not prove who it is, refused our proof, or used weaker security than its profile pins."""

    exit_status = SECURITY


class MeterRefused(MeterError):
    """The meter's own *no*: an answer, not a fault of the line."""

    exit_status = REFUSED


class MeterTimeout(MeterError):
    """The deadline passed before the meter answered."""


class MeterGone(MeterError):
    """No connection could be opened, or it broke as often as it could be tried."""


class RequestError(HeadEndError):
    """We were asked for something that cannot be."""

    exit_status = USAGE


class UnknownMeter(RequestError):
    """No meter of that name is in the registry."""


class UnknownLogicalName(RequestError):
    """Not a logical name, or none that the meter, the catalogue or the store knows."""


class UnknownSubject(RequestError):
    """No account is called that."""


class NotAuthorised(RequestError):
    """Whoever asks may not."""

    exit_status = SECURITY


class ConfigError(HeadEndError):
    """Mistakes in a configuration or input file, one a line of the message."""

    exit_status = BAD_INPUT

    def __init__(self, *mistakes: str) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class PluginError(HeadEndError):
    """A plugin broke its contract, or cannot be loaded."""

    exit_status = BAD_INPUT


class StoreError(HeadEndError):
    """The store could not do what must be durable."""


class StoreFailed(StoreError):
    """A write or its fsync failed. Nothing more is acknowledged; the process must end and start again."""


class StoreFull(StoreError):
    """The disk's reserve is reached: readings wait, counters and the audit log still go in."""


class StoreUnavailable(StoreError):
    """The database does not answer, or another session holds it. Nothing was written; the same may be tried again."""

    exit_status = UNREACHABLE


class StoreUncertain(StoreFailed):
    """The connection broke in a commit: whether it took place is known when the database answers again.

    `ticket` is what to ask it by; `info` is the broken connection's.
    """

    def __init__(self, message: str, ticket: str, info: MutableMapping[str, Any]) -> None:
        super().__init__(message)
        self.ticket = ticket
        self.info = info


class StoreTooOld(StoreError):
    """An older head-end wrote this store, and only its owner or `store upgrade` brings it up to date."""

    exit_status = BAD_INPUT


class StoreDamaged(StoreError):
    """Stored bytes are not what was written."""


class StoreTooNew(StoreError):
    """A newer head-end wrote this store."""

    exit_status = BAD_INPUT


class StoreRestored(StoreError):
    """The store was copied back, so counters that it would grant may have been used already (R8)."""

    exit_status = SECURITY


class StoreInUse(StoreError):
    """Another head-end owns this store."""

    exit_status = BAD_INPUT


class StaleOwner(StoreError):
    """Another head-end took the store over: this one may reserve no counter and write nothing any more."""


class KeystoreError(HeadEndError):
    """Keys could not be opened."""

    exit_status = SECURITY


class WrongKeyEncryptionKey(KeystoreError):
    """The key-encryption key is not the one that the stored keys are wrapped with."""


class KeyTampered(KeystoreError):
    """A wrapped key is not what was stored, or belongs to another meter."""


class WrongShares(KeystoreError):
    """Shares of a master key that are too few, altered, repeated, or of different sets."""


class TokenError(KeystoreError):
    """The hardware module that holds the key-encryption key cannot be used. Nothing takes its place."""
