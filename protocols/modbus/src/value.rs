//! From registers to a cell of a line.

use ipss_session::{Batch, Cell};

/// How a value stands in its registers. Words and octets in other orders, floats, strings and what register maps name
/// beyond these travel as [`Decode::Raw`] and are read by whoever knows the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decode {
    /// The octets as they came.
    Raw,
    /// An unsigned integer, the high word first; up to four registers.
    Unsigned,
    /// An integer in two's complement, the high word first; up to four registers.
    Signed,
}

impl Decode {
    /// Append the value in these octets, two a register (one a coil, 0 or 1), as a cell.
    pub(crate) fn push(self, octets: &[u8], batch: &mut Batch) {
        batch.push_cell(self.cell(octets));
    }

    /// The value in these octets. An integer that does not fit 64 bits with a sign stays raw.
    pub fn cell(self, octets: &[u8]) -> Cell<'_> {
        if octets.is_empty() || octets.len() > 8 || self == Self::Raw {
            return Cell::Raw(octets);
        }
        let negative = self == Self::Signed && octets[0] & 0x80 != 0;
        let start = if negative { u64::MAX } else { 0 };
        let number = octets.iter().fold(start, |number, octet| number << 8 | u64::from(*octet));
        if self == Self::Unsigned && number > i64::MAX as u64 {
            return Cell::Raw(octets);
        }
        Cell::Integer(number as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_exact_to_the_ends_of_their_range() {
        assert_eq!(Decode::Unsigned.cell(&[0xFF, 0xFF]), Cell::Integer(65_535));
        assert_eq!(Decode::Signed.cell(&[0xFF, 0xFE]), Cell::Integer(-2));
        assert_eq!(Decode::Signed.cell(&[0x80, 0, 0, 0]), Cell::Integer(i64::from(i32::MIN)));
        assert_eq!(Decode::Signed.cell(&[0x80, 0, 0, 0, 0, 0, 0, 0]), Cell::Integer(i64::MIN));
        assert_eq!(Decode::Unsigned.cell(&[0x7F, 255, 255, 255, 255, 255, 255, 255]), Cell::Integer(i64::MAX));
        assert_eq!(Decode::Unsigned.cell(&[0x80, 0, 0, 0, 0, 0, 0, 0]), Cell::Raw(&[0x80, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(Decode::Unsigned.cell(&[1; 10]), Cell::Raw(&[1; 10]));
        assert_eq!(Decode::Unsigned.cell(&[1]), Cell::Integer(1));
    }
}
