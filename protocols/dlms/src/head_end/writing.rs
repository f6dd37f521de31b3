//! Writing attributes and invoking methods: one, several, and what is too long for one APDU (Green Book, "SET
//! service", "ACTION service").

use ipss_session::{Context, ProtocolError, Step};

use super::exchange::{Asked, violation};
use super::{HeadEnd, Invocation, Item, Work};
use crate::apdu::action::{self, ActionResponse, MethodOutcome};
use crate::apdu::initiate::Conformance;
use crate::apdu::list::{DataOrResult, Item as _, List};
use crate::apdu::set::{self, SetResponse};
use crate::apdu::{DataBlock, InvokeIdAndPriority};
use crate::axdr::{Reader, skip, tag, write_length};
use crate::cosem::AttributeDescriptor;

/// A question too long for one APDU, on its way in pieces.
#[derive(Debug)]
pub(super) struct Long {
    octets: Vec<u8>,
    given: usize,
    /// The number of the last piece that was sent.
    number: u32,
}

impl Long {
    pub(super) fn new(octets: Vec<u8>) -> Self {
        Self { octets, given: 0, number: 0 }
    }

    /// The next piece, of at most `size` octets.
    pub(super) fn next(&mut self, size: usize) -> DataBlock<'_> {
        let rest = &self.octets[self.given..];
        let raw = &rest[..rest.len().min(size.max(1))];
        self.given += raw.len();
        self.number += 1;
        DataBlock { last: self.given == self.octets.len(), number: self.number, raw }
    }

    /// Whether all of it was sent.
    pub(super) fn is_given(&self) -> bool {
        self.given == self.octets.len()
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }
}

/// Octets of a piece's last flag, number and length.
const BLOCK_HEAD: usize = 5 + DataBlock::LENGTH_AT_MOST;

impl HeadEnd {
    /// Append a SET of as many values as go into one question, from the part that is next.
    pub(super) fn encode_set(
        &mut self,
        values: &[(AttributeDescriptor, Box<[u8]>)],
        invoke: InvokeIdAndPriority,
        start: usize,
        cx: &mut Context<'_>,
    ) {
        let rest = &values[usize::from(self.progress.part)..];
        let mut count = if self.may_list() { rest.len().min(usize::from(self.profile.with_list)) } else { 1 };
        let room = self.room();
        loop {
            self.progress.asked = count as u16;
            let chosen = &rest[..count];
            match chosen {
                [(descriptor, value)] => set::encode_request_normal(cx.to_send, invoke, descriptor, value),
                list => {
                    let list = list.iter().map(|(descriptor, value)| (descriptor, &value[..]));
                    set::encode_request_with_list(cx.to_send, invoke, list);
                }
            }
            if cx.to_send.len() - start <= room {
                return;
            }
            let head = 4 + 10 * count + BLOCK_HEAD;
            if self.conformance.contains(Conformance::BLOCK_TRANSFER_WITH_SET_OR_WRITE) && head < room {
                cx.to_send.truncate(start);
                let octets = joined(chosen.iter().map(|(_, value)| &value[..]));
                let mut long = Long::new(octets);
                let block = long.next(room - head);
                if let [(descriptor, _)] = chosen {
                    set::encode_request_with_first_datablock(cx.to_send, invoke, descriptor, block);
                } else {
                    let descriptors = chosen.iter().map(|(descriptor, _)| descriptor);
                    set::encode_request_with_list_and_first_datablock(cx.to_send, invoke, descriptors, block);
                }
                self.progress.long = Some(Box::new(long));
                return;
            }
            if count == 1 || self.may_block() {
                return; // general block transfer carries it, or it cannot be sent
            }
            cx.to_send.truncate(start);
            count /= 2;
        }
    }

