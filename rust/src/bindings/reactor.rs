//! The reactor on the Python side.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipss_dlms::head_end::{self as dlms, Bus, Control};
use ipss_session::{Now, Priority, WallTime};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::batch::PyBatch;
use super::control::{self, PyGate, Signed};
use super::endpoint::{PyTlsServer, endpoint};
use super::meter::{Device, PyMeter, not_one_of, seconds};
use super::modbus::PyModbusPlan;
use super::plan::PyPlan;
use crate::control::{Gate, OpenPart, Policy, Pool};
use crate::reactor::{
    Accepted, Config, Handle, MioNetwork, NO_METER, Network, NewMeter, Reactor, Route, Stats, SubmitError,
};
use crate::sessions::{Peer, Work};

/// See `_core.pyi`.
#[pyclass(name = "Reactor", module = "ipss_headend._core", frozen)]
pub struct PyReactor {
    owner: Owner<MioNetwork>,
    reactor: Mutex<Reactor<Peer>>,
    /// The number of the next line that is listened on.
    lines: AtomicU32,
}

#[pymethods]
impl PyReactor {
    #[new]
    #[pyo3(signature = (*, threads=None, batch_rows=1000, batch_delay_s=0.01, batches=64, connects_per_second=500,
        connect_burst=1000, connections=None, queue=16, connect_timeout_s=10.0, associate_timeout_s=60.0,
        identify_timeout_s=30.0, frame_timeout_s=30.0, release_timeout_s=5.0, backoff_base_s=1.0, backoff_cap_s=300.0,
        authentication_pause_s=450.0, breaker=5, gate=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        threads: Option<usize>,
        batch_rows: usize,
        batch_delay_s: f64,
        batches: usize,
        connects_per_second: u32,
        connect_burst: u32,
        connections: Option<usize>,
        queue: usize,
        connect_timeout_s: f64,
        associate_timeout_s: f64,
        identify_timeout_s: f64,
        frame_timeout_s: f64,
        release_timeout_s: f64,
        backoff_base_s: f64,
        backoff_cap_s: f64,
        authentication_pause_s: f64,
        breaker: u32,
        gate: Option<PyRef<'_, PyGate>>,
    ) -> PyResult<Self> {
        let defaults = Config::default();
        let config = Config {
            threads: threads.unwrap_or(defaults.threads),
            batch_rows,
            batch_delay: seconds("batch_delay_s", batch_delay_s)?,
            batches,
            connects_per_second,
            connect_burst,
            connections: connections.unwrap_or(defaults.connections),
            queue,
            connect_timeout: seconds("connect_timeout_s", connect_timeout_s)?,
            associate_timeout: seconds("associate_timeout_s", associate_timeout_s)?,
            identify_timeout: seconds("identify_timeout_s", identify_timeout_s)?,
            frame_timeout: seconds("frame_timeout_s", frame_timeout_s)?,
            release_timeout: seconds("release_timeout_s", release_timeout_s)?,
            backoff_base: seconds("backoff_base_s", backoff_base_s)?,
            backoff_cap: seconds("backoff_cap_s", backoff_cap_s)?,
            authentication_pause: seconds("authentication_pause_s", authentication_pause_s)?,
            breaker,
            ..defaults
        };
        // Without a gate of the owner's, one that is never opened: nothing critical leaves.
        let gate = gate.map_or_else(|| Arc::new(Gate::new(Policy::default())), |gate| gate.gate.clone());
        let reactor = Reactor::start_guarded(config, Some(gate.clone()))?;
        Ok(Self {
            owner: Owner::new(reactor.handle().clone(), gate),
            reactor: Mutex::new(reactor),
            lines: AtomicU32::new(NO_METER - 1),
        })
    }

    fn fileno(&self) -> PyResult<i32> {
        self.owner.fileno()
    }

    fn add(&self, meters: Vec<PyRef<'_, PyMeter>>) -> PyResult<()> {
        self.owner.add(&meters)
    }

    fn remove(&self, meters: Vec<u32>) -> PyResult<()> {
        self.owner.remove(&meters)
    }

    fn grant(&self, grants: Vec<(u32, u32, u32)>) -> PyResult<()> {
        self.owner.grant(grants)
    }

    fn confirm(&self, pushes: Vec<(u32, u32)>) -> PyResult<()> {
        self.owner.confirm(pushes)
    }

    fn hear(&self, pushes: Vec<(u32, i64, Vec<u8>)>) -> PyResult<()> {
        self.owner.hear(pushes)
    }

    #[pyo3(signature = (plan, meters, *, timeout_s, priority="scheduled", attempts=3, from_us=0, to_us=0))]
    #[allow(clippy::too_many_arguments)]
    fn submit(
        &self,
        py: Python<'_>,
        plan: &Bound<'_, PyAny>,
        meters: &Bound<'_, PyAny>,
        timeout_s: f64,
        priority: &str,
        attempts: u8,
        from_us: i64,
        to_us: i64,
    ) -> PyResult<u64> {
        let meters = numbers(py, meters)?;
        self.owner.submit(self.now(), work(plan, from_us, to_us)?, &meters, timeout_s, priority, attempts)
    }

    fn admit(&self, order: &[u8], signatures: Vec<Signed>) -> PyResult<()> {
        self.owner.admit(self.now(), order, signatures)
    }

    #[pyo3(signature = (order, command, timeout_s, made=Vec::new()))]
    fn release(&self, order: [u8; 16], command: [u8; 16], timeout_s: f64, made: Vec<u8>) -> PyResult<u64> {
        self.owner.release(self.now(), order, command, timeout_s, &made)
    }

    fn open_registers(&self, meter: u32, parts: Vec<(u16, u16, u16)>) {
        self.owner.open_registers(meter, parts);
    }

    fn settle(&self, request: u64) -> bool {
        self.owner.gate.settle(request)
    }

    fn believe(&self, wall_us: i64) {
        self.owner.gate.believe(WallTime(wall_us), self.now());
    }

    fn count(&self, ages_s: Vec<f64>, pool: &str) -> PyResult<()> {
        self.owner.count(self.now(), ages_s, pool)
    }

    fn cancel(&self, requests: Vec<(u32, u64)>) -> PyResult<()> {
        self.owner.cancel(&requests)
    }

    #[pyo3(signature = (address, *, transport="tcp", tls=None))]
    fn listen(&self, address: &str, transport: &str, tls: Option<&PyTlsServer>) -> PyResult<String> {
        if transport == "mbus" {
            return self.listen_bus(address);
        }
        let address: SocketAddr = address.parse().map_err(|_| {
            PyValueError::new_err(format!("'{address}' is not a numeric host and a port, as 0.0.0.0:4059"))
        })?;
        let greet = Arc::new(|_, _| Accepted::Greet(Peer::Greeter(Box::default())));
        let bound = match (transport, tls) {
            ("tcp", None) => self.lock().listen(address, greet)?,
            ("udp", None) => self.lock().listen_udp(address, greet)?,
            ("tls", Some(server)) => self.lock().listen_tls(address, server.0.clone(), greet)?,
            ("tls", None) => return Err(PyValueError::new_err("tls needs a certificate: give a TlsServer")),
            ("tcp" | "udp", Some(_)) => return Err(PyValueError::new_err(format!("{transport} takes no TlsServer"))),
            (other, _) => return Err(PyValueError::new_err(format!("'{other}' is not one of tcp, udp, tls, mbus"))),
        };
        Ok(bound.to_string())
    }

    fn take(&self) -> Option<PyBatch> {
        self.owner.take()
    }

    fn finished(&self) -> bool {
        self.owner.handle.finished()
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.owner.stats(py)
    }

    fn drain(&self, timeout_s: f64) -> PyResult<()> {
        self.owner.drain(self.now(), timeout_s)
    }

    fn stop(&self) {
        self.owner.handle.stop();
    }
}

