//! SET and ACTION in all their forms (Green Book, "SET service", "ACTION service").

use super::Objects;
use super::transfer::{Incoming, Question, Service, Transfer};
use crate::apdu::action::{self, ActionRequest, MethodOutcome};
use crate::apdu::initiate::Conformance;
use crate::apdu::list::{DataBlock, DataOrResult, List};
use crate::apdu::set::{self, SetRequest};
use crate::apdu::{InvokeIdAndPriority, SelectiveAccess};
use crate::axdr::{Reader, skip, tag, write_length};
use crate::cosem::{ActionResult, AttributeDescriptor, DataAccessResult, MethodDescriptor};

/// What became of a piece of a long request.
pub(super) enum Piece {
    /// It was taken; more follow.
    More,
    /// It was the last: the first APDU and all pieces.
    Whole(Box<Incoming>),
    /// It does not belong here.
    Wrong,
    /// Too much.
    TooLong,
}

impl Transfer {
    /// Take the first piece of a long request, whose APDU is `first`, or a further one.
    pub(super) fn piece<O>(&mut self, question: &Question<'_, O>, first: Option<&[u8]>, block: DataBlock<'_>) -> Piece {
        if let Some(first) = first {
            self.incoming = Some(Box::new(Incoming { first: first.to_vec(), octets: Vec::new(), number: 0 }));
        }
        let Some(mut incoming) = self.incoming.take() else { return Piece::Wrong };
        if block.number != incoming.number + 1 {
            return Piece::Wrong;
        }
        if block.number > question.limits.blocks || incoming.octets.len() + block.raw.len() > question.limits.reassembly
        {
            return Piece::TooLong;
        }
        incoming.octets.extend_from_slice(block.raw);
        incoming.number = block.number;
        if block.last {
            return Piece::Whole(incoming);
        }
        self.incoming = Some(incoming);
        Piece::More
    }

    pub(super) fn set<O: Objects>(
        &mut self,
        question: &mut Question<'_, O>,
        apdu: &[u8],
        request: SetRequest<'_>,
        out: &mut Vec<u8>,
    ) {
        let limits = question.limits;
        match request {
            SetRequest::Normal { invoke, descriptor, access, value } => {
                let result = write(question, descriptor, access, value);
                if invoke.is_confirmed() {
                    set::encode_response_normal(out, invoke, result as u8);
                }
            }
            SetRequest::WithList { invoke, items, values } => {
                let results: Vec<u8> = items
                    .iter(&limits)
                    .zip(values.iter(&limits))
                    .map(|(item, value)| write(question, item.descriptor, item.access, value) as u8)
                    .collect();
                if invoke.is_confirmed() {
                    set::encode_response_with_list(out, invoke, &results);
                }
            }
            SetRequest::WithFirstDatablock { invoke, block, .. }
            | SetRequest::WithListAndFirstDatablock { invoke, block, .. } => {
                let piece = self.piece(question, Some(apdu), block);
                set_piece(question, invoke, block.number, piece, out);
            }
            SetRequest::WithDatablock { invoke, block } => {
                let piece = self.piece(question, None, block);
                set_piece(question, invoke, block.number, piece, out);
            }
        }
    }

    pub(super) fn act<O: Objects>(
        &mut self,
        question: &mut Question<'_, O>,
        apdu: &[u8],
        request: ActionRequest<'_>,
        out: &mut Vec<u8>,
    ) {
        let limits = question.limits;
        match request {
            ActionRequest::Normal { invoke, method, parameters } => {
                self.invoke(question, invoke, &[(method, parameters)], false, out);
            }
            ActionRequest::WithList { invoke, methods, parameters } => {
                let list: Vec<_> = methods.iter(&limits).zip(parameters.iter(&limits).map(Some)).collect();
                self.invoke(question, invoke, &list, true, out);
            }
            ActionRequest::NextPblock { invoke, block_number } => {
                self.next(Service::Action, invoke, block_number, question.largest, out);
            }
            ActionRequest::WithFirstPblock { invoke, block, .. }
            | ActionRequest::WithListAndFirstPblock { invoke, block, .. } => {
                let piece = self.piece(question, Some(apdu), block);
                self.act_piece(question, invoke, block.number, piece, out);
            }
            ActionRequest::WithPblock { invoke, block } => {
                let piece = self.piece(question, None, block);
                self.act_piece(question, invoke, block.number, piece, out);
            }
        }
    }

    fn act_piece<O: Objects>(
        &mut self,
        question: &mut Question<'_, O>,
        invoke: InvokeIdAndPriority,
        number: u32,
        piece: Piece,
        out: &mut Vec<u8>,
    ) {
        let limits = question.limits;
        let refuse = |result: ActionResult, out: &mut Vec<u8>| {
            let outcome = MethodOutcome { result: result as u8, returned: None };
            action::encode_response_normal(out, invoke, outcome);
        };
        let incoming = match piece {
            Piece::More => return action::encode_response_next_pblock(out, invoke, number),
            Piece::Wrong => return refuse(ActionResult::NoLongActionInProgress, out),
            Piece::TooLong => return refuse(ActionResult::LongActionAborted, out),
            Piece::Whole(incoming) => incoming,
        };
        match ActionRequest::decode(&incoming.first, &limits) {
            Ok(ActionRequest::WithFirstPblock { method, .. }) if is_value(&incoming.octets, question) => {
                self.invoke(question, invoke, &[(method, Some(&incoming.octets))], false, out);
            }
            Ok(ActionRequest::WithListAndFirstPblock { methods, .. }) => {
                match values(&incoming.octets, methods.len(), question) {
                    Some(parameters) => {
                        let list: Vec<_> = methods.iter(&limits).zip(parameters.into_iter().map(Some)).collect();
                        self.invoke(question, invoke, &list, true, out);
                    }
                    None => refuse(ActionResult::TypeUnmatched, out),
                }
            }
            _ => refuse(ActionResult::TypeUnmatched, out),
        }
    }

