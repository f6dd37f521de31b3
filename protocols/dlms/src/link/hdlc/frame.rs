//! HDLC frames (ISO/IEC 13239, frame format type 3; Green Book, "Data link layer using the HDLC protocol").
//!
//! Flag 7E, format (2): type 1010, segmentation bit, length (11 bits); destination and source address (1, 2 or 4
//! octets, the last one odd); control; header check sequence if there is information; information; frame check
//! sequence; flag. Two frames may share a flag or have one each.

use ipss_session::ProtocolError;

use super::Address;

/// One frame as it stands in the octets, whether its check sequences are right or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Length by the format field: from the format field to the frame check sequence.
    pub length: usize,
    /// Whether the information goes on in the next frame.
    pub segmented: bool,
    /// Address of who is meant, as on the wire.
    pub destination: &'a [u8],
    /// Address of the sender, as on the wire.
    pub source: &'a [u8],
    /// What the frame is.
    pub control: u8,
    /// Whether the header check sequence is right; `None` if there is none, since there is no information.
    pub hcs_ok: Option<bool>,
    /// Whether the frame check sequence is right.
    pub fcs_ok: bool,
    /// What is carried.
    pub information: &'a [u8],
    /// Where the header check sequence would begin, counted from the format field.
    pub header_length: usize,
}

/// What a control field says a frame is (Green Book, "Control field format").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is its name in the standard
pub enum FrameType {
    Information,
    ReceiveReady,
    ReceiveNotReady,
    SetNormalResponseMode,
    Disconnect,
    UnnumberedAcknowledge,
    DisconnectedMode,
    FrameReject,
    UnnumberedInformation,
    Reject,
    Unknown,
}

impl FrameType {
    /// The type for a control field; the poll/final bit and the sequence numbers do not matter.
    pub fn of(control: u8) -> Self {
        match control & 0xEF {
            information if information & 1 == 0 => Self::Information,
            ready if ready & 0x0F == 0x01 => Self::ReceiveReady,
            not_ready if not_ready & 0x0F == 0x05 => Self::ReceiveNotReady,
            reject if reject & 0x0F == 0x09 => Self::Reject,
            0x83 => Self::SetNormalResponseMode,
            0x43 => Self::Disconnect,
            0x63 => Self::UnnumberedAcknowledge,
            0x0F => Self::DisconnectedMode,
            0x87 => Self::FrameReject,
            0x03 => Self::UnnumberedInformation,
            _ => Self::Unknown,
        }
    }

    /// The standard's name, lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Information => "i",
            Self::ReceiveReady => "rr",
            Self::ReceiveNotReady => "rnr",
            Self::SetNormalResponseMode => "snrm",
            Self::Disconnect => "disc",
            Self::UnnumberedAcknowledge => "ua",
            Self::DisconnectedMode => "dm",
            Self::FrameReject => "frmr",
            Self::UnnumberedInformation => "ui",
            Self::Reject => "rej",
            Self::Unknown => "unknown",
        }
    }

    /// Whether its information is a piece of an LLC PDU.
    pub fn carries_data(self) -> bool {
        matches!(self, Self::Information | Self::UnnumberedInformation)
    }
}

/// The first frame in `octets`, which begin with a flag, and how many octets it takes: its closing flag is left, to
/// be the next one's opening flag. `Ok(None)` until the closing flag is there.
///
/// # Errors
/// Remote: `missing-flag`, `bad-format`, `bad-address`, `bad-length`. Wrong check sequences are no error here: the
/// frame says so.
pub fn next_frame(octets: &[u8]) -> Result<Option<(Frame<'_>, usize)>, ProtocolError> {
    let Some(&first) = octets.first() else { return Ok(None) };
    if first != FLAG {
        return Err(error(0, "missing-flag", format!("{first:02X} where a frame's flag 7E is expected")));
    }
    let flags = octets.iter().take_while(|octet| **octet == FLAG).count();
    let rest = &octets[flags..];
    let [high, low] = match *rest {
        [] => return Ok(None),
        [high, ..] if high & 0xF0 != 0xA0 => {
            return Err(error(flags, "bad-format", format!("format {high:02X} is not of type 3 (A0 to AF)")));
        }
        [_] => return Ok(None),
        [high, low, ..] => [high, low],
    };
    let length = usize::from(high & 0x07) << 8 | usize::from(low);
    if length < SHORTEST {
        return Err(error(flags, "bad-length", format!("a frame of {length} octets; {SHORTEST} at least")));
    }
    let Some(&after) = rest.get(length) else { return Ok(None) };
    if after != FLAG {
        return Err(error(
            flags + length,
            "missing-flag",
            format!("{after:02X} where the frame's closing flag is expected"),
        ));
    }
    let frame = &rest[..length];
    let (destination, source_start) = address(frame, 2).ok_or_else(|| bad_address(flags + 2))?;
    let (source, control_place) = address(frame, source_start).ok_or_else(|| bad_address(flags + source_start))?;
    let header_length = control_place + 1;
    let control = *frame.get(control_place).ok_or_else(|| bad_address(flags + control_place))?;
    // What is left of the frame: the FCS alone, or HCS, information and FCS.
    let (information, hcs_ok) = match length.checked_sub(header_length) {
        Some(2) => (&frame[..0], None),
        Some(left) if left >= 4 => {
            (&frame[header_length + 2..length - 2], Some(check_sequence_ok(&frame[..header_length + 2])))
        }
        _ => return Err(error(flags, "bad-length", format!("{length} octets do not fit the addresses"))),
    };
    let segmented = high & 0x08 != 0;
    let fcs_ok = check_sequence_ok(frame);
    let frame = Frame { length, segmented, destination, source, control, hcs_ok, fcs_ok, information, header_length };
    Ok(Some((frame, flags + length)))
}

