//! The association's beginning and end: AARQ, AARE, RLRQ, RLRE (Green Book, "ACSE APDUs"; ISO/IEC 15954, in BER).
//!
//! Meters leave out what the standard wants and send more than it has, so that unknown fields are passed over and only
//! the framing is held against the sender. A field that comes twice is an error: which one counts must be no question.

mod names;

use std::fmt;

use ipss_session::ProtocolError;

pub use names::{ApplicationContext, Diagnostic, Mechanism};

use super::ber::{self, Field};
use super::tags;
use crate::axdr::Reader;

/// The request to associate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Aarq<'a> {
    /// Which context is wanted.
    pub application_context: ApplicationContext,
    /// The system title that the client expects, rarely sent.
    pub called_ap_title: Option<&'a [u8]>,
    /// The client's system title.
    pub calling_ap_title: Option<&'a [u8]>,
    /// The client's certificate, suites 1 and 2.
    pub calling_ae_qualifier: Option<&'a [u8]>,
    /// The user behind the client, where meters tell users apart.
    pub calling_ae_invocation_id: Option<u32>,
    /// Whether authentication is asked for.
    pub sender_acse_requirements: bool,
    /// How.
    pub mechanism: Option<Mechanism>,
    /// The password (LLS) or the client's challenge (HLS).
    pub authentication_value: Option<&'a [u8]>,
    /// An InitiateRequest, plain or ciphered.
    pub user_information: Option<&'a [u8]>,
}

/// The answer to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Aare<'a> {
    /// Which context is meant; a meter that rejects sends what it likes.
    pub application_context: ApplicationContext,
    /// 0 accepted, 1 rejected-permanent, 2 rejected-transient.
    pub result: u8,
    /// Why.
    pub diagnostic: Diagnostic,
    /// The meter's system title.
    pub responding_ap_title: Option<&'a [u8]>,
    /// The meter's certificate, suites 1 and 2.
    pub responding_ae_qualifier: Option<&'a [u8]>,
    /// The user as the meter understood it.
    pub responding_ae_invocation_id: Option<u32>,
    /// Whether authentication goes on.
    pub responder_acse_requirements: bool,
    /// How.
    pub mechanism: Option<Mechanism>,
    /// The meter's challenge.
    pub authentication_value: Option<&'a [u8]>,
    /// An InitiateResponse or a ConfirmedServiceError, plain or ciphered.
    pub user_information: Option<&'a [u8]>,
}

impl<'a> Aarq<'a> {
    /// Decode a whole APDU.
    ///
    /// # Errors
    /// `truncated`, `trailing-octets`, `duplicate-field`, `missing-field`, `bad-field`.
    pub fn decode(apdu: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut context = None;
        let mut aarq = Self {
            application_context: ApplicationContext::Other(0),
            called_ap_title: None,
            calling_ap_title: None,
            calling_ae_qualifier: None,
            calling_ae_invocation_id: None,
            sender_acse_requirements: false,
            mechanism: None,
            authentication_value: None,
            user_information: None,
        };
        each_field(apdu, tags::AARQ, |field| {
            let contents = field.contents;
            match field.tag {
                0xA1 => context = Some(context_name(&field)?),
                0xA2 => aarq.called_ap_title = Some(ber::inner(contents, OCTET_STRING)),
                0xA6 => aarq.calling_ap_title = Some(ber::inner(contents, OCTET_STRING)),
                0xA7 => aarq.calling_ae_qualifier = Some(ber::inner(contents, OCTET_STRING)),
                0xA9 => aarq.calling_ae_invocation_id = ber::integer(ber::inner(contents, INTEGER)),
                0x8A => aarq.sender_acse_requirements = authentication_bit(contents),
                0x8B => aarq.mechanism = Some(mechanism_name(&field)?),
                0xAC => aarq.authentication_value = Some(authentication_value(contents)),
                0xBE => aarq.user_information = Some(ber::inner(contents, OCTET_STRING)),
                _ => {}
            }
            Ok(())
        })?;
        aarq.application_context = context.ok_or_else(|| missing("application-context-name"))?;
        Ok(aarq)
    }

