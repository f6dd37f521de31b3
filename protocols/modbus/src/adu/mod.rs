//! Frames: a PDU with its address and what the line needs to carry it.
//!
//! [`tcp`] for streams with the MBAP header, [`udp`] the same a datagram at a time, [`rtu`] for serial lines and for
//! converters that carry their octets over TCP, [`ascii`] for old serial lines.

pub mod ascii;
pub mod rtu;
pub mod tcp;
pub mod udp;

/// Who sent the frame: the length of a PDU depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the head-end to the device.
    Request,
    /// From the device to the head-end.
    Response,
}

impl Direction {
    /// How far the octets of a PDU of this direction tell its length.
    pub fn extent(self, pdu: &[u8], wide_count: bool) -> crate::pdu::Extent {
        match self {
            Self::Request => crate::pdu::request_extent(pdu),
            Self::Response => crate::pdu::response_extent(pdu, wide_count),
        }
    }
}
