//! Columns by the Arrow PyCapsule interface: pyarrow, polars, DuckDB and ADBC take them without a copy of their own.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use arrow_buffer::Buffer;
use arrow_data::ffi::FFI_ArrowArray;
use arrow_data::{ArrayData, ArrayDataBuilder};
use arrow_schema::ffi::FFI_ArrowSchema;
use arrow_schema::{ArrowError, DataType, Field, Fields, TimeUnit};
use ipss_session::batch::kind;
use ipss_session::{Batch, Line, WallTime};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};

/// What stands in which place of the lines with one layout.
#[derive(Clone, Debug)]
struct ColumnMeaning {
    reading_type: String,
    scaler: Option<i8>,
    unit: String,
}

/// See `_core.pyi`.
#[pyclass(module = "ipss_headend._core", frozen)]
#[derive(Default)]
pub struct Layouts(RwLock<HashMap<u32, Vec<ColumnMeaning>>>);

#[pymethods]
impl Layouts {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Say what the columns of `layout` are: (reading type, scaler or None, unit) each.
    fn add(&self, layout: u32, columns: Vec<(String, Option<i8>, String)>) {
        let columns =
            columns.into_iter().map(|(reading_type, scaler, unit)| ColumnMeaning { reading_type, scaler, unit });
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(layout, columns.collect());
    }

    fn __len__(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// See `_core.pyi`.
#[pyclass(module = "ipss_headend._core", frozen)]
pub struct Columns(ArrayData);

#[pymethods]
impl Columns {
    fn __len__(&self) -> usize {
        self.0.len()
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        self.capsules(py, requested_schema)
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.schema_capsule(py)
    }
}

impl Columns {
    /// The two capsules of the interface. The schema is fixed; a request for another is for the consumer to cast.
    pub fn capsules<'py>(
        &self,
        py: Python<'py>,
        _requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let array = PyCapsule::new_with_value(py, FFI_ArrowArray::new(&self.0), c"arrow_array")?;
        PyTuple::new(py, [self.schema_capsule(py)?, array.into_any()])
    }

    /// The schema's capsule.
    pub fn schema_capsule<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let schema = FFI_ArrowSchema::try_from(self.0.data_type()).map_err(broken)?;
        Ok(PyCapsule::new_with_value(py, schema, c"arrow_schema")?.into_any())
    }
}

/// One row a line: head, and its integers as a list (null where a value is none, or is no integer).
pub fn lines(batch: &Batch) -> PyResult<Columns> {
    let rows = || batch.lines.iter();
    let integer = Arc::new(Field::new("item", DataType::Int64, true));
    let mut ends = Vec::with_capacity(batch.lines.len() + 1);
    ends.push(0_i32);
    ends.extend(batch.line_ends.iter().map(|end| *end as i32));
    let values = integers(batch).map_err(broken)?;
    let list = ArrayDataBuilder::new(DataType::List(integer))
        .len(batch.lines.len())
        .add_buffer(Buffer::from_vec(ends))
        .add_child_data(values);
    structure(
        vec![
            ("meter", plain(DataType::UInt32, rows().map(|line| line.meter))),
            ("request", plain(DataType::UInt64, rows().map(|line| line.request))),
            ("item", plain(DataType::UInt16, rows().map(|line| line.item))),
            ("layout", plain(DataType::UInt32, rows().map(|line| line.layout))),
            ("capture_time", capture_times(rows())),
            ("deviation_min", deviations(rows())),
            ("clock_status", clock_statuses(rows())),
            ("values", list),
        ],
        batch.lines.len(),
    )
}

/// One row a value.
pub fn readings(batch: &Batch, layouts: &Layouts) -> PyResult<Columns> {
    let layouts = layouts.0.read().unwrap_or_else(PoisonError::into_inner);
    let count = batch.kinds.len();
    let mut heads = Vec::with_capacity(count);
    let mut places: Vec<u16> = Vec::with_capacity(count);
    let mut types = Texts::new(count);
    let mut units = Texts::new(count);
    let mut scalers: Vec<Option<i8>> = Vec::with_capacity(count);
    let mut start = 0;
    for (line, end) in batch.lines.iter().zip(&batch.line_ends) {
        let columns = layouts.get(&line.layout);
        for place in 0..(*end - start) as usize {
            let meaning = columns.and_then(|columns| columns.get(place));
            heads.push(line);
            places.push(place as u16);
            types.push(meaning.map(|meaning| meaning.reading_type.as_bytes()));
            units.push(meaning.map(|meaning| meaning.unit.as_bytes()));
            scalers.push(meaning.and_then(|meaning| meaning.scaler));
        }
        start = *end;
    }
    let mut raw = Texts::new(count);
    let mut next = 0;
    for kind in &batch.kinds {
        if *kind == kind::RAW {
            let from = if next == 0 { 0 } else { batch.raw_ends[next - 1] as usize };
            raw.push(Some(&batch.raw[from..batch.raw_ends[next] as usize]));
            next += 1;
        } else {
            raw.push(None);
        }
    }
    let mantissas = integers(batch).map_err(broken)?.into_builder();
    let rows = || heads.iter().copied();
    structure(
        vec![
            ("meter", plain(DataType::UInt32, rows().map(|line| line.meter))),
            ("layout", plain(DataType::UInt32, rows().map(|line| line.layout))),
            ("place", plain(DataType::UInt16, places)),
            ("reading_type", types.column(DataType::Utf8)),
            ("capture_time", capture_times(rows())),
            ("mantissa", mantissas),
            ("scaler", optional(DataType::Int8, scalers)),
            ("unit", units.column(DataType::Utf8)),
            ("raw", raw.column(DataType::Binary)),
            ("deviation_min", deviations(rows())),
            ("clock_status", clock_statuses(rows())),
        ],
        count,
    )
}

