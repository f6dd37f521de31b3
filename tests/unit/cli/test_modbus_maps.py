"""What `modbus maps` and `modbus check` say."""

import json
from pathlib import Path

from tests.unit.cli.support import Run

MAP = """\
[map]
name = "mine"
title = "M1"
manufacturer = "Maker"
source = "manual, table 1"
inherits = "eastron-sdm120"

[points]
relay = { address = 9, type = "TYPE" }
"""


def test_the_maps_that_come_with_the_head_end_are_listed_with_their_sources(run: Run) -> None:
    ran = run("modbus", "maps", "--json")

    maps = {known["name"]: known for known in json.loads(ran.out)["maps"]}
    assert ran.status == 0
    assert len(maps) >= 12
    assert maps["huawei-sun2000"]["manufacturer"] == "Huawei"
    assert all(known["source"] and known["points"] for known in maps.values())


def test_a_map_that_is_good_is_said_to_be(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MAP.replace("TYPE", "uint16"))

    ran = run("modbus", "check", path)

    assert (ran.status, ran.out) == (0, "")
    assert "1 register map is good" in ran.err


def test_a_map_that_is_wrong_is_told_with_file_line_and_remedy(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MAP.replace("TYPE", "int17"))

    ran = run("modbus", "check", path, "--json")

    assert ran.status == 3
    (mistake,) = json.loads(ran.out)["mistakes"]
    assert mistake.startswith(f'{path}: line 9: points.relay: type "int17" is not known; use uint16,')
    assert run("modbus", "check", tmp_path / "nowhere.toml").status == 3
