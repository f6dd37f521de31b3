//! The sessions that the head-end's reactor steps: one type over all protocols and roles of asking.

use ipss_dlms::head_end::{Control, Greeter, HeadEnd, Work};
use ipss_session::{Context, EventKind, Input, MeterId, Session, Step};

/// A peer of the head-end.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every peer is of the large one")]
pub enum Peer {
    /// A DLMS meter.
    Dlms(HeadEnd),
    /// An inbound connection whose meter is not known yet. Short-lived, so kept apart from the many.
    Greeter(Box<Greeter>),
    /// A DLMS meter whose octets somebody wants to see.
    Traced(Box<Traced>),
}

/// Reports every octet both ways as [`EventKind::Traced`].
#[derive(Debug)]
pub struct Traced {
    /// Whose octets they are.
    pub meter: MeterId,
    /// Its session.
    pub session: HeadEnd,
}

impl Traced {
    fn step(&mut self, mut input: Input<'_, Work, Control>, cx: &mut Context<'_>) -> Step<Work> {
        // The session deciphers in place: what arrived is noted before.
        let received = if let Input::Bytes(octets) = &mut input { octets.to_vec() } else { Vec::new() };
        let before = cx.to_send.len();
        let events = cx.batch.events.len();
        let step = self.session.step(input, cx);
        let sent = cx.to_send[before..].to_vec();
        let mut later = cx.batch.events.split_off(events);
        self.note(0, &received[..step.consumed.min(received.len())], cx);
        cx.batch.events.append(&mut later);
        self.note(1, &sent, cx);
        step
    }

    fn note(&self, number: i64, octets: &[u8], cx: &mut Context<'_>) {
        if !octets.is_empty() {
            let digits: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
            cx.batch.event(self.meter, cx.now.wall, EventKind::Traced, number, digits);
        }
    }
}

impl Session for Peer {
    type Work = Work;
    type Control = Control;

    #[inline]
    fn step(&mut self, input: Input<'_, Work, Control>, cx: &mut Context<'_>) -> Step<Work> {
        match self {
            Self::Dlms(session) => session.step(input, cx),
            Self::Greeter(session) => session.step(input, cx),
            Self::Traced(traced) => traced.step(input, cx),
        }
    }

    #[inline]
    fn ready(&self) -> bool {
        match self {
            Self::Dlms(session) => session.ready(),
            Self::Greeter(session) => session.ready(),
            Self::Traced(traced) => traced.session.ready(),
        }
    }

    #[inline]
    fn associated(&self) -> bool {
        match self {
            Self::Dlms(session) => session.associated(),
            Self::Greeter(session) => session.associated(),
            Self::Traced(traced) => traced.session.associated(),
        }
    }
}
