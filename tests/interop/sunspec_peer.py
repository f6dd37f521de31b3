"""Register images and what pysunspec2 makes of them, a JSON document on standard output.

.venv-sunspec/bin/python -m tests.interop.sunspec_peer random SEED ROUNDS
.venv-sunspec/bin/python -m tests.interop.sunspec_peer devices
.venv-sunspec/bin/python -m tests.interop.sunspec_peer models-directory
"""

from __future__ import annotations

import json
import random
import struct
import sys
from pathlib import Path
from typing import Any

import sunspec2
from sunspec2 import mb
from sunspec2.device import get_model_def
from sunspec2.file.client import FileClientDevice
from sunspec2.modbus.client import SunSpecModbusClientModel

MODELS = Path(sunspec2.__file__).parent / "models" / "json"
DEVICES = Path(sunspec2.__file__).parent / "tests" / "test_data"


class Registers:
    """Stands where pysunspec2 expects a connection."""

    def __init__(self, image: bytes) -> None:
        self.image = image

    def read(self, address: int, count: int) -> bytes:
        return self.image[int(address) * 2 : int(address + count) * 2]


def length(group: dict[str, Any], counts: dict[str, int], fill: int) -> int:
    """Registers of a group, the number and length of a model included."""
    total = sum(int(point["size"]) for point in group["points"])
    for inner in group.get("groups", []):
        count = inner.get("count", 1)
        repeats = fill if count == 0 else counts[count] if isinstance(count, str) else int(count)
        total += repeats * length(inner, counts, fill)
    return total


def counters(group: dict[str, Any]) -> set[str]:
    names = {inner["count"] for inner in group.get("groups", []) if isinstance(inner.get("count"), str)}
    return names.union(*(counters(inner) for inner in group.get("groups", [])))


def random_image(model_id: int, dice: random.Random) -> bytes:
    """A model with random registers, every tenth a value that often means "not implemented"."""
    group = get_model_def(model_id)["group"]
    counts = {name: dice.randint(1, 4) for name in counters(group)}
    size = length(group, counts, dice.randint(1, 4))
    words = [
        dice.choice([0xFFFF, 0x8000, 0, 0x7FC0]) if dice.random() < 0.3 else dice.getrandbits(16) for _ in range(size)
    ]
    at = 0
    for point in group["points"]:
        kind, width = point["type"], int(point["size"])
        if point["name"] in counts:
            words[at] = counts[point["name"]]
        elif kind == "sunssf" and dice.random() < 0.8:
            words[at] = dice.randint(-10, 10) & 0xFFFF
        elif kind == "string" and dice.random() < 0.8:
            text = "".join(dice.choice("abc XYZ09é") for _ in range(dice.randint(0, width))).encode()
            text = text.ljust(width * 2, b"\0")[: width * 2]
            words[at : at + width] = struct.unpack(f">{width}H", text)
        elif width > 1 and dice.random() < 0.1:
            fill = dice.choice([0, 0xFFFF])
            words[at : at + width] = [dice.choice([fill, 0x8000])] + [fill] * (width - 1)
        at += width
    words[0:2] = [model_id, size - 2]
    return struct.pack(f">{size}H", *words)


def computed(point: Any) -> Any:
    """The scaled value; nothing where pysunspec2 cannot compute it."""
    try:
        return point.get_value(computed=True)
    except OverflowError:
        return None


def points(group: Any, prefix: str = "") -> dict[str, dict[str, Any]]:
    """Every point of a decoded group by name, unscaled and scaled."""
    said = {}
    for name, point in group.points.items():
        value = point.value
        scaled = computed(point) if isinstance(value, int) else value
        said[prefix + name] = {
            "type": point.pdef["type"],
            "value": value if not isinstance(value, float) else repr(value),
            "scaled": scaled if not isinstance(scaled, float) else repr(scaled),
            "scale_factor": point.sf_value,
        }
    for name, inner in group.groups.items():
        if isinstance(inner, list):
            for index, one in enumerate(inner, start=1):
                said |= points(one, f"{prefix}{name}[{index}].")
        else:
            said |= points(inner, f"{prefix}{name}.")
    return said


def decoded(image: bytes) -> dict[str, Any]:
    """One model's registers, and its points."""
    model_id, size = struct.unpack(">HH", image[:4])
    model = SunSpecModbusClientModel(
        model_id=model_id, model_addr=0, model_len=size, data=image, mb_device=Registers(image)
    )
    return {"model": model_id, "hex": image.hex(), "points": points(model)}


def devices() -> list[dict[str, Any]]:
    """The device images that come with pysunspec2, model by model."""
    found = []
    for path in sorted(DEVICES.glob("*.json")):
        device = FileClientDevice(str(path))
        device.scan()
        models = [model for model in device.model_list if not isinstance(model.model_id, str)]
        blocks = [bytes(model.get_mb()) for model in models]
        found.append({"name": path.stem, "blocks": [decoded(block) for block in blocks]})
    return found


def main(arguments: list[str]) -> int:
    what = arguments[0]
    if what == "models-directory":
        print(json.dumps(str(MODELS)))
    elif what == "devices":
        print(json.dumps(devices()))
    else:
        dice = random.Random(int(arguments[1]))
        numbers = sorted(int(path.stem.removeprefix("model_")) for path in MODELS.glob("model_*.json"))
        images = [random_image(number, dice) for _ in range(int(arguments[2])) for number in numbers]
        print(json.dumps([decoded(image) for image in images]))
    return 0


assert mb.SUNS_END_MODEL_ID == 0xFFFF

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
