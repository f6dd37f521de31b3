"""Ours for `rpc.py`: the head-end whole, on a store with readings, in a directory that is named; until its input ends.

As in production: its RPC server on a unix socket and over TLS with certificates on both sides, accounts, rights,
schemas, limits, audit. The one setting that is not the default is the limit of calls of one caller: all are one here.

Prints where it is called and with which certificates once it is up.
"""

from __future__ import annotations

import io
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import trio
from benches.peers.rpc_values import METERS, REGISTER
from sqlalchemy import Connection
from tests.unit.rpc.certificates import SERVER, Authority, Shown

from ipss_headend import _core, config, log
from ipss_headend.config import LogConfig
from ipss_headend.field.fleet import import_meters
from ipss_headend.security import identity
from ipss_headend.security.identity import Kind
from ipss_headend.security.keystore import Keystore, create_key_file
from ipss_headend.security.permission import ALL_GROUPS, Principal, Role
from ipss_headend.server import HeadEnd, Stop, run
from ipss_headend.store import Database, journal
from ipss_headend.store.database import now_us
from ipss_headend.store.journal import WriteBatch
from ipss_headend.store.records import reading_row
from ipss_headend.store.registry import Layout, LayoutColumn, all_meters, intern_layouts

ROOT = Principal("local:root", frozenset(Role) - {Role.SERVICE})
THIEVES = 4
"""Certificates whose passwords somebody tries, for each run: those of one run are locked out in the next."""

PROFILE = [LayoutColumn(3, f"1.0.{quantity}.8.0.255", 2, 0, 0, "Wh") for quantity in (1, 2, 3, 4)]
LAYOUTS = [
    Layout(3, REGISTER, 2, (LayoutColumn(3, REGISTER, 2, 0, 0, "Wh"),)),
    Layout(7, "1.0.99.1.0.255", 2, tuple(PROFILE)),
]


def readings(connection: Connection) -> None:
    """A register and a day of load profile of each meter."""
    received_us = now_us()
    register, profile = intern_layouts(connection, LAYOUTS)
    rows = []
    for meter in all_meters(connection):
        for line in range(96):
            captured_us = received_us - (97 - line) * 900_000_000
            cells = [1_000_000 + line * 250, line, line, line]
            rows.append(reading_row(meter.meter_id, profile, captured_us, cells, received_us=received_us))
        captured_us = received_us - 60_000_000
        rows.append(reading_row(meter.meter_id, register, captured_us, [2_000_000], received_us=received_us))
    journal.write(connection, WriteBatch(readings=rows), received_us, 1)


def accounts(connection: Connection, caller: Shown, thieves: list[Shown], hashed: str) -> None:
    """The caller over TLS, and people with passwords."""
    identity.add(connection, ROOT, "mdm", Kind.SERVICE)
    identity.certify(connection, ROOT, "mdm", caller.fingerprint)
    identity.grant(connection, ROOT, "mdm", Role.SERVICE, ALL_GROUPS)
    for shown in thieves:
        name = shown.pem.stem
        identity.add(connection, ROOT, name, Kind.USER)
        identity.certify(connection, ROOT, name, shown.fingerprint)
        identity.grant(connection, ROOT, name, Role.OPERATOR, ALL_GROUPS)
        identity.set_password(connection, ROOT, name, hashed)


def prepared(directory: Path, rounds: int) -> tuple[Path, dict[str, Any]]:
    """A configuration with its store, and what callers need to know."""
    create_key_file(directory / "key_encryption.key")
    authority = Authority(directory)
    own = authority.issue("localhost", purpose=SERVER)
    caller = authority.issue("mdm")
    thieves = [authority.issue(f"person{number:02}") for number in range(THIEVES * rounds)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = directory / "head_end.toml"
    path.write_text(
        '[keystore]\nkey_file = "key_encryption.key"\nsoftware_accepted = true\n[metrics]\nport = 0\n'
        f'[rpc]\nsocket = "{directory}/rpc.sock"\nhost = "127.0.0.1"\nport = {port}\ncalls_per_second = 10000000\n'
        f'certificate = "{own.pem}"\nkey = "{own.key}"\nclient_authority = "{authority.pem}"\n'
    )
    loaded = config.load(path)
    fleet = _core.VirtualFleet(count=METERS, first_address="127.93.0.1", port=0, history_days=1)
    csv = io.StringIO(fleet.csv(dials_in=True))
    fleet.stop()
    with Database(loaded.database.address, reserve_bytes=0) as database, database.writing() as connection:
        import_meters(connection, Keystore.open(connection, loaded.keystore), csv, "fleet.csv", strict=True)
        readings(connection)
        accounts(connection, caller, thieves, identity.HASHER.hash("a long password of theirs"))
    return path, {
        "unix": f"unix:{directory}/rpc.sock",
        "tls": f"tls:{port}",
        "authority": str(authority.pem),
        "certificate": str(caller.pem),
        "key": str(caller.key),
        "people": [[one.pem.stem, str(one.pem), str(one.key)] for one in thieves],
        "each": THIEVES,
        "pid": os.getpid(),
    }


async def main() -> None:
    """Serve until the input ends."""
    path, told = prepared(Path(sys.argv[1]), int(sys.argv[2]))
    log.configure(LogConfig(level="critical"))
    stop = Stop()
    async with trio.open_nursery() as nursery:
        started: HeadEnd = await nursery.start(run, config.load(path), stop)
        assert len(started.meters) == METERS
        print(json.dumps(told), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        stop.ask()
        stop.ask()


if __name__ == "__main__":
    trio.run(main)
