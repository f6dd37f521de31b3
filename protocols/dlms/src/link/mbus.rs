//! DLMS over M-Bus: long frames of the wired bus (EN 13757-2, -1) that carry an APDU in segments, and the header of
//! wireless telegrams (EN 13757-4, -3).
//!
//! Wired: 68 L L 68, control, address, control information (CI), two service access points, data, checksum, 16. CI 00
//! to 1F is DLMS: the low four bits count the segments, bit 4 marks the last one.

use ipss_session::{Limits, ProtocolError};

use crate::security::SystemTitle;

/// One long frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongFrame<'a> {
    /// Octets from the control field to the last one in front of the checksum, as they are, not as L says.
    pub length: usize,
    /// The length field was too small by 256: it wrapped (Sagemcom T210-D).
    pub wrapped: bool,
    /// Control field.
    pub control: u8,
    /// Address field: FF is a broadcast.
    pub address: u8,
    /// Control information: what follows.
    pub control_information: u8,
    /// Who sends: the meter's logical device.
    pub source: u8,
    /// Who is meant: the client.
    pub destination: u8,
    /// The segment's octets.
    pub data: &'a [u8],
}

impl LongFrame<'_> {
    /// Whether it carries DLMS.
    pub fn is_dlms(&self) -> bool {
        self.control_information < 0x20
    }

    /// The segment's number, 0 to 15.
    pub fn number(&self) -> u8 {
        self.control_information & 0x0F
    }

    /// Whether nothing follows.
    pub fn is_last(&self) -> bool {
        self.control_information & 0x10 != 0
    }
}

/// What stands at the front of a bus' octets, and how many of them it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A long frame.
    Long(LongFrame<'a>),
    /// A short frame or a single character: the bus' own, nothing of DLMS.
    Short,
}

/// What stands at the front of `octets`; `Ok(None)` until it is whole.
///
/// # Errors
/// Remote: `bad-start`, `bad-length`, `bad-checksum`, `missing-stop`.
pub fn next_frame(octets: &[u8]) -> Result<Option<(Found<'_>, usize)>, ProtocolError> {
    match octets {
        [] | [LONG] | [LONG, _] | [LONG, _, _] => Ok(None),
        [ACKNOWLEDGE, ..] => Ok(Some((Found::Short, 1))),
        [SHORT, ..] if octets.len() < 5 => Ok(None),
        [SHORT, control, address, check, STOP, ..] if control.wrapping_add(*address) == *check => {
            Ok(Some((Found::Short, 5)))
        }
        [LONG, first, second, LONG, ..] if first == second => long_frame(octets, usize::from(*first)),
        [LONG, first, second, third, ..] => {
            let message = format!("68 {first:02X} {second:02X} {third:02X} is not the start of a long frame");
            Err(error(1, "bad-length", message))
        }
        [other, ..] => Err(error(0, "bad-start", format!("{other:02X} where a frame starts; 68, 10 or E5 do"))),
    }
}

fn long_frame(octets: &[u8], length: usize) -> Result<Option<(Found<'_>, usize)>, ProtocolError> {
    // Too short for its own fields: the eight bits of the length have wrapped.
    let mut first = Ok(None);
    if length >= FIELDS {
        first = with_length(octets, length);
        if matches!(first, Ok(Some(_)) | Ok(None)) {
            return first;
        }
    }
    match (with_length(octets, length + 256), first) {
        (Ok(Some((Found::Long(frame), taken))), _) => {
            Ok(Some((Found::Long(LongFrame { wrapped: true, ..frame }), taken)))
        }
        (_, Err(error)) => Err(error),
        (other, _) => other,
    }
}

