//! Dates and times as meters send them (Blue Book, "Date and time formats"): any part may be unspecified.

use ipss_session::{CivilDateTime, Line, WallTime};

/// Twelve octets: date (5), time (4), deviation (2), clock status (1). Any octets are a `DateTime`; its parts say
/// what is specified.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DateTime(pub [u8; 12]);

impl DateTime {
    /// Every part unspecified.
    pub const UNSPECIFIED: Self = Self([0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x80, 0x00, 0xFF]);

    /// `wall` as a clock shows it that is `deviation` minutes behind UTC (local + deviation = UTC).
    /// Pass [`Line::NO_DEVIATION`] to show UTC with the deviation left unspecified. The status is 0, valid.
    pub fn from_wall(wall: WallTime, deviation: i16) -> Self {
        let behind = if deviation == Line::NO_DEVIATION { 0 } else { i64::from(deviation) };
        let local = WallTime(wall.0.saturating_sub(behind * 60 * WallTime::SECOND));
        let civil = CivilDateTime::from_wall(local);
        let hundredths = local.0.rem_euclid(WallTime::SECOND) / 10_000;
        let [year_high, year_low] = (civil.year as u16).to_be_bytes();
        let [deviation_high, deviation_low] = deviation.to_be_bytes();
        Self([
            year_high,
            year_low,
            civil.month,
            civil.day,
            civil.day_of_week(),
            civil.hour,
            civil.minute,
            civil.second,
            hundredths as u8,
            deviation_high,
            deviation_low,
            0,
        ])
    }

    /// The moment in UTC, or `None` if year, month, day, hour, minute or second is unspecified, repeating or out of
    /// range. Unspecified hundredths count as 0, an unspecified deviation as UTC; the day of the week is not looked
    /// at, since meters get it wrong.
    pub fn to_wall(self) -> Option<WallTime> {
        let (date, time) = (self.date(), self.time());
        let (month, day) = (date.month()?, date.day()?);
        let (hour, minute, second) = (time.hour()?, time.minute()?, time.second()?);
        let year = i32::from(date.year()?);
        if month > 12 || day > days_in_month(year, month) || month == 0 || day == 0 {
            return None;
        }
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let local = CivilDateTime { year, month, day, hour, minute, second }.to_wall().0;
        let hundredths = i64::from(time.hundredths().filter(|hundredths| *hundredths < 100).unwrap_or(0));
        let behind = i64::from(self.deviation().unwrap_or(0)) * 60 * WallTime::SECOND;
        Some(WallTime(local + hundredths * 10_000 + behind))
    }

    /// The date part.
    pub fn date(self) -> Date {
        let [a, b, c, d, e, ..] = self.0;
        Date([a, b, c, d, e])
    }

    /// The time part.
    pub fn time(self) -> Time {
        let [_, _, _, _, _, a, b, c, d, ..] = self.0;
        Time([a, b, c, d])
    }

    /// Minutes to add to local time to get UTC, unless unspecified (8000).
    pub fn deviation(self) -> Option<i16> {
        Some(i16::from_be_bytes([self.0[9], self.0[10]])).filter(|deviation| *deviation != Line::NO_DEVIATION)
    }

    /// The clock status octet, unless unspecified (FF). Bit 0 invalid, 1 doubtful, 2 other base, 3 invalid status,
    /// 7 daylight saving active.
    pub fn status(self) -> Option<u8> {
        specified(self.0[11])
    }
}

/// Five octets: year (2), month, day of the month, day of the week.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Date(pub [u8; 5]);

impl Date {
    /// The year, unless unspecified (FFFF).
    pub fn year(self) -> Option<u16> {
        Some(u16::from_be_bytes([self.0[0], self.0[1]])).filter(|year| *year != 0xFFFF)
    }

    /// 1 to 12, FD (daylight saving ends) or FE (it begins), unless unspecified.
    pub fn month(self) -> Option<u8> {
        specified(self.0[2])
    }