impl PyReactor {
    /// A line is no meter's: its session has a number that counts down from behind theirs.
    fn listen_bus(&self, address: &str) -> PyResult<String> {
        let endpoint = endpoint(address, None).map_err(PyValueError::new_err)?;
        if !endpoint.is_serial() {
            return Err(PyValueError::new_err(format!(
                "'{address}' is no serial line, as serial:///dev/ttyUSB0?baud=2400"
            )));
        }
        let line = self.lines.fetch_sub(1, Ordering::Relaxed);
        let session = Peer::Bus(Box::new(Bus::new(line, address.split('?').next().unwrap_or(address))));
        let new = NewMeter { meter: line, session, route: Route::held(endpoint), identities: Vec::new() };
        self.owner.handle.add(vec![new]).map_err(refused)?;
        Ok(address.to_owned())
    }

    fn now(&self) -> Now {
        self.lock().now()
    }

    fn lock(&self) -> MutexGuard<'_, Reactor<Peer>> {
        self.reactor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the owner of a reactor may do, over whichever network it runs; `now` is the reactor's own clock.
pub struct Owner<N: Network> {
    pub handle: Handle<Peer, N>,
    pub gate: Arc<Gate>,
    next: AtomicU64,
}

impl<N: Network> Owner<N> {
    pub fn new(handle: Handle<Peer, N>, gate: Arc<Gate>) -> Self {
        Self { handle, gate, next: AtomicU64::new(1) }
    }

