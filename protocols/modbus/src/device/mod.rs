//! The device's role: answer what is asked of the units behind one connection.

mod answer;
mod fault;
mod model;
mod session;

pub use fault::Fault;
pub use model::{Access, Memory, Model, Role};
pub use session::{Device, DeviceControl, Settings};
