"""pysunspec2 reads and commands our virtual devices over Modbus TCP."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from tests.interop import images
from tests.interop.environments import ROOT, make
from tests.interop.test_sunspec_agrees import END, MARKER, compare, difference, ours

from ipss_headend import _core

PEER_TIMEOUT_S = 60
ROUNDS = 8


@pytest.fixture
def devices() -> Iterator[list[str]]:
    running = _core.VirtualDevices(inverters=1, storage=1, submeters=1, port=0)
    yield [url.removeprefix("modbus+tcp://").removesuffix("/1") for url, _ in running.devices()]
    running.stop()


def peer(*arguments: str) -> Any:
    command = [str(make("sunspec")), "-m", "tests.interop.sunspec_client", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PEER_TIMEOUT_S, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_pysunspec2_finds_every_model_of_our_devices_without_an_error(devices: list[str]) -> None:
    inverter, storage, meter = (peer("read", address) for address in devices)

    assert list(inverter) == ["1", "103", "120", "121", "123", "701", "704", "705", "706", "711"]
    assert list(storage)[-1] == "713"
    assert list(meter) == ["1", "203"]
    assert inverter["1"]["Mn"] == "ipss-headend"
    assert inverter["705"]["Crv"][0]["Pt"][3]["Var"] == -1000
    assert 49 < inverter["701"]["Hz"] / 1000 < 51


def test_every_point_of_our_devices_is_the_same_to_pysunspec2_and_to_our_client(devices: list[str]) -> None:
    """What pysunspec2 read is decoded by ours, and our own client reads the devices beside it.

    Power moves between two reads: each point has to be the same in one of a few rounds.
    """
    for address in devices:
        same: set[tuple[int, str]] = set()
        wanted: set[tuple[int, str]] = set()
        for _ in range(ROUNDS):
            blocks = peer("points", address)
            [item] = images.read(f"modbus+tcp://{address}/1", "sunspec")

            answer = ours(MARKER + "".join(block["hex"] for block in blocks) + END)
            for index, block in enumerate(blocks):
                decoded = [reading for reading in answer["readings"] if reading["block"] == index]
                assert compare(block, {"readings": decoded}).keys() == {"equal"}
                read = {reading["point"]: reading for reading in item["value"] if reading["block"] == index}
                assert read.keys() == block["points"].keys()
                wanted |= {(index, name) for name in block["points"]}
                same |= {(index, name) for name, one in block["points"].items() if difference(one, read[name]) is None}
            if same == wanted:
                break
        assert same == wanted
        assert len(wanted) > 50


def test_a_limit_written_by_pysunspec2_is_obeyed_and_reverts_by_itself(devices: list[str]) -> None:
    said = peer("limit", devices[0], "25", "2")

    assert said["enabled"] == 1
    assert said["limit"] == 250
    assert 1 <= said["remaining"] <= 2
    assert said["power"] <= said["rating"] // 4 + 1
    assert said["enabled_after"] == 0


def test_what_our_devices_refuse_is_an_exception_to_pysunspec2(devices: list[str]) -> None:
    assert "exception" in peer("limit-too-high", devices[0])["error"].lower()
