//! The meter's own clock: where it stands, how it drifts, and which capture moments it has passed.

use ipss_session::WallTime;

use super::calendar::Zone;

/// A stretch of time in which the meter's clock ran undisturbed: from one setting to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// True UTC at which the stretch begins, microseconds.
    pub true_us: i64,
    /// What the meter's clock showed then, as UTC, microseconds.
    pub clock_us: i64,
    /// How fast the clock runs: tenths of a part per million ahead.
    pub drift: i32,
}

/// Tenths of a part per million in one.
const WHOLE: i64 = 10_000_000;

impl Stretch {
    /// What the clock shows at a true moment (both microseconds of UTC).
    pub fn clock_at(&self, true_us: i64) -> i64 {
        let passed = true_us.saturating_sub(self.true_us);
        self.clock_us.saturating_add(passed).saturating_add(scale(passed, self.drift, WHOLE))
    }

    /// The true moment at which the clock shows `clock_us`.
    pub fn moment_of(&self, clock_us: i64) -> i64 {
        let shown = clock_us.saturating_sub(self.clock_us);
        let excess = scale(shown, self.drift, WHOLE + i64::from(self.drift));
        self.true_us.saturating_add(shown).saturating_sub(excess)
    }
}

/// `value * factor / divisor` without overflow for any time span.
fn scale(value: i64, factor: i32, divisor: i64) -> i64 {
    (i128::from(value) * i128::from(factor)).div_euclid(i128::from(divisor)) as i64
}

/// When a profile captures, by the meter's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schedule {
    /// Every so many seconds, from the full hour.
    Every(i64),
    /// At local midnight.
    Midnight(Zone),
}

impl Schedule {
    /// The number of the last capture moment at or before a clock reading (microseconds).
    pub fn last_until(self, clock_us: i64) -> i64 {
        let clock_s = clock_us.div_euclid(WallTime::SECOND);
        match self {
            Self::Every(period_s) => clock_s.div_euclid(period_s),
            Self::Midnight(zone) => zone.day_number(clock_s),
        }
    }

    /// The clock reading of a capture moment, in seconds.
    pub fn clock_s(self, number: i64) -> i64 {
        match self {
            Self::Every(period_s) => number * period_s,
            Self::Midnight(zone) => zone.day_start(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_and_its_inverse_agree_to_the_microsecond() {
        for drift in [-200, -7, 0, 7, 200] {
            let stretch = Stretch { true_us: 1_000_000, clock_us: 3_500_000, drift };
            for passed in [0, 1, 86_400_000_000, 31_557_600_000_000] {
                let shown = stretch.clock_at(1_000_000 + passed);
                assert!((stretch.moment_of(shown) - 1_000_000 - passed).abs() <= 1, "{drift} {passed}");
            }
        }
    }

    #[test]
    fn clock_of_20_ppm_gains_1728_milliseconds_a_day() {
        let stretch = Stretch { true_us: 0, clock_us: 0, drift: 200 };

        assert_eq!(stretch.clock_at(86_400_000_000), 86_401_728_000);
    }
}
