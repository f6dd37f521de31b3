"""The row's octets: what Rust builds must be these, and what was damaged must be noticed."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipss_headend.errors import StoreDamaged
from ipss_headend.store import records
from ipss_headend.store.records import (
    FUTURE_LIMIT_US,
    UNKNOWN_TIME,
    Cell,
    Quality,
    check,
    decode_cells,
    encode_cells,
    reading_row,
)

RECEIVED_US = 1_767_225_601_000_000

cells = st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=300), max_size=20)


VECTORS = json.loads(Path(__file__).with_name("row_vectors.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_row_is_the_vector(vector: dict[str, Any]) -> None:
    line = vector["line"]
    values = [bytes.fromhex(cell["raw"]) if isinstance(cell, dict) else cell for cell in line["cells"]]

    row = reading_row(
        line["meter"],
        line["layout"],
        line["capture_time_us"],
        values,
        received_us=vector["received_us"],
        deviation_min=line["deviation_min"],
        clock_status=line["clock_status"],
    )

    assert [*row[:8], row[8].hex(), row[9]] == vector["row"]


def test_documented_row_is_the_first_vector() -> None:
    *_, quality, cells, crc = VECTORS[0]["row"]

    for number in (VECTORS[0]["row"][3], quality, cells, crc):
        assert str(number) in str(records.__doc__)


@given(cells)
def test_cells_come_back_exact(values: list[Cell]) -> None:
    assert decode_cells(encode_cells(values)) == values


def test_line_without_capture_time_carries_the_time_of_receipt_and_says_so() -> None:
    row = reading_row(1, 1, UNKNOWN_TIME, [5], received_us=RECEIVED_US)

    assert row[2] == RECEIVED_US
    assert row[7] == Quality.RECEIPT_TIME


@pytest.mark.parametrize(
    ("capture_time_us", "status", "quality"),
    [
        (RECEIVED_US, 0, Quality.GOOD),
        (RECEIVED_US, 255, Quality.GOOD),
        (RECEIVED_US, 0x80, Quality.GOOD),
        (RECEIVED_US, 1, Quality.CLOCK_DOUBTFUL),
        (RECEIVED_US, 2, Quality.CLOCK_DOUBTFUL),
        (0, 0, Quality.CLOCK_WRONG),
        (RECEIVED_US + FUTURE_LIMIT_US, 0, Quality.GOOD),
        (RECEIVED_US + FUTURE_LIMIT_US + 1, 0, Quality.CLOCK_WRONG),
        (0, 1, Quality.CLOCK_WRONG | Quality.CLOCK_DOUBTFUL),
    ],
)
def test_bad_clock_is_flagged_and_the_time_kept(capture_time_us: int, status: int, quality: Quality) -> None:
    row = reading_row(1, 1, capture_time_us, [5], received_us=RECEIVED_US, clock_status=status)

    assert row[2] == capture_time_us
    assert row[7] == quality


def test_value_status_and_deviation_make_another_entry() -> None:
    hashes = {
        reading_row(1, 1, 0, values, received_us=1, deviation_min=deviation, clock_status=status)[3]
        for values in ([5], [6], [5, None], [b"\x05"])
        for deviation in (0, -60)
        for status in (0, 128)
    }

    assert len(hashes) == 16


@given(cells, st.integers(0, 9), st.integers(0, 62))
def test_any_flipped_bit_is_noticed(values: list[Cell], column: int, bit: int) -> None:
    row: list[int | bytes] = list(reading_row(7, 3, RECEIVED_US, values, received_us=RECEIVED_US))
    check(row)

    found = row[column]
    if isinstance(found, bytes):
        row[column] = bytes([found[0] ^ (1 << bit % 8)]) + found[1:]
    else:
        row[column] = found ^ (1 << bit)

    with pytest.raises(StoreDamaged):
        check(row)


@pytest.mark.parametrize("column", range(10))
def test_column_of_another_type_is_noticed(column: int) -> None:
    row: list[int | bytes] = list(reading_row(7, 3, RECEIVED_US, [1], received_us=RECEIVED_US))
    row[column] = 1 if isinstance(row[column], bytes) else b"1"

    with pytest.raises(StoreDamaged):
        check(row)
