//! RTU frames: unit, PDU, CRC-16 (MODBUS over Serial Line V1.02, clauses 2.5.1 and 6.2.2).
//!
//! The line marks a frame's end by silence only, and converters to TCP lose even that. So a frame is found by its own
//! octets: where a length can be told and the CRC fits, there is one. [`Receiver`] looks at every octet as a possible
//! beginning, so garbage and broken frames in front of a valid one do not cost it. A beginning that is just what is
//! waited for is given time to become whole before anything inside it is looked at.

use std::ops::Range;

use crate::pdu::Extent;

/// Octets of the largest ADU.
pub const MAX_ADU: usize = 256;
/// Octets of the smallest: unit, function code, CRC.
const MIN_ADU: usize = 4;
/// Octets held while frames are looked for. Two of the largest, so that a frame behind a broken one is kept.
const MAX_PENDING: usize = 2 * MAX_ADU;

/// CRC-16 of these octets; it follows them on the line with its low octet first. Over a whole frame it is 0.
pub fn crc(octets: &[u8]) -> u16 {
    let mut crc = 0xFFFF_u16;
    let mut chunks = octets.chunks_exact(8);
    for chunk in &mut chunks {
        // Octets as indices: no table is ever left, and the compiler sees it.
        let Some(&[a, b, c, d, e, f, g, h]) = chunk.first_chunk::<8>() else { continue };
        let (low, high) = (crc as u8 ^ a, (crc >> 8) as u8 ^ b);
        crc = TABLES[7][usize::from(low)]
            ^ TABLES[6][usize::from(high)]
            ^ TABLES[5][usize::from(c)]
            ^ TABLES[4][usize::from(d)]
            ^ TABLES[3][usize::from(e)]
            ^ TABLES[2][usize::from(f)]
            ^ TABLES[1][usize::from(g)]
            ^ TABLES[0][usize::from(h)];
    }
    for octet in chunks.remainder() {
        crc = crc >> 8 ^ TABLES[0][usize::from(crc as u8 ^ octet)];
    }
    crc
}

/// Begin an ADU at the end of `out`. Append the PDU, then [`finish`].
pub fn begin(out: &mut Vec<u8>, unit: u8) -> usize {
    let mark = out.len();
    out.push(unit);
    mark
}

/// Append the CRC of the ADU begun at `mark`.
pub fn finish(out: &mut Vec<u8>, mark: usize) {
    let check = crc(out.get(mark..).unwrap_or_default());
    out.extend_from_slice(&check.to_le_bytes());
}

/// Unit and PDU of a whole frame; `None` if its CRC does not fit.
pub fn open(frame: &[u8]) -> Option<(u8, &[u8])> {
    if !(MIN_ADU..=MAX_ADU).contains(&frame.len()) || crc(frame) != 0 {
        return None;
    }
    Some((frame[0], &frame[1..frame.len() - 2]))
}

/// Octets of a line, and the frames in them.
#[derive(Debug, Default)]
pub struct Receiver {
    pending: Vec<u8>,
    /// The frame that was taken last.
    taken: Vec<u8>,
    /// Frames that end within so many octets were looked at and are none.
    looked: usize,
    /// Octets that belonged to no frame, so far.
    pub garbage: u64,
    /// Beginnings of what was waited for whose CRC did not fit, so far.
    pub broken: u64,
}

impl Receiver {
    /// Take octets from the line. Of more than [`MAX_PENDING`] the oldest are dropped: call [`Receiver::next`] between.
    pub fn push(&mut self, octets: &[u8]) {
        self.pending.extend_from_slice(octets);
        let surplus = self.pending.len().saturating_sub(MAX_PENDING);
        if surplus > 0 {
            self.drop_front(surplus);
            self.garbage += surplus as u64;
        }
    }

    /// How many octets to take at once at most, so that none is dropped unseen.
    pub fn room(&self) -> usize {
        MAX_PENDING - self.pending.len()
    }

    /// Whether there are octets that belong to no frame yet.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Where the next frame stands. Then [`Receiver::take`] it, or look at it by [`Receiver::frame`]
    /// and call [`Receiver::done`].
    ///
    /// `extent` tells the length of a PDU from its first octets. `wanted` says whether a frame that begins so is
    /// waited for; if `hold`, it is then given time to become whole. Call without `hold` when that time is over.
    pub fn next(
        &mut self,
        hold: bool,
        extent: impl Fn(&[u8]) -> Extent,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Option<Range<usize>> {
        let pending = &self.pending[..];
        for start in 0..pending.len() {
            let rest = &pending[start..];
            let end = match extent(&rest[1..]) {
                Extent::Known(pdu) if pdu + 3 > MAX_ADU => continue,
                Extent::Known(pdu) => start + pdu + 3,
                Extent::Open => pending.len(),
                Extent::More => usize::MAX,
            };
            if end <= pending.len() && end - start >= MIN_ADU {
                if end > self.looked && crc(&pending[start..end]) == 0 {
                    return Some(start..end);
                }
                if end > self.looked && wanted(rest) {
                    self.broken += 1;
                }
            }
            let whole = end <= pending.len() && !matches!(extent(&rest[1..]), Extent::Open);
            if hold && !whole && wanted(rest) {
                // Octets in front of it can begin nothing that is waited for.
                self.drop_front(start);
                self.garbage += start as u64;
                return None;
            }
        }
        self.looked = pending.len();
        None
    }

    /// The octets of a frame.
    pub fn frame(&self, place: Range<usize>) -> &[u8] {
        self.pending.get(place).unwrap_or_default()
    }

    /// The frame was dealt with: it and what stood in front of it go.
    pub fn done(&mut self, place: Range<usize>) {
        self.garbage += place.start as u64;
        self.drop_front(place.end);
    }

    /// Unit and PDU of the frame at `place`, which goes, and what stood in front of it.
    pub fn take(&mut self, place: Range<usize>) -> Option<(u8, &[u8])> {
        self.taken.clear();
        self.taken.extend_from_slice(self.pending.get(place.clone())?);
        self.done(place);
        match &self.taken[..] {
            [unit, pdu @ .., _, _] => Some((*unit, pdu)),
            _ => None,
        }
    }

    /// Drop everything: the line was silent, or a new question makes it void.
    pub fn clear(&mut self) {
        self.garbage += self.pending.len() as u64;
        self.pending.clear();
        self.looked = 0;
    }

    /// Something else is waited for now: look at everything again.
    pub fn look_again(&mut self) {
        self.looked = 0;
    }

    fn drop_front(&mut self, count: usize) {
        self.looked = self.looked.saturating_sub(count);
        if count >= self.pending.len() {
            self.pending.clear();
        } else {
            self.pending.drain(..count);
        }
    }
}

static TABLES: [[u16; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut octet = 0;
    while octet < 256 {
        let mut crc = octet as u16;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xA001 } else { crc >> 1 };
            bit += 1;
        }
        tables[0][octet] = crc;
        octet += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut octet = 0;
        while octet < 256 {
            let previous: u16 = tables[table - 1][octet];
            tables[table][octet] = previous >> 8 ^ tables[0][(previous & 0xFF) as usize];
            octet += 1;
        }
        table += 1;
    }
    tables
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pdu::response_extent;

