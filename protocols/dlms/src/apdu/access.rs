//! ACCESS: reads, writes and invocations in one exchange (Green Book, "ACCESS service"; Access-Request \[217\],
//! Access-Response \[218\]).

use ipss_session::{Limits, ProtocolError};

use super::list::{
    Item, List, attribute_descriptor, bad_choice, encode_attribute, encode_method, method_descriptor, open,
};
use super::notification::{date_time, encode_date_time};
use super::selection::{SelectionOptions, SelectiveAccess, encode_optional};
use super::tags;
use crate::axdr::{DateTime, Reader, skip, tag, write_length};
use crate::cosem::{AttributeDescriptor, MethodDescriptor, Selection};

/// Long-Invoke-Id-And-Priority (Green Book): the invoke id in bits 0 to 23.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LongInvokeId(pub u32);

impl LongInvokeId {
    /// The answer repeats what was asked.
    pub const SELF_DESCRIPTIVE: u32 = 1 << 28;
    /// The first *no* ends the list.
    pub const BREAK_ON_ERROR: u32 = 1 << 29;
    /// An answer is expected.
    pub const CONFIRMED: u32 = 1 << 30;
    /// It goes before others.
    pub const HIGH_PRIORITY: u32 = 1 << 31;

    /// The invoke id, 0 to 2^24 - 1.
    pub fn id(self) -> u32 {
        self.0 & 0x00FF_FFFF
    }

    /// Whether all of these bits are set.
    pub fn has(self, bits: u32) -> bool {
        self.0 & bits == bits
    }
}

/// One thing that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessSpecification<'a> {
    /// Read an attribute, or the part of it that is selected.
    Get(AttributeDescriptor, Option<SelectiveAccess<'a>>),
    /// Write an attribute, or the part of it that is selected.
    Set(AttributeDescriptor, Option<SelectiveAccess<'a>>),
    /// Invoke a method.
    Action(MethodDescriptor),
}

/// What came of one thing that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessResult {
    /// 1 get, 2 set, 3 action.
    pub choice: u8,
    /// The data-access-result or action-result by its number.
    pub result: u8,
}

/// A list of things asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessRequest<'a> {
    /// Which request it is, and how it is to be served.
    pub invoke: LongInvokeId,
    /// When it was sent.
    pub date_time: Option<DateTime>,
    /// What is asked for.
    pub specifications: List<'a, AccessSpecification<'a>>,
    /// A value for each: null-data for what is read.
    pub values: List<'a, &'a [u8]>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessResponse<'a> {
    /// The request that it answers.
    pub invoke: LongInvokeId,
    /// When it was sent, by the meter's clock.
    pub date_time: Option<DateTime>,
    /// What was asked for, if that was to be repeated.
    pub specifications: Option<List<'a, AccessSpecification<'a>>>,
    /// A value for each: null-data where there is none.
    pub values: List<'a, &'a [u8]>,
    /// A result for each.
    pub results: List<'a, AccessResult>,
}

impl<'a> AccessRequest<'a> {
    /// Decode a whole APDU.
    ///
    /// # Errors
    /// `truncated`, `bad-choice`, `list-mismatch`, `trailing-octets`, and what is wrong with data inside.
    pub fn decode(apdu: &'a [u8], limits: &Limits) -> Result<Self, ProtocolError> {
        let mut reader = open(apdu, tags::ACCESS_REQUEST)?;
        let invoke = LongInvokeId(reader.u32()?);
        let date_time = date_time(&mut reader)?;
        let specifications: List<'_, AccessSpecification<'_>> = List::decode(&mut reader, limits)?;
        let values = List::decode(&mut reader, limits)?;
        same_count(&reader, specifications.len(), values.len())?;
        reader.finish()?;
        Ok(Self { invoke, date_time, specifications, values })
    }
}

