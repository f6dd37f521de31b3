//! Pieces that several services share: descriptors, data-or-result, data blocks, and lists of them that are walked
//! once when decoded and again by whoever wants the items.

use ipss_session::{Limits, ProtocolError};

use super::selection::SelectiveAccess;
use crate::axdr::skip::element_count;
use crate::axdr::{Reader, skip, write_length};
use crate::cosem::{AttributeDescriptor, LogicalName, MethodDescriptor};

/// A value or the meter's own *no* (Green Book, Get-Data-Result).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataOrResult<'a> {
    /// One A-XDR value, type octet first.
    Data(&'a [u8]),
    /// A data-access-result by its number, whether the standard has it or not.
    Result(u8),
}

impl<'a> DataOrResult<'a> {
    /// The last component of an APDU: data is whatever is left.
    pub(crate) fn decode_last(reader: &mut Reader<'a>) -> Result<Self, ProtocolError> {
        match reader.u8()? {
            0 => Ok(Self::Data(last_data(reader)?)),
            1 => {
                let result = reader.u8()?;
                reader.finish()?;
                Ok(Self::Result(result))
            }
            other => Err(bad_choice(reader, other, "data (0) or data-access-result (1)")),
        }
    }

    /// A component with others after it.
    pub(crate) fn decode(reader: &mut Reader<'a>, limits: &Limits) -> Result<Self, ProtocolError> {
        match reader.u8()? {
            0 => {
                let start = reader.offset();
                skip(reader, limits)?;
                Ok(Self::Data(reader.since(start)))
            }
            1 => Ok(Self::Result(reader.u8()?)),
            other => Err(bad_choice(reader, other, "data (0) or data-access-result (1)")),
        }
    }

    /// Append it, choice first.
    pub fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Data(octets) => {
                out.push(0);
                out.extend_from_slice(octets);
            }
            Self::Result(result) => out.extend_from_slice(&[1, result]),
        }
    }
}

/// A piece of a long value (Green Book, DataBlock-SA).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataBlock<'a> {
    /// Whether it is the last piece.
    pub last: bool,
    /// Its number; each transfer begins at 1.
    pub number: u32,
    /// The piece.
    pub raw: &'a [u8],
}

impl<'a> DataBlock<'a> {
    pub(crate) fn decode_last(reader: &mut Reader<'a>) -> Result<Self, ProtocolError> {
        let block = Self { last: reader.present()?, number: reader.u32()?, raw: reader.octet_string()? };
        reader.finish()?;
        Ok(block)
    }

    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        out.push(u8::from(self.last));
        out.extend_from_slice(&self.number.to_be_bytes());
        write_length(out, self.raw.len());
        out.extend_from_slice(self.raw);
    }
}

/// A SEQUENCE OF something, checked when it was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List<'a, T> {
    count: usize,
    octets: &'a [u8],
    item: std::marker::PhantomData<T>,
}

/// What a [`List`] can hold.
pub trait Item<'a>: Sized {
    /// Decode one.
    ///
    /// # Errors
    /// As its parts.
    fn decode(reader: &mut Reader<'a>, limits: &Limits) -> Result<Self, ProtocolError>;
}

impl<'a, T: Item<'a>> List<'a, T> {
    pub(crate) fn decode(reader: &mut Reader<'a>, limits: &Limits) -> Result<Self, ProtocolError> {
        let count = element_count(reader, limits)?;
        let start = reader.offset();
        for _ in 0..count {
            T::decode(reader, limits)?;
        }
        Ok(Self { count, octets: reader.since(start), item: std::marker::PhantomData })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The items in order; `limits` as when the list was decoded.
    pub fn iter(&self, limits: &'a Limits) -> impl Iterator<Item = T> + use<'a, T> {
        let mut reader = Reader::new(self.octets);
        (0..self.count).map_while(move |_| T::decode(&mut reader, limits).ok())
    }
}

/// An attribute, or the part of it that a selection names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttributeAccess<'a> {
    /// The attribute.
    pub descriptor: AttributeDescriptor,
    /// Which part of it.
    pub access: Option<SelectiveAccess<'a>>,
}

