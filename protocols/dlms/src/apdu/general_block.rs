//! Any APDU in pieces: General-Block-Transfer \[224\] (Green Book, "General block transfer mechanism").

use ipss_session::ProtocolError;

use super::list::open;
use super::tags;
use crate::axdr::write_length;

/// One piece, or the word that pieces arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneralBlock<'a> {
    /// The sender has nothing after this piece.
    pub last: bool,
    /// The sender goes on without waiting for an acknowledgement.
    pub streaming: bool,
    /// How many pieces the sender of this one takes before it acknowledges them, 0 to 63; 0 in an unconfirmed transfer.
    pub window: u8,
    /// Its number among the sender's, from 1.
    pub number: u16,
    /// The last piece that the sender received in order.
    pub acknowledged: u16,
    /// The piece; nothing in an acknowledgement.
    pub raw: &'a [u8],
}

impl<'a> GeneralBlock<'a> {
    /// Octets around a piece, at most, for pieces that fit a wrapper APDU.
    pub const OVERHEAD: usize = 9;

    /// Decode a whole APDU.
    ///
    /// # Errors
    /// `truncated`, `trailing-octets`.
    pub fn decode(apdu: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut reader = open(apdu, tags::GENERAL_BLOCK_TRANSFER)?;
        let control = reader.u8()?;
        let (number, acknowledged) = (reader.u16()?, reader.u16()?);
        let raw = reader.octet_string()?;
        reader.finish()?;
        Ok(Self {
            last: control & 0x80 != 0,
            streaming: control & 0x40 != 0,
            window: control & 0x3F,
            number,
            acknowledged,
            raw,
        })
    }

    /// Append it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let control = u8::from(self.last) << 7 | u8::from(self.streaming) << 6 | self.window & 0x3F;
        out.extend_from_slice(&[tags::GENERAL_BLOCK_TRANSFER, control]);
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.acknowledged.to_be_bytes());
        write_length(out, self.raw.len());
        out.extend_from_slice(self.raw);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_of_a_published_test_is_read_and_written_to_the_octet() {
        // dlms-cosem, tests/test_apdus/test_general_block_transfer.py
        let octets = b"\xE0\x83\x00\x04\x00\x05\x03abc";

        let block = GeneralBlock::decode(octets).unwrap();

        let expected =
            GeneralBlock { last: true, streaming: false, window: 3, number: 4, acknowledged: 5, raw: b"abc" };
        assert_eq!(block, expected);
        let mut out = Vec::new();
        block.encode(&mut out);
        assert_eq!(out, octets);
    }
}
