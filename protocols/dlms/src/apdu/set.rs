//! SET: write attributes (Green Book, "SET service"; Set-Request \[193\], Set-Response \[197\]).

use ipss_session::{Limits, ProtocolError};

use super::invoke::InvokeIdAndPriority;
use super::list::{
    AttributeAccess, DataBlock, List, attribute_descriptor, bad_choice, encode_attribute, last_data, open,
};
use super::selection::{SelectionOptions, SelectiveAccess, encode_optional};
use super::tags;
use crate::axdr::write_length;
use crate::cosem::{AttributeDescriptor, Selection};

/// A request to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are the standard's, as in `GetRequest`
pub enum SetRequest<'a> {
    /// One attribute. The value is not walked yet.
    Normal {
        invoke: InvokeIdAndPriority,
        descriptor: AttributeDescriptor,
        access: Option<SelectiveAccess<'a>>,
        value: &'a [u8],
    },
    /// One attribute, the value in pieces; this is the first.
    WithFirstDatablock {
        invoke: InvokeIdAndPriority,
        descriptor: AttributeDescriptor,
        access: Option<SelectiveAccess<'a>>,
        block: DataBlock<'a>,
    },
    /// A further piece.
    WithDatablock { invoke: InvokeIdAndPriority, block: DataBlock<'a> },
    /// Several attributes and as many values.
    WithList { invoke: InvokeIdAndPriority, items: List<'a, AttributeAccess<'a>>, values: List<'a, &'a [u8]> },
    /// Several attributes, the values in pieces; this is the first.
    WithListAndFirstDatablock {
        invoke: InvokeIdAndPriority,
        items: List<'a, AttributeAccess<'a>>,
        block: DataBlock<'a>,
    },
}

/// An answer. Results are data-access-results by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are the standard's, as in `GetResponse`
pub enum SetResponse<'a> {
    /// For one attribute.
    Normal { invoke: InvokeIdAndPriority, result: u8 },
    /// A piece arrived.
    Datablock { invoke: InvokeIdAndPriority, block_number: u32 },
    /// The last piece arrived, for one attribute.
    LastDatablock { invoke: InvokeIdAndPriority, result: u8, block_number: u32 },
    /// The last piece arrived, for several attributes.
    LastDatablockWithList { invoke: InvokeIdAndPriority, results: List<'a, u8>, block_number: u32 },
    /// For several attributes, in the order of the request.
    WithList { invoke: InvokeIdAndPriority, results: List<'a, u8> },
}

impl<'a> SetRequest<'a> {
    /// Decode a whole APDU.
    ///
    /// # Errors
    /// `truncated`, `bad-choice`, `trailing-octets`, `list-mismatch`, and what is wrong with data inside.
    pub fn decode(apdu: &'a [u8], limits: &Limits) -> Result<Self, ProtocolError> {
        let mut reader = open(apdu, tags::SET_REQUEST)?;
        let choice = reader.u8()?;
        let invoke = InvokeIdAndPriority(reader.u8()?);
        match choice {
            1 | 2 => {
                let descriptor = attribute_descriptor(&mut reader)?;
                let access = SelectiveAccess::decode_optional(&mut reader, limits)?;
                if choice == 1 {
                    return Ok(Self::Normal { invoke, descriptor, access, value: last_data(&mut reader)? });
                }
                let block = DataBlock::decode_last(&mut reader)?;
                Ok(Self::WithFirstDatablock { invoke, descriptor, access, block })
            }
            3 => Ok(Self::WithDatablock { invoke, block: DataBlock::decode_last(&mut reader)? }),
            4 => {
                let items: List<'_, AttributeAccess<'_>> = List::decode(&mut reader, limits)?;
                let values = List::decode(&mut reader, limits)?;
                if items.len() != values.len() {
                    let message = format!("{} attributes and {} values", items.len(), values.len());
                    return Err(reader.error("list-mismatch", message));
                }
                reader.finish()?;
                Ok(Self::WithList { invoke, items, values })
            }
            5 => {
                let items = List::decode(&mut reader, limits)?;
                Ok(Self::WithListAndFirstDatablock { invoke, items, block: DataBlock::decode_last(&mut reader)? })
            }
            other => Err(bad_choice(&reader, other, "set-request 1 to 5")),
        }
    }
}

impl<'a> SetResponse<'a> {
    /// Decode a whole APDU.
    ///
    /// # Errors
    /// `truncated`, `bad-choice`, `trailing-octets`.
    pub fn decode(apdu: &'a [u8], limits: &Limits) -> Result<Self, ProtocolError> {
        let mut reader = open(apdu, tags::SET_RESPONSE)?;
        let choice = reader.u8()?;
        let invoke = InvokeIdAndPriority(reader.u8()?);
        let response = match choice {
            1 => Self::Normal { invoke, result: reader.u8()? },
            2 => Self::Datablock { invoke, block_number: reader.u32()? },
            3 => Self::LastDatablock { invoke, result: reader.u8()?, block_number: reader.u32()? },
            4 => {
                let results = List::decode(&mut reader, limits)?;
                Self::LastDatablockWithList { invoke, results, block_number: reader.u32()? }
            }
            5 => Self::WithList { invoke, results: List::decode(&mut reader, limits)? },
            other => return Err(bad_choice(&reader, other, "set-response 1 to 5")),
        };
        reader.finish()?;
        Ok(response)
    }
}

/// Append the head of a request to write one attribute; the caller appends the value.
pub fn begin_request_normal(
    out: &mut Vec<u8>,
    invoke: InvokeIdAndPriority,
    descriptor: &AttributeDescriptor,
    selection: Option<&Selection>,
    options: &SelectionOptions,
) {
    out.extend_from_slice(&[tags::SET_REQUEST, 1, invoke.0]);
    encode_attribute(out, descriptor);
    encode_optional(out, selection, options);
}

/// Append a request to write one attribute whole. `value` is one A-XDR value.
pub fn encode_request_normal(
    out: &mut Vec<u8>,
    invoke: InvokeIdAndPriority,
    descriptor: &AttributeDescriptor,
    value: &[u8],
) {
    begin_request_normal(out, invoke, descriptor, None, &SelectionOptions::default());
    out.extend_from_slice(value);
}

/// Append a request to write several attributes whole. Each value is one A-XDR value.
pub fn encode_request_with_list<'i, I>(out: &mut Vec<u8>, invoke: InvokeIdAndPriority, items: I)
where
    I: ExactSizeIterator<Item = (&'i AttributeDescriptor, &'i [u8])> + Clone,
{
    out.extend_from_slice(&[tags::SET_REQUEST, 4, invoke.0]);
    write_length(out, items.len());
    for (descriptor, _) in items.clone() {
        encode_attribute(out, descriptor);
        out.push(0);
    }
    write_length(out, items.len());
    for (_, value) in items {
        out.extend_from_slice(value);
    }
}

/// Append a request to write one attribute, first piece.
pub fn encode_request_with_first_datablock(
    out: &mut Vec<u8>,
    invoke: InvokeIdAndPriority,
    descriptor: &AttributeDescriptor,
    block: DataBlock<'_>,
) {
    out.extend_from_slice(&[tags::SET_REQUEST, 2, invoke.0]);
    encode_attribute(out, descriptor);
    out.push(0);
    block.encode(out);
}

/// Append a request to write several attributes, first piece of the values (a list of them).
pub fn encode_request_with_list_and_first_datablock<'i>(
    out: &mut Vec<u8>,
    invoke: InvokeIdAndPriority,
    items: impl ExactSizeIterator<Item = &'i AttributeDescriptor>,
    block: DataBlock<'_>,
) {
    out.extend_from_slice(&[tags::SET_REQUEST, 5, invoke.0]);
    write_length(out, items.len());
    for descriptor in items {
        encode_attribute(out, descriptor);
        out.push(0);
    }
    block.encode(out);
}

