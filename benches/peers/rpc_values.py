"""What the peers' servers in `rpc.py` answer: the same maps as ours, from a dictionary. Needs nothing but Python.

They know no callers, rights, schemas or limits; a meter or object that is not there is their only check.
"""

from __future__ import annotations

import time
from typing import Any

REGISTER = "1.0.1.8.0.255"
METERS = 1000


def stored() -> dict[tuple[str, str], tuple[int, int, int]]:
    """A value, when it was captured and when it was received, of each meter and object."""
    now_ms = time.time_ns() // 1_000_000
    return {
        (f"virtual-{number:05}", REGISTER): (1_000_000 + number, now_ms - 60_000, now_ms - 59_000)
        for number in range(1, METERS + 1)
    }


STORED = stored()


def ping(params: object = None) -> dict[str, int]:
    """`rpc.ping`"""
    return {"now_ms": time.time_ns() // 1_000_000}


def last(params: dict[str, Any]) -> dict[str, Any]:
    """`read.last`"""
    now_ms = time.time_ns() // 1_000_000
    values, missing = [], []
    for point in params["points"]:
        for item in params["items"]:
            found = STORED.get((point, item))
            if found is None:
                missing.append((point, item))
                continue
            value, captured_ms, received_ms = found
            values.append(
                {
                    "point": point,
                    "item": item,
                    "value": str(value),
                    "unit": "Wh",
                    "raw": None,
                    "capture_ms": captured_ms,
                    "received_ms": received_ms,
                    "age_ms": now_ms - received_ms,
                    "quality": "good",
                    "source": item,
                }
            )
    return {"values": values, "missing": missing}