    /// Append an ACTION of as many methods as go into one question, from the part that is next.
    pub(super) fn encode_actions(
        &mut self,
        list: &[Invocation],
        invoke: InvokeIdAndPriority,
        start: usize,
        cx: &mut Context<'_>,
    ) {
        let rest = &list[usize::from(self.progress.part).min(list.len() - 1)..];
        let mut count = if self.may_list() { rest.len().min(usize::from(self.profile.with_list)) } else { 1 };
        let room = self.room();
        loop {
            self.progress.asked = count as u16;
            let chosen = &rest[..count];
            match chosen {
                [(method, parameters)] => {
                    action::encode_request_normal(cx.to_send, invoke, method, parameters.as_deref());
                }
                list => {
                    let list = list.iter().map(|(method, parameters)| (method, parameters.as_deref()));
                    action::encode_request_with_list(cx.to_send, invoke, list);
                }
            }
            if cx.to_send.len() - start <= room {
                return;
            }
            let head = 4 + 9 * count + BLOCK_HEAD;
            if self.conformance.contains(Conformance::BLOCK_TRANSFER_WITH_ACTION) && head < room {
                cx.to_send.truncate(start);
                let none = &[tag::NULL_DATA][..];
                let octets = joined(chosen.iter().map(|(_, parameters)| parameters.as_deref().unwrap_or(none)));
                let mut long = Long::new(octets);
                let block = long.next(room - head);
                if let [(method, _)] = chosen {
                    action::encode_request_with_first_pblock(cx.to_send, invoke, method, block);
                } else {
                    let methods = chosen.iter().map(|(method, _)| method);
                    action::encode_request_with_list_and_first_pblock(cx.to_send, invoke, methods, block);
                }
                self.progress.long = Some(Box::new(long));
                return;
            }
            if count == 1 || self.may_block() {
                return;
            }
            cx.to_send.truncate(start);
            count /= 2;
        }
    }

    /// Append what wants no answer.
    pub(super) fn encode_unconfirmed(
        &mut self,
        item: &Item,
        invoke: InvokeIdAndPriority,
        cx: &mut Context<'_>,
    ) -> Asked {
        self.progress.asked = 1;
        let invoke = InvokeIdAndPriority(invoke.0 & !0x40);
        let start = cx.to_send.len();
        match item {
            Item::Set(values) => match &values[..] {
                [(descriptor, value)] => set::encode_request_normal(cx.to_send, invoke, descriptor, value),
                list => {
                    let list = list.iter().map(|(descriptor, value)| (descriptor, &value[..]));
                    set::encode_request_with_list(cx.to_send, invoke, list);
                }
            },
            Item::Action(method, parameters) => {
                action::encode_request_normal(cx.to_send, invoke, method, parameters.as_deref());
            }
            _ => return Asked::Impossible("only a SET or an ACTION can do without an answer".into()),
        }
        if !self.fits_one(cx.to_send.len() - start) {
            return Asked::Impossible("too long for one APDU, and an unconfirmed service has no blocks".into());
        }
        Asked::Unconfirmed
    }

    /// The answer to a SET, or to a piece of it.
    pub(super) fn take_set(
        &mut self,
        item: &Item,
        values: usize,
        response: SetResponse<'_>,
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let limits = self.profile.limits;
        let asked = usize::from(self.progress.asked);
        let given = self.progress.long.as_ref().is_none_or(|long| long.is_given());
        let in_blocks = self.progress.long.is_some();
        let results: Vec<u8> = match response {
            SetResponse::Datablock { block_number, .. } => return self.next_piece(block_number, false, step, cx),
            // A *no* to a piece, or in one for all: the transfer is over.
            SetResponse::Normal { result, .. } | SetResponse::LastDatablock { result, .. } if result != 0 => {
                vec![result; asked]
            }
            SetResponse::Normal { result, .. } if asked == 1 && !in_blocks => vec![result],
            SetResponse::LastDatablock { result, .. } if asked == 1 && in_blocks && given => vec![result],
            SetResponse::WithList { results, .. } if asked > 1 && results.len() == asked && !in_blocks => {
                results.iter(&limits).collect()
            }
            SetResponse::LastDatablockWithList { results, .. } if asked > 1 && results.len() == asked && given => {
                results.iter(&limits).collect()
            }
            _ => return Err(violation("unexpected-answer", "a SET answered in another form than it was asked".into())),
        };
        self.progress.long = None;
        self.answered(cx);
        self.progress.answers.extend_from_slice(&results);
        self.close_verdicts(values, cx);
        self.next_question(item, step, cx);
        Ok(())
    }

