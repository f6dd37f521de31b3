//! The year and the sun, as integer tables made at compile time, so that every machine computes the same energy.

/// One in the fixed-point numbers of this file.
pub(crate) const ONE: i64 = 1 << 15;

/// Days of the Julian four-year cycle, after which the season table repeats.
const CYCLE: usize = 1_461;

/// `SEASON[i]`: the sum of the season over the first `i` days of the cycle that began on 1970-01-01.
static SEASON: [i32; CYCLE + 1] = season_sums();

/// Cosine of the hour angle in the middle of each quarter of an hour of the solar day, noon is 1.
static HOUR_ANGLE: [i32; 96] = hour_angles();

/// Sine of whole degrees 0 to 90.
static SINE: [i32; 91] = sines();

/// The sum of the season, `ONE` at its coldest (28 December, northern hemisphere) and `-ONE` half a year away, over
/// all days before day `number` (days since 1970-01-01).
pub(super) fn season_until(number: i64) -> i64 {
    let cycle = CYCLE as i64;
    number.div_euclid(cycle) * i64::from(SEASON[CYCLE]) + i64::from(SEASON[number.rem_euclid(cycle) as usize])
}

/// The sines of the sun's height in a day, by the quarter of an hour of the solar day.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SunDay {
    constant: i64,
    swing: i64,
}

impl SunDay {
    /// The sun on day `number` at a latitude in whole degrees, north positive.
    pub(crate) fn new(number: i64, latitude_deg: i8) -> Self {
        let season = season_until(number + 1) - season_until(number);
        // Obliquity of the ecliptic: 23.44 degrees, its sine 0.3978. The 6 days between 28 and 22 December matter
        // to nobody here.
        let declination = -(season * 13_035) / ONE;
        let declination_cosine = root(ONE * ONE - declination * declination);
        let degrees = usize::from(latitude_deg.unsigned_abs().min(90));
        let latitude = i64::from(SINE[degrees]) * i64::from(latitude_deg.signum());
        let latitude_cosine = i64::from(SINE[90 - degrees]);
        Self { constant: latitude * declination / ONE, swing: latitude_cosine * declination_cosine / ONE }
    }

    /// Sine of the sun's height in the middle of quarter `quarter` (0 to 95) of the solar day; 0 when it is down.
    pub(crate) fn height(&self, quarter: usize) -> i64 {
        (self.constant + self.swing * i64::from(HOUR_ANGLE[quarter % 96]) / ONE).max(0)
    }
}

/// Integer square root, for numbers up to 2^30.
fn root(value: i64) -> i64 {
    value.max(0).isqrt()
}

const fn season_sums() -> [i32; CYCLE + 1] {
    let mut sums = [0; CYCLE + 1];
    let mut day = 0;
    while day < CYCLE {
        sums[day + 1] = sums[day] + fixed(cosine((day as f64 + 4.0) / 365.25));
        day += 1;
    }
    sums
}

const fn hour_angles() -> [i32; 96] {
    let mut angles = [0; 96];
    let mut quarter = 0;
    while quarter < 96 {
        angles[quarter] = fixed(cosine((quarter as f64 + 0.5) / 96.0 - 0.5));
        quarter += 1;
    }
    angles
}

const fn sines() -> [i32; 91] {
    let mut sines = [0; 91];
    let mut degrees = 0;
    while degrees <= 90 {
        sines[degrees] = fixed(cosine((90 - degrees) as f64 / 360.0));
        degrees += 1;
    }
    sines
}

const fn fixed(value: f64) -> i32 {
    (value * ONE as f64) as i32
}

/// Cosine of a number of turns (Taylor's series; compile time only).
const fn cosine(turns: f64) -> f64 {
    let turns = turns - (turns as i64) as f64;
    let turns = if turns > 0.5 {
        turns - 1.0
    } else if turns < -0.5 {
        turns + 1.0
    } else {
        turns
    };
    let angle = turns * 2.0 * core::f64::consts::PI;
    let (mut term, mut sum, mut order) = (1.0, 1.0, 1);
    while order <= 13 {
        term *= -angle * angle / ((2 * order - 1) * (2 * order)) as f64;
        sum += term;
        order += 1;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Days since 1970-01-01 of 2026-06-21 and 2026-12-21.
    const SOLSTICES: [i64; 2] = [20_625, 20_808];

    fn daylight_quarters(number: i64, latitude_deg: i8) -> usize {
        let sun = SunDay::new(number, latitude_deg);
        (0..96).filter(|quarter| sun.height(*quarter) > 0).count()
    }

    #[test]
    fn tables_agree_with_the_cosine() {
        assert_eq!((SINE[0], SINE[30], SINE[90]), (0, 16_384, 32_768));
        assert!(HOUR_ANGLE[47] > 32_700 && HOUR_ANGLE[0] < -32_700);
        assert!(SEASON[CYCLE].abs() < 4_000, "the season leaves no trend: {}", SEASON[CYCLE]);
    }

    #[test]
    fn days_are_as_long_as_the_latitude_and_the_season_make_them() {
        // Central Europe: about 16.5 and 8 hours; the equator: 12 hours; the south: the other way round.
        let [june, december] = SOLSTICES;

        assert!((64..=68).contains(&daylight_quarters(june, 51)), "{}", daylight_quarters(june, 51));
        assert!((29..=33).contains(&daylight_quarters(december, 51)), "{}", daylight_quarters(december, 51));
        assert_eq!(daylight_quarters(june, 0), 48);
        assert!(daylight_quarters(june, -35) < daylight_quarters(december, -35));
    }
}
