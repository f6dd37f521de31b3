//! Services with short names: Read \[5, 12\], Write \[6, 13\], Unconfirmed-Write \[22\], Information-Report \[24\]
//! (Green Book, "Read service" and following). A short name is 16 bits for one attribute or method of one object.

use ipss_session::{Limits, ProtocolError};

use super::list::{Item, List, bad_choice, open};
use super::tags;
use crate::axdr::{Reader, skip, write_length};

/// What is meant (Green Book, Variable-Access-Specification).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable<'a> {
    /// The attribute or method with this short name.
    Name(u16),
    /// The part of it that the selector and its parameters name, or a method with its parameters.
    Parameterized {
        /// The short name.
        name: u16,
        /// Which kind of selection; 0 for a method.
        selector: u8,
        /// One A-XDR value.
        parameter: &'a [u8],
    },
    /// In a read-request: the block after this one of a long answer.
    BlockNumber(u16),
    /// In a read-request: a piece of a long read-request.
    ReadBlock {
        /// Whether it is the last piece.
        last: bool,
        /// Its number, from 1.
        number: u16,
        /// The piece.
        raw: &'a [u8],
    },
    /// In a write-request: the one value is a piece of a long write-request, in an octet-string.
    WriteBlock {
        /// Whether it is the last piece.
        last: bool,
        /// Its number, from 1.
        number: u16,
    },
}

/// What a variable had to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadResult<'a> {
    /// Its value, A-XDR.
    Data(&'a [u8]),
    /// The meter's own *no*, a data-access-result by its number.
    Error(u8),
    /// A piece of a long answer.
    Block {
        /// Whether it is the last piece.
        last: bool,
        /// Its number, from 1.
        number: u16,
        /// The piece.
        raw: &'a [u8],
    },
    /// This piece of a long request arrived.
    BlockNumber(u16),
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// It was written.
    Success,
    /// The meter's own *no*, a data-access-result by its number.
    Error(u8),
    /// This piece of a long request arrived.
    BlockNumber(u16),
}

/// A write-request, confirmed or not. `values` has one for each of `variables`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteRequest<'a> {
    /// Whether an answer is wanted.
    pub confirmed: bool,
    /// What is to be written.
    pub variables: List<'a, Variable<'a>>,
    /// With what.
    pub values: List<'a, &'a [u8]>,
}

/// What a meter reports unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InformationReport<'a> {
    /// When, as GeneralizedTime text.
    pub time: Option<&'a [u8]>,
    /// What.
    pub variables: List<'a, Variable<'a>>,
    /// Its values.
    pub values: List<'a, &'a [u8]>,
}

impl<'a> Item<'a> for Variable<'a> {
    fn decode(reader: &mut Reader<'a>, limits: &Limits) -> Result<Self, ProtocolError> {
        Ok(match reader.u8()? {
            2 => Self::Name(reader.u16()?),
            4 => {
                let (name, selector) = (reader.u16()?, reader.u8()?);
                let start = reader.offset();
                skip(reader, limits)?;
                Self::Parameterized { name, selector, parameter: reader.since(start) }
            }
            5 => Self::BlockNumber(reader.u16()?),
            6 => Self::ReadBlock { last: reader.present()?, number: reader.u16()?, raw: reader.octet_string()? },
            7 => Self::WriteBlock { last: reader.present()?, number: reader.u16()? },
            other => return Err(bad_choice(reader, other, "variable-access-specification 2, 4, 5, 6 or 7")),
        })
    }
}

impl Variable<'_> {
    /// Append it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Name(name) => numbered(out, 2, name),
            Self::Parameterized { name, selector, parameter } => {
                numbered(out, 4, name);
                out.push(selector);
                out.extend_from_slice(parameter);
            }
            Self::BlockNumber(number) => numbered(out, 5, number),
            Self::ReadBlock { last, number, raw } => block(out, 6, last, number, raw),
            Self::WriteBlock { last, number } => {
                out.extend_from_slice(&[7, u8::from(last)]);
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
    }
}

