//! The gate for critical commands on the Python side.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ipss_dlms::security::Key;
use ipss_dlms::security::setup::KeyId;
use ipss_session::{Instant, MeterId, Now, WallTime};
use pyo3::exceptions::{PyPermissionError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::meter::{seconds, suite_numbered};
use crate::control::effect::{change_of_master, transfer};
use crate::control::{Gate, Limits, Order, Policy, Principal, Purpose, Refusal, Signature, approval, order};

/// How often the stop file is looked for: well below the second that R17 allows.
const LOOK: Duration = Duration::from_millis(100);

/// Name, public key, may request, may approve.
type Person = (String, [u8; 32], bool, bool);

/// Purpose, principal, generation, the signature's octets.
pub type Signed = (String, String, u64, Vec<u8>);

/// See `_core.pyi`.
#[pyclass(name = "Gate", module = "ipss_headend._core", frozen)]
pub struct PyGate {
    pub gate: Arc<Gate>,
    stop_file: PathBuf,
}

#[pymethods]
impl PyGate {
    #[new]
    #[pyo3(signature = (*, stop_file, principals, bulk=25))]
    fn new(stop_file: PathBuf, principals: Vec<Person>, bulk: usize) -> PyResult<Self> {
        let gate = Arc::new(Gate::new(policy(principals, bulk)).leased(since_boot));
        let (weak, file) = (Arc::downgrade(&gate), stop_file.clone());
        std::thread::Builder::new().name("stop-switch".into()).spawn(move || watch(&weak, &file))?;
        Ok(Self { gate, stop_file })
    }

    /// No thread and no clock of the machine's: see `_core.pyi`.
    #[staticmethod]
    #[pyo3(signature = (*, stop_file, principals, bulk=25))]
    fn simulated(stop_file: PathBuf, principals: Vec<Person>, bulk: usize) -> Self {
        Self { gate: Arc::new(Gate::new(policy(principals, bulk)).leased(simulated_awake)), stop_file }
    }

    fn look(&self) -> bool {
        let there = !is_absent(&self.stop_file);
        if there {
            self.gate.stop();
        }
        there
    }

    #[pyo3(signature = (per_day, reconnects_per_day, changes_per_day=0))]
    fn limit(&self, per_day: usize, reconnects_per_day: usize, changes_per_day: usize) {
        self.gate.limit(Limits { per_day, reconnects_per_day, changes_per_day });
    }

    fn protect(&self, meters: Vec<(MeterId, Vec<u8>)>) {
        meters.iter().for_each(|(meter, title)| self.gate.protect(*meter, title));
    }

    fn unprotect(&self, meters: Vec<(MeterId, Vec<u8>)>) {
        meters.iter().for_each(|(meter, title)| self.gate.unprotect(*meter, title));
    }

    fn hold(&self, meters: Vec<(MeterId, String)>) {
        meters.iter().for_each(|(meter, why)| self.gate.hold(*meter, why));
    }

    fn clear(&self, meters: Vec<MeterId>) {
        meters.iter().for_each(|meter| self.gate.clear(*meter));
    }

    fn holds(&self, meter: MeterId) -> bool {
        self.gate.holds(meter)
    }

    fn awake_s(&self) -> f64 {
        self.gate.awake().as_secs_f64()
    }

    fn lease(&self, since_s: f64, term_s: f64, wall_us: i64) -> PyResult<()> {
        let (since, term) = (seconds("since_s", since_s)?, seconds("term_s", term_s)?);
        self.gate.lease(since, term, Now { monotonic: Instant::ORIGIN, wall: WallTime(wall_us) });
        Ok(())
    }

    #[getter]
    fn protected(&self) -> usize {
        self.gate.protected()
    }

    fn spend(&self, commands: Vec<[u8; 16]>) {
        self.gate.spend(commands);
    }

    fn stop(&self) {
        self.gate.stop();
    }

    fn resume(&self, generation: u64) -> bool {
        let open = is_absent(&self.stop_file);
        if open {
            self.gate.resume(generation);
        }
        open
    }

    #[getter]
    fn stopped(&self) -> bool {
        self.gate.is_stopped()
    }

    #[getter]
    fn generation(&self) -> u64 {
        self.gate.generation()
    }
}

fn policy(principals: Vec<Person>, bulk: usize) -> Policy {
    let named = |(name, key, may_request, may_approve)| Principal { name, key, may_request, may_approve };
    Policy { principals: principals.into_iter().map(named).collect(), bulk }
}

thread_local! {
    /// The clock that goes on, of the simulation in this thread.
    static SIMULATED_AWAKE: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

fn simulated_awake() -> Duration {
    SIMULATED_AWAKE.get()
}

/// Simulated gates of this thread take this for the time since the machine started.
pub fn set_simulated_awake(since: Duration) {
    SIMULATED_AWAKE.set(since);
}

/// Time since the machine started, asleep or not.
fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Stop as soon as the file is there, or cannot be looked for.
fn watch(gate: &Weak<Gate>, file: &Path) {
    while let Some(gate) = gate.upgrade() {
        if !is_absent(file) {
            gate.stop();
        }
        drop(gate);
        std::thread::sleep(LOOK);
    }
}

fn is_absent(file: &Path) -> bool {
    matches!(file.symlink_metadata(), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
}

/// The signatures as the gate takes them.
pub fn signatures(signed: Vec<Signed>) -> PyResult<Vec<Signature>> {
    signed
        .into_iter()
        .map(|(purpose, principal, generation, octets)| {
            let octets = octets.try_into().map_err(|_| PyValueError::new_err("a signature has 64 octets"))?;
            Ok(Signature { purpose: purpose_named(&purpose)?, principal, generation, octets })
        })
        .collect()
}

/// What critical things may not go is an exception of its own.
pub fn refused(refusal: &Refusal) -> PyErr {
    PyPermissionError::new_err(refusal.to_string())
}

fn purpose_named(name: &str) -> PyResult<Purpose> {
    match name {
        "propose" => Ok(Purpose::Propose),
        "approve" => Ok(Purpose::Approve),
        other => Err(PyValueError::new_err(format!("purpose: '{other}' is not one of propose, approve"))),
    }
}

/// What an order says, for people.
fn shown<'py>(py: Python<'py>, order: &Order) -> PyResult<Bound<'py, PyDict>> {
    let shown = PyDict::new(py);
    shown.set_item("order", order.id)?;
    shown.set_item("kind", order.kind.name())?;
    shown.set_item("expected", &order.expected)?;
    shown.set_item("reason", &order.reason)?;
    shown.set_item("created_us", order.created.0)?;
    shown.set_item("not_after_us", order.not_after.0)?;
    shown.set_item("requester", &order.requester)?;
    shown.set_item("hash", order.hash)?;
    shown.set_item("targets", order.targets.len())?;
    Ok(shown)
}

/// Decode canonical octets; see `_core.pyi`.
#[pyfunction]
fn order_of<'py>(py: Python<'py>, octets: &[u8]) -> PyResult<Bound<'py, PyDict>> {
    let order = Order::decode(octets).map_err(|error| PyValueError::new_err(error.to_string()))?;
    shown(py, &order)
}

