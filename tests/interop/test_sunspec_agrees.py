"""Our SunSpec decoder against pysunspec2, the SunSpec Alliance's own: every point of every published model."""

from __future__ import annotations

import functools
import ipaddress
import json
import math
import os
import subprocess
import sys
from collections import Counter
from typing import Any

from tests.interop import images
from tests.interop.environments import ROOT, make

from ipss_headend import _core

MARKER = "53756e53"
END = "ffff0000"
PEER_TIMEOUT_S = 60
EXPLAINED = ("text-not-utf8", "scale-factor-out-of-range")
"""Differences that `sunspec_differences.md` explains; all others fail."""


@functools.cache
def peer(*arguments: str) -> Any:
    command = [str(make("sunspec")), "-m", "tests.interop.sunspec_peer", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PEER_TIMEOUT_S, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def ours(image: str, base_address: int = 40_000) -> dict[str, Any]:
    request = {"layer": "sunspec", "hex": image, "base_address": base_address}
    answer: dict[str, Any] = json.loads("".join(_core.decode(json.dumps(request))))
    return answer


def as_peer(kind: str, reading: dict[str, Any]) -> object:
    """Our value as pysunspec2 would show it."""
    value = reading["value"]
    if value is None:
        return None
    match kind:
        case "ipaddr":
            return int(ipaddress.IPv4Address(value))
        case "ipv6addr":
            digits = ipaddress.IPv6Address(value).exploded.replace(":", "").upper()
            return ":".join(digits[at : at + 8] for at in range(0, 32, 8))
        case "float32" | "float64":
            return float(value) if reading["raw"] is None else reading["raw"]
        case _:
            return reading["raw"]


def difference(theirs: dict[str, Any], reading: dict[str, Any]) -> str | None:
    """What differs, or nothing."""
    kind, expected = theirs["type"], theirs["value"]
    if kind.startswith("float") and expected is not None:
        expected = float(expected)
    found = as_peer(kind, reading)
    if found != expected:
        return "text-not-utf8" if kind == "string" and expected is None and reading["status"] == "doubtful" else "value"
    factor = theirs["scale_factor"]
    if isinstance(expected, int) and factor is not None:
        if not -10 <= factor <= 10:
            return "scale-factor-out-of-range" if reading["status"] in {"scale-unknown", "doubtful"} else "scale"
        if not math.isclose(float(reading["value"]), float(theirs["scaled"]), rel_tol=1e-12, abs_tol=1e-12):
            return f"scaled: {reading['value']} and {theirs['scaled']}"
    return None


def compare(block: dict[str, Any], answer: dict[str, Any]) -> Counter[str]:
    """How many points agree, and how many differ by which reason."""
    said = {reading["point"]: reading for reading in answer["readings"]}
    assert said.keys() == block["points"].keys(), block["model"]
    results: Counter[str] = Counter()
    for name, theirs in block["points"].items():
        why = difference(theirs, said[name])
        assert why is None or why in EXPLAINED, (block["model"], name, why, theirs, said[name])
        results[why or "equal"] += 1
    return results


def test_every_point_of_every_model_says_what_pysunspec2_says() -> None:
    results: Counter[str] = Counter()
    blocks = peer("random", "2024", "6")
    for block in blocks:
        answer = ours(MARKER + block["hex"] + END)

        assert answer["outcome"] == "decoded"
        results += compare(block, answer)

    assert len({block["model"] for block in blocks}) == 112
    assert results["equal"] > 25_000
    assert results["text-not-utf8"] > 0
    assert results["scale-factor-out-of-range"] > 0


def test_the_device_images_of_pysunspec2_are_read_whole() -> None:
    devices = peer("devices")
    for device in devices:
        answer = ours(MARKER + "".join(block["hex"] for block in device["blocks"]) + END)

        assert [model["model"] for model in answer["frames"][0]["models"]] == [
            block["model"] for block in device["blocks"]
        ]
        for index, block in enumerate(device["blocks"]):
            readings = [reading for reading in answer["readings"] if reading["block"] == index]
            assert compare(block, {"readings": readings}).keys() == {"equal"}

    assert {"device_1547", "inverter_123"} == {device["name"] for device in devices}


def test_our_client_reads_the_device_images_of_pysunspec2_over_the_wire() -> None:
    devices = {device["name"]: device["blocks"] for device in peer("devices")}
    octets = {
        name: bytes.fromhex(MARKER + "".join(one["hex"] for one in blocks) + END) for name, blocks in devices.items()
    }
    tables = {
        name: {
            "holding": {40_000 + at // 2: int.from_bytes(image[at : at + 2]) for at in range(0, len(image), 2)},
            **{other: {} for other in ("input", "coils", "discrete")},
        }
        for name, image in octets.items()
    }
    with images.served(tables) as urls:
        for name, blocks in devices.items():
            [item] = images.read(urls[name], "sunspec")

            assert bytes.fromhex(item["raw"]) == octets[name]
            for index, block in enumerate(blocks):
                readings = [reading for reading in item["value"] if reading["block"] == index]
                assert compare(block, {"readings": readings}).keys() == {"equal"}


def test_our_table_of_models_is_what_is_published() -> None:
    table = (ROOT / "protocols/modbus/data/sunspec/models.tsv").read_text()
    written = subprocess.run(
        [sys.executable, ROOT / "scripts/sunspec_models.py", peer("models-directory")],
        capture_output=True,
        text=True,
        timeout=PEER_TIMEOUT_S,
        check=True,
    )

    assert written.stdout == table
