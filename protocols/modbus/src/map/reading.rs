//! From registers to a reading, and from a set point to registers.

use super::{Kind, Point};
use crate::decimal::Decimal;

/// What a point says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    None,
    /// A number; [`Reading::scaler`] says its power of ten.
    Integer(i128),
    /// Text, or the name of an enumeration's number.
    Text(String),
    /// The bits that are set.
    Bits(u64),
}

/// How far a reading can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// As far as the device can.
    Good,
    /// The device says that it does not have it now.
    NotAvailable,
    /// The registers hold what their type cannot: digits above 9, a float that is no number, text that is none.
    Invalid,
    /// The register of its scale factor is not known or out of range: the value is scaled by the map alone.
    ScaleUnknown,
}

/// One value with its meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The value: exact, floats as their shortest decimal.
    pub value: Value,
    /// The power of ten of an integer.
    pub scaler: i8,
    /// How far to believe it.
    pub status: Status,
}

impl Reading {
    fn none(status: Status) -> Self {
        Self { value: Value::None, scaler: 0, status }
    }

    /// The number, if it is one.
    pub fn decimal(&self) -> Option<Decimal> {
        match self.value {
            Value::Integer(mantissa) => Some(Decimal::new(mantissa, self.scaler)),
            _ => None,
        }
    }
}

/// A set point that a point cannot take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{point}: {message}")]
pub struct WriteError {
    /// The point.
    pub point: String,
    /// What was found and what is expected.
    pub message: String,
}

impl Point {
    /// The reading in `registers` (one register of 0 or 1 for a bit), whose further power of ten is `factor` if the map
    /// takes it from another point. Registers that are not as many as the point has are an invalid reading.
    pub fn read(&self, registers: &[u16], factor: Option<i64>) -> Reading {
        if registers.len() != usize::from(self.count) {
            return Reading::none(Status::Invalid);
        }
        if matches!(self.kind, Kind::Text) {
            return self.text(registers);
        }
        // Every kind but text has four registers at most.
        let words = self.high_first(registers);
        let raw = words.iter().fold(0_u64, |word, register| word << 16 | u64::from(*register));
        if self.not_available.contains(&raw) {
            return Reading::none(Status::NotAvailable);
        }
        let bits = 16 * u32::from(self.count.clamp(1, 4));
        let number = match self.kind {
            Kind::Unsigned | Kind::Bit => Some(Decimal::new(raw.into(), 0)),
            Kind::Signed => Some(Decimal::new(((raw << (64 - bits)) as i64 >> (64 - bits)).into(), 0)),
            Kind::Float if self.count == 2 => Decimal::from_f32(f32::from_bits(raw as u32)),
            Kind::Float => Decimal::from_f64(f64::from_bits(raw)),
            Kind::Bcd => digits(&words).map(|digits| Decimal::new(digits, 0)),
            Kind::Mod10k => mod10k(&words).map(|number| Decimal::new(number, 0)),
            Kind::Bits => return Reading { value: Value::Bits(raw), scaler: 0, status: Status::Good },
            Kind::Enumeration => {
                let name = u32::try_from(raw).ok().and_then(|raw| self.names.iter().find(|name| name.0 == raw));
                let value = name.map_or(Value::Integer(raw.into()), |name| Value::Text(name.1.clone()));
                return Reading { value, scaler: 0, status: Status::Good };
            }
            Kind::Text => None,
        };
        let Some(number) = number else { return Reading::none(Status::Invalid) };
        let factor = match (&self.scale_from, factor) {
            (None, _) => Some(0),
            (Some(_), Some(factor)) => i8::try_from(factor).ok().filter(|factor| (-10..=10).contains(factor)),
            (Some(_), None) => None,
        };
        let status = if factor.is_some() { Status::Good } else { Status::ScaleUnknown };
        // A float's own power of ten may be large; one that no scaler holds is no value of this world.
        let scaler = number.scaler.checked_add(self.scale).and_then(|scaler| scaler.checked_add(factor.unwrap_or(0)));
        match scaler {
            Some(scaler) => Reading { value: Value::Integer(number.mantissa), scaler, status },
            None => Reading::none(Status::Invalid),
        }
    }