fn with_length(octets: &[u8], length: usize) -> Result<Option<(Found<'_>, usize)>, ProtocolError> {
    let Some(&[.., check, stop]) = octets.get(..4 + length + 2) else { return Ok(None) };
    let body = &octets[4..4 + length];
    let wanted = body.iter().fold(0u8, |sum, octet| sum.wrapping_add(*octet));
    if stop != STOP {
        return Err(error(4 + length + 1, "missing-stop", format!("{stop:02X} where the frame's end 16 is expected")));
    }
    if check != wanted {
        return Err(error(4 + length, "bad-checksum", format!("checksum {check:02X}, {wanted:02X} expected")));
    }
    let &[control, address, control_information, ref rest @ ..] = body else {
        return Err(error(1, "bad-length", "a long frame has control, address and control information"));
    };
    let (source, destination, data) = match rest {
        [source, destination, data @ ..] if control_information < 0x20 => (*source, *destination, data),
        data => (0, 0, data),
    };
    let frame = LongFrame { length, wrapped: false, control, address, control_information, source, destination, data };
    Ok(Some((Found::Long(frame), 4 + length + 2)))
}

/// Puts segments together.
#[derive(Debug, Default)]
pub struct Segments {
    octets: Vec<u8>,
    next: u8,
}

impl Segments {
    /// Take one frame's segment; the APDU when it was the last one. A segment out of order voids what came before:
    /// nobody repeats it.
    ///
    /// # Errors
    /// Remote: `lost-segment`, `length-over-limit`.
    pub fn take(&mut self, frame: &LongFrame<'_>, limits: &Limits) -> Result<Option<Vec<u8>>, ProtocolError> {
        let expected = std::mem::take(&mut self.next);
        if frame.number() == 0 {
            self.octets.clear();
        } else if frame.number() != expected {
            self.octets = Vec::new();
            let message = format!("segment {}, expected {expected}", frame.number());
            return Err(error(6, "lost-segment", message));
        }
        if self.octets.len() + frame.data.len() > limits.apdu {
            self.octets = Vec::new();
            return Err(error(1, "length-over-limit", format!("segments of more than {} octets", limits.apdu)));
        }
        self.octets.extend_from_slice(frame.data);
        if frame.is_last() {
            return Ok(Some(std::mem::take(&mut self.octets)));
        }
        self.next = (frame.number() + 1) & 0x0F;
        if self.next == 0 {
            self.octets = Vec::new();
            return Err(error(6, "lost-segment", "sixteen segments, and none of them is the last"));
        }
        Ok(None)
    }

    /// Whether an APDU goes on.
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }
}

/// Append an APDU as long frames, sixteen at most.
///
/// # Errors
/// Local: `length-over-limit` for an APDU that needs more; nothing is appended.
pub fn encode(out: &mut Vec<u8>, source: u8, destination: u8, apdu: &[u8]) -> Result<(), ProtocolError> {
    let count = apdu.len().div_ceil(LARGEST_SEGMENT).max(1);
    if count > SEGMENTS {
        let message = format!("{} octets need {count} segments; {SEGMENTS} can be numbered", apdu.len());
        return Err(ProtocolError::local("mbus", "length-over-limit", message));
    }
    for number in 0..count {
        let start = number * LARGEST_SEGMENT;
        let data = &apdu[start..apdu.len().min(start + LARGEST_SEGMENT)];
        let length = (FIELDS + 2 + data.len()) as u8;
        let last = if number + 1 == count { 0x10 } else { 0 };
        out.extend_from_slice(&[LONG, length, length, LONG]);
        let body = out.len();
        out.extend_from_slice(&[0x53, 0xFF, number as u8 & 0x0F | last, source, destination]);
        out.extend_from_slice(data);
        let check = out[body..].iter().fold(0u8, |sum, octet| sum.wrapping_add(*octet));
        out.extend_from_slice(&[check, STOP]);
    }
    Ok(())
}

/// The header of a wireless telegram, its check sequences taken out already, and the APDU behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Telegram<'a> {
    /// Octets behind the length field, by that field.
    pub length: usize,
    /// Control field: 44 is a telegram that wants no answer.
    pub control: u8,
    /// Manufacturer, identification, version and type of the meter, as they are on the air: what stands for an empty
    /// system title.
    pub meter: [u8; 8],
    /// Control information of the layer that carries DLMS.
    pub control_information: u8,
    /// The APDU, or a segment of one.
    pub apdu: &'a [u8],
}

