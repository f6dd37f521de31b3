//! How long a PDU is, from its first octets: what serial framing and the repair of wrong length fields need.

use super::{MAX_PDU, u16_at};
use crate::function::*;

/// The length of a PDU, function code included, as far as its octets tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// So many octets; may be more than [`MAX_PDU`], which no legal PDU is.
    Known(usize),
    /// More octets are needed to tell.
    More,
    /// The octets do not tell: a private function, or one without a length of its own.
    Open,
}

fn behind(pdu: &[u8], at: usize) -> Extent {
    pdu.get(at).map_or(Extent::More, |length| Extent::Known(at + 1 + usize::from(*length)))
}

/// The length of the request that begins so.
pub fn request_extent(pdu: &[u8]) -> Extent {
    let Some(function) = pdu.first() else { return Extent::More };
    match *function {
        READ_COILS..=WRITE_SINGLE_REGISTER => Extent::Known(5),
        READ_EXCEPTION_STATUS | GET_COMM_EVENT_COUNTER | GET_COMM_EVENT_LOG | REPORT_SERVER_ID => Extent::Known(1),
        DIAGNOSTICS => diagnostics(pdu),
        WRITE_MULTIPLE_COILS | WRITE_MULTIPLE_REGISTERS => behind(pdu, 5),
        READ_FILE_RECORD | WRITE_FILE_RECORD => behind(pdu, 1),
        MASK_WRITE_REGISTER => Extent::Known(7),
        READ_WRITE_MULTIPLE_REGISTERS => behind(pdu, 9),
        READ_FIFO_QUEUE => Extent::Known(3),
        ENCAPSULATED_INTERFACE => match pdu.get(1) {
            None => Extent::More,
            Some(&MEI_DEVICE_IDENTIFICATION) => Extent::Known(4),
            Some(_) => Extent::Open,
        },
        _ => Extent::Open,
    }
}

/// The length of the response that begins so. `wide_count`: the device's byte counts have 16 bits (quirk 62).
pub fn response_extent(pdu: &[u8], wide_count: bool) -> Extent {
    let Some(function) = pdu.first() else { return Extent::More };
    match *function {
        EXCEPTION.. => Extent::Known(2),
        READ_COILS..=READ_INPUT_REGISTERS | READ_WRITE_MULTIPLE_REGISTERS if wide_count => match u16_at(pdu, 1) {
            Some(count) => Extent::Known(3 + usize::from(count)),
            None => Extent::More,
        },
        READ_COILS..=READ_INPUT_REGISTERS
        | GET_COMM_EVENT_LOG
        | REPORT_SERVER_ID
        | READ_FILE_RECORD
        | WRITE_FILE_RECORD
        | READ_WRITE_MULTIPLE_REGISTERS => behind(pdu, 1),
        WRITE_SINGLE_COIL
        | WRITE_SINGLE_REGISTER
        | GET_COMM_EVENT_COUNTER
        | WRITE_MULTIPLE_COILS
        | WRITE_MULTIPLE_REGISTERS => Extent::Known(5),
        READ_EXCEPTION_STATUS => Extent::Known(2),
        DIAGNOSTICS => diagnostics(pdu),
        MASK_WRITE_REGISTER => Extent::Known(7),
        READ_FIFO_QUEUE => match u16_at(pdu, 1) {
            Some(count) => Extent::Known(3 + usize::from(count)),
            None => Extent::More,
        },
        ENCAPSULATED_INTERFACE => match pdu.get(1) {
            None => Extent::More,
            Some(&MEI_DEVICE_IDENTIFICATION) => identification(pdu),
            Some(_) => Extent::Open,
        },
        _ => Extent::Open,
    }
}

/// All sub-functions have two octets of data but the first, which returns whatever it is given.
fn diagnostics(pdu: &[u8]) -> Extent {
    match u16_at(pdu, 1) {
        None => Extent::More,
        Some(0) => Extent::Open,
        Some(_) => Extent::Known(5),
    }
}

fn identification(pdu: &[u8]) -> Extent {
    let Some(objects) = pdu.get(6) else { return Extent::More };
    let mut at = 7;
    for _ in 0..*objects {
        let Some(length) = pdu.get(at + 1) else { return Extent::More };
        at += 2 + usize::from(*length);
        if at > MAX_PDU {
            break;
        }
    }
    Extent::Known(at)
}
