//! Virtual Modbus devices on the Python side.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ipss_modbus::device::{Device, Settings};
use ipss_modbus::profile::Framing;
use ipss_session::WallTime;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::answering::{Answering, first_address, wall_now};
use super::reactor::os_error;
use crate::reactor::Accepted;
use crate::virtual_device::{Connection, DeviceSpec, Kind, SharedDevice, UNIT};

type DeviceSession = Device<Connection>;

/// See `_core.pyi`.
#[pyclass(module = "ipss_headend._core", frozen)]
pub struct VirtualDevices {
    spec: DeviceSpec,
    answering: Answering<DeviceSession>,
    first_address: Ipv4Addr,
}

#[pymethods]
impl VirtualDevices {
    #[new]
    #[pyo3(signature = (*, inverters=0, storage=0, submeters=0, seed=1, first_address="127.2.0.1", port=5020,
        history_days=90, latitude_deg=50, longitude_deg=0, connections=4))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        inverters: u32,
        storage: u32,
        submeters: u32,
        seed: u64,
        first_address: &str,
        port: u16,
        history_days: u32,
        latitude_deg: i8,
        longitude_deg: i16,
        connections: u32,
    ) -> PyResult<Self> {
        let first_address = self::first_address(first_address)?;
        let wrong = |text: String| Err(PyValueError::new_err(text));
        if !(-90..=90).contains(&latitude_deg) {
            return wrong(format!("latitude_deg: {latitude_deg} is not from -90 to 90"));
        }
        if !(-180..=180).contains(&longitude_deg) {
            return wrong(format!("longitude_deg: {longitude_deg} is not from -180 to 180"));
        }
        if !(1..=MOST_CONNECTIONS).contains(&connections) {
            return wrong(format!("connections: {connections} is not from 1 to {MOST_CONNECTIONS}"));
        }
        let now = wall_now();
        let start = WallTime(now.0 - i64::from(history_days) * 86_400 * WallTime::SECOND);
        let spec = DeviceSpec { seed, inverters, storage, submeters, latitude_deg, longitude_deg, start };
        let count = spec.count();
        if !(1..=MOST).contains(&count) {
            return wrong(format!("{count} devices; 1 to {MOST} fit"));
        }
        let answering = Answering::start(1, port)?;
        let devices: Vec<SharedDevice> =
            (0..count).map(|index| SharedDevice::new(spec.device(index, now), connections)).collect();
        let settings = Arc::new(Settings::new(Framing::Tcp));
        let first = u32::from(first_address);
        // A connection's session lives as long as the connection, and its place at the device with it.
        let accept = move |local: SocketAddr, _| {
            let IpAddr::V4(address) = local.ip() else { return Accepted::Refuse };
            let Some(index) = u32::from(address).checked_sub(first) else { return Accepted::Refuse };
            match devices.get(index as usize).and_then(SharedDevice::connection) {
                Some(connection) => Accepted::Greet(Device::new(index, Arc::clone(&settings), connection)),
                None => Accepted::Refuse,
            }
        };
        let listening = answering.reactor().listen(answering.everywhere(), Arc::new(accept));
        listening
            .map_err(|error| os_error(&format!("virtual devices cannot listen on port {}", answering.port), &error))?;
        answering.discard_rows("device-rows")?;
        Ok(Self { spec, answering, first_address })
    }

    #[getter]
    fn port(&self) -> u16 {
        self.answering.port
    }

    fn devices(&self) -> Vec<(String, &'static str)> {
        let address = |index: u32| Ipv4Addr::from(u32::from(self.first_address).wrapping_add(index));
        let kind = |index| match self.spec.kind(index) {
            Kind::Inverter => "inverter",
            Kind::Storage => "storage",
            Kind::SubMeter => "sub-meter",
        };
        let url = |index| format!("modbus+tcp://{}:{}/{UNIT}", address(index), self.answering.port);
        (0..self.spec.count()).map(|index| (url(index), kind(index))).collect()
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.answering.stats(py)
    }

    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.answering.stop(py)
    }
}

/// Virtual devices of one process.
const MOST: u32 = 100_000;
/// Connections to one device: the gateways with most take so many.
const MOST_CONNECTIONS: u32 = 64;
