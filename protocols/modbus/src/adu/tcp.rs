//! The MBAP header (MODBUS Messaging on TCP/IP Implementation Guide V1.0b, clause 3.1.3).
//!
//! Seven octets, big-endian: transaction id, protocol id 0, length of what follows it (unit id and PDU), unit id.

use ipss_session::ProtocolError;

use super::Direction;
use crate::pdu::{Extent, MAX_PDU, malformed};
use crate::quirks::{MbapLength, Quirks};

/// One ADU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adu<'a> {
    /// Tells answers apart: the device gives back that of the request.
    pub transaction: u16,
    /// Which device behind the address.
    pub unit: u8,
    /// What is carried.
    pub pdu: &'a [u8],
    /// Octets of all of it, from the front of the buffer.
    pub length: usize,
}

/// The ADU at the front of `buf`; `Ok(None)` until it has arrived whole.
///
/// A length that no ADU can have is an error as soon as it shows, so that nobody waits for octets that never come.
///
/// # Errors
/// Remote, `modbus`: `bad-protocol-id`, `bad-length`. The stream has no beginning of a frame that could be found
/// again: what follows cannot be trusted.
#[inline]
pub fn next<'a>(buf: &'a [u8], direction: Direction, quirks: &Quirks) -> Result<Option<Adu<'a>>, ProtocolError> {
    if buf.get(2).is_some_and(|octet| *octet != 0) || buf.get(3).is_some_and(|octet| *octet != 0) {
        return Err(bad_protocol(buf));
    }
    let Some(&[t0, t1, _, _, l0, l1]) = buf.first_chunk::<6>() else { return Ok(None) };
    let told = usize::from(u16::from_be_bytes([l0, l1]));
    let length = match quirks.mbap_length {
        MbapLength::Exact | MbapLength::Surplus => told,
        MbapLength::FromPdu => match direction.extent(buf.get(HEADER..).unwrap_or_default(), quirks.wide_byte_count) {
            Extent::Known(length) => length + 1,
            Extent::More => return Ok(None),
            Extent::Open => told,
        },
    };
    if !(2..=MAX_PDU + 1).contains(&length) {
        return Err(bad_length(length));
    }
    let end = HEADER - 1 + length;
    let Some(mut pdu) = buf.get(HEADER..end) else { return Ok(None) };
    if quirks.mbap_length == MbapLength::Surplus {
        if let Extent::Known(length) = direction.extent(pdu, quirks.wide_byte_count) {
            pdu = &pdu[..length.min(pdu.len())];
        }
    }
    Ok(Some(Adu { transaction: u16::from_be_bytes([t0, t1]), unit: buf[6], pdu, length: end }))
}

/// Begin an ADU at the end of `out`, with its length left open. Append the PDU, then [`finish`].
#[inline]
pub fn begin(out: &mut Vec<u8>, transaction: u16, unit: u8) -> usize {
    let mark = out.len();
    let [t0, t1] = transaction.to_be_bytes();
    out.extend_from_slice(&[t0, t1, 0, 0, 0, 0, unit]);
    mark
}

