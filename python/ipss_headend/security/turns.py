"""Threads that compute for long give way to those that answer soon."""

from __future__ import annotations

import ctypes
import platform
import struct

SLICE_NS = 100_000_000
"""How long such a thread would run if nobody else wanted the core; 100 ms is the most that Linux takes."""

_SET = {"x86_64": 314, "aarch64": 274}
"""The number of sched_setattr(2), which the C library does not offer."""

_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
"""`struct sched_attr`, first version: size, policy, flags, nice, priority, runtime, deadline, period."""


def give_way() -> bool:
    """Let threads with shorter turns cut this one's short, whenever they have something to do; its share stays.

    Linux 6.12 and newer take the wish (the slice of EEVDF); False: this machine knows no such thing.
    """
    number = _SET.get(platform.machine())
    if number is None:
        return False
    wish = _ATTRIBUTES.pack(_ATTRIBUTES.size, 0, 0, 0, 0, SLICE_NS, 0, 0)
    refused: int = ctypes.CDLL(None).syscall(number, 0, wish, 0)
    return not refused
