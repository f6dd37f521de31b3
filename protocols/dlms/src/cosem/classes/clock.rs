//! Clock, class 8: time, time zone and daylight saving.

use ipss_session::ProtocolError;

use super::{boolean, mismatch, number};
use crate::axdr::{Data, DateTime};

/// Attributes 2, 5 and 6: the time, and the patterns for the beginning and the end of daylight saving.
///
/// # Errors
/// `type-mismatch`
pub fn time(data: &Data) -> Result<DateTime, ProtocolError> {
    data.as_date_time().ok_or_else(|| mismatch(data, "a clock's time"))
}

/// Attribute 3: the deviation of normal time in minutes (local + deviation = UTC).
///
/// # Errors
/// `type-mismatch`
pub fn time_zone_min(data: &Data) -> Result<i16, ProtocolError> {
    number(data, "time_zone")
}

/// Attribute 4: bit 0 invalid value, 1 doubtful value, 2 different clock base, 3 invalid clock status, 7 daylight
/// saving active.
///
/// # Errors
/// `type-mismatch`
pub fn status(data: &Data) -> Result<u8, ProtocolError> {
    number(data, "a clock's status")
}

/// Attribute 7: minutes to add for daylight saving.
///
/// # Errors
/// `type-mismatch`
pub fn daylight_savings_deviation_min(data: &Data) -> Result<i8, ProtocolError> {
    number(data, "daylight_savings_deviation")
}

/// Attribute 8.
///
/// # Errors
/// `type-mismatch`
pub fn daylight_savings_enabled(data: &Data) -> Result<bool, ProtocolError> {
    boolean(data, "daylight_savings_enabled")
}
