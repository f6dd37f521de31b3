//! The scanner of msgpack-RPC on the Python side.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::rpc::{Limits, Scanner};

/// See `_core.pyi`.
#[pyclass(name = "RpcScanner", module = "ipss_headend._core", frozen)]
pub struct PyScanner(Mutex<Scanner>);

#[pymethods]
impl PyScanner {
    #[new]
    #[pyo3(signature = (*, octets=1_048_576, depth=16, values=131_072))]
    fn new(octets: usize, depth: usize, values: u32) -> Self {
        Self(Mutex::new(Scanner::new(Limits { octets, depth, values })))
    }

    #[pyo3(signature = (*, octets, depth=16, values=131_072))]
    fn allow(&self, octets: usize, depth: usize, values: u32) {
        self.lock().set_limits(Limits { octets, depth, values });
    }

    /// The messages that are whole now, and what ends the connection, if anything does.
    fn feed<'py>(&self, py: Python<'py>, octets: &[u8]) -> PyResult<(Vec<Bound<'py, PyTuple>>, Option<Ended>)> {
        let mut scanner = self.lock();
        scanner.feed(octets);
        let mut calls = Vec::new();
        while let Some(found) = scanner.next() {
            match found {
                Ok(call) => {
                    let method = String::from_utf8_lossy(scanner.method(&call));
                    let parts =
                        (call.kind, call.id, PyString::new(py, &method), PyBytes::new(py, scanner.params(&call)));
                    calls.push(parts.into_pyobject(py)?);
                }
                Err(fault) => return Ok((calls, Some((fault.id, fault.violation.to_string())))),
            }
        }
        Ok((calls, None))
    }
}

/// The number of the request that is at fault, if it is known, and what is wrong.
type Ended = (Option<u32>, String);

impl PyScanner {
    fn lock(&self) -> MutexGuard<'_, Scanner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
