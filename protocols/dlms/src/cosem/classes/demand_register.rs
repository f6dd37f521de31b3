//! Demand register, class 5: averages over periods. Values and scaler_unit as in [`super::register`], capture_time as
//! in [`super::extended_register`].

use ipss_session::ProtocolError;

use super::{mismatch, number};
use crate::axdr::{Data, DateTime};

/// Attribute 7.
///
/// # Errors
/// `type-mismatch`
pub fn start_time_current(data: &Data) -> Result<DateTime, ProtocolError> {
    data.as_date_time().ok_or_else(|| mismatch(data, "start_time_current"))
}

/// Attribute 8, in seconds.
///
/// # Errors
/// `type-mismatch`
pub fn period_s(data: &Data) -> Result<u32, ProtocolError> {
    number(data, "period")
}

/// Attribute 9: the average slides over so many periods; 1 for block demand.
///
/// # Errors
/// `type-mismatch`
pub fn number_of_periods(data: &Data) -> Result<u16, ProtocolError> {
    number(data, "number_of_periods")
}
