"""Readings handed to a plugin's process and back, as columns in shared memory; and validation in one process.

`python benches/plugins.py [SECONDS]`. The plugin is `validate`, installed with the head-end.
"""

import sys
import time
from array import array
from collections.abc import Mapping

import trio

from ipss_headend.metrics import Figures
from ipss_headend.plugins.columns import Buffer, local, share
from ipss_headend.plugins.context import Context
from ipss_headend.plugins.manager import Manager
from ipss_headend.plugins.selftest import batch


def main(seconds: float) -> None:
    columns, rows = batch("huge")
    _, calls = _timed(lambda: share(columns, rows).close(), seconds)
    print(f"laid into shared memory   {calls * rows / 1e6:8.2f} million readings/s")
    trio.run(_hand_over, columns, rows, seconds)
    _validate(columns, rows, seconds)


async def _hand_over(columns: Mapping[str, Buffer], rows: int, seconds: float) -> None:
    figures = Figures()
    manager = Manager(["validate"], figures, patience=100)
    async with trio.open_nursery() as nursery:
        await nursery.start(manager.run)
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            await manager.batch("billing_validate_batch", columns, rows)
            done += 1
        rate = done * rows / (time.perf_counter() - began)
        nursery.cancel_scope.cancel()
    if not figures.plugin("validate").calls["billing_validate_batch", "done"]:
        raise SystemExit("the plugin `validate` is not installed, or it failed")
    print(f"handed over and validated {rate / 1e6:8.2f} million readings/s")


def _validate(columns: Mapping[str, Buffer], rows: int, seconds: float) -> None:
    from ipss_headend.plugins.billing.validate import billing_validate_batch

    context = Context("validate", "billing_validate_batch", 1, 0, 1.0)
    views = dict(local(columns, rows).items())

    def once() -> None:
        billing_validate_batch(context, local(views, rows))

    _, calls = _timed(once, seconds)
    print(f"validated in one process  {calls * rows / 1e6:8.2f} million intervals/s")
    assert array("q", views["values"])


def _timed(work: object, seconds: float) -> tuple[int, float]:
    assert callable(work)
    began, done = time.process_time(), 0
    while time.process_time() - began < seconds:
        work()
        done += 1
    return done, done / (time.process_time() - began)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0)
