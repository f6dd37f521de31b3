//! Questions and answers on a standing association: one on the wire at a time.

use ipss_session::{Cell, Context, EventKind, Limits, Line, Outcome, ProtocolError, Step, WallTime};

use super::{Attributes, Buffer, HeadEnd, Item, Wanted, Work};
use crate::apdu::InvokeIdAndPriority;
use crate::apdu::action::{self, ActionResponse};
use crate::apdu::exception::ExceptionResponse;
use crate::apdu::get::{self, GetResponse};
use crate::apdu::initiate::{ConfirmedServiceError, Conformance};
use crate::apdu::list::{DataOrResult, List};
use crate::apdu::notification::DataNotification;
use crate::apdu::set::{self, SetResponse};
use crate::apdu::tags::{self, KeyKind};
use crate::axdr::{Data, DateTime, Reader, decode_buffer, decode_value, skip, tag};
use crate::cosem::{AttributeDescriptor, LogicalName, RangeSelection, Selection};

/// How far the current request has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The item on the wire, or to be asked next.
    item: u16,
    /// The attribute of the item, for items with several.
    attribute: u16,
    /// How many attributes the question on the wire asks for.
    asked: u16,
    /// The block that is expected next, 0 outside a block transfer.
    block: u32,
    /// Some item was answered by the meter's own *no*.
    refused: bool,
    /// Blocks put together so far.
    blocks: Vec<u8>,
    /// Answers to the item's attributes so far, A-XDR values one behind the other.
    answers: Vec<u8>,
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
        let urgent = self.current.as_ref().is_some_and(|request| request.priority == ipss_session::Priority::Critical);
        InvokeIdAndPriority::confirmed(self.invoke_id, urgent)
    }

    /// Put the current request's next question on the wire, or finish it.
    pub(super) fn ask(&mut self, step: &mut Step<Work>, cx: &mut Context<'_>) {
        let Some(request) = &self.current else { return };
        let plan = request.work.plan.clone();
        let Some(item) = plan.items.get(usize::from(self.progress.item)) else {
            let outcome = if self.progress.refused { Outcome::Refused } else { Outcome::Done };
            self.finish(step, outcome, "");
            return;
        };
        let (from, to) = (request.work.from, request.work.to);
        let frame = self.link.begin(cx.to_send, self.profile.client, self.profile.server);
        let start = cx.to_send.len();
        let invoke = self.invoke();
        match item {
            Item::Attributes(attributes) => {
                let rest = &attributes.attributes[usize::from(self.progress.attribute)..];
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
                let selection = match &buffer.wanted {
                    Wanted::All => None,
                    Wanted::Entries(entries) => Some(Selection::Entry(*entries)),
                    Wanted::Range { restricting_object, columns } => Some(Selection::Range(RangeSelection {
                        restricting_object: *restricting_object,
                        from,
                        to,
                        columns: columns.clone(),
                    })),
                };
                let descriptor = AttributeDescriptor { class_id: 7, logical_name: buffer.logical_name, attribute: 2 };
                let options = &self.profile.selection;
                get::encode_request_normal(cx.to_send, invoke, &descriptor, selection.as_ref(), options);
            }
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
        }
        let length = cx.to_send.len() - start + self.profile.protection.overhead() + 16;
        if self.server_max_pdu != 0 && length > usize::from(self.server_max_pdu) {
            cx.to_send.truncate(frame);
            let detail = format!("a question of {length} octets; the meter takes {}", self.server_max_pdu);
            self.finish(step, Outcome::Impossible, detail);
            return;
        }
        self.sent(frame, start, step, cx);
    }

    /// How many of `rest` attributes to ask for at once.
    fn list_length(&self, rest: usize) -> u16 {
        let allowed =
            if self.conformance.contains(Conformance::MULTIPLE_REFERENCES) { self.profile.with_list.max(1) } else { 1 };
        // A request names an attribute in 10 octets; the meter's own limit on APDUs bounds the list.
        let by_size = match self.server_max_pdu {
            0 => u16::MAX,
            octets => (octets.saturating_sub(64) / 10).max(1),
        };
        allowed.min(by_size).min(u16::try_from(rest).unwrap_or(u16::MAX))
    }

    /// A question is complete in `to_send`: protect it and wait for its answer.
    fn sent(&mut self, frame: usize, start: usize, step: &mut Step<Work>, cx: &mut Context<'_>) {
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
        get::encode_request_normal(cx.to_send, invoke, &SIGN_OF_LIFE, None, &self.profile.selection);
        self.sent(frame, start, step, cx);
    }

    /// An APDU, opened, that should be the answer to the question on the wire.
    pub(super) fn take_answer(
        &mut self,
        apdu: &[u8],
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let invoke_id = apdu.get(2).copied().unwrap_or_default() & 0x0F;
        if !self.asking || invoke_id != self.invoke_id {
            let detail = "an answer that no question waits for";
            cx.batch.event(self.meter, cx.now.wall, EventKind::UnexpectedAnswer, i64::from(invoke_id), detail);
            return Ok(());
        }
        let Some(request) = &self.current else {
            // The answer to a withdrawn question, or a sign of life.
            self.answered(cx);
            step.deadline = self.deadline();
            return Ok(());
        };
        let (plan, id) = (request.work.plan.clone(), request.id);
        let Some(item) = plan.items.get(usize::from(self.progress.item)) else { return Ok(()) };
        let head = Line {
            meter: self.meter,
            request: id,
            item: self.progress.item,
            layout: 0,
            // Unless the meter says when it captured it, nobody knows: whoever stores it puts the time of receipt.
            capture_time: WallTime::UNKNOWN,
            deviation: Line::NO_DEVIATION,
            clock_status: 0xFF,
        };
        let limits = self.profile.limits;
        match item {
            Item::Attributes(_) | Item::Buffer(_) => match GetResponse::decode(apdu, &limits)? {
                GetResponse::Normal { result, .. } => {
                    self.answered(cx);
                    self.take_value(item, head, result, cx)?;
                    self.next_question(item, step, cx);
                }
                GetResponse::WithDatablock { last, block_number, result, .. } => {
                    self.take_block(item, head, (last, block_number, result), step, cx)?;
                }
                GetResponse::WithList { results, .. } => {
                    self.answered(cx);
                    self.take_list(item, head, results, cx)?;
                    self.next_question(item, step, cx);
                }
            },
            Item::Set(values) => {
                match (SetResponse::decode(apdu, &limits)?, values.len()) {
                    (SetResponse::Normal { result, .. }, 1) => self.take_verdict(head, result, None, cx)?,
                    (SetResponse::WithList { results, .. }, count) if count > 1 && results.len() == count => {
                        self.take_verdicts(head, results, &limits, cx);
                    }
                    _ => {
                        let message = "a SET answered in another form than it was asked";
                        return Err(violation("unexpected-answer", message.into()));
                    }
                }
                self.answered(cx);
                self.next_question(item, step, cx);
            }
            Item::Action(..) => {
                let ActionResponse::Normal { outcome, .. } = ActionResponse::decode(apdu, &limits)? else {
                    let message = "an ACTION answered in another form than it was asked";
                    return Err(violation("unexpected-answer", message.into()));
                };
                self.answered(cx);
                self.take_verdict(head, outcome.result, outcome.returned, cx)?;
                self.next_question(item, step, cx);
            }
        }
        Ok(())
    }

    fn answered(&mut self, cx: &Context<'_>) {
        self.asking = false;
        self.since = cx.now.monotonic;
    }

    /// Go on behind what was just answered.
    fn next_question(&mut self, item: &Item, step: &mut Step<Work>, cx: &mut Context<'_>) {
        let progress = &mut self.progress;
        progress.attribute += progress.asked;
        let more = match item {
            Item::Attributes(attributes) => usize::from(progress.attribute) < attributes.attributes.len(),
            _ => false,
        };
        if !more {
            progress.item += 1;
            progress.attribute = 0;
        }
        self.ask(step, cx);
    }

    /// One value, or the meter's *no*, for the question on the wire.
    fn take_value(
        &mut self,
        item: &Item,
        mut head: Line,
        result: DataOrResult<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        if let DataOrResult::Result(code) = result {
            self.refused(&head, code, cx);
        }
        match (item, result) {
            (Item::Buffer(buffer), DataOrResult::Data(octets)) => {
                head.layout = buffer.layout;
                self.take_buffer(buffer, head, octets, cx)?;
            }
            (Item::Attributes(attributes), result) => {
                head.layout = attributes.layout;
                let alone = attributes.attributes.len() == 1 && attributes.capture_time.is_none();
                if let (true, DataOrResult::Data(octets)) = (alone, result) {
                    cx.batch.push_cell(decode_cell(octets, head.layout, &self.profile.limits)?);
                    cx.batch.close_line(head);
                } else if !alone {
                    self.keep(result)?;
                    self.close_attributes(attributes, head, 1, cx)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn take_buffer(
        &mut self,
        buffer: &Buffer,
        head: Line,
        octets: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        decode_buffer(octets, &buffer.shape, head, &self.profile.limits, cx.batch).map(|_| ())
    }

    /// The values of a list, in the order of the question.
    fn take_list<'a>(
        &mut self,
        item: &Item,
        mut head: Line,
        results: List<'a, DataOrResult<'a>>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let Item::Attributes(attributes) = item else {
            return Err(violation("unexpected-list", "a list for a question after one value".into()));
        };
        head.layout = attributes.layout;
        let count = self.progress.asked;
        if results.len() != usize::from(count) {
            let message = format!("{} values for a question after {count}", results.len());
            return Err(violation("wrong-count", message));
        }
        let limits = self.profile.limits;
        for result in results.iter(&limits) {
            if let DataOrResult::Result(code) = result {
                self.refused(&head, code, cx);
            }
            self.keep(result)?;
        }
        self.close_attributes(attributes, head, count, cx)
    }

    /// Keep one of several answers until the line is complete.
    fn keep(&mut self, result: DataOrResult<'_>) -> Result<(), ProtocolError> {
        let octets = match result {
            DataOrResult::Data(octets) => octets,
            DataOrResult::Result(_) => &[tag::NULL_DATA],
        };
        // One value and nothing behind it, so that the line is taken apart where it was put together.
        decode_value(octets, &self.profile.limits)?;
        if self.progress.answers.len() + octets.len() > self.profile.limits.reassembly {
            return Err(violation("transfer-over-limit", "the answers for one line are too long together".into()));
        }
        self.progress.answers.extend_from_slice(octets);
        Ok(())
    }

    /// If these were the item's last attributes, make its line from all answers.
    fn close_attributes(
        &mut self,
        attributes: &Attributes,
        mut head: Line,
        count: u16,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        if usize::from(self.progress.attribute + count) < attributes.attributes.len() {
            return Ok(());
        }
        let answers = std::mem::take(&mut self.progress.answers);
        let mark = cx.batch.mark();
        let mut reader = Reader::new(&answers);
        for index in 0..attributes.attributes.len() {
            let from = reader.offset();
            let cell = skip(&mut reader, &self.profile.limits)
                .and_then(|()| decode_cell(reader.since(from), attributes.layout, &self.profile.limits));
            match cell {
                Ok(cell) if attributes.capture_time == Some(index as u16) => {
                    let value = if let Cell::Raw(octets) = cell { octets } else { &[tag::NULL_DATA] };
                    let time = Data::from_octets(value, &self.profile.limits)?.as_date_time();
                    stamp(&mut head, time);
                }
                Ok(cell) => cx.batch.push_cell(cell),
                Err(error) => {
                    cx.batch.rewind(mark);
                    return Err(error);
                }
            }
        }
        cx.batch.close_line(head);
        Ok(())
    }

    /// The answer to a SET or an ACTION: an empty line, or one with the return parameters, or a refusal.
    fn take_verdict(
        &mut self,
        head: Line,
        result: u8,
        returned: Option<DataOrResult<'_>>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        if result != 0 {
            self.refused(&head, result, cx);
            return Ok(());
        }
        match returned {
            Some(DataOrResult::Data(octets)) => cx.batch.push_cell(decode_cell(octets, 0, &self.profile.limits)?),
            // Done, but the value that it should return cannot be read.
            Some(DataOrResult::Result(code)) if code != 0 => self.refused(&head, code, cx),
            _ => {}
        }
        cx.batch.close_line(head);
        Ok(())
    }

    /// The answer to a SET with-list: an empty line, or the results in order.
    fn take_verdicts(&mut self, head: Line, results: List<'_, u8>, limits: &Limits, cx: &mut Context<'_>) {
        if results.iter(limits).any(|result| result != 0) {
            for result in results.iter(limits) {
                cx.batch.push_cell(Cell::Integer(i64::from(result)));
                if result != 0 {
                    self.refused(&head, result, cx);
                }
            }
        }
        cx.batch.close_line(head);
    }

    fn refused(&mut self, head: &Line, code: u8, cx: &mut Context<'_>) {
        self.progress.refused = true;
        let refusal = ipss_session::batch::Refusal { meter: head.meter, request: head.request, item: head.item, code };
        cx.batch.refusals.push(refusal);
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
        let octets = match result {
            DataOrResult::Data(octets) => octets,
            DataOrResult::Result(_) => {
                // A *no* in the middle ends the transfer: nothing of it is a value.
                self.progress.blocks = Vec::new();
                self.progress.block = 0;
                self.answered(cx);
                self.take_value(item, head, result, cx)?;
                self.next_question(item, step, cx);
                return Ok(());
            }
        };
        let expected = self.progress.block + 1;
        if number != expected {
            return Err(violation("wrong-block", format!("block {number}, expected {expected}")));
        }
        if octets.is_empty() && !last {
            return Err(violation("empty-block", format!("block {number} has no octets and is not the last")));
        }
        if number > limits.blocks || self.progress.blocks.len() + octets.len() > limits.reassembly {
            let message = format!("a transfer of more than {} octets or {} blocks", limits.reassembly, limits.blocks);
            return Err(violation("transfer-over-limit", message));
        }
        self.progress.blocks.extend_from_slice(octets);
        self.progress.block = number;
        self.answered(cx);
        if !last {
            let frame = self.link.begin(cx.to_send, self.profile.client, self.profile.server);
            let start = cx.to_send.len();
            // A transfer keeps its invoke-id.
            let invoke = InvokeIdAndPriority::confirmed(self.invoke_id, false);
            get::encode_request_next(cx.to_send, invoke, number);
            self.sent(frame, start, step, cx);
            return Ok(());
        }
        let whole = std::mem::take(&mut self.progress.blocks);
        self.progress.block = 0;
        if self.progress.asked > 1 {
            let results = List::decode(&mut Reader::new(&whole), &limits)?;
            self.take_list(item, head, results, cx)?;
        } else {
            self.take_value(item, head, DataOrResult::Data(&whole), cx)?;
        }
        self.next_question(item, step, cx);
        Ok(())
    }

    /// An exception-response or confirmed-service-error, protected or not: it ends an exchange and gives no value.
    pub(super) fn take_exception(
        &mut self,
        apdu: &[u8],
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let (detail, counter) = if apdu.first() == Some(&tags::CONFIRMED_SERVICE_ERROR) {
            let error = ConfirmedServiceError::decode(apdu)?;
            let (group, name) = error.error_name().unwrap_or(("error", "unknown"));
            (format!("confirmed-service-error: {group}: {name}"), None)
        } else {
            let exception = ExceptionResponse::decode(apdu)?;
            let state = exception.state_error_name().unwrap_or("unknown state");
            let service = exception.service_error_name().unwrap_or("unknown error");
            (format!("exception-response: {state}, {service}"), exception.invocation_counter)
        };
        let kind = if counter.is_some() { EventKind::CounterBehind } else { EventKind::ProtocolViolation };
        cx.batch.event(self.meter, cx.now.wall, kind, counter.map_or(0, i64::from), detail.clone());
        // The meter does not say which question it means, and the association may be gone: start afresh, later.
        self.abandon(step, Outcome::Interrupted, detail);
        Ok(())
    }

    /// A notification that the meter sent by itself.
    pub(super) fn take_notification(&mut self, apdu: &[u8], cx: &mut Context<'_>) -> Result<(), ProtocolError> {
        let notification = DataNotification::decode(apdu)?;
        let mut line = Line {
            meter: self.meter,
            request: 0,
            item: 0,
            layout: 0,
            capture_time: WallTime::UNKNOWN,
            deviation: Line::NO_DEVIATION,
            clock_status: 0xFF,
        };
        stamp(&mut line, notification.date_time);
        let number = i64::from(notification.long_invoke_id_and_priority);
        cx.batch.event(self.meter, cx.now.wall, EventKind::Notified, number, "");
        cx.batch.push_line(line, [Cell::Raw(notification.body)]);
        Ok(())
    }
}

/// Set the line's time from the meter's own; unknown if it has none.
fn stamp(line: &mut Line, time: Option<DateTime>) {
    line.capture_time = time.and_then(DateTime::to_wall).unwrap_or(WallTime::UNKNOWN);
    line.deviation = time.and_then(DateTime::deviation).unwrap_or(Line::NO_DEVIATION);
    line.clock_status = time.and_then(DateTime::status).unwrap_or(0xFF);
}

/// A value as a cell of its line. A line without a layout is an answer for somebody who knows nothing of the attribute
/// but what is in it: its cells keep the value's octets, and with them its type.
fn decode_cell<'a>(octets: &'a [u8], layout: u32, limits: &Limits) -> Result<Cell<'a>, ProtocolError> {
    let cell = decode_value(octets, limits)?;
    Ok(if layout == 0 && cell != Cell::Null { Cell::Raw(octets) } else { cell })
}

fn violation(code: &'static str, message: String) -> ProtocolError {
    ProtocolError::remote("association", 0, code, message)
}
