//! The module `ipss_headend._core`; `_core.pyi` says what everything means.

mod answering;
mod batch;
mod codec;
mod columns;
mod control;
mod decode;
mod decode_sunspec;
mod devices;
mod endpoint;
mod fleet;
mod link;
mod maps;
mod meter;
mod modbus;
mod plan;
mod profiles;
mod reactor;
mod rpc;
mod simulation;
mod sunspec;

use ipss_session::Outcome;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// The kinds of event by number and name; a test compares them with the enumeration.
const EVENT_KINDS: [(u16, &str); 25] = [
    (1, "connected"),
    (2, "associated"),
    (3, "disconnected"),
    (4, "association-rejected"),
    (5, "authentication-failed"),
    (6, "tag-invalid"),
    (7, "replay-refused"),
    (8, "weaker-security"),
    (9, "system-title-mismatch"),
    (10, "protocol-violation"),
    (11, "unexpected-answer"),
    (12, "counters-low"),
    (13, "counters-exhausted"),
    (14, "counter-behind"),
    (15, "counter-jump"),
    (16, "notified"),
    (17, "claim-refused"),
    (18, "backed-off"),
    (19, "served"),
    (20, "released"),
    (21, "nonce-seen"),
    (22, "traced"),
    (23, "push-unclaimed"),
    (24, "push-heard"),
    (25, "clone-detected"),
];

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    // What is left over between sessions is reported, never a request's end.
    let outcomes = Outcome::ALL.iter().map(|outcome| outcome.name());
    module.add("OUTCOMES", PyTuple::new(py, outcomes)?)?;
    let kinds = PyDict::new(py);
    for (number, name) in EVENT_KINDS {
        kinds.set_item(number, name)?;
    }
    module.add("EVENT_KINDS", kinds)?;
    module.add_class::<batch::PyBatch>()?;
    module.add_class::<columns::Columns>()?;
    module.add_class::<columns::Layouts>()?;
    module.add_class::<devices::VirtualDevices>()?;
    module.add_class::<fleet::VirtualFleet>()?;
    module.add_class::<link::PyLink>()?;
    module.add_class::<meter::PyMeter>()?;
    module.add_class::<meter::PyProfile>()?;
    module.add_class::<modbus::PyModbusItem>()?;
    module.add_class::<modbus::PyModbusPlan>()?;
    module.add_class::<modbus::PyModbusProfile>()?;
    module.add_function(pyo3::wrap_pyfunction!(modbus::modbus_exception, module)?)?;
    module.add_class::<endpoint::PyTls>()?;
    module.add_class::<endpoint::PyTlsServer>()?;
    module.add_class::<plan::PyItem>()?;
    module.add_class::<plan::PyPlan>()?;
    module.add_class::<reactor::PyReactor>()?;
    module.add_class::<rpc::PyScanner>()?;
    module.add_class::<simulation::PySimulation>()?;
    module.add_class::<simulation::PySimulatedReactor>()?;
    codec::add(module)?;
    maps::add(module)?;
    profiles::add(module)?;
    control::add(module)?;
    decode::add(module)
}
