"""Explain octets from Python: what `ipss-headend decode` answers, as a dictionary."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def decode(
    octets: bytes | str | Sequence[bytes | str | Mapping[str, str]],
    *,
    layer: str = "auto",
    keys: Mapping[str, Any] | None = None,
    profile: str | None = None,
    direction: str | None = None,
    base_address: int | None = None,
) -> dict[str, Any]:
    """The frames, APDUs, readings and warnings in these octets; it never fails on garbage.

    `octets` are bytes or hexadecimal digits, or transmissions in order, each of these or
    `{"from": "meter" or "head-end", "hex": "..."}`. `keys` are hexadecimal, as the command line takes them, or a table
    by system title; `profile` is the name of a companion profile; `direction` is `from-meter` or `to-meter`.
    The answer has `outcome`: decoded, incomplete, protected or error, and then `error` says who is at fault.
    """
    from ipss_headend import _core

    if isinstance(octets, bytes | str):
        hexadecimal: Any = _digits(octets)
    else:
        hexadecimal = [dict(part) if isinstance(part, Mapping) else _digits(part) for part in octets]
    request: dict[str, Any] = {"layer": layer, "hex": hexadecimal}
    hints = {"keys": keys, "profile": profile, "direction": direction, "base_address": base_address}
    request |= {name: value for name, value in hints.items() if value is not None}
    answer: dict[str, Any] = json.loads("".join(_core.decode(json.dumps(request))))
    return answer


def _digits(octets: bytes | str) -> str:
    return octets.hex() if isinstance(octets, bytes) else octets
