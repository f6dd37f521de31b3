//! The meter's role: what a virtual meter is made of.

pub mod fault;
pub mod objects;
mod session;
mod transfer;

pub use fault::Fault;
pub use objects::{Access, Objects};
pub use session::{Meter, MeterControl, Settings};