impl<'a> Item<'a> for ReadResult<'a> {
    fn decode(reader: &mut Reader<'a>, limits: &Limits) -> Result<Self, ProtocolError> {
        Ok(match reader.u8()? {
            0 => {
                let start = reader.offset();
                skip(reader, limits)?;
                Self::Data(reader.since(start))
            }
            1 => Self::Error(reader.u8()?),
            2 => Self::Block { last: reader.present()?, number: reader.u16()?, raw: reader.octet_string()? },
            3 => Self::BlockNumber(reader.u16()?),
            other => return Err(bad_choice(reader, other, "read-response 0 to 3")),
        })
    }
}

impl ReadResult<'_> {
    /// Append it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Data(octets) => {
                out.push(0);
                out.extend_from_slice(octets);
            }
            Self::Error(error) => out.extend_from_slice(&[1, error]),
            Self::Block { last, number, raw } => block(out, 2, last, number, raw),
            Self::BlockNumber(number) => numbered(out, 3, number),
        }
    }
}

impl<'a> Item<'a> for WriteResult {
    fn decode(reader: &mut Reader<'a>, _: &Limits) -> Result<Self, ProtocolError> {
        Ok(match reader.u8()? {
            0 => Self::Success,
            1 => Self::Error(reader.u8()?),
            2 => Self::BlockNumber(reader.u16()?),
            other => return Err(bad_choice(reader, other, "write-response 0 to 2")),
        })
    }
}

impl WriteResult {
    /// Append it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Success => out.push(0),
            Self::Error(error) => out.extend_from_slice(&[1, error]),
            Self::BlockNumber(number) => numbered(out, 2, number),
        }
    }
}

/// The variables of a read-request.
///
/// # Errors
/// `truncated`, `bad-choice`, `trailing-octets`, and what is wrong with data inside.
pub fn decode_read_request<'a>(apdu: &'a [u8], limits: &Limits) -> Result<List<'a, Variable<'a>>, ProtocolError> {
    whole_list(apdu, tags::READ_REQUEST, limits)
}

/// The results of a read-response, in the order of the request.
///
/// # Errors
/// `truncated`, `bad-choice`, `trailing-octets`, and what is wrong with data inside.
pub fn decode_read_response<'a>(apdu: &'a [u8], limits: &Limits) -> Result<List<'a, ReadResult<'a>>, ProtocolError> {
    whole_list(apdu, tags::READ_RESPONSE, limits)
}

/// The results of a write-response, in the order of the request.
///
/// # Errors
/// `truncated`, `bad-choice`, `trailing-octets`.
pub fn decode_write_response<'a>(apdu: &'a [u8], limits: &Limits) -> Result<List<'a, WriteResult>, ProtocolError> {
    whole_list(apdu, tags::WRITE_RESPONSE, limits)
}

impl<'a> WriteRequest<'a> {
    /// Decode a whole APDU, confirmed or unconfirmed.
    ///
    /// # Errors
    /// `truncated`, `bad-choice`, `list-mismatch`, `trailing-octets`, and what is wrong with data inside.
    pub fn decode(apdu: &'a [u8], limits: &Limits) -> Result<Self, ProtocolError> {
        let confirmed = apdu.first() != Some(&tags::UNCONFIRMED_WRITE_REQUEST);
        let mut reader = open(apdu, if confirmed { tags::WRITE_REQUEST } else { tags::UNCONFIRMED_WRITE_REQUEST })?;
        let (variables, values) = variables_and_values(&mut reader, limits)?;
        Ok(Self { confirmed, variables, values })
    }
}

impl<'a> InformationReport<'a> {
    /// Decode a whole APDU.
    ///
    /// # Errors
    /// `truncated`, `bad-choice`, `list-mismatch`, `trailing-octets`, and what is wrong with data inside.
    pub fn decode(apdu: &'a [u8], limits: &Limits) -> Result<Self, ProtocolError> {
        let mut reader = open(apdu, tags::INFORMATION_REPORT_REQUEST)?;
        let time = if reader.present()? { Some(reader.octet_string()?) } else { None };
        let (variables, values) = variables_and_values(&mut reader, limits)?;
        Ok(Self { time, variables, values })
    }
}

