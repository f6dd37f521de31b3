//! COSEM data as an owned tree: for what is small or asked for by people. Profile buffers go through [`super::line`].

use ipss_session::{Limits, ProtocolError};

use super::compact_array::CompactArray;
use super::date_time::{Date, DateTime, Time};
use super::reader::{Reader, write_length};
use super::skip::{MAX_DEPTH, element_count, too_deep, unknown_type};
use super::tag;

/// One value of any type of the Blue Book ("Common data types").
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// null-data \[0\].
    Null,
    /// array \[1\]: elements of one type, which is not enforced, since meters mix null-data in.
    Array(Vec<Data>),
    /// structure \[2\].
    Structure(Vec<Data>),
    /// boolean \[3\].
    Boolean(bool),
    /// bit-string \[4\].
    BitString(BitString),
    /// double-long \[5\].
    DoubleLong(i32),
    /// double-long-unsigned \[6\].
    DoubleLongUnsigned(u32),
    /// floating-point \[7\], the old form of float32.
    FloatingPoint(f32),
    /// octet-string \[9\].
    OctetString(Vec<u8>),
    /// visible-string \[10\]: ASCII by the standard, any octets in the field.
    VisibleString(Vec<u8>),
    /// utf8-string \[12\], likewise.
    Utf8String(Vec<u8>),
    /// bcd \[13\].
    Bcd(u8),
    /// integer \[15\].
    Integer(i8),
    /// long \[16\].
    Long(i16),
    /// unsigned \[17\].
    Unsigned(u8),
    /// long-unsigned \[18\].
    LongUnsigned(u16),
    /// compact-array \[19\].
    CompactArray(CompactArray),
    /// long64 \[20\].
    Long64(i64),
    /// long64-unsigned \[21\].
    Long64Unsigned(u64),
    /// enum \[22\].
    Enum(u8),
    /// float32 \[23\].
    Float32(f32),
    /// float64 \[24\].
    Float64(f64),
    /// date-time \[25\].
    DateTime(DateTime),
    /// date \[26\].
    Date(Date),
    /// time \[27\].
    Time(Time),
    /// delta-integer \[28\]: a difference to the column's last full value, as all delta types.
    DeltaInteger(i8),
    /// delta-long \[29\].
    DeltaLong(i16),
    /// delta-double-long \[30\].
    DeltaDoubleLong(i32),
    /// delta-unsigned \[31\].
    DeltaUnsigned(u8),
    /// delta-long-unsigned \[32\].
    DeltaLongUnsigned(u16),
    /// delta-double-long-unsigned \[33\].
    DeltaDoubleLongUnsigned(u32),
    /// dont-care \[255\].
    DontCare,
}

impl Data {
    /// One value, type octet first. Memory follows what really arrives, never what a count claims.
    ///
    /// # Errors
    /// `truncated`, `unknown-type`, `depth-over-limit`, `elements-over-limit`, `bad-length`, and what a compact-array
    /// can get wrong.
    pub fn decode(reader: &mut Reader<'_>, limits: &Limits) -> Result<Self, ProtocolError> {
        Self::decode_within(reader, limits, limits.depth.min(MAX_DEPTH))
    }

