//! Questions and answers on a standing association: one on the wire at a time.

use ipss_session::{Context, EventKind, Line, Outcome, ProtocolError, Step, WallTime};

use super::writing::Long;
use super::{HeadEnd, Item, Wanted, Work};
use crate::apdu::action::ActionResponse;
use crate::apdu::get::{self, GetResponse};
use crate::apdu::initiate::Conformance;
use crate::apdu::list::{DataOrResult, List};
use crate::apdu::set::SetResponse;
use crate::apdu::tags::{self, KeyKind};
use crate::apdu::{InvokeIdAndPriority, LongInvokeId};
use crate::axdr::Reader;
use crate::cosem::{AttributeDescriptor, LogicalName, RangeSelection, Selection};
use crate::profile::Referencing;

/// How far the current request has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The item on the wire, or to be asked next.
    pub(super) item: u16,
    /// The part of the item (an attribute, a value, a method), for items with several.
    pub(super) part: u16,
    /// How many parts the question on the wire asks for.
    pub(super) asked: u16,
    /// How many blocks of a long answer have come, 0 outside a block transfer.
    pub(super) block: u32,
    /// Some item was answered by the meter's own *no*.
    pub(super) refused: bool,
    /// The question on the wire asks for the short names, before the item.
    pub(super) learning: bool,
    /// Blocks put together so far.
    pub(super) blocks: Vec<u8>,
    /// Answers to the item's parts so far, one behind the other.
    pub(super) answers: Vec<u8>,
    /// What is left of a question too long for one APDU.
    pub(super) long: Option<Box<Long>>,
}

impl Progress {
    /// Start anew; an idle session holds no buffers.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Any attribute that every meter answers cheaply: the sign of life (Blue Book: class 1, logical device name).
const SIGN_OF_LIFE: AttributeDescriptor =
    AttributeDescriptor { class_id: 1, logical_name: LogicalName::LOGICAL_DEVICE_NAME, attribute: 2 };

impl HeadEnd {
    /// The next invoke-id-and-priority: confirmed, high priority for critical requests.
    pub(super) fn invoke(&mut self) -> InvokeIdAndPriority {
        self.invoke_id = (self.invoke_id + 1) & 0x0F;
        self.same_invoke()
    }

    /// That of the question on the wire: a transfer keeps it.
    pub(super) fn same_invoke(&self) -> InvokeIdAndPriority {
        let urgent = self.current.as_ref().is_some_and(|request| request.priority == ipss_session::Priority::Critical);
        InvokeIdAndPriority::confirmed(self.invoke_id, urgent)
    }

    /// Put the current request's next question on the wire, or finish it.
    pub(super) fn ask(&mut self, step: &mut Step<Work>, cx: &mut Context<'_>) {
        let Some(request) = &self.current else { return };
        let plan = request.work.plan.clone();
        let (from, to) = (request.work.from, request.work.to);
        loop {
            let Some(item) = plan.items.get(usize::from(self.progress.item)) else {
                let outcome = if self.progress.refused { Outcome::Refused } else { Outcome::Done };
                self.finish(step, outcome, "");
                return;
            };
            if item.parts() == 0 {
                self.progress.item += 1;
                continue;
            }
            let frame = self.link.begin(cx.to_send, self.profile.client, self.profile.server);
            let start = cx.to_send.len();
            let invoke = self.invoke();
            let asked = if self.profile.referencing == Referencing::ShortName {
                self.encode_short(item, from, to, start, cx)
            } else {
                self.encode_question(item, invoke, from, to, start, cx)
            };
            match asked {
                Asked::Question => {}
                // What needs no answer, or has one already: on to the next.
                Asked::Unconfirmed => {
                    if self.send(KeyKind::Dedicated, frame, start, cx).is_err() {
                        self.exhausted(step, cx);
                        return;
                    }
                    let head = self.head();
                    cx.batch.close_line(head);
                    self.behind(item);
                    continue;
                }
                Asked::Answered => {
                    cx.to_send.truncate(frame);
                    self.behind(item);
                    continue;
                }
                Asked::Impossible(why) => {
                    cx.to_send.truncate(frame);
                    self.finish(step, Outcome::Impossible, why);
                    return;
                }
            }
            let length = cx.to_send.len() - start;
            if length > self.room() && !self.may_block() {
                cx.to_send.truncate(frame);
                let detail = format!("a question of {length} octets; the meter takes {}", self.room());
                self.finish(step, Outcome::Impossible, detail);
                return;
            }
            self.sent(frame, start, step, cx);
            return;
        }
    }

