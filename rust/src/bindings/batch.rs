//! A batch on the Python side: rows for the store, columns for analysis.

use ipss_session::batch::{self, kind};
use ipss_session::{Batch, Line, WallTime};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use super::columns::{self, Columns, Layouts};
use crate::rows::{Walk, head, raw_octets};

/// See `_core.pyi`.
#[pyclass(name = "Batch", module = "ipss_headend._core", frozen)]
pub struct PyBatch(pub Batch);

#[pymethods]
impl PyBatch {
    fn __len__(&self) -> usize {
        self.0.rows()
    }

    /// How many lines there are.
    #[getter]
    fn lines(&self) -> usize {
        self.0.lines.len()
    }

    /// How many values the lines have together.
    #[getter]
    fn values(&self) -> usize {
        self.0.kinds.len()
    }

    /// The lines that have a layout, as rows of the store's table `readings` (`store/records.py`).
    fn rows<'py>(&self, py: Python<'py>, received_us: i64) -> PyResult<Bound<'py, PyList>> {
        let mut rows = Vec::with_capacity(self.0.lines.len());
        let mut packed = Vec::with_capacity(64);
        let mut walk = Walk::new(&self.0);
        for line in &self.0.lines {
            packed.clear();
            walk.pack_next(&mut packed);
            if line.layout != 0 {
                rows.push(row(py, line, received_us, &packed)?);
            }
        }
        PyList::new(py, rows)
    }

    /// The lines without a layout: what single reads and notifications gave, as
    /// (meter, request, item, capture_time_us or None, deviation_min, clock_status, cells).
    fn answers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let mut answers = Vec::new();
        let mut walk = Walk::new(&self.0);
        for line in &self.0.lines {
            let (values, raw) = walk.next_line();
            if line.layout != 0 {
                continue;
            }
            let mut raw = raw;
            let cells = values
                .map(|value| match self.0.kinds[value] {
                    kind::INTEGER => Ok(self.0.integers[value].into_pyobject(py)?.into_any()),
                    kind::RAW => {
                        let octets = raw_octets(&self.0, raw);
                        raw += 1;
                        Ok(PyBytes::new(py, octets).into_any())
                    }
                    _ => Ok(py.None().into_bound(py)),
                })
                .collect::<PyResult<Vec<_>>>()?;
            let time = (line.capture_time != WallTime::UNKNOWN).then_some(line.capture_time.0);
            let head = (line.meter, line.request, line.item, time, line.deviation, line.clock_status);
            answers.push((head.0, head.1, head.2, head.3, head.4, head.5, PyList::new(py, cells)?));
        }
        PyList::new(py, answers)
    }

    /// (meter, at_us, kind, number, detail) of each event.
    fn events<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let events = self.0.events.iter();
        PyList::new(
            py,
            events
                .map(|event| (event.meter, event.at.0, event.kind as u16, event.number, event.detail.as_str()))
                .collect::<Vec<_>>(),
        )
    }

    /// The meters of the events of one kind, one unsigned 32-bit number each in the machine's order.
    fn event_meters<'py>(&self, py: Python<'py>, kind: u16) -> Bound<'py, PyBytes> {
        let events = self.0.events.iter().filter(|event| event.kind as u16 == kind);
        let octets: Vec<u8> = events.flat_map(|event| event.meter.to_ne_bytes()).collect();
        PyBytes::new(py, &octets)
    }

    /// (request, meter, outcome, exchanges, duration_us, detail) of each request that is over.
    fn ends<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let ends = self.0.ends.iter();
        PyList::new(
            py,
            ends.map(|end| {
                (end.request, end.meter, end.outcome as u8, end.exchanges, end.duration_us, end.detail.as_str())
            })
            .collect::<Vec<_>>(),
        )
    }

    /// The requests that are over, one unsigned 64-bit number each in the machine's order: for bulk work that only
    /// has to know which.
    fn ended_requests<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let octets: Vec<u8> = self.0.ends.iter().flat_map(|end| end.request.to_ne_bytes()).collect();
        PyBytes::new(py, &octets)
    }

    /// The meters of the requests that are over and done, one unsigned 32-bit number each in the machine's order.
    fn done_meters<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let done = self.0.ends.iter().filter(|end| end.outcome == ipss_session::Outcome::Done);
        let octets: Vec<u8> = done.flat_map(|end| end.meter.to_ne_bytes()).collect();
        PyBytes::new(py, &octets)
    }

    /// (meter, request, item, code) of each refusal.
    fn refusals<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let refusal = |refusal: &batch::Refusal| (refusal.meter, refusal.request, refusal.item, refusal.code);
        PyList::new(py, self.0.refusals.iter().map(refusal).collect::<Vec<_>>())
    }

    /// (meter, counter): the highest invocation counter believed of each meter's lasting key.
    fn peer_counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, &self.0.peer_counters)
    }

    /// One row a value, with reading type, scaler and unit from `layouts`, as Arrow columns.
    fn readings(&self, layouts: &Layouts) -> PyResult<Columns> {
        columns::readings(&self.0, layouts)
    }

    /// One row a line, its values a list, as an Arrow struct array (PyCapsule interface).
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        columns::lines(&self.0)?.capsules(py, requested_schema)
    }

    /// The schema of `__arrow_c_array__`.
    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        columns::lines(&self.0)?.schema_capsule(py)
    }
}

fn row<'py>(py: Python<'py>, line: &Line, received_us: i64, cells: &[u8]) -> PyResult<Bound<'py, PyTuple>> {
    let head = head(line, received_us, cells);
    (
        line.meter,
        line.layout,
        head.capture_time,
        head.hash,
        line.deviation,
        line.clock_status,
        received_us,
        head.quality,
        PyBytes::new(py, cells),
        head.crc,
    )
        .into_pyobject(py)
}