impl Telegram<'_> {
    /// The three letters of the manufacturer (EN 62056-21: five bits each).
    pub fn manufacturer(&self) -> String {
        let code = u16::from_le_bytes([self.meter[0], self.meter[1]]);
        [10, 5, 0].map(|shift| char::from((code >> shift & 0x1F) as u8 + 64)).iter().collect()
    }

    /// The eight digits that are printed on the meter.
    pub fn identification(&self) -> String {
        let [_, _, a, b, c, d, ..] = self.meter;
        [d, c, b, a].map(|octet| format!("{octet:02X}")).concat()
    }

    /// The system title of a meter that sends an empty one.
    pub fn system_title(&self) -> SystemTitle {
        SystemTitle(self.meter)
    }
}

/// The wireless telegram at the front of `octets`, and how many of them it takes; `Ok(None)` until it is whole.
///
/// # Errors
/// Remote: `bad-length`, `no-dlms` when something else than DLMS is carried.
pub fn telegram(octets: &[u8]) -> Result<Option<(Telegram<'_>, usize)>, ProtocolError> {
    let wireless = |offset, code, message: String| ProtocolError::remote("wmbus", offset, code, message);
    let Some(&length) = octets.first() else { return Ok(None) };
    let length = usize::from(length);
    if length < 10 {
        return Err(wireless(0, "bad-length", format!("a telegram of {length} octets; its header alone has 10")));
    }
    let Some(body) = octets.get(1..=length) else { return Ok(None) };
    let mut meter: [u8; 8] = body[1..9].try_into().unwrap_or_default();
    let mut rest = &body[9..];
    // The extended link layer in front: its own control information, then access and communication control.
    match rest {
        [0x8C, _, _, more @ ..] | [0x8D, _, _, _, _, _, _, _, _, more @ ..] => rest = more,
        _ => {}
    }
    let at = 1 + length - rest.len();
    let Some((&control_information, behind)) = rest.split_first() else {
        return Err(wireless(at, "bad-length", "the telegram ends in front of its control information".into()));
    };
    let apdu = match (control_information, behind) {
        // COSEM behind a long header: identification, manufacturer, version, type; access, status, configuration.
        (0x60 | 0x7C, [i0, i1, i2, i3, m0, m1, version, kind, _, _, _, _, apdu @ ..]) => {
            meter = [*m0, *m1, *i0, *i1, *i2, *i3, *version, *kind];
            apdu
        }
        // Behind a short header: access, status, configuration.
        (0x61 | 0x7D, [_, _, _, _, apdu @ ..]) => apdu,
        // As over wire: two service access points, unless the APDU begins at once.
        (0x00..=0x1F, [first, _, third, ..])
            if crate::apdu::tags::name(*first).is_none() && crate::apdu::tags::name(*third).is_some() =>
        {
            &behind[2..]
        }
        (0x00..=0x1F, apdu) => apdu,
        (other, _) => {
            return Err(wireless(
                at,
                "no-dlms",
                format!("control information {other:02X} is not DLMS (00 to 1F, 7C, 7D)"),
            ));
        }
    };
    let found = Telegram { length, control: body[0], meter, control_information, apdu };
    Ok(Some((found, 1 + length)))
}

#[cold]
fn error(offset: usize, code: &'static str, message: impl Into<String>) -> ProtocolError {
    ProtocolError::remote("mbus", offset, code, message)
}

const LONG: u8 = 0x68;
const SHORT: u8 = 0x10;
const ACKNOWLEDGE: u8 = 0xE5;
const STOP: u8 = 0x16;
/// Control, address, control information.
const FIELDS: usize = 3;
/// Segments that can be numbered.
const SEGMENTS: usize = 16;
/// Data in a segment: a long frame holds 250 octets at most on a wired bus with old masters.
const LARGEST_SEGMENT: usize = 245;

#[cfg(test)]
mod tests {
    use super::*;

    fn long(octets: &[u8]) -> Result<Option<(LongFrame<'_>, usize)>, ProtocolError> {
        next_frame(octets).map(|found| match found {
            Some((Found::Long(frame), taken)) => Some((frame, taken)),
            _ => None,
        })
    }