    /// Append the question for an item, or for as many of its parts as go into one.
    fn encode_question(
        &mut self,
        item: &Item,
        invoke: InvokeIdAndPriority,
        from: WallTime,
        to: WallTime,
        start: usize,
        cx: &mut Context<'_>,
    ) -> Asked {
        match item {
            Item::Attributes(attributes) => {
                let rest = &attributes.attributes[usize::from(self.progress.part)..];
                self.progress.asked = self.list_length(rest.len());
                match &rest[..usize::from(self.progress.asked)] {
                    [one] => get::encode_request_normal(cx.to_send, invoke, one, None, &self.profile.selection),
                    list => {
                        let list = list.iter().map(|descriptor| (descriptor, None));
                        get::encode_request_with_list(cx.to_send, invoke, list, &self.profile.selection);
                    }
                }
            }
            Item::Buffer(buffer) => {
                self.progress.asked = 1;
                let selection = match self.selection(&buffer.wanted, from, to) {
                    Ok(selection) => selection,
                    Err(why) => return Asked::Impossible(why),
                };
                let descriptor = AttributeDescriptor { class_id: 7, logical_name: buffer.logical_name, attribute: 2 };
                let options = &self.profile.selection;
                get::encode_request_normal(cx.to_send, invoke, &descriptor, selection.as_ref(), options);
            }
            Item::Set(values) => self.encode_set(values, invoke, start, cx),
            Item::Action(method, parameters) => {
                let item = (*method, parameters.clone());
                self.encode_actions(std::slice::from_ref(&item), invoke, start, cx);
            }
            Item::Actions(list) => self.encode_actions(list, invoke, start, cx),
            Item::Access(access) => return self.encode_access(access, cx),
            Item::Unconfirmed(inner) => return self.encode_unconfirmed(inner, invoke, cx),
        }
        Asked::Question
    }

    /// The selection for what is wanted of a buffer: none where the meter has none, and the whole buffer comes.
    pub(super) fn selection(&self, wanted: &Wanted, from: WallTime, to: WallTime) -> Result<Option<Selection>, String> {
        let quirks = &self.profile.quirks;
        let bit = match self.profile.referencing {
            Referencing::LogicalName => Conformance::SELECTIVE_ACCESS,
            Referencing::ShortName => Conformance::PARAMETERIZED_ACCESS,
        };
        let negotiated = self.conformance.contains(bit);
        let no_columns =
            || "columns are wanted, but the meter's profile says that it gives only whole lines".to_owned();
        Ok(match wanted {
            Wanted::Entries(entries) => {
                if !quirks.column_selection && (entries.from_column > 1 || entries.to_column != 0) {
                    return Err(no_columns());
                }
                (negotiated && quirks.selective_access.has_entry()).then_some(Selection::Entry(*entries))
            }
            Wanted::Range { restricting_object, columns } => {
                let served = negotiated && quirks.selective_access.has_range();
                if !(columns.is_empty() || served && quirks.column_selection) {
                    return Err(no_columns());
                }
                served.then(|| {
                    Selection::Range(RangeSelection {
                        restricting_object: *restricting_object,
                        from,
                        to,
                        columns: columns.clone(),
                    })
                })
            }
            Wanted::All => None,
        })
    }

    /// Octets of the largest plain APDU that may be sent.
    pub(super) fn room(&self) -> usize {
        self.largest_apdu().saturating_sub(self.profile.overhead()).max(24)
    }