/// Append a frame with a flag on both sides. The information must fit: at most [`super::LARGEST`] octets.
pub fn encode(
    out: &mut Vec<u8>,
    segmented: bool,
    destination: &Address,
    source: &Address,
    control: u8,
    information: &[u8],
) {
    let header = 2 + destination.as_wire().len() + source.as_wire().len() + 1;
    let length = header + if information.is_empty() { 2 } else { 2 + information.len() + 2 };
    out.push(FLAG);
    let start = out.len();
    out.push(0xA0 | u8::from(segmented) << 3 | (length >> 8) as u8 & 0x07);
    out.push(length as u8);
    out.extend_from_slice(destination.as_wire());
    out.extend_from_slice(source.as_wire());
    out.push(control);
    if !information.is_empty() {
        out.extend_from_slice(&check_sequence(&out[start..]).to_le_bytes());
        out.extend_from_slice(information);
    }
    out.extend_from_slice(&check_sequence(&out[start..]).to_le_bytes());
    out.push(FLAG);
}

/// Whether the last two octets are the check sequence of those before (ISO/IEC 13239, 16-bit FCS: polynomial
/// x16 + x12 + x5 + 1, reflected, all ones at the start, complemented, low octet first).
pub fn check_sequence_ok(octets: &[u8]) -> bool {
    octets.iter().fold(0xFFFF, |register, octet| step(register, *octet)) == RESIDUE
}

/// The check sequence of `octets`, to be sent low octet first.
pub fn check_sequence(octets: &[u8]) -> u16 {
    !octets.iter().fold(0xFFFF, |register, octet| step(register, *octet))
}

fn step(register: u16, octet: u8) -> u16 {
    register >> 8 ^ CHECK_TABLE[usize::from(register as u8 ^ octet)]
}

/// The address that begins at `start`: up to four octets, the last one odd; and where it ends.
fn address(frame: &[u8], start: usize) -> Option<(&[u8], usize)> {
    let length = frame.get(start..)?.iter().take(4).position(|octet| octet & 1 == 1)? + 1;
    Some((&frame[start..start + length], start + length))
}

#[cold]
fn bad_address(offset: usize) -> ProtocolError {
    error(offset, "bad-address", "an address has up to four octets, the last one odd")
}

#[cold]
fn error(offset: usize, code: &'static str, message: impl Into<String>) -> ProtocolError {
    ProtocolError::remote("hdlc", offset, code, message)
}

/// Between frames.
pub const FLAG: u8 = 0x7E;
/// Format, two addresses, control and frame check sequence.
const SHORTEST: usize = 7;
/// What the register holds after octets with their right check sequence.
const RESIDUE: u16 = 0xF0B8;
const CHECK_TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut octet = 0;
    while octet < 256 {
        let mut register = octet as u16;
        let mut bit = 0;
        while bit < 8 {
            register = if register & 1 == 1 { register >> 1 ^ 0x8408 } else { register >> 1 };
            bit += 1;
        }
        table[octet] = register;
        octet += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(information: &[u8], segmented: bool) -> Vec<u8> {
        let length = 2 + 1 + 2 + 1 + 2 + information.len() + 2;
        let mut octets = vec![0xA0 | u8::from(segmented) << 3, length as u8, 0x01, 0x02, 0x01, 0x10];
        octets.extend(check_sequence(&octets).to_le_bytes());
        octets.extend(information);
        octets.extend(check_sequence(&octets).to_le_bytes());
        octets.insert(0, FLAG);
        octets.push(FLAG);
        octets
    }

    #[test]
    fn check_sequence_has_its_published_check_value() {
        assert_eq!(check_sequence(b"123456789"), 0x906E); // CRC-16/X-25
    }

    #[test]
    fn the_frame_that_opens_a_link_is_understood() {
        // SNRM from client 16 to server 1, seen in many published captures.
        let octets = [0x7E, 0xA0, 0x07, 0x03, 0x21, 0x93, 0x0F, 0x01, 0x7E];

        let (frame, taken) = next_frame(&octets).unwrap().unwrap();

        assert!(frame.fcs_ok);
        assert_eq!((frame.hcs_ok, taken), (None, 8));
        assert_eq!(FrameType::of(frame.control), FrameType::SetNormalResponseMode);
    }

    #[test]
    fn frames_share_a_flag_or_have_one_each() {
        let one = frame(b"abc", true);
        let shared = [&one[..one.len() - 1], &one].concat();
        let apart = [&one[..], &one].concat();

        for octets in [shared, apart] {
            let (first, taken) = next_frame(&octets).unwrap().unwrap();
            let (second, _) = next_frame(&octets[taken..]).unwrap().unwrap();
            assert_eq!(first, second);
            assert_eq!(
                (first.information, first.hcs_ok, first.fcs_ok, first.segmented),
                (&b"abc"[..], Some(true), true, true)
            );
        }
    }

    #[test]
    fn truncated_at_every_octet_waits_for_more() {
        let whole = frame(b"abc", false);
        for end in 0..whole.len() {
            assert_eq!(next_frame(&whole[..end]), Ok(None), "at {end}");
        }
    }

    #[test]
    fn every_flipped_bit_inside_shows() {
        let whole = frame(b"abc", false);
        for bit in 24..(whole.len() - 1) * 8 {
            let mut octets = whole.clone();
            octets[bit / 8] ^= 1 << (bit % 8);
            if let Ok(Some((frame, _))) = next_frame(&octets) {
                assert!(!frame.fcs_ok, "bit {bit}");
            }
        }
    }
}
