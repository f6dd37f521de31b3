//! Modbus on the Python side: profiles, questions, and the conversions that command lines need.

use std::sync::Arc;

use ipss_modbus::head_end::{Item, Plan, Read};
use ipss_modbus::pdu::RequestPdu;
use ipss_modbus::profile::{Framing, Profile, SerialTiming};
use ipss_modbus::{Decode, Table};
use ipss_session::ProtocolError;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::meter::{not_one_of, seconds};

/// See `_core.pyi`.
#[pyclass(name = "ModbusProfile", module = "ipss_headend._core", frozen)]
pub struct PyModbusProfile(pub Arc<Profile>);

#[pymethods]
impl PyModbusProfile {
    #[new]
    #[pyo3(signature = (framing="tcp", *, baud=9600, answer_s=None, retries=None, gap_s=None, interval_s=0.0,
        max_registers=125, max_bits=2000, max_gap=8, in_flight=1))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        framing: &str,
        baud: u32,
        answer_s: Option<f64>,
        retries: Option<u8>,
        gap_s: Option<f64>,
        interval_s: f64,
        max_registers: u16,
        max_bits: u16,
        max_gap: u16,
        in_flight: u8,
    ) -> PyResult<Self> {
        let mut profile = match framing {
            "tcp" => Profile::tcp(),
            "udp" => Profile::udp(),
            "rtu" => Profile { framing: Framing::Rtu(SerialTiming::new(baud)), ..Profile::rtu(baud) },
            "rtu-over-tcp" => Profile::rtu_over_tcp(),
            "ascii" => Profile::ascii(),
            other => return Err(not_one_of("framing", other, "tcp, udp, rtu, rtu-over-tcp, ascii")),
        };
        if let Some(answer_s) = answer_s {
            profile.answer = seconds("answer_s", answer_s)?;
            profile.late = profile.answer;
        }
        if let Some(gap_s) = gap_s {
            profile.gap = profile.gap.max(seconds("gap_s", gap_s)?);
        }
        profile.retries = retries.unwrap_or(profile.retries);
        profile.interval = seconds("interval_s", interval_s)?;
        for (name, value, most) in [("max_registers", max_registers, 125), ("max_bits", max_bits, 2000)] {
            if !(1..=most).contains(&value) {
                return Err(PyValueError::new_err(format!("{name}: {value} is not from 1 to {most}")));
            }
        }
        (profile.max_registers, profile.max_bits, profile.max_gap) = (max_registers, max_bits, max_gap);
        if !(1..=16).contains(&in_flight) {
            return Err(PyValueError::new_err(format!("in_flight: {in_flight} is not from 1 to 16")));
        }
        Ok(Self(Arc::new(profile.concurrent(in_flight))))
    }
}

/// See `_core.pyi`.
#[pyclass(name = "ModbusItem", module = "ipss_headend._core", frozen)]
pub struct PyModbusItem(Item);

#[pymethods]
impl PyModbusItem {
    #[staticmethod]
    fn read(layout: u32, points: Vec<(String, u16, u16, String)>) -> PyResult<Self> {
        let points = points.into_iter().map(point).collect::<PyResult<Vec<_>>>()?;
        Read::points(layout, &points).map(|read| Self(Item::Read(read))).map_err(wrong)
    }

    #[staticmethod]
    fn ask(pdu: Vec<u8>) -> PyResult<Self> {
        let request = RequestPdu::decode(&pdu).map_err(wrong)?;
        Item::ask(&request).map(Self).map_err(wrong)
    }
}

/// See `_core.pyi`.
#[pyclass(name = "ModbusPlan", module = "ipss_headend._core", frozen)]
pub struct PyModbusPlan(pub Arc<Plan>);

#[pymethods]
impl PyModbusPlan {
    #[new]
    fn new(items: &Bound<'_, PyAny>) -> PyResult<Self> {
        let items = items.try_iter()?.map(|item| Ok(item?.cast::<PyModbusItem>()?.get().0.clone()));
        let items = items.collect::<PyResult<Vec<_>>>()?;
        if items.len() > usize::from(u16::MAX) {
            return Err(PyValueError::new_err(format!("a plan of {} items; at most 65,535", items.len())));
        }
        Ok(Self(Arc::new(Plan { items: items.into() })))
    }

    fn __len__(&self) -> usize {
        self.0.items.len()
    }

    #[getter]
    fn only_reads(&self) -> bool {
        self.0.is_repeatable()
    }
}

/// The name of an exception code, `None` for one that the specification does not know.
#[pyfunction]
pub fn modbus_exception(code: u8) -> Option<&'static str> {
    ipss_modbus::function::Exception(code).name()
}

fn point((table, address, count, decode): (String, u16, u16, String)) -> PyResult<(Table, u16, u16, Decode)> {
    let table = match table.as_str() {
        "coils" => Table::Coils,
        "discrete" => Table::DiscreteInputs,
        "holding" => Table::Holding,
        "input" => Table::Input,
        other => return Err(not_one_of("table", other, "coils, discrete, holding, input")),
    };
    let decode = match decode.as_str() {
        "raw" => Decode::Raw,
        "unsigned" => Decode::Unsigned,
        "signed" => Decode::Signed,
        other => return Err(not_one_of("decode", other, "raw, unsigned, signed")),
    };
    Ok((table, address, count, decode))
}

fn wrong(error: ProtocolError) -> PyErr {
    PyValueError::new_err(format!("{}: {}", error.code, error.message))
}