    /// Whether a plain APDU of that length goes in one APDU, protected as it will be.
    pub(super) fn fits_one(&self, length: usize) -> bool {
        length + self.profile.overhead() <= self.largest_apdu()
    }

    /// Octets of the longest APDU that the meter takes.
    pub(super) fn largest_apdu(&self) -> usize {
        let told = if self.server_max_pdu == 0 { u16::MAX } else { self.server_max_pdu };
        let octets = if self.profile.quirks.max_pdu == 0 { told } else { told.min(self.profile.quirks.max_pdu) };
        usize::from(octets)
    }

    /// Whether several parts may be asked for at once.
    pub(super) fn may_list(&self) -> bool {
        self.conformance.contains(Conformance::MULTIPLE_REFERENCES)
            && self.profile.quirks.with_list_allowed
            && self.profile.with_list > 1
            && !self.lists_broken
    }

    /// How many of `rest` attributes to ask for at once.
    pub(super) fn list_length(&self, rest: usize) -> u16 {
        if rest == 1 || !self.may_list() {
            return 1;
        }
        // A request names an attribute in 10 octets; the meter's own limit on APDUs bounds the list.
        let by_size = (self.room().saturating_sub(8) / 10).max(1);
        self.profile.with_list.min(u16::try_from(by_size.min(rest)).unwrap_or(u16::MAX))
    }

    /// A question is complete in `to_send`: protect it and wait for its answer.
    pub(super) fn sent(&mut self, frame: usize, start: usize, step: &mut Step<Work>, cx: &mut Context<'_>) {
        if self.send(KeyKind::Dedicated, frame, start, cx).is_err() {
            self.exhausted(step, cx);
            return;
        }
        self.asking = true;
        self.since = cx.now.monotonic;
        if let Some(request) = &mut self.current {
            request.exchanges += 1;
        }
        step.deadline = self.deadline();
    }

    /// Ask something small that nobody waits for, so that both ends and the network between know of each other.
    pub(super) fn sign_of_life(&mut self, step: &mut Step<Work>, cx: &mut Context<'_>) {
        let frame = self.link.begin(cx.to_send, self.profile.client, self.profile.server);
        let start = cx.to_send.len();
        let invoke = self.invoke();
        match self.profile.referencing {
            Referencing::LogicalName => {
                get::encode_request_normal(cx.to_send, invoke, &SIGN_OF_LIFE, None, &self.profile.selection);
            }
            Referencing::ShortName => Self::encode_short_sign_of_life(cx.to_send),
        }
        self.sent(frame, start, step, cx);
    }

    /// The head of the lines of the item in work.
    pub(super) fn head(&self) -> Line {
        Line {
            meter: self.meter,
            request: self.current.as_ref().map_or(0, |request| request.id),
            item: self.progress.item,
            layout: 0,
            // Unless the meter says when it captured it, nobody knows: whoever stores it puts the time of receipt.
            capture_time: WallTime::UNKNOWN,
            deviation: Line::NO_DEVIATION,
            clock_status: 0xFF,
        }
    }

