//! MBAP over UDP: each datagram holds whole ADUs; what is not whole is no ADU and never becomes one.

use super::Direction;
use super::tcp::{self, Adu};
use crate::quirks::Quirks;

/// The ADU at the front of what is left of a datagram; `None` if there is none, and the rest is to be dropped.
pub fn next<'a>(datagram: &'a [u8], direction: Direction, quirks: &Quirks) -> Option<Adu<'a>> {
    tcp::next(datagram, direction, quirks).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_datagram_is_dropped_not_waited_for() {
        let octets = [0, 1, 0, 0, 0, 6, 1, 3, 0, 0, 0, 1];
        let quirks = Quirks::default();
        assert!(next(&octets, Direction::Request, &quirks).is_some());
        assert_eq!(next(&octets[..11], Direction::Request, &quirks), None);
        assert_eq!(next(&[9; 40], Direction::Request, &quirks), None);
    }
}