/// Append a further piece of a value to write.
pub fn encode_request_with_datablock(out: &mut Vec<u8>, invoke: InvokeIdAndPriority, block: DataBlock<'_>) {
    out.extend_from_slice(&[tags::SET_REQUEST, 3, invoke.0]);
    block.encode(out);
}

/// Append the answer for one attribute.
pub fn encode_response_normal(out: &mut Vec<u8>, invoke: InvokeIdAndPriority, result: u8) {
    out.extend_from_slice(&[tags::SET_RESPONSE, 1, invoke.0, result]);
}

/// Append the answer to a piece that is not the last.
pub fn encode_response_datablock(out: &mut Vec<u8>, invoke: InvokeIdAndPriority, block_number: u32) {
    out.extend_from_slice(&[tags::SET_RESPONSE, 2, invoke.0]);
    out.extend_from_slice(&block_number.to_be_bytes());
}

/// Append the answer to the last piece for one attribute.
pub fn encode_response_last_datablock(out: &mut Vec<u8>, invoke: InvokeIdAndPriority, result: u8, block_number: u32) {
    out.extend_from_slice(&[tags::SET_RESPONSE, 3, invoke.0, result]);
    out.extend_from_slice(&block_number.to_be_bytes());
}

/// Append the answer to the last piece for several attributes.
pub fn encode_response_last_datablock_with_list(
    out: &mut Vec<u8>,
    invoke: InvokeIdAndPriority,
    results: &[u8],
    block_number: u32,
) {
    out.extend_from_slice(&[tags::SET_RESPONSE, 4, invoke.0]);
    write_length(out, results.len());
    out.extend_from_slice(results);
    out.extend_from_slice(&block_number.to_be_bytes());
}

/// Append the answer for several attributes.
pub fn encode_response_with_list(out: &mut Vec<u8>, invoke: InvokeIdAndPriority, results: &[u8]) {
    out.extend_from_slice(&[tags::SET_RESPONSE, 5, invoke.0]);
    write_length(out, results.len());
    out.extend_from_slice(results);
}
