"""What the tests of commands share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str


Run = Callable[..., Ran]


FLEET = """\
name,address,system_title,encryption_key,authentication_key,group
oak street 1,192.0.2.1,4d4d4d0000000001,859b2ecfbfd633a7a4cb8e9a908e89fa,710eb53a927d14f864364a35843e520f,east
oak street 2,192.0.2.2:4060,4d4d4d0000000002,959b2ecfbfd633a7a4cb8e9a908e89fb,810eb53a927d14f864364a35843e5201,west
"""

CATALOGUE: dict[bytes, dict[str, Any]] = {
    bytes((1, 0, 1, 8, 0, 255)): {"class_id": 3, "name": "active energy import", "unit": "Wh"},
    bytes((1, 0, 2, 8, 0, 255)): {"class_id": 3, "name": "active energy export", "unit": "Wh"},
    bytes((0, 0, 96, 3, 10, 255)): {"class_id": 70, "name": "disconnect control", "unit": None},
    bytes((0, 0, 1, 0, 0, 255)): {"class_id": 8, "name": "clock", "unit": None},
}
