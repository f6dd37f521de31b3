"""`admin.*`: the head-end as a process."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import trio
from prometheus_client.exposition import generate_latest

from ipss_headend.errors import ConfigError, StoreError
from ipss_headend.rpc.call import Call
from ipss_headend.rpc.catalogue import Change, Empty, Params, Result, method
from ipss_headend.rpc.faults import Fault
from ipss_headend.security.permission import Right
from ipss_headend.store import backup as backups
from ipss_headend.store.database import now_us


class Health(Result, frozen=True):
    """What is wrong, by subject; nothing when all is well."""

    ok: bool
    wrong: dict[str, str]


class Metrics(Result, frozen=True):
    """The figures in Prometheus' text format."""

    text: str


class Backup(Result, frozen=True):
    """Where the copy is."""

    path: str
    octets: int


@method("admin.health", Right.OPERATE, example={})
async def health(call: Call, params: Params) -> Health:
    """What is wrong now, by trying."""
    wrong = await call.services.health()
    return Health(ok=not wrong, wrong=wrong)


@method("admin.metrics", Right.OPERATE, example={})
def metrics(call: Call, params: Params) -> Metrics:
    """The figures that `/metrics` shows."""
    return Metrics(text=generate_latest(call.services.registry).decode())


@method("admin.backup", Right.OPERATE)
async def backup(call: Call, params: Change) -> Backup:
    """Copy the store while it is in use, into the data directory's `backups`, and read the copy back whole.

    A copy that is restored must not send before its invocation counters are raised (docs/operations.md).
    """
    services = call.services
    source = services.config.database.address
    if not isinstance(source, Path):
        raise Fault("E_STORE", "PostgreSQL is backed up by its own tools: pg_basebackup with WAL archiving, or pg_dump")
    target = services.config.data_directory / backups.DIRECTORY / backups.name(source, now_us())
    reserve = services.config.database.reserve_mib << 20
    try:
        made = await trio.to_thread.run_sync(partial(backups.make, source, target, reserve_bytes=reserve, pause=1.0))
    except (ConfigError, StoreError) as error:
        raise Fault("E_STORE", str(error)) from error
    return Backup(path=str(made.path), octets=made.octets)


@method("admin.drain", Right.OPERATE)
def drain(call: Call, params: Change) -> Empty:
    """Stop the head-end as SIGTERM does: what is under way is finished."""
    if not call.services.stop.drain.is_set():
        call.services.stop.ask()
    return Empty()
