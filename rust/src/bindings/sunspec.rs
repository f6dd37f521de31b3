//! A SunSpec device on the Python side: what to read next to know it, its points by name, and the registers of a value.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ipss_modbus::decimal::Decimal;
use ipss_modbus::pdu::{IdentificationObjects, ResponsePdu};
use ipss_modbus::sunspec::{Block, BlockImage, Discovery, Progress, Value};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// See `_core.pyi`.
#[pyclass(name = "SunSpecDevice", module = "ipss_headend._core", frozen)]
pub struct PySunSpecDevice(Mutex<State>);

struct State {
    discovery: Discovery,
    /// The blocks of published models once they are known, each with its address.
    blocks: Vec<(u16, BlockImage)>,
}

#[pymethods]
impl PySunSpecDevice {
    #[new]
    #[pyo3(signature = (most=125))]
    fn new(most: u16) -> Self {
        Self(Mutex::new(State { discovery: Discovery::new(most), blocks: Vec::new() }))
    }

    fn ask(&self) -> Option<(u16, u16)> {
        match self.lock().discovery.progress() {
            Progress::Ask(read) => Some((read.address, read.count)),
            _ => None,
        }
    }

    #[pyo3(signature = (octets, /))]
    fn answered(&self, octets: Option<&[u8]>) {
        let mut state = self.lock();
        state.discovery.answered(octets.map(registers).as_deref());
        if let Progress::Found(base, found) = state.discovery.progress() {
            let image = state.discovery.image();
            let block = |block: &Block| {
                let address = base.checked_add(u16::try_from(block.offset).ok()?)?;
                Some((address, BlockImage::from_registers(block.registers(image))?))
            };
            state.blocks = found.iter().filter_map(block).collect();
        }
    }

    fn models(&self) -> Vec<(u16, u16, u16)> {
        let Progress::Found(base, blocks) = self.lock().discovery.progress() else { return Vec::new() };
        blocks.iter().map(|block| (block.id, base.saturating_add(block.offset as u16), block.declared)).collect()
    }

    fn place(&self, model: u16, point: &str) -> PyResult<(u16, u16)> {
        let state = self.lock();
        let (address, block) = state.block(model)?;
        let place = block.with(point, |place| (place.offset as u16, place.point.size)).map_err(wrong)?;
        Ok((address + place.0, place.1))
    }

    #[pyo3(signature = (address, octets, /))]
    fn update(&self, address: u16, octets: &[u8]) -> bool {
        let values = registers(octets);
        let mut state = self.lock();
        state.blocks.iter_mut().any(|(first, block)| {
            address.checked_sub(*first).is_some_and(|offset| block.write(usize::from(offset), &values))
        })
    }

    fn value(&self, model: u16, point: &str) -> PyResult<Option<String>> {
        let state = self.lock();
        let (_, block) = state.block(model)?;
        let said = block.with(point, |place| {
            let value = place.value();
            match &value {
                Value::NotImplemented => None,
                Value::Text(text) => Some(text.clone()),
                _ => place.number(&value).map(|number| number.to_string()),
            }
        });
        said.map_err(wrong)
    }

    fn write<'py>(
        &self,
        py: Python<'py>,
        model: u16,
        point: &str,
        value: &str,
    ) -> PyResult<(u16, Bound<'py, PyBytes>)> {
        let number = Decimal::parse(value)
            .ok_or_else(|| PyValueError::new_err(format!("{point}: \"{value}\" is no decimal number")))?;
        let state = self.lock();
        let (address, block) = state.block(model)?;
        let write = block.write_of(point, number).map_err(wrong)?;
        let octets: Vec<u8> = write.registers.iter().flat_map(|register| register.to_be_bytes()).collect();
        Ok((address + write.offset as u16, PyBytes::new(py, &octets)))
    }
}

impl PySunSpecDevice {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn block(&self, model: u16) -> PyResult<(u16, &BlockImage)> {
        let found = self.blocks.iter().find(|(_, block)| block.model().id == model);
        found
            .map(|(address, block)| (*address, block))
            .ok_or_else(|| PyValueError::new_err(format!("the device has no model {model}")))
    }
}

/// See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (pdu, /))]
pub fn modbus_identification(pdu: &[u8]) -> Vec<(u8, String)> {
    match ResponsePdu::decode(pdu) {
        Ok(ResponsePdu::DeviceIdentification(answer)) => objects(answer.objects),
        _ => Vec::new(),
    }
}

fn objects(objects: IdentificationObjects<'_>) -> Vec<(u8, String)> {
    objects.iter().map(|(object, octets)| (object, String::from_utf8_lossy(octets).into_owned())).collect()
}

fn registers(octets: &[u8]) -> Vec<u16> {
    octets.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
}

fn wrong(error: ipss_modbus::sunspec::ValueError) -> PyErr {
    PyValueError::new_err(error.to_string())
}
