//! Register maps, and SunSpec devices, on the Python side.

use std::sync::Arc;

use ipss_modbus::Table;
use ipss_modbus::decimal::Decimal;
use ipss_modbus::map::{self, Library, Map};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<super::sunspec::PySunSpecDevice>()?;
    module.add_function(wrap_pyfunction!(super::sunspec::modbus_identification, module)?)?;
    module.add_class::<RegisterMap>()?;
    module.add_function(wrap_pyfunction!(register_maps, module)?)?;
    module.add_function(wrap_pyfunction!(register_map_of, module)?)?;
    module.add_function(wrap_pyfunction!(register_map_signs, module)?)?;
    module.add_function(wrap_pyfunction!(check_maps, module)?)
}

/// See `_core.pyi`.
#[pyclass(module = "ipss_headend._core", frozen)]
pub struct RegisterMap(Arc<Map>);

/// Name, table, address, registers, unit, reading, poll class, the point of its scale factor, power of ten, is a number.
type MapPoint = (String, &'static str, u16, u16, String, Option<String>, &'static str, Option<String>, i8, bool);

/// Table, first address, and the octets of a write: two a register, FF00 or 0000 for a coil.
type ControlWrite = (&'static str, u16, Vec<u8>);

/// Name, table, address, registers, effect of a point.
type Critical = (String, &'static str, u16, u16, &'static str);

#[pymethods]
impl RegisterMap {
    #[new]
    #[pyo3(signature = (name, files=Vec::new()))]
    fn new(name: &str, files: Vec<(String, String)>) -> PyResult<Self> {
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let library = Library::load(&files).map_err(|errors| PyValueError::new_err(errors.to_string()))?;
        let map =
            library.map(name).ok_or_else(|| PyValueError::new_err(format!("no register map is called {name}")))?;
        Ok(Self(map.clone()))
    }

    #[getter]
    fn treatment(&self) -> (u16, u16, u8) {
        (self.0.most, self.0.gap_ms, self.0.in_flight)
    }

    fn points(&self) -> Vec<MapPoint> {
        self.0.points.iter().filter(|point| point.readable).map(described).collect()
    }

    #[pyo3(signature = (act, percent=None))]
    fn control(&self, act: &str, percent: Option<&str>) -> PyResult<Option<ControlWrite>> {
        let unknown = || PyValueError::new_err(format!("'{act}' is none of connect, disconnect, limit, release"));
        let act = map::Act::named(act).ok_or_else(unknown)?;
        let number = |text: &str| {
            Decimal::parse(text).ok_or_else(|| PyValueError::new_err(format!("'{text}' is no decimal number")))
        };
        let percent = percent.map(number).transpose()?;
        let written = self.0.write(act, percent).map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(written.map(|write| {
            let octets = match (write.table, &write.registers[..]) {
                (Table::Coils, [bit]) => vec![if *bit == 0 { 0 } else { 0xFF }, 0],
                (_, registers) => registers.iter().flat_map(|register| register.to_be_bytes()).collect(),
            };
            (table_name(write.table), write.address, octets)
        }))
    }

    fn critical(&self) -> Vec<Critical> {
        let row = |(point, effect): (&map::Point, map::Effect)| {
            let effect = match effect {
                map::Effect::Switch => "switch",
                map::Effect::Limit => "limit",
            };
            (point.name.clone(), table_name(point.table), point.address, point.count, effect)
        };
        self.0.critical().into_iter().map(row).collect()
    }

    #[pyo3(signature = (point, octets, factor=None))]
    fn read(&self, point: &str, octets: &[u8], factor: Option<i64>) -> PyResult<Option<String>> {
        let unknown = || PyValueError::new_err(format!("{}: no point is called {point}", self.0.name));
        let point = self.0.point(point).ok_or_else(unknown)?;
        let registers: Vec<u16> = match point.table {
            Table::Coils | Table::DiscreteInputs => octets.iter().map(|octet| u16::from(*octet)).collect(),
            _ => octets.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect(),
        };
        let reading = point.read(&registers, factor);
        // Scaled by the map alone it would be wrong by powers of ten.
        Ok(match (reading.status, reading.decimal(), reading.value) {
            (map::Status::ScaleUnknown, ..) | (_, None, map::Value::None) => None,
            (_, Some(number), _) => Some(number.to_string()),
            (_, None, map::Value::Text(text)) => Some(text),
            (_, None, map::Value::Bits(bits)) => Some(bits.to_string()),
            (_, None, map::Value::Integer(_)) => None,
        })
    }
}

fn table_name(table: Table) -> &'static str {
    match table {
        Table::Coils => "coils",
        Table::DiscreteInputs => "discrete",
        Table::Holding => "holding",
        Table::Input => "input",
    }
}

fn described(point: &map::Point) -> MapPoint {
    let table = table_name(point.table);
    let poll = match point.poll {
        map::Poll::Fast => "fast",
        map::Poll::Slow => "slow",
        map::Poll::Once => "once",
        map::Poll::Never => "never",
    };
    let is_number = !matches!(point.kind, map::Kind::Text | map::Kind::Bits | map::Kind::Enumeration);
    let (name, unit, reading, from) =
        (point.name.clone(), point.unit.clone(), point.reading.clone(), point.scale_from.clone());
    (name, table, point.address, point.count, unit, reading, poll, from, point.scale, is_number)
}

/// A map's name, manufacturer, title and source, and how many points it has.
type Listed = (String, String, String, String, usize);

/// See `_core.pyi`.
#[pyfunction]
fn register_maps() -> PyResult<Vec<Listed>> {
    let library = Library::builtin().map_err(|errors| PyRuntimeError::new_err(errors.to_string()))?;
    let row = |map: &Arc<Map>| {
        (map.name.clone(), map.manufacturer.clone(), map.title.clone(), map.source.clone(), map.points.len())
    };
    Ok(library.maps().map(row).collect())
}

/// See `_core.pyi`.
#[pyfunction]
fn register_map_of(vendor: &str, product: &str) -> PyResult<Option<String>> {
    let library = Library::builtin().map_err(|errors| PyRuntimeError::new_err(errors.to_string()))?;
    Ok(library.maps().find(|map| map.is_named(vendor, product)).map(|map| map.name.clone()))
}

/// A map's name, and the register that knows its devices: table, address, values.
type Known = (String, &'static str, u16, Vec<u16>);

/// See `_core.pyi`.
#[pyfunction]
fn register_map_signs() -> PyResult<Vec<Known>> {
    let library = Library::builtin().map_err(|errors| PyRuntimeError::new_err(errors.to_string()))?;
    let mut signs = Vec::new();
    for map in library.maps() {
        for known in &map.matches {
            let Some((table, address)) = known.register else { continue };
            let table = if table == Table::Input { "input" } else { "holding" };
            signs.push((map.name.clone(), table, address, known.values.clone()));
        }
    }
    Ok(signs)
}

/// See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (files, /))]
fn check_maps(files: Vec<(String, String)>) -> Vec<String> {
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    match Library::load(&files) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.0.iter().map(ToString::to_string).collect(),
    }
}
