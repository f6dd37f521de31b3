//! Visit a value part by part, compact-arrays as the arrays that they stand for, without building anything.

use ipss_session::{Limits, ProtocolError};

use super::reader::{Reader, write_length};
use super::skip::{MAX_DEPTH, check_element_type, element_count, skip_description, too_deep, unknown_type};
use super::tag;

/// Who is told about the parts of a value, in order.
pub trait Visitor {
    /// A value without elements: its type octet and its octets, without length. `bits` is the length of a bit-string.
    fn simple(&mut self, tag: u8, octets: &[u8], bits: usize);
    /// An array or structure begins. `count` is `None` for the array that a compact-array stands for.
    fn open(&mut self, tag: u8, count: Option<usize>);
    /// It ends. After an error it may never come.
    fn close(&mut self);
}

/// Walk one value. Time is linear in the octets, also where compact-arrays hold values without octets.
///
/// # Errors
/// As [`super::Data::decode`]; the visitor has seen what came before.
pub fn walk(reader: &mut Reader<'_>, limits: &Limits, visitor: &mut dyn Visitor) -> Result<(), ProtocolError> {
    value(reader, limits, limits.depth.min(MAX_DEPTH), visitor)
}

/// Append the value in `octets` with its compact-arrays expanded.
pub(crate) fn expand(octets: &[u8], limits: &Limits, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
    let mut reader = Reader::new(octets);
    let mut expander = Expander { out, open: Vec::new() };
    walk(&mut reader, limits, &mut expander)?;
    reader.finish()
}

/// The number in the octets of an integer type, bcd or enum; delta types included.
pub fn integer(tag: u8, octets: &[u8]) -> Option<i128> {
    let unsigned = octets.iter().fold(0_i128, |number, octet| number << 8 | i128::from(*octet));
    match tag {
        tag::DOUBLE_LONG_UNSIGNED
        | tag::LONG_UNSIGNED
        | tag::UNSIGNED
        | tag::LONG64_UNSIGNED
        | tag::ENUM
        | tag::BCD
        | tag::DELTA_UNSIGNED
        | tag::DELTA_LONG_UNSIGNED
        | tag::DELTA_DOUBLE_LONG_UNSIGNED => Some(unsigned),
        tag::DOUBLE_LONG
        | tag::LONG
        | tag::INTEGER
        | tag::LONG64
        | tag::DELTA_INTEGER
        | tag::DELTA_LONG
        | tag::DELTA_DOUBLE_LONG => {
            let negative = octets.first().is_some_and(|octet| octet & 0x80 != 0);
            Some(if negative { unsigned - (1 << (octets.len() * 8)) } else { unsigned })
        }
        _ => None,
    }
}

fn value(
    reader: &mut Reader<'_>,
    limits: &Limits,
    depth: usize,
    visitor: &mut dyn Visitor,
) -> Result<(), ProtocolError> {
    match reader.u8()? {
        tag @ (tag::ARRAY | tag::STRUCTURE) => {
            let count = element_count(reader, limits)?;
            if count > 0 && depth == 0 {
                return Err(too_deep(reader, limits.depth.min(MAX_DEPTH)));
            }
            visitor.open(tag, Some(count));
            for _ in 0..count {
                value(reader, limits, depth - 1, visitor)?;
            }
            visitor.close();
            Ok(())
        }
        tag::COMPACT_ARRAY => compact_array(reader, limits, depth, visitor),
        tag => simple(tag, reader, visitor),
    }
}

fn simple(tag: u8, reader: &mut Reader<'_>, visitor: &mut dyn Visitor) -> Result<(), ProtocolError> {
    let (octets, bits) = match tag::SIZES[usize::from(tag)] {
        size @ 0..=12 => (reader.take(usize::from(size))?, 0),
        tag::OCTETS => (reader.octet_string()?, 0),
        tag::BITS => {
            let bits = reader.length()?;
            (reader.take(bits.div_ceil(8))?, bits)
        }
        _ => return Err(unknown_type(reader, tag)),
    };
    visitor.simple(tag, octets, bits);
    Ok(())
}

fn compact_array(
    reader: &mut Reader<'_>,
    limits: &Limits,
    depth: usize,
    visitor: &mut dyn Visitor,
) -> Result<(), ProtocolError> {
    let start = reader.offset();
    skip_description(reader, limits)?;
    let description = reader.since(start);
    let contents = reader.octet_string()?;
    let budget = (description.len() + contents.len()).saturating_mul(STEPS_PER_OCTET).saturating_add(STEPS_AT_LEAST);
    let mut compact = Compact { contents: Reader::new(contents), outside: *reader, limits, steps_left: budget };
    visitor.open(tag::ARRAY, None);
    let mut elements = 0;
    while !compact.contents.is_empty() {
        elements += 1;
        if elements > limits.elements {
            return Err(reader.error("elements-over-limit", format!("more than {} elements", limits.elements)));
        }
        let start = compact.contents.offset();
        compact.element(&mut Reader::new(description), depth.saturating_sub(1), visitor)?;
        if compact.contents.offset() == start {
            return Err(
                reader.error("bad-compact-array", "the elements have no octets, so nothing can be their contents")
            );
        }
    }
    visitor.close();
    Ok(())
}

