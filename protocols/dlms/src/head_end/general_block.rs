//! General block transfer on a standing association: what is too long for one APDU, and what a meter sends so (Green
//! Book, "General block transfer mechanism"; the state is in [`crate::block_transfer`]).

use std::time::Duration;

use ipss_session::{Context, Instant, ProtocolError, Step};

use super::{HeadEnd, State, Work};
use crate::apdu::GeneralBlock;
use crate::apdu::initiate::Conformance;
use crate::apdu::tags::{self, KeyKind};
use crate::block_transfer::{Pushed, Taken, Transfer};

/// What is kept while blocks are on their way.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// The question on the wire, and its answer.
    exchange: Option<Transfer>,
    /// A push, which the meter may send between its answer's blocks.
    pushed: Pushed,
    /// The peer's blocks travel inside protected APDUs, so ours do too.
    protected: bool,
    /// When to say again what may have been lost.
    again: Option<Instant>,
    tries: u8,
}

/// How often to say again what brought no block.
const TRIES: u8 = 5;

/// The part of the time for an answer after which it is said again.
const AGAIN: u32 = 8;

impl HeadEnd {
    /// Whether a question too long for one APDU may go in blocks of general block transfer.
    pub(super) fn may_block(&self) -> bool {
        self.conformance.contains(Conformance::GENERAL_BLOCK_TRANSFER) && self.profile.quirks.general_block_transfer
    }

    /// When blocks are to be said again.
    pub(super) fn blocks_due(&self) -> Option<Instant> {
        self.blocks.as_ref().filter(|_| self.asking).and_then(|blocks| blocks.again)
    }

    /// Forget the transfer: another question begins, or the connection is gone.
    pub(super) fn end_blocks(&mut self) {
        self.blocks = None;
    }

    /// Cut the complete APDU at `to_send[start..]` into blocks, if it is longer than the meter takes.
    pub(super) fn cut(&mut self, frame: usize, start: usize, cx: &mut Context<'_>) -> bool {
        let most = self.room() + self.profile.protection.overhead();
        if cx.to_send.len() - start <= self.largest_apdu() || !self.may_block() {
            return false;
        }
        let apdu = cx.to_send.split_off(start);
        cx.to_send.truncate(frame);
        let size = most - GeneralBlock::OVERHEAD;
        let exchange = Some(Transfer::send(apdu, size, self.profile.quirks.block_window));
        self.blocks = Some(Box::new(Blocks { exchange, ..Blocks::default() }));
        self.give_blocks(cx);
        true
    }

    /// Send the blocks that are next, or acknowledge those that came.
    fn give_blocks(&mut self, cx: &mut Context<'_>) {
        let Some(mut blocks) = self.blocks.take() else { return };
        if let Some(exchange) = &mut blocks.exchange {
            let mut wire = Vec::new();
            exchange.give(|block| {
                let mut octets = Vec::with_capacity(block.raw.len() + GeneralBlock::OVERHEAD);
                block.encode(&mut octets);
                wire.push(octets);
            });
            for octets in wire {
                let frame = self.link.begin(cx.to_send, self.profile.client, self.profile.server);
                let start = cx.to_send.len();
                cx.to_send.extend_from_slice(&octets);
                let sealed = blocks.protected.then(|| self.seal(KeyKind::Dedicated, frame, start, cx));
                if sealed.is_none_or(|sealed| sealed.is_ok()) {
                    let _ = self.link.finish(cx.to_send, frame, cx.now.monotonic);
                }
            }
        }
        let wait: Duration = self.profile.limits.answer / AGAIN;
        blocks.again = (blocks.tries < TRIES).then(|| cx.now.monotonic + wait);
        self.blocks = Some(blocks);
    }

    /// Nothing came for a while: say it again.
    pub(super) fn repeat_blocks(&mut self, cx: &mut Context<'_>) {
        if let Some(blocks) = &mut self.blocks {
            blocks.tries += 1;
            self.give_blocks(cx);
        }
    }

    /// A block; `protected` says whether it came inside a protected APDU.
    pub(super) fn take_general_block(
        &mut self,
        apdu: &[u8],
        protected: bool,
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let block = GeneralBlock::decode(apdu)?;
        let mut limits = self.profile.limits;
        // A proof may need blocks in a meter of small APDUs; nothing else before it.
        let proving = self.state == State::Proving;
        if proving {
            limits.reassembly = limits.apdu_before_association;
        }
        let window = self.profile.quirks.block_window;
        let blocks = self.blocks.get_or_insert_with(Box::default);
        if block.window == 0 && blocks.exchange.as_ref().is_none_or(|exchange| exchange.received() == 0) {
            // Window 0: the meter pushes, and wants no acknowledgement.
            return match blocks.pushed.take(&block, &limits) {
                Some(whole) => self.take_put_together(whole, protected, step, cx),
                None => Ok(()),
            };
        }
        if !proving && (!self.asking || self.state != State::Up) {
            self.unexpected(0, cx);
            return Ok(());
        }
        let exchange = blocks.exchange.get_or_insert_with(|| Transfer::receive(window));
        let taken = exchange.take(&block, &limits)?;
        blocks.protected |= protected;
        blocks.tries = 0;
        // As long as blocks come, the answer is on its way.
        self.since = cx.now.monotonic;
        match taken {
            Taken::Wait => {
                let wait = limits.answer / AGAIN;
                blocks.again = Some(cx.now.monotonic + wait);
                Ok(())
            }
            Taken::Turn => {
                self.give_blocks(cx);
                Ok(())
            }
            Taken::Whole(whole) => {
                self.blocks = None;
                self.take_put_together(whole, protected, step, cx)
            }
        }
    }

    fn take_put_together(
        &mut self,
        mut whole: Vec<u8>,
        protected: bool,
        step: &mut Step<Work>,
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        if whole.first() == Some(&tags::GENERAL_BLOCK_TRANSFER) {
            return Err(ProtocolError::remote("apdu", 0, "depth-over-limit", "blocks inside blocks"));
        }
        // What came inside protected APDUs is as good as they were; else it is opened as any APDU.
        if protected { self.take_plain(&whole, step, cx) } else { self.take_protected(&mut whole, step, cx) }
    }
}
