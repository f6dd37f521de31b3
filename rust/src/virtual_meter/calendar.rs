//! Local days: where a meter's day begins, how long it is, and when summer time holds.
//!
//! All moments here are whole seconds of UTC since 1970-01-01.

use ipss_session::{CivilDateTime, WallTime};

/// Seconds in a day without a change of the clocks.
pub(super) const DAY_S: i64 = 86_400;

/// Length of a slot of the load curve, in seconds.
pub(super) const SLOT_S: i64 = 900;

/// The civil time that a fleet's meters show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Minutes to add to local standard time to get UTC (Blue Book, Clock, time_zone): -60 for Central Europe.
    /// A multiple of 15, as load-curve slots begin at local midnight.
    pub deviation_min: i16,
    /// Whether summer time is kept by the rule of the European Union (Directive 2000/84/EC): one hour ahead from
    /// the last Sunday of March, 01:00 UTC, to the last Sunday of October, 01:00 UTC.
    pub daylight_saving: bool,
}

impl Zone {
    /// Seconds to add to UTC to get local standard time.
    pub(super) fn standard_offset_s(self) -> i64 {
        -i64::from(self.deviation_min) * 60
    }

    /// Whether summer time holds at a moment.
    pub(super) fn summer_at(self, at_s: i64) -> bool {
        if !self.daylight_saving {
            return false;
        }
        let [begin, end] = Self::summer_of(year_of(at_s));
        (begin..end).contains(&at_s)
    }

    /// Seconds to add to UTC to get local time at a moment.
    pub(super) fn offset_s(self, at_s: i64) -> i64 {
        self.standard_offset_s() + if self.summer_at(at_s) { 3_600 } else { 0 }
    }

    /// The number of the local day that holds a moment: days since 1970-01-01 of the local date.
    pub(super) fn day_number(self, at_s: i64) -> i64 {
        (at_s + self.offset_s(at_s)).div_euclid(DAY_S)
    }

    /// The first second of a local day.
    pub(super) fn day_start(self, number: i64) -> i64 {
        let standard = number * DAY_S - self.standard_offset_s();
        let summer = standard - 3_600;
        if self.summer_at(summer) { summer } else { standard }
    }

    /// A local day by its number.
    pub(super) fn day(self, number: i64) -> LocalDay {
        let start_s = self.day_start(number);
        let end_s = self.day_start(number + 1);
        let (before_s, after_s) = (self.offset_s(start_s), self.offset_s(end_s));
        let change_s = if before_s == after_s {
            i64::MAX
        } else {
            let [begin, end] = Self::summer_of(year_of(start_s));
            if (start_s..=end_s).contains(&begin) { begin } else { end }
        };
        LocalDay { number, start_s, end_s, change_s, before_s, after_s }
    }

    /// The first second of the local month that holds a moment.
    pub(super) fn month_start(self, at_s: i64) -> i64 {
        let local = CivilDateTime::from_wall(WallTime((at_s + self.offset_s(at_s)) * WallTime::SECOND));
        self.day_start(self.day_number(at_s) - i64::from(local.day) + 1)
    }

    /// Begin and end of summer time in a year.
    fn summer_of(year: i32) -> [i64; 2] {
        [3, 10].map(|month| {
            let mut last = CivilDateTime { year, month, day: 31, hour: 1, minute: 0, second: 0 };
            last.day -= last.day_of_week() % 7;
            last.to_wall().0 / WallTime::SECOND
        })
    }
}

/// One local day.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalDay {
    /// Days since 1970-01-01 of the local date.
    pub number: i64,
    /// First second.
    pub start_s: i64,
    /// First second of the next day.
    pub end_s: i64,
    change_s: i64,
    before_s: i64,
    after_s: i64,
}

impl LocalDay {
    /// Whether a moment is of this day.
    pub(super) fn holds(&self, at_s: i64) -> bool {
        (self.start_s..self.end_s).contains(&at_s)
    }

    /// Seconds to add to UTC to get local time, at a moment of this day.
    pub(super) fn offset_s(&self, at_s: i64) -> i64 {
        if at_s < self.change_s { self.before_s } else { self.after_s }
    }

    /// How many slots of the load curve the day has: 96, or 92 and 100 when the clocks change.
    pub(super) fn slots(&self) -> usize {
        ((self.end_s - self.start_s) / SLOT_S) as usize
    }
}

fn year_of(at_s: i64) -> i32 {
    CivilDateTime::from_wall(WallTime(at_s.saturating_mul(WallTime::SECOND))).year
}

#[cfg(test)]
mod tests {
    use super::*;

    const CENTRAL_EUROPE: Zone = Zone { deviation_min: -60, daylight_saving: true };

    fn utc(year: i32, month: u8, day: u8, hour: u8, minute: u8) -> i64 {
        CivilDateTime { year, month, day, hour, minute, second: 0 }.to_wall().0 / WallTime::SECOND
    }

    #[test]
    fn summer_time_holds_between_the_last_sundays_of_march_and_october() {
        for (moment, summer) in [
            (utc(2026, 3, 29, 0, 59), false),
            (utc(2026, 3, 29, 1, 0), true),
            (utc(2026, 10, 25, 0, 59), true),
            (utc(2026, 10, 25, 1, 0), false),
            (utc(2024, 3, 31, 1, 0), true),
            (utc(2024, 10, 27, 1, 0), false),
        ] {
            assert_eq!(CENTRAL_EUROPE.summer_at(moment), summer, "{moment}");
        }
    }

    #[test]
    fn days_on_which_clocks_change_have_92_and_100_slots() {
        let day = |moment| CENTRAL_EUROPE.day(CENTRAL_EUROPE.day_number(moment));

        assert_eq!(day(utc(2026, 3, 29, 12, 0)).slots(), 92);
        assert_eq!(day(utc(2026, 10, 25, 12, 0)).slots(), 100);
        assert_eq!(day(utc(2026, 10, 26, 12, 0)).slots(), 96);
        assert_eq!(day(utc(2026, 3, 29, 12, 0)).start_s, utc(2026, 3, 28, 23, 0));
        assert_eq!(day(utc(2026, 7, 1, 12, 0)).start_s, utc(2026, 6, 30, 22, 0));
    }

    #[test]
    fn days_follow_each_other_without_gap_in_every_zone() {
        for deviation_min in [-120, -60, 0, 60] {
            let zone = Zone { deviation_min, daylight_saving: true };
            for number in 19_000..21_000 {
                let day = zone.day(number);
                assert_eq!(day.end_s, zone.day(number + 1).start_s);
                for at_s in [day.start_s, day.end_s - 1] {
                    assert_eq!(zone.day_number(at_s), number, "{zone:?} {at_s}");
                    assert_eq!(day.offset_s(at_s), zone.offset_s(at_s), "{zone:?} {at_s}");
                }
            }
        }
    }

    #[test]
    fn month_begins_at_local_midnight() {
        assert_eq!(CENTRAL_EUROPE.month_start(utc(2026, 4, 10, 3, 0)), utc(2026, 3, 31, 22, 0));
        assert_eq!(CENTRAL_EUROPE.month_start(utc(2026, 3, 31, 22, 30)), utc(2026, 3, 31, 22, 0));
        assert_eq!(CENTRAL_EUROPE.month_start(utc(2026, 1, 1, 0, 0)), utc(2025, 12, 31, 23, 0));
    }
}
