//! General block transfer: any APDU in pieces, in windows, with recovery of lost ones (Green Book, "General block
//! transfer mechanism"). Both roles, one direction at a time as requests and answers take turns.
//!
//! ```text
//! sender                              receiver
//!   1 streaming, 2 streaming, 3  -->  takes what comes in order
//!                                <--  acknowledges the last in order; its window says how many it takes next
//!   goes on behind what is acknowledged, sends what was lost again
//!   ... n, last                  -->  the APDU is whole
//! ```

use ipss_session::{Limits, ProtocolError};

use crate::apdu::GeneralBlock;

/// One transfer, from the first block of a question to the last one of its answer.
#[derive(Debug, Default)]
pub struct Transfer {
    /// The APDU that is sent, whole, until all of it is acknowledged.
    sending: Vec<u8>,
    /// Octets in a block.
    size: usize,
    /// The last of our blocks that the peer has in order.
    acknowledged: u16,
    /// Number of the last block of ours on the wire, acknowledgements included.
    number: u16,
    /// How many blocks the peer takes at once.
    peer_window: u8,
    /// How many we take at once.
    window: u8,
    receiving: Vec<u8>,
    /// The last of the peer's blocks that we have in order.
    in_order: u16,
}

/// What a block brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// More blocks of the window are to come.
    Wait,
    /// The peer waits for [`Transfer::give`].
    Turn,
    /// The peer's APDU is whole.
    Whole(Vec<u8>),
}

impl Transfer {
    /// Nothing to send yet: the first block comes from the peer.
    pub fn receive(window: u8) -> Self {
        Self { window, peer_window: 1, ..Self::default() }
    }

    /// Send `apdu` in blocks of at most `size` octets; the peer is believed to take one until it says more.
    pub fn send(apdu: Vec<u8>, size: usize, window: u8) -> Self {
        Self { sending: apdu, size: size.max(1), window, peer_window: 1, ..Self::default() }
    }

    /// Answer with `apdu` what came in blocks, or in no blocks.
    pub fn answer(&mut self, apdu: Vec<u8>, size: usize) {
        self.sending = apdu;
        self.size = size.max(1);
        self.acknowledged = 0;
        self.number = 0;
    }

    /// Whether something of ours is not acknowledged.
    pub fn is_sending(&self) -> bool {
        !self.sending.is_empty()
    }

    /// How many blocks came in order so far.
    pub fn received(&self) -> u16 {
        self.in_order
    }

    fn blocks(&self) -> usize {
        self.sending.len().div_ceil(self.size.max(1))
    }

    /// Whether `apdu` needs more blocks than can be numbered.
    pub fn is_too_long(length: usize, size: usize, limits: &Limits) -> bool {
        length.div_ceil(size.max(1)) > limits.blocks.min(u32::from(u16::MAX)) as usize
    }

