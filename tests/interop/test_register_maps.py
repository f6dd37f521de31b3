"""Every register map that is shipped, end to end: a pymodbus server with a random image for each, our head-end at the
other end, and a decoder of the test's own between them (`map_oracle.py`).
"""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

import pytest
from tests.interop import map_oracle
from tests.interop.environments import ROOT, make
from tests.interop.map_oracle import Point
from typer.testing import CliRunner

from ipss_headend.cli import app as root

ROUNDS = int(os.environ.get("IPSS_MAP_ROUNDS", "2"))
SEED = int(os.environ.get("IPSS_SEED", "4"))
NAMES = sorted(path.stem for path in map_oracle.MAPS.glob("*.toml"))

Image = dict[str, dict[int, int]]


@contextmanager
def served(images: dict[str, Image]) -> Iterator[dict[str, int]]:
    """A pymodbus server for each image; their ports."""
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
            yield json.loads(process.stdout.readline())
        finally:
            process.kill()


def read(port: int, model: str, points: list[str]) -> dict[str, str | None]:
    """What our head-end makes of these points."""
    root.load_commands()
    words = ["read", f"modbus+tcp://127.0.0.1:{port}/1", *points, "--map", model, "--timeout", "60", "--json"]
    ran = CliRunner().invoke(root.app, words)
    assert ran.exit_code == 0, ran.output
    document = json.loads(ran.stdout)
    assert all(one["ok"] for one in document["items"])
    return {one["object"]: one["value"] for one in document["items"]}


def same(one: Point, expected: Decimal | str | None, found: str | None) -> bool:
    if not isinstance(expected, Decimal) or found is None:
        return found == expected
    number = Decimal(found)
    if number != expected and one.kind.startswith("float"):
        # Half way between two decimals that are as short, either is the shortest that reads back as the float.
        form, digits = ">f" if one.count == 2 else ">d", expected.as_tuple().digits
        octets = {struct.pack(form, float(value.scaleb(-one.scale))) for value in (number, expected)}
        return len(octets) == 1 and len(number.normalize().as_tuple().digits) <= len(digits)
    return number == expected


def test_every_point_of_every_map_says_what_its_registers_mean() -> None:
    dice = random.Random(SEED)
    maps = {name: map_oracle.points(name) for name in NAMES}
    images = {f"{name} {turn}": map_oracle.image(maps[name], dice) for turn in range(ROUNDS) for name in NAMES}
    kinds: Counter[str] = Counter()
    nothing = 0
    with served(images) as ports:
        for key, tables in images.items():
            name = key.split()[0]
            found: dict[str, Point] = {point: one for point, one in maps[name].items() if one.readable}

            said = read(ports[key], name, list(found))

            assert said.keys() == found.keys()
            for point, one in found.items():
                expected = map_oracle.expected(one, maps[name], tables)
                assert same(one, expected, said[point]), (key, one, expected, said[point])
                kinds[one.kind] += 1
                nothing += expected is None

    assert kinds.total() == ROUNDS * sum(one.readable for found in maps.values() for one in found.values())
    assert 0 < nothing < kinds.total() / 2
    assert kinds.keys() >= {"uint16", "int16", "uint32", "int32", "float32", "text", "enum16"}, kinds


@pytest.mark.parametrize("name", NAMES)
def test_both_know_the_same_points(name: str) -> None:
    from ipss_headend import _core

    ours = {point[0]: (point[1], point[2], point[3]) for point in _core.RegisterMap(name).points()}

    assert ours == {
        one.name: (one.table, one.address, one.count) for one in map_oracle.points(name).values() if one.readable
    }
