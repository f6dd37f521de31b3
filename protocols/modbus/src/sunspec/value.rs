//! What a point's registers say, and how a value goes into registers.

use super::model::{Point, PointType};

/// What a point says.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// The device does not have it (the type's own not-implemented value).
    NotImplemented,
    /// Integers of all kinds, enumerations, bit fields, counts and scale factors, before scaling.
    Integer(i128),
    /// A float of two registers.
    Float32(f32),
    /// A float of four registers.
    Float64(f64),
    /// Text without the zeros behind it.
    Text(String),
    /// An IPv4 address.
    Ipv4([u8; 4]),
    /// An IPv6 address.
    Ipv6([u8; 16]),
    /// A MAC address.
    Eui48([u8; 6]),
}

/// A value that does not go into a point.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{point}: {message}")]
pub struct ValueError {
    /// The point.
    pub point: String,
    /// What was found and what is expected.
    pub message: String,
}

impl ValueError {
    pub(super) fn new(point: &str, message: impl Into<String>) -> Self {
        Self { point: point.into(), message: message.into() }
    }
}

impl Point {
    /// What `registers` say; `None` if they are not as many as the point has.
    pub fn decode(&self, registers: &[u16]) -> Option<Value> {
        use PointType as T;
        if registers.len() != usize::from(self.size) {
            return None;
        }
        let word = unsigned(registers.get(..4).unwrap_or(registers));
        let bits = 16 * u32::try_from(registers.len().min(4)).unwrap_or(4);
        let ones = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
        // The sign bit moved to the top and back again.
        let signed = (word << (64 - bits)) as i64 >> (64 - bits);
        let smallest = i64::MIN >> (64 - bits);
        let unless = |absent: bool, value: Value| if absent { Value::NotImplemented } else { value };
        Some(match self.kind {
            T::Int16 | T::Int32 | T::Int64 | T::ScaleFactor => {
                unless(signed == smallest, Value::Integer(signed.into()))
            }
            T::Uint16 | T::Uint32 | T::Uint64 | T::Enum16 | T::Enum32 | T::Bitfield16 | T::Bitfield32 | T::CountOf => {
                unless(word == ones, Value::Integer(word.into()))
            }
            T::Acc16 | T::Acc32 | T::Acc64 => unless(word == 0, Value::Integer(word.into())),
            T::Pad => Value::Integer(word.into()),
            T::Float32 => {
                let float = f32::from_bits(word as u32);
                unless(float.is_nan(), Value::Float32(float))
            }
            T::Float64 => {
                let float = f64::from_bits(word);
                unless(float.is_nan(), Value::Float64(float))
            }
            T::Text => {
                let octets = octets(registers);
                let length = octets.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
                let absent = octets.first() == Some(&0);
                unless(absent, Value::Text(String::from_utf8_lossy(&octets[..length]).into_owned()))
            }
            T::Ipv4 => unless(word == 0, Value::Ipv4((word as u32).to_be_bytes())),
            T::Ipv6 => {
                let address: [u8; 16] = octets(registers).try_into().ok()?;
                unless(address == [0; 16], Value::Ipv6(address))
            }
            T::Eui48 => {
                let [_, _, a, b, c, d, e, f] = word.to_be_bytes();
                let address = [a, b, c, d, e, f];
                unless(word == 0 || address == [0xFF; 6], Value::Eui48(address))
            }
        })
    }

    /// Whether the registers hold the not-implemented value of the other signedness, as some devices send it by
    /// mistake (0x8000 in an unsigned point). It may also be a true value, so it is told, not dropped.
    pub fn is_doubtful(&self, registers: &[u16]) -> bool {
        use PointType as T;
        let unsigned_kind = matches!(self.kind, T::Uint16 | T::Uint32 | T::Uint64 | T::Enum16 | T::Enum32);
        match self.kind {
            T::Text => std::str::from_utf8(&octets(registers)).is_err(),
            _ => {
                unsigned_kind && matches!(registers, [0x8000, rest @ ..] if rest.iter().all(|register| *register == 0))
            }
        }
    }

