//! ASCII frames: a colon, two hexadecimal digits an octet (unit, PDU, LRC), carriage return, line feed
//! (MODBUS over Serial Line V1.02, clauses 2.5.2 and 6.2.1).

use crate::pdu::MAX_PDU;

/// Characters of the largest frame.
pub const MAX_FRAME: usize = 1 + 2 * (MAX_PDU + 2) + 2;

/// The check octet: the sum of all octets with it is 0.
pub fn lrc(octets: &[u8]) -> u8 {
    octets.iter().fold(0_u8, |sum, octet| sum.wrapping_add(*octet)).wrapping_neg()
}

/// Append the frame of this unit and PDU.
pub fn encode(unit: u8, pdu: &[u8], out: &mut Vec<u8>) {
    let check = lrc(pdu).wrapping_sub(unit);
    out.push(b':');
    for octet in [&[unit][..], pdu, &[check]].concat() {
        out.extend([octet >> 4, octet & 15].map(|digit| DIGITS[usize::from(digit)]));
    }
    out.extend_from_slice(b"\r\n");
}

/// Why a frame is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A character that is no hexadecimal digit, or an odd number of them, or too few or many.
    Characters,
    /// The LRC does not fit.
    Check,
}

/// Unit and PDU in the characters between the colon and the carriage return, put into `octets`.
///
/// # Errors
/// What is wrong with it.
pub fn open<'a>(characters: &[u8], octets: &'a mut Vec<u8>) -> Result<(u8, &'a [u8]), Broken> {
    octets.clear();
    let pairs = characters.chunks_exact(2);
    if !pairs.remainder().is_empty() || !(6..=MAX_FRAME).contains(&characters.len()) {
        return Err(Broken::Characters);
    }
    for pair in pairs {
        let digit = |character: u8| char::from(character).to_digit(16).ok_or(Broken::Characters);
        octets.push((digit(pair[0])? << 4 | digit(pair[1])?) as u8);
    }
    if lrc(octets) != 0 {
        return Err(Broken::Check);
    }
    match &octets[..] {
        [unit, pdu @ .., _] if !pdu.is_empty() => Ok((*unit, pdu)),
        _ => Err(Broken::Characters),
    }
}

/// Characters of a line, and the frames in them.
#[derive(Debug, Default)]
pub struct Receiver {
    /// From the colon on.
    pending: Vec<u8>,
    octets: Vec<u8>,
    /// Characters that belonged to no frame, so far.
    pub garbage: u64,
    /// Frames that were broken, so far.
    pub broken: u64,
}

impl Receiver {
    /// Take the next character; unit and PDU of the frame that it ends, if it ends one. A colon always begins anew.
    pub fn push(&mut self, character: u8) -> Option<(u8, &[u8])> {
        match character {
            b':' => {
                self.garbage += self.pending.len() as u64;
                self.pending.clear();
                self.pending.push(character);
            }
            b'\n' if !self.pending.is_empty() => {
                let mut pending = std::mem::take(&mut self.pending);
                if pending.last() == Some(&b'\r') {
                    pending.pop();
                }
                let opened = open(&pending[1..], &mut self.octets);
                if opened.is_err() {
                    self.broken += 1;
                }
                return opened.ok();
            }
            _ if self.pending.is_empty() || self.pending.len() >= MAX_FRAME => {
                self.garbage += 1 + self.pending.len() as u64;
                self.pending.clear();
            }
            _ => self.pending.push(character),
        }
        None
    }

    /// Whether no frame has begun.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Drop what has begun.
    pub fn clear(&mut self) {
        self.garbage += self.pending.len() as u64;
        self.pending = Vec::new();
    }
}

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(receiver: &mut Receiver, characters: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut found = Vec::new();
        for character in characters {
            if let Some((unit, pdu)) = receiver.push(*character) {
                found.push((unit, pdu.to_vec()));
            }
        }
        found
    }

    #[test]
    fn written_frame_reads_back() {
        let mut out = Vec::new();
        encode(17, &[3, 0, 0x6B, 0, 3], &mut out);
        assert_eq!(out, b":1103006B00037E\r\n");
        assert_eq!(frames(&mut Receiver::default(), &out), [(17, vec![3, 0, 0x6B, 0, 3])]);
        assert_eq!(frames(&mut Receiver::default(), b":1103006b00037e\n"), [(17, vec![3, 0, 0x6B, 0, 3])]);
    }

    #[test]
    fn garbage_and_broken_frames_cost_no_valid_one() {
        let mut receiver = Receiver::default();
        let line = b"\0\xFFxyz:1103006B00037F\r\n:11030:1103006B00037E\r\n:11G3\r\n:\r\n:1\r\n\r\n:1103006B00037E\r\n";
        assert_eq!(frames(&mut receiver, line), vec![(17, vec![3, 0, 0x6B, 0, 3]); 2]);
        assert_eq!(receiver.broken, 4);
    }

    #[test]
    fn endless_frame_is_bounded() {
        let mut receiver = Receiver::default();
        assert!(frames(&mut receiver, &[b":", &[b'1'; 10_000][..]].concat()).is_empty());
        assert!(receiver.pending.len() <= MAX_FRAME);
        assert_eq!(frames(&mut receiver, b":1103006B00037E\r\n").len(), 1);
    }
}
