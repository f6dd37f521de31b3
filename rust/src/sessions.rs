//! The sessions that the head-end's reactor steps: one type over all protocols and roles of asking.

use ipss_dlms::head_end::{Control, Greeter, HeadEnd, Work};
use ipss_session::{Context, Input, Session, Step};

/// A peer of the head-end.
#[derive(Debug)]
pub enum Peer {
    /// A DLMS meter.
    Dlms(HeadEnd),
    /// An inbound connection whose meter is not known yet. Short-lived, so kept apart from the many.
    Greeter(Box<Greeter>),
}

impl Session for Peer {
    type Work = Work;
    type Control = Control;

    #[inline]
    fn step(&mut self, input: Input<'_, Work, Control>, cx: &mut Context<'_>) -> Step<Work> {
        match self {
            Self::Dlms(session) => session.step(input, cx),
            Self::Greeter(session) => session.step(input, cx),
        }
    }

    #[inline]
    fn ready(&self) -> bool {
        match self {
            Self::Dlms(session) => session.ready(),
            Self::Greeter(session) => session.ready(),
        }
    }

    #[inline]
    fn associated(&self) -> bool {
        match self {
            Self::Dlms(session) => session.associated(),
            Self::Greeter(session) => session.associated(),
        }
    }
}
