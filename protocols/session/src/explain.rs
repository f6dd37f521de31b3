//! What explanations of bytes have in common, whatever the protocol: `ipss-headend decode`.

use crate::json::Json;
use crate::{Fault, ProtocolError};

/// What one side sent.
#[derive(Clone, Copy, Debug)]
pub struct Transmission<'a> {
    /// Who sent it, if that is known. Segments and streams are put together for each sender.
    pub from: Option<Sender>,
    /// The octets.
    pub octets: &'a [u8],
}

/// Who sent a transmission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sender {
    /// The meter.
    Meter,
    /// The head-end.
    HeadEnd,
}

/// How a translation went. The numbers do not matter, the names are the answer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Everything was understood.
    Decoded,
    /// A valid beginning; more octets are wanted.
    Incomplete,
    /// Valid, but a key is missing.
    Protected,
    /// Broken, or not to be explained here.
    Error,
}

impl Outcome {
    /// The name in the answer.
    pub fn name(self) -> &'static str {
        match self {
            Self::Decoded => "decoded",
            Self::Incomplete => "incomplete",
            Self::Protected => "protected",
            Self::Error => "error",
        }
    }
}

/// The member `error` of an answer.
pub fn error(out: &mut Json<'_>, error: &ProtocolError) {
    out.key("error");
    out.begin('{');
    out.member_string("fault", if error.fault == Fault::Remote { "remote" } else { "local" });
    out.member_string("layer", error.layer);
    out.member_integer("offset", error.offset as u64);
    out.member_string("code", error.code);
    out.member_string("message", &error.message);
    out.end();
}

/// The answer to a request that cannot even be read, such as hexadecimal digits that are none.
pub fn refuse(id: Option<&str>, code: &'static str, message: &str, write: &mut dyn FnMut(&str)) {
    let mut out = Json::new(write);
    out.begin('{');
    if let Some(id) = id {
        out.key("id");
        out.plain(id);
    }
    out.member_string("outcome", Outcome::Error.name());
    for key in ["frames", "apdus", "readings", "warnings"] {
        out.key(key);
        out.begin('[');
        out.end();
    }
    error(&mut out, &ProtocolError::local("request", code, message));
    out.end();
}

/// The octets that hexadecimal digits name; white space and `#` comments are passed over.
///
/// # Errors
/// Local: `bad-hex`, at the character.
pub fn parse_hex(text: &str) -> Result<Vec<u8>, ProtocolError> {
    let mut octets = Vec::with_capacity(text.len() / 2);
    let (mut half, mut comment) = (None, false);
    for (offset, character) in text.char_indices() {
        match character {
            '\n' => comment = false,
            _ if comment => {}
            '#' => comment = true,
            _ if character.is_whitespace() => {}
            _ => {
                let Some(digit) = character.to_digit(16) else {
                    let message = format!("'{}' is no hexadecimal digit", character.escape_default());
                    let error = ProtocolError::local("request", "bad-hex", message);
                    return Err(ProtocolError { offset, ..error });
                };
                half = match half {
                    None => Some(digit as u8),
                    Some(high) => {
                        octets.push(high << 4 | digit as u8);
                        None
                    }
                };
            }
        }
    }
    match half {
        None => Ok(octets),
        Some(_) => {
            let error = ProtocolError::local("request", "bad-hex", "an odd number of hexadecimal digits");
            Err(ProtocolError { offset: text.len(), ..error })
        }
    }
}
