//! SunSpec: models of inverters, storage and meters over Modbus registers (SunSpec Device Information Model
//! Specification 1.1).
//!
//! An image is what was read from a device, or what a virtual one shows. Nothing here reads by itself.
//!
//! ```
//! use ipss_modbus::decimal::Decimal;
//! use ipss_modbus::sunspec::{BlockImage, Chain, Value, device, first_header, model, walk};
//!
//! let mut inverter = BlockImage::new(103, &[])?;
//! inverter.set("W_SF", &Value::Integer(-1))?;
//! inverter.set_number("W", Decimal::new(2_217, 0))?;
//! let image = device(&[inverter]);
//!
//! let (first, _) = first_header(&image, 40_000).expect("SunS");
//! for block in Chain::new(&image, first) {
//!     walk(model(block.id).expect("published"), block.registers(&image), &mut |place| {
//!         if place.name() == "W" {
//!             assert_eq!(place.number(&place.value()).unwrap().to_string(), "2217.0");
//!         }
//!     });
//! }
//! # Ok::<(), ipss_modbus::sunspec::ValueError>(())
//! ```

mod chain;
mod discovery;
mod image;
mod layout;
mod model;
#[cfg(test)]
mod tests;
mod value;

pub use chain::{BASES, Block, Chain, End, MARKER, Oddity, first_header};
pub use discovery::{Discovery, Progress, Read};
pub use image::{BlockImage, Write, device};
pub use layout::{Place, Status, Step, Walked, walk};
pub use model::{Count, Group, Model, Point, PointType, Scale, model, model_ids};
pub use value::{Value, ValueError};