impl<'a> Item<'a> for AttributeAccess<'a> {
    fn decode(reader: &mut Reader<'a>, limits: &Limits) -> Result<Self, ProtocolError> {
        let descriptor = attribute_descriptor(reader)?;
        Ok(Self { descriptor, access: SelectiveAccess::decode_optional(reader, limits)? })
    }
}

impl<'a> Item<'a> for DataOrResult<'a> {
    fn decode(reader: &mut Reader<'a>, limits: &Limits) -> Result<Self, ProtocolError> {
        Self::decode(reader, limits)
    }
}

/// One A-XDR value.
impl<'a> Item<'a> for &'a [u8] {
    fn decode(reader: &mut Reader<'a>, limits: &Limits) -> Result<Self, ProtocolError> {
        let start = reader.offset();
        skip(reader, limits)?;
        Ok(reader.since(start))
    }
}

/// A result's number.
impl<'a> Item<'a> for u8 {
    fn decode(reader: &mut Reader<'a>, _: &Limits) -> Result<Self, ProtocolError> {
        reader.u8()
    }
}

impl<'a> Item<'a> for MethodDescriptor {
    fn decode(reader: &mut Reader<'a>, _: &Limits) -> Result<Self, ProtocolError> {
        method_descriptor(reader)
    }
}

pub(crate) fn attribute_descriptor(reader: &mut Reader<'_>) -> Result<AttributeDescriptor, ProtocolError> {
    let (class_id, logical_name, attribute) = descriptor(reader)?;
    Ok(AttributeDescriptor { class_id, logical_name, attribute })
}

pub(crate) fn method_descriptor(reader: &mut Reader<'_>) -> Result<MethodDescriptor, ProtocolError> {
    let (class_id, logical_name, method) = descriptor(reader)?;
    Ok(MethodDescriptor { class_id, logical_name, method })
}

fn descriptor(reader: &mut Reader<'_>) -> Result<(u16, LogicalName, i8), ProtocolError> {
    Ok((reader.u16()?, LogicalName(reader.array()?), i8::from_be_bytes(reader.array()?)))
}

pub(crate) fn encode_attribute(out: &mut Vec<u8>, descriptor: &AttributeDescriptor) {
    encode_descriptor(out, descriptor.class_id, descriptor.logical_name, descriptor.attribute);
}

pub(crate) fn encode_method(out: &mut Vec<u8>, descriptor: &MethodDescriptor) {
    encode_descriptor(out, descriptor.class_id, descriptor.logical_name, descriptor.method);
}

fn encode_descriptor(out: &mut Vec<u8>, class_id: u16, logical_name: LogicalName, id: i8) {
    let [c0, c1] = class_id.to_be_bytes();
    let [a, b, c, d, e, f] = logical_name.0;
    out.extend_from_slice(&[c0, c1, a, b, c, d, e, f, id as u8]);
}

/// Data that ends its APDU: what is left, which must be something.
pub(crate) fn last_data<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], ProtocolError> {
    match reader.remaining() {
        0 => reader.take(1), // says that a type octet is wanted
        all => reader.take(all),
    }
}

/// Check the tag and open a reader behind it.
pub(crate) fn open<'a>(apdu: &'a [u8], tag: u8) -> Result<Reader<'a>, ProtocolError> {
    let mut reader = Reader::in_layer(apdu, "apdu");
    match reader.u8()? {
        found if found == tag => Ok(reader),
        found => {
            Err(ProtocolError::remote("apdu", 0, "unexpected-apdu", format!("tag {found:02X}; {tag:02X} expected")))
        }
    }
}

#[cold]
pub(crate) fn bad_choice(reader: &Reader<'_>, found: u8, wanted: &str) -> ProtocolError {
    reader.error("bad-choice", format!("choice {found}; {wanted} expected"))
}
