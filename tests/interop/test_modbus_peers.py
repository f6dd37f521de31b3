"""Both roles of Modbus against pymodbus and libmodbus, over every framing that they have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.interop import tls_relay
from tests.interop.environments import ROOT, make
from tests.system import serial_line

FRAMINGS = ("tcp", "tls", "udp", "rtu-over-tcp", "ascii", "rtu")
"""All that pymodbus has."""
OVER_STREAMS = {"tls": "tcp"}
"""What our sessions speak inside of TLS; the reactor's own TLS is asked in test_cli_reads_pymodbus.py."""
WAIT_S = 60
BUILD_WAIT_S = 900
LINES = {"rtu"}

# What is asked of their servers, and what comes back: the same of both.
QUESTIONS = [
    ("03 0064 0003", "done 06006400650066"),
    ("01 000A 000A", "done 022401"),
    ("02 0005 0006", "done 0121"),
    ("04 0008 0002", "done 0427182719"),
    ("10 0001 0002 04 000A0102", "done"),
    ("03 0001 0002", "done 04000a0102"),
    ("05 0001 FF00", "done"),
    ("0F 0003 0003 01 05", "done"),
    ("01 0000 0007", "done 016b"),
    ("06 0007 04D2", "done"),
    ("03 0007 0001", "done 0204d2"),
    ("16 0004 00F2 0025", "done"),
    ("17 0003 0006 000E 0003 06 00FF00FF00FF", "done 0c000300050005000604d20008"),
    ("03 F000 0001", "refused 2"),
    ("points holding 1 5 9 120", "done 10 5 9 120"),
]
RECORD = b"SERVER DUMMY RECORD.".hex()
ONLY_PYMODBUS = [
    ("07", "done ff"),
    ("0B", "done 00000000"),
    ("0C", "done 06000000000065"),
    ("11", "done 126f746865722d70656f706c652d332e3136ff"),
    ("08 0000 A537", "done 0000a537"),
    ("08 0001 FF00", "done 0001ff00"),
    ("08 0002 0000", "done 00020000"),
    ("08 0003 0A00", "done 00030a00"),
    *((f"08 {number:04X} 0000", f"done {number:04x}{number + 90:04x}") for number in range(11, 19)),
    ("08 0014 0000", "done 00140000"),
    ("08 0012 0000", "done 00120000"),
    ("08 000A 0000", "done 000a0000"),
    ("08 000B 0000", "done 000b0000"),
    ("14 07 06 0004 0001 000A", f"done 161506{RECORD}"),
    ("14 0E 06 0004 0001 000A 06 0003 0009 000A", f"done 2c1506{RECORD}1506{RECORD}"),
    ("15 0D 06 0004 0007 0003 06AF04BE100D", "done"),
    ("18 04DE", "done 000a00040000000100020003"),
    ("2B 0E 01 00", "done 0e018300000300056f74686572010670656f706c650204332e3136"),
    ("2B 0E 02 00", "done 0e028300000300056f74686572010670656f706c650204332e3136"),
    ("2B 0E 03 00", "done 0e038300000300056f74686572010670656f706c650204332e3136"),
    ("2B 0E 04 01", "done 0e0483000001010670656f706c65"),
    ("2B 0E 04 09", "refused 2"),
]
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
    "exception-status": 0x6D,
    "diagnostics": "a537",
    "diagnostic-register": 0,
    "delimiter": 0x000A,
    "counters": [101, 102, 103, 104, 105, 106, 107, 108],
    "overrun-cleared": [101, 102, 103, 104, 105, 106, 107, 0],
    "cleared": [0] * 8,
    "restarted": 0xFF00,
    "iop-overrun": 1,
    "event-counter": [True, 6],
    "event-log": [True, 6, 0, []],
    "server-id": "ipss",
    "file": ["000700080009000a000b000c", "005a005b"],
    "file-written": ["000606af04be100d000a000b000c000d"],
    "identification-1": {"0": "ipss", "1": "peer", "2": "1.0"},
    "identification-2": {"0": "ipss", "1": "peer", "2": "1.0"},
    "identification-3": {"0": "ipss", "1": "peer", "2": "1.0"},
    "identification-4": {"1": "peer"},
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


def asked(ours: str, framing: str, address: str, questions: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The questions with the answers that came."""
    framing = OVER_STREAMS.get(framing, framing)
    lines = run([ours, "ask", framing, address, "1"], "\n".join(one for one, _ in questions)).splitlines()
    return list(zip((one for one, _ in questions), lines, strict=True))


@contextmanager
def their_server(pymodbus: list[str], framing: str) -> Iterator[str]:
    """A server of pymodbus; where our head-end asks it."""
    with ExitStack() as stack:
        enter = stack.enter_context
        if framing in LINES:
            theirs, our_end = enter(serial_line.joined())
            enter(serving([*pymodbus, "serve", framing, theirs]))
            yield our_end
        elif framing == "tls":
            address = enter(serving([*pymodbus, "serve", framing]))
            yield enter(tls_relay.into_tls(address))
        else:
            yield enter(serving([*pymodbus, "serve", framing]))


@contextmanager
def our_device(ours: str, framing: str) -> Iterator[str]:
    """Our device; the port, or the line, at which their client asks it."""
    with ExitStack() as stack:
        enter = stack.enter_context
        if framing in LINES:
            theirs, our_end = enter(serial_line.joined())
            enter(serving([ours, "serve", framing, our_end]))
            yield theirs
            return
        address = enter(serving([ours, "serve", OVER_STREAMS.get(framing, framing), "127.0.0.1:0"]))
        if framing == "tls":
            address = enter(tls_relay.out_of_tls(address))
        yield address.rpartition(":")[2]


@pytest.mark.parametrize("framing", FRAMINGS)
def test_our_head_end_reads_and_writes_a_pymodbus_server(ours: str, pymodbus: list[str], framing: str) -> None:
    questions = QUESTIONS + ONLY_PYMODBUS
    with their_server(pymodbus, framing) as address:
        assert asked(ours, framing, address, questions) == questions


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_pymodbus_client_reads_and_writes_our_device(ours: str, pymodbus: list[str], framing: str) -> None:
    with our_device(ours, framing) as where:
        answers = json.loads(run([*pymodbus, "ask", framing, where]))
    assert answers == {name: answer for name, answer in ANSWERS.items() if name != "fifo" or "rtu" not in framing}


@pytest.mark.parametrize("framing", ["tcp", "rtu"])
def test_our_head_end_reads_and_writes_a_libmodbus_server(ours: str, libmodbus: str, framing: str) -> None:
    with ExitStack() as stack:
        if framing == "tcp":
            address = stack.enter_context(serving([libmodbus, "serve"]))
        else:
            theirs, address = stack.enter_context(serial_line.joined())
            stack.enter_context(serving([libmodbus, "serve-rtu", theirs]))
        *answers, server_id = asked(ours, framing, address, [*QUESTIONS, ("11", "")])

    assert answers == QUESTIONS
    # Its number, that it runs, and its name with its version (libmodbus, modbus_reply).
    assert bytes.fromhex(server_id[1].removeprefix("done "))[1:].startswith(b"\xb4\xffLMB3.")


@pytest.mark.parametrize("framing", ["tcp", "rtu"])
def test_a_libmodbus_client_reads_and_writes_our_device(ours: str, libmodbus: str, framing: str) -> None:
    with our_device(ours, framing) as where:
        lines = run([libmodbus, "ask" if framing == "tcp" else "ask-rtu", where]).splitlines()
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
