//! Faults that a virtual meter shows on request, so that tests and demonstrations see what real fleets do.

use std::time::Duration;

use ipss_session::{Context, Step, Transport};

use super::session::State;
use super::{Meter, Objects};

/// How a virtual meter misbehaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It behaves.
    #[default]
    None,
    /// Every answer comes this much later.
    Slow(Duration),
    /// It accepts connections and answers nothing.
    Silent,
    /// It closes the connection instead of giving every `n`th answer.
    Resets(u32),
    /// It does what an action-request says and closes the connection instead of answering.
    Reboots,
    /// Every `n`th protected answer has a wrong authentication tag.
    WrongTag(u32),
    /// Every `n`th protected answer is the one before, octet for octet.
    Replays(u32),
    /// Block transfers break off behind the first block: the next ones come empty and never say that they are last.
    TruncatedBlocks,
    /// It answers in the clear although the association is protected.
    Plaintext,
    /// It sends octets that are no frame.
    Garbage,
    /// Its answers say that another logical device sent them (wrapper).
    Impostor,
}

impl<O: Objects> Meter<O> {
    /// Do to the answer at `to_send[before..]` what the fault asks for.
    pub(super) fn misbehave(&mut self, before: usize, step: &mut Step<()>, cx: &mut Context<'_>) {
        if cx.to_send.len() == before || self.fault == Fault::None {
            return;
        }
        self.answers = self.answers.wrapping_add(1);
        let every = |n: u32| n != 0 && self.answers % n == 0;
        match self.fault {
            Fault::Slow(delay) => {
                let answer = cx.to_send.split_off(before);
                let at = self.delayed.as_ref().map_or(cx.now.monotonic + delay, |(at, _)| *at);
                let mut waiting = self.delayed.take().map(|(_, octets)| octets).unwrap_or_default();
                waiting.extend_from_slice(&answer);
                self.delayed = Some((at, waiting));
                step.deadline = Some(at);
            }
            Fault::Resets(n) if every(n) => {
                cx.to_send.truncate(before);
                step.transport = Transport::Close;
            }
            Fault::Reboots if std::mem::take(&mut self.acted) => {
                cx.to_send.truncate(before);
                step.transport = Transport::Close;
            }
            Fault::WrongTag(n) if every(n) && self.state == State::Up => {
                if let Some(octet) = cx.to_send.last_mut() {
                    *octet ^= 1;
                }
            }
            Fault::Replays(n) if self.state == State::Up => {
                if every(n) && !self.last_answer.is_empty() {
                    cx.to_send.truncate(before);
                    cx.to_send.extend_from_slice(&self.last_answer);
                } else {
                    self.last_answer = cx.to_send[before..].to_vec();
                }
            }
            Fault::Impostor => {
                // The low octet of the wrapper's source address.
                if let Some(octet) = cx.to_send.get_mut(before + 3) {
                    *octet ^= 1;
                }
            }
            Fault::TruncatedBlocks => self.transfer.truncate(),
            Fault::Garbage => {
                cx.to_send.truncate(before);
                let mut octets = [0; 32];
                cx.random.fill(&mut octets);
                cx.to_send.extend_from_slice(&octets);
            }
            _ => {}
        }
    }
}
