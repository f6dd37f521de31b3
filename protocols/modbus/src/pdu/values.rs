//! Registers and coils as they stand in a PDU.

/// Registers, two octets each, the high one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers<'a>(&'a [u8]);

impl<'a> Registers<'a> {
    /// Over octets, of which there must be an even number; an odd last one is left out.
    pub fn new(octets: &'a [u8]) -> Self {
        Self(&octets[..octets.len() & !1])
    }

    /// How many there are.
    pub fn len(self) -> usize {
        self.0.len() / 2
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The octets.
    pub fn octets(self) -> &'a [u8] {
        self.0
    }

    /// One of them.
    pub fn at(self, index: usize) -> Option<u16> {
        super::u16_at(self.0, index.checked_mul(2)?)
    }

    /// In order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = u16> + 'a {
        self.0.chunks_exact(2).map(|octets| u16::from_be_bytes([octets[0], octets[1]]))
    }
}

/// Coils or inputs, eight to an octet, the first in the lowest bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits<'a> {
    octets: &'a [u8],
    count: usize,
}

impl<'a> Bits<'a> {
    /// The first `count` of those in `octets`, or as many as there are.
    pub fn new(octets: &'a [u8], count: usize) -> Self {
        Self { octets, count: count.min(octets.len() * 8) }
    }

    /// How many there are. A response does not say; what it has beside the quantity asked for is padding.
    pub fn len(self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.count == 0
    }

    /// The octets.
    pub fn octets(self) -> &'a [u8] {
        self.octets
    }

    /// One of them.
    pub fn at(self, index: usize) -> Option<bool> {
        (index < self.count).then(|| self.octets[index / 8] >> (index % 8) & 1 == 1)
    }

    /// In order.
    pub fn iter(self) -> impl Iterator<Item = bool> + 'a {
        (0..self.count).map(move |index| self.octets[index / 8] >> (index % 8) & 1 == 1)
    }

    /// Append bits to `out`, packed.
    pub fn pack(bits: impl IntoIterator<Item = bool>, out: &mut Vec<u8>) {
        for (index, bit) in bits.into_iter().enumerate() {
            if index % 8 == 0 {
                out.push(0);
            }
            if let Some(octet) = out.last_mut().filter(|_| bit) {
                *octet |= 1 << (index % 8);
            }
        }
    }
}
