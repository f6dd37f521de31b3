//! compact-array: one type description for all elements, then their contents without types (Blue Book, "Common data
//! types"; Green Book, Data \[19\] and TypeDescription).
//!
//! The contents hold no counts: an array inside has the number of elements that the description says, a structure
//! the elements that it lists. How many elements the compact-array has follows from the length of the contents, so
//! elements without octets (null-data alone) cannot be counted and are refused.

use ipss_session::{Limits, ProtocolError};

use super::data::{CAPACITY_ON_TRUST, Data};
use super::reader::{Reader, write_length};
use super::skip::{MAX_DEPTH, check_element_type, element_count, too_deep};
use super::tag;

/// A compact-array and the elements that it stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct CompactArray {
    description: TypeDescription,
    elements: Vec<Data>,
}

/// The type of each element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeDescription {
    /// A type without elements, by its type octet ([`super::tag`]).
    Simple(u8),
    /// So many elements of one type.
    Array(u16, Box<TypeDescription>),
    /// Elements of these types.
    Structure(Vec<TypeDescription>),
}

impl CompactArray {
    /// Elements of one type.
    ///
    /// # Errors
    /// `type-mismatch` (local) if an element is of another type, or if the type has no octets.
    pub fn new(description: TypeDescription, elements: Vec<Data>) -> Result<Self, ProtocolError> {
        if description.size_is_zero() || !elements.iter().all(|element| description.fits(element)) {
            let message = "an element of a compact-array is not of the described type";
            return Err(ProtocolError::local("data", "type-mismatch", message));
        }
        Ok(Self { description, elements })
    }

    /// The type of each element.
    pub fn description(&self) -> &TypeDescription {
        &self.description
    }

    /// The elements of the array that it stands for.
    pub fn elements(&self) -> &[Data] {
        &self.elements
    }

    /// The elements, given away.
    pub fn into_elements(self) -> Vec<Data> {
        self.elements
    }

    /// The type description and the contents, after the type octet 13.
    pub(crate) fn decode(reader: &mut Reader<'_>, limits: &Limits, depth: usize) -> Result<Self, ProtocolError> {
        let description = TypeDescription::decode(reader, limits, depth.saturating_sub(1))?;
        let octets = reader.octet_string()?;
        let mut contents = Contents::new(octets);
        let mut elements = Vec::new();
        while let Some(element) = contents.next(&description, reader, limits)? {
            elements.push(element);
        }
        Ok(Self { description, elements })
    }

    /// The type description and the contents, after the type octet 13.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.description.encode(out);
        let mut contents = Vec::new();
        for element in &self.elements {
            element.encode_bare(&mut contents);
        }
        write_length(out, contents.len());
        out.extend_from_slice(&contents);
    }
}

impl TypeDescription {
    pub(crate) fn decode(reader: &mut Reader<'_>, limits: &Limits, depth: usize) -> Result<Self, ProtocolError> {
        let within =
            |reader: &Reader<'_>| depth.checked_sub(1).ok_or_else(|| too_deep(reader, limits.depth.min(MAX_DEPTH)));
        match reader.u8()? {
            tag::ARRAY => {
                let count = reader.u16()?;
                let depth = within(reader)?;
                Ok(Self::Array(count, Box::new(Self::decode(reader, limits, depth)?)))
            }
            tag::STRUCTURE => {
                let count = element_count(reader, limits)?;
                let depth = within(reader)?;
                let mut elements = Vec::with_capacity(count.min(CAPACITY_ON_TRUST));
                for _ in 0..count {
                    elements.push(Self::decode(reader, limits, depth)?);
                }
                Ok(Self::Structure(elements))
            }
            tag => {
                check_element_type(reader, tag)?;
                Ok(Self::Simple(tag))
            }
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Simple(tag) => out.push(*tag),
            Self::Array(count, element) => {
                out.push(tag::ARRAY);
                out.extend_from_slice(&count.to_be_bytes());
                element.encode(out);
            }
            Self::Structure(elements) => {
                out.push(tag::STRUCTURE);
                write_length(out, elements.len());
                for element in elements {
                    element.encode(out);
                }
            }
        }
    }

    fn fits(&self, value: &Data) -> bool {
        match (self, value) {
            (Self::Array(count, element), Data::Array(values)) => {
                values.len() == usize::from(*count) && values.iter().all(|value| element.fits(value))
            }
            (Self::Structure(elements), Data::Structure(values)) => {
                values.len() == elements.len()
                    && elements.iter().zip(values).all(|(element, value)| element.fits(value))
            }
            (Self::Simple(tag), value) => *tag == value.tag() && value.elements().is_none(),
            _ => false,
        }
    }

    fn size_is_zero(&self) -> bool {
        match self {
            Self::Simple(tag) => matches!(*tag, tag::NULL_DATA | tag::DONT_CARE),
            Self::Array(count, element) => *count == 0 || element.size_is_zero(),
            Self::Structure(elements) => elements.iter().all(Self::size_is_zero),
        }
    }
}

/// The contents of a compact-array, element by element.
///
/// Elements that take no octets (null-data in a structure) are free for the sender, so they are counted: in all there
/// may be [`VALUES_PER_OCTET`] values for each octet, which no real profile comes near.
pub(crate) struct Contents<'a> {
    reader: Reader<'a>,
    values_left: usize,
    elements: usize,
}

