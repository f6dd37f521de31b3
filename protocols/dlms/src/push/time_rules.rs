//! What a model's times mean. The standard says that local time + deviation = UTC (Blue Book, "Date and time
//! formats"); meters differ.

use ipss_session::{CivilDateTime, WallTime};

use crate::axdr::DateTime;

/// How the times in a model's pushes are to be understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeRules {
    /// The deviation has the opposite sign: minutes that local time is ahead of UTC.
    pub deviation_inverted: bool,
    /// The deviation that is sent means nothing.
    pub deviation_ignored: bool,
    /// Where the deviation is unspecified: that of normal time, in minutes to add to local time to get UTC.
    pub standard_deviation_min: Option<i16>,
    /// Whether such a clock follows the European Union's summer time. Some stay in normal time all year.
    pub summer_time_eu: bool,
}

impl TimeRules {
    /// The same moment with its deviation as the standard has it.
    pub fn resolve(&self, time: DateTime) -> DateTime {
        let mut resolved = time;
        let sent = time.deviation().filter(|_| !self.deviation_ignored);
        let deviation = match sent {
            Some(sent) if self.deviation_inverted => Some(sent.wrapping_neg()),
            Some(sent) => Some(sent),
            None => self.standard_deviation_min.map(|standard| {
                if self.summer_time_eu && is_summer_eu(time, standard) { standard.saturating_sub(60) } else { standard }
            }),
        };
        let octets = deviation.map_or([0x80, 0x00], i16::to_be_bytes);
        resolved.0[9..11].copy_from_slice(&octets);
        resolved
    }
}

/// Whether this local time is summer time in the European Union: from 01:00 UTC of March's last Sunday to 01:00 UTC of
/// October's. The hour that occurs twice is taken as the first, unless the clock's status says that summer time is over.
fn is_summer_eu(time: DateTime, standard_min: i16) -> bool {
    if let Some(status) = time.status() {
        if status & 0x80 != 0 {
            return true;
        }
    }
    let mut unspecified = time;
    unspecified.0[9..11].copy_from_slice(&[0x80, 0x00]);
    let (Some(local), Some(year)) = (unspecified.to_wall(), time.date().year()) else { return false };
    let change = |month| {
        let last = CivilDateTime { year: i32::from(year), month, day: 31, hour: 1, minute: 0, second: 0 };
        let days_after_sunday = i64::from(last.day_of_week() % 7);
        last.to_wall().0 - days_after_sunday * 86_400 * WallTime::SECOND
    };
    let behind = i64::from(standard_min) * 60 * WallTime::SECOND;
    let as_summer = local.0 + behind - 3_600 * WallTime::SECOND;
    // The second pass of the hour that occurs twice: a clock that says its status has summer time off in it.
    let twice = (change(10) - 3_600 * WallTime::SECOND..change(10)).contains(&as_summer);
    (change(3)..change(10)).contains(&as_summer) && !(twice && time.status().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(octets: [u8; 12]) -> DateTime {
        DateTime(octets)
    }

    /// 2023-07-01 12:00:00 with this deviation.
    fn july(deviation: i16) -> DateTime {
        let [high, low] = deviation.to_be_bytes();
        time([0x07, 0xE7, 7, 1, 6, 12, 0, 0, 0, high, low, 0])
    }

    #[test]
    fn quirk_28_a_deviation_of_the_opposite_sign_is_turned_round() {
        let rules = TimeRules { deviation_inverted: true, ..TimeRules::default() };

        assert_eq!(rules.resolve(july(120)).deviation(), Some(-120));
        assert_eq!(TimeRules::default().resolve(july(-120)), july(-120));
        assert_eq!(rules.resolve(july(i16::MIN)).deviation(), None);
    }

    #[test]
    fn quirk_27_an_unspecified_deviation_is_that_of_the_profile() {
        let normal = TimeRules { standard_deviation_min: Some(-60), ..TimeRules::default() };
        let summer = TimeRules { summer_time_eu: true, ..normal };

        assert_eq!(normal.resolve(july(i16::MIN)).deviation(), Some(-60), "normal time all year");
        assert_eq!(summer.resolve(july(i16::MIN)).deviation(), Some(-120));
        assert_eq!(TimeRules::default().resolve(july(i16::MIN)).deviation(), None);
        assert_eq!(TimeRules { deviation_ignored: true, ..normal }.resolve(july(0)).deviation(), Some(-60));
    }

    #[test]
    fn summer_time_begins_and_ends_on_the_last_sundays_of_march_and_october() {
        let rules = TimeRules { standard_deviation_min: Some(-60), summer_time_eu: true, ..TimeRules::default() };
        let at = |year: u16, month, day, hour, minute| {
            let [high, low] = year.to_be_bytes();
            rules.resolve(time([high, low, month, day, 0xFF, hour, minute, 0, 0, 0x80, 0, 0])).deviation()
        };

        for (year, march, october) in [(2023, 26, 29), (2024, 31, 27), (2025, 30, 26), (2026, 29, 25)] {
            assert_eq!(at(year, 3, march, 1, 59), Some(-60), "{year}");
            assert_eq!(at(year, 3, march, 3, 0), Some(-120), "{year}");
            assert_eq!(at(year, 10, october, 1, 59), Some(-120), "{year}");
            assert_eq!(at(year, 10, october, 3, 0), Some(-60), "{year}");
        }
    }

    #[test]
    fn the_hour_that_occurs_twice_is_told_apart_by_the_clocks_status() {
        let rules = TimeRules { standard_deviation_min: Some(-60), summer_time_eu: true, ..TimeRules::default() };
        let at = |hour, status| {
            let octets = [0x07, 0xE7, 10, 29, 0xFF, hour, 30, 0, 0, 0x80, 0, status];
            rules.resolve(time(octets)).deviation()
        };

        assert_eq!([at(2, 0x80), at(2, 0x00), at(2, 0xFF)], [Some(-120), Some(-60), Some(-120)]);
        assert_eq!([at(1, 0x00), at(3, 0x00)], [Some(-120), Some(-60)]);
    }

    #[test]
    fn quirk_29_a_wrong_day_of_the_week_hundredths_or_status_keep_no_reading_back() {
        let odd = time([0x07, 0xE7, 7, 1, 0xFF, 12, 0, 0, 0xFF, 0xFF, 0x88, 0xFF]);
        let wrong = time([0x07, 0xE7, 7, 1, 2, 12, 0, 0, 200, 0xFF, 0x88, 0x0F]);

        assert_eq!(odd.to_wall(), july(-120).to_wall());
        assert_eq!(wrong.to_wall(), odd.to_wall());
        assert_eq!(odd.status(), None);
    }
}
