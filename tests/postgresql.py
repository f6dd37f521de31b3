"""A PostgreSQL server of the tests' own: in a temporary directory, on a unix socket, synced as a real one is.

Debian: `apt-get install postgresql` (scripts/system-packages does). PostgreSQL refuses to run as root; as root it runs
as its own user, or as nobody.
"""

import getpass
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from ipss_headend.address import Server
from ipss_headend.store import Database

SETTINGS = {
    "listen_addresses": "''",
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "40",
    "shared_buffers": "32MB",
    "autovacuum": "off",  # of databases that live for a second
}


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    if where := shutil.which("initdb"):
        return Path(where).parent
    raise RuntimeError(
        "PostgreSQL's initdb is not installed: apt-get install postgresql (scripts/system-packages does)"
    )


class PrivateServer:
    """A running server with any number of databases. It is stopped and removed at the end."""

    def __init__(self, beside: Path | None = None) -> None:
        """`beside`: on this disk, where that matters."""
        self._programs = _programs()
        self.directory = Path(tempfile.mkdtemp(prefix="ipss-pg-", dir=beside))
        self.data = self.directory / "data"
        self._numbers = count()
        self._template = ""
        self._account: int | None = None
        self.user = getpass.getuser()
        if os.geteuid() == 0:
            names = {one.pw_name for one in pwd.getpwall()}
            account = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            self.user = account.pw_name
            os.chown(self.directory, account.pw_uid, account.pw_gid)
            self._account = account.pw_uid
        self._run("initdb", "-D", self.data, "-E", "UTF8", "--locale=C.UTF-8", "-A", "trust", "--no-instructions", "-N")
        with (self.data / "postgresql.conf").open("a", encoding="ascii") as settings:
            settings.writelines(f"{name} = {value}\n" for name, value in SETTINGS.items())
            settings.write(f"unix_socket_directories = '{self.directory}'\n")
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._run("pg_ctl", "-D", self.data, "-l", self.directory / "log", "-w", "-t", "60", "start")

    def stop(self, *, mode: str = "immediate") -> None:
        """Stop it: `immediate` is how a power cut looks, all sessions break."""
        self._run("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop")

    def kill(self) -> None:
        """kill -9 of the server and all its sessions; returns when none is left."""
        process = int((self.data / "postmaster.pid").read_text().partition("\n")[0])
        os.killpg(process, signal.SIGKILL)
        with suppress(ProcessLookupError):
            while True:
                os.killpg(process, 0)
                time.sleep(0.01)

    def url(self, database: str) -> str:
        """Where a database is."""
        return f"postgresql://{self.user}@/{database}?host={self.directory}"

    def server(self, database: str, marker: Path) -> Server:
        """Where a database is, for `Database`."""
        return Server(self.url(database), marker)

    def make(self, template: str = "template1") -> str:
        """A new database; its name."""
        name = f"store_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log")
        return name

    @contextmanager
    def store(self, directory: Path) -> Iterator[Server]:
        """An empty store, copied from one that was made once; its marker is in `directory`. It is dropped behind."""
        if not self._template:
            self._template = self.make()
            Database(self.server(self._template, self.directory / "template.marker")).close()
            self.execute("DELETE FROM restore_guard", self._template)
        name = self.make(self._template)
        directory.mkdir(parents=True, exist_ok=True)
        try:
            yield self.server(name, directory / "head_end.marker")
        finally:
            self.drop(name)

    def drop(self, database: str) -> None:
        """Remove a database, whoever uses it."""
        self.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement, as somebody beside the head-end."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            found = connection.execute(statement)
            return found.fetchall() if found.description else []

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if program != "pg_ctl" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT if program != "pg_ctl" else subprocess.DEVNULL,
            cwd=self.directory,
            check=False,
            user=self._account,
            group=self._account and pwd.getpwuid(self._account).pw_gid,
            extra_groups=None if self._account is None else (),
        )
        if done.returncode != 0:
            log = self.directory / "log"
            said = (done.stdout or b"").decode() + (log.read_text() if log.exists() else "")
            raise RuntimeError(f"{program}: status {done.returncode}: {said[-2000:]}")


@contextmanager
def stopped(server: PrivateServer, for_s: float) -> Iterator[None]:
    """The server is down while the block runs and at least this long."""
    ends = time.monotonic() + for_s
    server.stop()
    try:
        yield
        time.sleep(max(0.0, ends - time.monotonic()))
    finally:
        server.start()