impl<'a> Contents<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Self {
        let values_left = octets.len().saturating_mul(VALUES_PER_OCTET).saturating_add(VALUES_AT_LEAST);
        Self { reader: Reader::new(octets), values_left, elements: 0 }
    }

    /// The next element; `outside` is where errors are found.
    pub(crate) fn next(
        &mut self,
        description: &TypeDescription,
        outside: &Reader<'_>,
        limits: &Limits,
    ) -> Result<Option<Data>, ProtocolError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        self.elements += 1;
        if self.elements > limits.elements {
            let message = format!("a compact-array of more than {} elements", limits.elements);
            return Err(outside.error("elements-over-limit", message));
        }
        let start = self.reader.offset();
        let element = self.element(description).map_err(|error| match error.code {
            // The contents' length is known: that they end inside an element is no reason to wait for more.
            "truncated" => outside.error("bad-compact-array", "the contents end inside an element"),
            code => outside.error(code, error.message),
        })?;
        if self.reader.offset() == start {
            return Err(
                outside.error("bad-compact-array", "the elements have no octets, so nothing can be their contents")
            );
        }
        Ok(Some(element))
    }

    fn element(&mut self, description: &TypeDescription) -> Result<Data, ProtocolError> {
        self.values_left = self.values_left.checked_sub(1).ok_or_else(|| {
            self.reader.error("elements-over-limit", "too many values without octets in a compact-array")
        })?;
        match description {
            TypeDescription::Simple(tag) => Data::decode_bare(*tag, &mut self.reader),
            TypeDescription::Array(count, element) => {
                let mut elements = Vec::with_capacity(usize::from(*count).min(CAPACITY_ON_TRUST));
                for _ in 0..*count {
                    elements.push(self.element(element)?);
                }
                Ok(Data::Array(elements))
            }
            TypeDescription::Structure(descriptions) => {
                let mut elements = Vec::with_capacity(descriptions.len().min(CAPACITY_ON_TRUST));
                for description in descriptions {
                    elements.push(self.element(description)?);
                }
                Ok(Data::Structure(elements))
            }
        }
    }
}

/// Values that an octet of contents may stand for.
const VALUES_PER_OCTET: usize = 8;
/// Values that even the shortest contents may stand for.
const VALUES_AT_LEAST: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(octets: &[u8]) -> Result<Data, ProtocolError> {
        Data::from_octets(octets, &Limits::default())
    }

    #[test]
    fn structures_share_one_description() {
        // Two elements of structure {octet-string, double-long-unsigned, null-data, array of 2 unsigned}.
        let octets = [
            0x13, 0x02, 0x04, 0x09, 0x06, 0x00, 0x01, 0x00, 0x02, 0x11, // description
            0x11, 0x02, 0xAA, 0xBB, 0x00, 0x00, 0x30, 0x39, 0x01, 0x02, // contents: 17 octets
            0x01, 0xCC, 0xFF, 0xFF, 0xFF, 0xFF, 0x03, 0x04,
        ];
        let element = |name: &[u8], value, first, second| {
            Data::Structure(vec![
                Data::OctetString(name.to_vec()),
                Data::DoubleLongUnsigned(value),
                Data::Null,
                Data::Array(vec![Data::Unsigned(first), Data::Unsigned(second)]),
            ])
        };

        let mut octets = octets.to_vec();
        octets[10] = (octets.len() - 11) as u8;
        let value = decode(&octets).unwrap();

        assert_eq!(value.elements().unwrap(), [element(&[0xAA, 0xBB], 12_345, 1, 2), element(&[0xCC], u32::MAX, 3, 4)]);
        assert_eq!(value.to_octets(), octets);
    }

    #[test]
    fn empty_contents_are_an_empty_array() {
        assert_eq!(decode(&[0x13, 0x11, 0x00]).unwrap().elements().unwrap(), []);
        assert_eq!(decode(&[0x13, 0x00, 0x00]).unwrap().elements().unwrap(), []);
    }

    #[test]
    fn elements_without_octets_are_refused() {
        assert_eq!(decode(&[0x13, 0x00, 0x01, 0x00]).unwrap_err().code, "bad-compact-array");
        assert_eq!(decode(&[0x13, 0x02, 0x00, 0x01, 0x00]).unwrap_err().code, "bad-compact-array");
        assert!(CompactArray::new(TypeDescription::Simple(0), vec![]).is_err());
    }

    #[test]
    fn array_of_arrays_of_nulls_is_bounded() {
        // {array of 65535 arrays of 65535 null-data, unsigned} and one octet: four thousand million values.
        let octets = [0x13, 0x02, 0x02, 0x01, 0xFF, 0xFF, 0x01, 0xFF, 0xFF, 0x00, 0x11, 0x01, 0x07];
        assert_eq!(decode(&octets).unwrap_err().code, "elements-over-limit");
    }

    #[test]
    fn contents_that_end_inside_an_element_are_an_error_not_a_wait() {
        assert_eq!(decode(&[0x13, 0x12, 0x03, 0, 1, 0]).unwrap_err().code, "bad-compact-array");
        assert_eq!(decode(&[0x13, 0x12, 0x04, 0, 1, 0]).unwrap_err().code, "truncated");
    }

    #[test]
    fn compact_array_inside_a_description_is_unknown() {
        assert_eq!(decode(&[0x13, 0x13, 0x11, 0x00]).unwrap_err().code, "unknown-type");
    }
}