    pub fn fileno(&self) -> PyResult<i32> {
        self.handle.waker_fd().ok_or_else(|| PyRuntimeError::new_err("this reactor has no descriptor"))
    }

    pub fn add(&self, meters: &[PyRef<'_, PyMeter>]) -> PyResult<()> {
        let devices: Vec<Device> = meters.iter().map(|meter| meter.device().clone()).collect();
        let meters = meters.iter().map(|meter| meter.take()).collect::<PyResult<Vec<_>>>()?;
        meters.iter().zip(&devices).for_each(|(meter, device)| self.gate.know(meter.meter, &device.title, device.unit));
        self.handle.add(meters).map_err(refused)
    }

    pub fn remove(&self, meters: &[u32]) -> PyResult<()> {
        self.handle.remove(meters).map_err(refused)
    }

    pub fn grant(&self, grants: Vec<(u32, u32, u32)>) -> PyResult<()> {
        let grants = grants.into_iter().map(|(meter, next, end)| (meter, Control::Grant { next, end })).collect();
        self.handle.control(grants).map_err(refused)
    }

    pub fn confirm(&self, pushes: Vec<(u32, u32)>) -> PyResult<()> {
        let words = pushes.into_iter().map(|(meter, number)| (meter, Control::Confirm(number))).collect();
        self.handle.control(words).map_err(refused)
    }

    pub fn hear(&self, pushes: Vec<(u32, i64, Vec<u8>)>) -> PyResult<()> {
        let words = pushes.into_iter().map(|(meter, number, wpdu)| (meter, Control::Hear { number, wpdu })).collect();
        self.handle.control(words).map_err(refused)
    }

    pub fn submit(
        &self,
        now: Now,
        work: Work,
        meters: &[u32],
        timeout_s: f64,
        priority: &str,
        attempts: u8,
    ) -> PyResult<u64> {
        let priority = match priority {
            "backfill" => Priority::Backfill,
            "scheduled" => Priority::Scheduled,
            "on-demand" => Priority::OnDemand,
            "critical" => Priority::Critical,
            other => {
                let wanted = "backfill, scheduled, on-demand, critical";
                return Err(PyValueError::new_err(format!("priority: '{other}' is not one of {wanted}")));
            }
        };
        let deadline = now.monotonic + seconds("timeout_s", timeout_s)?;
        let first = self.next.fetch_add(meters.len() as u64, Ordering::Relaxed);
        self.handle.submit(work, meters, first, deadline, priority, attempts).map_err(refused)?;
        Ok(first)
    }

    pub fn admit(&self, now: Now, order: &[u8], signatures: Vec<Signed>) -> PyResult<()> {
        let signatures = control::signatures(signatures)?;
        self.gate.admit(order, &signatures, now).map(drop).map_err(|refusal| control::refused(&refusal))
    }

    pub fn release(&self, now: Now, order: [u8; 16], command: [u8; 16], timeout_s: f64, made: &[u8]) -> PyResult<u64> {
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        let armed = self.gate.arm(order, command, request, made, now).map_err(|refusal| control::refused(&refusal))?;
        let deadline = armed.deadline.min(now.monotonic + seconds("timeout_s", timeout_s)?);
        // One try: what may have left is never sent again.
        let submitted = self.handle.submit(armed.work, &[armed.meter], request, deadline, Priority::Critical, 1);
        submitted.map_err(|error| {
            self.gate.settle(request);
            refused(error)
        })?;
        Ok(request)
    }

    pub fn open_registers(&self, meter: u32, parts: Vec<(u16, u16, u16)>) {
        let parts: Vec<OpenPart> =
            parts.into_iter().map(|(first, last, least)| OpenPart { first, last, least }).collect();
        self.gate.open_registers(meter, &parts);
    }

    pub fn count(&self, now: Now, ages_s: Vec<f64>, pool: &str) -> PyResult<()> {
        let pool = Pool::named(pool).ok_or_else(|| not_one_of("pool", pool, "cut, reconnect, change"))?;
        for age_s in ages_s {
            self.gate.count(pool, seconds("age_s", age_s)?, now);
        }
        Ok(())
    }

    pub fn cancel(&self, requests: &[(u32, u64)]) -> PyResult<()> {
        self.handle.cancel(requests).map_err(refused)
    }

    pub fn take(&self) -> Option<PyBatch> {
        self.handle.take().map(PyBatch)
    }

    pub fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = counts(py, &self.handle.stats())?;
        stats.set_item("batches_waiting", self.handle.depth())?;
        Ok(stats)
    }

