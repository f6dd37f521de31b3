//! Companion profiles on the Python side: those that come with the program and a utility's own, and what pushes say
//! under them.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use ipss_dlms::axdr::Data;
use ipss_dlms::cosem::lookup;
use ipss_dlms::head_end::Unopened;
use ipss_dlms::push::companion::{self, Companion, Quirk};
use ipss_dlms::push::learn;
use ipss_dlms::push::{Column, PushedValue, read};
use ipss_session::{Limits, WallTime};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(add_profile, module)?)?;
    module.add_function(wrap_pyfunction!(profile_names, module)?)?;
    module.add_function(wrap_pyfunction!(profile, module)?)?;
    module.add_function(wrap_pyfunction!(read_push, module)?)?;
    module.add_function(wrap_pyfunction!(unopened_pushes, module)?)?;
    module.add_function(wrap_pyfunction!(learn_push, module)?)
}

/// Profiles by name: a utility's own, and those of the program that somebody asked for.
fn loaded() -> &'static RwLock<HashMap<String, Arc<Companion>>> {
    static LOADED: OnceLock<RwLock<HashMap<String, Arc<Companion>>>> = OnceLock::new();
    LOADED.get_or_init(RwLock::default)
}

fn keep(name: &str, profile: Companion) -> Arc<Companion> {
    let profile = Arc::new(profile);
    loaded().write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), profile.clone());
    profile
}

/// The profile of this name.
pub fn named(name: &str) -> Result<Arc<Companion>, String> {
    if let Some(found) = loaded().read().unwrap_or_else(PoisonError::into_inner).get(name) {
        return Ok(found.clone());
    }
    companion::companion(name).map(|found| keep(name, found.clone()))
}

/// See `_core.pyi`.
#[pyfunction]
fn add_profile(name: &str, text: &str) -> PyResult<()> {
    // A profile may add to that of the program which has its name.
    let mut parent = |parent: &str| match parent == name {
        true => companion::companion(parent).cloned(),
        false => named(parent).map(|found| found.as_ref().clone()),
    };
    keep(name, Companion::parse(name, text, &mut parent).map_err(PyValueError::new_err)?);
    Ok(())
}

/// See `_core.pyi`.
#[pyfunction]
fn profile_names() -> Vec<String> {
    let own = loaded().read().unwrap_or_else(PoisonError::into_inner);
    let mut names: Vec<String> = own.keys().cloned().chain(companion::names().map(str::to_owned)).collect();
    names.sort();
    names.dedup();
    names
}

/// See `_core.pyi`.
#[pyfunction]
fn profile<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyDict>> {
    let found = named(name).map_err(PyValueError::new_err)?;
    let shown = PyDict::new(py);
    shown.set_item("name", &found.name)?;
    shown.set_item("about", &found.about)?;
    shown.set_item("layouts", found.layouts.iter().map(|layout| layout.name.as_str()).collect::<Vec<_>>())?;
    let quirks = PyDict::new(py);
    for (name, quirk) in &found.quirks {
        let value = match quirk {
            Quirk::Switch(switch) => switch.into_bound_py_any(py)?,
            Quirk::Number(number) => number.into_bound_py_any(py)?,
            Quirk::Word(word) => word.into_bound_py_any(py)?,
        };
        quirks.set_item(name, value)?;
    }
    shown.set_item("quirks", quirks)?;
    Ok(shown)
}

/// See `_core.pyi`.
#[pyfunction]
fn read_push<'py>(py: Python<'py>, apdu: &[u8], profile: &str) -> PyResult<Bound<'py, PyTuple>> {
    let companion = named(profile).map_err(PyValueError::new_err)?;
    let pushed = read(apdu, &companion, &Limits::default())
        .map_err(|error| PyValueError::new_err(format!("{}: {error}", error.code)))?;
    let time = (pushed.capture_time != WallTime::UNKNOWN).then_some(pushed.capture_time.0);
    let source = (pushed.source.class_id, pushed.source.logical_name.to_string(), pushed.source.attribute);
    let columns = pushed.values.iter().map(|value| column(py, &value.column)).collect::<PyResult<Vec<_>>>()?;
    let cells = pushed.values.iter().map(|value| cell(py, value)).collect::<PyResult<Vec<_>>>()?;
    let columns = PyTuple::new(py, columns)?;
    (time, pushed.deviation, pushed.clock_status, source, columns, PyList::new(py, cells)?).into_pyobject(py)
}

/// See `_core.pyi`.
#[pyfunction]
fn unopened_pushes<'py>(py: Python<'py>, octets: &[u8]) -> PyResult<Bound<'py, PyList>> {
    let found = Unopened::all(octets)
        .map(|push| (PyBytes::new(py, push.system_title), push.source, push.destination, PyBytes::new(py, push.wpdu)));
    PyList::new(py, found.collect::<Vec<_>>())
}

fn column<'py>(py: Python<'py>, column: &Column) -> PyResult<Bound<'py, PyTuple>> {
    let descriptor = &column.descriptor;
    let known = lookup(descriptor.logical_name);
    // A unit without a scaler is the catalogue's guess: no number is scaled by it.
    let unit = column.unit.and_then(ipss_dlms::cosem::Unit::symbol).unwrap_or("");
    (
        descriptor.class_id,
        descriptor.logical_name.to_string(),
        descriptor.attribute,
        column.data_index,
        column.scaler,
        unit,
        known.map_or("", |entry| entry.name),
    )
        .into_pyobject(py)
}

fn cell<'py>(py: Python<'py>, value: &PushedValue) -> PyResult<Bound<'py, PyAny>> {
    match value.integer {
        Some(integer) => integer.into_bound_py_any(py),
        None if value.raw.is_empty() => Ok(py.None().into_bound(py)),
        None => Ok(PyBytes::new(py, &value.raw).into_any()),
    }
}

/// See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (name, octets, labels=None))]
fn learn_push(name: &str, octets: &[u8], labels: Option<Vec<(String, String)>>) -> PyResult<String> {
    let limits = Limits::default();
    let broken = |error: ipss_session::ProtocolError| PyValueError::new_err(format!("{}: {error}", error.code));
    let layout = match labels {
        None => learn::from_object_list(name, &Data::from_octets(octets, &limits).map_err(broken)?),
        Some(labels) => {
            let labels = labels
                .into_iter()
                .map(|(text, value)| match Column::parse(&text) {
                    Ok(Some(column)) => Ok((column, value)),
                    Ok(None) => Err(format!("\"{text}\": a label names an object")),
                    Err(error) => Err(error),
                })
                .collect::<Result<Vec<_>, _>>()
                .map_err(PyValueError::new_err)?;
            learn::from_sample(name, octets, &labels, &limits)
        }
    };
    layout.map(|layout| learn::as_toml(&layout)).map_err(broken)
}
