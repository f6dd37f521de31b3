//! The same questions to a meter with short names (Green Book, "Read service", "Write service"). The association's
//! object list says which names stand for what; it is read once, before the first question, and kept.

use ipss_session::{Context, Outcome, ProtocolError, Step, WallTime};

use super::exchange::{Asked, violation};
use super::writing::Long;
use super::{HeadEnd, Item, Work};
use crate::apdu::initiate::Conformance;
use crate::apdu::list::{DataOrResult, Item as _, List};
use crate::apdu::selection::encode_optional;
use crate::apdu::short_name::{
    ReadResult, Variable, WriteResult, decode_read_response, decode_write_response, encode_read_request,
    encode_write_request,
};
use crate::apdu::tags;
use crate::axdr::{Reader, skip, tag, write_length};
use crate::cosem::{AttributeDescriptor, DataAccessResult, LogicalName, MethodDescriptor, ShortNames};

const UNDEFINED: u8 = DataAccessResult::ObjectUndefined as u8;

impl HeadEnd {
    /// As [`HeadEnd::encode_question`], with short names.
    pub(super) fn encode_short(
        &mut self,
        item: &Item,
        from: WallTime,
        to: WallTime,
        start: usize,
        cx: &mut Context<'_>,
    ) -> Asked {
        let Some(names) = self.names.clone() else {
            self.progress.asked = 0;
            self.progress.learning = true;
            encode_read_request(cx.to_send, [Variable::Name(ShortNames::OBJECT_LIST)].into_iter());
            return Asked::Question;
        };
        self.progress.asked = 1;
        match item {
            Item::Attributes(attributes) => {
                let rest = &attributes.attributes[usize::from(self.progress.part)..];
                let count = usize::from(self.list_length(rest.len()));
                // Up to the first that the meter does not have; that one is answered here.
                let known: Vec<u16> = rest[..count].iter().map_while(|one| attribute_name(&names, one)).collect();
                if known.is_empty() {
                    return self.no_such_name(item, cx);
                }
                self.progress.asked = known.len() as u16;
                encode_read_request(cx.to_send, known.into_iter().map(Variable::Name));
            }
            Item::Buffer(buffer) => {
                let descriptor = AttributeDescriptor { class_id: 7, logical_name: buffer.logical_name, attribute: 2 };
                let selection = match self.selection(&buffer.wanted, from, to) {
                    Ok(selection) => selection,
                    Err(why) => return Asked::Impossible(why),
                };
                let Some(name) = names.attribute(&descriptor) else { return self.no_such_name(item, cx) };
                let mut part = Vec::new();
                encode_optional(&mut part, selection.as_ref(), &self.profile.selection);
                let variable = match &part[..] {
                    [1, selector, parameter @ ..] => Variable::Parameterized { name, selector: *selector, parameter },
                    _ => Variable::Name(name),
                };
                encode_read_request(cx.to_send, [variable].into_iter());
            }
            Item::Set(values) => return self.encode_short_set(&names, values, true, cx),
            Item::Action(method, parameters) => {
                let Some(name) = method_name(&names, method) else { return self.no_such_name(item, cx) };
                encode_invocation(cx.to_send, name, parameters.as_deref());
            }
            Item::Actions(list) => {
                let Some((method, parameters)) = list.get(usize::from(self.progress.part)) else {
                    return Asked::Answered;
                };
                let Some(name) = method_name(&names, method) else { return self.no_such_name(item, cx) };
                encode_invocation(cx.to_send, name, parameters.as_deref());
            }
            Item::Access(_) => return Asked::Impossible("there is no ACCESS service with short names".into()),
            Item::Unconfirmed(inner) => {
                let Item::Set(values) = &**inner else {
                    return Asked::Impossible("with short names only a write can do without an answer".into());
                };
                return match self.encode_short_set(&names, values, false, cx) {
                    Asked::Question => Asked::Unconfirmed,
                    other => other,
                };
            }
        }
        self.cut_short(start, cx);
        Asked::Question
    }