    /// The next blocks, in order: those behind what is acknowledged, as many as the peer takes; or an acknowledgement.
    /// Called again, it repeats them.
    pub fn give(&mut self, mut emit: impl FnMut(&GeneralBlock<'_>)) {
        if !self.is_sending() {
            // Our own number goes on, so that the peer can tell one acknowledgement from another.
            self.number = self.number.wrapping_add(1).max(1);
            let (window, number, acknowledged) = (self.window, self.number, self.in_order);
            emit(&GeneralBlock { last: true, streaming: false, window, number, acknowledged, raw: &[] });
            return;
        }
        let first = usize::from(self.acknowledged);
        let end = self.blocks().min(first + usize::from(self.peer_window.max(1)));
        for place in first..end {
            let raw = &self.sending[place * self.size..self.sending.len().min((place + 1) * self.size)];
            self.number = (place + 1) as u16; // `is_too_long` bounds it
            emit(&GeneralBlock {
                last: place + 1 == self.blocks(),
                streaming: place + 1 < end,
                window: self.window,
                number: self.number,
                acknowledged: self.in_order,
                raw,
            });
        }
    }

    /// Take a block of the peer's.
    ///
    /// # Errors
    /// Remote: `transfer-over-limit`, `wrong-block` for an acknowledgement of what was never sent.
    pub fn take(&mut self, block: &GeneralBlock<'_>, limits: &Limits) -> Result<Taken, ProtocolError> {
        let wrong = |code, message: String| Err(ProtocolError::remote("apdu", 2, code, message));
        if block.window != 0 {
            self.peer_window = block.window;
        }
        if self.is_sending() {
            if usize::from(block.acknowledged) > self.blocks() {
                let message = format!("block {} acknowledged of {}", block.acknowledged, self.blocks());
                return wrong("wrong-block", message);
            }
            self.acknowledged = self.acknowledged.max(block.acknowledged);
            if usize::from(self.acknowledged) == self.blocks() {
                self.sending = Vec::new();
                self.number = self.acknowledged;
            }
        }
        // What a block without octets says is what it acknowledges; behind others it may be the last one all the same.
        let content = !block.raw.is_empty() || (block.last && !self.receiving.is_empty());
        if content && block.number == self.in_order.saturating_add(1) {
            let too_long = self.receiving.len() + block.raw.len() > limits.reassembly;
            if too_long || u32::from(block.number) > limits.blocks.min(u32::from(u16::MAX) - 1) {
                let message =
                    format!("a transfer of more than {} octets or {} blocks", limits.reassembly, limits.blocks);
                return wrong("transfer-over-limit", message);
            }
            self.receiving.extend_from_slice(block.raw);
            self.in_order = block.number;
            if block.last {
                return Ok(Taken::Whole(std::mem::take(&mut self.receiving)));
            }
        }
        // The window ends here, whether or not blocks of it were lost: what is in order is acknowledged.
        Ok(if block.streaming { Taken::Wait } else { Taken::Turn })
    }
}

/// Blocks of a push: unconfirmed, window 0. A lost block loses the push; it may begin again at any time.
#[derive(Debug, Default)]
pub struct Pushed {
    octets: Vec<u8>,
    number: u16,
}

impl Pushed {
    /// Take a block; the APDU once it is whole. `None` also for blocks behind a lost one, until the first comes again.
    pub fn take(&mut self, block: &GeneralBlock<'_>, limits: &Limits) -> Option<Vec<u8>> {
        if block.number == 1 {
            // The same first block twice, or a restart in the middle: both begin anew.
            self.octets.clear();
        } else if block.number == self.number && self.number != 0 {
            return None; // repeated
        } else if self.number == 0 || block.number != self.number.wrapping_add(1) {
            *self = Self::default();
            return None;
        }
        if self.octets.len() + block.raw.len() > limits.reassembly || u32::from(block.number) > limits.blocks {
            *self = Self::default();
            return None;
        }
        self.octets.extend_from_slice(block.raw);
        self.number = block.number;
        block.last.then(|| std::mem::take(self).octets)
    }
}

/// Cut a push into blocks that nobody acknowledges.
pub fn push(apdu: &[u8], size: usize, mut emit: impl FnMut(&GeneralBlock<'_>)) {
    let blocks = apdu.chunks(size.max(1));
    let count = blocks.len();
    for (place, raw) in blocks.enumerate() {
        let last = place + 1 == count;
        let number = (place + 1) as u16;
        emit(&GeneralBlock { last, streaming: !last, window: 0, number, acknowledged: 0, raw });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipss_session::rig::SeededRandom;

    type Wire = Vec<Vec<u8>>;

    fn given(transfer: &mut Transfer) -> Wire {
        let mut wire = Vec::new();
        transfer.give(|block| {
            let mut out = Vec::new();
            block.encode(&mut out);
            wire.push(out);
        });
        wire
    }

    /// Put blocks in front of a transfer, each lost with `loss` per mille.
    fn deliver(wire: &Wire, to: &mut Transfer, loss: u32, random: &mut SeededRandom) -> (bool, Option<Vec<u8>>) {
        let mut turn = false;
        for octets in wire {
            if random.chance(loss) {
                continue;
            }
            match to.take(&GeneralBlock::decode(octets).unwrap(), &Limits::default()).unwrap() {
                Taken::Wait => {}
                Taken::Turn => turn = true,
                Taken::Whole(apdu) => return (true, Some(apdu)),
            }
        }
        (turn, None)
    }

    #[test]
    fn lost_blocks_both_ways_are_sent_again_until_all_is_whole() {
        for seed in 0..300 {
            let random = &mut SeededRandom::new(seed);
            let length = 1 + random.below(3_000) as usize;
            let apdu: Vec<u8> = (0..length).map(|place| (place * 7 + seed as usize) as u8).collect();
            let mut near = Transfer::send(apdu.clone(), 1 + random.below(90) as usize, 5);
            let mut far = Transfer::receive(1 + random.below(20) as u8);
            let mut whole = None;

            for _ in 0..20_000 {
                let wire = given(&mut near); // at first, after an acknowledgement, and after waiting in vain
                whole = deliver(&wire, &mut far, 300, random).1;
                if whole.is_some() {
                    break;
                }
                let acknowledgement = given(&mut far);
                deliver(&acknowledgement, &mut near, 300, random);
            }

            assert_eq!(whole.as_deref(), Some(&apdu[..]), "seed {seed}");
        }
    }

    #[test]
    fn a_peer_that_acknowledges_what_was_never_sent_is_refused() {
        let mut transfer = Transfer::send(vec![1; 100], 10, 3);
        let block = GeneralBlock { last: true, streaming: false, window: 3, number: 1, acknowledged: 11, raw: &[] };

        assert_eq!(transfer.take(&block, &Limits::default()).unwrap_err().code, "wrong-block");
    }

    #[test]
    fn a_transfer_without_end_is_stopped_at_the_limits() {
        let limits = Limits { reassembly: 50, ..Limits::default() };
        let mut transfer = Transfer::receive(3);
        let block =
            |number| GeneralBlock { last: false, streaming: true, window: 3, number, acknowledged: 0, raw: &[1; 20] };

        assert_eq!(transfer.take(&block(1), &limits), Ok(Taken::Wait));
        assert_eq!(transfer.take(&block(2), &limits), Ok(Taken::Wait));
        assert_eq!(transfer.take(&block(3), &limits).unwrap_err().code, "transfer-over-limit");

        let mut transfer = Transfer::receive(3);
        let limits = Limits { blocks: 2, ..Limits::default() };
        assert_eq!(transfer.take(&block(1), &limits), Ok(Taken::Wait));
        assert_eq!(transfer.take(&block(2), &limits), Ok(Taken::Wait));
        assert_eq!(transfer.take(&block(3), &limits).unwrap_err().code, "transfer-over-limit");
    }

    #[test]
    fn a_push_restarted_in_the_middle_is_whole_and_one_with_a_hole_is_not() {
        let apdu: Vec<u8> = (0..100).collect();
        let mut wire = Vec::new();
        push(&apdu, 30, |block| {
            let mut out = Vec::new();
            block.encode(&mut out);
            wire.push(out);
        });
        let limits = Limits::default();
        let mut pushed = Pushed::default();
        let mut take = |place: usize| pushed.take(&GeneralBlock::decode(&wire[place]).unwrap(), &limits);

        for (order, whole) in [
            (&[0, 1, 2, 3][..], true),
            (&[0, 1, 0, 1, 2, 3], true),
            (&[0, 0, 1, 1, 2, 3], true),
            (&[1, 2, 3], false),
            (&[0, 2, 3], false),
            (&[0, 1, 3], false),
        ] {
            let mut found = None;
            for place in order {
                found = take(*place);
            }
            assert_eq!(found.as_deref(), whole.then_some(&apdu[..]), "{order:?}");
        }
    }
}
