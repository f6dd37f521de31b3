//! xDLMS and ACSE APDUs (Green Book, "Abstract syntax of COSEM PDUs"): one file a service, decoding borrows,
//! encoding appends.
//!
//! Where data is the last component of an APDU, a decoder hands out what is left and leaves it to whoever decodes the
//! data to find it whole: a profile's buffer is walked once, not twice.

pub mod access;
pub mod acse;
pub mod action;
pub mod ber;
pub mod ciphered;
pub mod exception;
pub mod general;
pub mod general_block;
pub mod get;
pub mod initiate;
pub mod invoke;
pub mod list;
pub mod notification;
pub mod selection;
pub mod set;
pub mod short_name;
pub mod tags;

pub use access::LongInvokeId;
pub use general_block::GeneralBlock;
pub use invoke::InvokeIdAndPriority;
pub use list::{DataBlock, DataOrResult};
pub use selection::{SelectionOptions, SelectiveAccess};