    fn framed(unit: u8, pdu: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mark = begin(&mut out, unit);
        out.extend_from_slice(pdu);
        finish(&mut out, mark);
        out
    }

    fn frames(receiver: &mut Receiver, hold: bool) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let wanted = |rest: &[u8]| rest.len() < 2 && rest[0] == 1 || rest.starts_with(&[1, 3]);
        while let Some(place) = receiver.next(hold, |pdu| response_extent(pdu, false), wanted) {
            found.push(receiver.frame(place.clone()).to_vec());
            receiver.done(place);
        }
        found
    }

    #[test]
    fn crc_is_that_of_the_specification() {
        // MODBUS over Serial Line V1.02, appendix B: 02 07 gives 1241, sent as 41 12.
        assert_eq!(crc(&[2, 7]), 0x1241);
        assert_eq!(framed(2, &[7]), [2, 7, 0x41, 0x12]);
        assert_eq!(crc(b"123456789"), 0x4B37, "the check value of CRC-16/MODBUS");
    }

    #[test]
    fn crc_by_eights_is_crc_by_ones() {
        let octets: Vec<u8> = (0..=255_u16).map(|octet| (octet * 7) as u8).collect();
        for end in 0..octets.len() {
            let slow = octets[..end].iter().fold(0xFFFF_u16, |mut crc, octet| {
                crc ^= u16::from(*octet);
                (0..8).for_each(|_| crc = if crc & 1 == 1 { crc >> 1 ^ 0xA001 } else { crc >> 1 });
                crc
            });
            assert_eq!(crc(&octets[..end]), slow, "{end}");
        }
    }

    #[test]
    fn frame_in_single_octets_is_found_at_its_last() {
        let frame = framed(1, &[3, 2, 0, 7]);
        let mut receiver = Receiver::default();
        for (place, octet) in frame.iter().enumerate() {
            receiver.push(&[*octet]);
            let found = frames(&mut receiver, true);
            assert_eq!(found.len(), usize::from(place + 1 == frame.len()), "octet {place}");
        }
    }

    /// Rows 60, 61: a leading 00, stray octets, the CRC sent twice, the CRC over frame and CRC, which is 0000.
    #[test]
    fn rows_60_and_61_stray_octets_cost_no_frame() {
        let frame = framed(1, &[3, 2, 0, 7]);
        let crc = &frame[frame.len() - 2..];
        let line =
            [&[0][..], &frame, crc, &frame, &[0, 0], &frame, &[0xFF, 1], &frame, &[1, 3, 200, 5], &frame].concat();
        for size in [1, 2, 3, 7, line.len()] {
            let mut receiver = Receiver::default();
            let mut found = Vec::new();
            for chunk in line.chunks(size) {
                receiver.push(chunk);
                found.extend(frames(&mut receiver, false));
            }
            assert_eq!(found, vec![frame.clone(); 5], "in pieces of {size}");
        }
    }

    #[test]
    fn beginning_that_is_waited_for_is_held_until_its_time_is_over() {
        let frame = framed(1, &[3, 2, 0, 7]);
        let mut receiver = Receiver::default();
        receiver.push(&[&[9, 9][..], &[1, 3, 40], &frame].concat());
        assert!(frames(&mut receiver, true).is_empty());
        assert_eq!(frames(&mut receiver, false), [frame]);
    }

    #[test]
    fn broken_crc_is_counted_and_the_next_frame_found() {
        let frame = framed(1, &[3, 2, 0, 7]);
        let mut broken = frame.clone();
        broken[3] ^= 1;
        let mut receiver = Receiver::default();
        receiver.push(&[broken, frame.clone()].concat());
        assert_eq!(frames(&mut receiver, true), [frame]);
        assert_eq!((receiver.broken, receiver.garbage), (1, 7));
    }

    #[test]
    fn endless_garbage_is_bounded_and_the_frame_behind_it_found() {
        let frame = framed(1, &[3, 2, 0, 7]);
        let mut receiver = Receiver::default();
        for _ in 0..1_000 {
            receiver.push(&[0xA5; 100]);
            assert!(frames(&mut receiver, true).is_empty());
            assert!(receiver.pending.len() <= MAX_PENDING);
        }
        receiver.push(&frame);
        assert_eq!(frames(&mut receiver, true), [frame]);
    }
}
