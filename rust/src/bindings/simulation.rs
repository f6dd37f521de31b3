//! The simulated world on the Python side, for tests.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipss_session::rig::Line;
use ipss_session::{Instant, Now, WallTime};
use pyo3::exceptions::{PyAssertionError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::batch::PyBatch;
use super::control::{PyGate, Signed, set_simulated_awake};
use super::meter::{PyMeter, seconds};
use super::reactor::{Owner, numbers, work};
use crate::reactor::Config;
use crate::reactor::simulated::{Faults, SimulatedNetwork};
use crate::simulation::{HeadEnd, Simulation, config};
use crate::virtual_meter::{Fleet, FleetSpec};

/// Meter, request or method, wall clock.
type Noted<T> = Vec<(u32, T, i64)>;

/// See `_core.pyi`.
#[pyclass(name = "Simulation", module = "ipss_headend._core", unsendable, frozen)]
pub struct PySimulation {
    simulation: RefCell<Simulation>,
    began: Instant,
}

#[pymethods]
impl PySimulation {
    #[new]
    #[pyo3(signature = (*, seed, wall_us, meters=4, history_s=21_600, capture_period_s=900, max_pdu=400))]
    fn new(
        seed: u64,
        wall_us: i64,
        meters: u32,
        history_s: u32,
        capture_period_s: u32,
        max_pdu: u16,
    ) -> PyResult<Self> {
        let spec = FleetSpec {
            count: meters,
            first_address: Ipv4Addr::new(127, 0, 1, 1),
            start: WallTime(wall_us - i64::from(history_s) * WallTime::SECOND),
            capture_period_s,
            max_pdu,
            drift_ppm: 0,
            ..FleetSpec::default()
        };
        let fleet = Fleet::new(spec).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let simulation = Simulation::new(seed, WallTime(wall_us), &fleet);
        let began = simulation.now().monotonic;
        set_simulated_awake(Duration::ZERO);
        Ok(Self { simulation: RefCell::new(simulation), began })
    }

    fn csv(&self) -> String {
        self.simulation.borrow().fleet().csv(false)
    }

    #[getter]
    fn wall_us(&self) -> i64 {
        self.simulation.borrow().now().wall.0
    }

    #[getter]
    fn trace(&self) -> u64 {
        self.simulation.borrow().trace()
    }

    #[pyo3(signature = (gate, *, batch_rows=1000, batches=64, queue=16, connect_timeout_s=10.0, associate_timeout_s=60.0,
        frame_timeout_s=30.0, backoff_cap_s=300.0, authentication_pause_s=450.0))]
    #[allow(clippy::too_many_arguments)]
    fn start(
        &self,
        gate: &PyGate,
        batch_rows: usize,
        batches: usize,
        queue: usize,
        connect_timeout_s: f64,
        associate_timeout_s: f64,
        frame_timeout_s: f64,
        backoff_cap_s: f64,
        authentication_pause_s: f64,
    ) -> PyResult<PySimulatedReactor> {
        let settings = Config {
            batch_rows,
            batches,
            queue,
            connect_timeout: seconds("connect_timeout_s", connect_timeout_s)?,
            associate_timeout: seconds("associate_timeout_s", associate_timeout_s)?,
            frame_timeout: seconds("frame_timeout_s", frame_timeout_s)?,
            backoff_cap: seconds("backoff_cap_s", backoff_cap_s)?,
            authentication_pause: seconds("authentication_pause_s", authentication_pause_s)?,
            ..config()
        };
        let head_end = self.simulation.borrow_mut().start(settings, gate.gate.clone())?;
        let owner = Owner::new(head_end.borrow().handle().clone(), gate.gate.clone());
        Ok(PySimulatedReactor { head_end, owner })
    }

    fn kill(&self, reset: bool) {
        self.simulation.borrow_mut().kill(reset);
    }

    fn cut(&self, meter: u32, reset: bool, down: bool) {
        self.simulation.borrow().cut(meter, reset, down);
    }

    #[pyo3(signature = (*, delay_ms=0, jitter_ms=0, split=0, reset=0, refused=0, unanswered=0, silence=0, partial_write=0,
        loss=0, duplication=0, reordering=0, corruption=0))]
    #[allow(clippy::too_many_arguments)]
    fn set_faults(
        &self,
        delay_ms: u64,
        jitter_ms: u64,
        split: u32,
        reset: u32,
        refused: u32,
        unanswered: u32,
        silence: u32,
        partial_write: u32,
        loss: u32,
        duplication: u32,
        reordering: u32,
        corruption: u32,
    ) {
        let (delay, jitter) = (Duration::from_millis(delay_ms), Duration::from_millis(jitter_ms));
        let line = Line { delay, jitter, loss, duplication, reordering, split, reset, corruption };
        self.simulation.borrow().set_faults(Faults { line, refused, unanswered, silence, partial_write });
    }

    fn advance(&self, now_us: u64) {
        self.simulation.borrow_mut().advance(self.moment(now_us));
    }

    fn turn(&self, now_us: u64) -> PyResult<Option<u64>> {
        let due = self.simulation.borrow_mut().turn(self.moment(now_us)).map_err(PyAssertionError::new_err)?;
        Ok(due.map(|due| due.since(self.began).as_nanos().div_ceil(1_000) as u64))
    }

    fn seen(&self) -> (Noted<u64>, Noted<i8>, Vec<(u32, u32)>) {
        let seen = self.simulation.borrow_mut().seen();
        let sealed = seen.sealed.into_iter().map(|(meter, request, wall)| (meter, request, wall.0)).collect();
        let switched = seen.switched.into_iter().map(|(meter, method, wall)| (meter, method, wall.0)).collect();
        (sealed, switched, seen.reused)
    }

    fn import_at(&self, meter: u32, wall_us: i64) -> Option<i64> {
        self.simulation.borrow().import_at(meter, WallTime(wall_us))
    }
}

impl PySimulation {
    fn moment(&self, now_us: u64) -> Instant {
        let since = Duration::from_micros(now_us);
        set_simulated_awake(since);
        self.began + since
    }
}

/// See `_core.pyi`.
#[pyclass(name = "SimulatedReactor", module = "ipss_headend._core", unsendable, frozen)]
pub struct PySimulatedReactor {
    head_end: HeadEnd,
    owner: Owner<SimulatedNetwork>,
}

#[pymethods]
impl PySimulatedReactor {
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

impl PySimulatedReactor {
    fn now(&self) -> Now {
        self.head_end.borrow().network().clock()
    }
}
