//! Modbus and SunSpec without sockets, clocks or threads.

#![forbid(unsafe_code)]

pub mod decimal;
pub mod sunspec;
