//! Find where a value ends without building it: what every GET response and notification does first.

use ipss_session::{Limits, ProtocolError};

use super::reader::Reader;
use super::tag;

/// No nesting deeper than this is followed whatever the limits say: the walk's own stack has this many places.
pub const MAX_DEPTH: usize = 64;

/// Step over one value. Allocates nothing and takes time linear in the value's octets.
///
/// # Errors
/// `truncated`, `unknown-type`, `depth-over-limit`, `elements-over-limit`, `bad-length`.
pub fn skip(reader: &mut Reader<'_>, limits: &Limits) -> Result<(), ProtocolError> {
    let mut open = Open::new(limits);
    loop {
        let tag = reader.u8()?;
        match tag::SIZES[usize::from(tag)] {
            size @ 0..=12 => {
                reader.take(usize::from(size))?;
            }
            tag::OCTETS => {
                reader.octet_string()?;
            }
            tag::BITS => {
                let bits = reader.length()?;
                reader.take(bits.div_ceil(8))?;
            }
            tag::ELEMENTS => {
                let count = element_count(reader, limits)?;
                if count > 0 {
                    open.container(reader, count)?;
                    continue;
                }
            }
            tag::COMPACT => {
                skip_description(reader, limits)?;
                reader.octet_string()?;
            }
            _ => return Err(unknown_type(reader, tag)),
        }
        if open.value_ended() {
            return Ok(());
        }
    }
}

/// Step over a compact-array's type description.
pub(crate) fn skip_description(reader: &mut Reader<'_>, limits: &Limits) -> Result<(), ProtocolError> {
    let mut open = Open::new(limits);
    loop {
        match reader.u8()? {
            tag::ARRAY => {
                reader.u16()?;
                open.container(reader, 1)?;
                continue;
            }
            tag::STRUCTURE => {
                let count = element_count(reader, limits)?;
                if count > 0 {
                    open.container(reader, count)?;
                    continue;
                }
            }
            tag => check_element_type(reader, tag)?,
        }
        if open.value_ended() {
            return Ok(());
        }
    }
}

/// A type that may stand inside a compact-array: any but a compact-array (Green Book, TypeDescription).
pub(crate) fn check_element_type(reader: &Reader<'_>, tag: u8) -> Result<(), ProtocolError> {
    match tag::SIZES[usize::from(tag)] {
        tag::COMPACT | tag::UNKNOWN => Err(unknown_type(reader, tag)),
        _ => Ok(()),
    }
}

/// The count of an array or structure, held against the limit before anything is done with it.
#[inline]
pub(crate) fn element_count(reader: &mut Reader<'_>, limits: &Limits) -> Result<usize, ProtocolError> {
    let count = reader.length()?;
    if count > limits.elements {
        return Err(reader.error("elements-over-limit", format!("{count} elements; at most {}", limits.elements)));
    }
    Ok(count)
}

#[cold]
pub(crate) fn unknown_type(reader: &Reader<'_>, tag: u8) -> ProtocolError {
    reader.error("unknown-type", format!("{tag:02X} is not the type of a value here"))
}

#[cold]
pub(crate) fn too_deep(reader: &Reader<'_>, limit: usize) -> ProtocolError {
    reader.error("depth-over-limit", format!("values nested more than {limit} deep"))
}

/// The containers that the walk is inside of: how many of their elements are still to come.
struct Open {
    elements: [usize; MAX_DEPTH],
    depth: usize,
    limit: usize,
}

impl Open {
    #[inline]
    fn new(limits: &Limits) -> Self {
        Self { elements: [0; MAX_DEPTH], depth: 0, limit: limits.depth.min(MAX_DEPTH) }
    }

    #[inline]
    fn container(&mut self, reader: &Reader<'_>, count: usize) -> Result<(), ProtocolError> {
        if self.depth == self.limit {
            return Err(too_deep(reader, self.limit));
        }
        self.elements[self.depth] = count; // below the limit, which is at most the array's length
        self.depth += 1;
        Ok(())
    }

    /// Whether the outermost value has ended too.
    #[inline]
    fn value_ended(&mut self) -> bool {
        while let Some(last) = self.depth.checked_sub(1) {
            self.elements[last] -= 1; // at least 1 while the container is open
            if self.elements[last] > 0 {
                return false;
            }
            self.depth = last;
        }
        true
    }
}
