//! ACTION: invoke methods (Green Book, "ACTION service"; Action-Request \[195\], Action-Response \[199\]).

use ipss_session::{Limits, ProtocolError};

use super::invoke::InvokeIdAndPriority;
use super::list::{DataBlock, DataOrResult, Item, List, bad_choice, encode_method, last_data, method_descriptor, open};
use super::tags;
use crate::axdr::{Reader, tag, write_length};
use crate::cosem::MethodDescriptor;

/// A request to invoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are the standard's, as in `GetRequest`
pub enum ActionRequest<'a> {
    /// One method. The parameters are not walked yet.
    Normal { invoke: InvokeIdAndPriority, method: MethodDescriptor, parameters: Option<&'a [u8]> },
    /// The next piece of a long answer.
    NextPblock { invoke: InvokeIdAndPriority, block_number: u32 },
    /// Several methods and as many parameters (null-data for none).
    WithList { invoke: InvokeIdAndPriority, methods: List<'a, MethodDescriptor>, parameters: List<'a, &'a [u8]> },
    /// One method, the parameters in pieces; this is the first.
    WithFirstPblock { invoke: InvokeIdAndPriority, method: MethodDescriptor, block: DataBlock<'a> },
    /// Several methods, the parameters in pieces; this is the first.
    WithListAndFirstPblock { invoke: InvokeIdAndPriority, methods: List<'a, MethodDescriptor>, block: DataBlock<'a> },
    /// A further piece.
    WithPblock { invoke: InvokeIdAndPriority, block: DataBlock<'a> },
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are the standard's, as in `GetResponse`
pub enum ActionResponse<'a> {
    /// For one method.
    Normal { invoke: InvokeIdAndPriority, outcome: MethodOutcome<'a> },
    /// A piece of a long answer.
    WithPblock { invoke: InvokeIdAndPriority, block: DataBlock<'a> },
    /// For several methods, in the order of the request.
    WithList { invoke: InvokeIdAndPriority, outcomes: List<'a, MethodOutcome<'a>> },
    /// A piece of the request arrived.
    NextPblock { invoke: InvokeIdAndPriority, block_number: u32 },
}

/// What a method gave (Green Book, Action-Response-With-Optional-Data).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodOutcome<'a> {
    /// The action-result by its number.
    pub result: u8,
    /// Return parameters, if it has any.
    pub returned: Option<DataOrResult<'a>>,
}

impl<'a> Item<'a> for MethodOutcome<'a> {
    fn decode(reader: &mut Reader<'a>, limits: &Limits) -> Result<Self, ProtocolError> {
        let result = reader.u8()?;
        let returned = if reader.present()? { Some(DataOrResult::decode(reader, limits)?) } else { None };
        Ok(Self { result, returned })
    }
}

impl<'a> ActionRequest<'a> {
    /// Decode a whole APDU.
    ///
    /// # Errors
    /// `truncated`, `bad-choice`, `trailing-octets`, `list-mismatch`, and for with-list what is wrong with data inside.
    pub fn decode(apdu: &'a [u8], limits: &Limits) -> Result<Self, ProtocolError> {
        let mut reader = open(apdu, tags::ACTION_REQUEST)?;
        let choice = reader.u8()?;
        let invoke = InvokeIdAndPriority(reader.u8()?);
        match choice {
            1 => {
                let method = method_descriptor(&mut reader)?;
                let parameters = if reader.present()? {
                    Some(last_data(&mut reader)?)
                } else {
                    reader.finish()?;
                    None
                };
                Ok(Self::Normal { invoke, method, parameters })
            }
            2 => {
                let block_number = reader.u32()?;
                reader.finish()?;
                Ok(Self::NextPblock { invoke, block_number })
            }
            3 => {
                let methods: List<'_, MethodDescriptor> = List::decode(&mut reader, limits)?;
                let parameters = List::decode(&mut reader, limits)?;
                if methods.len() != parameters.len() {
                    let message = format!("{} methods and {} parameters", methods.len(), parameters.len());
                    return Err(reader.error("list-mismatch", message));
                }
                reader.finish()?;
                Ok(Self::WithList { invoke, methods, parameters })
            }
            4 => {
                let method = method_descriptor(&mut reader)?;
                Ok(Self::WithFirstPblock { invoke, method, block: DataBlock::decode_last(&mut reader)? })
            }
            5 => {
                let methods = List::decode(&mut reader, limits)?;
                Ok(Self::WithListAndFirstPblock { invoke, methods, block: DataBlock::decode_last(&mut reader)? })
            }
            6 => Ok(Self::WithPblock { invoke, block: DataBlock::decode_last(&mut reader)? }),
            other => Err(bad_choice(&reader, other, "action-request 1 to 6")),
        }
    }
}

impl<'a> ActionResponse<'a> {
    /// Decode a whole APDU.
    ///
    /// # Errors
    /// `truncated`, `bad-choice`, `trailing-octets`, and for with-list what is wrong with data inside.
    pub fn decode(apdu: &'a [u8], limits: &Limits) -> Result<Self, ProtocolError> {
        let mut reader = open(apdu, tags::ACTION_RESPONSE)?;
        let choice = reader.u8()?;
        let invoke = InvokeIdAndPriority(reader.u8()?);
        match choice {
            1 => {
                let result = reader.u8()?;
                let returned = if reader.present()? {
                    Some(DataOrResult::decode_last(&mut reader)?)
                } else {
                    reader.finish()?;
                    None
                };
                Ok(Self::Normal { invoke, outcome: MethodOutcome { result, returned } })
            }
            2 => Ok(Self::WithPblock { invoke, block: DataBlock::decode_last(&mut reader)? }),
            3 => {
                let outcomes = List::decode(&mut reader, limits)?;
                reader.finish()?;
                Ok(Self::WithList { invoke, outcomes })
            }
            4 => {
                let block_number = reader.u32()?;
                reader.finish()?;
                Ok(Self::NextPblock { invoke, block_number })
            }
            other => Err(bad_choice(&reader, other, "action-response 1 to 4")),
        }
    }
}

/// Append a request to invoke one method. `parameters` is one A-XDR value.
pub fn encode_request_normal(
    out: &mut Vec<u8>,
    invoke: InvokeIdAndPriority,
    method: &MethodDescriptor,
    parameters: Option<&[u8]>,
) {
    out.extend_from_slice(&[tags::ACTION_REQUEST, 1, invoke.0]);
    encode_method(out, method);
    out.push(u8::from(parameters.is_some()));
    out.extend_from_slice(parameters.unwrap_or_default());
}

/// Append a request for the piece after `block_number`.
pub fn encode_request_next_pblock(out: &mut Vec<u8>, invoke: InvokeIdAndPriority, block_number: u32) {
    out.extend_from_slice(&[tags::ACTION_REQUEST, 2, invoke.0]);
    out.extend_from_slice(&block_number.to_be_bytes());
}

/// Append a request to invoke several methods; null-data stands for no parameters.
pub fn encode_request_with_list<'i, I>(out: &mut Vec<u8>, invoke: InvokeIdAndPriority, items: I)
where
    I: ExactSizeIterator<Item = (&'i MethodDescriptor, Option<&'i [u8]>)> + Clone,
{
    out.extend_from_slice(&[tags::ACTION_REQUEST, 3, invoke.0]);
    write_length(out, items.len());
    items.clone().for_each(|(method, _)| encode_method(out, method));
    write_length(out, items.len());
    items.for_each(|(_, parameters)| out.extend_from_slice(parameters.unwrap_or(&[tag::NULL_DATA])));
}

/// Append a request to invoke one method, first piece of the parameters.
pub fn encode_request_with_first_pblock(
    out: &mut Vec<u8>,
    invoke: InvokeIdAndPriority,
    method: &MethodDescriptor,
    block: DataBlock<'_>,
) {
    out.extend_from_slice(&[tags::ACTION_REQUEST, 4, invoke.0]);
    encode_method(out, method);
    block.encode(out);
}

/// Append a request to invoke several methods, first piece of the parameters (a list of them).
pub fn encode_request_with_list_and_first_pblock<'i>(
    out: &mut Vec<u8>,
    invoke: InvokeIdAndPriority,
    methods: impl ExactSizeIterator<Item = &'i MethodDescriptor>,
    block: DataBlock<'_>,
) {
    out.extend_from_slice(&[tags::ACTION_REQUEST, 5, invoke.0]);
    write_length(out, methods.len());
    methods.for_each(|method| encode_method(out, method));
    block.encode(out);
}

/// Append a further piece of the parameters.
pub fn encode_request_with_pblock(out: &mut Vec<u8>, invoke: InvokeIdAndPriority, block: DataBlock<'_>) {
    out.extend_from_slice(&[tags::ACTION_REQUEST, 6, invoke.0]);
    block.encode(out);
}

/// Append a piece of a long answer.
pub fn encode_response_with_pblock(out: &mut Vec<u8>, invoke: InvokeIdAndPriority, block: DataBlock<'_>) {
    out.extend_from_slice(&[tags::ACTION_RESPONSE, 2, invoke.0]);
    block.encode(out);
}

/// Append the answer to a piece that is not the last.
pub fn encode_response_next_pblock(out: &mut Vec<u8>, invoke: InvokeIdAndPriority, block_number: u32) {
    out.extend_from_slice(&[tags::ACTION_RESPONSE, 4, invoke.0]);
    out.extend_from_slice(&block_number.to_be_bytes());
}

/// Append the answer for one method.
pub fn encode_response_normal(out: &mut Vec<u8>, invoke: InvokeIdAndPriority, outcome: MethodOutcome<'_>) {
    out.extend_from_slice(&[tags::ACTION_RESPONSE, 1, invoke.0]);
    encode_outcome(out, outcome);
}

/// Append the answer for several methods.
pub fn encode_response_with_list(out: &mut Vec<u8>, invoke: InvokeIdAndPriority, outcomes: &[MethodOutcome<'_>]) {
    out.extend_from_slice(&[tags::ACTION_RESPONSE, 3, invoke.0]);
    write_length(out, outcomes.len());
    for outcome in outcomes {
        encode_outcome(out, *outcome);
    }
}

/// Append what a method gave.
pub fn encode_outcome(out: &mut Vec<u8>, outcome: MethodOutcome<'_>) {
    out.extend_from_slice(&[outcome.result, u8::from(outcome.returned.is_some())]);
    if let Some(returned) = outcome.returned {
        returned.encode(out);
    }
}
