//! Answers to questions, taken apart into rows.

use ipss_session::{Cell, Context, Limits, Line, ProtocolError, WallTime};

use super::exchange::violation;
use super::{Attributes, Buffer, HeadEnd, Item};
use crate::apdu::action::MethodOutcome;
use crate::apdu::list::{DataOrResult, Item as _};
use crate::axdr::{Data, DateTime, Reader, decode_buffer, decode_value, skip, tag};

impl HeadEnd {
    /// One value, or the meter's *no*, for the question on the wire.
    pub(super) fn take_value(
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
    pub(super) fn take_list<'a>(
        &mut self,
        item: &Item,
        mut head: Line,
        found: usize,
        results: impl Iterator<Item = DataOrResult<'a>>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let Item::Attributes(attributes) = item else {
            return Err(violation("unexpected-list", "a list for a question after one value".into()));
        };
        head.layout = attributes.layout;
        let count = self.progress.asked;
        if found != usize::from(count) {
            let message = format!("{found} values for a question after {count}");
            return Err(violation("wrong-count", message));
        }
        for result in results {
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
        if usize::from(self.progress.part + count) < attributes.attributes.len() {
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
    pub(super) fn take_verdict(
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

    /// The results of writing several attributes: an empty line, or the results in order.
    fn take_verdicts(&mut self, head: Line, results: &[u8], cx: &mut Context<'_>) {
        if results.iter().any(|result| *result != 0) {
            for result in results {
                cx.batch.push_cell(Cell::Integer(i64::from(*result)));
                if *result != 0 {
                    self.refused(&head, *result, cx);
                }
            }
        }
        cx.batch.close_line(head);
    }

    /// If these were the results of the last parts, say them.
    pub(super) fn close_verdicts(&mut self, parts: usize, cx: &mut Context<'_>) {
        if self.progress.answers.len() < parts {
            return;
        }
        let results = std::mem::take(&mut self.progress.answers);
        let head = self.head();
        match results[..] {
            [0] => cx.batch.close_line(head),
            [code] => self.refused(&head, code, cx),
            _ => self.take_verdicts(head, &results, cx),
        }
    }

    /// If these were the outcomes of the last methods, say them.
    pub(super) fn close_invoked(&mut self, parts: usize, cx: &mut Context<'_>) -> Result<(), ProtocolError> {
        if self.progress.answers.len() > self.profile.limits.reassembly {
            return Err(violation("transfer-over-limit", "the answers of the methods are too long together".into()));
        }
        if usize::from(self.progress.part + self.progress.asked) < parts {
            return Ok(());
        }
        let answers = std::mem::take(&mut self.progress.answers);
        let head = self.head();
        self.take_outcomes(head, &answers, parts, cx)
    }

    /// What several methods gave: a line with the return value of each, if any returned one.
    fn take_outcomes(
        &mut self,
        head: Line,
        outcomes: &[u8],
        count: usize,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let limits = self.profile.limits;
        let mut reader = Reader::new(outcomes);
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            let MethodOutcome { result, returned } = MethodOutcome::decode(&mut reader, &limits)?;
            let code = match returned {
                Some(DataOrResult::Result(code)) if result == 0 => code,
                _ => result,
            };
            if code != 0 {
                self.refused(&head, code, cx);
            }
            values.push(if let Some(DataOrResult::Data(octets)) = returned { Some(octets) } else { None });
        }
        if values.iter().any(Option::is_some) {
            for value in values {
                cx.batch.push_cell(value.map_or(Ok(Cell::Null), |octets| decode_cell(octets, 0, &limits))?);
            }
        }
        cx.batch.close_line(head);
        Ok(())
    }

    pub(super) fn refused(&mut self, head: &Line, code: u8, cx: &mut Context<'_>) {
        self.progress.refused = true;
        let refusal = ipss_session::batch::Refusal { meter: head.meter, request: head.request, item: head.item, code };
        cx.batch.refusals.push(refusal);
    }
}

/// Set the line's time from the meter's own; unknown if it has none.
pub(super) fn stamp(line: &mut Line, time: Option<DateTime>) {
    line.capture_time = time.and_then(DateTime::to_wall).unwrap_or(WallTime::UNKNOWN);
    line.deviation = time.and_then(DateTime::deviation).unwrap_or(Line::NO_DEVIATION);
    line.clock_status = time.and_then(DateTime::status).unwrap_or(0xFF);
}

/// A value as a cell of its line. A line without a layout is an answer for somebody who knows nothing of the attribute
/// but what is in it: its cells keep the value's octets, and with them its type.
pub(super) fn decode_cell<'a>(octets: &'a [u8], layout: u32, limits: &Limits) -> Result<Cell<'a>, ProtocolError> {
    let cell = decode_value(octets, limits)?;
    Ok(if layout == 0 && cell != Cell::Null { Cell::Raw(octets) } else { cell })
}
