"""Counters are granted once, whatever dies when (R7), and never go down (R10)."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipss_headend.store import CounterBlock, Database, counters


def reserve(database: Database, meters: list[int], size: int, *, until: int = counters.FORCED) -> list[CounterBlock]:
    with database.writing() as connection:
        return counters.reserve(connection, meters, size, until=until)


def test_blocks_follow_each_other(database: Database) -> None:
    assert reserve(database, [5, 3], 10) == [(5, 1, 11), (3, 1, 11)]
    assert reserve(database, [3, 5], 20) == [(3, 11, 31), (5, 11, 31)]


def test_thousands_of_meters_in_one_transaction(database: Database) -> None:
    first = reserve(database, list(range(1, 3001)), 100)
    second = reserve(database, list(range(3000, 0, -1)), 100)

    assert {block[1:] for block in first} == {(1, 101)}
    assert {block[1:] for block in second} == {(101, 201)}
    assert [block.meter_id for block in second] == list(range(3000, 0, -1))


@pytest.mark.parametrize("until", [counters.FORCED, counters.LIMIT])
@pytest.mark.parametrize(
    ("before", "expected"),
    [(12, (12, 2)), (10, (10, 0)), (9, (9, 0)), (1, (1, 0)), (0, (0, 0))],
)
def test_blocks_end_before_the_last_counters(
    database: Database, until: int, before: int, expected: tuple[int, int]
) -> None:
    with database.writing() as connection:
        counters.raise_to(connection, [(1, until - before)])

    block = reserve(database, [1], 10, until=until)[0]

    assert (until - block.next, until - block.end) == expected


@pytest.mark.parametrize("until", [counters.FORCED, counters.LIMIT])
def test_last_counter_is_never_granted(database: Database, until: int) -> None:
    with database.writing() as connection:
        counters.raise_to(connection, [(1, counters.LIMIT + 5)])

    block = reserve(database, [1], 10, until=until)[0]

    assert block.next == block.end == counters.LIMIT


def test_neither_side_is_ever_lowered(database: Database) -> None:
    with database.writing() as connection:
        counters.raise_to(connection, [(1, 500), (1, 400)])
        counters.raise_peer(connection, [(1, 900), (1, 800)])
        counters.raise_to(connection, [(1, 300)])
        counters.raise_peer(connection, [(1, 700)])

        assert counters.granted_until(connection, [1]) == {1: 500}
        assert counters.peer_high_water(connection, [1, 2]) == {1: 900}


def test_new_key_forgets_the_meters_counter_and_keeps_ours(database: Database) -> None:
    with database.writing() as connection:
        counters.raise_to(connection, [(1, 500)])
        counters.raise_peer(connection, [(1, 900), (2, 900)])

        counters.forget_peer(connection, [1])

        assert counters.peer_high_water(connection, [1, 2]) == {2: 900}
        assert counters.granted_until(connection, [1]) == {1: 500}


@pytest.mark.parametrize(("meters", "size"), [([1, 1], 10), ([1], 0), ([1], -1)])
def test_senseless_reservation_is_refused(database: Database, meters: list[int], size: int) -> None:
    with pytest.raises(ValueError, match=r"one block each|is none"):
        reserve(database, meters, size)


@settings(max_examples=20)
@given(st.lists(st.tuples(st.lists(st.integers(1, 5), unique=True, min_size=1), st.integers(1, 50), st.booleans())))
def test_no_counter_is_granted_twice_over_restarts(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[list[int], int, bool]]
) -> None:
    path = tmp_path_factory.mktemp("counters") / "s.sqlite"
    granted: set[tuple[int, int]] = set()
    database = Database(path, own=True, reserve_bytes=0)
    for meters, size, restart in steps:
        for meter, first, end in reserve(database, meters, size):
            block = {(meter, counter) for counter in range(first, end)}
            assert not granted & block
            granted |= block
        if restart:
            database.close()
            database = Database(path, own=True, reserve_bytes=0)
    database.close()


CHILD = """
import os, sys
from pathlib import Path
from ipss_headend.store import Database, counters
database = Database(Path(sys.argv[1]), own=True, reserve_bytes=0)
while True:
    with database.writing() as connection:
        blocks = counters.reserve(connection, [1, 2, 3], 10)
    os.write(1, b"".join(b"%d %d %d\\n" % block for block in blocks))
"""


def test_no_counter_is_granted_twice_when_the_process_is_killed_again_and_again(path: Path) -> None:
    granted: set[tuple[int, int]] = set()
    for kill_after in range(1, 6):
        with subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            seen = [child.stdout.readline() for _ in range(kill_after * 5)]
            child.kill()
            seen += child.stdout.readlines()  # what was granted and is still in the pipe counts as used

        for line in seen:
            if line.endswith(b"\n"):
                meter, first, end = map(int, line.split())
                block = {(meter, counter) for counter in range(first, end)}
                assert not granted & block
                granted |= block
    assert len(granted) >= 5 * 6 // 2 * 5 * 10
