//! General block transfer, the answering end (Green Book, "General block transfer mechanism").

use ipss_session::{Context, Limits, ProtocolError};

use super::session::State;
use super::{Meter, Objects};
use crate::apdu::GeneralBlock;
use crate::apdu::initiate::Conformance;
use crate::apdu::tags;
use crate::block_transfer::{Taken, Transfer};

/// What is kept while blocks are on their way.
#[derive(Debug)]
pub(super) struct Blocks {
    transfer: Transfer,
    /// The last request that came whole, and its answer: a head-end that lost the answer says the request again.
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl<O: Objects> Meter<O> {
    /// Octets of the largest APDU that may be sent.
    pub(super) fn most(&self) -> usize {
        self.settings.largest_answer.min(self.client_max_pdu).max(64)
    }

    fn window(&self) -> u8 {
        self.profile().quirks.block_window
    }

    fn may_block(&self) -> bool {
        self.conformance.contains(Conformance::GENERAL_BLOCK_TRANSFER)
    }

    /// A block of a request, or the head-end's word on blocks of ours.
    pub(super) fn take_general_block(
        &mut self,
        apdu: &[u8],
        (client, server): (u16, u16),
        cx: &mut Context<'_>,
    ) -> Result<(), ProtocolError> {
        let block = GeneralBlock::decode(apdu)?;
        if !self.may_block() {
            return self.refuse(client, server, super::session::SERVICE_UNKNOWN, cx);
        }
        let window = self.window();
        let begins = block.number == 1 && !block.raw.is_empty();
        let mut blocks = match self.blocks.take() {
            Some(mut blocks) => {
                if begins && !blocks.request.is_empty() {
                    blocks.transfer = Transfer::receive(window);
                }
                blocks
            }
            None => {
                let transfer = Transfer::receive(window);
                Box::new(Blocks { transfer, request: Vec::new(), answer: Vec::new() })
            }
        };
        let mut limits = Limits::default();
        if self.state == State::Proving {
            // The head-end's proof, which may need blocks, and nothing else before it.
            limits.reassembly = limits.apdu_before_association;
        }
        match blocks.transfer.take(&block, &limits)? {
            Taken::Wait => {}
            Taken::Turn => self.give_blocks(&mut blocks, cx),
            Taken::Whole(mut whole) => {
                if whole == blocks.request {
                    blocks.transfer.answer(blocks.answer.clone(), self.most() - GeneralBlock::OVERHEAD);
                    self.give_blocks(&mut blocks, cx);
                } else if whole.first() == Some(&tags::GENERAL_BLOCK_TRANSFER) {
                    return Err(ProtocolError::remote("apdu", 0, "depth-over-limit", "blocks inside blocks"));
                } else {
                    blocks.request.clone_from(&whole);
                    // The answer to what came in blocks goes in blocks: `deliver` finds them here.
                    self.blocks = Some(blocks);
                    self.in_blocks = true;
                    let taken = self.take_apdu(&mut whole, client, server, cx);
                    self.in_blocks = false;
                    return taken;
                }
            }
        }
        self.blocks = Some(blocks);
        Ok(())
    }

    /// The protected answer at `to_send[start..]` is complete: send it, in blocks where that is wanted or needed.
    pub(super) fn deliver(&mut self, frame: usize, start: usize, cx: &mut Context<'_>) -> Result<(), ProtocolError> {
        let fits = cx.to_send.len() - start <= self.most();
        if !self.in_blocks && (fits || !self.may_block()) {
            return self.link.finish(cx.to_send, frame, cx.now.monotonic);
        }
        let answer = cx.to_send.split_off(start);
        cx.to_send.truncate(frame);
        let mut blocks = match self.blocks.take().filter(|_| self.in_blocks) {
            Some(blocks) => blocks,
            None => {
                let transfer = Transfer::receive(self.window());
                Box::new(Blocks { transfer, request: vec![0], answer: Vec::new() })
            }
        };
        blocks.answer.clone_from(&answer);
        blocks.transfer.answer(answer, self.most() - GeneralBlock::OVERHEAD);
        self.give_blocks(&mut blocks, cx);
        self.blocks = Some(blocks);
        Ok(())
    }

    fn give_blocks(&mut self, blocks: &mut Blocks, cx: &mut Context<'_>) {
        let (client, server) = (self.profile().client, self.profile().server);
        blocks.transfer.give(|block| {
            let frame = self.link.begin(cx.to_send, server, client);
            block.encode(cx.to_send);
            let _ = self.link.finish(cx.to_send, frame, cx.now.monotonic);
        });
    }
}