    #[test]
    fn segments_of_a_long_apdu_come_together_again() {
        let apdu: Vec<u8> = (0..600).map(|number| number as u8).collect();
        let mut octets = Vec::new();
        encode(&mut octets, 1, 103, &apdu).unwrap();
        let mut segments = Segments::default();
        let (mut taken, mut whole) = (0, None);
        while let Some((frame, length)) = long(&octets[taken..]).unwrap() {
            assert_eq!((frame.source, frame.destination, frame.wrapped), (1, 103, false));
            assert!(frame.is_dlms());
            taken += length;
            whole = segments.take(&frame, &Limits::default()).unwrap();
        }
        assert_eq!((taken, whole), (octets.len(), Some(apdu)));
        assert!(segments.is_empty());
    }

    #[test]
    fn an_apdu_of_more_segments_than_have_numbers_is_not_encoded() {
        let mut octets = Vec::new();
        assert!(encode(&mut octets, 1, 103, &[7; 16 * LARGEST_SEGMENT]).is_ok());
        octets.clear();
        assert_eq!(encode(&mut octets, 1, 103, &[7; 16 * LARGEST_SEGMENT + 1]).unwrap_err().code, "length-over-limit");
        assert!(octets.is_empty());
    }

    #[test]
    fn a_lost_segment_voids_the_apdu_and_the_next_one_is_taken() {
        let mut octets = Vec::new();
        encode(&mut octets, 1, 103, &[7; 600]).unwrap();
        let first = long(&octets).unwrap().unwrap();
        let second = long(&octets[first.1..]).unwrap().unwrap();
        let third = long(&octets[first.1 + second.1..]).unwrap().unwrap();
        let limits = Limits::default();
        let mut segments = Segments::default();
        segments.take(&first.0, &limits).unwrap();
        assert_eq!(segments.take(&third.0, &limits).unwrap_err().code, "lost-segment");
        for frame in [first.0, second.0] {
            assert_eq!(segments.take(&frame, &limits), Ok(None));
        }
        assert_eq!(segments.take(&third.0, &limits).unwrap().unwrap().len(), 600);
        let small = Limits { apdu: 300, ..limits };
        segments.take(&first.0, &small).unwrap();
        assert_eq!(segments.take(&second.0, &small).unwrap_err().code, "length-over-limit");
    }

    #[test]
    fn truncated_at_every_octet_waits_and_every_flipped_bit_shows() {
        let mut octets = Vec::new();
        encode(&mut octets, 1, 103, b"\x0Fabcdefgh").unwrap();
        for end in 0..octets.len() {
            assert_eq!(next_frame(&octets[..end]), Ok(None), "at {end}");
        }
        for bit in 0..octets.len() * 8 {
            let mut flipped = octets.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(long(&flipped), Ok(Some(_))), "bit {bit}");
        }
    }

    #[test]
    fn the_bus_own_frames_are_told_from_dlms() {
        assert_eq!(next_frame(&[0xE5]), Ok(Some((Found::Short, 1))));
        assert_eq!(next_frame(&[0x10, 0x40, 0x01, 0x41, 0x16]), Ok(Some((Found::Short, 5))));
        assert_eq!(next_frame(&[0x10, 0x40, 0x01, 0x42, 0x16]).unwrap_err().code, "bad-start");
        assert_eq!(next_frame(&[0x68, 3, 4, 0x68]).unwrap_err().code, "bad-length");
    }

    #[test]
    fn a_wireless_header_stands_for_an_empty_system_title() {
        // KAM 12345678, version 1, electricity; COSEM behind a short header.
        let mut octets = vec![0, 0x44, 0x2D, 0x2C, 0x78, 0x56, 0x34, 0x12, 0x01, 0x02, 0x7D, 1, 0, 0, 0, 0xDB, 0x00, 5];
        octets[0] = octets.len() as u8 - 1;
        let (found, taken) = telegram(&octets).unwrap().unwrap();
        assert_eq!(taken, octets.len());
        assert_eq!((found.manufacturer(), found.identification()), ("KAM".into(), "12345678".into()));
        assert_eq!(found.system_title().0, [0x2D, 0x2C, 0x78, 0x56, 0x34, 0x12, 0x01, 0x02]);
        assert_eq!(found.apdu, [0xDB, 0x00, 5]);
        for end in 0..octets.len() {
            assert_eq!(telegram(&octets[..end]), Ok(None));
        }
        octets[10] = 0x7A;
        assert_eq!(telegram(&octets).unwrap_err().code, "no-dlms");
    }
}