/// What is signed; see `_core.pyi`.
#[pyfunction]
fn signed_octets(purpose: &str, generation: u64, principal: &str, octets: &[u8]) -> PyResult<Vec<u8>> {
    Ok(approval::message(purpose_named(purpose)?, generation, principal, &order::digest(octets)))
}

/// The parameters of a key_transfer; see `_core.pyi`.
#[pyfunction]
fn key_transfer(suite: u8, master_key: &[u8], encryption_key: &[u8], authentication_key: &[u8]) -> PyResult<Vec<u8>> {
    let suite = suite_numbered(suite)?;
    let key = |name: &str, octets: &[u8]| {
        Key::for_suite(suite, octets).map_err(|error| PyValueError::new_err(format!("{name}: {}", error.message)))
    };
    let master = key("master_key", master_key)?;
    let (encryption, authentication) =
        (key("encryption_key", encryption_key)?, key("authentication_key", authentication_key)?);
    Ok(transfer(&master, [(KeyId::GlobalUnicast, &encryption), (KeyId::Authentication, &authentication)]))
}

/// The parameters of both transfers of a new master key; see `_core.pyi`.
#[pyfunction]
fn master_key_transfer(suite: u8, master_key: &[u8], new_master_key: &[u8]) -> PyResult<Vec<u8>> {
    let suite = suite_numbered(suite)?;
    let key = |name: &str, octets: &[u8]| {
        Key::for_suite(suite, octets).map_err(|error| PyValueError::new_err(format!("{name}: {}", error.message)))
    };
    Ok(change_of_master(&key("master_key", master_key)?, &key("new_master_key", new_master_key)?))
}

/// Put the functions into the module.
pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyGate>()?;
    module.add_function(wrap_pyfunction!(order_of, module)?)?;
    module.add_function(wrap_pyfunction!(key_transfer, module)?)?;
    module.add_function(wrap_pyfunction!(master_key_transfer, module)?)?;
    module.add_function(wrap_pyfunction!(signed_octets, module)?)
}
