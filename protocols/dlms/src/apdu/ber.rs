//! What of BER the ACSE APDUs need: tags of one octet and definite lengths (ITU-T X.690; Green Book, "ACSE APDUs").

use ipss_session::ProtocolError;

use crate::axdr::Reader;

/// One field: its tag and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The tag octet.
    pub tag: u8,
    /// The contents.
    pub contents: &'a [u8],
    /// Where the contents begin in the reader's octets.
    pub offset: usize,
}

/// The next field, `None` at the end.
///
/// # Errors
/// `truncated`, `bad-length`.
pub fn next_field<'a>(reader: &mut Reader<'a>) -> Result<Option<Field<'a>>, ProtocolError> {
    if reader.is_empty() {
        return Ok(None);
    }
    let tag = reader.u8()?;
    let length = reader.length()?;
    let offset = reader.offset();
    Ok(Some(Field { tag, contents: reader.take(length)?, offset }))
}

/// The contents of the field that fills `octets` and has this tag; some meters leave such inner fields out, so that
/// anything else is the contents itself.
pub fn inner(octets: &[u8], tag: u8) -> &[u8] {
    let mut reader = Reader::new(octets);
    match next_field(&mut reader) {
        Ok(Some(field)) if field.tag == tag && reader.is_empty() => field.contents,
        _ => octets,
    }
}

/// An INTEGER's contents if it is not negative and fits.
pub fn integer(octets: &[u8]) -> Option<u32> {
    if octets.is_empty() || octets.len() > 5 {
        return None;
    }
    u32::try_from(octets.iter().fold(0_u64, |number, octet| number << 8 | u64::from(*octet))).ok()
}

/// Append a field.
pub fn field(out: &mut Vec<u8>, tag: u8, contents: &[u8]) {
    out.push(tag);
    crate::axdr::write_length(out, contents.len());
    out.extend_from_slice(contents);
}

/// Append a field that holds one other field.
pub fn nested(out: &mut Vec<u8>, tag: u8, inner_tag: u8, contents: &[u8]) {
    let mark = begin(out, tag);
    field(out, inner_tag, contents);
    finish(out, mark);
}

/// Begin a field whose contents are appended next.
pub fn begin(out: &mut Vec<u8>, tag: u8) -> usize {
    out.extend_from_slice(&[tag, 0]);
    out.len()
}

/// End the field whose contents begin at `mark`.
pub fn finish(out: &mut Vec<u8>, mark: usize) {
    let length = out.len() - mark;
    if length < 0x80 {
        out[mark - 1] = length as u8; // `begin` put a place there
        return;
    }
    let octets = (length as u64).to_be_bytes();
    let zeros = octets.iter().take_while(|octet| **octet == 0).count();
    out[mark - 1] = 0x80 | (octets.len() - zeros) as u8;
    out.splice(mark..mark, octets[zeros..].iter().copied());
}
