"""What this room takes from the native core: its two numberings, and the shapes that a test can stand in for.

`EventKind` and `Outcome` repeat the numbers of `protocols/session`; a system test compares them with the module's own.
"""

# ruff: noqa: D102 - the methods of the two protocols are described in `_core.pyi`

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # the rules of this room are tested without the extension
    from ipss_headend._core import Batch, Priority
    from ipss_headend._core import Item as _Item
    from ipss_headend._core import ModbusItem as _ModbusItem
    from ipss_headend._core import ModbusPlan as _ModbusPlan
    from ipss_headend._core import Plan as _Plan

CONFIRMED = "confirmed"
"""The detail of `EventKind.NOTIFIED` for a push that waits to be confirmed."""

AnswerRow = tuple[int, int, int, int | None, int, int, list[int | bytes | None]]
"""(meter_id, request_id, item, capture_time_us, deviation_min, clock_status, cells)."""


PushColumn = tuple[int, str, int, int, int | None, str, str]
"""(class_id, logical_name, attribute, data_index, scaler, unit, name) of one value of a push."""

Push = tuple[int | None, int, int, tuple[int, str, int], tuple[PushColumn, ...], list[int | bytes | None]]
"""(capture_time_us, deviation_min, clock_status, (class_id, logical_name, attribute), columns, cells)."""


class Outcome(IntEnum):
    """How a request ended; see `ipss_session::Outcome`."""

    DONE = 0
    REFUSED = 1
    TIMED_OUT = 2
    UNREACHABLE = 3
    VIOLATION = 4
    AUTHENTICATION_FAILED = 5
    CANCELLED = 6
    COUNTERS_EXHAUSTED = 7
    OVERLOADED = 8
    UNKNOWN = 9
    IMPOSSIBLE = 10
    INTERRUPTED = 11

    @property
    def label(self) -> str:
        """The name in logs and metrics."""
        return self.name.lower().replace("_", "-")


class EventKind(IntEnum):
    """What happened; see `ipss_session::EventKind`. From 1000 on: noticed here, not by a session."""

    CONNECTED = 1
    ASSOCIATED = 2
    DISCONNECTED = 3
    ASSOCIATION_REJECTED = 4
    AUTHENTICATION_FAILED = 5
    TAG_INVALID = 6
    REPLAY_REFUSED = 7
    WEAKER_SECURITY = 8
    SYSTEM_TITLE_MISMATCH = 9
    PROTOCOL_VIOLATION = 10
    UNEXPECTED_ANSWER = 11
    COUNTERS_LOW = 12
    COUNTERS_EXHAUSTED = 13
    COUNTER_BEHIND = 14
    COUNTER_JUMP = 15
    NOTIFIED = 16
    CLAIM_REFUSED = 17
    BACKED_OFF = 18
    SERVED = 19
    RELEASED = 20
    NONCE_SEEN = 21
    TRACED = 22
    PUSH_UNCLAIMED = 23
    PUSH_HEARD = 24
    CLONE_DETECTED = 25

    CLOCK_DEVIATES = 1001
    """The meter's clock is further from ours than the plan allows. Number: by how many milliseconds it is ahead."""
    COLUMNS_DIFFER = 1002
    """The meter captures other columns than others of its model. Number: how many columns it has."""

    PUSH_KEPT = 1003
    """A notification that nothing explains. Number: its octets. Detail: the plain APDU in hexadecimal digits."""

    STORE_DAMAGED = 1004
    """What is stored is not what was written; of no meter. Number: how many. Detail: which. `store/scrub.py`."""

    @property
    def label(self) -> str:
        """The name in logs and metrics."""
        return self.name.lower().replace("_", "-")


class Reactor(Protocol):
    """`_core.Reactor`, as far as this room calls it."""

    def fileno(self) -> int: ...
    def take(self) -> Batch | None: ...
    def finished(self) -> bool: ...
    def submit(
        self,
        plan: _Plan | _ModbusPlan,
        meters: Sequence[int] | bytes | bytearray | memoryview,
        *,
        timeout_s: float,
        priority: Priority = "scheduled",
        attempts: int = 3,
        from_us: int = 0,
        to_us: int = 0,
    ) -> int: ...
    def cancel(self, requests: Sequence[tuple[int, int]]) -> None: ...
    def grant(self, grants: Sequence[tuple[int, int, int]]) -> None: ...
    def confirm(self, pushes: Sequence[tuple[int, int]]) -> None: ...
    def hear(self, pushes: Sequence[tuple[int, int, bytes]]) -> None: ...


class Native(Protocol):
    """The module `_core`, as far as this room calls it beside the reactor."""

    @property
    def Item(self) -> type[_Item]: ...  # noqa: N802 - the module's name for it
    @property
    def Plan(self) -> Callable[[Iterable[_Item]], _Plan]: ...  # noqa: N802
    def decode_data(self, octets: bytes) -> list[Any]: ...
    def unit_symbol(self, unit: int) -> str: ...
    def catalogue(self, logical_name: bytes) -> dict[str, Any] | None: ...
    def add_profile(self, name: str, text: str) -> None: ...
    def profile_names(self) -> list[str]: ...
    def read_push(self, apdu: bytes, profile: str) -> Push: ...
    def unopened_pushes(self, octets: bytes) -> list[tuple[bytes, int, int, bytes]]: ...


class ModbusNative(Protocol):
    """The module `_core`, where devices are asked that speak Modbus."""

    @property
    def ModbusItem(self) -> type[_ModbusItem]: ...  # noqa: N802 - the module's name for it
    @property
    def ModbusPlan(self) -> Callable[[Iterable[_ModbusItem]], _ModbusPlan]: ...  # noqa: N802
