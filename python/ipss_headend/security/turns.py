"""Threads that compute for long give way to those that answer soon."""

from __future__ import annotations

import os
import threading

NICER = 19
"""Steps of niceness, all there are: beside a thread that always has something to do, a sixtieth of a core is left."""


def give_way() -> None:
    """Let ordinary threads go before this one; with the core to itself it is as fast as ever.

    Linux keeps niceness for each thread; a longer time slice instead of it left calls waiting for whole slices.
    """
    own = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, own, min(19, os.getpriority(os.PRIO_PROCESS, own) + NICER))
