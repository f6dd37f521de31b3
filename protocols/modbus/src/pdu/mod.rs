//! Requests and responses: function code and data (Modbus Application Protocol V1.1b3, clause 6).
//!
//! Decoding borrows, encoding appends. What decodes is legal by the specification's own tables of quantities and
//! lengths; whatever else arrives is a `Remote` error that says what was found.

mod extent;
mod file;
mod identification;
mod request;
mod response;
mod values;

pub use extent::{Extent, request_extent, response_extent};
pub use file::{FileRead, FileReads, FileRecord, FileRecords, FileWrite, FileWrites};
pub use identification::{Identification, IdentificationObjects};
pub use request::RequestPdu;
pub use response::ResponsePdu;
pub use values::{Bits, Registers};

use crate::function;

/// Octets of the largest PDU: 256 of a serial line's ADU less unit and check (clause 4.1).
pub const MAX_PDU: usize = 253;
/// Registers of one read (clause 6.3).
pub const MAX_READ_REGISTERS: u16 = 125;
/// Coils or inputs of one read (clause 6.1).
pub const MAX_READ_BITS: u16 = 2000;
/// Registers of one write (clause 6.12).
pub const MAX_WRITE_REGISTERS: u16 = 123;
/// Coils of one write (clause 6.11).
pub const MAX_WRITE_BITS: u16 = 1968;
/// Registers written in one read and write (clause 6.17).
pub const MAX_READ_WRITE_REGISTERS: u16 = 121;

/// The four primary tables (clause 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Single bits, read and written.
    Coils = 1,
    /// Single bits, read.
    DiscreteInputs = 2,
    /// 16-bit registers, read and written.
    Holding = 3,
    /// 16-bit registers, read.
    Input = 4,
}

impl Table {
    /// All, in the order of their function codes.
    pub const ALL: [Self; 4] = [Self::Coils, Self::DiscreteInputs, Self::Holding, Self::Input];

    /// The function that reads it.
    pub fn function(self) -> u8 {
        self as u8
    }

    /// The table that the function reads.
    pub fn of_function(code: u8) -> Option<Self> {
        Some(match code {
            function::READ_COILS => Self::Coils,
            function::READ_DISCRETE_INPUTS => Self::DiscreteInputs,
            function::READ_HOLDING_REGISTERS => Self::Holding,
            function::READ_INPUT_REGISTERS => Self::Input,
            _ => return None,
        })
    }

    /// Whether it holds single bits.
    pub fn is_bits(self) -> bool {
        matches!(self, Self::Coils | Self::DiscreteInputs)
    }

    /// The most that one request may read of it.
    pub fn max_read(self) -> u16 {
        if self.is_bits() { MAX_READ_BITS } else { MAX_READ_REGISTERS }
    }

    /// Octets that `quantity` coils or registers take in a PDU.
    pub fn octets(self, quantity: u16) -> usize {
        if self.is_bits() { usize::from(quantity).div_ceil(8) } else { usize::from(quantity) * 2 }
    }

    /// The name in lower case with hyphens.
    pub fn name(self) -> &'static str {
        match self {
            Self::Coils => "coils",
            Self::DiscreteInputs => "discrete-inputs",
            Self::Holding => "holding",
            Self::Input => "input",
        }
    }
}

/// A PDU that breaks the specification.
pub(crate) fn malformed(offset: usize, code: &'static str, message: impl Into<String>) -> ipss_session::ProtocolError {
    ipss_session::ProtocolError::remote("modbus", offset, code, message)
}

/// A field of two octets.
pub(crate) fn u16_at(pdu: &[u8], at: usize) -> Option<u16> {
    let octets = pdu.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes([octets[0], octets[1]]))
}

#[cfg(test)]
mod tests;