    /// Append it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mark = ber::begin(out, tags::AARQ);
        ber::nested(out, 0xA1, OBJECT_IDENTIFIER, &name(CONTEXT, self.application_context.number()));
        optional(out, 0xA2, OCTET_STRING, self.called_ap_title);
        optional(out, 0xA6, OCTET_STRING, self.calling_ap_title);
        optional(out, 0xA7, OCTET_STRING, self.calling_ae_qualifier);
        optional_integer(out, 0xA9, self.calling_ae_invocation_id);
        if self.sender_acse_requirements {
            ber::field(out, 0x8A, &AUTHENTICATION);
        }
        if let Some(mechanism) = self.mechanism {
            ber::field(out, 0x8B, &name(MECHANISM, mechanism.number()));
        }
        optional(out, 0xAC, CHARACTER_STRING, self.authentication_value);
        optional(out, 0xBE, OCTET_STRING, self.user_information);
        ber::finish(out, mark);
    }
}

impl<'a> Aare<'a> {
    /// Accepted.
    pub const ACCEPTED: u8 = 0;
    /// Rejected, and it will stay so.
    pub const REJECTED_PERMANENT: u8 = 1;
    /// Rejected for now.
    pub const REJECTED_TRANSIENT: u8 = 2;

    /// Decode a whole APDU.
    ///
    /// # Errors
    /// `truncated`, `trailing-octets`, `duplicate-field`, `missing-field` (the result), `bad-field`.
    pub fn decode(apdu: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut result = None;
        let mut aare = Self {
            application_context: ApplicationContext::Other(0),
            result: 0,
            diagnostic: Diagnostic::NONE,
            responding_ap_title: None,
            responding_ae_qualifier: None,
            responding_ae_invocation_id: None,
            responder_acse_requirements: false,
            mechanism: None,
            authentication_value: None,
            user_information: None,
        };
        each_field(apdu, tags::AARE, |field| {
            let contents = field.contents;
            match field.tag {
                0xA1 => aare.application_context = context_name(&field)?,
                0xA2 => result = Some(small(&field, ber::inner(contents, INTEGER))?),
                0xA3 => aare.diagnostic = diagnostic(&field)?,
                0xA4 => aare.responding_ap_title = Some(ber::inner(contents, OCTET_STRING)),
                0xA5 => aare.responding_ae_qualifier = Some(ber::inner(contents, OCTET_STRING)),
                0xA7 => aare.responding_ae_invocation_id = ber::integer(ber::inner(contents, INTEGER)),
                0x88 => aare.responder_acse_requirements = authentication_bit(contents),
                0x89 => aare.mechanism = Some(mechanism_name(&field)?),
                0xAA => aare.authentication_value = Some(authentication_value(contents)),
                0xBE => aare.user_information = Some(ber::inner(contents, OCTET_STRING)),
                _ => {}
            }
            Ok(())
        })?;
        aare.result = result.ok_or_else(|| missing("result"))?;
        Ok(aare)
    }

    /// Append it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mark = ber::begin(out, tags::AARE);
        ber::nested(out, 0xA1, OBJECT_IDENTIFIER, &name(CONTEXT, self.application_context.number()));
        ber::nested(out, 0xA2, INTEGER, &[self.result]);
        let (choice, number) = match self.diagnostic {
            Diagnostic::User(number) => (0xA1, number),
            Diagnostic::Provider(number) => (0xA2, number),
        };
        ber::nested(out, 0xA3, choice, &[INTEGER, 1, number]);
        optional(out, 0xA4, OCTET_STRING, self.responding_ap_title);
        optional(out, 0xA5, OCTET_STRING, self.responding_ae_qualifier);
        optional_integer(out, 0xA7, self.responding_ae_invocation_id);
        if self.responder_acse_requirements {
            ber::field(out, 0x88, &AUTHENTICATION);
        }
        if let Some(mechanism) = self.mechanism {
            ber::field(out, 0x89, &name(MECHANISM, mechanism.number()));
        }
        optional(out, 0xAA, CHARACTER_STRING, self.authentication_value);
        optional(out, 0xBE, OCTET_STRING, self.user_information);
        ber::finish(out, mark);
    }

    /// The standard's name of the result.
    pub fn result_name(&self) -> Option<&'static str> {
        ["accepted", "rejected-permanent", "rejected-transient"].get(usize::from(self.result)).copied()
    }
}