    fn encode_short_set(
        &mut self,
        names: &ShortNames,
        values: &[(AttributeDescriptor, Box<[u8]>)],
        confirmed: bool,
        cx: &mut Context<'_>,
    ) -> Asked {
        let start = cx.to_send.len();
        let part = if confirmed { usize::from(self.progress.part) } else { 0 };
        let rest = values.get(part..).unwrap_or_default();
        let count = if !confirmed {
            rest.len()
        } else if self.may_list() {
            rest.len().min(usize::from(self.profile.with_list))
        } else {
            1
        };
        let named: Vec<(Variable<'_>, &[u8])> = rest[..count]
            .iter()
            .map_while(|(one, value)| attribute_name(names, one).map(|name| (Variable::Name(name), &value[..])))
            .collect();
        if !confirmed && named.len() < count {
            return Asked::Impossible("the meter's object list does not have all that is to be written".into());
        }
        if named.is_empty() {
            self.progress.answers.push(UNDEFINED);
            self.progress.asked = 1;
            self.close_verdicts(values.len(), cx);
            return Asked::Answered;
        }
        self.progress.asked = if confirmed { named.len() as u16 } else { 1 };
        encode_write_request(cx.to_send, confirmed, named.iter().copied());
        if !confirmed && !self.fits_one(cx.to_send.len() - start) {
            return Asked::Impossible("too long for one APDU, and an unconfirmed service has no blocks".into());
        }
        self.cut_short(start, cx);
        Asked::Question
    }

    /// Send a question that is too long in blocks, if the meter has those.
    fn cut_short(&mut self, start: usize, cx: &mut Context<'_>) {
        let room = self.room();
        let write = cx.to_send.get(start) == Some(&tags::WRITE_REQUEST);
        let bit = if write {
            Conformance::BLOCK_TRANSFER_WITH_SET_OR_WRITE
        } else {
            Conformance::BLOCK_TRANSFER_WITH_GET_OR_READ
        };
        if cx.to_send.len() - start <= room || !self.conformance.contains(bit) {
            return;
        }
        let mut octets = cx.to_send.split_off(start);
        octets.remove(0); // the tag; its list travels in blocks
        let mut long = Long::new(octets);
        encode_piece(cx.to_send, write, &mut long, room);
        self.progress.long = Some(Box::new(long));
    }

    /// The meter has no such object: say so as it would.
    fn no_such_name(&mut self, item: &Item, cx: &mut Context<'_>) -> Asked {
        self.progress.asked = 1;
        let head = self.head();
        let result = DataOrResult::Result(UNDEFINED);
        let told = match item {
            Item::Attributes(_) | Item::Buffer(_) => self.take_value(item, head, result, cx),
            Item::Actions(list) => {
                self.progress.answers.extend_from_slice(&[UNDEFINED, 0]);
                self.close_invoked(list.len(), cx)
            }
            _ => self.take_verdict(head, UNDEFINED, None, cx),
        };
        match told {
            Ok(()) => Asked::Answered,
            Err(error) => Asked::Impossible(error.to_string()),
        }
    }

    /// The answer to a question with short names.
    pub(super) fn take_short(
        &mut self,
        item: &Item,
        apdu: &[u8],
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let limits = self.profile.limits;
        let writes = matches!(item, Item::Set(_)) && !self.progress.learning;
        let service = apdu.first().copied().unwrap_or_default();
        if service != if writes { tags::WRITE_RESPONSE } else { tags::READ_RESPONSE } {
            self.unexpected(self.invoke_id, cx);
            return Ok(());
        }
        if writes {
            let results: Vec<WriteResult> = decode_write_response(apdu, &limits)?.iter(&limits).collect();
            return self.take_written(item, &results, step, cx);
        }
        let results: Vec<ReadResult<'_>> = decode_read_response(apdu, &limits)?.iter(&limits).collect();
        match results[..] {
            [ReadResult::BlockNumber(number)] => self.next_short_piece(number, false, step, cx),
            [ReadResult::Block { last, number, raw }] => {
                self.collect(last, u32::from(number), raw)?;
                self.answered(cx);
                if !last {
                    let frame = self.link.begin(cx.to_send, self.profile.client, self.profile.server);
                    let start = cx.to_send.len();
                    encode_read_request(cx.to_send, [Variable::BlockNumber(number)].into_iter());
                    self.sent(frame, start, step, cx);
                    return Ok(());
                }
                let whole = self.collected();
                let results = read_in_blocks(&whole, usize::from(self.progress.asked.max(1)), &limits)?;
                self.take_read(item, &results, step, cx)
            }
            _ => {
                self.answered(cx);
                self.progress.long = None;
                self.take_read(item, &results, step, cx)
            }
        }
    }

    /// Values for the question on the wire.
    fn take_read(
        &mut self,
        item: &Item,
        results: &[ReadResult<'_>],
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let mut values = Vec::with_capacity(results.len());
        for result in results {
            values.push(match *result {
                ReadResult::Data(octets) => DataOrResult::Data(octets),
                ReadResult::Error(code) => DataOrResult::Result(code),
                _ => return Err(violation("unexpected-answer", "blocks among values".into())),
            });
        }
        if std::mem::take(&mut self.progress.learning) {
            return self.learn(&values, step, cx);
        }
        let head = self.head();
        match (item, &values[..]) {
            (Item::Attributes(_) | Item::Buffer(_), [value]) if self.progress.asked == 1 => {
                self.take_value(item, head, *value, cx)?;
                self.next_question(item, step, cx);
                Ok(())
            }
            (Item::Attributes(_), values) => {
                self.take_whole_list(item, head, Ok((values.len(), values.iter().copied())), step, cx)
            }
            (Item::Action(..), [value]) => {
                let (result, returned) = outcome(*value);
                self.take_verdict(head, result, returned, cx)?;
                self.next_question(item, step, cx);
                Ok(())
            }
            (Item::Actions(list), [value]) => {
                let (result, returned) = outcome(*value);
                let outcome = crate::apdu::action::MethodOutcome { result, returned };
                crate::apdu::action::encode_outcome(&mut self.progress.answers, outcome);
                self.close_invoked(list.len(), cx)?;
                self.next_question(item, step, cx);
                Ok(())
            }
            _ => Err(violation("wrong-count", format!("{} values for a question after one", values.len()))),
        }
    }

    /// The object list: from now on, names are known.
    fn learn(
        &mut self,
        values: &[DataOrResult<'_>],
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        match values {
            [DataOrResult::Data(octets)] => {
                self.names = Some(ShortNames::from_object_list(octets, &self.profile.limits)?.into());
                self.ask(step, cx);
            }
            _ => self.finish(step, Outcome::Impossible, "the meter does not give the list of its short names"),
        }
        Ok(())
    }

    fn take_written(
        &mut self,
        item: &Item,
        results: &[WriteResult],
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        if let [WriteResult::BlockNumber(number)] = results {
            return self.next_short_piece(*number, true, step, cx);
        }
        let asked = usize::from(self.progress.asked);
        let mut codes = Vec::with_capacity(asked);
        for result in results {
            codes.push(match result {
                WriteResult::Success => 0,
                WriteResult::Error(code) => *code,
                WriteResult::BlockNumber(_) => {
                    return Err(violation("unexpected-answer", "blocks among results".into()));
                }
            });
        }
        // A *no* to a piece is one for all.
        if let ([code], true) = (&codes[..], self.progress.long.is_some()) {
            codes = vec![*code; asked];
        }
        if codes.len() != asked {
            return Err(violation("wrong-count", format!("{} results for {asked} values", codes.len())));
        }
        self.progress.long = None;
        self.answered(cx);
        self.progress.answers.extend_from_slice(&codes);
        self.close_verdicts(item.parts(), cx);
        self.next_question(item, step, cx);
        Ok(())
    }

    fn next_short_piece(
        &mut self,
        arrived: u16,
        write: bool,
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let room = self.room();
        let Some(long) = self.progress.long.as_mut().filter(|long| !long.is_given()) else {
            return Err(violation("unexpected-answer", "a word of a block that was not sent".into()));
        };
        if u32::from(arrived) != long.number() {
            return Err(violation("wrong-block", format!("block {arrived}, expected {}", long.number())));
        }
        let frame = self.link.begin(cx.to_send, self.profile.client, self.profile.server);
        let start = cx.to_send.len();
        encode_piece(cx.to_send, write, long, room);
        self.answered(cx);
        self.sent(frame, start, step, cx);
        Ok(())
    }

    /// What any meter with short names answers cheaply: the name of its association.
    pub(super) fn encode_short_sign_of_life(out: &mut Vec<u8>) {
        encode_read_request(out, [Variable::Name(ShortNames::ASSOCIATION)].into_iter());
    }

    /// Append the question that carries our HLS proof.
    pub(super) fn encode_short_proof(out: &mut Vec<u8>, parameters: &[u8]) {
        encode_invocation(out, ShortNames::REPLY_TO_HLS, Some(parameters));
    }

    /// The meter's HLS proof in its answer: result, and what it returned.
    pub(super) fn short_proof<'a>(
        apdu: &'a [u8],
        limits: &'a ipss_session::Limits,
    ) -> Result<(u8, Option<DataOrResult<'a>>), ProtocolError> {
        match decode_read_response(apdu, limits)?.iter(limits).next() {
            Some(ReadResult::Data(octets)) => Ok((0, Some(DataOrResult::Data(octets)))),
            Some(ReadResult::Error(code)) => Ok((code.max(1), None)),
            _ => Err(violation("unexpected-answer", "no answer to our HLS proof".into())),
        }
    }
}

/// The current association's own attributes have their names in every meter.
fn attribute_name(names: &ShortNames, descriptor: &AttributeDescriptor) -> Option<u16> {
    names.attribute(descriptor).or_else(|| {
        let own = descriptor.class_id == 12 && descriptor.logical_name == LogicalName::CURRENT_ASSOCIATION;
        let place = u16::try_from(descriptor.attribute).ok()?.checked_sub(1)?;
        own.then_some(ShortNames::ASSOCIATION + place * 8)
    })
}

fn method_name(names: &ShortNames, method: &MethodDescriptor) -> Option<u16> {
    names.method(method).or_else(|| {
        let own = method.class_id == 12 && method.logical_name == LogicalName::CURRENT_ASSOCIATION;
        let place = u16::try_from(method.method).ok()?.checked_sub(1)?;
        own.then_some(ShortNames::ASSOCIATION + 0x20 + place * 8)
    })
}

/// A method is invoked by reading its name, with its parameters if it has any.
fn encode_invocation(out: &mut Vec<u8>, name: u16, parameters: Option<&[u8]>) {
    let variable = match parameters {
        Some(parameter) => Variable::Parameterized { name, selector: 1, parameter },
        None => Variable::Name(name),
    };
    encode_read_request(out, [variable].into_iter());
}

/// Append the next piece of a long question.
fn encode_piece(out: &mut Vec<u8>, write: bool, long: &mut Long, room: usize) {
    if write {
        let block = long.next(room.saturating_sub(12));
        let variable = Variable::WriteBlock { last: block.last, number: block.number as u16 };
        let mut value = vec![tag::OCTET_STRING];
        write_length(&mut value, block.raw.len());
        value.extend_from_slice(block.raw);
        encode_write_request(out, true, [(variable, &value[..])].into_iter());
    } else {
        let block = long.next(room.saturating_sub(10));
        let variable = Variable::ReadBlock { last: block.last, number: block.number as u16, raw: block.raw };
        encode_read_request(out, [variable].into_iter());
    }
}

/// A method's answer: null-data is no return value.
fn outcome(value: DataOrResult<'_>) -> (u8, Option<DataOrResult<'_>>) {
    match value {
        DataOrResult::Result(code) => (code, None),
        DataOrResult::Data([tag::NULL_DATA]) => (0, None),
        data @ DataOrResult::Data(_) => (0, Some(data)),
    }
}

/// What came in blocks: of one variable its value alone, of several the list of results.
fn read_in_blocks<'a>(
    whole: &'a [u8],
    asked: usize,
    limits: &'a ipss_session::Limits,
) -> Result<Vec<ReadResult<'a>>, ProtocolError> {
    let mut reader = Reader::new(whole);
    if asked == 1 && skip(&mut reader, limits).is_ok() && reader.is_empty() {
        return Ok(vec![ReadResult::Data(whole)]);
    }
    let mut reader = Reader::new(whole);
    let list = List::<'_, ReadResult<'_>>::decode(&mut reader, limits);
    if let Ok(list) = list {
        if reader.is_empty() && list.len() == asked {
            return Ok(list.iter(limits).collect());
        }
    }
    let mut reader = Reader::new(whole);
    let result = ReadResult::decode(&mut reader, limits)?;
    reader.finish()?;
    Ok(vec![result])
}