impl<'a> AccessResponse<'a> {
    /// Decode a whole APDU.
    ///
    /// # Errors
    /// `truncated`, `bad-choice`, `list-mismatch`, `trailing-octets`, and what is wrong with data inside.
    pub fn decode(apdu: &'a [u8], limits: &Limits) -> Result<Self, ProtocolError> {
        let mut reader = open(apdu, tags::ACCESS_RESPONSE)?;
        let invoke = LongInvokeId(reader.u32()?);
        let date_time = date_time(&mut reader)?;
        let specifications: Option<List<'_, AccessSpecification<'_>>> =
            if reader.present()? { Some(List::decode(&mut reader, limits)?) } else { None };
        let values = List::decode(&mut reader, limits)?;
        let results: List<'_, AccessResult> = List::decode(&mut reader, limits)?;
        same_count(&reader, values.len(), results.len())?;
        if let Some(specifications) = specifications {
            same_count(&reader, specifications.len(), values.len())?;
        }
        reader.finish()?;
        Ok(Self { invoke, date_time, specifications, values, results })
    }
}

impl<'a> Item<'a> for AccessSpecification<'a> {
    fn decode(reader: &mut Reader<'a>, limits: &Limits) -> Result<Self, ProtocolError> {
        let choice = reader.u8()?;
        Ok(match choice {
            1 => Self::Get(attribute_descriptor(reader)?, None),
            2 => Self::Set(attribute_descriptor(reader)?, None),
            3 => Self::Action(method_descriptor(reader)?),
            4 | 5 => {
                let descriptor = attribute_descriptor(reader)?;
                let selector = reader.u8()?;
                let start = reader.offset();
                skip(reader, limits)?;
                let part = Some(SelectiveAccess { selector, parameters: reader.since(start) });
                if choice == 4 { Self::Get(descriptor, part) } else { Self::Set(descriptor, part) }
            }
            other => return Err(bad_choice(reader, other, "access-request-specification 1 to 5")),
        })
    }
}

impl<'a> Item<'a> for AccessResult {
    fn decode(reader: &mut Reader<'a>, _: &Limits) -> Result<Self, ProtocolError> {
        match reader.array()? {
            [choice @ 1..=3, result] => Ok(Self { choice, result }),
            [other, _] => Err(bad_choice(reader, other, "access-response-specification 1 to 3")),
        }
    }
}

/// Append the head of a request after `count` things; append each with [`encode_get`], [`encode_set`] or
/// [`encode_action`], then their count and a value for each.
pub fn begin_request(out: &mut Vec<u8>, invoke: LongInvokeId, date_time: Option<DateTime>, count: usize) {
    out.push(tags::ACCESS_REQUEST);
    out.extend_from_slice(&invoke.0.to_be_bytes());
    encode_date_time(out, date_time);
    write_length(out, count);
}

/// Append what reads an attribute.
pub fn encode_get(
    out: &mut Vec<u8>,
    descriptor: &AttributeDescriptor,
    selection: Option<&Selection>,
    options: &SelectionOptions,
) {
    out.push(if selection.is_some() { 4 } else { 1 });
    encode_attribute(out, descriptor);
    let flag = out.len();
    encode_optional(out, selection, options);
    out.remove(flag); // the choice says whether there is a selection
}

/// Append what writes an attribute.
pub fn encode_set(out: &mut Vec<u8>, descriptor: &AttributeDescriptor) {
    out.push(2);
    encode_attribute(out, descriptor);
}

/// Append what invokes a method.
pub fn encode_action(out: &mut Vec<u8>, method: &MethodDescriptor) {
    out.push(3);
    encode_method(out, method);
}

/// Append an answer. `values` are A-XDR values one behind the other, as many as there are `results`.
pub fn encode_response(
    out: &mut Vec<u8>,
    invoke: LongInvokeId,
    date_time: Option<DateTime>,
    specifications: Option<(usize, &[u8])>,
    values: &[u8],
    results: &[AccessResult],
) {
    out.push(tags::ACCESS_RESPONSE);
    out.extend_from_slice(&invoke.0.to_be_bytes());
    encode_date_time(out, date_time);
    out.push(u8::from(specifications.is_some()));
    if let Some((count, octets)) = specifications {
        write_length(out, count);
        out.extend_from_slice(octets);
    }
    write_length(out, results.len());
    out.extend_from_slice(values);
    write_length(out, results.len());
    for result in results {
        out.extend_from_slice(&[result.choice, result.result]);
    }
}

/// The value that stands for none.
pub const NO_VALUE: &[u8] = &[tag::NULL_DATA];

fn same_count(reader: &Reader<'_>, one: usize, other: usize) -> Result<(), ProtocolError> {
    if one == other {
        return Ok(());
    }
    Err(reader.error("list-mismatch", format!("lists of {one} and {other} items that belong together")))
}