    pub fn drain(&self, now: Now, timeout_s: f64) -> PyResult<()> {
        self.handle.drain(now.monotonic + seconds("timeout_s", timeout_s)?);
        Ok(())
    }
}

/// What a plan asks for, of a DLMS meter or of a Modbus unit.
pub fn work(plan: &Bound<'_, PyAny>, from_us: i64, to_us: i64) -> PyResult<Work> {
    Ok(match plan.cast::<PyPlan>() {
        Ok(plan) => {
            let plan = plan.get().0.clone();
            Work::Dlms(dlms::Work { plan, from: WallTime(from_us), to: WallTime(to_us) })
        }
        Err(_) => Work::Modbus(plan.cast::<PyModbusPlan>()?.get().0.clone()),
    })
}

/// Meters as a sequence of numbers, or as octets of unsigned 32-bit ones.
pub fn numbers(py: Python<'_>, meters: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    let Ok(buffer) = PyBuffer::<u8>::get(meters) else {
        return meters.extract();
    };
    let octets = buffer.to_vec(py)?;
    if octets.len() % 4 != 0 {
        return Err(PyValueError::new_err(format!("meters: {} octets are no whole number of u32", octets.len())));
    }
    Ok(octets.chunks_exact(4).map(|octets| u32::from_ne_bytes([octets[0], octets[1], octets[2], octets[3]])).collect())
}

fn refused(error: SubmitError) -> PyErr {
    PyRuntimeError::new_err(error.to_string())
}

/// What a reactor counts, by name.
pub fn counts<'py>(py: Python<'py>, stats: &Stats) -> PyResult<Bound<'py, PyDict>> {
    let counts = PyDict::new(py);
    for (name, count) in [
        ("meters", stats.meters),
        ("connections", stats.connections),
        ("associated", stats.associated),
        ("queued", stats.queued),
        ("active", stats.active),
        ("retries", stats.retries),
        ("connects", stats.connects),
        ("connect_failures", stats.connect_failures),
        ("accepts", stats.accepts),
        ("claims_refused", stats.claims_refused),
        ("challenges", stats.challenges),
        ("clones", stats.clones),
        ("pushes_unclaimed", stats.pushes_unclaimed),
        ("pushes_dropped", stats.pushes_dropped),
        ("admission_delays", stats.admission_delays),
        ("octets_in", stats.octets_in),
        ("octets_out", stats.octets_out),
        ("datagrams_dropped", stats.datagrams_dropped),
        ("turns", stats.turns),
        ("batches", stats.batches),
        ("rows", stats.rows),
        ("stalls", stats.stalls),
        ("panics", stats.panics),
    ] {
        counts.set_item(name, count)?;
    }
    for outcome in ipss_session::Outcome::ALL {
        let name = format!("ended_{}", outcome.name().replace('-', "_"));
        counts.set_item(name, stats.ended[outcome as usize])?;
    }
    Ok(counts)
}

/// An error of the operating system, with what it was about.
pub fn os_error(what: &str, error: &std::io::Error) -> PyErr {
    PyOSError::new_err(format!("{what}: {error}"))
}