    /// The answer to an ACTION, or to a piece of it, or a piece of its answer.
    pub(super) fn take_action(
        &mut self,
        item: &Item,
        response: ActionResponse<'_>,
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let limits = self.profile.limits;
        let asked = usize::from(self.progress.asked);
        let given = self.progress.long.as_ref().is_none_or(|long| long.is_given());
        match response {
            ActionResponse::NextPblock { block_number, .. } => self.next_piece(block_number, true, step, cx),
            ActionResponse::Normal { outcome, .. } if (asked == 1 && given) || outcome.result != 0 => {
                self.answered(cx);
                self.take_invoked(item, &vec![outcome; asked], step, cx)
            }
            ActionResponse::WithList { outcomes, .. } if asked > 1 && outcomes.len() == asked && given => {
                let outcomes: Vec<_> = outcomes.iter(&limits).collect();
                self.answered(cx);
                self.take_invoked(item, &outcomes, step, cx)
            }
            ActionResponse::WithPblock { block, .. } if given => {
                self.progress.long = None;
                self.collect(block.last, block.number, block.raw)?;
                self.answered(cx);
                if !block.last {
                    let frame = self.link.begin(cx.to_send, self.profile.client, self.profile.server);
                    let start = cx.to_send.len();
                    action::encode_request_next_pblock(cx.to_send, self.same_invoke(), block.number);
                    self.sent(frame, start, step, cx);
                    return Ok(());
                }
                let whole = self.collected();
                let outcomes = returned_in_blocks(&whole, asked, &limits)?;
                self.take_invoked(item, &outcomes, step, cx)
            }
            _ => Err(violation("unexpected-answer", "an ACTION answered in another form than it was asked".into())),
        }
    }

    /// What the methods on the wire gave.
    fn take_invoked(
        &mut self,
        item: &Item,
        outcomes: &[MethodOutcome<'_>],
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        self.progress.long = None;
        let head = self.head();
        if let (Item::Action(..), [outcome]) = (item, outcomes) {
            self.take_verdict(head, outcome.result, outcome.returned, cx)?;
        } else {
            for outcome in outcomes {
                action::encode_outcome(&mut self.progress.answers, *outcome);
            }
            self.close_invoked(item.parts(), cx)?;
        }
        self.next_question(item, step, cx);
        Ok(())
    }

    /// A piece of ours arrived: send the next one.
    fn next_piece(
        &mut self,
        arrived: u32,
        is_action: bool,
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let size = self.room().saturating_sub(3 + BLOCK_HEAD);
        let invoke = self.same_invoke();
        let Some(long) = self.progress.long.as_mut().filter(|long| !long.is_given()) else {
            return Err(violation("unexpected-answer", "a word of a block that was not sent".into()));
        };
        if arrived != long.number() {
            return Err(violation("wrong-block", format!("block {arrived}, expected {}", long.number())));
        }
        let frame = self.link.begin(cx.to_send, self.profile.client, self.profile.server);
        let start = cx.to_send.len();
        let block = long.next(size);
        if is_action {
            action::encode_request_with_pblock(cx.to_send, invoke, block);
        } else {
            set::encode_request_with_datablock(cx.to_send, invoke, block);
        }
        self.answered(cx);
        self.sent(frame, start, step, cx);
        Ok(())
    }
}

/// Values as they travel in blocks: one alone, several behind their count.
pub(super) fn joined<'v>(values: impl ExactSizeIterator<Item = &'v [u8]>) -> Vec<u8> {
    let mut octets = Vec::new();
    if values.len() > 1 {
        write_length(&mut octets, values.len());
    }
    values.for_each(|value| octets.extend_from_slice(value));
    octets
}

/// What methods returned in blocks: of one method its value alone (some meters put the choice or the whole outcome in
/// front), of several the list of outcomes.
fn returned_in_blocks<'a>(
    whole: &'a [u8],
    asked: usize,
    limits: &'a ipss_session::Limits,
) -> Result<Vec<MethodOutcome<'a>>, ProtocolError> {
    if asked > 1 {
        let mut reader = Reader::new(whole);
        let list: List<'_, MethodOutcome<'_>> = List::decode(&mut reader, limits)?;
        reader.finish()?;
        if list.len() != asked {
            return Err(violation("wrong-count", format!("{} outcomes of {asked} methods", list.len())));
        }
        return Ok(list.iter(limits).collect());
    }
    let one_value = |octets: &'a [u8]| {
        let mut reader = Reader::new(octets);
        skip(&mut reader, limits).and_then(|()| reader.finish())
    };
    let value = |octets| MethodOutcome { result: 0, returned: Some(DataOrResult::Data(octets)) };
    let error = match one_value(whole) {
        Ok(()) => return Ok(vec![value(whole)]),
        Err(error) => error,
    };
    if let Some((0, rest)) = whole.split_first().map(|(first, rest)| (*first, rest)) {
        if one_value(rest).is_ok() {
            return Ok(vec![value(rest)]);
        }
    }
    let mut reader = Reader::new(whole);
    match MethodOutcome::decode(&mut reader, limits) {
        Ok(outcome) if reader.is_empty() => Ok(vec![outcome]),
        _ => Err(error),
    }
}
