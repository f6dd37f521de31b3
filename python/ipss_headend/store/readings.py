"""Questions about stored readings. Every row is checked against its checksum before it is served (R3)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import Connection, func, select

from ipss_headend.errors import StoreDamaged
from ipss_headend.store import log
from ipss_headend.store.records import (
    NO_CLOCK_STATUS,
    NO_DEVIATION,
    READING_COLUMNS,
    Cell,
    Quality,
    check,
    decode_cells,
)
from ipss_headend.store.schema import ledger, readings
from ipss_headend.store.statements import is_postgresql, run, stream

OnDamage = Callable[[StoreDamaged], None]
"""Told of each row that is not served because it is damaged. Without one, the first such row raises."""


@dataclass(frozen=True, slots=True)
class Line:
    """What a meter captured at one moment."""

    meter_id: int
    layout_id: int
    capture_time_us: int
    deviation_min: int | None
    clock_status: int | None
    received_us: int
    quality: Quality
    cells: list[Cell]


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found."""

    lines: int
    damaged: tuple[str, ...]
    """A message for each row whose checksum does not match, the first 100."""
    missing: int
    """Lines that were written and are not there."""
    structure: tuple[str, ...]
    """What SQLite says of its own pages."""

    @property
    def sound(self) -> bool:
        """Nothing is wrong."""
        return not self.damaged and not self.structure and self.missing == 0


def scaled(mantissa: int, scaler: int | None) -> Decimal:
    """The exact value: no float touches money or energy."""
    return Decimal(mantissa).scaleb(scaler or 0)


def plain(value: Decimal) -> str:
    """A decimal as people and spreadsheets write it: digits, never an exponent."""
    return f"{value:f}"


def series(
    connection: Connection,
    meter_ids: Sequence[int],
    layout_ids: Sequence[int],
    from_us: int | None = None,
    until_us: int | None = None,
    on_damage: OnDamage | None = None,
) -> Iterator[Line]:
    """Lines by meter, layout and capture time, within [from, until). Streams: memory does not grow with the answer.

    Raises:
        StoreDamaged: a row is not what was written, and there is no `on_damage` to tell.
    """
    first = -(2**63) if from_us is None else from_us
    last = 2**63 - 1 if until_us is None else until_us - 1
    for meter_id in meter_ids:
        for layout_id in layout_ids:
            with closing(stream(connection, _SERIES, (meter_id, layout_id, first, last))) as rows:
                yield from _flagged(_checked(rows, on_damage))


def latest(
    connection: Connection,
    meter_ids: Sequence[int],
    layout_ids: Sequence[int],
    on_damage: OnDamage | None = None,
) -> Iterator[Line]:
    """The line with the latest capture time of each meter and layout that has any."""
    for meter_id in meter_ids:
        for layout_id in layout_ids:
            rows = run(connection, _LATEST, (meter_id, layout_id)).all()
            lines = list(_flagged(_checked((tuple(row) for row in reversed(rows)), on_damage)))
            if lines:
                yield lines[-1]


def line_count(connection: Connection) -> int:
    """How many lines are stored, as the ledger has it: at once, however many."""
    return connection.scalar(select(func.sum(ledger.c.readings))) or 0


def conflicts(connection: Connection, meter_id: int, layout_id: int) -> list[int]:
    """The capture times for which a meter gave more than one line."""
    selected = (
        select(readings.c.capture_time_us)
        .where(readings.c.meter_id == meter_id, readings.c.layout_id == layout_id)
        .group_by(readings.c.capture_time_us)
        .having(func.count() > 1)
        .order_by(readings.c.capture_time_us)
    )
    return list(connection.scalars(selected))


def verify(connection: Connection) -> Verification:
    """Read everything and compare it with its checksums, with the ledger, and with SQLite's own rules."""
    structure = []
    if not is_postgresql(connection):  # which looks at its pages' checksums whenever it reads them
        structure = [text for (text,) in connection.exec_driver_sql("PRAGMA integrity_check(100)") if text != "ok"]
    damaged: list[str] = []
    lines = 0
    for row in stream(connection, _ALL):
        lines += 1
        try:
            check(row)
        except StoreDamaged as damage:
            damaged.append(str(damage))
    damaged += log.damaged(connection)
    missing = line_count(connection) - lines
    return Verification(lines, tuple(damaged[:100]), missing, tuple(structure))


def _checked(rows: Iterator[tuple[int | bytes, ...]], on_damage: OnDamage | None) -> Iterator[Line]:
    for row in rows:
        try:
            check(row)
        except StoreDamaged as damage:
            if on_damage is None:
                raise
            on_damage(damage)
            continue
        yield line_of(row)


def _flagged(lines: Iterator[Line]) -> Iterator[Line]:
    # Lines of one moment are neighbours in the index, so a conflict shows without a look elsewhere.
    held: Line | None = None
    for line in lines:
        if held is not None:
            if held.capture_time_us == line.capture_time_us:
                held, line = _in_conflict(held), _in_conflict(line)
            yield held
        held = line
    if held is not None:
        yield held


def _in_conflict(line: Line) -> Line:
    return Line(
        line.meter_id,
        line.layout_id,
        line.capture_time_us,
        line.deviation_min,
        line.clock_status,
        line.received_us,
        line.quality | Quality.CONFLICT,
        line.cells,
    )


def line_of(row: Sequence[int | bytes]) -> Line:
    """The line that a stored row stands for."""
    meter_id, layout_id, capture_time_us, _, deviation_min, clock_status, received_us, quality, cells, _ = row
    return Line(
        meter_id,  # type: ignore[arg-type] # a row's shape is that of READING_COLUMNS
        layout_id,  # type: ignore[arg-type]
        capture_time_us,  # type: ignore[arg-type]
        None if deviation_min == NO_DEVIATION else deviation_min,  # type: ignore[arg-type]
        None if clock_status == NO_CLOCK_STATUS else clock_status,  # type: ignore[arg-type]
        received_us,  # type: ignore[arg-type]
        Quality(quality),  # type: ignore[arg-type]
        decode_cells(cells),  # type: ignore[arg-type]
    )


_ALL = f"SELECT {', '.join(READING_COLUMNS)} FROM readings"  # noqa: S608 - constants
_OF_ONE = f"{_ALL} WHERE meter_id = ? AND layout_id = ?"
_SERIES = f"{_OF_ONE} AND capture_time_us BETWEEN ? AND ? ORDER BY capture_time_us, entry_hash"
_LATEST = f"{_OF_ONE} ORDER BY capture_time_us DESC, entry_hash DESC LIMIT 2"