/// RLRQ and RLRE: the request to release the association, and the answer. They differ in the tag alone.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Release<'a> {
    /// RLRQ: 0 normal, 1 urgent, 30 user-defined. RLRE: 0 normal, 1 not-finished, 30 user-defined. May be missing.
    pub reason: Option<u8>,
    /// As in the AARQ or AARE, where the association is ciphered.
    pub user_information: Option<&'a [u8]>,
}

impl<'a> Release<'a> {
    /// Decode a whole APDU with [`tags::RLRQ`] or [`tags::RLRE`].
    ///
    /// # Errors
    /// `truncated`, `trailing-octets`, `duplicate-field`, `bad-field`.
    pub fn decode(apdu: &'a [u8], tag: u8) -> Result<Self, ProtocolError> {
        let mut release = Self::default();
        each_field(apdu, tag, |field| {
            match field.tag {
                0x80 => release.reason = Some(small(&field, field.contents)?),
                0xBE => release.user_information = Some(ber::inner(field.contents, OCTET_STRING)),
                _ => {}
            }
            Ok(())
        })?;
        Ok(release)
    }

    /// Append it as [`tags::RLRQ`] or [`tags::RLRE`].
    pub fn encode(&self, out: &mut Vec<u8>, tag: u8) {
        let mark = ber::begin(out, tag);
        if let Some(reason) = self.reason {
            ber::field(out, 0x80, &[reason]);
        }
        optional(out, 0xBE, OCTET_STRING, self.user_information);
        ber::finish(out, mark);
    }
}

/// Never shows the password.
impl fmt::Debug for Aarq<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aarq")
            .field("application_context", &self.application_context)
            .field("calling_ap_title", &self.calling_ap_title)
            .field("calling_ae_invocation_id", &self.calling_ae_invocation_id)
            .field("mechanism", &self.mechanism)
            .field("authentication_value", &self.authentication_value.map(<[u8]>::len))
            .field("user_information", &self.user_information.map(<[u8]>::len))
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Aare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aare")
            .field("application_context", &self.application_context)
            .field("result", &self.result)
            .field("diagnostic", &self.diagnostic)
            .field("responding_ap_title", &self.responding_ap_title)
            .field("mechanism", &self.mechanism)
            .field("authentication_value", &self.authentication_value.map(<[u8]>::len))
            .field("user_information", &self.user_information.map(<[u8]>::len))
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Release<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Release")
            .field("reason", &self.reason)
            .field("user_information", &self.user_information.map(<[u8]>::len))
            .finish()
    }
}

fn each_field<'a>(
    apdu: &'a [u8],
    tag: u8,
    mut take: impl FnMut(Field<'a>) -> Result<(), ProtocolError>,
) -> Result<(), ProtocolError> {
    let mut outer = Reader::in_layer(apdu, "acse");
    let Some(whole) = ber::next_field(&mut outer)? else { return Err(outer.error("truncated", "no APDU at all")) };
    if whole.tag != tag {
        let message = format!("tag {:02X}; {tag:02X} expected", whole.tag);
        return Err(ProtocolError::remote("acse", 0, "unexpected-apdu", message));
    }
    outer.finish()?;
    let mut reader = Reader::in_layer(apdu, "acse");
    reader.take(whole.offset)?;
    let mut seen = [false; 256];
    while let Some(field) = next_within(&mut reader)? {
        if std::mem::replace(&mut seen[usize::from(field.tag)], true) {
            let message = format!("field {:02X} comes twice", field.tag);
            return Err(ProtocolError::remote("acse", field.offset, "duplicate-field", message));
        }
        take(field)?;
    }
    Ok(())
}

