//! Exact decimals: an integer mantissa and a power of ten, for values that arrive as integers or as binary floats.

/// `mantissa * 10^scaler`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    /// The digits.
    pub mantissa: i128,
    /// The power of ten.
    pub scaler: i8,
}

impl Decimal {
    /// A mantissa at a scaler.
    pub const fn new(mantissa: i128, scaler: i8) -> Self {
        Self { mantissa, scaler }
    }

    /// The shortest decimal that reads back as this float; `None` if it is not finite.
    pub fn from_f32(float: f32) -> Option<Self> {
        float.is_finite().then(|| Self::shortest(&format!("{float:e}"))).flatten()
    }

    /// The shortest decimal that reads back as this float; `None` if it is not finite or its power of ten is out of
    /// what a scaler holds.
    pub fn from_f64(float: f64) -> Option<Self> {
        float.is_finite().then(|| Self::shortest(&format!("{float:e}"))).flatten()
    }

    /// The mantissa at another scaler, if that loses nothing and fits.
    pub fn at(self, scaler: i8) -> Option<i128> {
        let shift = i32::from(self.scaler) - i32::from(scaler);
        let factor = power_of_ten(shift.unsigned_abs())?;
        match shift {
            0.. => self.mantissa.checked_mul(factor),
            _ => (self.mantissa % factor == 0).then_some(self.mantissa / factor),
        }
    }

    /// The mantissa at another scaler, rounded half to even where digits are lost; `None` if it does not fit.
    pub fn rounded_at(self, scaler: i8) -> Option<i128> {
        let shift = i32::from(self.scaler) - i32::from(scaler);
        if shift >= 0 {
            return self.mantissa.checked_mul(power_of_ten(shift.unsigned_abs())?);
        }
        let Some(factor) = power_of_ten(shift.unsigned_abs()) else { return Some(0) };
        let (quotient, rest) = (self.mantissa.div_euclid(factor), self.mantissa.rem_euclid(factor));
        let up = match (rest * 2).cmp(&factor) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => quotient % 2 != 0,
            std::cmp::Ordering::Greater => true,
        };
        Some(quotient + i128::from(up))
    }

    /// Read `-12.5` or `1e3`; `None` for what is no decimal number or too long.
    pub fn parse(text: &str) -> Option<Self> {
        let (digits, exponent) = match text.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.len() + fraction.len() > MAX_DIGITS || !fraction.bytes().all(|octet| octet.is_ascii_digit()) {
            return None;
        }
        let mantissa = format!("{whole}{fraction}").parse().ok()?;
        let scaler = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
        Some(Self { mantissa, scaler: i8::try_from(scaler).ok()? })
    }

    fn shortest(text: &str) -> Option<Self> {
        let decimal = Self::parse(text)?;
        Some(if decimal.mantissa == 0 { Self::new(0, 0) } else { decimal })
    }
}

impl std::fmt::Display for Decimal {
    /// In full, without an exponent: `230.1`, `-0.05`, `1200`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = self.mantissa.unsigned_abs().to_string();
        let sign = if self.mantissa < 0 { "-" } else { "" };
        if self.scaler >= 0 {
            let zeros = if self.mantissa == 0 { 0 } else { self.scaler.unsigned_abs() };
            return write!(f, "{sign}{digits}{}", "0".repeat(usize::from(zeros)));
        }
        let places = usize::from(self.scaler.unsigned_abs());
        let digits = format!("{digits:0>width$}", width = places + 1);
        let (whole, fraction) = digits.split_at(digits.len() - places);
        write!(f, "{sign}{whole}.{fraction}")
    }
}

/// `10^exponent`, if an `i128` holds it.
fn power_of_ten(exponent: u32) -> Option<i128> {
    10_i128.checked_pow(exponent)
}

/// Digits of a decimal that is read: more than any register holds, and an `i128` holds them.
const MAX_DIGITS: usize = 38;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_becomes_its_shortest_decimal() {
        assert_eq!(Decimal::from_f32(230.12), Some(Decimal::new(23_012, -2)));
        assert_eq!(Decimal::from_f32(-0.0), Some(Decimal::new(0, 0)));
        assert_eq!(Decimal::from_f32(16_777_216.0), Some(Decimal::new(16_777_216, 0)));
        assert_eq!(Decimal::from_f64(1e-7), Some(Decimal::new(1, -7)));
        assert_eq!(Decimal::from_f32(f32::NAN), None);
        assert_eq!(Decimal::from_f64(f64::INFINITY), None);
        assert_eq!(Decimal::from_f64(5e-300), None);
    }

    #[test]
    fn another_scaler_loses_nothing_or_says_so() {
        assert_eq!(Decimal::new(12_340, -3).at(-2), Some(1_234));
        assert_eq!(Decimal::new(12_341, -3).at(-2), None);
        assert_eq!(Decimal::new(12, 3).at(0), Some(12_000));
        assert_eq!(Decimal::new(1, 127).at(-128), None);
    }

    #[test]
    fn rounding_goes_half_to_even() {
        let rounded = |mantissa| Decimal::new(mantissa, -1).rounded_at(0);

        assert_eq!([25, 35, -25, 24, 26].map(rounded), [2, 4, -2, 2, 3].map(Some));
        assert_eq!(Decimal::new(7, -128).rounded_at(0), Some(0));
    }

    #[test]
    fn text_is_written_in_full_and_read_back() {
        for (decimal, text) in [
            (Decimal::new(23_012, -2), "230.12"),
            (Decimal::new(-5, -2), "-0.05"),
            (Decimal::new(12, 2), "1200"),
            (Decimal::new(0, 3), "0"),
        ] {
            assert_eq!(decimal.to_string(), text);
        }
        assert_eq!(Decimal::parse("-0.05"), Some(Decimal::new(-5, -2)));
        assert_eq!(Decimal::parse("1.5e3"), Some(Decimal::new(15, 2)));
        for wrong in ["", "-", "1.-5", "1e", "1e999", "0x10", "١"] {
            assert_eq!(Decimal::parse(wrong), None, "{wrong}");
        }
    }
}
