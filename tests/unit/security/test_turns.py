"""A thread that gives way stays an ordinary one, and is the only one that is nicer."""

from __future__ import annotations

import os
import threading

from ipss_headend.security.turns import NICER, give_way


def test_thread_that_gives_way_is_nicer_and_no_other_is() -> None:
    found: list[tuple[int, int]] = []

    def look() -> None:
        own = threading.get_native_id()
        give_way()
        found.append((os.sched_getscheduler(own), os.getpriority(os.PRIO_PROCESS, own)))

    before = os.getpriority(os.PRIO_PROCESS, 0)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()

    assert found == [(os.SCHED_OTHER, min(19, before + NICER))]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
