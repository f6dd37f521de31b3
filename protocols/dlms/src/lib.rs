//! DLMS/COSEM for the head-end's role and the meter's role, sans IO (see `ipss_session` for the loop that drives it).
//!
//! From the wire inwards: [`cosem`] names objects, attributes and methods; the rooms beside it fill in as the
//! README's support table says.

#![forbid(unsafe_code)]

pub mod apdu;
pub mod axdr;
pub mod cosem;
pub mod meter;
pub mod security;
pub mod wrapper;
