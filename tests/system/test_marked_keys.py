"""R21, R41: the keys of a fleet that is served are in no log, answer, error, page, file or crash dump; what its meters
measured is in no log or page beside their names.
"""

import contextlib
import csv
import io
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import trio
from tests.system.fleet import fleet, head_end, opened
from tests.system.test_serve import BILLING, free_port, page
from tests.unit.cli.test_marked_keys import forms

from ipss_headend import config
from ipss_headend.client import AsyncClient, CallFailed, Disconnected
from ipss_headend.rpc.catalogue import METHODS
from ipss_headend.store.records import decode_cells
from ipss_headend.store.statements import rows

METERS = 30


def marked(text: str) -> list[bytes]:
    """Every secret of a fleet file."""
    rows = csv.DictReader(io.StringIO(text))
    names = ("encryption_key", "authentication_key")
    return [bytes.fromhex(row[name]) for row in rows for name in names]


async def everything(address: str, seconds: float) -> bytes:
    """Every method, with its example's parameters and with those of a meter; answers and errors as octets."""
    said: list[object] = []

    async def one(client: AsyncClient, method: str, params: dict[str, Any]) -> None:
        with contextlib.suppress(Disconnected), trio.move_on_after(3):
            try:
                said.append(await client.call(method, **params))
            except CallFailed as error:
                said.append((str(error), error.args, repr(error)))

    with trio.move_on_after(seconds):
        async with AsyncClient(address) as client:
            for name in sorted(METHODS):
                if name.rpartition(".")[2] in {"stop", "drain", "logout"} or name.startswith("stream."):
                    continue
                for params in (
                    {},
                    {"device": "virtual-00001"},
                    {"points": ["virtual-00002"]},
                    {"name": "virtual-00003"},
                ):
                    await one(client, name, params)
    return repr(said).encode()


def test_r41_a_serving_head_end_tells_no_key_to_anybody_nor_when_it_crashes(tmp_path: Path) -> None:
    port = free_port()
    with fleet(METERS, "127.71.0.1", history_days=1, faults="wrong-tag=#3,garbage=#4,plaintext=#5") as running:
        path = head_end(
            tmp_path, BILLING.replace("1d at 00:10", "1s") + '[log]\nlevel = "debug"\n', running, metrics_port=port
        )
        keys = marked(running.meters.csv())
        log = tmp_path / "log"
        # As large a crash file as this process may give away: the head-end itself has to want none.
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-m", "ipss_headend.cli", "--debug", "serve", str(path)],
                stdout=stream,
                stderr=stream,
                cwd=tmp_path,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (hard, hard)),
            )
            try:
                give_up = time.monotonic() + 30
                while lines(path) < 2 * METERS and time.monotonic() < give_up:
                    time.sleep(0.1)
                loaded = config.load(path)
                assert process.poll() is None, log.read_text()[-1500:]
                pages = "".join(page(f"http://127.0.0.1:{port}/{name}")[1] for name in ("metrics", "healthz"))
                answers = trio.run(everything, f"unix:{loaded.rpc.socket}", 60.0)
                cores = [
                    line.split()[4] for line in Path(f"/proc/{process.pid}/limits").read_text().splitlines()
                    if line.startswith("Max core file size")
                ]  # fmt: skip
            finally:
                process.send_signal(signal.SIGABRT)
                process.wait(30)

    told = [line for page in (log.read_text(errors="replace"), pages) for line in page.splitlines()]
    files = [one for one in tmp_path.rglob("*") if one.is_file()]
    found = b"\0".join([answers, pages.encode(), *(one.read_bytes() for one in files)])
    assert len(keys) == 2 * METERS
    assert process.returncode == -signal.SIGABRT
    assert b"Fatal Python error: Aborted" in log.read_bytes()  # what a crash shows is among what is searched
    assert cores == ["0"]  # and there is no dump of its memory
    assert not [one for one in files if one.name.startswith("core")]
    assert b"virtual-00001" in answers
    assert [form for key in keys for form in forms(key) if form in found] == []
    assert keys[0].hex() in running.meters.csv()
    values = measured(path)
    assert sum(map(len, values.values())) > METERS // 2
    assert [line for line in told if names_a_reading(line, values)] == []
    some = next(name for name in values if values[name])
    assert names_a_reading(f"{some}: {next(iter(values[some]))} Wh", values)


def measured(path: Path) -> dict[str, set[int]]:
    """What was read of each meter, by its name: numbers that are long enough to be no count of something else."""
    with opened(config.load(path)) as database, database.reading() as connection:
        found: dict[str, set[int]] = {}
        for name, cells in rows(connection, "SELECT name, cells FROM readings NATURAL JOIN meters"):
            values = found.setdefault(name, set())
            values |= {value for value in decode_cells(cells) if isinstance(value, int) and value >= 10_000}
        return found


def names_a_reading(line: str, values: dict[str, set[int]]) -> bool:
    """Whether a line has a meter's name and what the meter measured."""
    numbers = {int(digits) for digits in re.findall(r"(?<![\d.])\d{5,18}(?![\d])", line)}
    return any(name in line and numbers & measured for name, measured in values.items())


def lines(path: Path) -> int:
    with opened(config.load(path)) as database, database.reading() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM readings").scalar_one())