/// The contents of a compact-array. Its description is read again for each element; what that costs is counted, since
/// a sender gets null-data and empty arrays for nothing.
struct Compact<'a> {
    contents: Reader<'a>,
    outside: Reader<'a>,
    limits: &'a Limits,
    steps_left: usize,
}

impl Compact<'_> {
    fn element(
        &mut self,
        description: &mut Reader<'_>,
        depth: usize,
        visitor: &mut dyn Visitor,
    ) -> Result<(), ProtocolError> {
        self.spend(1)?;
        match description.u8()? {
            tag::ARRAY => {
                let count = usize::from(description.u16()?);
                let depth = self.deeper(depth)?;
                let start = description.offset();
                skip_description(description, self.limits)?;
                let element = description.since(start);
                self.spend(element.len())?;
                visitor.open(tag::ARRAY, Some(count));
                for _ in 0..count {
                    self.element(&mut Reader::new(element), depth, visitor)?;
                }
                visitor.close();
            }
            tag::STRUCTURE => {
                let count = description.length()?;
                let depth = self.deeper(depth)?;
                visitor.open(tag::STRUCTURE, Some(count));
                for _ in 0..count {
                    self.element(description, depth, visitor)?;
                }
                visitor.close();
            }
            tag => {
                check_element_type(&self.outside, tag)?;
                simple(tag, &mut self.contents, visitor).map_err(|error| match error.code {
                    // The contents' length is known: that they end inside an element is no reason to wait for more.
                    "truncated" => self.outside.error("bad-compact-array", "the contents end inside an element"),
                    code => self.outside.error(code, error.message),
                })?;
            }
        }
        Ok(())
    }

    fn deeper(&self, depth: usize) -> Result<usize, ProtocolError> {
        depth.checked_sub(1).ok_or_else(|| too_deep(&self.outside, self.limits.depth.min(MAX_DEPTH)))
    }

    fn spend(&mut self, steps: usize) -> Result<(), ProtocolError> {
        self.steps_left = self.steps_left.checked_sub(steps).ok_or_else(|| {
            self.outside.error("elements-over-limit", "too many values without octets in a compact-array")
        })?;
        Ok(())
    }
}

/// Writes the value again as it is visited.
struct Expander<'o> {
    out: &'o mut Vec<u8>,
    /// For each container that is open, where its count is to be filled in, and the count so far.
    open: Vec<(Option<usize>, u32)>,
}

impl Expander<'_> {
    fn count_one(&mut self) {
        if let Some((_, count)) = self.open.last_mut() {
            *count += 1;
        }
    }
}

impl Visitor for Expander<'_> {
    fn simple(&mut self, tag: u8, octets: &[u8], bits: usize) {
        self.count_one();
        self.out.push(tag);
        match tag::SIZES[usize::from(tag)] {
            tag::OCTETS => write_length(self.out, octets.len()),
            tag::BITS => write_length(self.out, bits),
            _ => {}
        }
        self.out.extend_from_slice(octets);
    }

    fn open(&mut self, tag: u8, count: Option<usize>) {
        self.count_one();
        self.out.push(tag);
        let place = match count {
            Some(count) => {
                write_length(self.out, count);
                None
            }
            None => {
                self.out.extend_from_slice(&[0x84, 0, 0, 0, 0]);
                Some(self.out.len() - 4)
            }
        };
        self.open.push((place, 0));
    }

    fn close(&mut self) {
        if let Some((Some(place), count)) = self.open.pop() {
            self.out[place..place + 4].copy_from_slice(&count.to_be_bytes()); // reserved when it was opened
        }
    }
}

/// Steps through a type description that each octet of description and contents may cost.
const STEPS_PER_OCTET: usize = 16;
/// Steps that even the shortest compact-array may cost.
const STEPS_AT_LEAST: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::axdr::Data;

    #[test]
    fn expanded_compact_array_is_the_array_that_it_stands_for() {
        // structure {octet-string, array of 2 unsigned, null-data}, two elements.
        let octets = [0x13, 2, 3, 9, 1, 0, 2, 0x11, 0, 8, 1, 0xAA, 1, 2, 1, 0xBB, 3, 4];
        let mut out = Vec::new();

        expand(&octets, &Limits::default(), &mut out).unwrap();

        let compact = Data::from_octets(&octets, &Limits::default()).unwrap();
        let array = Data::from_octets(&out, &Limits::default()).unwrap();
        assert_eq!(array.elements(), compact.elements());
        assert_eq!(array.tag(), tag::ARRAY);
    }

    #[test]
    fn values_for_nothing_are_bounded() {
        let nulls = [0x13, 2, 2, 1, 0xFF, 0xFF, 1, 0xFF, 0xFF, 0, 0x11, 1, 7];
        let mut empty_arrays = vec![0x13, 2, 2, 1, 0, 0, 2, 0x82, 0x40, 0];
        empty_arrays.extend([0x11; 0x4000]);
        empty_arrays.extend([0x11, 0x82, 0x40, 0]);
        empty_arrays.extend([7; 0x4000]);

        for octets in [&nulls[..], &empty_arrays] {
            let error = expand(octets, &Limits::default(), &mut Vec::new()).unwrap_err();
            assert_eq!(error.code, "elements-over-limit");
        }
    }
}