/// Append a read-request.
pub fn encode_read_request<'v>(out: &mut Vec<u8>, variables: impl ExactSizeIterator<Item = Variable<'v>>) {
    out.push(tags::READ_REQUEST);
    write_length(out, variables.len());
    variables.for_each(|variable| variable.encode(out));
}

/// Append the head of a read-response; append `count` [`ReadResult`] to it.
pub fn begin_read_response(out: &mut Vec<u8>, count: usize) {
    out.push(tags::READ_RESPONSE);
    write_length(out, count);
}

/// Append a write-request with a value for each variable.
pub fn encode_write_request<'v, I>(out: &mut Vec<u8>, confirmed: bool, items: I)
where
    I: ExactSizeIterator<Item = (Variable<'v>, &'v [u8])> + Clone,
{
    out.push(if confirmed { tags::WRITE_REQUEST } else { tags::UNCONFIRMED_WRITE_REQUEST });
    encode_variables_and_values(out, items);
}

/// Append a write-response.
pub fn encode_write_response(out: &mut Vec<u8>, results: &[WriteResult]) {
    out.push(tags::WRITE_RESPONSE);
    write_length(out, results.len());
    results.iter().for_each(|result| result.encode(out));
}

/// Append an information-report-request with a value for each variable.
pub fn encode_information_report<'v, I>(out: &mut Vec<u8>, time: Option<&[u8]>, items: I)
where
    I: ExactSizeIterator<Item = (Variable<'v>, &'v [u8])> + Clone,
{
    out.extend_from_slice(&[tags::INFORMATION_REPORT_REQUEST, u8::from(time.is_some())]);
    if let Some(time) = time {
        write_length(out, time.len());
        out.extend_from_slice(time);
    }
    encode_variables_and_values(out, items);
}

fn whole_list<'a, T: Item<'a>>(apdu: &'a [u8], tag: u8, limits: &Limits) -> Result<List<'a, T>, ProtocolError> {
    let mut reader = open(apdu, tag)?;
    let list = List::decode(&mut reader, limits)?;
    reader.finish()?;
    Ok(list)
}

#[allow(clippy::type_complexity, reason = "two lists that belong together")]
fn variables_and_values<'a>(
    reader: &mut Reader<'a>,
    limits: &Limits,
) -> Result<(List<'a, Variable<'a>>, List<'a, &'a [u8]>), ProtocolError> {
    let variables: List<'a, Variable<'a>> = List::decode(reader, limits)?;
    let values: List<'a, &'a [u8]> = List::decode(reader, limits)?;
    if variables.len() != values.len() {
        let message = format!("{} variables and {} values", variables.len(), values.len());
        return Err(reader.error("list-mismatch", message));
    }
    reader.finish()?;
    Ok((variables, values))
}

fn encode_variables_and_values<'v, I>(out: &mut Vec<u8>, items: I)
where
    I: ExactSizeIterator<Item = (Variable<'v>, &'v [u8])> + Clone,
{
    write_length(out, items.len());
    items.clone().for_each(|(variable, _)| variable.encode(out));
    write_length(out, items.len());
    items.for_each(|(_, value)| out.extend_from_slice(value));
}

fn numbered(out: &mut Vec<u8>, choice: u8, number: u16) {
    out.push(choice);
    out.extend_from_slice(&number.to_be_bytes());
}

fn block(out: &mut Vec<u8>, choice: u8, last: bool, number: u16, raw: &[u8]) {
    out.extend_from_slice(&[choice, u8::from(last)]);
    out.extend_from_slice(&number.to_be_bytes());
    write_length(out, raw.len());
    out.extend_from_slice(raw);
}