    /// 1 to 31, FD (second last day of the month) or FE (last day), unless unspecified.
    pub fn day(self) -> Option<u8> {
        specified(self.0[3])
    }

    /// Monday 1 to Sunday 7, unless unspecified.
    pub fn day_of_week(self) -> Option<u8> {
        specified(self.0[4])
    }
}

/// Four octets: hour, minute, second, hundredths.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Time(pub [u8; 4]);

impl Time {
    /// 0 to 23, unless unspecified.
    pub fn hour(self) -> Option<u8> {
        specified(self.0[0])
    }

    /// 0 to 59, unless unspecified.
    pub fn minute(self) -> Option<u8> {
        specified(self.0[1])
    }

    /// 0 to 59, unless unspecified.
    pub fn second(self) -> Option<u8> {
        specified(self.0[2])
    }

    /// 0 to 99, unless unspecified.
    pub fn hundredths(self) -> Option<u8> {
        specified(self.0[3])
    }
}

fn specified(octet: u8) -> Option<u8> {
    (octet != 0xFF).then_some(octet)
}

pub(crate) fn days_in_month(year: i32, month: u8) -> u8 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMER: DateTime = DateTime([0x07, 0xE6, 7, 1, 5, 14, 37, 18, 0x32, 0xFF, 0x88, 0x80]);

    #[test]
    fn deviation_is_added_to_local_time() {
        let noon = CivilDateTime { year: 2022, month: 7, day: 1, hour: 12, minute: 37, second: 18 };

        assert_eq!(SUMMER.deviation(), Some(-120));
        assert_eq!(SUMMER.to_wall(), Some(WallTime(noon.to_wall().0 + 500_000)));
        assert_eq!(SUMMER.status(), Some(0x80));
    }

    #[test]
    fn unspecified_or_impossible_parts_give_no_moment() {
        for (place, octet) in [
            (2, 0xFF),
            (2, 0xFE),
            (2, 0xFD),
            (2, 13),
            (2, 0),
            (3, 0xFF),
            (3, 0xFE),
            (3, 32),
            (3, 0),
            (5, 24),
            (6, 60),
            (7, 0xFF),
        ] {
            let mut octets = SUMMER.0;
            octets[place] = octet;
            assert_eq!(DateTime(octets).to_wall(), None, "octet {place} = {octet:02X}");
        }
        assert_eq!(DateTime::UNSPECIFIED.to_wall(), None);
        assert_eq!(DateTime::UNSPECIFIED.deviation(), None);
        assert_eq!(DateTime::UNSPECIFIED.date().year(), None);
        assert_eq!(DateTime::UNSPECIFIED.status(), None);
    }

    #[test]
    fn thirtieth_of_february_is_no_moment() {
        let mut octets = SUMMER.0;
        (octets[2], octets[3]) = (2, 29);
        assert_eq!(DateTime(octets).to_wall(), None);
        octets[1] = 0xE8;
        assert!(DateTime(octets).to_wall().is_some());
    }

    #[test]
    fn wrong_day_of_week_and_unknown_hundredths_do_no_harm() {
        let mut octets = SUMMER.0;
        (octets[4], octets[8], octets[11]) = (0xFF, 0xFF, 0xFF);

        assert_eq!(DateTime(octets).to_wall().map(|wall| wall.0 % 1_000_000), Some(0));
    }

    #[test]
    fn moments_survive_the_round_trip() {
        for deviation in [-840, -120, 0, 300, 720, Line::NO_DEVIATION] {
            for day in (0..40_000).step_by(7) {
                let wall = WallTime((day * 86_400 + 45_296) * WallTime::SECOND + 120_000);
                let sent = DateTime::from_wall(wall, deviation);
                assert_eq!(sent.to_wall(), Some(wall));
                assert_eq!(sent.deviation().unwrap_or(Line::NO_DEVIATION), deviation);
            }
        }
    }
}
