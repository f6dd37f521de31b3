"""Stored readings for other people's tools: CSV, Parquet, Arrow. One row a value, streaming.

`value` is the exact decimal as text, and `mantissa` with `scaler` the same as integers: no float on the way. A value
that is no integer stands in `raw`, as the meter encoded it. CSV needs nothing; Parquet and Arrow need pyarrow, the
extra `ipss-headend[arrow]`.
"""

import csv
import importlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, BinaryIO, Literal, NamedTuple, Protocol

from sqlalchemy import Connection

from ipss_headend.errors import RequestError
from ipss_headend.store.readings import Line, OnDamage, plain, scaled, series
from ipss_headend.store.records import Quality
from ipss_headend.store.registry import Layout, Meter
from ipss_headend.store.statements import CHUNK

Form = Literal["csv", "parquet", "arrow"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ValueRow(NamedTuple):
    """One value with all that is known of it."""

    meter: str
    object: str
    """What the line was read from: a register itself, or the profile."""
    capture_time_us: int
    logical_name: str
    class_id: int
    attribute: int
    name: str
    value: str | None
    mantissa: int | None
    scaler: int | None
    unit: str
    raw: bytes | None
    quality: str
    """`good`, or what is to be known, with `|` between: see `Quality`."""
    clock_status: int | None
    deviation_min: int | None
    received_us: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which readings: these meters, these layouts, capture times in [from, until), only these objects' columns."""

    meters: Sequence[Meter]
    layouts: Mapping[int, Layout]
    from_us: int | None = None
    until_us: int | None = None
    logical_names: frozenset[str] = frozenset()
    """None: every column."""


def values(connection: Connection, selection: Selection, on_damage: OnDamage | None = None) -> Iterator[ValueRow]:
    """The values of a selection by meter, layout, capture time and column.

    Raises:
        StoreDamaged: a row is not what was written, and there is no `on_damage` to tell.
    """
    names = {meter.meter_id: meter.name for meter in selection.meters}
    lines = series(connection, list(names), list(selection.layouts), selection.from_us, selection.until_us, on_damage)
    for line in lines:
        layout = selection.layouts[line.layout_id]
        yield from _values(names[line.meter_id], line, layout, selection.logical_names)


def export(
    connection: Connection,
    selection: Selection,
    stream: BinaryIO,
    form: Form = "csv",
    on_damage: OnDamage | None = None,
) -> int:
    """Write a selection to `stream`. Returns the number of values.

    Raises:
        RequestError: Parquet or Arrow, and pyarrow is not installed.
        StoreDamaged: as `values` does.
    """
    rows = values(connection, selection, on_damage)
    return _csv(rows, stream) if form == "csv" else _columnar(rows, stream, form)


def time_text(moment_us: int) -> str:
    """A moment in UTC as ISO 8601 writes it, with a fraction where there is one; as a number where no calendar goes."""
    try:
        moment = _EPOCH + timedelta(microseconds=moment_us)
    except OverflowError:
        return f"{moment_us}us"
    return moment.isoformat().replace("+00:00", "Z")


def quality_text(quality: Quality) -> str:
    """`good`, or the names of the bits, in lower case with hyphens."""
    if not quality:
        return "good"
    return "|".join((flag.name or "").lower().replace("_", "-") for flag in Quality if flag in quality)


def _values(meter: str, line: Line, layout: Layout, only: frozenset[str]) -> Iterator[ValueRow]:
    quality = quality_text(line.quality)
    for column, cell in zip(layout.columns, line.cells, strict=False):
        if only and column.logical_name not in only:
            continue
        mantissa = cell if isinstance(cell, int) else None
        yield ValueRow(
            meter,
            layout.logical_name,
            line.capture_time_us,
            column.logical_name,
            column.class_id,
            column.attribute,
            column.name,
            None if mantissa is None else plain(scaled(mantissa, column.scaler)),
            mantissa,
            column.scaler,
            column.unit,
            cell if isinstance(cell, bytes) else None,
            quality,
            line.clock_status,
            line.deviation_min,
            line.received_us,
        )


def _csv(rows: Iterable[ValueRow], stream: BinaryIO) -> int:
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
    try:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(name.replace("_us", "") for name in ValueRow._fields)
        count = 0
        for row in rows:
            cells: dict[str, object] = row._asdict()
            cells["capture_time_us"] = time_text(row.capture_time_us)
            cells["received_us"] = time_text(row.received_us)
            cells["raw"] = None if row.raw is None else row.raw.hex()
            writer.writerow(cells.values())
            count += 1
        return count
    finally:
        text.detach()  # the stream is the caller's to close


class _Writer(Protocol):
    def write_batch(self, batch: object) -> None: ...
    def close(self) -> None: ...


def _columnar(rows: Iterator[ValueRow], stream: BinaryIO, form: Form) -> int:
    pyarrow = _pyarrow("pyarrow")
    schema = _schema(pyarrow)
    writer: _Writer
    if form == "parquet":
        writer = _pyarrow("pyarrow.parquet").ParquetWriter(stream, schema, compression="zstd")
    else:
        writer = _pyarrow("pyarrow.ipc").new_file(stream, schema)
    count = 0
    try:
        while chunk := list(islice(rows, 8 * CHUNK)):
            columns = [
                pyarrow.array(column, field.type)
                for column, field in zip(zip(*chunk, strict=True), schema, strict=True)
            ]
            writer.write_batch(pyarrow.record_batch(columns, schema=schema))
            count += len(chunk)
    finally:
        writer.close()
    return count


def _schema(pyarrow: Any) -> Any:
    moment = pyarrow.timestamp("us", tz="UTC")
    types = {
        "capture_time_us": moment,
        "received_us": moment,
        "class_id": pyarrow.int32(),
        "attribute": pyarrow.int16(),
        "mantissa": pyarrow.int64(),
        "scaler": pyarrow.int16(),
        "raw": pyarrow.binary(),
        "clock_status": pyarrow.int16(),
        "deviation_min": pyarrow.int16(),
    }
    return pyarrow.schema([(name.replace("_us", ""), types.get(name, pyarrow.string())) for name in ValueRow._fields])


def _pyarrow(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RequestError(
            "Parquet and Arrow need pyarrow, which is not installed; run `pip install 'ipss-headend[arrow]'` or "
            "export CSV"
        ) from error