    /// The registers of a value, appended to `registers`.
    ///
    /// # Errors
    /// The value is of another kind, out of range, or would read back as not implemented.
    pub fn encode(&self, value: &Value, registers: &mut Vec<u16>) -> Result<(), ValueError> {
        let start = registers.len();
        let wrong = |message: String| Err(ValueError::new(self.name, message));
        match (value, self.kind) {
            (Value::NotImplemented, _) => self.encode_not_implemented(registers),
            (Value::Text(text), PointType::Text) => {
                if text.len() > usize::from(self.size) * 2 {
                    return wrong(format!("{} octets of text; {} fit", text.len(), self.size * 2));
                }
                let mut octets = text.as_bytes().to_vec();
                octets.resize(usize::from(self.size) * 2, 0);
                registers.extend(octets.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])));
            }
            (Value::Float32(float), PointType::Float32) => push(registers, &float.to_be_bytes()),
            (Value::Float64(float), PointType::Float64) => push(registers, &float.to_be_bytes()),
            (Value::Ipv4(address), PointType::Ipv4) => push(registers, address),
            (Value::Ipv6(address), PointType::Ipv6) => push(registers, address),
            (Value::Eui48(address), PointType::Eui48) => {
                registers.push(0);
                push(registers, address);
            }
            (Value::Integer(integer), kind) if kind.is_integer() => {
                let bits = 16 * u32::from(self.size);
                let (low, high) = match kind {
                    PointType::Int16 | PointType::Int32 | PointType::Int64 | PointType::ScaleFactor => {
                        (-(1_i128 << (bits - 1)) + 1, (1_i128 << (bits - 1)) - 1)
                    }
                    PointType::Acc16 | PointType::Acc32 | PointType::Acc64 | PointType::Pad => {
                        (0, (1_i128 << bits) - 1)
                    }
                    _ => (0, (1_i128 << bits) - 2),
                };
                if !(low..=high).contains(integer) {
                    return wrong(format!("{integer} is not in {low} to {high}, what {} holds", kind.name()));
                }
                let octets = integer.to_be_bytes();
                push(registers, &octets[octets.len() - usize::from(self.size) * 2..]);
            }
            _ => return wrong(format!("a value of another kind; expected {}", self.kind.name())),
        }
        debug_assert_eq!(registers.len() - start, usize::from(self.size));
        Ok(())
    }

    fn encode_not_implemented(&self, registers: &mut Vec<u16>) {
        use PointType as T;
        let size = usize::from(self.size);
        let (first, rest) = match self.kind {
            T::Int16 | T::Int32 | T::Int64 | T::ScaleFactor | T::Pad => (0x8000, 0),
            T::Acc16 | T::Acc32 | T::Acc64 | T::Text | T::Ipv4 | T::Ipv6 => (0, 0),
            T::Float32 => (0x7FC0, 0),
            T::Float64 => (0x7FF8, 0),
            T::Eui48 => (0, 0xFFFF),
            _ => (0xFFFF, 0xFFFF),
        };
        registers.push(first);
        registers.extend(std::iter::repeat_n(rest, size.saturating_sub(1)));
    }
}

impl PointType {
    /// Whether its values are integers.
    pub fn is_integer(self) -> bool {
        !matches!(self, Self::Float32 | Self::Float64 | Self::Text | Self::Ipv4 | Self::Ipv6 | Self::Eui48)
    }
}

/// The registers as one number, the first the highest.
fn unsigned(registers: &[u16]) -> u64 {
    registers.iter().fold(0, |word, register| word << 16 | u64::from(*register))
}

fn octets(registers: &[u16]) -> Vec<u8> {
    registers.iter().flat_map(|register| register.to_be_bytes()).collect()
}

fn push(registers: &mut Vec<u16>, octets: &[u8]) {
    registers.extend(octets.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])));
}
