//! A borrowed walk over octets: every length from the wire meets checked arithmetic here, and nowhere else.

use ipss_session::ProtocolError;

/// Octets and a place in them. What is read is borrowed from the octets, not from the reader.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    octets: &'a [u8],
    offset: usize,
    layer: &'static str,
}

impl<'a> Reader<'a> {
    /// Read A-XDR values; errors name the layer `data`.
    #[inline]
    pub fn new(octets: &'a [u8]) -> Self {
        Self::in_layer(octets, "data")
    }

    /// Read for another layer, which errors then name.
    #[inline]
    pub fn in_layer(octets: &'a [u8], layer: &'static str) -> Self {
        Self { octets, offset: 0, layer }
    }

    /// How many octets have been read.
    #[inline]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// How many octets are left.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.octets.len() - self.offset
    }

    /// Whether nothing is left.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.offset == self.octets.len()
    }

    /// What is left.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        &self.octets[self.offset..] // offset never passes the end
    }

    /// What was read since `start`, an earlier [`Reader::offset`].
    #[inline]
    pub fn since(&self, start: usize) -> &'a [u8] {
        self.octets.get(start..self.offset).unwrap_or_default()
    }

    /// The next octet, left in place.
    #[inline]
    pub fn peek(&self) -> Option<u8> {
        self.octets.get(self.offset).copied()
    }

    /// The next `length` octets.
    ///
    /// # Errors
    /// `truncated` if fewer are left, here and in all methods below.
    #[inline]
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], ProtocolError> {
        match self.rest().get(..length) {
            Some(taken) => {
                self.offset += length;
                Ok(taken)
            }
            None => Err(self.truncated(length)),
        }
    }

    /// The next `N` octets as an array.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtocolError> {
        match self.rest().first_chunk() {
            Some(taken) => {
                self.offset += N;
                Ok(*taken)
            }
            None => Err(self.truncated(N)),
        }
    }

    /// One octet.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, ProtocolError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    /// Two octets, big-endian, as all numbers in A-XDR.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, ProtocolError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// Four octets.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, ProtocolError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Eight octets.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, ProtocolError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A length or count: one octet below 128, else 128 + n and n octets. Forms longer than needed occur in the
    /// field (`81 08`, `82 00 7B`) and are accepted.
    ///
    /// # Errors
    /// `bad-length` for the indefinite form and for more than eight octets.
    #[inline]
    pub fn length(&mut self) -> Result<usize, ProtocolError> {
        match self.u8()? {
            short @ 0..0x80 => Ok(usize::from(short)),
            first => self.long_length(first),
        }
    }

    /// An octet string: its length, then its octets.
    #[inline]
    pub fn octet_string(&mut self) -> Result<&'a [u8], ProtocolError> {
        let length = self.length()?;
        self.take(length)
    }

    /// An OPTIONAL or DEFAULT component's presence flag (A-XDR: 00 absent, anything else present).
    #[inline]
    pub fn present(&mut self) -> Result<bool, ProtocolError> {
        Ok(self.u8()? != 0)
    }

    /// Say that everything has been read.
    ///
    /// # Errors
    /// `trailing-octets` if something is left.
    pub fn finish(&self) -> Result<(), ProtocolError> {
        if self.is_empty() {
            return Ok(());
        }
        Err(self.error("trailing-octets", format!("{} octets after the end", self.remaining())))
    }

    /// The peer's fault at this place.
    #[cold]
    pub fn error(&self, code: &'static str, message: impl Into<String>) -> ProtocolError {
        ProtocolError::remote(self.layer, self.offset, code, message)
    }

    fn long_length(&mut self, first: u8) -> Result<usize, ProtocolError> {
        let count = usize::from(first & 0x7F);
        if count == 0 || count > 8 {
            return Err(self.error("bad-length", format!("a length cannot begin with {first:02X}")));
        }
        let length = self.take(count)?.iter().fold(0_u64, |length, octet| length << 8 | u64::from(*octet));
        Ok(usize::try_from(length).unwrap_or(usize::MAX)) // more than memory: no `take` will find it
    }

    #[cold]
    fn truncated(&self, wanted: usize) -> ProtocolError {
        self.error("truncated", format!("{wanted} octets wanted, {} left", self.remaining()))
    }
}

/// Append a length or count in its shortest form.
#[inline]
pub fn write_length(out: &mut Vec<u8>, length: usize) {
    if length < 0x80 {
        out.push(length as u8);
        return;
    }
    let octets = (length as u64).to_be_bytes();
    let zeros = octets.iter().take_while(|octet| **octet == 0).count();
    out.push(0x80 | (octets.len() - zeros) as u8);
    out.extend_from_slice(&octets[zeros..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_every_form_are_read() {
        for (octets, length) in [
            (&[0x7F][..], 127),
            (&[0x81, 0xF8], 248),
            (&[0x82, 0x00, 0xE7], 231),
            (&[0x81, 0x05], 5),
            (&[0x84, 0xFF, 0xFF, 0xFF, 0xFF], 0xFFFF_FFFF),
            (&[0x88, 0, 0, 0, 0, 0, 0, 1, 0], 256),
        ] {
            let mut reader = Reader::new(octets);
            assert_eq!(reader.length().unwrap(), length);
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn impossible_lengths_are_refused_and_short_ones_are_truncated() {
        for (octets, code) in [
            (&[0x80][..], "bad-length"),
            (&[0x89, 0], "bad-length"),
            (&[0xFF], "bad-length"),
            (&[0x82, 1], "truncated"),
        ] {
            assert_eq!(Reader::new(octets).length().unwrap_err().code, code, "{octets:02X?}");
        }
    }

    #[test]
    fn written_lengths_are_the_shortest_and_read_back() {
        for (length, size) in [(0, 1), (127, 1), (128, 2), (255, 2), (256, 3), (65_536, 4), (u32::MAX as usize, 5)] {
            let mut out = Vec::new();
            write_length(&mut out, length);
            assert_eq!(out.len(), size);
            assert_eq!(Reader::new(&out).length().unwrap(), length);
        }
    }

    #[test]
    fn nothing_is_taken_beyond_the_end() {
        let mut reader = Reader::new(&[9, 0x84, 0xFF, 0xFF, 0xFF, 0xFF, 1]);
        reader.u8().unwrap();

        let error = reader.octet_string().unwrap_err();

        assert_eq!((error.code, error.layer, error.offset), ("truncated", "data", 6));
    }
}
