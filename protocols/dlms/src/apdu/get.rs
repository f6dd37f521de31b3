//! GET: read attributes (Green Book, "GET service"; Get-Request \[192\], Get-Response \[196\]).

use ipss_session::{Limits, ProtocolError};

use super::invoke::InvokeIdAndPriority;
use super::list::{
    AttributeAccess, DataBlock, DataOrResult, List, attribute_descriptor, bad_choice, encode_attribute, open,
};
use super::selection::{SelectionOptions, SelectiveAccess, encode_optional};
use super::tags;
use crate::axdr::write_length;
use crate::cosem::{AttributeDescriptor, Selection};

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetRequest<'a> {
    /// One attribute.
    Normal {
        /// Which request it is.
        invoke: InvokeIdAndPriority,
        /// Which attribute.
        descriptor: AttributeDescriptor,
        /// Which part of it.
        access: Option<SelectiveAccess<'a>>,
    },
    /// The next block of a long answer.
    Next {
        /// The request that it goes on with.
        invoke: InvokeIdAndPriority,
        /// The number of the last block received.
        block_number: u32,
    },
    /// Several attributes at once.
    WithList {
        /// Which request it is.
        invoke: InvokeIdAndPriority,
        /// Which attributes.
        items: List<'a, AttributeAccess<'a>>,
    },
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetResponse<'a> {
    /// The value. Not walked yet: whoever decodes it finds whether it is whole.
    Normal {
        /// The request that it answers.
        invoke: InvokeIdAndPriority,
        /// The value, or the meter's own *no*.
        result: DataOrResult<'a>,
    },
    /// A piece of a long answer.
    WithDatablock {
        /// The request that it answers.
        invoke: InvokeIdAndPriority,
        /// Whether it is the last one.
        last: bool,
        /// Its number, from 1.
        block_number: u32,
        /// The piece (no A-XDR value by itself), or the meter's own *no*.
        result: DataOrResult<'a>,
    },
    /// A value for each attribute asked for.
    WithList {
        /// The request that it answers.
        invoke: InvokeIdAndPriority,
        /// The values, in the order of the question.
        results: List<'a, DataOrResult<'a>>,
    },
}

impl<'a> GetRequest<'a> {
    /// Decode a whole APDU.
    ///
    /// # Errors
    /// `truncated`, `bad-choice`, `trailing-octets`, and what is wrong with data inside.
    pub fn decode(apdu: &'a [u8], limits: &Limits) -> Result<Self, ProtocolError> {
        let mut reader = open(apdu, tags::GET_REQUEST)?;
        let choice = reader.u8()?;
        let request = match choice {
            1 => Self::Normal {
                invoke: InvokeIdAndPriority(reader.u8()?),
                descriptor: attribute_descriptor(&mut reader)?,
                access: SelectiveAccess::decode_optional(&mut reader, limits)?,
            },
            2 => Self::Next { invoke: InvokeIdAndPriority(reader.u8()?), block_number: reader.u32()? },
            3 => {
                Self::WithList { invoke: InvokeIdAndPriority(reader.u8()?), items: List::decode(&mut reader, limits)? }
            }
            other => return Err(bad_choice(&reader, other, "get-request normal (1), next (2) or with-list (3)")),
        };
        reader.finish()?;
        Ok(request)
    }
}

impl<'a> GetResponse<'a> {
    /// Decode a whole APDU.
    ///
    /// # Errors
    /// `truncated`, `bad-choice`, `trailing-octets`, and for with-list what is wrong with data inside.
    pub fn decode(apdu: &'a [u8], limits: &Limits) -> Result<Self, ProtocolError> {
        let mut reader = open(apdu, tags::GET_RESPONSE)?;
        let choice = reader.u8()?;
        match choice {
            1 => Ok(Self::Normal {
                invoke: InvokeIdAndPriority(reader.u8()?),
                result: DataOrResult::decode_last(&mut reader)?,
            }),
            2 => {
                let invoke = InvokeIdAndPriority(reader.u8()?);
                let (last, block_number) = (reader.present()?, reader.u32()?);
                let result = match reader.u8()? {
                    0 => DataOrResult::Data(reader.octet_string()?),
                    1 => DataOrResult::Result(reader.u8()?),
                    other => return Err(bad_choice(&reader, other, "raw-data (0) or data-access-result (1)")),
                };
                reader.finish()?;
                Ok(Self::WithDatablock { invoke, last, block_number, result })
            }
            3 => {
                let invoke = InvokeIdAndPriority(reader.u8()?);
                let results = List::decode(&mut reader, limits)?;
                reader.finish()?;
                Ok(Self::WithList { invoke, results })
            }
            other => Err(bad_choice(&reader, other, "get-response normal (1), with-datablock (2) or with-list (3)")),
        }
    }

