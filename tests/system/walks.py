"""Commands of the documentation, run as an outsider types them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def walked(
    script: str, home: Path, *, cwd: Path | None = None, environment: Mapping[str, str] | None = None, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run a shell script in which `ipss-headend` is this one; the first command that fails ends it.

    What it starts in `$server` is ended with it. `home` is for what the test itself needs beside `cwd`, which is the
    same unless it is given.
    """
    programs = home / "bin"
    programs.mkdir()
    command = programs / "ipss-headend"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m ipss_headend.cli "$@"\n')
    command.chmod(0o755)
    own = {"PATH": f"{programs}:{os.environ['PATH']}", "NO_COLOR": "1", "IPSS_HEADEND_DATA": str(home / "client")}
    return subprocess.run(
        ["sh", "-eu", "-c", 'trap "kill ${server:-} 2>/dev/null || true" EXIT\n' + script],
        cwd=cwd or home,
        env={**os.environ, **own, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
