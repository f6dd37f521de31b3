"""A virtual fleet whose events are read all the time, and a directory for the head-end that reads it.

`python -m tests.system.fleet COUNT ADDRESS DAYS` is such a fleet by itself, which does what its input says.
"""

import io
import json
import select
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ipss_headend import _core, config
from ipss_headend.config import Config
from ipss_headend.field.fleet import import_meters
from ipss_headend.field.reactor import EventKind
from ipss_headend.security.keystore import Keystore, create_key_file
from ipss_headend.store import Database


@dataclass
class Running:
    """A fleet, and what its meters noticed: (meter, number, detail) of each event, by kind."""

    meters: _core.VirtualFleet
    seen: dict[int, list[tuple[int, int, str]]] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def reused(self) -> list[tuple[int, int, str]]:
        """Invocation counters that a meter saw twice under its lasting key."""
        frames = Counter(frame for frame in self.seen.get(EventKind.NONCE_SEEN, []) if frame[2] == "global")
        return [frame for frame, times in frames.items() if times > 1]

    def listen(self) -> None:
        """Take the fleet's batches; it stops reading when nobody does."""
        while not self._over.is_set():
            select.select([self.meters.fileno()], [], [], 0.1)
            while (batch := self.meters.take()) is not None:
                for meter, _, kind, number, detail in batch.events():
                    self.seen.setdefault(kind, []).append((meter, number, detail))

    def stop(self) -> None:
        """End the listening."""
        self._over.set()


@contextmanager
def fleet(
    count: int, first_address: str, *, faults: str = "", history_days: int = 5, port: int = 0
) -> Iterator[Running]:
    """A fleet, on a port of the operating system's choice if none is given; give each test its own addresses."""
    meters = _core.VirtualFleet(
        count=count,
        first_address=first_address,
        port=port,
        faults=faults,
        history_days=history_days,
        log_nonces=True,
    )
    running = Running(meters)
    listener = threading.Thread(target=running.listen)
    listener.start()
    try:
        yield running
    finally:
        running.stop()
        listener.join()
        meters.stop()


class Elsewhere:
    """A fleet in a process of its own, which has descriptors of its own. It is its own `meters`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.meters = self

    def csv(self, *, dials_in: bool = False) -> str:
        """As of `VirtualFleet`."""
        return str(self._asked(["csv", dials_in]))

    def dial(self, address: str) -> None:
        """As of `VirtualFleet`."""
        self._asked(["dial", address])

    def reused(self) -> list[tuple[int, int, str]]:
        """As of `Running`."""
        return [tuple(frame) for frame in self._asked(["reused"])]

    def _asked(self, question: list[object]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(question), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


@contextmanager
def fleet_elsewhere(count: int, first_address: str, *, history_days: int = 5) -> Iterator[Elsewhere]:
    """As `fleet`, in a process of its own."""
    command = [sys.executable, "-m", __name__, str(count), first_address, str(history_days)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Elsewhere(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)


def main(count: str, first_address: str, history_days: str) -> None:
    """Answer each line of the input: csv, dial, reused; until it ends."""
    with fleet(int(count), first_address, history_days=int(history_days)) as running:
        for line in sys.stdin:
            what, *said = json.loads(line)
            answer: object = None
            if what == "csv":
                answer = running.meters.csv(dials_in=said[0])
            elif what == "dial":
                running.meters.dial(said[0])
            else:
                answer = running.reused()
            print(json.dumps(answer), flush=True)


def head_end(
    directory: Path,
    plans: str,
    running: Running | Elsewhere,
    *,
    metrics_port: int = 0,
    reactor: str = "",
    dials_in: bool = False,
    database: str = "",
) -> Path:
    """Configure a head-end in a directory and import the fleet. Returns the configuration file.

    `database` is the URL of an empty store; none: a file of its own.

    The addresses of meters that `dials_in` stay unknown.
    """
    create_key_file(directory / "key_encryption.key")
    path = directory / "head_end.toml"
    stored = f'[database]\nurl = "{database}"\n' if database else ""
    path.write_text(
        '[keystore]\nkey_file = "key_encryption.key"\n'
        f"[reactor]\nthreads = 1\nconnections_per_second = 5000\n{reactor}\n"
        f"[metrics]\nport = {metrics_port}\n"
        f"{stored}{plans}\n",
        encoding="utf-8",
    )
    loaded = config.load(path)
    with opened(loaded) as store, store.writing() as connection:
        keystore = Keystore.open(connection, loaded.keystore)
        report = import_meters(
            connection, keystore, io.StringIO(running.meters.csv(dials_in=dials_in)), "fleet.csv", strict=True
        )
    assert report.mistakes == ()
    return path


def opened(loaded: Config) -> Database:
    """The head-end's store, as a guest."""
    return Database(loaded.database.address, reserve_bytes=0)


if __name__ == "__main__":
    main(*sys.argv[1:])
