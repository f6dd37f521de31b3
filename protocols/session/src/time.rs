//! Moments, monotonic and civil, as arguments: nothing in a protocol reads a clock.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment on the monotonic clock, in nanoseconds since an origin that the driver chose. Deadlines are of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// The origin of the driver's monotonic clock.
    pub const ORIGIN: Self = Self(0);

    /// The time from `earlier` to `self`, zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates: a deadline beyond the end of the clock never passes.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

/// A moment in UTC, in microseconds since 1970-01-01T00:00:00Z. Capture times are of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WallTime(pub i64);

impl WallTime {
    /// No moment is known (the meter left its clock unspecified).
    pub const UNKNOWN: Self = Self(i64::MIN);

    /// Microseconds in a second.
    pub const SECOND: i64 = 1_000_000;
}

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// For deadlines and budgets.
    pub monotonic: Instant,
    /// For time stamps.
    pub wall: WallTime,
}

/// A date and time of the proleptic Gregorian calendar, without a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CivilDateTime {
    /// Year, -32768 to 32767.
    pub year: i32,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, 1 to 31.
    pub day: u8,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    pub minute: u8,
    /// Second, 0 to 59.
    pub second: u8,
}

impl CivilDateTime {
    /// Microseconds from 1970-01-01T00:00:00 to this reading of a clock, as if it showed UTC.
    ///
    /// Fields out of range do not panic; they carry over (month 13 is January of the next year).
    pub fn to_wall(self) -> WallTime {
        let seconds = days_from_civil(self.year, i64::from(self.month), i64::from(self.day)) * 86_400
            + i64::from(self.hour) * 3_600
            + i64::from(self.minute) * 60
            + i64::from(self.second);
        WallTime(seconds * WallTime::SECOND)
    }

    /// The reading of a UTC clock at `wall`; parts below a second are dropped.
    pub fn from_wall(wall: WallTime) -> Self {
        let seconds = wall.0.div_euclid(WallTime::SECOND);
        let (days, second_of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil_from_days(days);
        Self {
            year,
            month,
            day,
            hour: (second_of_day / 3_600) as u8,
            minute: (second_of_day / 60 % 60) as u8,
            second: (second_of_day % 60) as u8,
        }
    }

    /// Day of the week, Monday 1 to Sunday 7.
    pub fn day_of_week(self) -> u8 {
        (days_from_civil(self.year, i64::from(self.month), i64::from(self.day)) + 3).rem_euclid(7) as u8 + 1
    }
}

/// Days from 1970-01-01 (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_from_civil(year: i32, month: i64, day: i64) -> i64 {
    let year = i64::from(year) + (month - 1).div_euclid(12);
    let month = (month - 1).rem_euclid(12) + 1;
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i32, u8, u8) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted + 2) / 5 + 1) as u8;
    let month = (if shifted < 10 { shifted + 3 } else { shifted - 9 }) as u8;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year as i32, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn civil_date_time_agrees_with_known_moments() {
        let at = |year, month, day, hour| CivilDateTime { year, month, day, hour, minute: 0, second: 0 };

        assert_eq!(at(1970, 1, 1, 0).to_wall(), WallTime(0));
        assert_eq!(at(2000, 2, 29, 12).to_wall(), WallTime(951_825_600 * WallTime::SECOND));
        assert_eq!(at(2024, 12, 31, 23).to_wall(), WallTime(1_735_686_000 * WallTime::SECOND));
        assert_eq!(at(1969, 12, 31, 0).to_wall(), WallTime(-86_400 * WallTime::SECOND));
        assert_eq!(at(2026, 11, 22, 0).day_of_week(), 7);
    }

    #[test]
    fn every_day_of_four_centuries_survives_the_round_trip() {
        for day in -80_000..66_000_i64 {
            let wall = WallTime(day * 86_400 * WallTime::SECOND + 3_661 * WallTime::SECOND);
            assert_eq!(CivilDateTime::from_wall(wall).to_wall(), wall);
        }
    }

    #[test]
    fn deadline_beyond_the_end_of_the_clock_saturates() {
        assert_eq!(Instant(u64::MAX) + Duration::from_secs(1), Instant(u64::MAX));
        assert_eq!(Instant(5).since(Instant(9)), Duration::ZERO);
    }
}
