//! The wrapper: how APDUs travel over TCP and UDP (Green Book, "COSEM transport layer wrapper"; IEC 62056-47).
//!
//! Eight octets, big-endian: version 0001, source wrapper port, destination wrapper port, length of the APDU.

use std::ops::Range;

use ipss_session::{Limits, ProtocolError};

/// One wrapper protocol data unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wpdu<'a> {
    /// Who sends: a client's service access point (16 is the public client) or a logical device (1 is the management
    /// logical device).
    pub source: u16,
    /// Who is meant.
    pub destination: u16,
    /// What is carried.
    pub apdu: &'a [u8],
}

/// A wrapper protocol data unit by its place, so that the octets can be deciphered where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WpduPlace {
    /// Who sends.
    pub source: u16,
    /// Who is meant.
    pub destination: u16,
    /// Where the APDU stands in the buffer. Its end is the end of the WPDU.
    pub apdu: Range<usize>,
}

/// One WPDU: the eight-octet header and the APDU it carries.
///
/// Returns `Ok(None)` until the whole APDU has arrived. A declared length above `limits.apdu` is an error at once,
/// so a hostile peer cannot make us wait or allocate for it. The WPDU takes [`HEADER`] octets and its APDU's.
///
/// # Errors
/// Remote: `bad-version`, `length-over-limit`.
pub fn next_wpdu<'a>(buf: &'a [u8], limits: &Limits) -> Result<Option<Wpdu<'a>>, ProtocolError> {
    let place = next_wpdu_place(buf, limits)?;
    Ok(place.map(|WpduPlace { source, destination, apdu }| Wpdu { source, destination, apdu: &buf[apdu] }))
}

/// As [`next_wpdu`], by place.
///
/// # Errors
/// Remote: `bad-version`, `length-over-limit`.
#[inline]
pub fn next_wpdu_place(buf: &[u8], limits: &Limits) -> Result<Option<WpduPlace>, ProtocolError> {
    if buf.iter().zip(VERSION).any(|(octet, version)| *octet != version) {
        return Err(bad_version(buf));
    }
    let Some(&[_, _, s0, s1, d0, d1, l0, l1]) = buf.first_chunk::<HEADER>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    if length > limits.apdu {
        let message = format!("an APDU of {length} octets; at most {} are accepted", limits.apdu);
        return Err(ProtocolError::remote("wrapper", 6, "length-over-limit", message));
    }
    let apdu = HEADER..HEADER + length;
    if buf.len() < apdu.end {
        return Ok(None);
    }
    let (source, destination) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
    Ok(Some(WpduPlace { source, destination, apdu }))
}

/// Begin a WPDU at the end of `out`: the header with its length left open. Append the APDU, then [`finish`].
#[inline]
pub fn begin(out: &mut Vec<u8>, source: u16, destination: u16) -> usize {
    let mark = out.len();
    let ([s0, s1], [d0, d1]) = (source.to_be_bytes(), destination.to_be_bytes());
    out.extend_from_slice(&[VERSION[0], VERSION[1], s0, s1, d0, d1, 0, 0]);
    mark
}

/// Fill in the length of the WPDU begun at `mark`.
///
/// # Errors
/// Local: `length-over-limit` if the APDU has more than 65,535 octets; the WPDU is taken out of `out` again.
#[inline]
pub fn finish(out: &mut Vec<u8>, mark: usize) -> Result<(), ProtocolError> {
    let length = out.len().saturating_sub(mark + HEADER);
    let Ok(length) = u16::try_from(length) else {
        out.truncate(mark);
        let message = format!("an APDU of {length} octets does not fit the wrapper's length of 16 bits");
        return Err(ProtocolError::local("wrapper", "length-over-limit", message));
    };
    if let Some(place) = out.get_mut(mark + 6..mark + HEADER) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

#[cold]
fn bad_version(buf: &[u8]) -> ProtocolError {
    let found =
        buf.get(..2).map_or_else(|| format!("{:02X}", buf[0]), |octets| format!("{:02X}{:02X}", octets[0], octets[1]));
    ProtocolError::remote("wrapper", 0, "bad-version", format!("wrapper version {found}; 0001 is the only one"))
}

/// Octets in front of the APDU.
pub const HEADER: usize = 8;
const VERSION: [u8; 2] = [0, 1];

#[cfg(test)]
mod tests {
    use super::*;

    const OCTETS: [u8; 11] = [0, 1, 0, 16, 0, 1, 0, 3, 0xC0, 0x02, 0xC1];

    #[test]
    fn wpdu_is_whole_or_waited_for() {
        let limits = Limits::default();
        for end in 0..OCTETS.len() {
            assert_eq!(next_wpdu(&OCTETS[..end], &limits), Ok(None));
        }
        let wpdu = Wpdu { source: 16, destination: 1, apdu: &OCTETS[8..] };
        assert_eq!(next_wpdu(&OCTETS, &limits), Ok(Some(wpdu)));
        let two = [OCTETS, OCTETS].concat();
        assert_eq!(next_wpdu(&two, &limits), Ok(Some(wpdu)));
    }

    #[test]
    fn written_wpdu_reads_back() {
        let mut out = vec![7];
        let mark = begin(&mut out, 16, 1);
        out.extend_from_slice(&OCTETS[8..]);
        finish(&mut out, mark).unwrap();

        assert_eq!(out[1..], OCTETS);
    }

    #[test]
    fn another_version_is_refused_at_the_first_octet_that_shows_it() {
        for octets in [&[2][..], &[0, 0], &[0, 0, 0, 0, 0, 0, 0, 0], &[0x7E, 0xA0]] {
            assert_eq!(next_wpdu(octets, &Limits::default()).unwrap_err().code, "bad-version");
        }
    }

    #[test]
    fn oversized_length_is_refused_before_its_octets_arrive() {
        let limits = Limits { apdu: 2, ..Limits::default() };

        assert_eq!(next_wpdu(&OCTETS[..8], &limits).unwrap_err().code, "length-over-limit");
    }

    #[test]
    fn apdu_too_long_for_the_header_is_our_own_fault() {
        let mut out = Vec::new();
        let mark = begin(&mut out, 1, 1);
        out.resize(HEADER + 65_536, 0);

        assert_eq!(finish(&mut out, mark).unwrap_err().fault, ipss_session::Fault::Local);
        assert!(out.is_empty());
    }
}
