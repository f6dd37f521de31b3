//! Frames out of a stream of octets that may hold noise: junk between frames is passed over, and after a broken frame
//! the next flag that can begin one is looked for.

use super::frame::{FLAG, Frame, next_frame};

/// What has arrived of frames that are not whole. It holds at most one frame of the largest size.
#[derive(Debug)]
pub struct Deframer {
    buffer: Vec<u8>,
    /// Where the flag in front of what is being waited for stands.
    start: usize,
    /// Octets of a frame, flags not counted, at most.
    largest: usize,
    /// Frames with a wrong check sequence.
    pub broken: u32,
}

impl Deframer {
    /// Nothing has arrived. A frame has at most `largest` octets without its flags.
    pub fn new(largest: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, largest, broken: 0 }
    }

    /// Take octets up to the first flag, or fewer; how many. Then ask for [`Deframer::frame`] until there is none.
    pub fn feed(&mut self, octets: &[u8]) -> usize {
        self.buffer.drain(..std::mem::take(&mut self.start));
        if self.buffer.is_empty() {
            let junk = octets.iter().position(|octet| *octet == FLAG).unwrap_or(octets.len());
            if junk > 0 {
                return junk;
            }
        }
        let room = (self.largest + 2).saturating_sub(self.buffer.len()).max(1);
        let upto = octets.iter().position(|octet| *octet == FLAG).map_or(octets.len(), |place| place + 1);
        let taken = upto.min(room);
        self.buffer.extend_from_slice(&octets[..taken]);
        taken
    }

    /// The next frame with a right check sequence.
    pub fn frame(&mut self) -> Option<Frame<'_>> {
        let found = loop {
            let waiting = self.buffer.get(self.start..).unwrap_or_default();
            let Some(flag) = waiting.iter().position(|octet| *octet == FLAG) else {
                self.clear();
                return None;
            };
            self.start += flag;
            let waiting = &waiting[flag..];
            if let [FLAG, FLAG, ..] = waiting {
                self.start += 1;
                continue;
            }
            // Cheaper than to parse: how long it claims to be, and whether a flag stands behind it.
            match *waiting {
                [_] | [_, 0xA0..=0xAF] => return None,
                [_, high @ 0xA0..=0xAF, low, ..] => {
                    let length = usize::from(high & 0x07) << 8 | usize::from(low);
                    match waiting.get(length + 1) {
                        _ if length > self.largest => self.start += 1,
                        None => return None,
                        Some(&FLAG) => match next_frame(waiting) {
                            Ok(Some((frame, taken))) if frame.fcs_ok && frame.hcs_ok != Some(false) => {
                                break self.start..self.start + taken + 1;
                            }
                            _ => {
                                self.broken = self.broken.saturating_add(1);
                                self.start += length.max(1);
                            }
                        },
                        Some(_) => self.start += 1,
                    }
                }
                _ => self.start += 1,
            }
        };
        self.start = found.end - 1;
        next_frame(&self.buffer[found]).ok().flatten().map(|(frame, _)| frame)
    }

    /// Whether a frame has begun: something behind a flag has arrived.
    pub fn is_waiting(&self) -> bool {
        self.buffer.len() > self.start + 1
    }

    /// What is waited for does not come: look for a frame behind its flag instead.
    pub fn give_up(&mut self) {
        self.start = (self.start + 1).min(self.buffer.len());
    }

    /// Hold no more memory than is needed.
    pub fn compact(&mut self) {
        if !self.is_waiting() {
            self.buffer.drain(..std::mem::take(&mut self.start).min(self.buffer.len()));
            self.buffer.shrink_to_fit();
        }
    }

    fn clear(&mut self) {
        self.buffer.clear();
        self.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{FrameType, encode};
    use super::super::{Address, LARGEST};
    use super::*;

    fn frames(deframer: &mut Deframer, octets: &[u8]) -> Vec<Vec<u8>> {
        let (mut taken, mut found) = (0, Vec::new());
        while taken < octets.len() {
            taken += deframer.feed(&octets[taken..]);
            assert!(deframer.buffer.len() <= deframer.largest + 2);
            while let Some(frame) = deframer.frame() {
                found.push(frame.information.to_vec());
            }
        }
        found
    }

    fn one(information: &[u8]) -> Vec<u8> {
        let (meter, head_end) = (Address::meter(1, None, 0), Address::head_end(16));
        let mut out = Vec::new();
        encode(&mut out, false, &head_end, &meter, 0x10, information);
        out
    }

    fn deframer() -> Deframer {
        Deframer::new(usize::from(LARGEST) + 17)
    }

    #[test]
    fn frames_come_out_whatever_stands_between_them_and_wherever_they_are_cut() {
        let (a, b) = (one(b"abc"), one(&[FLAG; 30]));
        let shared = [&a[..a.len() - 1], &b].concat();
        let noisy =
            [b"\x7E\x13\xFF7\x7E".as_slice(), &a, b"junk", &b, &[0x7E, 0xFF], &a, &[0x7E, 0xA0, 0x03], &b].concat();
        for (octets, wanted) in [(shared, 2), ([&a[..], &b].concat(), 2), (noisy, 4)] {
            for size in 1..=octets.len() {
                let mut deframer = deframer();
                let found: Vec<Vec<u8>> = octets.chunks(size).flat_map(|chunk| frames(&mut deframer, chunk)).collect();
                assert_eq!(found.len(), wanted, "in pieces of {size}");
                assert_eq!((&found[0][..], &found[1][..]), (&b"abc"[..], &[FLAG; 30][..]));
            }
        }
    }

    #[test]
    fn a_false_beginning_does_not_hide_the_frame_behind_it_for_ever() {
        let mut deframer = deframer();
        // Claims 2,047 octets; a good frame follows, and silence.
        assert!(frames(&mut deframer, &[&[0x7E, 0xA7, 0xFF][..], &one(b"abc")].concat()).is_empty());
        assert!(deframer.is_waiting());

        deframer.give_up();

        assert_eq!(deframer.frame().unwrap().information, b"abc");
    }

    #[test]
    fn a_broken_frame_is_passed_over_and_counted() {
        let mut octets = one(b"abc");
        octets[10] ^= 1;
        octets.extend(one(b"def"));
        let mut deframer = deframer();

        assert_eq!(frames(&mut deframer, &octets), [b"def".to_vec()]);
        assert_eq!(deframer.broken, 1);
        assert_eq!(FrameType::of(0x10), FrameType::Information);
    }
}