/// The next field of an APDU that is known to be whole: a field that reaches over its end is no reason to wait.
fn next_within<'a>(reader: &mut Reader<'a>) -> Result<Option<Field<'a>>, ProtocolError> {
    ber::next_field(reader).map_err(|error| match error.code {
        "truncated" => ProtocolError { code: "bad-field", ..error },
        _ => error,
    })
}

fn missing(field: &str) -> ProtocolError {
    ProtocolError::remote("acse", 0, "missing-field", format!("there is no {field}"))
}

#[cold]
fn bad_field(field: &Field<'_>, wanted: &str) -> ProtocolError {
    ProtocolError::remote("acse", field.offset, "bad-field", format!("field {:02X} is not {wanted}", field.tag))
}

fn small(field: &Field<'_>, octets: &[u8]) -> Result<u8, ProtocolError> {
    ber::integer(octets).and_then(|number| u8::try_from(number).ok()).ok_or_else(|| bad_field(field, "a small number"))
}

/// 2.16.756.5.8.1.x; the arcs before the last are the same for all names of DLMS.
fn context_name(field: &Field<'_>) -> Result<ApplicationContext, ProtocolError> {
    match *ber::inner(field.contents, OBJECT_IDENTIFIER) {
        [0x60, 0x85, 0x74, 0x05, 0x08, CONTEXT, number] => Ok(ApplicationContext::from_number(number)),
        _ => Err(bad_field(field, "an application context name of DLMS")),
    }
}

/// 2.16.756.5.8.2.x
fn mechanism_name(field: &Field<'_>) -> Result<Mechanism, ProtocolError> {
    match *ber::inner(field.contents, OBJECT_IDENTIFIER) {
        [0x60, 0x85, 0x74, 0x05, 0x08, MECHANISM, number] => Ok(Mechanism::from_number(number)),
        _ => Err(bad_field(field, "a mechanism name of DLMS")),
    }
}

/// The diagnostic in the user's (A1) or the provider's (A2) choice.
fn diagnostic(field: &Field<'_>) -> Result<Diagnostic, ProtocolError> {
    let mut reader = Reader::in_layer(field.contents, "acse");
    let choice = next_within(&mut reader)?.ok_or_else(|| bad_field(field, "a diagnostic"))?;
    let number = small(field, ber::inner(choice.contents, INTEGER))?;
    match choice.tag {
        0xA1 => Ok(Diagnostic::User(number)),
        0xA2 => Ok(Diagnostic::Provider(number)),
        _ => Err(bad_field(field, "a diagnostic")),
    }
}

/// A BIT STRING whose first bit is authentication.
fn authentication_bit(contents: &[u8]) -> bool {
    contents.get(1).is_some_and(|bits| bits & 0x80 != 0)
}

/// The character string, or the bit string without its count of unused bits.
fn authentication_value(contents: &[u8]) -> &[u8] {
    match ber::inner(contents, CHARACTER_STRING) {
        whole if whole.len() == contents.len() => {
            let bits = ber::inner(contents, BIT_STRING_CHOICE);
            if bits.len() == contents.len() { contents } else { bits.get(1..).unwrap_or_default() }
        }
        characters => characters,
    }
}

fn name(kind: u8, number: u8) -> [u8; 7] {
    [0x60, 0x85, 0x74, 0x05, 0x08, kind, number]
}

fn optional(out: &mut Vec<u8>, tag: u8, inner_tag: u8, contents: Option<&[u8]>) {
    if let Some(contents) = contents {
        ber::nested(out, tag, inner_tag, contents);
    }
}

