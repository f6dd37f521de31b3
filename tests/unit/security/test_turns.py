"""A thread that gives way stays an ordinary one, with its share of the core."""

from __future__ import annotations

import os
import threading

from ipss_headend.security.turns import give_way


def test_thread_that_gives_way_keeps_its_policy_and_its_share() -> None:
    found: list[tuple[int, int]] = []

    def look() -> None:
        own = threading.get_native_id()
        give_way()  # what comes of it is the system's matter
        found.append((os.sched_getscheduler(own), os.getpriority(os.PRIO_PROCESS, own)))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()

    assert found == [(os.SCHED_OTHER, os.getpriority(os.PRIO_PROCESS, 0))]