    /// The registers that say `number`; exact or refused, because a rounded set point is another set point.
    ///
    /// # Errors
    /// The point may not be written, is of a kind that is not written, or cannot say this number.
    pub fn write(&self, number: Decimal, factor: Option<i64>) -> Result<Vec<u16>, WriteError> {
        let refuse = |message: String| Err(WriteError { point: self.name.clone(), message });
        if !self.writable {
            return refuse("may only be read".into());
        }
        let factor = match (&self.scale_from, factor.map(i8::try_from)) {
            (None, _) => 0,
            (Some(_), Some(Ok(factor))) => factor,
            (Some(name), _) => return refuse(format!("its scale factor {name} is not known")),
        };
        let step = self.scale.saturating_add(factor);
        let bits = 16 * u32::from(self.count.clamp(1, 4));
        let raw = match self.kind {
            Kind::Float => {
                let scaled = Decimal::new(number.mantissa, number.scaler.saturating_sub(step));
                let float: f64 = scaled.to_string().parse().unwrap_or(f64::NAN);
                if self.count == 2 { u64::from((float as f32).to_bits()) } else { float.to_bits() }
            }
            Kind::Unsigned | Kind::Signed | Kind::Enumeration | Kind::Bits | Kind::Bit => {
                let Some(integer) = number.at(step) else {
                    return refuse(format!("{number} cannot be said in steps of {}", Decimal::new(1, step)));
                };
                let (low, high) = match self.kind {
                    Kind::Signed => (-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1),
                    Kind::Bit => (0, 1),
                    _ => (0, (1_i128 << bits) - 1),
                };
                if !(low..=high).contains(&integer) {
                    let step = Decimal::new(1, step);
                    return refuse(format!("{number} is not in {low} to {high} steps of {step}"));
                }
                let raw = integer as u64 & (u64::MAX >> (64 - bits));
                if self.not_available.contains(&raw) {
                    return refuse(format!("{number} is the device's word for \"not available\""));
                }
                raw
            }
            Kind::Text | Kind::Bcd | Kind::Mod10k => return refuse("is of a kind that is not written".into()),
        };
        let mut words: Vec<u16> = (0..self.count).rev().map(|word| (raw >> (16 * u32::from(word))) as u16).collect();
        self.swap(&mut words);
        Ok(words)
    }

    fn high_first(&self, registers: &[u16]) -> Vec<u16> {
        let mut words = registers.to_vec();
        self.swap(&mut words);
        words
    }

    /// From the device's order to the highest first, and back.
    fn swap(&self, words: &mut [u16]) {
        if self.low_word_first {
            words.reverse();
        }
        if self.swap_octets {
            words.iter_mut().for_each(|word| *word = word.swap_bytes());
        }
    }

    fn text(&self, registers: &[u16]) -> Reading {
        let octets: Vec<u8> = self.high_first(registers).iter().flat_map(|word| word.to_be_bytes()).collect();
        let end = octets.iter().position(|octet| *octet == 0).unwrap_or(octets.len());
        match std::str::from_utf8(&octets[..end]).map(str::trim) {
            Ok("") => Reading::none(Status::NotAvailable),
            Ok(text) => Reading { value: Value::Text(text.into()), scaler: 0, status: Status::Good },
            Err(_) => Reading::none(Status::Invalid),
        }
    }
}

/// Packed decimal digits; `None` if one is above 9.
fn digits(words: &[u16]) -> Option<i128> {
    words
        .iter()
        .flat_map(|word| [word >> 12, word >> 8 & 15, word >> 4 & 15, word & 15])
        .try_fold(0, |number, digit| (digit <= 9).then(|| number * 10 + i128::from(digit)))
}

/// Registers of -9999 to 9999, all of one sign or zero; `None` if one is beyond.
fn mod10k(words: &[u16]) -> Option<i128> {
    words.iter().try_fold(0_i128, |number, word| {
        let word = *word as i16;
        (-9_999..=9_999).contains(&word).then(|| number * 10_000 + i128::from(word))
    })
}
