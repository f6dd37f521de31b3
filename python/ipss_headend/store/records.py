r"""The row of a reading, to the octet: what Rust builds and what is checked when it is read back.

A *line* is what a meter captured at one moment. It is one row, a tuple in the order of `READING_COLUMNS`:

| place | column | Python | meaning |
|---|---|---|---|
| 0 | `meter_id` | int, u32 | the registry's number, which is also the reactor's handle |
| 1 | `layout_id` | int, u32 | which columns the line has, see `registry.Layout` |
| 2 | `capture_time_us` | int, i64 | UTC, microseconds since 1970; see `Quality.RECEIPT_TIME` |
| 3 | `entry_hash` | int, i64 | `entry_hash()`: what makes two lines of one moment the same or not |
| 4 | `deviation_min` | int, i16 | as the meter sent it, local + deviation = UTC; -32768 unspecified |
| 5 | `clock_status` | int, u8 | the meter's clock status octet; 255 unspecified |
| 6 | `received_us` | int, i64 | when the batch left the reactor, UTC |
| 7 | `quality` | int, u32 | `Quality` bits |
| 8 | `cells` | bytes | `encode_cells()`: a msgpack array |
| 9 | `crc` | int, u32 | `checksum()` of all of the above |

**cells**: one msgpack array; an integer in its shortest msgpack form, `nil` for no value, `bin` for a value that is no
integer (its own A-XDR octets for DLMS). Nothing else. The shortest form matters: the hash is over these octets.

**entry_hash**: BLAKE2b with an 8-octet digest and no key, over `cells`, `deviation_min` (i16, little-endian) and
`clock_status` (u8); read as a little-endian i64. A row with the same meter, layout, capture time and hash is the same
reading and is kept once; with another hash it is another reading of that moment and both are kept.

**crc**: CRC-32 (IEEE, as zlib) over the row's head packed little-endian without padding (`meter_id` u32, `layout_id`
u32, `capture_time_us` i64, `entry_hash` i64, `deviation_min` i16, `clock_status` u8, `received_us` i64, `quality` u32)
and then `cells`.

**quality**: bit 0 if the meter gave no capture time (then `capture_time_us` is `received_us`); bit 1 if the clock
status is specified and its bit 0 or 1 is set; bit 2 if the capture time is before 2000-01-01 or more than a day after
`received_us`. Bit 3 is never stored.

`tests/unit/store/row_vectors.json` has lines and their rows; both languages are tested with it. The first is meter 7,
layout 3, captured 1767225600000000, received 1767225601000000, deviation -60, status 0, cells
(12345, -1, None, b"\x09\x01\xff"), and becomes

    cells      94cd3039ffc0c4030901ff
    quality    0
    entry_hash 5840642323851797198
    crc        559487936
"""

import zlib
from collections.abc import Sequence
from enum import IntFlag
from hashlib import blake2b
from struct import Struct

import msgpack

from ipss_headend.errors import StoreDamaged

Cell = int | bytes | None
"""An exact integer, the octets of what is no integer, or no value."""

ReadingRow = tuple[int, int, int, int, int, int, int, int, bytes, int]
"""One line, in the order of `READING_COLUMNS`."""

READING_COLUMNS = (
    "meter_id",
    "layout_id",
    "capture_time_us",
    "entry_hash",
    "deviation_min",
    "clock_status",
    "received_us",
    "quality",
    "cells",
    "crc",
)

NO_DEVIATION = -32768
NO_CLOCK_STATUS = 255
UNKNOWN_TIME = -(2**63)
"""How the reactor says that the meter gave no capture time; never stored."""

FUTURE_LIMIT_US = 86_400 * 1_000_000
"""A capture time more than a day ahead of its receipt is a wrong clock (R42)."""

PAST_LIMIT_US = 946_684_800 * 1_000_000
"""So is one before 2000-01-01: a clock that lost its power starts near 1970 or 1992."""

_HEAD = Struct("<IIqqhBqI")
_CLOCK = Struct("<hB")


class Quality(IntFlag):
    """What to know about a line before using it. Nothing is ever corrected silently."""

    GOOD = 0
    RECEIPT_TIME = 1
    """The meter gave no capture time; the time of receipt stands in its place."""
    CLOCK_DOUBTFUL = 2
    """The meter's own status says that its clock is invalid or doubtful (bits 0 and 1 of the clock status)."""
    CLOCK_WRONG = 4
    """The capture time cannot be: see `FUTURE_LIMIT_US` and `PAST_LIMIT_US`."""
    CONFLICT = 8
    """The meter gave another line for the same moment. Not stored: found when the lines are read side by side."""


def encode_cells(cells: Sequence[Cell]) -> bytes:
    """The values of a line as they are stored."""
    return msgpack.packb(list(cells), use_bin_type=True)  # type: ignore[no-any-return]


def decode_cells(cells: bytes) -> list[Cell]:
    """The values of a stored line, exact."""
    return msgpack.unpackb(cells, raw=False)  # type: ignore[no-any-return]


def entry_hash(cells: bytes, deviation_min: int, clock_status: int) -> int:
    """What tells two lines of one moment apart."""
    digest = blake2b(cells + _CLOCK.pack(deviation_min, clock_status), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def checksum(row: Sequence[int | bytes]) -> int:
    """The CRC-32 that belongs in the row's last place, over the places before it."""
    return zlib.crc32(row[8], zlib.crc32(_HEAD.pack(*row[:8])))  # type: ignore[arg-type]


def quality_of(capture_time_us: int, clock_status: int, received_us: int) -> Quality:
    """The quality bits that follow from the row's times and status (`RECEIPT_TIME` aside)."""
    quality = Quality.GOOD
    if clock_status != NO_CLOCK_STATUS and clock_status & 3:
        quality |= Quality.CLOCK_DOUBTFUL
    if not PAST_LIMIT_US <= capture_time_us <= received_us + FUTURE_LIMIT_US:
        quality |= Quality.CLOCK_WRONG
    return quality


def reading_row(
    meter_id: int,
    layout_id: int,
    capture_time_us: int,
    cells: Sequence[Cell],
    *,
    received_us: int,
    deviation_min: int = NO_DEVIATION,
    clock_status: int = NO_CLOCK_STATUS,
) -> ReadingRow:
    """The reference of what Rust's `Batch.rows(received_us)` builds for each line."""
    if capture_time_us == UNKNOWN_TIME:
        capture_time_us = received_us
        quality = quality_of(received_us, clock_status, received_us) | Quality.RECEIPT_TIME
    else:
        quality = quality_of(capture_time_us, clock_status, received_us)
    packed = encode_cells(cells)
    head = (
        meter_id,
        layout_id,
        capture_time_us,
        entry_hash(packed, deviation_min, clock_status),
        deviation_min,
        clock_status,
        received_us,
        int(quality),
    )
    return (*head, packed, checksum((*head, packed)))


def check(row: Sequence[int | bytes]) -> None:
    """Compare a row that was read back with its checksum.

    Raises:
        StoreDamaged: the row is not what was written. It must not be served.
    """
    try:
        intact = checksum(row) == row[9]
    except Exception as error:  # damage may change even a column's type or range
        raise StoreDamaged(f"a stored reading does not even have the shape of one: {type(error).__name__}") from error
    if not intact:
        raise StoreDamaged(
            f"the stored reading of meter {row[0]!r}, layout {row[1]!r}, captured {row[2]!r} us does not match its "
            "checksum; it is not served. Restore it from a backup, or read that time from the meter again"
        )
