//! Extended register, class 4: a register with status and capture time. Value and scaler_unit as in
//! [`super::register`].

use ipss_session::ProtocolError;

use super::mismatch;
use crate::axdr::{Data, DateTime};

/// Attribute 5; its parts may be unspecified.
///
/// # Errors
/// `type-mismatch`
pub fn capture_time(data: &Data) -> Result<DateTime, ProtocolError> {
    data.as_date_time().ok_or_else(|| mismatch(data, "capture_time"))
}
