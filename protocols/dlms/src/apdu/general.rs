//! General-ciphering \[221\] and general-signing \[223\]: APDUs that say themselves who protects what for whom, and
//! with which key (Green Book, "Protected APDUs"). No cryptography here.

use std::ops::Range;

use ipss_session::ProtocolError;

use super::tags;
use crate::axdr::{Reader, write_length};

/// Whom and when a general APDU names. Each an octet string; all but the titles may be empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header<'a> {
    /// What tells one exchange from another.
    pub transaction_id: &'a [u8],
    /// Who protects.
    pub originator: &'a [u8],
    /// For whom.
    pub recipient: &'a [u8],
    /// When, a date-time.
    pub date_time: &'a [u8],
    /// Anything else.
    pub other_information: &'a [u8],
}

/// Which key a general-ciphering APDU uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyInfo<'a> {
    /// One that both have: 0 global unicast, 1 global broadcast.
    Identified(u8),
    /// One that comes wrapped.
    Wrapped {
        /// Under which key: 0 the master key.
        wrapped_by: u8,
        /// The wrapped key.
        key: &'a [u8],
    },
    /// One that both ends derive.
    Agreed {
        /// How: 01 one-pass Diffie-Hellman C(1e, 1s), 02 static unified model C(0e, 2s).
        parameters: &'a [u8],
        /// What it takes: for 01 the ephemeral public key and its signature.
        data: &'a [u8],
    },
}

/// A general-ciphering APDU. The body is SC || IC || content, at the APDU's very end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneralCiphering<'a> {
    /// Whom and when.
    pub header: Header<'a>,
    /// The header's octets, lengths among them: authenticated with the content.
    pub authenticated: Range<usize>,
    /// Which key; `None` leaves it to be known.
    pub key: Option<KeyInfo<'a>>,
    /// Where the body stands.
    pub body: Range<usize>,
}

/// A general-signing APDU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneralSigning<'a> {
    /// Whom and when.
    pub header: Header<'a>,
    /// The header's octets, lengths among them: signed before the content.
    pub signed: Range<usize>,
    /// Where the APDU stands that is signed.
    pub content: Range<usize>,
    /// r || s.
    pub signature: &'a [u8],
}

impl<'a> Header<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, ProtocolError> {
        Ok(Self {
            transaction_id: reader.octet_string()?,
            originator: reader.octet_string()?,
            recipient: reader.octet_string()?,
            date_time: reader.octet_string()?,
            other_information: reader.octet_string()?,
        })
    }

    /// Append it, lengths and values.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let fields = [self.transaction_id, self.originator, self.recipient, self.date_time, self.other_information];
        fields.iter().for_each(|field| octet_string(out, field));
    }
}

impl<'a> KeyInfo<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, ProtocolError> {
        match reader.u8()? {
            0 => Ok(Self::Identified(reader.u8()?)),
            1 => Ok(Self::Wrapped { wrapped_by: reader.u8()?, key: reader.octet_string()? }),
            2 => Ok(Self::Agreed { parameters: reader.octet_string()?, data: reader.octet_string()? }),
            other => Err(reader.error("unknown-choice", format!("key-info {other}; 0 to 2 expected"))),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Identified(id) => out.extend_from_slice(&[0, id]),
            Self::Wrapped { wrapped_by, key } => {
                out.extend_from_slice(&[1, wrapped_by]);
                octet_string(out, key);
            }
            Self::Agreed { parameters, data } => {
                out.push(2);
                octet_string(out, parameters);
                octet_string(out, data);
            }
        }
    }
}

impl<'a> GeneralCiphering<'a> {
    /// Find the parts of a whole APDU.
    ///
    /// # Errors
    /// `unexpected-apdu`, `truncated`, `trailing-octets`, `unknown-choice`, and what flags that are none give.
    pub fn decode(apdu: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut reader = begin(apdu, tags::GENERAL_CIPHERING)?;
        let header = Header::decode(&mut reader)?;
        let authenticated = 1..reader.offset();
        let key = if reader.present()? { Some(KeyInfo::decode(&mut reader)?) } else { None };
        let body = reader.octet_string()?;
        let body = reader.offset() - body.len()..reader.offset();
        reader.finish()?;
        Ok(Self { header, authenticated, key, body })
    }

