//! The meter's role: what a virtual meter is made of.

pub mod objects;

pub use objects::{Access, Objects};
