//! Datagrams get lost: questions that may be repeated are asked again, a few times, before the line counts as broken.
//!
//! Asked again means asked anew: with a fresh invocation counter and the next invoke-id, so that a meter that got the
//! first one takes neither for a replay, and a late answer to the first one finds no question.

use std::time::Duration;

use ipss_session::{Context, ProtocolError, Request, Step};

use super::{HeadEnd, Item, State, Work};

impl HeadEnd {
    /// How long to wait for an answer before it is asked for again, or given up.
    pub(super) fn patience(&self, limit: Duration) -> Duration {
        if self.link.is_lossy() { limit / (1 + u32::from(REPETITIONS)) } else { limit }
    }

    /// Whether an APDU with this mistake is passed over: it cannot be told from one that was sent twice or forged.
    pub(super) fn passes_over(&self, error: &ProtocolError) -> bool {
        let unproven = matches!(error.code, "replay" | "tag-invalid" | "weaker-security");
        unproven && self.link.is_lossy() && self.state != State::Associating
    }

    /// Whether the question on the wire only reads.
    fn asks_what_may_be_repeated(&self) -> bool {
        let item = |request: &Request<Work>| {
            request.work.plan.items.get(usize::from(self.progress.item)).is_some_and(Item::is_repeatable)
        };
        self.current.as_ref().is_some_and(item)
    }

    /// No answer came in time: ask again if that helps and does no harm. False if it does not.
    pub(super) fn ask_again(&mut self, step: &mut Step<Work>, cx: &mut Context<'_>) -> bool {
        if !self.link.is_lossy() || self.repetitions >= REPETITIONS {
            return false;
        }
        match self.state {
            State::Associating | State::Proving => {
                let done = self.repetitions + 1;
                *step = self.associate(cx);
                self.repetitions = done;
            }
            State::Up if self.asks_what_may_be_repeated() => {
                self.repetitions += 1;
                self.asking = false;
                // A transfer begins again: which of its blocks are lost, nobody knows.
                self.progress.block = 0;
                self.progress.blocks.clear();
                self.ask(step, cx);
            }
            _ => return false,
        }
        true
    }
}

/// Times that a question is asked again.
const REPETITIONS: u8 = 3;