    /// Invoke the methods and append the answer, the first block of it if it is long.
    fn invoke<O: Objects>(
        &mut self,
        question: &mut Question<'_, O>,
        invoke: InvokeIdAndPriority,
        list: &[(MethodDescriptor, Option<&[u8]>)],
        as_list: bool,
        out: &mut Vec<u8>,
    ) {
        let mut outcomes = Vec::new();
        for (method, parameters) in list {
            let mut data = Vec::new();
            let result = question.objects.act(question.access, *method, *parameters, question.now, &mut data);
            outcomes.push((result, data));
        }
        if !invoke.is_confirmed() {
            return;
        }
        let outcomes: Vec<MethodOutcome<'_>> = outcomes
            .iter()
            .map(|(result, data)| {
                let returned =
                    (*result == ActionResult::Success && !data.is_empty()).then_some(DataOrResult::Data(data));
                MethodOutcome { result: *result as u8, returned }
            })
            .collect();
        let start = out.len();
        if as_list {
            action::encode_response_with_list(out, invoke, &outcomes);
        } else {
            action::encode_response_normal(out, invoke, outcomes[0]);
        }
        if question.fits(out.len() - start, Conformance::BLOCK_TRANSFER_WITH_ACTION) {
            return;
        }
        out.truncate(start);
        let mut octets = Vec::new();
        match outcomes[..] {
            [MethodOutcome { returned: Some(DataOrResult::Data(data)), .. }] if !as_list => {
                octets.extend_from_slice(data);
            }
            _ => {
                write_length(&mut octets, outcomes.len());
                outcomes.iter().for_each(|outcome| action::encode_outcome(&mut octets, *outcome));
            }
        }
        self.begin(octets, Service::Action, invoke, question, out);
    }
}

fn set_piece<O: Objects>(
    question: &mut Question<'_, O>,
    invoke: InvokeIdAndPriority,
    number: u32,
    piece: Piece,
    out: &mut Vec<u8>,
) {
    let limits = question.limits;
    let refuse = |result: DataAccessResult, out: &mut Vec<u8>| {
        set::encode_response_last_datablock(out, invoke, result as u8, number);
    };
    let incoming = match piece {
        Piece::More => return set::encode_response_datablock(out, invoke, number),
        Piece::Wrong => return refuse(DataAccessResult::NoLongSetInProgress, out),
        Piece::TooLong => return refuse(DataAccessResult::LongSetAborted, out),
        Piece::Whole(incoming) => incoming,
    };
    match SetRequest::decode(&incoming.first, &limits) {
        Ok(SetRequest::WithFirstDatablock { descriptor, access, .. }) if is_value(&incoming.octets, question) => {
            refuse(write(question, descriptor, access, &incoming.octets), out);
        }
        Ok(SetRequest::WithListAndFirstDatablock { items, .. }) => {
            match values(&incoming.octets, items.len(), question) {
                Some(values) => {
                    let results: Vec<u8> = items
                        .iter(&limits)
                        .zip(values)
                        .map(|(item, value)| write(question, item.descriptor, item.access, value) as u8)
                        .collect();
                    set::encode_response_last_datablock_with_list(out, invoke, &results, number);
                }
                None => refuse(DataAccessResult::TypeUnmatched, out),
            }
        }
        _ => refuse(DataAccessResult::TypeUnmatched, out),
    }
}

fn write<O: Objects>(
    question: &mut Question<'_, O>,
    descriptor: AttributeDescriptor,
    part: Option<SelectiveAccess<'_>>,
    value: &[u8],
) -> DataAccessResult {
    match part {
        None => question.objects.set(question.access, descriptor, value, question.now),
        Some(_) => DataAccessResult::ScopeOfAccessViolated,
    }
}

/// Whether the octets are one value.
fn is_value<O>(octets: &[u8], question: &Question<'_, O>) -> bool {
    let mut reader = Reader::new(octets);
    skip(&mut reader, &question.limits).is_ok() && reader.is_empty()
}

/// As many values as wanted, behind their count; of one, the count may be missing.
fn values<'a, O>(octets: &'a [u8], wanted: usize, question: &Question<'_, O>) -> Option<Vec<&'a [u8]>> {
    if wanted == 1 && is_value(octets, question) && octets.first() != Some(&tag::ARRAY) {
        return Some(vec![octets]);
    }
    let limits = question.limits;
    let mut reader = Reader::new(octets);
    let list: List<'a, &'a [u8]> = List::decode(&mut reader, &limits).ok()?;
    if !reader.is_empty() || list.len() != wanted {
        return None;
    }
    // The list was checked; its items are found once more.
    let mut reader = Reader::new(octets);
    reader.length().ok()?;
    let mut values = Vec::with_capacity(wanted);
    for _ in 0..wanted {
        let start = reader.offset();
        skip(&mut reader, &limits).ok()?;
        values.push(reader.since(start));
    }
    Some(values)
}
