//! A-XDR octets of `Data`, appended by hand: the answers of a virtual meter have few shapes, and a load profile is
//! written in one pass without a tree of values in between (Green Book, "A-XDR"; Blue Book, "Common data types").

use ipss_dlms::axdr::{DateTime, write_length};
use ipss_dlms::cosem::LogicalName;
use ipss_session::WallTime;

pub(super) fn null(out: &mut Vec<u8>) {
    out.push(0);
}

pub(super) fn array(out: &mut Vec<u8>, length: usize) {
    out.push(1);
    write_length(out, length);
}

pub(super) fn structure(out: &mut Vec<u8>, length: u8) {
    out.extend_from_slice(&[2, length]);
}

pub(super) fn boolean(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(&[3, u8::from(value)]);
}

pub(super) fn double_long_unsigned(out: &mut Vec<u8>, value: u32) {
    let [a, b, c, d] = value.to_be_bytes();
    out.extend_from_slice(&[6, a, b, c, d]);
}

pub(super) fn octet_string(out: &mut Vec<u8>, value: &[u8]) {
    out.push(9);
    write_length(out, value.len());
    out.extend_from_slice(value);
}

pub(super) fn integer(out: &mut Vec<u8>, value: i8) {
    out.extend_from_slice(&[15, value as u8]);
}

pub(super) fn long(out: &mut Vec<u8>, value: i16) {
    out.push(16);
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn unsigned(out: &mut Vec<u8>, value: u8) {
    out.extend_from_slice(&[17, value]);
}

pub(super) fn long_unsigned(out: &mut Vec<u8>, value: u16) {
    let [a, b] = value.to_be_bytes();
    out.extend_from_slice(&[18, a, b]);
}

pub(super) fn enumeration(out: &mut Vec<u8>, value: u8) {
    out.extend_from_slice(&[22, value]);
}

pub(super) fn logical_name(out: &mut Vec<u8>, name: LogicalName) {
    octet_string(out, &name.0);
}

/// A date-time as an octet string of 12.
pub(super) fn date_time(out: &mut Vec<u8>, octets: [u8; 12]) {
    let mut tagged = [9, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    tagged[2..].copy_from_slice(&octets);
    out.extend_from_slice(&tagged);
}

/// The octets of a date-time (Blue Book, "Date and time formats").
///
/// `offset_s` is local time minus UTC; the deviation is written as minutes to add to local time to get UTC.
pub(super) fn date_time_octets(clock_us: i64, offset_s: i64, status: u8) -> [u8; 12] {
    let mut octets = DateTime::from_wall(WallTime(clock_us), (-offset_s / 60) as i16).0;
    octets[11] = status;
    octets
}

/// The content of a fixed-length value of type `tag`, if that is all that `value` holds.
pub(super) fn fixed<const N: usize>(value: &[u8], tag: u8) -> Option<[u8; N]> {
    match value.split_first() {
        Some((first, content)) if *first == tag => content.try_into().ok(),
        _ => None,
    }
}

/// The octets of a date-time given as an octet string of 12 or as type 25.
pub(super) fn date_time_of(value: &[u8]) -> Option<DateTime> {
    match value {
        [9, 12, octets @ ..] | [25, octets @ ..] => octets.try_into().ok().map(DateTime),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ipss_session::CivilDateTime;

    use super::*;

    #[test]
    fn date_time_counts_the_deviation_from_local_to_utc() {
        // 2026-07-01T12:30:05.25 UTC is 14:30:05.25 in Central European summer time, a Wednesday.
        let clock = CivilDateTime { year: 2026, month: 7, day: 1, hour: 12, minute: 30, second: 5 }.to_wall().0;

        let octets = date_time_octets(clock + 250_000, 7_200, 0x80);

        assert_eq!(octets, [0x07, 0xea, 7, 1, 3, 14, 30, 5, 25, 0xff, 0x88, 0x80]);
    }
}
