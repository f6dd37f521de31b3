"""The demo on a terminal: inverters are limited beside the fleet, and go back by themselves, before one's eyes."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

LIMIT_S = 150


def on_terminal(*words: str, directory: Path) -> tuple[int, str]:
    """Run the demo on a terminal of its own; its exit status, and all that came to the screen."""
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 140, 0, 0))
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "140", "LINES": "50"}
    shown = bytearray()

    def read() -> None:
        while True:
            try:
                octets = os.read(screen, 65_536)
            except OSError:  # the last one that had the terminal open has gone
                return
            if not octets:
                return
            shown.extend(octets)

    with subprocess.Popen(
        [sys.executable, "-m", "ipss_headend.cli", "demo", *words],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    ) as demo:
        os.close(terminal)
        reader = threading.Thread(target=read)
        reader.start()
        try:
            status = demo.wait(LIMIT_S)
        finally:
            demo.kill()
            reader.join()
            os.close(screen)
    return status, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode(errors="replace"))


def test_live_table_shows_inverters_curtailed_and_going_back_by_themselves(tmp_path: Path) -> None:
    status, screen = on_terminal("--meters", "10", "--days", "1", "--no-keep", directory=tmp_path)

    assert status == 0, screen[-3000:]
    assert "10 meters" in screen
    for name in ("inverter-1", "inverter-2", "inverter-3", "storage-1"):
        rows = [line for line in re.split(r"[\r\n]+", screen) if re.match(rf" *{name} ", line)]
        limited = [row for row in rows if re.search(r" W +40 % +demo +\d s +limited", row)]
        let_go = [row for row in rows if re.search(r" W +40 % +demo +\d s +let go", row)]
        back = [row for row in rows if re.search(r" W +- +- +- +went back by itself", row)]
        assert limited, (name, rows)
        assert let_go, (name, rows)
        assert back, (name, rows)
        assert rows.index(limited[0]) < rows.index(let_go[0]) < rows.index(back[0])
    assert any(re.match(r" *sub-meter-1 .* W .*measures", line) for line in screen.splitlines())
