"""Every register map that is shipped, end to end: a pymodbus server with a random image for each, our head-end at the
other end, and a decoder of the test's own between them (`map_oracle.py`).
"""

from __future__ import annotations

import os
import random
import struct
from collections import Counter
from decimal import Decimal

import pytest
from tests.interop import images, map_oracle
from tests.interop.map_oracle import Point

ROUNDS = int(os.environ.get("IPSS_MAP_ROUNDS", "2"))
SEED = int(os.environ.get("IPSS_SEED", "4"))
NAMES = sorted(path.stem for path in map_oracle.MAPS.glob("*.toml"))


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
    tables_of = {f"{name} {turn}": map_oracle.image(maps[name], dice) for turn in range(ROUNDS) for name in NAMES}
    kinds: Counter[str] = Counter()
    nothing = 0
    with images.served(tables_of) as urls:
        for key, tables in tables_of.items():
            name = key.split()[0]
            found: dict[str, Point] = {point: one for point, one in maps[name].items() if one.readable}

            items = images.read(urls[key], *found, "--map", name)
            said = {one["object"]: one["value"] for one in items}

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
