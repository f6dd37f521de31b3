//! The frame around a ciphered APDU: glo- and ded- service APDUs, general-glo-ciphering \[219\] and
//! general-ded-ciphering \[220\] (Green Book, "Protected APDUs"). No cryptography here.
//!
//! The body is SC || IC || content, as the cipher wants it, at the APDU's very end.

use std::ops::Range;

use ipss_session::ProtocolError;

use super::tags::{self, KeyKind};
use crate::axdr::{Reader, write_length};

/// A ciphered APDU's parts by their places in it, so that the body can be deciphered where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CipheredApdu {
    /// The APDU's tag.
    pub tag: u8,
    /// The tag that the plain APDU must have; `None` for the general forms, which carry any APDU.
    pub plain_tag: Option<u8>,
    /// Whose key is used.
    pub key: KeyKind,
    /// The sender's system title, in the general forms; empty if the sender leaves it to be known.
    pub system_title: Option<Range<usize>>,
    /// The security control octet.
    pub security_control: SecurityControl,
    /// The invocation counter: a claim until the tag verifies.
    pub invocation_counter: u32,
    /// SC || IC || content, to the APDU's end.
    pub body: Range<usize>,
}

/// What the security control octet says (Green Book, "Security control byte").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SecurityControl(pub u8);

impl SecurityControl {
    /// The suite's number. Meters that push do not always mean it.
    pub fn suite(self) -> u8 {
        self.0 & 0x0F
    }

    /// Whether there is an authentication tag.
    pub fn authenticated(self) -> bool {
        self.0 & 0x10 != 0
    }

    /// Whether the content is encrypted.
    pub fn encrypted(self) -> bool {
        self.0 & 0x20 != 0
    }

    /// Whether the broadcast key is used instead of the unicast key.
    pub fn broadcast(self) -> bool {
        self.0 & 0x40 != 0
    }

    /// Whether the plain APDU was compressed.
    pub fn compressed(self) -> bool {
        self.0 & 0x80 != 0
    }
}

/// Whether an APDU with this tag is one that [`CipheredApdu::decode`] understands.
#[inline]
pub fn is_ciphered(tag: u8) -> bool {
    matches!(tag, tags::GENERAL_GLO_CIPHERING | tags::GENERAL_DED_CIPHERING) || tags::plain(tag).is_some()
}

/// Whether an APDU with this tag is protected in any form.
#[inline]
pub fn is_protected(tag: u8) -> bool {
    matches!(tag, tags::GENERAL_CIPHERING | tags::GENERAL_SIGNING) || is_ciphered(tag)
}

impl CipheredApdu {
    /// Find the parts of a whole APDU.
    ///
    /// # Errors
    /// `unexpected-apdu`, `truncated`, `trailing-octets`, `bad-system-title`.
    #[inline]
    pub fn decode(apdu: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader::in_layer(apdu, "ciphering");
        let tag = reader.u8()?;
        let (plain_tag, key, system_title) = match (tag, tags::plain(tag)) {
            (_, Some((plain, key))) => (Some(plain), key, None),
            (tags::GENERAL_GLO_CIPHERING, _) => (None, KeyKind::Global, Some(system_title(&mut reader)?)),
            (tags::GENERAL_DED_CIPHERING, _) => (None, KeyKind::Dedicated, Some(system_title(&mut reader)?)),
            _ => {
                let message = format!("tag {tag:02X} is not that of a ciphered APDU");
                return Err(ProtocolError::remote("ciphering", 0, "unexpected-apdu", message));
            }
        };
        let length = reader.length()?;
        let start = reader.offset();
        let mut body = Reader::in_layer(apdu, "ciphering");
        body.take(start)?;
        let [control, a, b, c, d] = body.array()?;
        reader.take(length)?;
        reader.finish()?;
        if length < 5 {
            return Err(reader.error("truncated", format!("{length} octets of body; 5 at least")));
        }
        Ok(Self {
            tag,
            plain_tag,
            key,
            system_title,
            security_control: SecurityControl(control),
            invocation_counter: u32::from_be_bytes([a, b, c, d]),
            body: start..reader.offset(),
        })
    }
}

/// Put the head of a service-specific ciphered APDU in front of `out[start..]`, which is SC || IC || content.
pub fn wrap_service(out: &mut Vec<u8>, start: usize, tag: u8) {
    wrap(out, start, tag, None);
}

/// Put the head of a general-glo or general-ded APDU in front of `out[start..]`, which is SC || IC || content.
pub fn wrap_general(out: &mut Vec<u8>, start: usize, key: KeyKind, system_title: &[u8; 8]) {
    let tag = match key {
        KeyKind::Global => tags::GENERAL_GLO_CIPHERING,
        KeyKind::Dedicated => tags::GENERAL_DED_CIPHERING,
    };
    wrap(out, start, tag, Some(system_title));
}

/// The head is written behind the body, then the two change places: no buffer of its own.
fn wrap(out: &mut Vec<u8>, start: usize, tag: u8, system_title: Option<&[u8; 8]>) {
    let end = out.len();
    out.push(tag);
    if let Some(title) = system_title {
        out.push(8);
        out.extend_from_slice(title);
    }
    write_length(out, end - start);
    let head = out.len() - end;
    out[start..].rotate_right(head);
}

fn system_title(reader: &mut Reader<'_>) -> Result<Range<usize>, ProtocolError> {
    let length = reader.length()?;
    let start = reader.offset();
    if length != 0 && length != 8 {
        return Err(reader.error("bad-system-title", format!("a system title of {length} octets; 8 expected, or none")));
    }
    reader.take(length)?;
    Ok(start..reader.offset())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_body_is_found_again() {
        for (length, title) in [(5, false), (17, true), (200, false), (70_000, true)] {
            let body: Vec<u8> = (0..length).map(|place| place as u8).collect();
            let mut out = vec![0xEE];
            out.extend_from_slice(&body);
            if title {
                wrap_general(&mut out, 1, KeyKind::Global, b"ABCDEFGH");
            } else {
                wrap_service(&mut out, 1, 0xCC);
            }

            let apdu = CipheredApdu::decode(&out[1..]).unwrap();

            assert_eq!(out[1..][apdu.body.clone()], body);
            assert_eq!(apdu.plain_tag, (!title).then_some(tags::GET_RESPONSE));
            assert_eq!(apdu.system_title.map(|place| &out[1..][place]), title.then_some(&b"ABCDEFGH"[..]));
            assert_eq!((apdu.security_control.0, apdu.invocation_counter), (0, 0x0102_0304));
        }
    }

    #[test]
    fn body_too_short_for_its_head_is_refused() {
        for octets in [&[0xCC, 4, 0x30, 0, 0, 0][..], &[0xCC, 5, 0x30, 0, 0, 0], &[0xDB, 3, 1, 2, 3, 5, 0, 0, 0, 0, 0]]
        {
            assert!(CipheredApdu::decode(octets).is_err());
        }
    }
}