fn integers(batch: &Batch) -> Result<ArrayData, ArrowError> {
    let valid = batch.kinds.iter().map(|kind| *kind == kind::INTEGER);
    ArrayDataBuilder::new(DataType::Int64)
        .len(batch.integers.len())
        .add_buffer(Buffer::from_vec(batch.integers.clone()))
        .null_bit_buffer(Some(bits(valid)))
        .build()
}

fn capture_times<'a>(rows: impl Iterator<Item = &'a Line>) -> ArrayDataBuilder {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    optional(time, rows.map(|line| (line.capture_time != WallTime::UNKNOWN).then_some(line.capture_time.0)))
}

fn deviations<'a>(rows: impl Iterator<Item = &'a Line>) -> ArrayDataBuilder {
    optional(DataType::Int16, rows.map(|line| (line.deviation != Line::NO_DEVIATION).then_some(line.deviation)))
}

fn clock_statuses<'a>(rows: impl Iterator<Item = &'a Line>) -> ArrayDataBuilder {
    optional(DataType::UInt8, rows.map(|line| (line.clock_status != 0xFF).then_some(line.clock_status)))
}

fn plain<T: arrow_buffer::ArrowNativeType>(kind: DataType, values: impl IntoIterator<Item = T>) -> ArrayDataBuilder {
    let values: Vec<T> = values.into_iter().collect();
    ArrayDataBuilder::new(kind).len(values.len()).add_buffer(Buffer::from_vec(values))
}

fn optional<T: arrow_buffer::ArrowNativeType>(
    kind: DataType,
    values: impl IntoIterator<Item = Option<T>>,
) -> ArrayDataBuilder {
    let values: Vec<Option<T>> = values.into_iter().collect();
    let valid = bits(values.iter().map(Option::is_some));
    plain(kind, values.into_iter().map(Option::unwrap_or_default)).null_bit_buffer(Some(valid))
}

fn bits(valid: impl Iterator<Item = bool>) -> Buffer {
    let mut octets = Vec::new();
    for (index, bit) in valid.enumerate() {
        if index % 8 == 0 {
            octets.push(0_u8);
        }
        if let (true, Some(octet)) = (bit, octets.last_mut()) {
            *octet |= 1 << (index % 8);
        }
    }
    Buffer::from_vec(octets)
}

/// A column of texts or octets.
struct Texts {
    ends: Vec<i32>,
    octets: Vec<u8>,
    valid: Vec<bool>,
}

impl Texts {
    fn new(count: usize) -> Self {
        let mut ends = Vec::with_capacity(count + 1);
        ends.push(0);
        Self { ends, octets: Vec::new(), valid: Vec::with_capacity(count) }
    }

    fn push(&mut self, text: Option<&[u8]>) {
        self.octets.extend_from_slice(text.unwrap_or_default());
        self.ends.push(self.octets.len() as i32);
        self.valid.push(text.is_some());
    }

    fn column(self, kind: DataType) -> ArrayDataBuilder {
        ArrayDataBuilder::new(kind)
            .len(self.valid.len())
            .null_bit_buffer(Some(bits(self.valid.into_iter())))
            .add_buffer(Buffer::from_vec(self.ends))
            .add_buffer(Buffer::from_vec(self.octets))
    }
}

fn structure(columns: Vec<(&str, ArrayDataBuilder)>, length: usize) -> PyResult<Columns> {
    let mut fields = Vec::with_capacity(columns.len());
    let mut children = Vec::with_capacity(columns.len());
    for (name, column) in columns {
        let column = column.build().map_err(broken)?;
        fields.push(Field::new(name, column.data_type().clone(), true));
        children.push(column);
    }
    let data = ArrayDataBuilder::new(DataType::Struct(Fields::from(fields)))
        .len(length)
        .child_data(children)
        .build()
        .map_err(broken)?;
    Ok(Columns(data))
}

fn broken(error: ArrowError) -> PyErr {
    PyValueError::new_err(format!("columns: {error}"))
}
