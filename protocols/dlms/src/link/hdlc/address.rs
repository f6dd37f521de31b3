//! Addresses (Green Book, "HDLC addressing"): seven bits an octet, the last octet odd.

use std::fmt;

/// An address as it goes over the line: one octet for a head-end; one, two or four for a meter.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    octets: [u8; 4],
    length: u8,
}

impl Address {
    /// A head-end's address. It has seven bits; higher ones are cut off.
    pub fn head_end(client: u16) -> Self {
        Self { octets: [low(client, true), 0, 0, 0], length: 1 }
    }

    /// A meter's address: the logical device above, the physical device below. `size` is 1, 2 or 4 octets; with 0, as
    /// few as hold both. One octet has no place for a physical device.
    pub fn meter(logical: u16, physical: Option<u16>, size: u8) -> Self {
        let wide = logical > 0x7F || physical.is_some_and(|physical| physical > 0x7F);
        let lower = physical.unwrap_or(0);
        match (size, physical) {
            (4, _) | (0, _) if size == 4 || wide => {
                let octets = [low(logical >> 7, false), low(logical, false), low(lower >> 7, false), low(lower, true)];
                Self { octets, length: 4 }
            }
            (1, _) | (0, None) => Self { octets: [low(logical, true), 0, 0, 0], length: 1 },
            _ => Self { octets: [low(logical, false), low(lower, true), 0, 0], length: 2 },
        }
    }

    /// An address as a frame has it.
    pub fn from_wire(wire: &[u8]) -> Option<Self> {
        let mut octets = [0; 4];
        octets.get_mut(..wire.len())?.copy_from_slice(wire);
        Some(Self { octets, length: wire.len() as u8 })
    }

    /// The octets on the wire.
    pub fn as_wire(&self) -> &[u8] {
        &self.octets[..usize::from(self.length.min(4))]
    }

    /// The head-end's service access point, or the logical device.
    pub fn upper(&self) -> u16 {
        match *self.as_wire() {
            [a, b, _, _] => seven(a) << 7 | seven(b),
            [a, ..] => seven(a),
            [] => 0,
        }
    }

    /// The physical device, if the address has a place for it.
    pub fn lower(&self) -> Option<u16> {
        match *self.as_wire() {
            [_, _, a, b] => Some(seven(a) << 7 | seven(b)),
            [_, a] => Some(seven(a)),
            _ => None,
        }
    }

    /// Whether both may mean the same meter: some answer in another size than they were asked in, or leave the
    /// physical device out.
    pub fn matches(&self, other: &Self) -> bool {
        self == other
            || self.upper() == other.upper()
                && match (self.lower(), other.lower()) {
                    (Some(mine), Some(theirs)) => mine == theirs || mine == 0 || theirs == 0,
                    _ => true,
                }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for octet in self.as_wire() {
            write!(f, "{octet:02X}")?;
        }
        Ok(())
    }
}

fn low(bits: u16, last: bool) -> u8 {
    (bits << 1) as u8 & 0xFE | u8::from(last)
}

fn seven(octet: u8) -> u16 {
    u16::from(octet >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_size_are_written_as_the_standard_has_them() {
        let cases: [(u16, Option<u16>, u8, &[u8]); 7] = [
            (1, None, 0, &[0x03]),
            (1, Some(17), 0, &[0x02, 0x23]),
            (1, Some(5481), 0, &[0x00, 0x02, 0x54, 0xD3]), // an E650's physical address
            (1, None, 4, &[0x00, 0x02, 0x00, 0x01]),
            (1, None, 2, &[0x02, 0x01]),
            (0x3FFF, Some(0x3FFF), 0, &[0xFE, 0xFE, 0xFE, 0xFF]),
            (1, Some(17), 1, &[0x03]),
        ];
        for (logical, physical, size, wire) in cases {
            let address = Address::meter(logical, physical, size);
            assert_eq!(address.as_wire(), wire);
            assert_eq!(Address::from_wire(wire), Some(address));
            assert_eq!(address.upper(), logical);
        }
        assert_eq!(Address::meter(1, Some(5481), 0).lower(), Some(5481));
        assert_eq!(Address::head_end(16).as_wire(), [0x21]);
        assert_eq!(Address::from_wire(&[0; 5]), None);
    }

    #[test]
    fn a_meter_may_answer_in_another_size_but_not_as_another_one() {
        let asked = Address::meter(1, None, 1);
        assert!(asked.matches(&Address::from_wire(&[0x02, 0x01]).unwrap()));
        assert!(!asked.matches(&Address::from_wire(&[0x05]).unwrap()));
        let one = Address::meter(1, Some(17), 2);
        assert!(!one.matches(&Address::meter(1, Some(18), 2)));
        assert!(one.matches(&Address::meter(1, Some(17), 4)));
    }
}
