//! Requests to a meter's objects and their answers, in one APDU or in blocks (Green Book, "GET service").

use ipss_session::{Limits, Now, ProtocolError};

use super::{Access, Objects};
use crate::apdu::InvokeIdAndPriority;
use crate::apdu::action::{self, ActionRequest, MethodOutcome};
use crate::apdu::exception::ExceptionResponse;
use crate::apdu::get::{self, GetRequest};
use crate::apdu::list::{AttributeAccess, DataOrResult};
use crate::apdu::set::{self, SetRequest};
use crate::apdu::tags;
use crate::axdr::write_length;
use crate::cosem::{ActionResult, DataAccessResult};

/// A long answer that is given block by block; empty when there is none.
#[derive(Debug, Default)]
pub(super) struct Transfer {
    octets: Vec<u8>,
    given: usize,
    block: u32,
    truncated: bool,
}

impl Transfer {
    /// Answer one plain request; the answer is appended to `out`.
    ///
    /// # Errors
    /// Remote: the request is broken; nothing was appended.
    pub(super) fn answer<O: Objects>(
        &mut self,
        objects: &mut O,
        access: Access,
        apdu: &[u8],
        largest: usize,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let limits = Limits::default();
        match apdu.first().copied().unwrap_or_default() {
            tags::GET_REQUEST => match GetRequest::decode(apdu, &limits)? {
                GetRequest::Normal { invoke, descriptor, access: part } => {
                    let start = out.len();
                    get::begin_response_normal(out, invoke);
                    let value = out.len();
                    let item = AttributeAccess { descriptor, access: part };
                    match value_of(objects, access, &item, now, out) {
                        Ok(()) if out.len() - start <= largest => {}
                        Ok(()) => {
                            let octets = out.split_off(value);
                            out.truncate(start);
                            self.begin(octets, invoke, largest, out);
                        }
                        Err(result) => {
                            out.truncate(start);
                            get::encode_response_normal(out, invoke, DataOrResult::Result(result as u8));
                        }
                    }
                }
                GetRequest::Next { invoke, block_number } => self.next(invoke, block_number, largest, out),
                GetRequest::WithList { invoke, items } => {
                    let start = out.len();
                    get::begin_response_with_list(out, invoke, 0);
                    // The count is written once more in front of the list, so that a long list is one for blocks.
                    out.truncate(out.len() - 1);
                    let list = out.len();
                    write_length(out, items.len());
                    for item in items.iter(&limits) {
                        let place = out.len();
                        out.push(0);
                        if let Err(result) = value_of(objects, access, &item, now, out) {
                            out.truncate(place);
                            DataOrResult::Result(result as u8).encode(out);
                        }
                    }
                    if out.len() - start > largest {
                        let octets = out.split_off(list);
                        out.truncate(start);
                        self.begin(octets, invoke, largest, out);
                    }
                }
            },
            tags::SET_REQUEST => match SetRequest::decode(apdu, &limits)? {
                SetRequest::Normal { invoke, descriptor, access: None, value } => {
                    let result = objects.set(access, descriptor, value, now);
                    set::encode_response_normal(out, invoke, result as u8);
                }
                SetRequest::WithList { invoke, items, values } => {
                    let pairs = items.iter(&limits).zip(values.iter(&limits));
                    let results: Vec<u8> = pairs
                        .map(|(item, value)| match item.access {
                            None => objects.set(access, item.descriptor, value, now) as u8,
                            Some(_) => DataAccessResult::ScopeOfAccessViolated as u8,
                        })
                        .collect();
                    set::encode_response_with_list(out, invoke, &results);
                }
                _ => unknown_service(out),
            },
            tags::ACTION_REQUEST => match ActionRequest::decode(apdu, &limits)? {
                ActionRequest::Normal { invoke, method, parameters } => {
                    let mut data = Vec::new();
                    let result = objects.act(access, method, parameters, now, &mut data);
                    let returned =
                        (result == ActionResult::Success && !data.is_empty()).then_some(DataOrResult::Data(&data));
                    action::encode_response_normal(out, invoke, MethodOutcome { result: result as u8, returned });
                }
                _ => unknown_service(out),
            },
            _ => unknown_service(out),
        }
        Ok(())
    }

    /// From now on, blocks come empty and none says that it is the last.
    pub(super) fn truncate(&mut self) {
        self.truncated = true;
    }

    fn begin(&mut self, octets: Vec<u8>, invoke: InvokeIdAndPriority, largest: usize, out: &mut Vec<u8>) {
        (self.octets, self.given, self.block) = (octets, 0, 0);
        self.give(invoke, largest, out);
    }

    fn next(&mut self, invoke: InvokeIdAndPriority, block: u32, largest: usize, out: &mut Vec<u8>) {
        if self.block == 0 {
            let result = DataAccessResult::NoLongGetInProgress as u8;
            get::encode_response_with_datablock(out, invoke, true, block, DataOrResult::Result(result));
        } else if block != self.block {
            let result = DataAccessResult::DataBlockNumberInvalid as u8;
            get::encode_response_with_datablock(out, invoke, true, self.block, DataOrResult::Result(result));
            *self = Self { truncated: self.truncated, ..Self::default() };
        } else {
            self.give(invoke, largest, out);
        }
    }

    fn give(&mut self, invoke: InvokeIdAndPriority, largest: usize, out: &mut Vec<u8>) {
        let size = largest.saturating_sub(get::DATABLOCK_OVERHEAD).max(16);
        let rest = &self.octets[self.given..];
        let block = if self.truncated && self.block > 0 { &rest[..0] } else { &rest[..rest.len().min(size)] };
        let last = block.len() == rest.len();
        self.block += 1;
        get::encode_response_with_datablock(out, invoke, last, self.block, DataOrResult::Data(block));
        self.given += block.len();
        if last {
            *self = Self { truncated: self.truncated, ..Self::default() };
        }
    }
}

/// The value of an attribute, or of the part of it that is asked for.
fn value_of<O: Objects>(
    objects: &mut O,
    access: Access,
    item: &AttributeAccess<'_>,
    now: Now,
    out: &mut Vec<u8>,
) -> Result<(), DataAccessResult> {
    let selection = match &item.access {
        None => None,
        // A moment without a deviation is taken as UTC.
        Some(part) => {
            let selection = part.selection(0, &Limits::default());
            Some(selection.map_err(|_| DataAccessResult::ScopeOfAccessViolated)?)
        }
    };
    objects.get(access, item.descriptor, selection.as_ref(), now, out)
}

/// 2: service-unknown, 2: service-not-supported.
fn unknown_service(out: &mut Vec<u8>) {
    ExceptionResponse { state_error: 2, service_error: 2, invocation_counter: None }.encode(out);
}
