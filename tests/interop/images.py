"""Devices made of register images, with pymodbus as their server, and our head-end's `read` in this process."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.interop.environments import ROOT, make
from typer.testing import CliRunner

from ipss_headend.cli import app as root

Image = dict[str, dict[int, int]]
"""Values by table (holding, input, coils, discrete) and address."""


@contextmanager
def served(images: dict[str, Image]) -> Iterator[dict[str, str]]:
    """A pymodbus server for each image; how they are reached."""
    command = [str(make("pymodbus")), "-W", "ignore", "-m", "tests.interop.pymodbus_peer", "images"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(images) + "\n")
            process.stdin.flush()
            ports = json.loads(process.stdout.readline())
            yield {name: f"modbus+tcp://127.0.0.1:{port}/1" for name, port in ports.items()}
        finally:
            process.kill()


def read(url: str, *words: str) -> list[dict[str, Any]]:
    """What our head-end makes of these objects of a device, all of which it has."""
    root.load_commands()
    ran = CliRunner().invoke(root.app, ["read", url, *words, "--timeout", "60", "--json"])
    assert ran.exit_code == 0, ran.output
    items: list[dict[str, Any]] = json.loads(ran.stdout)["items"]
    assert all(one["ok"] for one in items)
    return items