    /// An APDU, opened, that should be the answer to the question on the wire.
    pub(super) fn take_answer(
        &mut self,
        apdu: &[u8],
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let service = apdu.first().copied().unwrap_or_default();
        // Answers to short names have no invoke-id: that they come in order over one line is all that says whose they
        // are. Those of ACCESS have a long one.
        let invoke_id = match service {
            tags::READ_RESPONSE | tags::WRITE_RESPONSE => self.invoke_id,
            tags::ACCESS_RESPONSE => apdu.get(1..5).map_or(0xFF, |octets| {
                let id = LongInvokeId(u32::from_be_bytes([octets[0], octets[1], octets[2], octets[3]])).id();
                u8::try_from(id).unwrap_or(0xFF)
            }),
            _ => apdu.get(2).copied().unwrap_or_default() & 0x0F,
        };
        if !self.asking || invoke_id != self.invoke_id {
            self.unexpected(invoke_id, cx);
            return Ok(());
        }
        let Some(request) = &self.current else {
            // The answer to a withdrawn question, or a sign of life.
            self.answered(cx);
            step.deadline = self.deadline();
            return Ok(());
        };
        let plan = request.work.plan.clone();
        let Some(item) = plan.items.get(usize::from(self.progress.item)) else { return Ok(()) };
        if self.profile.referencing == Referencing::ShortName {
            return self.take_short(item, apdu, step, cx);
        }
        if service != item.answered_by() {
            self.unexpected(invoke_id, cx);
            return Ok(());
        }
        let head = self.head();
        let limits = self.profile.limits;
        match item {
            Item::Attributes(_) | Item::Buffer(_) => match GetResponse::decode(apdu, &limits) {
                Ok(GetResponse::Normal { result, .. }) if self.progress.asked == 1 => {
                    self.answered(cx);
                    self.take_value(item, head, result, cx)?;
                    self.next_question(item, step, cx);
                    Ok(())
                }
                Ok(GetResponse::WithDatablock { last, block_number, result, .. }) => {
                    self.take_block(item, head, (last, block_number, result), step, cx)
                }
                Ok(GetResponse::WithList { results, .. }) => {
                    self.answered(cx);
                    self.take_whole_list(item, head, Ok((results.len(), results.iter(&limits))), step, cx)
                }
                Ok(GetResponse::Normal { .. }) => {
                    self.answered(cx);
                    let error = violation("wrong-count", "one value for a question after several".into());
                    self.take_whole_list(item, head, Err::<NoValues, _>(error), step, cx)
                }
                // Some meters answer garbage behind the first item of a list.
                Err(error) => {
                    self.answered(cx);
                    self.take_whole_list(item, head, Err::<NoValues, _>(error), step, cx)
                }
            },
            Item::Set(values) => self.take_set(item, values.len(), SetResponse::decode(apdu, &limits)?, step, cx),
            Item::Action(..) | Item::Actions(_) => {
                self.take_action(item, ActionResponse::decode(apdu, &limits)?, step, cx)
            }
            Item::Access(access) => self.take_access(item, access, apdu, step, cx),
            Item::Unconfirmed(_) => Ok(()),
        }
    }

    /// Drop an answer that belongs to no question.
    pub(super) fn unexpected(&mut self, invoke_id: u8, cx: &mut Context<'_>) {
        let detail = "an answer that no question waits for";
        cx.batch.event(self.meter, cx.now.wall, EventKind::UnexpectedAnswer, i64::from(invoke_id), detail);
    }

    pub(super) fn answered(&mut self, cx: &Context<'_>) {
        self.asking = false;
        self.repetitions = 0;
        self.since = cx.now.monotonic;
    }

    /// Go on behind what was just answered.
    pub(super) fn next_question(&mut self, item: &Item, step: &mut Step<Work>, cx: &mut Context<'_>) {
        self.behind(item);
        self.ask(step, cx);
    }

    /// The next part, or the next item.
    fn behind(&mut self, item: &Item) {
        let progress = &mut self.progress;
        progress.part += progress.asked;
        if usize::from(progress.part) >= item.parts() {
            progress.item += 1;
            progress.part = 0;
        }
    }

