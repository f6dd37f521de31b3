"""What leaves the store is exact, whatever the form."""

import csv
import io
import sys
from datetime import UTC, datetime

import pyarrow.ipc
import pyarrow.parquet
import pytest

from ipss_headend.errors import RequestError, StoreDamaged
from ipss_headend.store import (
    Database,
    Layout,
    LayoutColumn,
    Meter,
    Quality,
    WriteBatch,
    journal,
    reading_row,
    registry,
)
from ipss_headend.store.export import Selection, export, quality_text, time_text
from ipss_headend.store.readings import plain, scaled
from ipss_headend.store.statements import run

T0 = 1_767_225_600_000_000
QUARTER_US = 900_000_000
PROFILE = Layout(
    7,
    "1.0.99.1.0.255",
    2,
    (
        LayoutColumn(3, "1.0.1.8.0.255", 2, scaler=-3, unit="kWh", name="active energy import"),
        LayoutColumn(1, "0.0.96.10.1.255", 2),
    ),
)
METERS = [Meter(n, f"m{n}", "127.0.0.1", 4059, n, None, None, "", "", {}) for n in (1, 2)]
SELECTION = Selection(METERS, {1: PROFILE})


@pytest.fixture
def filled(database: Database) -> Database:
    rows = [
        reading_row(
            meter, 1, T0 + n * QUARTER_US, [10**15 + n, b"\x04\x08\x80" if n == 2 else None], received_us=T0,
            deviation_min=-60, clock_status=128,
        )
        for meter in (1, 2)
        for n in range(4)
    ]  # fmt: skip
    with database.writing() as connection:
        registry.intern_layouts(connection, [PROFILE])
        journal.write(connection, WriteBatch(rows), T0, 1)
    return database


def exported(database: Database, selection: Selection = SELECTION) -> list[dict[str, str]]:
    stream = io.BytesIO()
    with database.reading() as connection:
        export(connection, selection, stream)
    return list(csv.DictReader(io.StringIO(stream.getvalue().decode())))


def test_csv_has_every_value_exact(filled: Database) -> None:
    rows = exported(filled)

    assert len(rows) == 16
    assert rows[0] == {
        "meter": "m1",
        "object": "1.0.99.1.0.255",
        "capture_time": "2026-01-01T00:00:00Z",
        "logical_name": "1.0.1.8.0.255",
        "class_id": "3",
        "attribute": "2",
        "name": "active energy import",
        "value": "1000000000000.000",
        "mantissa": "1000000000000000",
        "scaler": "-3",
        "unit": "kWh",
        "raw": "",
        "quality": "good",
        "clock_status": "128",
        "deviation_min": "-60",
        "received": "2026-01-01T00:00:00Z",
    }
    assert [row["raw"] for row in rows if row["raw"]] == ["040880", "040880"]


def test_selection_by_meter_time_and_object(filled: Database) -> None:
    selection = Selection(METERS[1:], {1: PROFILE}, T0 + QUARTER_US, T0 + 3 * QUARTER_US, frozenset({"1.0.1.8.0.255"}))

    rows = exported(filled, selection)

    assert [(row["meter"], row["mantissa"]) for row in rows] == [("m2", "1000000000000001"), ("m2", "1000000000000002")]


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_columnar_forms_hold_what_csv_holds(filled: Database, form: str) -> None:
    stream = io.BytesIO()
    with filled.reading() as connection:
        count = export(connection, SELECTION, stream, form)  # type: ignore[arg-type]

    stream.seek(0)
    table = pyarrow.parquet.read_table(stream) if form == "parquet" else pyarrow.ipc.open_file(stream).read_all()
    rows = table.to_pylist()
    assert count == len(rows) == 16
    for row, text in zip(rows, exported(filled), strict=True):
        assert row["capture_time"] == datetime.fromisoformat(text["capture_time"])
        assert row["mantissa"] == (int(text["mantissa"]) if text["mantissa"] else None)
        assert (row["value"] or "") == text["value"]
        assert (row["raw"] or b"").hex() == text["raw"]
        assert row["unit"] == text["unit"]


@pytest.mark.parametrize("form", ["csv", "parquet", "arrow"])
def test_nothing_selected_is_an_empty_table(database: Database, form: str) -> None:
    stream = io.BytesIO()
    with database.reading() as connection:
        assert export(connection, SELECTION, stream, form) == 0  # type: ignore[arg-type]

    assert stream.getvalue()


def test_without_pyarrow_the_remedy_is_said(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with filled.reading() as connection, pytest.raises(RequestError, match=r"pip install 'ipss-headend\[arrow\]'"):
        export(connection, SELECTION, io.BytesIO(), "parquet")


def test_damaged_line_is_left_out_and_told(filled: Database) -> None:
    with filled.writing() as connection:
        run(connection, "UPDATE readings SET received_us = 0 WHERE meter_id = 1 AND capture_time_us = ?", (T0,))
    damage: list[StoreDamaged] = []

    with filled.reading() as connection:
        count = export(connection, SELECTION, io.BytesIO(), on_damage=damage.append)

    assert (count, len(damage)) == (14, 1)


@pytest.mark.parametrize(
    ("mantissa", "scaler", "text"),
    [
        (12345, -3, "12.345"),
        (-5, 0, "-5"),
        (5, None, "5"),
        (7, 3, "7000"),
        (0, -2, "0.00"),
        (2**63 - 1, -18, "9.223372036854775807"),
        (-1, -128, "-0." + "0" * 127 + "1"),
    ],
)
def test_values_are_exact_decimals(mantissa: int, scaler: int | None, text: str) -> None:
    assert plain(scaled(mantissa, scaler)) == text


def test_times_and_qualities_in_words() -> None:
    assert time_text(T0 + 1500) == "2026-01-01T00:00:00.001500Z"
    assert time_text(2**62) == f"{2**62}us"
    assert quality_text(Quality.GOOD) == "good"
    assert quality_text(Quality.CONFLICT | Quality.CLOCK_WRONG) == "clock-wrong|conflict"
    assert datetime.fromisoformat(time_text(T0)) == datetime(2026, 1, 1, tzinfo=UTC)
