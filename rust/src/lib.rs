//! The extension `ipss_headend._core`: the reactor that owns sockets and steps sessions, column batches, bindings.
//! It decides no protocol.

pub mod reactor;
pub mod virtual_meter;
