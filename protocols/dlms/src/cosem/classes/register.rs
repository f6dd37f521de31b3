//! Register, class 3: a value with scaler and unit.

use ipss_session::ProtocolError;

use super::mismatch;
use crate::axdr::Data;
use crate::cosem::units::{ScalerUnit, scaled};

/// An exact physical value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantity {
    /// The integer as the meter sent it.
    pub integer: i128,
    /// What it counts.
    pub scaler_unit: ScalerUnit,
}

impl Quantity {
    /// The value in decimal digits, exactly.
    pub fn text(&self) -> String {
        scaled(self.integer, self.scaler_unit.scaler)
    }
}

/// Attribute 2 with attribute 3.
///
/// # Errors
/// `type-mismatch` if the value is no integer.
pub fn quantity(value: &Data, scaler_unit: ScalerUnit) -> Result<Quantity, ProtocolError> {
    let integer = value.as_integer().ok_or_else(|| mismatch(value, "a register's integer"))?;
    Ok(Quantity { integer, scaler_unit })
}

/// Attribute 3.
///
/// # Errors
/// `type-mismatch`
pub fn scaler_unit(data: &Data) -> Result<ScalerUnit, ProtocolError> {
    ScalerUnit::from_data(data).ok_or_else(|| mismatch(data, "scaler_unit"))
}
