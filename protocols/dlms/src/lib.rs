//! DLMS/COSEM for the head-end's role and the meter's role, sans IO (see `ipss_session` for the loop that drives it).
//!
//! From the wire inwards: [`link`] frames, [`apdu`] services, [`axdr`] values, [`security`] what protects them;
//! [`cosem`] names objects, attributes and methods, [`push`] what is in notifications. On them stand the two roles:
//! [`head_end`] asks, [`meter`] answers, both under a pinned [`profile`].

#![forbid(unsafe_code)]

pub mod apdu;
pub mod axdr;
pub mod block_transfer;
pub mod cosem;
pub mod head_end;
pub mod link;
pub mod meter;
pub mod profile;
pub mod push;
pub mod quirks;
pub mod security;
pub mod translate;

pub use link::{hdlc, wrapper};
