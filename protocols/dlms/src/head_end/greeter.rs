//! Who dialled in? A public association asks for the logical device name, and ends.
//!
//! The name is a claim: it only says which meter's session is to ask for proof over the same connection. A peer that
//! pushes before it is asked names itself in the push (general-glo-ciphering, general-ciphering); the push stays for that session.

use std::sync::Arc;

use ipss_session::{Batch, Context, Input, Instant, Limits, Outcome, Priority, Request, Session, Step, Transport};

use super::{Attributes, Control, HeadEnd, Item, Plan, Unopened, Work};
use crate::axdr::Data;
use crate::cosem::{AttributeDescriptor, LogicalName};
use crate::profile::Profile;
use ipss_session::{Cell, WallTime};

/// A session for an inbound connection whose meter is not known yet.
#[derive(Debug)]
pub struct Greeter {
    inner: HeadEnd,
    /// Rows of the greeting are nobody's: they stay here.
    rows: Batch,
}

impl Default for Greeter {
    fn default() -> Self {
        Self { inner: HeadEnd::open(0, Arc::new(Profile::public())), rows: Batch::default() }
    }
}

impl Greeter {
    fn forward(&mut self, input: Input<'_, Work, Control>, cx: &mut Context<'_>) -> Step<Work> {
        let mut inner = Context { now: cx.now, random: cx.random, to_send: cx.to_send, batch: &mut self.rows };
        let mut step = self.inner.step(input, &mut inner);
        if let Some((_, outcome)) = step.finished.take() {
            step.identified = if outcome == Outcome::Done { self.name() } else { None };
            if step.identified.is_none() {
                step.transport = Transport::Close;
            }
        }
        step
    }

    fn name(&self) -> Option<Vec<u8>> {
        let cells = (!self.rows.lines.is_empty()).then(|| self.rows.cells(0))?;
        let [Cell::Raw(octets)] = cells[..] else { return None };
        let value = Data::from_octets(octets, &Limits::default()).ok()?;
        Some(value.as_octets()?.to_vec())
    }
}

impl Session for Greeter {
    type Work = Work;
    type Control = Control;

    fn step(&mut self, input: Input<'_, Work, Control>, cx: &mut Context<'_>) -> Step<Work> {
        match input {
            Input::Opened => {
                self.rows = Batch::default();
                let opened = self.forward(Input::Opened, cx);
                if opened.transport == Transport::Close {
                    return opened;
                }
                let name =
                    AttributeDescriptor { class_id: 1, logical_name: LogicalName::LOGICAL_DEVICE_NAME, attribute: 2 };
                let ask = Attributes { layout: 0, attributes: [name].into(), capture_time: None };
                let work = Work {
                    plan: Arc::new(Plan { items: [Item::Attributes(ask)].into() }),
                    from: WallTime(0),
                    to: WallTime(0),
                };
                let deadline = Instant(u64::MAX);
                let (priority, attempts_left, exchanges) = (Priority::OnDemand, 0, 0);
                self.forward(Input::Request(Request { id: 0, deadline, priority, attempts_left, exchanges, work }), cx)
            }
            Input::Request(request) => Step { finished: Some((request, Outcome::Impossible)), ..Step::wait(None) },
            Input::Bytes(octets) => match Unopened::first(octets) {
                // Nothing is consumed: the meter's own session opens the push.
                Some(push) => Step { identified: Some(push.system_title.to_vec()), ..Step::wait(None) },
                None => self.forward(Input::Bytes(octets), cx),
            },
            other => self.forward(other, cx),
        }
    }

    fn ready(&self) -> bool {
        false
    }

    fn associated(&self) -> bool {
        false
    }
}
