//! Units and exact scaling (Blue Book, "Register", scaler_unit and the table of units).

use std::fmt;

use crate::axdr::Data;

/// A unit by its number in the Blue Book.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unit(pub u8);

/// How a register's integer becomes a physical value: integer x 10^scaler unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScalerUnit {
    /// The power of ten.
    pub scaler: i8,
    /// The unit.
    pub unit: Unit,
}

impl Unit {
    /// Watt-hours.
    pub const WATT_HOUR: Self = Self(30);
    /// A number without a unit (count).
    pub const COUNT: Self = Self(255);

    /// The unit with this symbol; the first where two share one.
    pub fn named(symbol: &str) -> Option<Self> {
        (1..=254).map(Self).find(|unit| unit.symbol() == Some(symbol))
    }

    /// The symbol; empty for a number without unit, `None` for numbers that nobody has defined.
    pub fn symbol(self) -> Option<&'static str> {
        Some(match self.0 {
            number @ 1..=72 => SYMBOLS[usize::from(number) - 1],
            number @ 128..=174 => IMPERIAL_SYMBOLS[usize::from(number) - 128],
            254 => "other",
            255 => return Some(""),
            _ => return None,
        })
        .filter(|symbol| !symbol.is_empty())
    }
}

/// The symbol, or the number where there is none.
impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.symbol() {
            Some(symbol) => f.write_str(symbol),
            None => write!(f, "unit {}", self.0),
        }
    }
}

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unit({} {:?})", self.0, self.symbol().unwrap_or_default())
    }
}

impl ScalerUnit {
    /// A structure of integer and enum. Meters that write other integer types are understood.
    pub fn from_data(data: &Data) -> Option<Self> {
        let [scaler, unit] = data.elements()? else { return None };
        let scaler = i8::try_from(scaler.as_integer()?).ok()?;
        Some(Self { scaler, unit: Unit(u8::try_from(unit.as_integer()?).ok()?) })
    }

    /// The structure.
    pub fn to_data(self) -> Data {
        Data::Structure(vec![Data::Integer(self.scaler), Data::Enum(self.unit.0)])
    }
}

/// `integer` x 10^`scaler` in decimal digits, exactly: (12345678, -3) is `12345.678`, (-5, 2) is `-500`.
pub fn scaled(integer: i128, scaler: i8) -> String {
    let digits = integer.unsigned_abs().to_string();
    let sign = if integer < 0 { "-" } else { "" };
    let places = usize::from(scaler.unsigned_abs());
    match scaler {
        _ if integer == 0 && scaler >= 0 => "0".to_owned(),
        0.. => format!("{sign}{digits}{}", "0".repeat(places)),
        _ => {
            let digits = format!("{digits:0>width$}", width = places + 1);
            let (whole, fraction) = digits.split_at(digits.len() - places);
            format!("{sign}{whole}.{fraction}")
        }
    }
}

#[rustfmt::skip]
const SYMBOLS: [&str; 72] = [
    "a", "mo", "wk", "d", "h", "min", "s", "°", "°C", "currency",
    "m", "m/s", "m³", "m³", "m³/h", "m³/h", "m³/d", "m³/d", "l", "kg",
    "N", "Nm", "Pa", "bar", "J", "J/h", "W", "VA", "var", "Wh",
    "VAh", "varh", "A", "C", "V", "V/m", "F", "Ω", "Ωm²/m", "Wb",
    "T", "A/m", "H", "Hz", "1/(Wh)", "1/(varh)", "1/(VAh)", "V²h", "A²h", "kg/s",
    "S", "K", "1/(V²h)", "1/(A²h)", "1/m³", "%", "Ah", "", "", "Wh/m³",
    "J/m³", "mol %", "g/m³", "Pa s", "J/kg", "g/cm²", "atm", "", "", "dBm",
    "dBµV", "dB",
];

/// Units beside the SI, from 128.
#[rustfmt::skip]
const IMPERIAL_SYMBOLS: [&str; 47] = [
    "in", "ft", "lb", "°F", "°R", "in²", "ft²", "ac", "in³", "ft³",
    "ac ft", "gal (imp)", "gal (US)", "lbf", "psi", "lb/ft³", "lb/(ft s)", "ft²/s", "Btu", "thm (EU)",
    "thm (US)", "Btu/lb", "Btu/ft³", "cft", "ft/s", "ft³/s", "ft³/min", "ft³/h", "ft³/d", "ac ft/s",
    "ac ft/min", "ac ft/h", "ac ft/d", "gal (imp)", "gal (imp)/s", "gal (imp)/min", "gal (imp)/h", "gal (imp)/d",
    "gal (US)", "gal (US)/s", "gal (US)/min", "gal (US)/h", "gal (US)/d", "Btu/s", "Btu/min", "Btu/h", "Btu/d",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_blue_books_symbols() {
        for (number, symbol) in [
            (1, Some("a")),
            (9, Some("°C")),
            (27, Some("W")),
            (30, Some("Wh")),
            (32, Some("varh")),
            (35, Some("V")),
            (44, Some("Hz")),
            (56, Some("%")),
            (57, Some("Ah")),
            (58, None),
            (60, Some("Wh/m³")),
            (67, Some("atm")),
            (70, Some("dBm")),
            (72, Some("dB")),
            (128, Some("in")),
            (146, Some("Btu")),
            (174, Some("Btu/d")),
            (0, None),
            (73, None),
            (200, None),
            (254, Some("other")),
            (255, Some("")),
        ] {
            assert_eq!(Unit(number).symbol(), symbol, "{number}");
        }
    }

    #[test]
    fn scaling_is_exact_for_every_sign_and_size() {
        for (integer, scaler, text) in [
            (12_345_678, -3, "12345.678"),
            (5, -3, "0.005"),
            (-5, -1, "-0.5"),
            (-5, 2, "-500"),
            (0, -2, "0.00"),
            (0, 3, "0"),
            (i128::from(u64::MAX), -6, "18446744073709.551615"),
            (1, i8::MAX, &format!("1{}", "0".repeat(127))),
            (7, 0, "7"),
        ] {
            assert_eq!(scaled(integer, scaler), text);
        }
        assert_eq!(scaled(1, i8::MIN).len(), 130);
    }

    #[test]
    fn scaler_unit_survives_the_round_trip() {
        let kilowatt_hours = ScalerUnit { scaler: 3, unit: Unit::WATT_HOUR };

        assert_eq!(ScalerUnit::from_data(&kilowatt_hours.to_data()), Some(kilowatt_hours));
        assert_eq!(ScalerUnit::from_data(&Data::Null), None);
    }
}