    /// The value that `octets` hold, and nothing after it.
    ///
    /// # Errors
    /// As [`Data::decode`], and `trailing-octets`.
    pub fn from_octets(octets: &[u8], limits: &Limits) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new(octets);
        let value = Self::decode(&mut reader, limits)?;
        reader.finish()?;
        Ok(value)
    }

    /// Append the value, type octet first, lengths in their shortest form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.tag());
        match self {
            Self::Array(elements) | Self::Structure(elements) => {
                write_length(out, elements.len());
                for element in elements {
                    element.encode(out);
                }
            }
            Self::CompactArray(array) => array.encode(out),
            other => other.encode_bare(out),
        }
    }

    /// The value in octets of its own.
    pub fn to_octets(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// The type octet.
    pub fn tag(&self) -> u8 {
        match self {
            Self::Null => tag::NULL_DATA,
            Self::Array(_) => tag::ARRAY,
            Self::Structure(_) => tag::STRUCTURE,
            Self::Boolean(_) => tag::BOOLEAN,
            Self::BitString(_) => tag::BIT_STRING,
            Self::DoubleLong(_) => tag::DOUBLE_LONG,
            Self::DoubleLongUnsigned(_) => tag::DOUBLE_LONG_UNSIGNED,
            Self::FloatingPoint(_) => tag::FLOATING_POINT,
            Self::OctetString(_) => tag::OCTET_STRING,
            Self::VisibleString(_) => tag::VISIBLE_STRING,
            Self::Utf8String(_) => tag::UTF8_STRING,
            Self::Bcd(_) => tag::BCD,
            Self::Integer(_) => tag::INTEGER,
            Self::Long(_) => tag::LONG,
            Self::Unsigned(_) => tag::UNSIGNED,
            Self::LongUnsigned(_) => tag::LONG_UNSIGNED,
            Self::CompactArray(_) => tag::COMPACT_ARRAY,
            Self::Long64(_) => tag::LONG64,
            Self::Long64Unsigned(_) => tag::LONG64_UNSIGNED,
            Self::Enum(_) => tag::ENUM,
            Self::Float32(_) => tag::FLOAT32,
            Self::Float64(_) => tag::FLOAT64,
            Self::DateTime(_) => tag::DATE_TIME,
            Self::Date(_) => tag::DATE,
            Self::Time(_) => tag::TIME,
            Self::DeltaInteger(_) => tag::DELTA_INTEGER,
            Self::DeltaLong(_) => tag::DELTA_LONG,
            Self::DeltaDoubleLong(_) => tag::DELTA_DOUBLE_LONG,
            Self::DeltaUnsigned(_) => tag::DELTA_UNSIGNED,
            Self::DeltaLongUnsigned(_) => tag::DELTA_LONG_UNSIGNED,
            Self::DeltaDoubleLongUnsigned(_) => tag::DELTA_DOUBLE_LONG_UNSIGNED,
            Self::DontCare => tag::DONT_CARE,
        }
    }

    /// The type's name in the standard: `double-long-unsigned`.
    pub fn type_name(&self) -> &'static str {
        tag::name(self.tag()).unwrap_or_default()
    }

    /// The number in an integer type of any width, an enum or a bcd.
    pub fn as_integer(&self) -> Option<i128> {
        Some(match *self {
            Self::DoubleLong(number) => number.into(),
            Self::DoubleLongUnsigned(number) => number.into(),
            Self::Bcd(number) | Self::Unsigned(number) | Self::Enum(number) => number.into(),
            Self::Integer(number) => number.into(),
            Self::Long(number) => number.into(),
            Self::LongUnsigned(number) => number.into(),
            Self::Long64(number) => number.into(),
            Self::Long64Unsigned(number) => number.into(),
            _ => return None,
        })
    }

    /// The octets of a string of any kind.
    pub fn as_octets(&self) -> Option<&[u8]> {
        match self {
            Self::OctetString(octets) | Self::VisibleString(octets) | Self::Utf8String(octets) => Some(octets),
            _ => None,
        }
    }

    /// The elements of an array, a structure or a compact-array.
    pub fn elements(&self) -> Option<&[Self]> {
        match self {
            Self::Array(elements) | Self::Structure(elements) => Some(elements),
            Self::CompactArray(array) => Some(array.elements()),
            _ => None,
        }
    }

    /// A date-time, as type 25 or as twelve octets in an octet-string: both occur for the same attribute.
    pub fn as_date_time(&self) -> Option<DateTime> {
        match self {
            Self::DateTime(date_time) => Some(*date_time),
            Self::OctetString(octets) => Some(DateTime(octets.as_slice().try_into().ok()?)),
            _ => None,
        }
    }

    fn decode_within(reader: &mut Reader<'_>, limits: &Limits, depth: usize) -> Result<Self, ProtocolError> {
        match reader.u8()? {
            tag @ (tag::ARRAY | tag::STRUCTURE) => {
                let count = element_count(reader, limits)?;
                if count > 0 && depth == 0 {
                    return Err(too_deep(reader, limits.depth.min(MAX_DEPTH)));
                }
                let mut elements = Vec::with_capacity(count.min(CAPACITY_ON_TRUST));
                for _ in 0..count {
                    elements.push(Self::decode_within(reader, limits, depth - 1)?);
                }
                Ok(if tag == tag::ARRAY { Self::Array(elements) } else { Self::Structure(elements) })
            }
            tag::COMPACT_ARRAY => Ok(Self::CompactArray(CompactArray::decode(reader, limits, depth)?)),
            tag => Self::decode_bare(tag, reader),
        }
    }

    /// A value without elements whose type is known, without its type octet.
    pub(crate) fn decode_bare(tag: u8, reader: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        Ok(match tag {
            tag::NULL_DATA => Self::Null,
            tag::BOOLEAN => Self::Boolean(reader.u8()? != 0),
            tag::BIT_STRING => {
                let bits = reader.length()?;
                Self::BitString(BitString { bits, octets: reader.take(bits.div_ceil(8))?.to_vec() })
            }
            tag::DOUBLE_LONG => Self::DoubleLong(i32::from_be_bytes(reader.array()?)),
            tag::DOUBLE_LONG_UNSIGNED => Self::DoubleLongUnsigned(reader.u32()?),
            tag::FLOATING_POINT => Self::FloatingPoint(f32::from_be_bytes(reader.array()?)),
            tag::OCTET_STRING => Self::OctetString(reader.octet_string()?.to_vec()),
            tag::VISIBLE_STRING => Self::VisibleString(reader.octet_string()?.to_vec()),
            tag::UTF8_STRING => Self::Utf8String(reader.octet_string()?.to_vec()),
            tag::BCD => Self::Bcd(reader.u8()?),
            tag::INTEGER => Self::Integer(i8::from_be_bytes(reader.array()?)),
            tag::LONG => Self::Long(i16::from_be_bytes(reader.array()?)),
            tag::UNSIGNED => Self::Unsigned(reader.u8()?),
            tag::LONG_UNSIGNED => Self::LongUnsigned(reader.u16()?),
            tag::LONG64 => Self::Long64(i64::from_be_bytes(reader.array()?)),
            tag::LONG64_UNSIGNED => Self::Long64Unsigned(reader.u64()?),
            tag::ENUM => Self::Enum(reader.u8()?),
            tag::FLOAT32 => Self::Float32(f32::from_be_bytes(reader.array()?)),
            tag::FLOAT64 => Self::Float64(f64::from_be_bytes(reader.array()?)),
            tag::DATE_TIME => Self::DateTime(DateTime(reader.array()?)),
            tag::DATE => Self::Date(Date(reader.array()?)),
            tag::TIME => Self::Time(Time(reader.array()?)),
            tag::DELTA_INTEGER => Self::DeltaInteger(i8::from_be_bytes(reader.array()?)),
            tag::DELTA_LONG => Self::DeltaLong(i16::from_be_bytes(reader.array()?)),
            tag::DELTA_DOUBLE_LONG => Self::DeltaDoubleLong(i32::from_be_bytes(reader.array()?)),
            tag::DELTA_UNSIGNED => Self::DeltaUnsigned(reader.u8()?),
            tag::DELTA_LONG_UNSIGNED => Self::DeltaLongUnsigned(reader.u16()?),
            tag::DELTA_DOUBLE_LONG_UNSIGNED => Self::DeltaDoubleLongUnsigned(reader.u32()?),
            tag::DONT_CARE => Self::DontCare,
            other => return Err(unknown_type(reader, other)),
        })
    }

    /// Append the value without its type octet; of arrays and structures the elements alone, as in the contents of a
    /// compact-array.
    pub(crate) fn encode_bare(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null | Self::DontCare => {}
            Self::Array(elements) | Self::Structure(elements) => {
                for element in elements {
                    element.encode_bare(out);
                }
            }
            Self::CompactArray(array) => array.encode(out),
            Self::Boolean(value) => out.push(u8::from(*value)),
            Self::BitString(string) => {
                write_length(out, string.bits);
                out.extend_from_slice(&string.octets);
            }
            Self::OctetString(octets) | Self::VisibleString(octets) | Self::Utf8String(octets) => {
                write_length(out, octets.len());
                out.extend_from_slice(octets);
            }
            Self::Bcd(number) | Self::Unsigned(number) | Self::Enum(number) | Self::DeltaUnsigned(number) => {
                out.push(*number);
            }
            Self::Integer(number) | Self::DeltaInteger(number) => out.extend_from_slice(&number.to_be_bytes()),
            Self::Long(number) | Self::DeltaLong(number) => out.extend_from_slice(&number.to_be_bytes()),
            Self::LongUnsigned(number) | Self::DeltaLongUnsigned(number) => {
                out.extend_from_slice(&number.to_be_bytes());
            }
            Self::DoubleLong(number) | Self::DeltaDoubleLong(number) => out.extend_from_slice(&number.to_be_bytes()),
            Self::DoubleLongUnsigned(number) | Self::DeltaDoubleLongUnsigned(number) => {
                out.extend_from_slice(&number.to_be_bytes());
            }
            Self::Long64(number) => out.extend_from_slice(&number.to_be_bytes()),
            Self::Long64Unsigned(number) => out.extend_from_slice(&number.to_be_bytes()),
            Self::FloatingPoint(number) | Self::Float32(number) => out.extend_from_slice(&number.to_be_bytes()),
            Self::Float64(number) => out.extend_from_slice(&number.to_be_bytes()),
            Self::DateTime(DateTime(octets)) => out.extend_from_slice(octets),
            Self::Date(Date(octets)) => out.extend_from_slice(octets),
            Self::Time(Time(octets)) => out.extend_from_slice(octets),
        }
    }
}

/// Bits, the first in the highest bit of the first octet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitString {
    bits: usize,
    octets: Vec<u8>,
}

impl BitString {
    /// The bits of `octets`, all of them.
    pub fn from_octets(octets: Vec<u8>) -> Self {
        Self { bits: octets.len() * 8, octets }
    }

    /// These bits, in order.
    pub fn from_bits(bits: &[bool]) -> Self {
        let mut octets = vec![0; bits.len().div_ceil(8)];
        for (place, bit) in bits.iter().enumerate() {
            octets[place / 8] |= u8::from(*bit) << (7 - place % 8);
        }
        Self { bits: bits.len(), octets }
    }

    /// How many bits there are.
    pub fn len(&self) -> usize {
        self.bits
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bits == 0
    }

    /// The octets that hold them; the last one's surplus bits are as they came.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// The bits in order.
    pub fn iter(&self) -> impl Iterator<Item = bool> + '_ {
        self.octets.iter().flat_map(|octet| (0..8).map(move |bit| octet >> (7 - bit) & 1 == 1)).take(self.bits)
    }
}

/// Elements to reserve room for before any has arrived. More room comes as they do.
pub(crate) const CAPACITY_ON_TRUST: usize = 32;