    /// The values of a list; if they are garbage, the same is asked one by one, now and from now on.
    pub(super) fn take_whole_list<'a>(
        &mut self,
        item: &Item,
        head: Line,
        results: Result<(usize, impl Iterator<Item = DataOrResult<'a>>), ProtocolError>,
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let (kept, refusals, refused) = (self.progress.answers.len(), cx.batch.refusals.len(), self.progress.refused);
        match results.and_then(|(count, results)| self.take_list(item, head, count, results, cx)) {
            Ok(()) => {
                self.next_question(item, step, cx);
                Ok(())
            }
            Err(error) if self.progress.asked > 1 && !self.lists_broken => {
                self.lists_broken = true;
                self.progress.answers.truncate(kept);
                cx.batch.refusals.truncate(refusals);
                self.progress.refused = refused;
                let detail = format!("{error}; lists are asked one by one from now on");
                cx.batch.event(self.meter, cx.now.wall, EventKind::ProtocolViolation, 0, detail);
                self.ask(step, cx);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// One block of a long answer (Green Book, "GET service", block transfer): numbers from 1, one behind the other.
    fn take_block(
        &mut self,
        item: &Item,
        head: Line,
        (last, number, result): (bool, u32, DataOrResult<'_>),
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let limits = self.profile.limits;
        let asked = usize::from(self.progress.asked);
        let octets = match result {
            DataOrResult::Data(octets) => octets,
            DataOrResult::Result(_) => {
                // A *no* in the middle ends the transfer: nothing of it is a value.
                self.progress.blocks = Vec::new();
                self.progress.block = 0;
                self.answered(cx);
                if asked > 1 {
                    return self.take_whole_list(item, head, Ok((asked, std::iter::repeat_n(result, asked))), step, cx);
                }
                self.take_value(item, head, result, cx)?;
                self.next_question(item, step, cx);
                return Ok(());
            }
        };
        self.collect(last, number, octets)?;
        self.answered(cx);
        if !last {
            let frame = self.link.begin(cx.to_send, self.profile.client, self.profile.server);
            let start = cx.to_send.len();
            get::encode_request_next(cx.to_send, self.same_invoke(), number);
            self.sent(frame, start, step, cx);
            return Ok(());
        }
        let whole = self.collected();
        if asked > 1 {
            let results = List::<'_, DataOrResult<'_>>::decode(&mut Reader::new(&whole), &limits);
            let results = results.map(|results| (results.len(), results.iter(&limits)));
            return self.take_whole_list(item, head, results, step, cx);
        }
        self.take_value(item, head, DataOrResult::Data(&whole), cx)?;
        self.next_question(item, step, cx);
        Ok(())
    }

    /// Put a block of a long answer behind those before it.
    ///
    /// # Errors
    /// Remote: `wrong-block`, `empty-block`, `transfer-over-limit`.
    pub(super) fn collect(&mut self, last: bool, number: u32, octets: &[u8]) -> Result<(), ProtocolError> {
        let limits = &self.profile.limits;
        if self.progress.block == 0 {
            // A transfer begins at 1; of some meters at any number.
            self.block_base = if self.profile.quirks.block_number_continues { number.saturating_sub(1) } else { 0 };
        }
        let block = self.progress.block + 1;
        let expected = self.block_base.saturating_add(block);
        if number != expected {
            return Err(violation("wrong-block", format!("block {number}, expected {expected}")));
        }
        if octets.is_empty() && !last {
            return Err(violation("empty-block", format!("block {number} has no octets and is not the last")));
        }
        if block > limits.blocks || self.progress.blocks.len() + octets.len() > limits.reassembly {
            let message = format!("a transfer of more than {} octets or {} blocks", limits.reassembly, limits.blocks);
            return Err(violation("transfer-over-limit", message));
        }
        self.progress.blocks.extend_from_slice(octets);
        self.progress.block = block;
        Ok(())
    }

    /// The long answer, whole.
    pub(super) fn collected(&mut self) -> Vec<u8> {
        self.progress.block = 0;
        std::mem::take(&mut self.progress.blocks)
    }
}

/// The type of values of which there are none.
type NoValues = (usize, std::iter::Empty<DataOrResult<'static>>);

/// What became of an item that was to be asked.
pub(super) enum Asked {
    /// Its question, or the first part of it, is in `to_send`.
    Question,
    /// It is in `to_send`, and there will be no answer.
    Unconfirmed,
    /// Nothing was to be asked: the answer was known.
    Answered,
    /// It cannot be asked.
    Impossible(String),
}

pub(super) fn violation(code: &'static str, message: String) -> ProtocolError {
    ProtocolError::remote("association", 0, code, message)
}
