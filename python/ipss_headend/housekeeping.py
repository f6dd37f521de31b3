"""What the head-end does for its store beside its work: old entries of the log go, and months kept no longer."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

import trio
from sqlalchemy import Connection

from ipss_headend.config import Config, RetentionConfig
from ipss_headend.errors import HeadEndError, StaleOwner, StoreFailed, StoreFull
from ipss_headend.log import logger
from ipss_headend.metrics import Figures
from ipss_headend.schedule import DAY_S
from ipss_headend.security import audit
from ipss_headend.store import Store, partitions, retention
from ipss_headend.store.archive import Contents
from ipss_headend.store.database import now_us
from ipss_headend.store.log import forget
from ipss_headend.store.partitions import Month
from ipss_headend.store.retention import RETIRED, Report, Steps
from ipss_headend.store.statements import is_postgresql

AGAIN_S = 3600.0
"""How often what is kept no longer is looked for."""

PAUSE = 4.0
"""A head-end that retires rests so many times as long as each piece took."""

LOCK_MS = 250
"""How long PostgreSQL's tables are waited for, which everybody else would wait behind."""


async def forget_log(store: Store, days: int) -> None:
    """Once an hour, drop what the log keeps no longer, a piece at a time; also on a full disk, to make room there."""
    while True:
        old = partial(forget, before_us=now_us() - days * DAY_S * 1_000_000)
        with suppress(StoreFull):
            while await store.change(old, spend_reserve=True):
                pass
        await trio.sleep(AGAIN_S)


async def keep(store: Store, config: Config, figures: Figures, again_s: float = AGAIN_S) -> None:
    """Retire months as `[retention]` says, while the head-end runs; what keeps it from that is told and tried again."""
    log = logger("retention")
    while config.retention.months:
        before = retention.kept_from(now_us(), config.retention.months)
        try:
            retired, lines, damaged = await _retired(store, config.retention, config.database.reserve_mib << 20, before)
        except (StaleOwner, StoreFailed):
            raise
        except (HeadEndError, OSError) as error:
            figures.retention_trouble = True
            log.error(  # noqa: TRY400 - a fact for the operator, no fault of ours
                "readings were not retired",
                before=str(before),
                why=str(error),
                again_s=again_s,
            )
        else:
            figures.retention_trouble = bool(damaged)
            figures.retired_lines += lines
            if retired:
                log.info("readings retired", before=str(before), lines=lines, into=retired)
            if damaged:
                log.warning("damaged readings stay", before=str(before), lines=len(damaged), first=damaged[0])
        await trio.sleep(again_s)


def noted(principal: str) -> retention.Note:
    """Who writes the audit record of an archive, in the transaction that begins to delete."""

    def note(connection: Connection, *, path: Path, contents: Contents) -> None:
        detail = {
            "archive": path.name,
            "digest": contents.digest,
            "estimates": contents.estimates,
            "flags": contents.reading_flags,
            "lines": contents.readings,
        }
        audit.append(connection, RETIRED, principal, contents.month, detail)

    return note


def detached(connection: Connection, before: Month, principal: str) -> list[tuple[str, int]]:
    """PostgreSQL's months before this one as tables by themselves, with their audit records.

    Raises:
        RequestError: the month has not ended.
    """
    gone = partitions.detach(connection, before)
    for table, lines in gone:
        _, _, year, month, *_ = table.split("_")
        audit.append(connection, RETIRED, principal, f"{year}-{month}", {"lines": lines, "table": table})
    return gone


async def _retired(
    store: Store, rules: RetentionConfig, reserve_bytes: int, before: Month
) -> tuple[list[str], int, list[str]]:
    """What was retired, how many lines, and what is damaged and stays."""
    if await store.read(is_postgresql):

        def work(connection: Connection) -> list[tuple[str, int]]:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_MS}")
            return detached(connection, before, "head-end")

        gone = await store.within(0).change(work, spend_reserve=True)
        return [table for table, _ in gone], sum(lines for _, lines in gone), []
    steps = retention.retire(before, rules.archive, noted("head-end"), reserve_bytes=reserve_bytes)
    report = await _run(store, steps)
    names = [archive.path.name for archive in report.archives]
    return names, sum(archive.deleted for archive in report.archives), report.damaged


async def _run(store: Store, steps: Steps) -> Report:
    found: object = None
    try:
        while True:
            began = trio.current_time()
            step = await trio.to_thread.run_sync(_next, steps, found)
            if isinstance(step, Report):
                return step
            found = await (store.change(step.work, spend_reserve=True) if step.writes else store.read(step.work))
            await trio.sleep(PAUSE * (trio.current_time() - began))
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(steps.close)


def _next(steps: Steps, found: object) -> retention.Step | Report:
    # A thread may not raise StopIteration towards trio.
    try:
        return steps.send(found)
    except StopIteration as end:
        report: Report = end.value
        return report
