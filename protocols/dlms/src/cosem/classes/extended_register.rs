//! Extended register, class 4: a register with status and capture time. Value and scaler_unit as in
//! [`super::register`].

use ipss_session::ProtocolError;

use super::{InterfaceClass, mismatch};
use crate::axdr::{Data, DateTime};

/// The class.
pub const CLASS: InterfaceClass = InterfaceClass {
    id: 4,
    name: "Extended register",
    versions: &[0],
    attributes: &["logical_name", "value", "scaler_unit", "status", "capture_time"],
    methods: &["reset"],
};

/// Attribute 5; its parts may be unspecified.
///
/// # Errors
/// `type-mismatch`
pub fn capture_time(data: &Data) -> Result<DateTime, ProtocolError> {
    data.as_date_time().ok_or_else(|| mismatch(data, "capture_time"))
}
