//! Virtual Modbus devices, and register maps, on the Python side.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipss_modbus::Table;
use ipss_modbus::device::{Device, Settings};
use ipss_modbus::map::{self, Library, Map};
use ipss_modbus::profile::Framing;
use ipss_session::WallTime;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::reactor::{counts, os_error};
use crate::reactor::{Accepted, Config, Handle, MioNetwork, NewMeter, Reactor, Route};
use crate::virtual_device::{DeviceSpec, Kind, UNIT, VirtualDevice};

pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<VirtualDevices>()?;
    module.add_class::<super::sunspec::PySunSpecDevice>()?;
    module.add_function(wrap_pyfunction!(super::sunspec::modbus_identification, module)?)?;
    module.add_class::<RegisterMap>()?;
    module.add_function(wrap_pyfunction!(register_maps, module)?)?;
    module.add_function(wrap_pyfunction!(register_map_of, module)?)?;
    module.add_function(wrap_pyfunction!(register_map_signs, module)?)?;
    module.add_function(wrap_pyfunction!(check_maps, module)?)
}

type DeviceSession = Device<VirtualDevice>;

/// See `_core.pyi`.
#[pyclass(module = "ipss_headend._core", frozen)]
pub struct VirtualDevices {
    spec: DeviceSpec,
    handle: Handle<DeviceSession, MioNetwork>,
    reactor: Mutex<Reactor<DeviceSession>>,
    first_address: Ipv4Addr,
    port: u16,
}

#[pymethods]
impl VirtualDevices {
    #[new]
    #[pyo3(signature = (*, inverters=0, storage=0, submeters=0, seed=1, first_address="127.2.0.1", port=5020,
        history_days=90, threads=1))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        inverters: u32,
        storage: u32,
        submeters: u32,
        seed: u64,
        first_address: &str,
        port: u16,
        history_days: u32,
        threads: usize,
    ) -> PyResult<Self> {
        let first_address: Ipv4Addr = first_address
            .parse()
            .map_err(|_| PyValueError::new_err(format!("first_address: '{first_address}' is no IPv4 address")))?;
        let now = WallTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as i64);
        let start = WallTime(now.0 - i64::from(history_days) * 86_400 * WallTime::SECOND);
        let spec = DeviceSpec { seed, inverters, storage, submeters, latitude_deg: 50, start };
        let count = spec.count();
        if !(1..=MOST).contains(&count) {
            return Err(PyValueError::new_err(format!("{count} devices; 1 to {MOST} fit")));
        }
        let listener = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        // Port 0 is for the operating system to choose.
        let port = match port {
            0 => std::net::TcpListener::bind(listener)?.local_addr()?.port(),
            port => port,
        };
        let config = Config {
            threads,
            connects_per_second: 0,
            associate_timeout: Duration::from_secs(3_600),
            ..Config::default()
        };
        let reactor = Reactor::start(config)?;
        let handle = reactor.handle().clone();
        let settings = Arc::new(Settings::new(Framing::Tcp));
        let devices = (0..count).map(|index| NewMeter {
            meter: index,
            route: Route::inbound(),
            session: Device::new(index, Arc::clone(&settings), spec.device(index, now)),
            identities: Vec::new(),
        });
        handle.add(devices.collect()).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        let first = u32::from(first_address);
        let accept = move |local: SocketAddr, _| match local.ip() {
            IpAddr::V4(address) => match u32::from(address).checked_sub(first).filter(|index| *index < count) {
                Some(meter) => Accepted::Meter { meter, newest_wins: true },
                None => Accepted::Refuse,
            },
            IpAddr::V6(_) => Accepted::Refuse,
        };
        reactor
            .listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), Arc::new(accept))
            .map_err(|error| os_error(&format!("virtual devices cannot listen on port {port}"), &error))?;
        // Nobody asks for the devices' rows; left to wait, they would stop the devices.
        let rows = handle.clone();
        let discard = move || {
            while !rows.finished() {
                drop(rows.take_timeout(Duration::from_secs(1)));
            }
        };
        std::thread::Builder::new().name("device-rows".into()).spawn(discard)?;
        Ok(Self { spec, handle, reactor: Mutex::new(reactor), first_address, port })
    }

    #[getter]
    fn port(&self) -> u16 {
        self.port
    }

    fn devices(&self) -> Vec<(String, &'static str)> {
        let address = |index: u32| Ipv4Addr::from(u32::from(self.first_address).wrapping_add(index));
        let kind = |index| match self.spec.kind(index) {
            Kind::Inverter => "inverter",
            Kind::Storage => "storage",
            Kind::SubMeter => "sub-meter",
        };
        let url = |index| format!("modbus+tcp://{}:{}/{UNIT}", address(index), self.port);
        (0..self.spec.count()).map(|index| (url(index), kind(index))).collect()
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        counts(py, &self.handle.stats())
    }

    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.handle.stop();
        py.detach(|| self.lock().join())?;
        Ok(())
    }
}

impl VirtualDevices {
    fn lock(&self) -> MutexGuard<'_, Reactor<DeviceSession>> {
        self.reactor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See `_core.pyi`.
#[pyclass(module = "ipss_headend._core", frozen)]
pub struct RegisterMap(Arc<Map>);

/// Name, table, address, registers, unit, reading, poll class, the point of its scale factor, power of ten, is a number.
type MapPoint = (String, &'static str, u16, u16, String, Option<String>, &'static str, Option<String>, i8, bool);

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

fn described(point: &map::Point) -> MapPoint {
    let table = match point.table {
        Table::Coils => "coils",
        Table::DiscreteInputs => "discrete",
        Table::Holding => "holding",
        Table::Input => "input",
    };
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

/// Virtual devices of one process.
const MOST: u32 = 100_000;
