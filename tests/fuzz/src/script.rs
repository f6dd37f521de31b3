//! Input read as a script: choices, numbers and pieces of octets, for targets with more than one thing to vary.

/// What is left of the input.
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    /// The next octet, if there is one.
    pub fn octet(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// One of `choices`, by the next octet; the first at the end.
    pub fn choose<'c, T>(&mut self, choices: &'c [T]) -> &'c T {
        let octet = self.octet().unwrap_or_default();
        &choices[usize::from(octet) % choices.len()]
    }

    /// So many octets, or what is left: the length stands in front, one octet, two from 255 on.
    pub fn piece(&mut self) -> &'a [u8] {
        let mut length = usize::from(self.octet().unwrap_or_default());
        if length == 255 {
            length =
                usize::from(u16::from_be_bytes([self.octet().unwrap_or_default(), self.octet().unwrap_or_default()]));
        }
        let (piece, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        piece
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