    /// Put its head in front of `out[start..]`, which is SC || IC || content.
    pub fn wrap(header: &Header<'_>, key: &KeyInfo<'_>, out: &mut Vec<u8>, start: usize) {
        let end = out.len();
        out.push(tags::GENERAL_CIPHERING);
        header.encode(out);
        out.push(1);
        key.encode(out);
        write_length(out, end - start);
        let head = out.len() - end;
        out[start..].rotate_right(head);
    }
}

impl<'a> GeneralSigning<'a> {
    /// Find the parts of a whole APDU.
    ///
    /// # Errors
    /// `unexpected-apdu`, `truncated`, `trailing-octets`.
    pub fn decode(apdu: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut reader = begin(apdu, tags::GENERAL_SIGNING)?;
        let header = Header::decode(&mut reader)?;
        let signed = 1..reader.offset();
        let content = reader.octet_string()?.len();
        let content = reader.offset() - content..reader.offset();
        let signature = reader.octet_string()?;
        reader.finish()?;
        Ok(Self { header, signed, content, signature })
    }

    /// Put its head in front of `out[start..]`, the APDU that is signed, and the signature behind.
    pub fn wrap(header: &Header<'_>, signature: &[u8], out: &mut Vec<u8>, start: usize) {
        let end = out.len();
        out.push(tags::GENERAL_SIGNING);
        header.encode(out);
        write_length(out, end - start);
        let head = out.len() - end;
        out[start..].rotate_right(head);
        octet_string(out, signature);
    }
}

fn begin(apdu: &[u8], wanted: u8) -> Result<Reader<'_>, ProtocolError> {
    let mut reader = Reader::in_layer(apdu, "ciphering");
    let tag = reader.u8()?;
    if tag != wanted {
        return Err(reader.error("unexpected-apdu", format!("tag {tag:02X}; {wanted:02X} expected")));
    }
    Ok(reader)
}

fn octet_string(out: &mut Vec<u8>, octets: &[u8]) {
    write_length(out, octets.len());
    out.extend_from_slice(octets);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header<'static> {
        let (originator, recipient) = (&b"ABCDEFGH"[..], &b"abcdefgh"[..]);
        Header { transaction_id: &[7; 8], originator, recipient, ..Header::default() }
    }

    #[test]
    fn wrapped_body_is_found_again_with_every_kind_of_key() {
        let keys = [
            KeyInfo::Identified(0),
            KeyInfo::Wrapped { wrapped_by: 0, key: &[9; 24] },
            KeyInfo::Agreed { parameters: &[1], data: &[3; 128] },
            KeyInfo::Agreed { parameters: &[2], data: &[] },
        ];
        for key in keys {
            let mut out = vec![0xEE, 0x31, 0, 0, 0, 1, 0xAA];
            GeneralCiphering::wrap(&header(), &key, &mut out, 1);

            let apdu = GeneralCiphering::decode(&out[1..]).unwrap();

            assert_eq!((apdu.header, apdu.key), (header(), Some(key)));
            assert_eq!(out[1..][apdu.body.clone()], [0x31, 0, 0, 0, 1, 0xAA]);
            let mut encoded = Vec::new();
            header().encode(&mut encoded);
            assert_eq!(out[1..][apdu.authenticated], encoded);
            for end in 1..out.len() {
                assert!(GeneralCiphering::decode(&out[1..end]).is_err());
            }
        }
    }

    #[test]
    fn signed_content_is_found_again() {
        let mut out = vec![0xEE, 0xC0, 1, 2];
        GeneralSigning::wrap(&header(), &[5; 64], &mut out, 1);

        let apdu = GeneralSigning::decode(&out[1..]).unwrap();

        assert_eq!((apdu.header, apdu.signature), (header(), &[5; 64][..]));
        assert_eq!(out[1..][apdu.content], [0xC0, 1, 2]);
        for end in 1..out.len() {
            assert!(GeneralSigning::decode(&out[1..end]).is_err());
        }
    }
}
