//! A virtual fleet on the Python side.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipss_dlms::link::{Framing, LinkConfig};
use ipss_dlms::meter::Settings;
use ipss_session::WallTime;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::answering::{Answering, first_address, refused, wall_now};
use super::batch::PyBatch;
use super::endpoint::{PyTlsServer, endpoint};
use super::link::PyLink;
use super::meter::{authentication_named, protection_named, set_quirk, suite_numbered};
use super::reactor::os_error;
use crate::reactor::{Accepted, Acceptor, NewMeter, Route};
use crate::virtual_meter::{Faults, Fleet, FleetSpec, Security, VirtualSession};

/// See `_core.pyi`.
#[pyclass(module = "ipss_headend._core", frozen)]
pub struct VirtualFleet {
    fleet: Arc<Fleet>,
    answering: Answering<VirtualSession>,
    make: Maker,
}

/// What makes the sessions, so that meters can be made again to dial out.
#[derive(Clone)]
struct Maker {
    fleet: Arc<Fleet>,
    /// By service access point; the first is of meters that are alone, or of a concentrator's first.
    settings: Vec<Arc<Settings>>,
    link: LinkConfig,
}

#[pymethods]
impl VirtualFleet {
    #[new]
    #[pyo3(signature = (*, count, seed=1, first_address="127.1.0.1", port=4059, faults="", authentication="hls-gmac",
        suite=0, protection="auth+enc", dedicated=false, max_pdu=1024, capture_period_s=900, history_days=90, log_nonces=false,
        transport="tcp", tls=None, threads=1, link=None, behind=1, quirks=Vec::new()))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        count: u32,
        seed: u64,
        first_address: &str,
        port: u16,
        faults: &str,
        authentication: &str,
        suite: u8,
        protection: &str,
        dedicated: bool,
        max_pdu: u16,
        capture_period_s: u32,
        history_days: u32,
        log_nonces: bool,
        transport: &str,
        tls: Option<&PyTlsServer>,
        threads: usize,
        link: Option<&PyLink>,
        behind: u32,
        quirks: Vec<(String, Bound<'_, PyAny>)>,
    ) -> PyResult<Self> {
        let first_address = self::first_address(first_address)?;
        let security = Security {
            authentication: authentication_named(authentication)?,
            suite: suite_numbered(suite)?,
            protection: protection_named(protection)?,
            dedicated,
            ..Security::default()
        };
        let today = wall_now().0.div_euclid(DAY_US);
        let start = WallTime((today - i64::from(history_days)) * DAY_US);
        let wrong = |error: &dyn std::fmt::Display| PyValueError::new_err(error.to_string());
        let scheme = match (transport, tls) {
            ("tcp", None) => "",
            ("udp", None) => "dlms+udp://",
            ("tls", Some(_)) => "dlms+tls://",
            (other, _) => {
                let wanted = "tcp, udp, or tls with a TlsServer";
                return Err(PyValueError::new_err(format!("transport: '{other}' is not one of {wanted}")));
            }
        };
        // The list of addresses names the port.
        let answering = Answering::start(threads, port)?;
        let port = answering.port;
        let spec = FleetSpec {
            seed,
            count,
            first_address,
            port,
            scheme,
            behind,
            faults: faults.parse::<Faults>().map_err(|error| wrong(&error))?,
            start,
            capture_period_s,
            max_pdu,
            security,
            ..FleetSpec::default()
        };
        let fleet = Fleet::new(spec).map_err(|error| wrong(&error))?;
        let link = link.map(|link| link.0.clone()).unwrap_or_default();
        if behind > 1 && (transport == "udp" || link != LinkConfig::default()) {
            return Err(PyValueError::new_err("behind: concentrators speak the wrapper over TCP or TLS"));
        }
        // One WPDU in each datagram, and copies of it are passed over.
        let link = if transport == "udp" { LinkConfig { framing: Framing::Datagram, ..link } } else { link };
        let settings = (0..behind.min(count)).map(|index| settings(&fleet, index, log_nonces, &quirks));
        let make = Maker { fleet: fleet.clone(), settings: settings.collect::<PyResult<_>>()?, link };
        let meters = make.firsts().map(|index| make.meter(index, Route::inbound())).collect();
        answering.handle.add(meters).map_err(refused)?;
        let known = fleet.clone();
        let accept: Arc<Acceptor<VirtualSession>> = Arc::new(move |local: SocketAddr, _| match local.ip() {
            IpAddr::V4(address) => match known.index_of(address) {
                Some(meter) => Accepted::Meter { meter, newest_wins: true },
                None => Accepted::Refuse,
            },
            IpAddr::V6(_) => Accepted::Refuse,
        });
        let (reactor, everywhere) = (answering.reactor(), answering.everywhere());
        let listening = match (transport, tls) {
            ("udp", _) => make.firsts().try_for_each(|index| {
                // A datagram does not say to which address it was sent: each meter has a socket of its own.
                let address = SocketAddr::from((fleet.address(index), port));
                reactor.listen_udp(address, accept.clone()).map(drop)
            }),
            (_, Some(server)) => reactor.listen_tls(everywhere, server.0.clone(), accept).map(drop),
            _ => reactor.listen(everywhere, accept).map(drop),
        };
        drop(reactor);
        listening.map_err(|error| os_error(&format!("virtual meters cannot listen on port {port}"), &error))?;
        if !log_nonces {
            answering.discard_rows("fleet-rows")?;
        }
        Ok(Self { fleet, answering, make })
    }

    #[getter]
    fn port(&self) -> u16 {
        self.answering.port
    }

    #[pyo3(signature = (*, dials_in=false))]
    fn csv(&self, dials_in: bool) -> String {
        self.fleet.csv(dials_in)
    }

    fn dial(&self, address: &str) -> PyResult<()> {
        let remote = endpoint(address, None).map_err(PyValueError::new_err)?;
        let meters: Vec<u32> = self.make.firsts().collect();
        self.answering.handle.remove(&meters).map_err(refused)?;
        let route = |index| {
            let local = Some(IpAddr::V4(self.fleet.address(index)));
            Route { local, ..Route::held(remote.clone()) }
        };
        let dialling = meters.iter().map(|index| self.make.meter(*index, route(*index))).collect();
        self.answering.handle.add(dialling).map_err(refused)
    }

    fn fileno(&self) -> PyResult<i32> {
        self.answering.handle.waker_fd().ok_or_else(|| PyRuntimeError::new_err("this fleet has no descriptor"))
    }

    fn take(&self) -> Option<PyBatch> {
        self.answering.handle.take().map(PyBatch)
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.answering.stats(py)
    }

    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.answering.stop(py)
    }
}

/// The settings of the meters at one service access point, with what they do in their own way.
fn settings(
    fleet: &Fleet,
    index: u32,
    log_nonces: bool,
    quirks: &[(String, Bound<'_, PyAny>)],
) -> PyResult<Arc<Settings>> {
    let mut settings = (*fleet.settings_at(fleet.server(index), log_nonces)).clone();
    for (name, value) in quirks {
        settings.clients.iter_mut().try_for_each(|profile| set_quirk(profile, name, value))?;
    }
    Ok(Arc::new(settings))
}

impl Maker {
    /// The meters that stand for all at their address.
    fn firsts(&self) -> impl Iterator<Item = u32> + use<> {
        (0..self.fleet.count()).step_by(self.fleet.spec().behind as usize)
    }

    fn meter(&self, index: u32, route: Route) -> NewMeter<VirtualSession> {
        let first = self.fleet.server(0);
        let settings = |server: u16| self.settings[usize::from(server - first)].clone();
        let session = self.fleet.answering(index, settings, &self.link, wall_now());
        NewMeter { meter: index, session, route, identities: vec![] }
    }
}

/// Microseconds of a day.
const DAY_US: i64 = 86_400 * WallTime::SECOND;
