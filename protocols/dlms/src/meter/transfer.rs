//! Requests to a meter's objects and their answers, in one APDU or in blocks (Green Book, "GET service").

use std::sync::Arc;

use ipss_session::{Limits, Now, ProtocolError};

use super::{Access, Objects};
use crate::apdu::InvokeIdAndPriority;
use crate::apdu::action::{self, ActionRequest};
use crate::apdu::exception::ExceptionResponse;
use crate::apdu::get::{self, GetRequest};
use crate::apdu::initiate::Conformance;
use crate::apdu::list::{AttributeAccess, DataBlock, DataOrResult};
use crate::apdu::set::SetRequest;
use crate::apdu::short_name::{ReadResult, begin_read_response};
use crate::apdu::tags;
use crate::axdr::write_length;
use crate::cosem::{ActionResult, DataAccessResult, ShortNames};

/// A long answer that is given block by block, and a long request that comes so; empty when there is none.
#[derive(Debug, Default)]
pub(super) struct Transfer {
    octets: Vec<u8>,
    given: usize,
    block: u32,
    service: Service,
    truncated: bool,
    /// The number before a transfer's first block, of a meter that does not begin at 1 again.
    base: u32,
    pub(super) incoming: Option<Box<Incoming>>,
}

/// Which service a long answer belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Service {
    #[default]
    Get,
    Action,
    Read,
}

/// A request that comes in blocks.
#[derive(Debug)]
pub(super) struct Incoming {
    /// Its first APDU, which says what is meant.
    pub(super) first: Vec<u8>,
    /// The pieces so far.
    pub(super) octets: Vec<u8>,
    /// The last piece's number.
    pub(super) number: u32,
}

/// Who asks whom, and how the answer is to be.
pub(super) struct Question<'a, O> {
    pub(super) objects: &'a mut O,
    pub(super) access: Access,
    /// Octets of the largest plain answer.
    pub(super) largest: usize,
    pub(super) conformance: Conformance,
    pub(super) now: Now,
    pub(super) limits: Limits,
    pub(super) names: Option<Arc<ShortNames>>,
    /// What the meter does in its own way.
    pub(super) quirks: crate::quirks::Quirks,
}

impl<O> Question<'_, O> {
    /// Whether an answer of `length` octets fits one APDU, as general block transfer lets any fit.
    pub(super) fn fits(&self, length: usize, in_blocks: Conformance) -> bool {
        let general = self.conformance.contains(Conformance::GENERAL_BLOCK_TRANSFER);
        length <= self.largest || (general && !self.conformance.contains(in_blocks))
    }
}

impl Transfer {
    /// Whether nothing of a long answer is still to be asked for.
    pub(super) fn is_done(&self) -> bool {
        self.given >= self.octets.len()
    }