fn optional_integer(out: &mut Vec<u8>, tag: u8, number: Option<u32>) {
    if let Some(number) = number {
        let octets = u64::from(number).to_be_bytes();
        // The first bit is the sign.
        let surplus = octets.windows(2).take_while(|pair| pair[0] == 0 && pair[1] < 0x80).count();
        ber::nested(out, tag, INTEGER, &octets[surplus..]);
    }
}

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const CHARACTER_STRING: u8 = 0x80;
const BIT_STRING_CHOICE: u8 = 0x81;
const CONTEXT: u8 = 1;
const MECHANISM: u8 = 2;
/// One bit, set: 7 of the octet's bits are unused.
const AUTHENTICATION: [u8; 2] = [0x07, 0x80];

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
    }

    // Green Book, "AARQ and AARE encoding examples": low-level security with the password 12345678.
    const AARQ: &str =
        "60 36 A1 09 06 07 60 85 74 05 08 01 01 8A 02 07 80 8B 07 60 85 74 05 08 02 01 AC 0A 80 08 31 32 33 34
        35 36 37 38 BE 10 04 0E 01 00 00 00 06 5F 1F 04 00 00 7E 1F 04 B0";
    const AARE: &str =
        "61 29 A1 09 06 07 60 85 74 05 08 01 01 A2 03 02 01 00 A3 05 A1 03 02 01 00 BE 10 04 0E 08 00 06 5F 1F
        04 00 00 50 1F 01 F4 00 07";

    #[test]
    fn the_green_books_aarq_is_read_and_written_to_the_octet() {
        let octets = hex(AARQ);

        let aarq = Aarq::decode(&octets).unwrap();

        assert_eq!(aarq.application_context, ApplicationContext::LogicalName);
        assert_eq!(aarq.mechanism, Some(Mechanism::Low));
        assert_eq!(aarq.authentication_value, Some(&b"12345678"[..]));
        assert!(aarq.sender_acse_requirements);
        let mut out = Vec::new();
        aarq.encode(&mut out);
        assert_eq!(out, octets);
    }

    #[test]
    fn the_green_books_aare_is_read_and_written_to_the_octet() {
        let octets = hex(AARE);

        let aare = Aare::decode(&octets).unwrap();

        assert_eq!((aare.result, aare.diagnostic), (Aare::ACCEPTED, Diagnostic::NONE));
        let mut out = Vec::new();
        aare.encode(&mut out);
        assert_eq!(out, octets);
    }

    #[test]
    fn rejecting_aare_without_user_information_is_an_answer() {
        let octets = hex("61 17 A1 09 06 07 60 85 74 05 08 01 01 A2 03 02 01 01 A3 05 A2 03 02 01 02");

        let aare = Aare::decode(&octets).unwrap();

        assert_eq!((aare.result, aare.diagnostic, aare.user_information), (1, Diagnostic::Provider(2), None));
        assert_eq!(aare.diagnostic.name(), Some("no-common-acse-version"));
    }

    #[test]
    fn release_responses_of_the_field_are_understood() {
        for (octets, reason) in [("63 00", None), ("63 03 80 01 00", Some(0))] {
            assert_eq!(Release::decode(&hex(octets), tags::RLRE).unwrap(), Release { reason, user_information: None });
        }
    }

    #[test]
    fn truncated_aare_waits_for_more() {
        let octets = hex(AARE);
        for end in 0..octets.len() {
            assert_eq!(Aare::decode(&octets[..end]).unwrap_err().code, "truncated");
        }
    }

    #[test]
    fn fields_that_come_twice_or_reach_over_the_end_are_refused() {
        let twice = hex("61 0A A2 03 02 01 00 A2 03 02 01 01");
        let over = hex("61 05 A2 04 02 01 00");

        assert_eq!(Aare::decode(&twice).unwrap_err().code, "duplicate-field");
        assert_eq!(Aare::decode(&over).unwrap_err().code, "bad-field");
        assert_eq!(Aare::decode(&hex("61 00")).unwrap_err().code, "missing-field");
    }

    #[test]
    fn user_ids_are_written_as_ber_has_them() {
        for id in [0, 1, 127, 128, 255, 65_535, u32::MAX] {
            let mut aarq = Aarq::decode(&[0x60, 11, 0xA1, 9, 6, 7, 0x60, 0x85, 0x74, 5, 8, 1, 3]).unwrap();
            aarq.calling_ae_invocation_id = Some(id);
            let mut out = Vec::new();
            aarq.encode(&mut out);
            assert_eq!(Aarq::decode(&out).unwrap(), aarq);
        }
    }
}
