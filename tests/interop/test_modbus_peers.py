"""Both roles of Modbus against pymodbus and libmodbus, over every framing that they have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.interop.environments import ROOT, make

FRAMINGS = ("tcp", "udp", "rtu-over-tcp", "ascii")
WAIT_S = 60
BUILD_WAIT_S = 900

# What is asked of their servers, and what comes back: the same of both.
QUESTIONS = {
    "03 0064 0003": "done 06006400650066",
    "01 000A 000A": "done 022401",
    "02 0005 0006": "done 0121",
    "04 0008 0002": "done 0427182719",
    "10 0001 0002 04 000A0102": "done",
    "03 0001 0002": "done 04000a0102",
    "05 0001 FF00": "done",
    "0F 0003 0003 01 05": "done",
    "01 0000 0007": "done 016b",
    "06 0007 04D2": "done",
    "03 0007 0001": "done 0204d2",
    "16 0004 00F2 0025": "done",
    "17 0003 0006 000E 0003 06 00FF00FF00FF": "done 0c000300050005000604d20008",
    "03 F000 0001": "refused 2",
    "points holding 1 5 9 120": "done 10 5 9 120",
}
ONLY_PYMODBUS = {
    "2B 0E 01 00": "done 0e018300000300056f74686572010670656f706c650204332e3136",
    "08 0000 A537": "done 0000a537",
}
MOST = list(range(125))
# What their clients get of our device.
ANSWERS: dict[str, Any] = {
    "coils": [1, 0, 0, 1, 0, 0, 1, 0, 0, 1],
    "inputs": [1, 0, 0, 0, 0, 1],
    "holding": [100, 101, 102],
    "most": MOST,
    "input": [10_008, 10_009],
    "write-and-read": [9, 7, 8, 9],
    "written-coils": [1, 1, 0, 1, 0, 1, 1],
    "written": [0, 99, 7, 8, 9],
    "fifo": [1, 2, 3],
    "diagnostics": "a537",
    "identification": {"0": "ipss", "1": "peer", "2": "1.0"},
    "missing": 2,
}


@pytest.fixture(scope="module")
def ours() -> str:
    """Our sessions behind sockets: the crate's own example."""
    cargo = shutil.which("cargo")
    assert cargo is not None, "cargo is needed, as for the extension"
    command = [cargo, "build", "--quiet", "--locked", "-p", "ipss-modbus", "--example", "peer"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=BUILD_WAIT_S)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return str(target / "debug" / "examples" / "peer")


@pytest.fixture(scope="module")
def libmodbus(tmp_path_factory: pytest.TempPathFactory) -> str:
    program = tmp_path_factory.mktemp("libmodbus") / "peer"
    source = ROOT / "tests" / "interop" / "libmodbus_peer.c"
    command = ["cc", "-Wall", "-Wextra", "-Werror", "-O1", "-o", str(program), str(source), "-lmodbus"]
    subprocess.run(command, check=True, timeout=WAIT_S)
    return str(program)


@pytest.fixture(scope="module")
def pymodbus() -> list[str]:
    return [str(make("pymodbus")), "-m", "tests.interop.pymodbus_peer"]


@contextmanager
def serving(command: list[str]) -> Iterator[str]:
    """Run a server; where it listens."""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            word, _, address = process.stdout.readline().strip().partition(" ")
            assert word == "listening", f"{command[0]} does not listen"
            yield address
        finally:
            process.kill()


def run(command: list[str], text: str = "") -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        input=text,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def asked(ours: str, framing: str, address: str, questions: dict[str, str]) -> dict[str, str]:
    lines = run([ours, "ask", framing, address, "1"], "\n".join(questions)).splitlines()
    return dict(zip(questions, lines, strict=True))


@pytest.mark.parametrize("framing", FRAMINGS)
def test_our_head_end_reads_and_writes_a_pymodbus_server(ours: str, pymodbus: list[str], framing: str) -> None:
    questions = QUESTIONS | ONLY_PYMODBUS
    with serving([*pymodbus, "serve", framing]) as address:
        assert asked(ours, framing, address, questions) == questions


def test_our_head_end_reads_and_writes_a_libmodbus_server(ours: str, libmodbus: str) -> None:
    with serving([libmodbus, "serve"]) as address:
        assert asked(ours, "tcp", address, QUESTIONS) == QUESTIONS


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_pymodbus_client_reads_and_writes_our_device(ours: str, pymodbus: list[str], framing: str) -> None:
    with serving([ours, "serve", framing, "127.0.0.1:0"]) as address:
        answers = json.loads(run([*pymodbus, "ask", framing, address.rpartition(":")[2]]))
    expected = {name: answer for name, answer in ANSWERS.items() if name != "fifo" or framing != "rtu-over-tcp"}
    assert answers == expected


def test_a_libmodbus_client_reads_and_writes_our_device(ours: str, libmodbus: str) -> None:
    with serving([ours, "serve", "tcp", "127.0.0.1:0"]) as address:
        lines = run([libmodbus, "ask", address.rpartition(":")[2]]).splitlines()
    numbers = [" ".join(map(str, line)) for line in (MOST, [9, 7, 8, 9], [1, 1, 0, 1, 0, 1, 1], [0, 99, 7, 8, 9])]
    assert lines == [
        "coils 1 0 0 1 0 0 1 0 0 1",
        "inputs 1 0 0 0 0 1",
        "holding 100 101 102",
        f"most {numbers[0]}",
        "input 10008 10009",
        "write-bit 1",
        "write-register 1",
        "write-bits 3",
        "write-registers 3",
        "mask-write 1",
        f"write-and-read {numbers[1]}",
        f"coils {numbers[2]}",
        f"holding {numbers[3]}",
        "server-id 105 112 115 115 255",
        "missing -1 illegal-data-address",
    ]
