//! Lists of reads, writes and invocations in one exchange (Green Book, "ACCESS service").

use ipss_session::{Cell, Context, ProtocolError, Step};

use super::exchange::{Asked, violation};
use super::rows::decode_cell;
use super::{Access, AccessList, HeadEnd, Item, Work};
use crate::apdu::LongInvokeId;
use crate::apdu::access::{self, AccessResponse, AccessSpecification};
use crate::apdu::initiate::Conformance;
use crate::axdr::{DateTime, tag, write_length};

impl HeadEnd {
    /// Append an access-request.
    pub(super) fn encode_access(&mut self, list: &AccessList, cx: &mut Context<'_>) -> Asked {
        self.progress.asked = 1;
        if !self.conformance.contains(Conformance::ACCESS) {
            return Asked::Impossible("the meter has no ACCESS service".into());
        }
        let mut bits = LongInvokeId::CONFIRMED | u32::from(self.invoke_id);
        if list.self_descriptive {
            bits |= LongInvokeId::SELF_DESCRIPTIVE;
        }
        if list.break_on_error {
            bits |= LongInvokeId::BREAK_ON_ERROR;
        }
        if self.same_invoke().is_high_priority() {
            bits |= LongInvokeId::HIGH_PRIORITY;
        }
        let date_time = Some(DateTime::from_wall(cx.now.wall, 0));
        access::begin_request(cx.to_send, LongInvokeId(bits), date_time, list.items.len());
        self.encode_specifications(list, cx.to_send);
        write_length(cx.to_send, list.items.len());
        for item in &list.items {
            cx.to_send.extend_from_slice(match item {
                Access::Set(_, value) => value,
                Access::Action(_, Some(parameters)) => parameters,
                Access::Get(..) | Access::Action(_, None) => access::NO_VALUE,
            });
        }
        Asked::Question
    }

    fn encode_specifications(&self, list: &AccessList, out: &mut Vec<u8>) {
        for item in &list.items {
            match item {
                Access::Get(descriptor, selection) => {
                    access::encode_get(out, descriptor, selection.as_ref(), &self.profile.selection);
                }
                Access::Set(descriptor, _) => access::encode_set(out, descriptor),
                Access::Action(method, _) => access::encode_action(out, method),
            }
        }
    }

    /// The answer: a line with a cell each.
    pub(super) fn take_access(
        &mut self,
        item: &Item,
        list: &AccessList,
        apdu: &[u8],
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let limits = self.profile.limits;
        let response = AccessResponse::decode(apdu, &limits)?;
        if response.results.len() != list.items.len() {
            let message = format!("{} results for {} questions", response.results.len(), list.items.len());
            return Err(violation("wrong-count", message));
        }
        let mut kinds = list.items.iter().zip(response.results.iter(&limits));
        let mut agree = kinds.all(|(item, result)| item.choice() == result.choice);
        if let Some(specifications) = response.specifications {
            agree &= list.items.iter().zip(specifications.iter(&limits)).all(|(item, said)| item.is(&said));
        }
        if !agree {
            return Err(violation(
                "unexpected-answer",
                "an ACCESS answered after something else than was asked".into(),
            ));
        }
        self.answered(cx);
        let head = self.head();
        let mark = cx.batch.mark();
        for (value, result) in response.values.iter(&limits).zip(response.results.iter(&limits)) {
            if result.result != 0 {
                self.refused(&head, result.result, cx);
            }
            let cell = if result.result != 0 || value == [tag::NULL_DATA] {
                Ok(Cell::Null)
            } else {
                decode_cell(value, 0, &limits)
            };
            match cell {
                Ok(cell) => cx.batch.push_cell(cell),
                Err(error) => {
                    cx.batch.rewind(mark);
                    return Err(error);
                }
            }
        }
        cx.batch.close_line(head);
        self.next_question(item, step, cx);
        Ok(())
    }
}

impl Access {
    /// Its choice among access-request-specifications, selection or none.
    fn choice(&self) -> u8 {
        match self {
            Self::Get(..) => 1,
            Self::Set(..) => 2,
            Self::Action(..) => 3,
        }
    }

    fn is(&self, said: &AccessSpecification<'_>) -> bool {
        match (self, said) {
            (Self::Get(asked, _), AccessSpecification::Get(said, _))
            | (Self::Set(asked, _), AccessSpecification::Set(said, _)) => asked == said,
            (Self::Action(asked, _), AccessSpecification::Action(said)) => asked == said,
            _ => false,
        }
    }
}