/// Fill in the length of the ADU begun at `mark`. PDUs that can be encoded fit.
#[inline]
pub fn finish(out: &mut [u8], mark: usize) {
    let length = out.len().saturating_sub(mark + HEADER - 1) as u16;
    if let Some(place) = out.get_mut(mark + 4..mark + 6) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

#[cold]
fn bad_protocol(buf: &[u8]) -> ProtocolError {
    let found: String = buf.iter().skip(2).take(2).map(|octet| format!("{octet:02X}")).collect();
    malformed(2, "bad-protocol-id", format!("protocol id {found}; 0000 is Modbus"))
}

#[cold]
fn bad_length(length: usize) -> ProtocolError {
    malformed(4, "bad-length", format!("a length of {length}; 2 to {} are possible", MAX_PDU + 1))
}

/// Octets in front of the PDU.
pub const HEADER: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;

    const OCTETS: [u8; 12] = [0x15, 1, 0, 0, 0, 6, 0xFF, 3, 0, 4, 0, 1];
    const EXACT: Quirks = Quirks {
        mbap_length: MbapLength::Exact,
        transaction_id_not_echoed: false,
        unit_id_not_echoed: false,
        wide_byte_count: false,
        wide_registers: false,
        echo: false,
        unit_zero_broadcasts: false,
    };

    fn response<'a>(octets: &'a [u8], mbap_length: MbapLength) -> Option<Adu<'a>> {
        next(octets, Direction::Response, &Quirks { mbap_length, ..EXACT }).unwrap()
    }

    #[test]
    fn adu_is_whole_or_waited_for() {
        for end in 0..OCTETS.len() {
            assert_eq!(next(&OCTETS[..end], Direction::Request, &EXACT), Ok(None), "{end}");
        }
        let adu = Adu { transaction: 0x1501, unit: 0xFF, pdu: &OCTETS[7..], length: 12 };
        assert_eq!(next(&OCTETS, Direction::Request, &EXACT), Ok(Some(adu)));
    }

    /// Row 59.
    #[test]
    fn several_adus_in_one_segment_come_one_after_the_other() {
        let two = [OCTETS, OCTETS].concat();
        let first = next(&two, Direction::Request, &EXACT).unwrap().unwrap();
        let second = next(&two[first.length..], Direction::Request, &EXACT).unwrap().unwrap();
        assert_eq!(first, second);
    }

    #[test]
    fn written_adu_reads_back() {
        let mut out = vec![7];
        let mark = begin(&mut out, 0x1501, 0xFF);
        out.extend_from_slice(&OCTETS[7..]);
        finish(&mut out, mark);
        assert_eq!(out[1..], OCTETS);
    }

    #[test]
    fn lengths_and_protocols_that_cannot_be_are_errors_as_soon_as_they_show() {
        for (octets, code) in [
            (&[0, 1, 1][..], "bad-protocol-id"),
            (&[0, 1, 0, 9, 0], "bad-protocol-id"),
            (&[0, 1, 0, 0, 0, 1], "bad-length"),
            (&[0, 1, 0, 0, 0, 0], "bad-length"),
            (&[0, 1, 0, 0, 0, 255], "bad-length"),
            (&[0, 1, 0, 0, 1, 0], "bad-length"),
        ] {
            assert_eq!(next(octets, Direction::Response, &EXACT).unwrap_err().code, code, "{octets:?}");
        }
    }

    /// Row 56: 6 instead of 9, 4 instead of 3, one octet fewer sent than told.
    #[test]
    fn row_56_lengths_that_lie_are_taken_from_the_pdu() {
        let registers = [0, 1, 0, 0, 0, 6, 1, 3, 6, 0, 1, 0, 2, 0, 3];
        let adu = response(&registers, MbapLength::FromPdu).unwrap();
        assert_eq!((adu.pdu, adu.length), (&registers[7..], 15));
        let exception = [0, 1, 0, 0, 0, 4, 1, 0x83, 2];
        assert_eq!(response(&exception, MbapLength::FromPdu).unwrap().pdu, [0x83, 2]);
        let written = [0, 1, 0, 0, 0, 7, 1, 16, 0, 1, 0, 2];
        assert_eq!(response(&written, MbapLength::FromPdu).unwrap().pdu, &written[7..]);
        for end in 0..registers.len() {
            assert_eq!(response(&registers[..end], MbapLength::FromPdu), None, "{end}");
        }
    }

    /// Row 56: one octet too many, which is there and counted.
    #[test]
    fn row_56_surplus_octets_are_left_out() {
        let surplus = [0, 1, 0, 0, 0, 6, 1, 3, 2, 0, 7, 0x55];
        let adu = response(&surplus, MbapLength::Surplus).unwrap();
        assert_eq!((adu.pdu, adu.length), (&[3, 2, 0, 7][..], 12));
        assert_eq!(response(&surplus, MbapLength::Exact).unwrap().pdu.len(), 5);
    }
}