    /// The request that it answers.
    pub fn invoke(&self) -> InvokeIdAndPriority {
        match self {
            Self::Normal { invoke, .. } | Self::WithDatablock { invoke, .. } | Self::WithList { invoke, .. } => *invoke,
        }
    }
}

/// Append a request for one attribute.
pub fn encode_request_normal(
    out: &mut Vec<u8>,
    invoke: InvokeIdAndPriority,
    descriptor: &AttributeDescriptor,
    selection: Option<&Selection>,
    options: &SelectionOptions,
) {
    out.extend_from_slice(&[tags::GET_REQUEST, 1, invoke.0]);
    encode_attribute(out, descriptor);
    encode_optional(out, selection, options);
}

/// Append a request for the block after `block_number`.
pub fn encode_request_next(out: &mut Vec<u8>, invoke: InvokeIdAndPriority, block_number: u32) {
    out.extend_from_slice(&[tags::GET_REQUEST, 2, invoke.0]);
    out.extend_from_slice(&block_number.to_be_bytes());
}

/// Append a request for several attributes.
pub fn encode_request_with_list<'i>(
    out: &mut Vec<u8>,
    invoke: InvokeIdAndPriority,
    items: impl ExactSizeIterator<Item = (&'i AttributeDescriptor, Option<&'i Selection>)>,
    options: &SelectionOptions,
) {
    out.extend_from_slice(&[tags::GET_REQUEST, 3, invoke.0]);
    write_length(out, items.len());
    for (descriptor, selection) in items {
        encode_attribute(out, descriptor);
        encode_optional(out, selection, options);
    }
}

/// Append an answer with one value, or a *no*.
pub fn encode_response_normal(out: &mut Vec<u8>, invoke: InvokeIdAndPriority, result: DataOrResult<'_>) {
    out.extend_from_slice(&[tags::GET_RESPONSE, 1, invoke.0]);
    result.encode(out);
}

/// Append the head of an answer with one value; the caller appends the value.
pub fn begin_response_normal(out: &mut Vec<u8>, invoke: InvokeIdAndPriority) {
    out.extend_from_slice(&[tags::GET_RESPONSE, 1, invoke.0, 0]);
}

/// Append an answer with a piece of a long value, or a *no* that ends it.
pub fn encode_response_with_datablock(
    out: &mut Vec<u8>,
    invoke: InvokeIdAndPriority,
    last: bool,
    block_number: u32,
    result: DataOrResult<'_>,
) {
    out.extend_from_slice(&[tags::GET_RESPONSE, 2, invoke.0]);
    match result {
        DataOrResult::Data(raw) => {
            out.push(u8::from(last));
            out.extend_from_slice(&block_number.to_be_bytes());
            out.push(0);
            write_length(out, raw.len());
            out.extend_from_slice(raw);
        }
        DataOrResult::Result(result) => {
            out.push(u8::from(last));
            out.extend_from_slice(&block_number.to_be_bytes());
            out.extend_from_slice(&[1, result]);
        }
    }
}

/// Append the head of an answer with `count` values; the caller appends that many [`DataOrResult`].
pub fn begin_response_with_list(out: &mut Vec<u8>, invoke: InvokeIdAndPriority, count: usize) {
    out.extend_from_slice(&[tags::GET_RESPONSE, 3, invoke.0]);
    write_length(out, count);
}

/// Octets of a get-response-with-datablock around its piece, at most; a piece so much smaller than the negotiated
/// PDU fits it.
pub const DATABLOCK_OVERHEAD: usize = 9 + DataBlock::LENGTH_AT_MOST;

impl DataBlock<'_> {
    /// Octets of a piece's length field for all pieces that fit a wrapper APDU.
    pub const LENGTH_AT_MOST: usize = 3;
}
