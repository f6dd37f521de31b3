//! The meter's role: what a virtual meter is made of.

mod access;
mod associate;
pub mod concentrator;
pub mod fault;
mod general_block;
pub mod objects;
mod push;
mod session;
mod short_name;
mod transfer;
mod writing;

pub use concentrator::{Concentrator, Routing};
pub use fault::Fault;
pub use objects::{Access, Objects};
pub use session::{Meter, MeterControl, Settings};