    /// Answer one plain request; the answer, if there is one, is appended to `out`.
    ///
    /// # Errors
    /// Remote: the request is broken; nothing was appended.
    pub(super) fn answer<O: Objects>(
        &mut self,
        question: &mut Question<'_, O>,
        apdu: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let limits = question.limits;
        match apdu.first().copied().unwrap_or_default() {
            tags::GET_REQUEST => match GetRequest::decode(apdu, &limits)? {
                GetRequest::Normal { invoke, descriptor, access: part } => {
                    let start = out.len();
                    get::begin_response_normal(out, invoke);
                    let value = out.len();
                    let item = AttributeAccess { descriptor, access: part };
                    match value_of(question, &item, out) {
                        Ok(()) if question.fits(out.len() - start, IN_BLOCKS) => {}
                        Ok(()) => {
                            let octets = out.split_off(value);
                            out.truncate(start);
                            self.begin(octets, Service::Get, invoke, question, out);
                        }
                        Err(result) => {
                            out.truncate(start);
                            get::encode_response_normal(out, invoke, DataOrResult::Result(result as u8));
                        }
                    }
                }
                GetRequest::Next { invoke, block_number } => {
                    self.next(Service::Get, invoke, block_number, question.largest, out);
                }
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
                        if let Err(result) = value_of(question, &item, out) {
                            out.truncate(place);
                            DataOrResult::Result(result as u8).encode(out);
                        }
                        if !question.quirks.with_list_allowed {
                            // Garbage behind the first item, as firmware does that negotiates lists and has none.
                            out.extend_from_slice(&[0xFF; 7]);
                            break;
                        }
                    }
                    if !question.fits(out.len() - start, IN_BLOCKS) {
                        let octets = out.split_off(list);
                        out.truncate(start);
                        self.begin(octets, Service::Get, invoke, question, out);
                    }
                }
            },
            tags::SET_REQUEST => self.set(question, apdu, SetRequest::decode(apdu, &limits)?, out),
            tags::ACTION_REQUEST => self.act(question, apdu, ActionRequest::decode(apdu, &limits)?, out),
            tags::ACCESS_REQUEST if question.conformance.contains(Conformance::ACCESS) => {
                super::access::answer(question, apdu, out)?;
            }
            tags::READ_REQUEST if question.names.is_some() => self.read(question, apdu, out)?,
            tags::WRITE_REQUEST | tags::UNCONFIRMED_WRITE_REQUEST if question.names.is_some() => {
                self.write(question, apdu, out)?;
            }
            _ => unknown_service(out),
        }
        Ok(())
    }

    /// From now on, blocks come empty and none says that it is the last.
    pub(super) fn truncate(&mut self) {
        self.truncated = true;
    }

    /// Give a long answer in blocks, if the head-end takes them.
    pub(super) fn begin<O>(
        &mut self,
        octets: Vec<u8>,
        service: Service,
        invoke: InvokeIdAndPriority,
        question: &Question<'_, O>,
        out: &mut Vec<u8>,
    ) {
        let bit = match service {
            Service::Get | Service::Read => IN_BLOCKS,
            Service::Action => Conformance::BLOCK_TRANSFER_WITH_ACTION,
        };
        if !question.conformance.contains(bit) {
            ExceptionResponse { state_error: 1, service_error: PDU_TOO_LONG, invocation_counter: None }.encode(out);
            return;
        }
        let base = if question.quirks.block_number_continues { self.base + self.block } else { 0 };
        *self = Self { octets, service, base, truncated: self.truncated, ..Self::default() };
        self.give(invoke, question.largest, out);
    }

    /// Give the block behind number `block`.
    pub(super) fn next(
        &mut self,
        service: Service,
        invoke: InvokeIdAndPriority,
        block: u32,
        largest: usize,
        out: &mut Vec<u8>,
    ) {
        let in_progress = self.given < self.octets.len() && self.service == service;
        let result = if !in_progress {
            match service {
                Service::Get | Service::Read => DataAccessResult::NoLongGetInProgress as u8,
                Service::Action => ActionResult::NoLongActionInProgress as u8,
            }
        } else if block != self.base + self.block {
            self.octets.clear();
            self.given = 0;
            match service {
                Service::Get | Service::Read => DataAccessResult::DataBlockNumberInvalid as u8,
                Service::Action => ActionResult::LongActionAborted as u8,
            }
        } else {
            return self.give(invoke, largest, out);
        };
        match service {
            Service::Get => {
                get::encode_response_with_datablock(out, invoke, true, block, DataOrResult::Result(result));
            }
            Service::Action => {
                action::encode_response_normal(out, invoke, action::MethodOutcome { result, returned: None });
            }
            Service::Read => {
                begin_read_response(out, 1);
                ReadResult::Error(result).encode(out);
            }
        }
    }

    fn give(&mut self, invoke: InvokeIdAndPriority, largest: usize, out: &mut Vec<u8>) {
        let size = largest.saturating_sub(get::DATABLOCK_OVERHEAD).max(16);
        let rest = &self.octets[self.given..];
        let raw = if self.truncated && self.block > 0 { &rest[..0] } else { &rest[..rest.len().min(size)] };
        let last = raw.len() == rest.len();
        self.block += 1;
        let number = self.base + self.block;
        match self.service {
            Service::Get => get::encode_response_with_datablock(out, invoke, last, number, DataOrResult::Data(raw)),
            Service::Action => action::encode_response_with_pblock(out, invoke, DataBlock { last, number, raw }),
            Service::Read => {
                begin_read_response(out, 1);
                ReadResult::Block { last, number: number as u16, raw }.encode(out);
            }
        }
        self.given += raw.len();
        if last {
            self.octets = Vec::new();
            self.given = 0;
        }
    }
}

/// The value of an attribute, or of the part of it that is asked for.
pub(super) fn value_of<O: Objects>(
    question: &mut Question<'_, O>,
    item: &AttributeAccess<'_>,
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
    question.objects.get(question.access, item.descriptor, selection.as_ref(), question.now, out)
}

const IN_BLOCKS: Conformance = Conformance::BLOCK_TRANSFER_WITH_GET_OR_READ;

/// Service error: pdu-too-long.
const PDU_TOO_LONG: u8 = 4;

/// 2: service-unknown, 2: service-not-supported.
pub(super) fn unknown_service(out: &mut Vec<u8>) {
    ExceptionResponse { state_error: 2, service_error: 2, invocation_counter: None }.encode(out);
}
