//! Attribute descriptors without type octets inside structures: `02 02` class (2), logical name (6), attribute (1), then
//! a value that has its type octet (Sagemcom XT211; the Czech EG.D's HAN specification). No A-XDR, so such a body is
//! rewritten with the descriptor as a structure.

use std::borrow::Cow;

use ipss_session::{Limits, ProtocolError};

use crate::axdr::{Reader, skip, tag, write_length};

/// The body with its untagged descriptors tagged; the same octets if there are none.
///
/// # Errors
/// As [`skip`] says of a body that is no A-XDR either way.
pub fn tagged<'a>(body: &'a [u8], limits: &Limits) -> Result<Cow<'a, [u8]>, ProtocolError> {
    let mut reader = Reader::new(body);
    let plain = skip(&mut reader, limits).and_then(|()| reader.finish());
    let Err(error) = plain else { return Ok(Cow::Borrowed(body)) };
    let mut out = Vec::with_capacity(body.len() + body.len() / 2);
    let mut reader = Reader::new(body);
    match value(&mut reader, limits, limits.depth, &mut out) {
        Ok(true) if reader.is_empty() => Ok(Cow::Owned(out)),
        _ => Err(error),
    }
}

/// Copy one value; whether a descriptor was tagged in it.
fn value(reader: &mut Reader<'_>, limits: &Limits, depth: usize, out: &mut Vec<u8>) -> Result<bool, ProtocolError> {
    let start = reader.offset();
    match reader.peek() {
        Some(octet @ (tag::ARRAY | tag::STRUCTURE)) if depth > 0 => {
            reader.u8()?;
            let count = reader.length()?;
            if count > limits.elements.min(reader.remaining()) {
                return Err(reader.error("elements-over-limit", "more elements than octets"));
            }
            out.push(octet);
            write_length(out, count);
            let mut found = false;
            for index in 0..count {
                found |= match (octet, count, index) {
                    (tag::STRUCTURE, 2, 0) if descriptor(reader, out) => true,
                    _ => value(reader, limits, depth - 1, out)?,
                };
            }
            Ok(found)
        }
        _ => {
            skip(reader, limits)?;
            out.extend_from_slice(reader.since(start));
            Ok(false)
        }
    }
}

/// Take a descriptor: classes have numbers below 256 here, the last group is 255, attributes are few.
fn descriptor(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> bool {
    let Some(&[0, class, a, b, c, d, e, 255, attribute @ 1..=30]) = reader.rest().first_chunk::<9>() else {
        return false;
    };
    if reader.take(9).is_err() {
        return false;
    }
    out.extend_from_slice(&[tag::STRUCTURE, 3, tag::LONG_UNSIGNED, 0, class, tag::OCTET_STRING, 6]);
    out.extend_from_slice(&[a, b, c, d, e, 255, tag::INTEGER, attribute]);
    true
}
