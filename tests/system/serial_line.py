"""Serial lines without wires: a pseudo-terminal, and devices at its far end."""

from __future__ import annotations

import os
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def line() -> Iterator[tuple[int, str]]:
    """A pseudo-terminal that passes octets as they are: a descriptor of the far end, and the path of ours."""
    master, slave = os.openpty()
    tty.setraw(master)
    tty.setraw(slave)
    try:
        yield master, os.ttyname(slave)
    finally:
        os.close(slave)
        os.close(master)


@contextmanager
def answering(answer: Callable[[bytes], bytes], length: Callable[[bytes], int]) -> Iterator[str]:
    """A line whose far end answers frames; the path of our end. `length` says how long the frame is that begins so."""
    with line() as (master, path):

        def serve() -> None:
            held = b""
            with suppress(OSError):  # the line is gone
                while True:
                    held += os.read(master, 300)
                    while held and len(held) >= (wanted := length(held)):
                        os.write(master, answer(held[:wanted]))
                        held = held[wanted:]

        threading.Thread(target=serve, daemon=True).start()
        yield path


@contextmanager
def carried(take: Callable[[], bytes], give: Callable[[bytes], object]) -> Iterator[str]:
    """A line whose far end is somewhere else: `take` gives what comes from there, `give` brings what goes there."""
    with line() as (master, path):

        def carry(take: Callable[[], bytes], give: Callable[[bytes], object]) -> None:
            with suppress(OSError):
                while octets := take():
                    give(octets)

        for one in ((lambda: os.read(master, 500), give), (take, lambda octets: os.write(master, octets))):
            threading.Thread(target=carry, args=one, daemon=True).start()
        yield path


@contextmanager
def joined() -> Iterator[tuple[str, str]]:
    """Two ends of one line, as paths."""
    with line() as (one, first), line() as (other, second):
        for take, give in ((one, other), (other, one)):
            threading.Thread(target=_carry, args=(take, give), daemon=True).start()
        yield first, second


def _carry(take: int, give: int) -> None:
    with suppress(OSError):
        while octets := os.read(take, 500):
            os.write(give, octets)
