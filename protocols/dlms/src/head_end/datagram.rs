//! Datagrams get lost: questions that may be repeated are asked again, a few times, before the line counts as broken.
//!
//! Asked again means asked anew: with a fresh invocation counter and the next invoke-id, so that a meter that got the
//! first one takes neither for a replay, and a late answer to the first one finds no question.
//!
//! They also come twice, and late. A copy is dropped and counted and costs nothing: under protection its counter shows
//! it, else the state of the association or the invoke-id. Nothing of it is used, so that it is no incident either;
//! over a stream, where copies do not happen by themselves, it is one.

use std::time::Duration;

use ipss_session::{Context, Outcome, ProtocolError, Request, Step};

use super::associate::PROTECTED_ERRORS;
use super::unsolicited::EARLY;
use super::{HeadEnd, Item, State, Work};
use crate::apdu::tags;

impl HeadEnd {
    /// How long to wait for an answer before it is asked for again, or given up.
    pub(super) fn patience(&self, limit: Duration) -> Duration {
        if self.link.is_lossy() { limit / (1 + u32::from(REPETITIONS)) } else { limit }
    }

    /// Whether an APDU of this kind belongs to another state of the association: a copy, or one that was late.
    pub(super) fn is_stray(&self, tag: u8) -> bool {
        let due = match self.state {
            State::Associating => {
                let error = matches!(tag, tags::EXCEPTION_RESPONSE | tags::CONFIRMED_SERVICE_ERROR);
                tag == tags::AARE || error || PROTECTED_ERRORS.contains(&tag) || EARLY.contains(&tag)
            }
            State::Proving if !self.profile.is_ciphered() => PROVING.contains(&tag),
            State::Releasing => tag != tags::AARE,
            _ => tag != tags::AARE && tag != tags::RLRE,
        };
        self.link.is_lossy() && !due
    }

    /// Whether an APDU with this mistake is passed over: it cannot be told from one that was sent twice or forged. An
    /// AARE's mistakes are the meter's, but for a counter that was there before: that makes it a copy.
    pub(super) fn passes_over(&self, error: &ProtocolError, tag: u8) -> bool {
        let unproven = match error.code {
            // A block that was there before; without protection nothing else tells it from the next.
            "replay" | "wrong-block" => true,
            "tag-invalid" | "weaker-security" | "broadcast-key" | "system-title" | "bad-ciphering"
            | "no-dedicated-key" => tag != tags::AARE,
            "unexpected-apdu" => self.state == State::Associating && tag != tags::AARE,
            _ => false,
        };
        unproven && self.link.is_lossy()
    }

    /// Whether an exception of this kind complains of a copy, not of what is on the wire: nothing is asked, or the meter
    /// expects a counter that was spent, or the next one, which it would after a copy of the last.
    pub(super) fn complains_of_another(&self, expected: Option<u32>) -> bool {
        let idle = self.state == State::Up && !self.asking;
        let near = |counter: u32| {
            let last = counter.saturating_sub(1);
            self.channel.as_ref().is_some_and(|channel| channel.counters().is_behind(last))
        };
        self.link.is_lossy() && (idle || expected.is_some_and(near))
    }

    /// A proof was wrong, or refused. Where the AARQ was sent again, the two ends may speak of different challenges: the
    /// association is begun once more, and nobody is blamed. False if there is no such excuse.
    pub(super) fn associate_again(&mut self, step: &mut Step<Work>, cx: &mut Context<'_>) -> bool {
        if !self.link.is_lossy() || self.repetitions == 0 {
            return false;
        }
        if !self.ask_again(step, cx) {
            self.abandon(step, Outcome::Interrupted, "answers to several AARQs were mixed up");
        }
        true
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

/// What may come in the clear while the meter's proof is awaited.
const PROVING: [u8; 4] =
    [tags::ACTION_RESPONSE, tags::READ_RESPONSE, tags::EXCEPTION_RESPONSE, tags::CONFIRMED_SERVICE_ERROR];
