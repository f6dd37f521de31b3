//! The extension `ipss_headend._core`: the reactor that owns sockets and steps sessions, column batches, bindings.
//! It decides no protocol.

#[cfg(feature = "python")]
mod bindings;
pub mod control;
pub mod reactor;
pub mod rows;
pub mod rpc;
pub mod sessions;
pub mod simulation;
pub mod virtual_device;
pub mod virtual_meter;
