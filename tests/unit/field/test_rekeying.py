"""R22, R32: which keys meters have is found out for each, whatever becomes of another."""

from types import SimpleNamespace
from typing import Any

import pytest
import structlog
import trio
from trio.testing import MockClock

from ipss_headend import log
from ipss_headend.config import LogConfig
from ipss_headend.errors import KeyTampered, StoreFailed
from ipss_headend.field.rekeying import Rekeying
from ipss_headend.metrics import Figures


class Tried(Rekeying):
    """The tries of meter 1 end in a fault, for a while."""

    def __init__(self, fault: Exception) -> None:
        store: Any = SimpleNamespace(read=self._in_doubt)
        nothing: Any = None
        super().__init__(
            store=store, keystore=nothing, native=nothing, enrolment=nothing, requests=nothing, counters=nothing,
            watch=nothing, meters={number: SimpleNamespace(name=f"m{number}") for number in (1, 2)},  # type: ignore[misc]
            figures=Figures(),
        )  # fmt: skip
        self.fault = fault
        self.tries: list[int] = []

    async def _in_doubt(self, _: object) -> list[int]:
        return [1, 2]

    async def _try_all(self, meter: Any, *, old_first: bool) -> bool:
        self.tries.append(int(meter.name[1:]))
        if self.tries.count(1) < 3 and meter.name == "m1":
            raise self.fault
        return True


def settled(fault: Exception) -> list[int]:
    tried = Tried(fault)

    async def main() -> None:
        with trio.move_on_after(120.0):
            await tried.run()

    log.configure(LogConfig(level="critical"))
    try:
        trio.run(main, clock=MockClock(autojump_threshold=0))
    finally:
        structlog.reset_defaults()
    return tried.tries


def test_keys_of_one_meter_that_were_tampered_with_end_nobodys_tries() -> None:
    tries = settled(KeyTampered("meter 1"))

    assert (tries.count(1), tries.count(2)) == (3, 1)


def test_a_store_that_failed_ends_it() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        settled(StoreFailed("EIO"))

    assert caught.group_contains(StoreFailed)
